//! Dealing slots by weighted rendezvous hash: a pure function of names and weights.
//!
//! Slot by slot the member with the highest score wins, where the score is `weight / -ln(u)` for a
//! `u` in (0, 1) drawn from the hash of slot and name (Thaler and Ravishankar 1998; weights after
//! Schindelhauer and Schomaker 2005). When a member leaves, only its own slots find another.

use std::collections::BTreeMap;

use super::slots::SlotTable;

/// Deals 256 slots; `names` gives each member's name (a member without one takes part as "").
pub fn deal_by_hash(weights: &BTreeMap<u8, u32>, names: &BTreeMap<u8, String>) -> SlotTable {
    deal_some_by_hash(super::SLOTS, weights, names)
}

/// Deals so many slots.
pub fn deal_some_by_hash(
    slots: usize,
    weights: &BTreeMap<u8, u32>,
    names: &BTreeMap<u8, String>,
) -> SlotTable {
    let winner = |slot: u8| {
        let score = |(member, weight): (&u8, &u32)| {
            let name = names.get(member).map_or("", String::as_str);
            (f64::from(*weight) / -uniform(slot, name).ln(), *member)
        };
        let best = weights.iter().map(score).max_by(|a, b| a.0.total_cmp(&b.0));
        best.map(|(_, member)| (slot, member))
    };
    SlotTable::of(slots).owned((0..=u8::MAX).take(slots).filter_map(winner))
}

/// A number in (0, 1) that only slot and name decide.
fn uniform(slot: u8, name: &str) -> f64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = name.bytes().chain([0, slot]).fold(0xcbf2_9ce4_8422_2325, fnv);
    for factor in [0xff51_afd7_ed55_8ccd_u64, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^= hash >> 33;
    ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::deal_by_hash;

    fn names() -> BTreeMap<u8, String> {
        [(1, "fiber"), (2, "cable"), (3, "lte")].map(|(id, name)| (id, name.to_owned())).into()
    }

    #[test]
    fn a_member_that_leaves_moves_only_its_own_slots() {
        let before = deal_by_hash(&BTreeMap::from([(1, 5), (2, 4), (3, 1)]), &names());
        let after = deal_by_hash(&BTreeMap::from([(1, 5), (3, 1)]), &names());
        for ((slot, was), (_, is)) in before.owners().zip(after.owners()) {
            assert!(was == is || was == 2, "slot {slot} went from {was} to {is}");
        }
    }

    #[test]
    fn shares_follow_weights_roughly() {
        let counts = deal_by_hash(&BTreeMap::from([(1, 1), (2, 1)]), &names()).counts();
        assert!((96..=160).contains(&counts[&1]), "{counts:?}");
    }

    #[test]
    fn the_numbers_of_the_members_do_not_matter() {
        let renumbered = [(4, "fiber"), (5, "cable")].map(|(id, n)| (id, n.to_owned())).into();
        let one = deal_by_hash(&BTreeMap::from([(1, 2), (2, 1)]), &names());
        let other = deal_by_hash(&BTreeMap::from([(4, 2), (5, 1)]), &renumbered);
        for ((_, a), (_, b)) in one.owners().zip(other.owners()) {
            assert_eq!(a + 3, b);
        }
    }
}
