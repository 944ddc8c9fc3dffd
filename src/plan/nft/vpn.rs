//! Sessions that a server of a `vpn` service begins towards a client that is bound to it: they leave by
//! the client's uplink, from the virtual address that the client knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::build::{Builder, Rules, address_type, map_of, names};
use super::elements::address_bytes;
use super::matching::{anonymous_set, word};
use super::services::masked;
use crate::kstate::{ElementData, FieldType, Role, concatenate, ifname_bytes};
use crate::model::{Family, IfName, PersistenceMode, Service, UplinkId};
use crate::plan::inbound::{Bound, Entrance, entrances_of, uplink_of};
use crate::plan::view::{Layout, View};

/// The services whose servers may call back.
fn callers(layout: &Layout) -> impl Iterator<Item = &Service> {
    let by = |service: &&Service| service.persistence.mode == PersistenceMode::Vpn;
    layout.site.services.iter().filter(by)
}

/// Their servers.
fn calling(layout: &Layout, family: Family) -> BTreeSet<IpAddr> {
    let groups = callers(layout).filter_map(|service| layout.group(&service.group));
    groups.flat_map(|group| group.servers(family)).map(|(server, _)| server.address).collect()
}

fn servers(layout: &Layout, entrance: &Entrance<'_>) -> Vec<(u32, IpAddr)> {
    let Some(group) = layout.group(&entrance.service.group) else { return Vec::new() };
    let of = group.servers(entrance.family);
    of.map(|(server, id)| (group.mark(id).0, server.address)).collect()
}

fn uplink(layout: &Layout, entrance: &Entrance<'_>) -> Option<(crate::model::Name, UplinkId)> {
    let name = uplink_of(entrance.at?.at);
    Some((name.clone(), *layout.ids.uplinks.get(name)?))
}

/// In the way of new sessions to the internet, before the policies.
pub(super) fn add_turn(rules: &mut Rules<'_>, layout: &Layout) {
    for family in Family::BOTH {
        let all = calling(layout, family);
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
        let callers = entrances_of(layout, view, family, callers(layout));
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
            rules.rule("meta mark set 0", &origin).rule(whose(family, bound), &origin);
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

/// Puts the number of the server that the client is bound to into the packet mark.
fn whose(family: Family, bound: &Bound) -> String {
    let daddr = masked(&format!("{} daddr", word(family)), family, bound.mask);
    format!("meta mark set {daddr} map @{}", bound.map)
}

/// A virtual address from which a server may call back.
struct Source<'a> {
    address: IpAddr,
    /// Whether the client is bound to the server there.
    rule: String,
    /// Translates.
    chain: String,
    service: &'a Service,
}

/// Device and server → the virtual address; and where several lead to a server by one device, that
/// which the client is bound at.
fn add_sources(
    table: &mut Builder,
    layout: &Layout,
    view: &View,
    family: Family,
    callers: &[Entrance<'_>],
) {
    let mut sources: BTreeMap<(IfName, IpAddr), Vec<Source<'_>>> = BTreeMap::new();
    for entrance in callers {
        let Some(place) = entrance.at else { continue };
        let Some(address) = place.address(layout, view, family) else { continue };
        let Some(uplink) = layout.site.uplink(uplink_of(place.at)) else { continue };
        let Some(bound) = &entrance.bound else { continue };
        for (mark, server) in servers(layout, entrance) {
            let rule = format!("{} meta mark {mark:#x}", whose(family, bound));
            let chain = names::calls_from_by(family, &bound.map);
            let source = Source { address, rule, chain, service: entrance.service };
            sources.entry((uplink.interface.clone(), server)).or_default().push(source);
        }
    }
    // The look-up is made in the packet mark, which gets the uplink's back.
    let again = format!("meta mark set ct mark & {}", layout.site.marks.uplink);
    let word = word(family);
    let several = || sources.iter().filter(|(_, all)| all.len() > 1);
    for Source { address, chain, service, .. } in several().flat_map(|(_, all)| all) {
        let origin = format!("services.{}", service.name);
        let mut rules = table.chain(chain);
        if rules.is_empty() {
            rules.rule(&again, &origin).rule(format!("snat {word} to {address}"), &origin);
        }
    }
    let mut rules = table.chain(names::calls_from(family));
    for ((device, server), all) in several() {
        for Source { rule, chain, service, .. } in all {
            let from = format!("oifname \"{device}\" {word} saddr {server}");
            rules
                .rule(format!("{from} {rule} goto {chain}"), &format!("services.{}", service.name));
        }
    }
    rules.rules(several().next().map(|_| again), "services");
    let map = names::calling_source(family);
    rules.rule(format!("snat {word} to oifname . {word} saddr map @{map}"), "services");
    let first = sources.into_iter().filter_map(|((device, server), all)| {
        let key = concatenate(&[ifname_bytes(&device), address_bytes(server)]);
        Some((key, ElementData::Value(address_bytes(all.first()?.address))))
    });
    let address = address_type(family);
    let shape = map_of(&[FieldType::IfName, address], address);
    table.set(map, Role::Fixed, shape, "", first.collect());
}

/// How they are translated.
pub(super) fn add_translation(rules: &mut Rules<'_>, layout: &Layout) {
    let server = layout.site.marks.server;
    for family in Family::BOTH {
        if !calling(layout, family).is_empty() {
            let chain = names::calls_from(family);
            rules.rule(format!("ct mark & {server} != 0 jump {chain}"), "services");
        }
    }
}
