//! Reading addresses, prefixes, protocols, ports and code points.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::model::{Dscp, PortRange, Protocol};

use super::fields::{did_you_mean, list};
use super::finding::Findings;
use super::scalar::{expected, parse_number};
use super::text::shortened;
use super::tree::Node;

/// Protocols by name. `icmp` is [`Protocol::Icmp`], both families.
pub(super) const PROTOCOLS: &[(&str, Protocol)] = &[
    ("tcp", Protocol::TCP),
    ("udp", Protocol::UDP),
    ("icmp", Protocol::Icmp),
    ("sctp", Protocol::Number(132)),
    ("dccp", Protocol::Number(33)),
    ("udplite", Protocol::Number(136)),
    ("esp", Protocol::Number(50)),
    ("ah", Protocol::Number(51)),
    ("gre", Protocol::Number(47)),
    ("igmp", Protocol::Number(2)),
    ("ipip", Protocol::Number(4)),
    ("ospf", Protocol::Number(89)),
];

/// An address of either family.
pub(super) fn address(node: Node<'_>, out: &mut Findings) -> Option<IpAddr> {
    let text = node.text().unwrap_or_default();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let hint = if text.contains('/') {
        "an address alone, without a prefix length"
    } else {
        "for example 192.0.2.1 or \"2001:db8::1\""
    };
    expected(node, "an address", hint, out);
    None
}

/// A prefix of either family; an address alone is the prefix of that host.
pub(super) fn prefix(node: Node<'_>, out: &mut Findings) -> Option<IpNet> {
    let text = node.text().unwrap_or_default();
    let Some(net) = parse_prefix(text) else {
        let hint = "for example 192.0.2.0/24 or \"2001:db8::/32\"";
        expected(node, "a prefix", hint, out);
        return None;
    };
    if net.trunc() == net {
        return Some(net);
    }
    let hint = format!("did you mean the network `{}`, or the host `{}`?", net.trunc(), net.addr());
    out.error_with(node, format!("`{net}` has bits set after its prefix"), hint);
    None
}

/// A prefix that belongs to somebody: not every address there is.
pub(super) fn network(node: Node<'_>, out: &mut Findings) -> Option<IpNet> {
    let net = prefix(node, out)?;
    if net.prefix_len() > 0 {
        return Some(net);
    }
    let hint = "name the networks that are there";
    out.error_with(node, format!("`{net}` is every address"), hint);
    None
}

/// The address of one host.
pub(super) fn host(node: Node<'_>, out: &mut Findings) -> Option<IpAddr> {
    let address = address(node, out)?;
    let what = match address {
        _ if address.is_unspecified() => "no address",
        _ if address.is_loopback() => "this machine",
        _ if address.is_multicast() => "a multicast group",
        IpAddr::V4(v4) if v4.is_broadcast() => "a broadcast address",
        _ => return Some(address),
    };
    out.error_with(node, format!("`{address}` is {what}"), "the address of one host is needed");
    None
}

/// A prefix, or an address as the prefix of that host.
pub(super) fn parse_prefix(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(host) => Some(IpNet::from(host)),
        Err(_) => text.parse().ok(),
    }
}

/// One prefix or a list of them.
pub(super) fn prefixes(node: Node<'_>, out: &mut Findings) -> Vec<IpNet> {
    list(node, out).into_iter().filter_map(|item| prefix(item, out)).collect()
}

/// An address and a port.
pub(super) fn socket(node: Node<'_>, out: &mut Findings) -> Option<SocketAddr> {
    let text = node.text().unwrap_or_default();
    let parsed = text.parse::<SocketAddr>().ok().filter(|socket| socket.port() != 0);
    if parsed.is_none() {
        let hint = "for example \"192.0.2.1:443\" or \"[2001:db8::1]:443\"";
        expected(node, "an address and a port", hint, out);
    }
    parsed
}

/// One protocol or a list of them.
pub(super) fn protocols(node: Node<'_>, out: &mut Findings) -> Vec<Protocol> {
    let items = list(node, out);
    items.into_iter().filter_map(|item| protocol(item, out)).collect()
}

/// A protocol, by name or number.
pub(super) fn protocol(node: Node<'_>, out: &mut Findings) -> Option<Protocol> {
    let text = node.text().unwrap_or_default();
    if let Some((_, protocol)) = PROTOCOLS.iter().find(|(name, _)| *name == text) {
        return Some(*protocol);
    }
    if let Some(number) = parse_number(text).and_then(|number| u8::try_from(number).ok()) {
        return Some(Protocol::Number(number));
    }
    let names = || PROTOCOLS.iter().map(|(name, _)| *name);
    let hint = match text {
        "any" | "all" => "leave `protocol` out for every protocol".to_owned(),
        "icmpv6" | "icmp6" | "ipv6-icmp" => "`icmp` is the one of both families".to_owned(),
        _ => did_you_mean(text, names(), out).unwrap_or_else(|| {
            format!("a number from 0 to 255, or {}", super::text::choices(names()))
        }),
    };
    expected(node, "a protocol", &hint, out);
    None
}

/// A protocol as a profile writes it.
pub(super) fn protocol_name(protocol: Protocol) -> String {
    let named = PROTOCOLS.iter().find(|(_, other)| *other == protocol);
    match (named, protocol) {
        (Some((name, _)), _) => (*name).to_owned(),
        (None, Protocol::Number(number)) => number.to_string(),
        (None, Protocol::Icmp) => "icmp".to_owned(),
    }
}

/// One port or range, or a list of them.
pub(super) fn ports(node: Node<'_>, out: &mut Findings) -> Vec<PortRange> {
    let items = list(node, out);
    items.into_iter().filter_map(|item| port_range(item, out)).collect()
}

fn port_range(node: Node<'_>, out: &mut Findings) -> Option<PortRange> {
    let text = node.text().unwrap_or_default();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|&port| port != 0);
    let (Some(first), Some(last)) = (port(first), port(last)) else {
        let hint = "a number from 1 to 65535, or a range like \"10000-20000\"";
        expected(node, "a port", hint, out);
        return None;
    };
    if first > last {
        let message = format!("the range `{}` ends before it begins", shortened(text));
        out.error_with(node, message, format!("did you mean \"{last}-{first}\"?"));
        return None;
    }
    Some(PortRange { first, last })
}

/// A single port.
pub(super) fn port(node: Node<'_>, out: &mut Findings) -> Option<u16> {
    let port = super::scalar::number(node, 1..=65_535, out)?;
    u16::try_from(port).ok()
}

/// `protocol` and `ports` of one entry: ports without a protocol mean TCP and UDP.
pub(super) fn protocols_and_ports(
    protocol: Option<Node<'_>>,
    ports_node: Option<Node<'_>>,
    out: &mut Findings,
) -> (Vec<Protocol>, Vec<PortRange>) {
    let mut found = protocol.map_or_else(Vec::new, |node| protocols(node, out));
    let Some(ports_node) = ports_node else {
        return (found, Vec::new());
    };
    if protocol.is_none() {
        found = vec![Protocol::TCP, Protocol::UDP];
    }
    if let Some(portless) = found.iter().find(|protocol| !protocol.has_ports()) {
        let name = protocol_name(*portless);
        let hint = "remove `ports`, or name only tcp, udp, sctp, dccp or udplite";
        out.error_with(ports_node.key(), format!("`{name}` has no ports"), hint);
    }
    (found, ports(ports_node, out))
}

/// One code point or a list of them.
pub(super) fn code_points(node: Node<'_>, out: &mut Findings) -> Vec<Dscp> {
    let items = list(node, out);
    items.into_iter().filter_map(|item| code_point(item, out)).collect()
}

fn code_point(node: Node<'_>, out: &mut Findings) -> Option<Dscp> {
    let text = node.text().unwrap_or_default();
    let found = parse_number(text)
        .and_then(|number| u8::try_from(number).ok())
        .filter(|&number| number < 64)
        .or_else(|| named_code_point(text));
    if found.is_none() {
        let hint =
            "a number from 0 to 63, or `ef`, `cs0` to `cs7`, `af11` to `af43`, `be`, `le`, `va`";
        expected(node, "a code point", hint, out);
    }
    found.map(Dscp)
}

/// RFC 2474, 2597, 3246, 5865 and 8622.
fn named_code_point(text: &str) -> Option<u8> {
    match text.as_bytes() {
        b"ef" => Some(46),
        b"va" => Some(44),
        b"be" => Some(0),
        b"le" => Some(1),
        [b'c', b's', class @ b'0'..=b'7'] => Some((class - b'0') * 8),
        [b'a', b'f', class @ b'1'..=b'4', drop @ b'1'..=b'3'] => {
            Some((class - b'0') * 8 + (drop - b'0') * 2)
        }
        _ => None,
    }
}
