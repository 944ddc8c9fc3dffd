//! Who takes new sessions: slot tables, one for each way to choose, shared by the policies that
//! choose alike; and the uplinks that keep their bindings.

use std::collections::BTreeMap;

use super::build::{map_of, mark_bytes, mark_data, names, set_of};
use crate::kstate::{Bytes, Digest, ElementData, Elements, FieldType, SetShape, Snapshot};
use crate::model::{Balance, Family, Mark, MarkMask, Name, Policy, WhenAllDown};
use crate::plan::view::{Layout, View, select_for};
use crate::steering::{Selection, SlotTable, deal, deal_by_hash};

/// The slot table that a policy uses: equal members, weights and balance share one.
pub(in crate::plan) fn slot_map(layout: &Layout, policy: &Policy, family: Family) -> String {
    let weight = |name: &Name| layout.weights.get(name).copied().unwrap_or(1);
    let tiers: Vec<Vec<(&Name, u32)>> = policy
        .tiers
        .iter()
        .map(|tier| tier.iter().map(|name| (name, weight(name))).collect())
        .collect();
    let tried = policy.when_all_down == WhenAllDown::Try;
    let digest = Digest::of(&format!("{tiers:?} {:?} {tried}", policy.balance));
    names::slots(family, format_args!("{:08x}", digest.0))
}

/// Every slot table, with its family and one of the policies that use it.
pub(in crate::plan) fn slot_maps(layout: &Layout) -> BTreeMap<String, (Family, &Policy)> {
    let mut maps = BTreeMap::new();
    for policy in &layout.policies {
        for family in Family::BOTH {
            maps.entry(slot_map(layout, policy, family)).or_insert((family, policy));
        }
    }
    maps
}

/// Those of them that are dealt by what is measured.
pub fn measured_maps(layout: &Layout) -> BTreeMap<String, (Family, &Policy)> {
    let mut maps = slot_maps(layout);
    maps.retain(|_, (_, policy)| policy.balance.is_measured());
    maps
}

/// How many slots each uplink owns in a map's elements.
pub(in crate::plan) fn slot_counts(elements: &Elements, mask: MarkMask) -> BTreeMap<u8, usize> {
    SlotTable::from_owners(owners(elements, mask)).counts()
}

/// A set that says who takes new sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plan) struct SteeringSet {
    pub(in crate::plan) shape: SetShape,
    pub(in crate::plan) elements: Elements,
}

/// The sets that say who takes new sessions. `current` gives a map's elements as they are, of which
/// as few as possible move.
pub(super) fn build_steering<'a>(
    layout: &Layout,
    view: &View,
    current: impl Fn(&str) -> Option<&'a Elements>,
) -> BTreeMap<String, SteeringSet> {
    let keepable = |family| (names::keepable(family), build_keepable(layout, view, family));
    let mut sets = BTreeMap::from(Family::BOTH.map(keepable));
    for (map, (family, policy)) in slot_maps(layout) {
        let selection = select_for(layout, view, policy, family);
        let set = build_slots(layout, view, policy.balance, &selection, &map, current(&map));
        sets.insert(map, set);
    }
    sets
}

/// The slots of these owners, of which as few as possible move.
pub(in crate::plan) fn build_slots(
    layout: &Layout,
    view: &View,
    balance: Balance,
    selection: &Selection,
    map: &str,
    previous: Option<&Elements>,
) -> SteeringSet {
    let mask = layout.site.marks.uplink;
    let dealt = match balance {
        Balance::SourceHash => {
            let uplinks = layout.ids.uplinks.iter();
            let names = uplinks.map(|(name, id)| (id.0, name.to_string())).collect();
            deal_by_hash(&selection.owners, &names)
        }
        _ => {
            let previous = SlotTable::from_owners(owners(previous.into_iter().flatten(), mask));
            // Until something is measured the slots in force stay, as far as they may.
            let waits = balance.is_measured() && !view.standings.dealt.contains_key(map);
            let mut held = previous.counts();
            held.retain(|id, _| selection.owners.contains_key(id));
            match waits && !held.is_empty() {
                true => deal(&previous, &held.iter().map(|(id, n)| (*id, *n as u32)).collect()),
                false => deal(&previous, &selection.owners),
            }
        }
    };
    let element = |(slot, owner): (u8, u8)| {
        let key = Bytes::from_slice(&u32::from(slot).to_ne_bytes());
        (key, mark_data(mask.place(u32::from(owner)).0))
    };
    SteeringSet {
        shape: map_of(&[FieldType::Slot], FieldType::Mark),
        elements: dealt.owners().map(element).collect(),
    }
}

/// Uplinks that keep their bindings.
pub(in crate::plan) fn build_keepable(layout: &Layout, view: &View, family: Family) -> SteeringSet {
    let uplinks = layout.uplinks().filter(|(uplink, _)| view.keeps(&uplink.name, family));
    let element = |id| (mark_bytes(layout.mark(id).0), ElementData::Nothing);
    SteeringSet {
        shape: set_of(&[FieldType::Mark]),
        elements: uplinks.map(|(_, id)| element(id)).collect(),
    }
}

/// The slots that the kernel holds now.
pub fn observed_slots(seen: &Snapshot, map: &str, mask: MarkMask) -> SlotTable {
    let set = seen.ours.nft.as_ref().and_then(|table| table.sets.get(map));
    SlotTable::from_owners(owners(set.into_iter().flat_map(|set| &set.elements), mask))
}

fn owners<'a>(
    elements: impl IntoIterator<Item = (&'a Bytes, &'a ElementData)>,
    mask: MarkMask,
) -> impl Iterator<Item = (u8, u8)> {
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    elements.into_iter().filter_map(move |(key, data)| {
        let ElementData::Value(data) = data else {
            return None;
        };
        let slot = u8::try_from(number(key)?).ok()?;
        let owner = u8::try_from(mask.number(Mark(number(data)?))).ok()?;
        Some((slot, owner))
    })
}
