//! Slot tables: one for each way to choose, shared by the policies that choose alike.

use std::collections::BTreeMap;

use super::build::{Builder, map_of, mark_data, names};
use crate::kstate::{Digest, ElementData, Elements, FieldType, Role, Set, Snapshot};
use crate::model::{Balance, Family, Mark, MarkMask, Name, WhenAllDown};
use crate::plan::view::{Layout, View};
use crate::steering::{Selection, SlotTable, deal, deal_by_hash};

/// The slot table that a policy uses.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) map: String,
    balance: Balance,
    selection: Selection,
}

/// Which slot table each policy uses: equal members, weights and balance share one.
pub(super) fn shared_slots(layout: &Layout, view: &View, family: Family) -> BTreeMap<Name, Shared> {
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

pub(super) fn add_slots(
    table: &mut Builder,
    layout: &Layout,
    shared: &BTreeMap<Name, Shared>,
    _family: Family,
    seen: &Snapshot,
) {
    let mask = layout.site.marks.uplink;
    let names: BTreeMap<u8, String> =
        layout.ids.uplinks.iter().map(|(name, id)| (id.0, name.to_string())).collect();
    for slots in shared.values() {
        let previous = observed_slots(seen, &slots.map, mask);
        let dealt = match slots.balance {
            Balance::SourceHash => deal_by_hash(&slots.selection.owners, &names),
            _ => deal(&previous, &slots.selection.owners),
        };
        let element = |(slot, owner): (u8, u8)| {
            let key = u32::from(slot).to_ne_bytes().to_vec();
            (key, mark_data(mask.place(u32::from(owner)).0))
        };
        let elements: Elements = dealt.owners().map(element).collect();
        let shape = map_of(&[FieldType::Slot], FieldType::Mark);
        table.set(slots.map.clone(), Role::Steering, shape, "", elements);
    }
}

/// The slots that the kernel holds now.
pub fn observed_slots(seen: &Snapshot, map: &str, mask: MarkMask) -> SlotTable {
    let set = seen.ours.nft.as_ref().and_then(|table| table.sets.get(map));
    SlotTable::from_owners(set.into_iter().flat_map(|set| owners(set, mask)))
}

fn owners(set: &Set, mask: MarkMask) -> impl Iterator<Item = (u8, u8)> + '_ {
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    set.elements.iter().filter_map(move |(key, data)| {
        let ElementData::Value(data) = data else {
            return None;
        };
        let slot = u8::try_from(number(key)?).ok()?;
        let owner = u8::try_from(mask.number(Mark(number(data)?))).ok()?;
        Some((slot, owner))
    })
}
