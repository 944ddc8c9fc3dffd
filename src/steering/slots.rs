//! Dealing 256 slots by weight, interleaved, with minimal movement.

use std::collections::BTreeMap;

/// How many slots a table has.
pub const SLOTS: usize = 256;

/// Slot → the number of the member that owns it. Either every slot has an owner, or none has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotTable {
    owners: Vec<Option<u8>>,
}

impl Default for SlotTable {
    fn default() -> SlotTable {
        SlotTable::of(SLOTS)
    }
}

impl SlotTable {
    /// A table of so many slots (256 at most) that nobody owns.
    pub fn of(slots: usize) -> SlotTable {
        SlotTable { owners: vec![None; slots.min(SLOTS)] }
    }

    /// A table from what the kernel holds; slots may be missing.
    pub fn from_owners(owners: impl IntoIterator<Item = (u8, u8)>) -> SlotTable {
        SlotTable::of(SLOTS).owned(owners)
    }

    /// The same, of as many slots as this one.
    pub fn owned(mut self, owners: impl IntoIterator<Item = (u8, u8)>) -> SlotTable {
        for (slot, owner) in owners {
            if let Some(place) = self.owners.get_mut(usize::from(slot)) {
                *place = Some(owner);
            }
        }
        self
    }

    /// Slot and owner, in the order of the slots.
    pub fn owners(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        (0..=u8::MAX).zip(&self.owners).filter_map(|(slot, owner)| Some((slot, (*owner)?)))
    }

    /// How many slots each member owns.
    pub fn counts(&self) -> BTreeMap<u8, usize> {
        let mut counts = BTreeMap::new();
        for owner in self.owners.iter().copied().flatten() {
            *counts.entry(owner).or_insert(0) += 1;
        }
        counts
    }

    /// How many slots have another owner in `other`, or none in one of the two.
    pub fn moved(&self, other: &SlotTable) -> usize {
        self.owners.iter().zip(&other.owners).filter(|(one, other)| one != other).count()
    }
}

/// Deals the slots so that each member owns its share of them within one slot, taking from members
/// that own too many and giving to those that own too few, and moving no other.
pub fn deal(previous: &SlotTable, weights: &BTreeMap<u8, u32>) -> SlotTable {
    let mut table = SlotTable::of(previous.owners.len());
    let mut wanted: BTreeMap<u8, usize> = BTreeMap::new();
    for (member, target) in targets(weights, previous.owners.len()) {
        let kept = kept(previous, member, target);
        wanted.insert(member, target - kept.len());
        for slot in kept {
            table.owners[usize::from(slot)] = Some(member);
        }
    }
    let free = table.owners.iter_mut().filter(|owner| owner.is_none());
    for (owner, member) in free.zip(interleave(&wanted)) {
        *owner = Some(member);
    }
    table
}

/// How many slots each member gets: largest remainders, ties to the lower number.
fn targets(weights: &BTreeMap<u8, u32>, slots: usize) -> BTreeMap<u8, usize> {
    let total: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
    if total == 0 {
        return BTreeMap::new();
    }
    let exact = |weight: u32| u64::from(weight) * slots as u64;
    let mut targets: BTreeMap<u8, usize> = BTreeMap::new();
    let mut remainders = Vec::new();
    for (&member, &weight) in weights {
        targets.insert(member, (exact(weight) / total) as usize);
        remainders.push((std::cmp::Reverse(exact(weight) % total), member));
    }
    remainders.sort_unstable();
    let missing = slots - targets.values().sum::<usize>();
    for (_, member) in remainders.into_iter().take(missing) {
        *targets.entry(member).or_insert(0) += 1;
    }
    targets
}

/// The slots that a member keeps: all, or `target` of them spread evenly over those it has.
fn kept(previous: &SlotTable, member: u8, target: usize) -> Vec<u8> {
    let held: Vec<u8> =
        previous.owners().filter(|(_, owner)| *owner == member).map(|(slot, _)| slot).collect();
    if held.len() <= target {
        return held;
    }
    (0..target).map(|n| held[n * held.len() / target]).collect()
}

/// A sequence in which each member appears as often as wanted, as evenly spread as can be
/// (smooth weighted round-robin).
fn interleave(wanted: &BTreeMap<u8, usize>) -> Vec<u8> {
    let total: usize = wanted.values().sum();
    let mut credits: Vec<(u8, i64, i64)> =
        wanted.iter().map(|(member, wanted)| (*member, *wanted as i64, 0)).collect();
    let mut sequence = Vec::with_capacity(total);
    for _ in 0..total {
        for (_, wanted, credit) in &mut credits {
            *credit += *wanted;
        }
        let order = |entry: &&mut (u8, i64, i64)| (entry.2, std::cmp::Reverse(entry.0));
        let Some((member, _, credit)) = credits.iter_mut().max_by_key(order) else {
            break;
        };
        *credit -= total as i64;
        sequence.push(*member);
    }
    sequence
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{SLOTS, SlotTable, deal};

    fn weights() -> impl Strategy<Value = BTreeMap<u8, u32>> {
        prop::collection::btree_map(1..=62_u8, 1..=1000_u32, 1..=12)
    }

    proptest! {
        #[test]
        fn shares_are_within_one_slot_of_the_weights(first in weights(), second in weights()) {
            let table = deal(&deal(&SlotTable::default(), &first), &second);
            let total: u32 = second.values().sum();
            prop_assert_eq!(table.owners().count(), SLOTS);
            for (member, weight) in &second {
                let exact = f64::from(*weight) * 256.0 / f64::from(total);
                let owned = table.counts().get(member).copied().unwrap_or(0) as f64;
                prop_assert!((owned - exact).abs() < 1.0, "{member}: {owned} of {exact}");
            }
        }

        #[test]
        fn only_slots_that_must_move_do(first in weights(), second in weights()) {
            let before = deal(&SlotTable::default(), &first);
            let after = deal(&before, &second);
            let held = after.counts();
            let surplus: usize = before.counts().iter()
                .map(|(member, count)| count.saturating_sub(held.get(member).copied().unwrap_or(0)))
                .sum();
            prop_assert_eq!(before.moved(&after), surplus);
        }

        #[test]
        fn dealing_again_changes_nothing(first in weights()) {
            let table = deal(&SlotTable::default(), &first);
            prop_assert_eq!(&deal(&table, &first), &table);
        }
    }

    #[test]
    fn equal_members_take_turns() {
        let table = deal(&SlotTable::default(), &BTreeMap::from([(1, 1), (2, 1)]));
        let owners: Vec<u8> = table.owners().map(|(_, owner)| owner).take(6).collect();
        assert_eq!(owners, [1, 2, 1, 2, 1, 2]);
    }

    #[test]
    fn a_heavy_member_is_spread_over_the_table() {
        let table = deal(&SlotTable::default(), &BTreeMap::from([(1, 5), (2, 4), (3, 1)]));
        let owners: Vec<u8> = table.owners().map(|(_, owner)| owner).collect();
        for window in owners.windows(30) {
            let heavy = window.iter().filter(|owner| **owner == 1).count();
            assert!((13..=17).contains(&heavy), "{heavy} of 30");
        }
    }

    #[test]
    fn nobody_owns_a_slot_when_there_is_nobody() {
        let before = deal(&SlotTable::default(), &BTreeMap::from([(1, 1)]));
        assert_eq!(deal(&before, &BTreeMap::new()), SlotTable::default());
    }
}
