//! Sessions that a server of a `vpn` service begins towards a client that is bound to it: they leave by
//! the client's uplink, from the virtual address that the client knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::build::{Builder, Rules, address_type, map_of, names};
use super::elements::address_bytes;
use super::matching::{anonymous_set, word};
use super::services::masked;
use crate::kstate::{ElementData, FieldType, Role, concatenate, ifname_bytes};
use crate::model::{Family, PersistenceMode, UplinkId};
use crate::plan::inbound::{Entrance, entrances_by, uplink_of, virtual_addresses};
use crate::plan::view::{Layout, View};

/// The entrances whose servers may call back.
fn callers(layout: &Layout, family: Family) -> Vec<Entrance<'_>> {
    entrances_by(layout, family, PersistenceMode::Vpn)
}

fn servers(layout: &Layout, entrance: &Entrance<'_>) -> Vec<(u32, IpAddr)> {
    let Some(group) = layout.group(&entrance.service.group) else { return Vec::new() };
    let of = group.servers(entrance.family);
    of.map(|(server, id)| (group.mark(id).0, server.address)).collect()
}

fn uplink(layout: &Layout, entrance: &Entrance<'_>) -> Option<(crate::model::Name, UplinkId)> {
    let name = uplink_of(entrance.at?);
    Some((name.clone(), *layout.ids.uplinks.get(name)?))
}

/// In the way of new sessions to the internet, before the policies.
pub(super) fn add_turn(rules: &mut Rules<'_>, layout: &Layout) {
    for family in Family::BOTH {
        let all: BTreeSet<IpAddr> = callers(layout, family)
            .iter()
            .flat_map(|entrance| servers(layout, entrance))
            .map(|(_, address)| address)
            .collect();
        if !all.is_empty() {
            let set = anonymous_set(&all.into_iter().collect::<Vec<_>>());
            let chain = names::calls_back(family);
            rules.rule(format!("{} saddr {set} jump {chain}", word(family)), "services");
        }
    }
}

/// The chains behind it, and where from such sessions come.
pub(super) fn add_chains(table: &mut Builder, layout: &Layout, view: &View) {
    for family in Family::BOTH {
        let callers = callers(layout, family);
        if callers.is_empty() {
            continue;
        }
        add_sources(table, layout, view, family, &callers);
        let mut targets = Vec::new();
        let mut rules = table.chain(names::calls_back(family));
        for entrance in &callers {
            let (Some(bound), Some(uplink)) = (&entrance.bound, uplink(layout, entrance)) else {
                continue;
            };
            let origin = format!("services.{}", entrance.service.name);
            let chain = names::calls_back_by(family, &bound.map);
            let daddr = masked(&format!("{} daddr", word(family)), family, bound.mask);
            rules
                .rule("meta mark set 0", &origin)
                .rule(format!("meta mark set {daddr} map @{}", bound.map), &origin);
            // One by one: in a set of marks and addresses nft 1.0.6 turns the marks' bytes around.
            for (mark, address) in servers(layout, entrance) {
                let word = word(family);
                let rule = format!("meta mark {mark:#x} {word} saddr {address} goto {chain}");
                rules.rule(rule, &origin);
            }
            targets.push((chain, uplink, origin));
        }
        rules.rule("meta mark set 0", "services");
        for (chain, (name, id), origin) in targets {
            table
                .chain(chain)
                .rule(format!("meta mark vmap @{}", names::SERVING), &origin)
                .rule(format!("jump {}", names::pin(id, &name)), &origin)
                .rule("accept", &origin);
        }
    }
}

/// Device and server → the virtual address.
fn add_sources(
    table: &mut Builder,
    layout: &Layout,
    view: &View,
    family: Family,
    callers: &[Entrance<'_>],
) {
    let mut elements = BTreeMap::new();
    for entrance in callers {
        let Some(at) = entrance.at else { continue };
        let Some(uplink) = layout.site.uplink(uplink_of(at)) else { continue };
        let addresses = virtual_addresses(layout, view, std::slice::from_ref(at));
        let Some(address) = addresses.iter().find(|a| Family::of(**a) == family) else { continue };
        for (_, server) in servers(layout, entrance) {
            let key = concatenate(&[ifname_bytes(&uplink.interface), address_bytes(server)]);
            elements.entry(key).or_insert(ElementData::Value(address_bytes(*address)));
        }
    }
    let address = address_type(family);
    let shape = map_of(&[FieldType::IfName, address], address);
    let elements = elements.into_iter().collect();
    table.set(names::calling_source(family), Role::Fixed, shape, "", elements);
}

/// How they are translated.
pub(super) fn add_translation(rules: &mut Rules<'_>, layout: &Layout) {
    let server = layout.site.marks.server;
    for family in Family::BOTH {
        if !callers(layout, family).is_empty() {
            let (word, map) = (word(family), names::calling_source(family));
            let snat = format!("snat {word} to oifname . {word} saddr map @{map}");
            rules.rule(format!("ct mark & {server} != 0 {snat}"), "services");
        }
    }
}
