//! `uplinks`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Bandwidth, Family, Gateway, Name, NatMode, Probe, Uplink, UplinkId};

use super::fields::{Fields, list_or_none, named};
use super::finding::Findings;
use super::names::{Names, reference};
use super::tree::{Kind, Node};
use super::{net, probes, scalar};

pub(super) const KEYS: &[&str] = &[
    "interface",
    "gateway",
    "gateway6",
    "bandwidth",
    "weight",
    "probe",
    "nat",
    "prefixes",
    "metered",
    "id",
];

/// Largest weight of an uplink or server.
pub(super) const MOST_WEIGHT: u32 = 1_000_000;

pub(super) const NAT: &[(&str, NatMode)] =
    &[("auto", NatMode::Auto), ("always", NatMode::Always), ("never", NatMode::Never)];

/// What the section yields.
#[derive(Default)]
pub(super) struct Uplinks<'t> {
    /// In the order of the file.
    pub(super) uplinks: Vec<Uplink>,
    /// Each one's place, in the same order.
    pub(super) nodes: Vec<Fields<'t>>,
    /// Inline probes, under their uplinks' names.
    pub(super) probes: Vec<Probe>,
}

/// Reads the section.
pub(super) fn read<'t>(node: Node<'t>, names: &Names, out: &mut Findings) -> Uplinks<'t> {
    let mut all = Uplinks::default();
    let entries = named(node, "uplink", out);
    if entries.is_empty() && node.kind() == Kind::Mapping {
        let hint = "name at least two, each with its interface: `fiber: { interface: wan0 }`";
        out.error_with(node, "no uplinks", hint);
    }
    for (name, node) in entries {
        let Some(fields) = Fields::read(node, KEYS, out) else {
            continue;
        };
        let uplink = uplink(name, &fields, names, &mut all.probes, out);
        if let Some(uplink) = uplink {
            all.uplinks.push(uplink);
            all.nodes.push(fields);
        }
    }
    all
}

fn uplink(
    name: Name,
    fields: &Fields<'_>,
    names: &Names,
    inline: &mut Vec<Probe>,
    out: &mut Findings,
) -> Option<Uplink> {
    let hint = "name the network device: `interface: wan0`";
    let interface = fields.required("interface", hint, out);
    let interface = interface.and_then(|node| scalar::interface(node, out));
    let mut gateway = |key: &str, family| {
        let node = fields.get(key, out)?;
        gateway_of(node, family, out)
    };
    let gateways = [("gateway", Family::V4), ("gateway6", Family::V6)];
    let [gateway, gateway6] =
        gateways.map(|(key, family)| gateway(key, family).unwrap_or_default());
    let bandwidth = fields.get("bandwidth", out).and_then(|n| bandwidth_of(n, out));
    let weight = fields.get("weight", out);
    let weight = weight.and_then(|node| scalar::number(node, 0..=MOST_WEIGHT, out));
    let nat = fields.get("nat", out);
    let nat = nat.and_then(|node| scalar::choice(node, "a kind of translation", NAT, out));
    let prefixes = fields.get("prefixes", out).map(|node| networks(node, out));
    let metered = fields.get("metered", out).and_then(|node| scalar::boolean(node, out));
    let id = fields.get("id", out).and_then(|node| id_of(node, out));
    let probe = probe(&name, fields, names, inline, out);
    Some(Uplink {
        name,
        interface: interface?,
        gateway,
        gateway6,
        bandwidth,
        weight,
        probe,
        nat: nat.unwrap_or_default(),
        prefixes: prefixes.unwrap_or_default(),
        metered: metered.unwrap_or_default(),
        id,
    })
}

/// Networks of ours; `[]` is the default written out.
fn networks(node: Node<'_>, out: &mut Findings) -> Vec<IpNet> {
    let items = list_or_none(node).into_iter();
    items.filter_map(|item| net::network(item, out)).collect()
}

/// Whether the id fits the marks, and whether it is the only one, is for `checks`.
fn id_of(node: Node<'_>, out: &mut Findings) -> Option<UplinkId> {
    let number = scalar::number(node, 1..=62, out)?;
    u8::try_from(number).ok().map(UplinkId)
}

fn gateway_of(node: Node<'_>, family: Family, out: &mut Findings) -> Option<Gateway> {
    let text = node.text().unwrap_or_default();
    match text {
        "auto" => return Some(Gateway::Auto),
        "none" => return Some(Gateway::None),
        _ => {}
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        let hint = super::fields::did_you_mean(text, ["auto", "none"], out)
            .unwrap_or_else(|| "say `auto`, `none` (point-to-point), or its address".to_owned());
        scalar::expected(node, "a gateway", &hint, out);
        return None;
    };
    if Family::of(address) == family {
        return net::host(node, out).map(Gateway::Address);
    }
    let (is, key) = match family {
        Family::V4 => ("IPv6", "gateway6"),
        Family::V6 => ("IPv4", "gateway"),
    };
    out.error_with(node, format!("`{address}` is {is}"), format!("write it under `{key}`"));
    None
}

fn bandwidth_of(node: Node<'_>, out: &mut Findings) -> Option<Bandwidth> {
    let fields = Fields::read(node, &["down", "up"], out)?;
    let down = fields.required("down", "write both: `{ down: 500M, up: 100M }`", out);
    let up = fields.required("up", "write both: `{ down: 500M, up: 100M }`", out);
    let down = down.and_then(|node| scalar::rate(node, out));
    let up = up.and_then(|node| scalar::rate(node, out));
    Some(Bandwidth { down: down?, up: up? })
}

/// The block that an uplink uses: the one it names, its own, or `default` where there is one.
fn probe(
    name: &Name,
    fields: &Fields<'_>,
    names: &Names,
    inline: &mut Vec<Probe>,
    out: &mut Findings,
) -> Option<Name> {
    let implied = names.probes.get("default").cloned();
    let Some(node) = fields.get("probe", out) else {
        return implied;
    };
    if node.kind() == Kind::Mapping {
        if names.probes.contains(name) {
            let hint = "give the one under `probes` another name";
            let message =
                format!("`probes` has a block `{name}` too, which is this uplink's own name");
            out.error_with(node, message, hint);
        }
        inline.extend(probes::probe(name.clone(), node, out));
        return Some(name.clone());
    }
    if node.text() == Some("default") && names.probes.is_empty() {
        return None;
    }
    reference(node, "probe", &names.probes, out)
}
