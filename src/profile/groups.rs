//! `groups`: servers and their checks.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::model::{Group, GroupBalance, Name, Server};

use super::fields::{Fields, named};
use super::finding::Findings;
use super::tree::{Kind, Node};
use super::uplinks::MOST_WEIGHT;
use super::{check, net, scalar};

pub(super) const KEYS: &[&str] = &["balance", "slow-start", "check", "servers"];
pub(super) const SERVER_KEYS: &[&str] = &["address", "port", "weight", "max-connections", "backup"];
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
    let check = fields.get("check", out).and_then(|node| check::read(node, out));
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
    let address = address.and_then(|node| net::host(node, out));
    Some(Server {
        name,
        port: port.and_then(|node| net::port(node, out)),
        weight: weight.and_then(|node| scalar::number(node, 0..=MOST_WEIGHT, out)).unwrap_or(1),
        max_connections: most.and_then(|node| scalar::number(node, 1..=u32::MAX, out)),
        backup: backup.and_then(|node| scalar::boolean(node, out)).unwrap_or_default(),
        address: address?,
    })
}
