//! Servers as elements: where they are, who takes new sessions, and who keeps its clients.
//!
//! All groups share their sets: a slot's number and a server's key tell whose they are. So ten
//! thousand groups have no more sets than one, and a server that fails is a few elements.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::build::{
    Builder, address_type, at_most, map_of, mark_bytes, mark_data, names, set_of, verdicts_of,
};
use super::elements::address_bytes;
use crate::kstate::{
    Bytes, ElementData, Elements, FieldType, Role, SetData, SetShape, Verdict, concatenate,
};
use crate::model::{Family, Mark, MarkMask, Server, ServerId};
use crate::plan::inbound::{DealtBy, Numbered, choose, keeps};
use crate::plan::standing::Standings;
use crate::plan::view::Layout;
use crate::steering::{SlotTable, deal, deal_some_by_hash};

/// A set of at most so many elements, with room for old ones that leave after new ones came.
pub(super) fn room_for(elements: usize) -> String {
    let room = (elements * 2).next_power_of_two().max(128);
    at_most(u32::try_from(room).unwrap_or(u32::MAX))
}

/// The sets of all servers, but for those that steer.
pub(super) fn add_sets(table: &mut Builder, layout: &Layout, family: Family) {
    let mut parts: BTreeMap<u32, Vec<Numbered<'_>>> = BTreeMap::new();
    for group in layout.groups() {
        parts.entry(group.part()).or_default().push(group);
    }
    for (part, groups) in parts {
        add_part(table, &groups, family, part);
    }
}

fn add_part(table: &mut Builder, groups: &[Numbered<'_>], family: Family, part: u32) {
    let address = address_type(family);
    let (mut targets, mut hosts, mut admit) = (Vec::new(), Vec::new(), Vec::new());
    for group in groups {
        for (server, id) in group.servers(family) {
            let key = mark_bytes(group.key(id).0);
            hosts.push((key.clone(), ElementData::Value(address_bytes(server.address))));
            if let Some(port) = server.port {
                targets.push((key.clone(), ElementData::Value(target(server.address, port))));
            }
            if group.is_limited() {
                let verdict = Verdict::Jump(way_in(group, server, id, family));
                admit.push((key, ElementData::Verdict(verdict)));
            }
        }
    }
    let mark = [FieldType::Mark];
    let data = SetData::Value(vec![address, FieldType::Port]);
    if hosts.is_empty() {
        return;
    }
    let limited = !admit.is_empty();
    for (name, shape, counts, elements) in [
        (names::hosts(family, part), map_of(&mark, address), " counter;", hosts),
        (names::targets(family, part), SetShape { key: mark.to_vec(), data }, " counter;", targets),
        (names::admit(family, part), verdicts_of(&mark), "", admit),
    ]
    .into_iter()
    .take(if limited { 3 } else { 2 })
    {
        let attributes = format!("{}{counts}", room_for(elements.len()));
        table.set(name, Role::Fixed, shape, &attributes, elements.into_iter().collect());
    }
}

fn target(address: IpAddr, port: u16) -> Bytes {
    concatenate(&[address_bytes(address), Bytes::from_slice(&port.to_be_bytes())])
}

/// A server without a limit is let in as it is.
fn way_in(group: &Numbered<'_>, server: &Server, id: ServerId, family: Family) -> String {
    match server.max_connections {
        Some(_) => names::limit(family, group.id, id),
        None => names::server(id),
    }
}

/// Every number that a server has, for the map `serving`.
pub(super) fn serving(layout: &Layout) -> BTreeSet<ServerId> {
    layout.ids.servers.values().flat_map(|of| of.values()).copied().collect()
}

/// The sets that say who takes new sessions.
pub(super) fn add_steering<'a>(
    table: &mut Builder,
    layout: &Layout,
    standings: &Standings,
    family: Family,
    current: impl Fn(&str) -> Option<&'a Elements>,
) {
    let nothing = Elements::new();
    let mut parts: BTreeMap<u32, (usize, Vec<_>)> = BTreeMap::new();
    let (mut keepable, mut choosable, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for group in layout.groups().filter(|group| group.serves(family)) {
        let held = current(&names::server_slots(family, group.part())).unwrap_or(&nothing);
        let steered = steer(layout, &group, standings, family, |slot| held.get(slot));
        let (room, slots) = parts.entry(group.part()).or_default();
        *room += group.tables().into_iter().map(|table| group.slots(table)).sum::<usize>();
        slots.extend(steered.slots);
        keepable.extend(steered.keepable);
        choosable.extend(steered.choosable);
        left.extend(steered.left);
    }
    for (part, (room, slots)) in parts {
        let shape = map_of(&[FieldType::Slot], FieldType::Mark);
        let name = names::server_slots(family, part);
        table.set(name, Role::Steering, shape, &room_for(room), slots.into_iter().collect());
    }
    let servers = layout.groups().map(|group| group.servers(family).count()).sum();
    for (name, key, elements) in [
        (names::keepable_servers(family), FieldType::Mark, keepable),
        (names::choosable_servers(family), FieldType::Mark, choosable),
        (names::left(family), address_type(family), left),
    ] {
        let (shape, elements) = (set_of(&[key]), elements.into_iter().collect());
        table.set(name, Role::Steering, shape, &room_for(servers), elements);
    }
}

/// What steers one group, or several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::plan) struct Steered {
    pub(in crate::plan) slots: Elements,
    pub(in crate::plan) keepable: Elements,
    pub(in crate::plan) choosable: Elements,
    pub(in crate::plan) left: Elements,
}

/// What steers a group in one family. `held` tells who owns a slot now; as few as possible move.
pub(in crate::plan) fn steer<'a>(
    layout: &Layout,
    group: &Numbered<'_>,
    standings: &Standings,
    family: Family,
    held: impl Fn(&[u8]) -> Option<&'a ElementData>,
) -> Steered {
    let mask = layout.site.marks.server;
    let mut steered = Steered::default();
    let mut owners = BTreeSet::new();
    for dealt_by in group.tables() {
        let selection = choose(group, standings, family, dealt_by).selection;
        owners.extend(selection.owners.keys().copied());
        let (first, count) = (group.first_slot(dealt_by), group.slots(dealt_by));
        let table = match dealt_by {
            DealtBy::Hash => {
                let names = group.servers(family).map(|(s, id)| (id.0, s.name.to_string()));
                deal_some_by_hash(count, &selection.owners, &names.collect())
            }
            DealtBy::Turn => deal(&previous(first, count, mask, &held), &selection.owners),
        };
        for (slot, owner) in table.owners() {
            let data = mark_data(mask.place(u32::from(owner)).0);
            steered.slots.insert(slot_key(first, slot), data);
        }
    }
    let keyed = |(_, id): (&Server, ServerId)| mark_bytes(group.key(id).0);
    if learns(group) {
        let kept = group
            .servers(family)
            .filter(|(server, _)| keeps(&standings.server(&group.group.name, &server.name)));
        steered.keepable.extend(kept.map(|one| (keyed(one), ElementData::Nothing)));
    }
    if group.is_limited() {
        let chosen = group.servers(family).filter(|(_, id)| owners.contains(&id.0));
        steered.choosable.extend(chosen.map(|one| (keyed(one), ElementData::Nothing)));
    }
    for (server, _) in group.servers(family) {
        let seats = layout.uses.datagram_seats(server.address);
        if !seats.is_empty() && !seats.iter().any(|(g, s)| keeps(&standings.server(g, s))) {
            steered.left.insert(address_bytes(server.address), ElementData::Nothing);
        }
    }
    steered
}

/// Whether a service of the group binds clients by a map.
fn learns(group: &Numbered<'_>) -> bool {
    use crate::model::PersistenceMode::{Ssl, Sticky, Vpn};
    group.services().any(|service| matches!(service.persistence.mode, Ssl | Sticky | Vpn))
}

fn slot_key(first: u32, slot: u8) -> Bytes {
    Bytes::from_slice(&(first + u32::from(slot)).to_ne_bytes())
}

fn previous<'a>(
    first: u32,
    count: usize,
    mask: MarkMask,
    held: impl Fn(&[u8]) -> Option<&'a ElementData>,
) -> SlotTable {
    let owner = |slot: u8| {
        let ElementData::Value(mark) = held(&slot_key(first, slot))? else { return None };
        let mark = Mark(u32::from_ne_bytes(mark.as_slice().try_into().ok()?));
        Some((slot, u8::try_from(mask.number(mark)).ok()?))
    };
    SlotTable::of(count).owned((0..=u8::MAX).take(count).filter_map(owner))
}
