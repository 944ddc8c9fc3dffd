//! Which members own slots.

use std::collections::BTreeMap;

use crate::health::Health;

/// A member as steering sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number in marks.
    pub id: u8,
    /// Its preference class; lower is used first.
    pub tier: usize,
    /// Its share inside the tier; 0 takes nothing.
    pub weight: u32,
    /// How well it answers; `Down` also when the operator wants nothing new there.
    pub health: Health,
    /// It could carry packets: it has carrier, an address and a gateway.
    pub possible: bool,
}

/// Who takes new bindings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Number → weight; every weight is positive. Empty: nobody.
    pub owners: BTreeMap<u8, u32>,
    /// None of the owners is usable: they are tried because nothing else is up.
    pub tried: bool,
}

impl Selection {
    /// A member's share of new bindings, from 0 to 1.
    pub fn share(&self, id: u8) -> f64 {
        let total: u64 = self.owners.values().map(|weight| u64::from(*weight)).sum();
        let weight = self.owners.get(&id).copied().unwrap_or(0);
        if total == 0 { 0.0 } else { f64::from(weight) / total as f64 }
    }
}

/// The members that are up, of the first tier that has any. Failing that, those that are degraded,
/// then those of which nothing is known yet, and with `try_anyway` then those that are possible.
pub fn select(candidates: &[Candidate], try_anyway: bool) -> Selection {
    for wanted in [Health::Up, Health::Degraded, Health::Unknown] {
        let owners = first_tier(candidates, |candidate| candidate.health == wanted);
        if !owners.is_empty() {
            return Selection { owners, tried: false };
        }
    }
    if !try_anyway {
        return Selection::default();
    }
    let owners = first_tier(candidates, |candidate| candidate.possible);
    Selection { tried: !owners.is_empty(), owners }
}

fn first_tier(candidates: &[Candidate], admit: impl Fn(&Candidate) -> bool) -> BTreeMap<u8, u32> {
    let admitted = || candidates.iter().filter(|c| c.weight > 0 && admit(c));
    let Some(tier) = admitted().map(|c| c.tier).min() else {
        return BTreeMap::new();
    };
    admitted().filter(|c| c.tier == tier).map(|c| (c.id, c.weight)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Candidate, select};
    use crate::health::Health::{self, Degraded, Down, Unknown, Up};

    fn candidate(id: u8, tier: usize, weight: u32, health: Health, possible: bool) -> Candidate {
        Candidate { id, tier, weight, health, possible }
    }

    #[test]
    fn the_first_tier_with_a_usable_member_takes_all() {
        let members = [
            candidate(1, 0, 5, Down, false),
            candidate(2, 1, 4, Up, true),
            candidate(3, 1, 1, Up, true),
            candidate(4, 2, 9, Up, true),
        ];
        let selection = select(&members, true);
        assert_eq!(selection.owners, BTreeMap::from([(2, 4), (3, 1)]));
        assert!((selection.share(2) - 0.8).abs() < 1e-9);
        assert!(!selection.tried);
    }

    #[test]
    fn health_goes_before_tiers() {
        let members = |health: [Health; 3]| {
            let [a, b, c] = health;
            let members = [candidate(1, 0, 1, a, true), candidate(2, 0, 1, b, true)];
            let members = [members.as_slice(), &[candidate(3, 1, 1, c, true)]].concat();
            let selection = select(&members, true);
            (selection.owners.into_keys().collect::<Vec<u8>>(), selection.tried)
        };
        let cases = [
            ([Up, Up, Up], vec![1, 2], false),
            ([Degraded, Up, Up], vec![2], false),
            ([Degraded, Down, Up], vec![3], false),
            ([Degraded, Unknown, Down], vec![1], false),
            ([Unknown, Unknown, Up], vec![3], false),
            ([Unknown, Down, Unknown], vec![1], false),
            ([Down, Down, Down], vec![1, 2], true),
        ];
        for (health, owners, tried) in cases {
            assert_eq!(members(health), (owners, tried), "{health:?}");
        }
    }

    #[test]
    fn a_weight_of_zero_takes_nothing_even_alone() {
        assert!(select(&[candidate(1, 0, 0, Up, true)], true).owners.is_empty());
    }

    #[test]
    fn what_is_possible_is_tried_only_when_nothing_is_usable_and_only_if_asked() {
        let members = [candidate(1, 0, 5, Down, false), candidate(2, 1, 4, Down, true)];
        assert!(select(&members, false).owners.is_empty());
        let selection = select(&members, true);
        assert_eq!(selection.owners, BTreeMap::from([(2, 4)]));
        assert!(selection.tried);
    }
}
