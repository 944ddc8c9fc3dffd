//! A network namespace of its own for a test: made, used and gone with one thread.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::{Linux, Ranges};

/// The ranges that the tests use.
pub(super) const RANGES: Ranges = Ranges { first_priority: 10_000, first_table: 10_000 };

/// Runs a test in a new network namespace with `lo` up. Nothing of it reaches the host's.
pub(crate) fn stage<T: Send + 'static>(play: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            panic!("this test needs a network namespace of its own, so run it as root: {error}");
        }
        run("ip link set lo up");
        play()
    });
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Two ends of a cable, `wan0` with 192.0.2.2/24 and 2001:db8::2/64 on this side.
pub(super) fn plug_wan() {
    run("ip link add wan0 type veth peer name far0");
    run("ip addr add 192.0.2.2/24 dev wan0");
    run("ip addr add 2001:db8::2/64 dev wan0 nodad");
    run("ip link set wan0 up");
    run("ip link set far0 up");
}

/// The kernel as seen from this thread.
pub(super) fn linux() -> Linux {
    Linux::open(RANGES).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a command of the system's own tools and gives what it printed.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Bytes as a kernel sent them.
pub(super) fn captured(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}
