//! How much each device has carried.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::model::IfName;

/// Bytes received and sent by each device of this thread's network namespace, since it was made
/// (`proc_pid_net(5)`, `/proc/net/dev`).
///
/// # Errors
/// When `/proc` cannot be read.
pub fn read_device_bytes() -> io::Result<BTreeMap<IfName, (u64, u64)>> {
    Ok(parse(&fs::read_to_string("/proc/thread-self/net/dev")?))
}

/// How many sessions connection tracking holds in this thread's network namespace, and how many it
/// may hold (`Documentation/networking/nf_conntrack-sysctl.rst`).
///
/// # Errors
/// When `/proc` cannot be read.
pub fn read_fill() -> io::Result<(u64, u64)> {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"))?;
        text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    };
    Ok((read("count")?, read("max")?))
}

fn parse(text: &str) -> BTreeMap<IfName, (u64, u64)> {
    let line = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let mut figures = figures.split_ascii_whitespace();
        let received = figures.next()?.parse().ok()?;
        let sent = figures.nth(7)?.parse().ok()?;
        Some((IfName::new(name.trim()).ok()?, (received, sent)))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_ninth_figure_is_what_was_sent() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets\n\
                    \x20 wan0: 1500 3 0 0 0 0 0 0 900 2 0 0 0 0 0 0\n";
        let bytes = parse(text);
        assert_eq!(bytes.into_values().collect::<Vec<_>>(), [(1500, 900)]);
    }
}
