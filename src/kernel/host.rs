//! Reading what other software has set up, for `doctor`: at leisure.
//!
//! Nothing here is an error: what cannot be read is left out, or told as such.

mod listing;
mod networkd;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use nix::sys::utsname::uname;

use super::rtnl::Rtnl;
use crate::kstate::Host;
use crate::model::IfName;

/// Reads everything.
pub fn read_host() -> Host {
    let listed = listing::list();
    let networkd_here = networkd::shares_our_namespace(Path::new("/proc"));
    Host {
        unlisted: listed.as_ref().err().cloned(),
        tables: listed.unwrap_or_default(),
        legacy_tables: legacy_tables(),
        networkd_removes: match networkd_here {
            true => networkd::settings(Path::new("/")),
            false => Vec::new(),
        },
        listening: listening(),
        sessions: sessions(),
        filtered_bridges: filtered_bridges(),
        resolvers: resolvers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        kernel: uname().ok().and_then(|kernel| release(kernel.release().to_str()?)),
    }
}

/// `nameserver ADDRESS`, in resolv.conf(5).
fn resolvers(text: &str) -> Vec<IpAddr> {
    let address = |line: &str| line.strip_prefix("nameserver")?.trim().parse().ok();
    text.lines().filter_map(address).collect()
}

/// Of this thread's network namespace.
fn filtered_bridges() -> Vec<IfName> {
    let filters = |kind: &&str| number(&format!("net/bridge/bridge-nf-call-{kind}")) == Some(1);
    if !["iptables", "ip6tables"].iter().any(filters) {
        return Vec::new();
    }
    Rtnl::open().ok().and_then(|mut rtnl| rtnl.bridges().ok()).unwrap_or_default()
}

/// `6.1.0-28-amd64`
fn release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// `iptables NAME` and `ip6tables NAME`, of this thread's network namespace.
fn legacy_tables() -> Vec<String> {
    let mut all = Vec::new();
    for (file, program) in [("ip_tables_names", "iptables"), ("ip6_tables_names", "ip6tables")] {
        let path = Path::new("/proc/thread-self/net").join(file);
        let names = std::fs::read_to_string(path).unwrap_or_default();
        all.extend(names.lines().map(|name| format!("{program} {name}")));
    }
    all.sort_unstable();
    all
}

fn number(setting: &str) -> Option<u64> {
    let path = Path::new("/proc/sys").join(setting);
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn sessions() -> Option<(u64, u64)> {
    let sysctl = |name: &str| number(&format!("net/netfilter/nf_conntrack_{name}"));
    Some((sysctl("count")?, sysctl("max")?))
}

/// Of this thread's network namespace.
fn listening() -> Vec<(&'static str, SocketAddr)> {
    /// `TCP_LISTEN`, and `TCP_CLOSE`, which UDP sockets are in until they are connected.
    const KINDS: [(&str, &str); 2] = [("tcp", "0A"), ("udp", "07")];
    let mut all = Vec::new();
    for (protocol, state) in KINDS {
        for suffix in ["", "6"] {
            let file = format!("/proc/thread-self/net/{protocol}{suffix}");
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let sockets = text.lines().skip(1).filter_map(|line| socket(line, state));
            all.extend(sockets.map(|socket| (protocol, socket)));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// A line of `/proc/net/tcp` and its like: `0: 0100007F:0016 00000000:0000 0A …`
fn socket(line: &str, wanted: &str) -> Option<SocketAddr> {
    let mut words = line.split_whitespace();
    let (address, port) = words.nth(1)?.split_once(':')?;
    (words.nth(1)? == wanted).then_some(())?;
    let word = |index: usize| {
        let part = address.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(part, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        _ => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).into()
        }
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::socket;

    #[test]
    fn sockets_are_read_with_address_port_and_state() {
        let line = "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000";
        assert_eq!(socket(line, "0A"), "127.0.0.1:22".parse().ok());
        assert_eq!(socket(line, "07"), None);
        let six =
            "   1: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 0A";
        assert_eq!(socket(six, "0A"), "[::]:53".parse().ok());
    }
}
