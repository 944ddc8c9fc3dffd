//! `services`.

use std::collections::BTreeSet;

use crate::model::{
    Name, PersistenceMode, PortRange, Protocol, Service, ServicePersistence, Virtual,
};

use super::fields::{Fields, list, named};
use super::finding::Findings;
use super::names::{Names, reference};
use super::policies::IDLE;
use super::tree::{Kind, Node};
use super::{claims, net, scalar, settings};

pub(super) const KEYS: &[&str] =
    &["virtual", "protocol", "ports", "group", "persistence", "allow", "helper"];
pub(super) const PERSISTENCE_KEYS: &[&str] = &["mode", "timeout", "client-mask", "client-mask6"];

const AH: Protocol = Protocol::Number(51);
const IKE: PortRange = PortRange { first: 500, last: 500 };
const IKE_NAT: PortRange = PortRange { first: 4500, last: 4500 };

pub(super) const MODES: &[(&str, PersistenceMode)] = &[
    ("tcp", PersistenceMode::Tcp),
    ("ssl", PersistenceMode::Ssl),
    ("sticky", PersistenceMode::Sticky),
    ("vpn", PersistenceMode::Vpn),
    ("ip", PersistenceMode::Ip),
];

/// Reads the section.
pub(super) fn read<'t>(
    node: Node<'t>,
    names: &Names,
    out: &mut Findings,
) -> Vec<(Service, Fields<'t>)> {
    let entries = named(node, "service", out);
    if entries.is_empty() && node.kind() == Kind::Mapping {
        out.error_with(node, "no services", "name one, or remove the key");
    }
    let mut all = Vec::new();
    for (name, node) in entries {
        let Some(fields) = Fields::read(node, KEYS, out) else {
            continue;
        };
        if let Some(service) = service(name, &fields, names, out) {
            all.push((service, fields));
        }
    }
    claims::check(&all, out);
    all
}

fn service(name: Name, fields: &Fields<'_>, names: &Names, out: &mut Findings) -> Option<Service> {
    let virtual_node =
        fields.required("virtual", "where clients reach it: `virtual: [fiber]`", out);
    let virtuals = virtual_node.map_or_else(Vec::new, |node| virtuals(node, names, out));
    let group = fields.required("group", "the servers: a name under `groups`", out);
    let group = group.and_then(|node| reference(node, "group", &names.groups, out));
    let persistence = fields.get("persistence", out);
    let persistence = persistence.and_then(|node| persistence_of(node, out)).unwrap_or_default();
    let (protocols, ports) = traffic(fields, persistence.mode, out);
    let allow = fields.get("allow", out);
    let helper = fields.get("helper", out);
    Some(Service {
        name,
        virtuals,
        protocols,
        ports,
        group: group?,
        persistence,
        allow: allow.map_or_else(Vec::new, |node| net::prefixes(node, out)),
        helper: helper.and_then(|node| settings::helper(node, out)),
    })
}

fn virtuals(node: Node<'_>, names: &Names, out: &mut Findings) -> Vec<Virtual> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for item in list(node, out) {
        let Some(found) = virtual_of(item, names, out) else {
            continue;
        };
        if !seen.insert(found.clone()) {
            out.error_with(item, "the same address a second time", "remove one of them");
        }
        all.push(found);
    }
    all
}

fn virtual_of(node: Node<'_>, names: &Names, out: &mut Findings) -> Option<Virtual> {
    if node.kind() != Kind::Mapping {
        if let Some(text) = node.text().filter(|text| text.parse::<std::net::IpAddr>().is_ok()) {
            let hint = format!("write `{{ address: {text}, on: UPLINK }}`");
            out.error_with(node, "an address needs the uplink that it is reached by", hint);
            return None;
        }
        return reference(node, "uplink", &names.uplinks, out).map(Virtual::Uplink);
    }
    let fields = Fields::read(node, &["address", "on"], out)?;
    let address = fields.required("address", "`{ address: 203.0.113.10, on: fiber }`", out);
    let on = fields.required("on", "the uplink: `{ address: 203.0.113.10, on: fiber }`", out);
    let address = address.and_then(|node| net::host(node, out));
    let on = on.and_then(|node| reference(node, "uplink", &names.uplinks, out));
    Some(Virtual::Address { address: address?, on: on? })
}

/// Protocols and ports; both empty for `any`.
fn traffic(
    fields: &Fields<'_>,
    mode: PersistenceMode,
    out: &mut Findings,
) -> (Vec<Protocol>, Vec<PortRange>) {
    let ports = fields.get("ports", out);
    let vpn = mode == PersistenceMode::Vpn;
    if fields.raw("protocol").is_none() && vpn {
        let found = ports.map_or_else(|| vec![IKE, IKE_NAT], |node| vpn_ports(node, out));
        return (vec![Protocol::UDP], found);
    }
    let hint = "say `tcp`, `udp`, `[tcp, udp]` or `any`";
    let Some(protocol) = fields.required("protocol", hint, out) else {
        return (Vec::new(), Vec::new());
    };
    if protocol.text() == Some("any") {
        any(protocol, ports, mode, out);
        return (Vec::new(), Vec::new());
    }
    let protocols = protocols(protocol, vpn, out);
    let ports = match ports {
        Some(node) if vpn => vpn_ports(node, out),
        Some(node) => net::ports(node, out),
        None if vpn => vec![IKE, IKE_NAT],
        None => {
            let hint = "name them: `ports: [80, 443]`, or say `protocol: any` with mode `ip`";
            out.error_with(fields.node(), "`ports` is missing", hint);
            Vec::new()
        }
    };
    (protocols, ports)
}

fn any(protocol: Node<'_>, ports: Option<Node<'_>>, mode: PersistenceMode, out: &mut Findings) {
    if let Some(ports) = ports {
        let hint = "remove `ports`, or name the protocol";
        out.error_with(ports.key(), "`any` has no ports", hint);
    }
    if mode != PersistenceMode::Ip {
        let hint = "add `persistence: { mode: ip }`: only that mode takes every protocol";
        out.error_with(protocol, "`any` needs the persistence mode `ip`", hint);
    }
}

fn protocols(node: Node<'_>, vpn: bool, out: &mut Findings) -> Vec<Protocol> {
    let mut all = Vec::new();
    for item in list(node, out) {
        let Some(protocol) = net::protocol(item, out) else {
            continue;
        };
        let allowed = match protocol {
            Protocol::UDP => true,
            Protocol::TCP => !vpn,
            _ => false,
        };
        if allowed {
            all.push(protocol);
            continue;
        }
        let name = net::protocol_name(protocol);
        let (message, hint) = refused(&name, protocol, vpn);
        out.error_with(item, message, hint);
    }
    all
}

fn refused(name: &str, protocol: Protocol, vpn: bool) -> (String, &'static str) {
    if protocol == AH {
        let hint =
            "AH protects the addresses themselves: use ESP, which mode `vpn` takes by itself";
        return ("`ah` cannot be sent on to a server".to_owned(), hint);
    }
    let hint = match (vpn, protocol) {
        (true, Protocol::Number(50)) => "leave it out: mode `vpn` takes ESP by itself",
        (true, _) => "mode `vpn` is UDP 500 and 4500, and ESP by itself",
        (false, _) => "say `tcp`, `udp`, `[tcp, udp]`, or `any` with mode `ip`",
    };
    (format!("`{name}` cannot be a service's protocol here"), hint)
}

fn vpn_ports(node: Node<'_>, out: &mut Findings) -> Vec<PortRange> {
    let ports = net::ports(node, out);
    if ports.iter().any(|&range| range != IKE && range != IKE_NAT) {
        let hint = "leave `ports` out: mode `vpn` is UDP 500 and 4500";
        out.error_with(node, "another port than 500 and 4500 with mode `vpn`", hint);
    }
    ports
}

fn persistence_of(node: Node<'_>, out: &mut Findings) -> Option<ServicePersistence> {
    if node.kind() == Kind::Scalar {
        let mode = scalar::choice(node, "a mode", MODES, out)?;
        return Some(ServicePersistence {
            mode,
            timeout: mode.default_timeout(),
            ..ServicePersistence::default()
        });
    }
    let fields = Fields::read(node, PERSISTENCE_KEYS, out)?;
    let mode = fields.get("mode", out);
    let mode = mode.map_or(Some(PersistenceMode::Tcp), |n| scalar::choice(n, "a mode", MODES, out));
    let timeout = fields.get("timeout", out);
    if let (Some(PersistenceMode::Ip), Some(node)) = (mode, timeout) {
        let hint = "remove it: mode `ip` computes the server and keeps no table";
        out.error_with(node, "`timeout` with mode `ip`", hint);
    }
    let timeout = timeout.and_then(|node| scalar::duration(node, IDLE, out));
    let client_mask = fields.get("client-mask", out);
    let client_mask6 = fields.get("client-mask6", out);
    let client_mask = client_mask.and_then(|node| scalar::number(node, 0..=32, out));
    let client_mask6 = client_mask6.and_then(|node| scalar::number(node, 0..=128, out));
    let mask =
        |found: Option<u32>, default| found.and_then(|m| u8::try_from(m).ok()).unwrap_or(default);
    let mode = mode?;
    Some(ServicePersistence {
        mode,
        timeout: timeout.or(mode.default_timeout()),
        client_mask: mask(client_mask, 32),
        client_mask6: mask(client_mask6, 128),
    })
}
