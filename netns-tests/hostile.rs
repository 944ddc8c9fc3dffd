//! Profiles made to do harm: an error, in 2 s and 100 MB.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Instant;

use homing::lab::Protocol;

use crate::harness::{Site, V4, homing, one_policy};

/// Bytes of address space, which is more than what is used of it.
const MOST_MEMORY: u64 = 100_000_000;

/// Of the processor, in seconds: others run beside it. Not optimised, the program is seven times slower.
const MOST_TIME: u64 = if cfg!(debug_assertions) { 14 } else { 2 };

/// As long as a file may be.
const LENGTH: usize = 4 << 20;

/// The piece again and again, until the file is as long as it may be.
fn full(head: &str, piece: impl Fn(usize) -> String) -> Vec<u8> {
    let mut text = head.to_owned();
    for number in 0.. {
        let more = piece(number);
        if text.len() + more.len() > LENGTH {
            break;
        }
        text += &more;
    }
    text.into_bytes()
}

/// Each name stands for nine of the one before.
fn laughs() -> Vec<u8> {
    let mut text = "version: 1\na0: &a0 [lol, lol]\n".to_owned();
    for number in 1..40 {
        let nine = vec![format!("*a{}", number - 1); 9].join(", ");
        let _ = writeln!(text, "a{number}: &a{number} [{nine}]");
    }
    text.into_bytes()
}

/// The same bytes in every run.
fn noise() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..LENGTH).map(|_| next()).collect()
}

fn same(piece: &'static str) -> impl Fn(usize) -> String {
    move |_| piece.to_owned()
}

/// What it is, the profile, a word of the first error.
fn profiles() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let uplinks = "version: 1\nuplinks:\n  a: { interface: wan0 }\n  b: { interface: wan1 }\n";
    let policies = |number| format!("- {{ name: p{number}, match: {{ to: [10.0.0.0/8] }} }}\n");
    let nested = (0..2800).map(|depth| " ".repeat(depth) + "a:\n").collect::<String>();
    vec![
        ("too long", vec![b'#'; LENGTH + 1], "larger than 4 MB"),
        ("brackets", full("", same("[")), "nested too deeply"),
        ("braces", full("", same("{a: ")), "nested too deeply"),
        ("dashes", full("", same("- ")), "nested too deeply"),
        ("blocks", nested.into_bytes(), "nested too deeply"),
        ("billion laughs", laughs(), "two million"),
        ("aliases", full("a: &a [x, y]\nb: [", same("*a,")), "two million"),
        ("items", full("", same("-\n")), "two million"),
        ("itself", b"version: 1\nuplinks: &a { b: *a }\n".to_vec(), "alias"),
        ("keys", full("version: 1\n", |n| format!("k{n}: x\n")), "unknown key"),
        ("a long key", full("version: 1\n", same("k")), "not YAML"),
        ("lines", full("", same("\n")), "empty"),
        ("policies", full(&format!("{uplinks}policies:\n"), policies), "more than 254"),
        ("zeros", vec![0; LENGTH], "not YAML"),
        ("noise", noise(), "UTF-8"),
        ("UTF-16", b"\xff\xfev\0e\0r\0s\0i\0o\0n\0".to_vec(), "UTF-8"),
        ("a program", fs::read(homing()).unwrap(), "4 MB"),
    ]
}

#[test]
fn a_profile_made_to_do_harm_is_an_error_soon_and_cheaply() {
    let file = std::env::temp_dir().join(format!("homing-hostile-{}.yaml", std::process::id()));
    for (what, bytes, word) in profiles() {
        fs::write(&file, bytes).unwrap();
        let begun = Instant::now();
        let memory = format!("--as={MOST_MEMORY}");
        let time = format!("--cpu={MOST_TIME}");
        let output = Command::new("/usr/bin/timeout")
            .args(["120", "/usr/bin/prlimit", &memory, &time, homing(), "check"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let head: String = said.chars().take(500).collect();
        assert_eq!(output.status.code(), Some(1), "{what}, {:?}: {head}", begun.elapsed());
        let error = said.lines().find(|line| line.contains(": error: ")).unwrap_or_default();
        assert!(error.contains(word), "{what}: `{word}` in {head}");
        assert!(said.len() < 100_000, "{what}: {} bytes of errors", said.len());
    }
    fs::remove_file(&file).unwrap();
}

/// The running process lives through them as well, and what is in force stays.
#[test]
fn a_reload_of_a_profile_made_to_do_harm_disturbs_nothing() {
    let site = Site::start(V4, &one_policy("uplinks: [cable]"));
    let mut sessions = site.open_many(Protocol::Tcp, 0..5);
    for (what, bytes, word) in profiles() {
        if !["brackets", "billion laughs", "blocks", "noise", "zeros", "itself"].contains(&what) {
            continue;
        }
        fs::write(site.profile_path(), bytes).unwrap();
        let refused = site.homing(&["reload"]);
        assert_eq!(refused.code, Some(1), "{what}: {refused:?}");
        assert!(refused.stderr.contains(word), "{what}: `{word}` in {refused:.2000?}");
        site.assert_stay(&mut sessions, what);
    }
    let now = site.status();
    assert_eq!((now["generation"].as_u64(), now["ready"].as_bool()), (Some(1), Some(true)));
    assert_eq!(site.way_of(7), "cable");
}
