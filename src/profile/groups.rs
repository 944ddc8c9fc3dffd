//! `groups`: servers and their checks.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::model::{Check, CheckKind, Group, GroupBalance, HttpExpect, Name, Pace, Server};

use super::fields::{Fields, named};
use super::finding::Findings;
use super::probes::{degraded, http_expect, one_kind, pace};
use super::tree::{Kind, Node};
use super::uplinks::MOST_WEIGHT;
use super::url::{host_name, is_path};
use super::{net, scalar};

pub(super) const KEYS: &[&str] = &["balance", "slow-start", "check", "servers"];
pub(super) const SERVER_KEYS: &[&str] = &["address", "port", "weight", "max-connections", "backup"];
pub(super) const CHECK_KEYS: &[&str] = &[
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
const CHECK_KINDS: &[&str] = &["icmp", "tcp", "http", "https", "tls", "dns", "udp"];

/// Most servers of one group: 8 bits of the connection mark.
const MOST: usize = 255;

pub(super) const BALANCE: &[(&str, GroupBalance)] = &[
    ("round-robin", GroupBalance::RoundRobin),
    ("weighted", GroupBalance::Weighted),
    ("least-connections", GroupBalance::LeastConnections),
    ("fastest", GroupBalance::Fastest),
    ("source-hash", GroupBalance::SourceHash),
];

/// What the section yields: each group with its place.
pub(super) type Groups<'t> = BTreeMap<Name, (Group, Node<'t>)>;

/// Reads the section.
pub(super) fn read<'t>(node: Node<'t>, out: &mut Findings) -> Groups<'t> {
    let entries = named(node, "group", out);
    if entries.is_empty() && node.kind() == Kind::Mapping {
        out.error_with(node, "no groups", "name one, or remove the key");
    }
    let mut all = BTreeMap::new();
    for (name, node) in entries {
        if let Some(group) = group(name.clone(), node, out) {
            all.insert(name, (group, node));
        }
    }
    all
}

fn group(name: Name, node: Node<'_>, out: &mut Findings) -> Option<Group> {
    let fields = Fields::read(node, KEYS, out)?;
    let balance = fields.get("balance", out);
    let balance = balance.and_then(|node| scalar::choice(node, "a way to balance", BALANCE, out));
    let slow_start = fields.get("slow-start", out);
    let hour = Duration::from_secs(3600);
    let slow_start = slow_start.and_then(|n| scalar::duration(n, Duration::ZERO..=hour, out));
    let check = fields.get("check", out).and_then(|node| check(node, out));
    let servers_node =
        fields.required("servers", "name at least one: `a: { address: 10.2.0.11 }`", out);
    let servers = servers_node.map_or_else(Vec::new, |node| servers(node, out));
    Some(Group {
        name,
        balance: balance.unwrap_or_default(),
        slow_start: slow_start.unwrap_or(Duration::from_secs(30)),
        check: check.unwrap_or_default(),
        servers,
    })
}

fn servers(node: Node<'_>, out: &mut Findings) -> Vec<Server> {
    let entries = named(node, "server", out);
    if entries.is_empty() && node.kind() == Kind::Mapping {
        out.error_with(node, "no servers", "name at least one: `a: { address: 10.2.0.11 }`");
    }
    if entries.len() > MOST {
        let message = format!("{} servers are more than {MOST}", entries.len());
        out.error_with(node, message, "divide them into groups");
    }
    let mut all: Vec<Server> = Vec::new();
    let mut seen = HashMap::new();
    for (name, node) in entries {
        let Some(server) = server(name, node, out) else {
            continue;
        };
        if let Some(other) = seen.insert((server.address, server.port), server.name.clone()) {
            let message = format!("server `{other}` has the same address and port");
            out.error_with(node, message, "remove one of them: use `weight` for a larger share");
        }
        all.push(server);
    }
    if !all.is_empty() && all.iter().all(|server| server.weight == 0) {
        out.error_with(node, "every server has the weight 0", "give one of them a weight");
    }
    all
}

fn server(name: Name, node: Node<'_>, out: &mut Findings) -> Option<Server> {
    let fields = Fields::read(node, SERVER_KEYS, out)?;
    let address = fields.required("address", "where it is: `address: 10.2.0.11`", out);
    let port = fields.get("port", out);
    let weight = fields.get("weight", out);
    let most = fields.get("max-connections", out);
    let backup = fields.get("backup", out);
    let address = address.and_then(|node| net::address(node, out));
    Some(Server {
        name,
        port: port.and_then(|node| net::port(node, out)),
        weight: weight.and_then(|node| scalar::number(node, 0..=MOST_WEIGHT, out)).unwrap_or(1),
        max_connections: most.and_then(|node| scalar::number(node, 1..=u32::MAX, out)),
        backup: backup.and_then(|node| scalar::boolean(node, out)).unwrap_or_default(),
        address: address?,
    })
}

fn check(node: Node<'_>, out: &mut Findings) -> Option<Check> {
    if node.kind() == Kind::Scalar {
        return short_check(node, out);
    }
    let fields = Fields::read(node, CHECK_KEYS, out)?;
    let kind = one_kind(&fields, CHECK_KINDS, out);
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

/// `tcp:` and `tcp: {}` are the same.
fn check_kind(kind: &str, node: Node<'_>, out: &mut Findings) -> Option<CheckKind> {
    let known: &'static [&'static str] = match kind {
        "icmp" => &[],
        "tcp" => &["port"],
        "tls" => &["port", "host"],
        "dns" => &["port", "query"],
        "udp" => &["port", "send", "expect"],
        _ => &["port", "path", "status", "body", "host"],
    };
    let fields = if node.is_null() { None } else { Some(Fields::read(node, known, out)?) };
    let mut get = |key: &str| fields.as_ref().and_then(|fields| fields.get(key, &mut *out));
    let (port, path, query) = (get("port"), get("path"), get("query"));
    let (send, expect, host) = (get("send"), get("expect"), get("host"));
    let port = port.and_then(|node| net::port(node, out));
    match kind {
        "icmp" => Some(CheckKind::Icmp),
        "tcp" => Some(CheckKind::Tcp { port }),
        "tls" => {
            let host = host.and_then(|node| host_name(node, out));
            Some(CheckKind::Tls { port, host })
        }
        "dns" => {
            let query = must(query, node, "query", "the name to ask for", out)?;
            Some(CheckKind::Dns { port, query: host_name(query, out)? })
        }
        "udp" => {
            let send = must(send, node, "send", "what is sent", out)?;
            let send = scalar::text(send, "text", out)?.to_owned();
            let expect = expect.and_then(|node| scalar::text(node, "text", out));
            Some(CheckKind::Udp { port, send, expect: expect.map(str::to_owned) })
        }
        scheme => Some(CheckKind::Http {
            tls: scheme == "https",
            port,
            path: path.map_or(Some("/".to_owned()), |node| http_path(node, out))?,
            expect: fields.map_or_else(ok, |fields| {
                let found = http_expect(&fields, out);
                HttpExpect { status: found.status.or(Some(200)), ..found }
            }),
        }),
    }
}

fn must<'t>(
    found: Option<Node<'t>>,
    node: Node<'t>,
    key: &str,
    hint: &str,
    out: &mut Findings,
) -> Option<Node<'t>> {
    if found.is_none() {
        out.error_with(node, format!("`{key}` is missing"), hint);
    }
    found
}

fn http_path(node: Node<'_>, out: &mut Findings) -> Option<String> {
    let text = node.text().unwrap_or_default();
    if text.starts_with('/') && is_path(text) {
        return Some(text.to_owned());
    }
    scalar::expected(node, "a path", "begin it with `/`: `/healthz`", out);
    None
}
