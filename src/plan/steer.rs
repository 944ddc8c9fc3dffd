//! The short way: an uplink changed, and new sessions follow by elements alone, without looking at
//! the kernel first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::inbound::Numbered;
use super::nft::{
    SteeringSet, address_bytes, build_keepable, build_slots, names, slot_counts, slot_maps, steer,
};
use super::standing::Standings;
use super::view::{Layout, View, select_for};
use crate::kstate::{Bytes, ElementData, Elements, KernelState, NftOp, SetShape, Snapshot};
use crate::model::{Family, Policy};
use crate::steering::Selection;

/// Who takes new sessions, as the kernel has it: what was put in force, and what was changed since.
#[derive(Debug, Clone)]
pub struct Steering {
    layout: Arc<Layout>,
    view: View,
    maps: Vec<Slots>,
    in_force: Arc<(KernelState, Snapshot)>,
    changed: BTreeMap<String, SteeringSet>,
    /// Elements of the sets of servers that are otherwise now; `None` is gone.
    servers: BTreeMap<String, BTreeMap<Bytes, Option<ElementData>>>,
}

/// A slot table, with one of the policies that use it, and who owns slots now.
#[derive(Debug, Clone)]
struct Slots {
    map: String,
    family: Family,
    policy: Policy,
    selection: Selection,
}

impl Steering {
    /// What was put in force, for this view of the site.
    pub fn new(
        layout: Arc<Layout>,
        view: View,
        in_force: Arc<(KernelState, Snapshot)>,
    ) -> Steering {
        let slots = |(map, (family, policy)): (String, (Family, &Policy))| {
            let selection = select_for(&layout, &view, policy, family);
            Slots { map, family, policy: policy.clone(), selection }
        };
        let maps = slot_maps(&layout).into_iter().map(slots).collect();
        let (changed, servers) = (BTreeMap::new(), BTreeMap::new());
        Steering { layout, view, maps, in_force, changed, servers }
    }

    /// Devices came or went, or their carriers did (by their indices), or uplinks answer otherwise:
    /// what to change so that new sessions follow.
    pub fn follow(
        &mut self,
        carriers: &BTreeMap<u32, bool>,
        standings: &Arc<Standings>,
    ) -> Vec<NftOp> {
        let before = std::mem::replace(&mut self.view.standings, standings.clone());
        let mut moved = !before.steers_like(standings) || before.dealt != standings.dealt;
        let groups = self.follow_groups(&before);
        let links = &self.in_force.1.facts.links;
        for uplink in &self.layout.site.uplinks {
            let index = links.get(&uplink.interface).map(|link| link.index);
            let carrier = index.and_then(|index| carriers.get(&index));
            match (carrier, self.view.uplinks.get_mut(&uplink.name)) {
                (Some(carrier), Some(facts)) if facts.carrier != *carrier => {
                    facts.carrier = *carrier;
                    moved = true;
                }
                _ => {}
            }
        }
        let mut ops = if moved { self.rebuild() } else { Vec::new() };
        ops.extend(groups);
        ops
    }

    /// New sessions follow the servers of groups that answer otherwise than before.
    fn follow_groups(&mut self, before: &Standings) -> Vec<NftOp> {
        let (layout, now) = (self.layout.clone(), self.view.standings.clone());
        if Arc::ptr_eq(&before.groups, &now.groups) || layout.site.services.is_empty() {
            return Vec::new();
        }
        let mut ops = Vec::new();
        for (name, standing) in now.groups.iter() {
            if before.groups.get(name).is_some_and(|was| was == standing) {
                continue;
            }
            let Some(group) = layout.group(name) else { continue };
            for family in Family::BOTH.into_iter().filter(|family| group.serves(*family)) {
                ops.extend(self.steer_group(&layout, &group, family));
            }
        }
        ops
    }

    fn steer_group(&mut self, layout: &Layout, group: &Numbered<'_>, family: Family) -> Vec<NftOp> {
        let slots = names::server_slots(family, group.part());
        let held = |key: &[u8]| self.server_element(&slots, key);
        let steered = steer(layout, group, &self.view.standings, family, held);
        let keys = |id| Bytes::from_slice(&group.key(id).0.to_ne_bytes());
        let keyed: Vec<Bytes> = group.servers(family).map(|(_, id)| keys(id)).collect();
        let places = group.tables().into_iter().flat_map(|dealt_by| {
            let first = group.first_slot(dealt_by);
            (0..group.slots(dealt_by) as u32).map(move |slot| first + slot)
        });
        let places: Vec<Bytes> =
            places.map(|slot| Bytes::from_slice(&slot.to_ne_bytes())).collect();
        let addresses: Vec<Bytes> =
            group.servers(family).map(|(server, _)| address_bytes(server.address)).collect();
        let mut ops = Vec::new();
        for (set, keys, wanted) in [
            (slots.clone(), &places, steered.slots),
            (names::left(family), &addresses, steered.left),
            (names::keepable_servers(family), &keyed, steered.keepable),
            (names::choosable_servers(family), &keyed, steered.choosable),
        ] {
            let there = |key: &Bytes| Some((key.clone(), self.server_element(&set, key)?.clone()));
            let there: Elements = keys.iter().filter_map(there).collect();
            let shape = self.shape(&set);
            ops.extend(swap_elements(&set, &shape, &there, &wanted));
            let in_force = self.in_force.0.nft.as_ref().and_then(|table| table.sets.get(&set));
            let overlay = self.servers.entry(set).or_default();
            for key in keys {
                let wanted = wanted.get(key);
                match wanted == in_force.and_then(|set| set.elements.get(key)) {
                    true => drop(overlay.remove(key)),
                    false => drop(overlay.insert(key.clone(), wanted.cloned())),
                }
            }
        }
        ops
    }

    fn server_element(&self, set: &str, key: &[u8]) -> Option<&ElementData> {
        if let Some(changed) = self.servers.get(set).and_then(|overlay| overlay.get(key)) {
            return changed.as_ref();
        }
        self.in_force.0.nft.as_ref()?.sets.get(set)?.elements.get(key)
    }

    fn shape(&self, set: &str) -> SetShape {
        let sets = self.in_force.0.nft.as_ref().map(|table| &table.sets);
        sets.and_then(|sets| sets.get(set)).map(|set| set.shape.clone()).unwrap_or_default()
    }

    fn rebuild(&mut self) -> Vec<NftOp> {
        let keepable =
            |family| (names::keepable(family), build_keepable(&self.layout, &self.view, family));
        let mut rebuilt = Vec::from(Family::BOTH.map(keepable));
        for index in 0..self.maps.len() {
            let Slots { map, family, policy, selection: was } = &self.maps[index];
            let selection = select_for(&self.layout, &self.view, policy, *family);
            if selection == *was {
                continue;
            }
            let previous = self.elements(map);
            let (layout, view) = (&self.layout, &self.view);
            let set = build_slots(layout, view, policy.balance, &selection, map, previous);
            rebuilt.push((map.clone(), set));
            self.maps[index].selection = selection;
        }
        let nothing = Elements::new();
        let mut ops = Vec::new();
        for (name, set) in &rebuilt {
            let there = self.elements(name).unwrap_or(&nothing);
            ops.extend(swap_elements(name, &set.shape, there, &set.elements));
        }
        self.changed.extend(rebuilt);
        ops
    }

    /// How many slots each uplink owns in a slot table.
    pub fn counts(&self, map: &str) -> BTreeMap<u8, usize> {
        let mask = self.layout.site.marks.uplink;
        self.elements(map).map_or_else(BTreeMap::new, |elements| slot_counts(elements, mask))
    }

    /// A set's elements as they are.
    fn elements(&self, name: &str) -> Option<&Elements> {
        let put = || Some(&self.in_force.0.nft.as_ref()?.sets.get(name)?.elements);
        self.changed.get(name).map(|set| &set.elements).or_else(put)
    }
}

/// What a transaction that was refused as a whole still says of the sets that there are: who takes
/// new sessions, and with which addresses. Each part is a transaction of its own.
pub fn steering_alone(ops: &[NftOp]) -> Vec<Vec<NftOp>> {
    let made: BTreeSet<&String> = ops
        .iter()
        .filter_map(|op| match op {
            NftOp::AddSet { name, .. } | NftOp::DeleteSet(name) => Some(name),
            _ => None,
        })
        .collect();
    let mut parts: BTreeMap<&String, Vec<NftOp>> = BTreeMap::new();
    for op in ops {
        if let NftOp::AddElements { set, .. } | NftOp::DeleteElements { set, .. } = op
            && names::steers(set)
            && !made.contains(set)
        {
            parts.entry(set).or_default().push(op.clone());
        }
    }
    parts.into_values().collect()
}

/// What turns some elements into others.
pub(super) fn swap_elements(
    set: &str,
    shape: &SetShape,
    there: &Elements,
    wanted: &Elements,
) -> impl Iterator<Item = NftOp> + use<> {
    let (stale, missing) = (there.missing_in(wanted), wanted.missing_in(there));
    let (set, shape) = (set.to_owned(), shape.clone());
    let delete = NftOp::DeleteElements { set: set.clone(), shape: shape.clone(), elements: stale };
    let add = NftOp::AddElements { set, shape, elements: missing };
    [delete, add].into_iter().filter(|op| match op {
        NftOp::AddElements { elements, .. } | NftOp::DeleteElements { elements, .. } => {
            !elements.is_empty()
        }
        _ => true,
    })
}
