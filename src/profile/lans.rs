//! `lans`.

use crate::model::{Lan, Name};

use super::fields::{Fields, list, named};
use super::finding::Findings;
use super::tree::{Kind, Node};
use super::{net, scalar};

pub(super) const KEYS: &[&str] = &["interface", "networks"];

/// Reads the section; each LAN with its place.
pub(super) fn read<'t>(node: Node<'t>, out: &mut Findings) -> Vec<(Lan, Fields<'t>)> {
    let entries = named(node, "LAN", out);
    if entries.is_empty() && node.kind() == Kind::Mapping {
        let hint = "name one, or remove the key: then every interface that is no uplink is inside";
        out.error_with(node, "no LANs", hint);
    }
    let mut all = Vec::new();
    for (name, node) in entries {
        let Some(fields) = Fields::read(node, KEYS, out) else {
            continue;
        };
        if let Some(lan) = lan(name, &fields, out) {
            all.push((lan, fields));
        }
    }
    all
}

fn lan(name: Name, fields: &Fields<'_>, out: &mut Findings) -> Option<Lan> {
    let interface = fields.required("interface", "name the network device: `interface: lan0`", out);
    let networks = fields.get("networks", out);
    let networks = networks.map_or_else(Vec::new, |node| list(node, out));
    let networks = networks.into_iter().filter_map(|item| net::network(item, out)).collect();
    Some(Lan {
        name,
        interface: interface.and_then(|node| scalar::interface(node, out))?,
        networks,
    })
}
