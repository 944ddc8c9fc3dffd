//! Who takes new sessions: slot tables, one for each way to choose, shared by the policies that
//! choose alike; and the uplinks that keep their bindings.

use std::collections::BTreeMap;

use super::build::{map_of, mark_bytes, mark_data, names, set_of};
use crate::kstate::{Digest, ElementData, Elements, FieldType, SetShape, Snapshot};
use crate::model::{Balance, Family, Mark, MarkMask, Name, WhenAllDown};
use crate::plan::view::{Layout, View};
use crate::steering::{Selection, SlotTable, deal, deal_by_hash};

/// The slot table that a policy uses.
#[derive(Debug, Clone)]
pub(in crate::plan) struct Shared {
    pub(in crate::plan) map: String,
    balance: Balance,
    selection: Selection,
}

/// Which slot table each policy uses: equal members, weights and balance share one.
pub(in crate::plan) fn shared_slots(
    layout: &Layout,
    view: &View,
    family: Family,
) -> BTreeMap<Name, Shared> {
    let shared = |policy: &crate::model::Policy| {
        let weight = |name: &Name| layout.weights.get(name).copied().unwrap_or(1);
        let tiers: Vec<Vec<(&Name, u32)>> = policy
            .tiers
            .iter()
            .map(|tier| tier.iter().map(|name| (name, weight(name))).collect())
            .collect();
        let tried = policy.when_all_down == WhenAllDown::Try;
        let digest = Digest::of(&format!("{tiers:?} {:?} {tried}", policy.balance));
        let selection = view.selections.get(&policy.name).and_then(|both| both.get(&family));
        let map = names::slots(family, format_args!("{:08x}", digest.0));
        let selection = selection.cloned().unwrap_or_default();
        (policy.name.clone(), Shared { map, balance: policy.balance, selection })
    };
    layout.policies.iter().map(shared).collect()
}

/// Every map of slots of a family, with who owns them.
fn slot_maps(layout: &Layout, view: &View, family: Family) -> BTreeMap<String, Shared> {
    let shared = shared_slots(layout, view, family).into_values();
    shared.map(|shared| (shared.map.clone(), shared)).collect()
}

/// A set that says who takes new sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plan) struct SteeringSet {
    pub(in crate::plan) shape: SetShape,
    pub(in crate::plan) elements: Elements,
}

/// The sets that say who takes new sessions. `current` gives a map's elements as they are, of which
/// as few as possible move.
pub(in crate::plan) fn build_steering<'a>(
    layout: &Layout,
    view: &View,
    current: impl Fn(&str) -> Option<&'a Elements>,
) -> BTreeMap<String, SteeringSet> {
    let mut sets = BTreeMap::new();
    for family in Family::BOTH {
        sets.insert(names::keepable(family), build_keepable(layout, view, family));
        for (map, slots) in slot_maps(layout, view, family) {
            let set = build_slots(layout, &slots, current(&map));
            sets.insert(map, set);
        }
    }
    sets
}

/// The same, but only those for which `after` decides otherwise than `before`.
pub(in crate::plan) fn rebuild_steering<'a>(
    layout: &Layout,
    before: &View,
    after: &View,
    current: impl Fn(&str) -> Option<&'a Elements>,
) -> BTreeMap<String, SteeringSet> {
    let mut sets = BTreeMap::new();
    for family in Family::BOTH {
        sets.insert(names::keepable(family), build_keepable(layout, after, family));
        let were = slot_maps(layout, before, family);
        for (map, slots) in slot_maps(layout, after, family) {
            if were.get(&map).is_none_or(|were| were.selection != slots.selection) {
                let set = build_slots(layout, &slots, current(&map));
                sets.insert(map, set);
            }
        }
    }
    sets
}

fn build_slots(layout: &Layout, slots: &Shared, previous: Option<&Elements>) -> SteeringSet {
    let mask = layout.site.marks.uplink;
    let dealt = match slots.balance {
        Balance::SourceHash => {
            let uplinks = layout.ids.uplinks.iter();
            let names = uplinks.map(|(name, id)| (id.0, name.to_string())).collect();
            deal_by_hash(&slots.selection.owners, &names)
        }
        _ => {
            let previous = SlotTable::from_owners(owners(previous.into_iter().flatten(), mask));
            deal(&previous, &slots.selection.owners)
        }
    };
    let element = |(slot, owner): (u8, u8)| {
        let key = u32::from(slot).to_ne_bytes().to_vec();
        (key, mark_data(mask.place(u32::from(owner)).0))
    };
    SteeringSet {
        shape: map_of(&[FieldType::Slot], FieldType::Mark),
        elements: dealt.owners().map(element).collect(),
    }
}

/// Uplinks that keep their bindings.
fn build_keepable(layout: &Layout, view: &View, family: Family) -> SteeringSet {
    let uplinks = layout.uplinks().filter(|(uplink, _)| view.usable(&uplink.name, family));
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
    elements: impl IntoIterator<Item = (&'a Vec<u8>, &'a ElementData)>,
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
