//! Reading host names and the two kinds of URL that probes use.

use std::net::{IpAddr, Ipv6Addr};

use crate::model::{Host, Url};

use super::finding::Findings;
use super::scalar::expected;
use super::tree::Node;

/// A DNS name (RFC 1123: letters, digits, hyphens, and the underscore that service names use).
pub(super) fn host_name(node: Node<'_>, out: &mut Findings) -> Option<String> {
    let text = node.text().unwrap_or_default();
    if is_host_name(text) {
        return Some(text.to_owned());
    }
    expected(node, "a host name", "for example example.com", out);
    None
}

fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(allowed);
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}

/// An `http://` or `https://` address without user, password or fragment.
pub(super) fn read(node: Node<'_>, out: &mut Findings) -> Option<Url> {
    let found = node.text().and_then(parse);
    if found.is_none() {
        let hint = "for example \"http://192.0.2.3/generate_204\"";
        expected(node, "an http or https address", hint, out);
    }
    found
}

fn parse(text: &str) -> Option<Url> {
    let (tls, rest) = match text.split_once("://")? {
        ("http", rest) => (false, rest),
        ("https", rest) => (true, rest),
        _ => return None,
    };
    let authority_ends = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(authority_ends)?;
    let (host, port) = host_and_port(authority)?;
    if !is_path(path) {
        return None;
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some(Url {
        tls,
        host,
        port: port.unwrap_or(if tls { 443 } else { 80 }),
        path: format!("{slash}{path}"),
    })
}

fn host_and_port(authority: &str) -> Option<(Host, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = match port.strip_prefix(':') {
            Some(port) => Some(number(port)?),
            None if port.is_empty() => None,
            None => return None,
        };
        return Some((Host::Address(IpAddr::V6(address)), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(number(port)?)),
        None => (authority, None),
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return Some((Host::Address(address), port));
    }
    is_host_name(host).then(|| (Host::Name(host.to_owned()), port))
}

fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|&port| port != 0)
}

/// Whether the text may stand in a request line: visible ASCII, no fragment.
pub(super) fn is_path(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}
