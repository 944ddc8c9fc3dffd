//! `check` of a group.

use std::time::Duration;

use crate::model::{Check, CheckKind, HttpExpect, Pace};

use super::fields::Fields;
use super::finding::Findings;
use super::probes::{degraded, http_expect, one_kind, pace};
use super::tree::{Kind, Node};
use super::url::{host_name, is_path};
use super::{net, scalar};

pub(super) const KEYS: &[&str] = &[
    "icmp",
    "tcp",
    "http",
    "https",
    "tls",
    "dns",
    "udp",
    "interval",
    "timeout",
    "fall",
    "rise",
    "hold-down",
    "degraded",
];
const KINDS: &[&str] = &["icmp", "tcp", "http", "https", "tls", "dns", "udp"];

/// Reads the block.
pub(super) fn read(node: Node<'_>, out: &mut Findings) -> Option<Check> {
    if node.kind() == Kind::Scalar {
        return short_check(node, out);
    }
    let fields = Fields::read(node, KEYS, out)?;
    let kind = one_kind(&fields, KINDS, out);
    let kind = kind.and_then(|kind| check_kind(kind, fields.raw(kind)?, out));
    let degraded = fields.get("degraded", out).and_then(|node| degraded(node, out));
    let hold_down = fields.get("hold-down", out);
    let hour = Duration::from_secs(3600);
    let hold_down = hold_down.and_then(|n| scalar::duration(n, Duration::ZERO..=hour, out));
    Some(Check {
        kind,
        pace: pace(&fields, Pace::CHECK, out),
        hold_down: hold_down.unwrap_or_default(),
        degraded,
    })
}

/// `check: tcp`: a kind that needs nothing else.
fn short_check(node: Node<'_>, out: &mut Findings) -> Option<Check> {
    let simple = [("icmp", ()), ("tcp", ()), ("http", ()), ("https", ()), ("tls", ())];
    scalar::choice(node, "a check", &simple, out)?;
    let kind = match node.text().unwrap_or_default() {
        "icmp" => CheckKind::Icmp,
        "tcp" => CheckKind::Tcp { port: None },
        "tls" => CheckKind::Tls { port: None, host: None },
        scheme => CheckKind::Http {
            tls: scheme == "https",
            port: None,
            path: "/".to_owned(),
            expect: ok(),
        },
    };
    Some(Check { kind: Some(kind), ..Check::default() })
}

fn ok() -> HttpExpect {
    HttpExpect { status: Some(200), ..HttpExpect::default() }
}

fn check_kind(kind: &str, node: Node<'_>, out: &mut Findings) -> Option<CheckKind> {
    match kind {
        "icmp" => block(node, &[], out).map(|_| CheckKind::Icmp),
        "tcp" => {
            let block = block(node, &["port"], out)?;
            let port = block.port(out);
            Some(CheckKind::Tcp { port })
        }
        "tls" => {
            let block = block(node, &["port", "host"], out)?;
            let (port, host) = (block.port(out), block.get("host", out));
            let host = host.and_then(|node| host_name(node, out));
            Some(CheckKind::Tls { port, host })
        }
        "dns" => {
            let block = block(node, &["port", "query"], out)?;
            let port = block.port(out);
            let query = block.required("query", "the name to ask for", out)?;
            let query = host_name(query, out)?;
            Some(CheckKind::Dns { port, query })
        }
        "udp" => udp(node, out),
        scheme => http(node, scheme == "https", out),
    }
}

fn udp(node: Node<'_>, out: &mut Findings) -> Option<CheckKind> {
    let block = block(node, &["port", "send", "expect"], out)?;
    let port = block.port(out);
    let expect = block.get("expect", out).and_then(|node| scalar::bytes(node, out));
    let send = block.required("send", "what is sent", out)?;
    Some(CheckKind::Udp { port, send: scalar::bytes(send, out)?, expect })
}

fn http(node: Node<'_>, tls: bool, out: &mut Findings) -> Option<CheckKind> {
    let block = block(node, &["port", "path", "status", "body", "host"], out)?;
    let port = block.port(out);
    let path = match block.get("path", out) {
        Some(node) => http_path(node, out)?,
        None => "/".to_owned(),
    };
    let found = block.fields.map(|fields| http_expect(&fields, out)).unwrap_or_default();
    let status = found.status.or(ok().status);
    Some(CheckKind::Http { tls, port, path, expect: HttpExpect { status, ..found } })
}

/// What stands under a kind: `tcp:` and `tcp: {}` are the same.
struct Block<'t> {
    node: Node<'t>,
    fields: Option<Fields<'t>>,
}

fn block<'t>(
    node: Node<'t>,
    known: &'static [&'static str],
    out: &mut Findings,
) -> Option<Block<'t>> {
    let fields = if node.is_null() { None } else { Some(Fields::read(node, known, out)?) };
    Some(Block { node, fields })
}

impl<'t> Block<'t> {
    fn get(&self, key: &str, out: &mut Findings) -> Option<Node<'t>> {
        self.fields.as_ref()?.get(key, out)
    }

    fn required(&self, key: &str, hint: &str, out: &mut Findings) -> Option<Node<'t>> {
        let found = self.get(key, out);
        let written = self.fields.as_ref().is_some_and(|fields| fields.raw(key).is_some());
        if found.is_none() && !written {
            out.error_with(self.node, format!("`{key}` is missing"), hint);
        }
        found
    }

    fn port(&self, out: &mut Findings) -> Option<u16> {
        let node = self.get("port", out)?;
        net::port(node, out)
    }
}

fn http_path(node: Node<'_>, out: &mut Findings) -> Option<String> {
    let text = node.text().unwrap_or_default();
    if text.starts_with('/') && is_path(text) {
        return Some(text.to_owned());
    }
    scalar::expected(node, "a path", "begin it with `/`: `/healthz`", out);
    None
}
