//! Which members own slots.

use std::collections::BTreeMap;

/// A member as steering sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its number in marks.
    pub id: u8,
    /// Its preference class; lower is used first.
    pub tier: usize,
    /// Its share inside the tier; 0 takes nothing.
    pub weight: u32,
    /// Health and operator let it take new bindings.
    pub usable: bool,
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

/// The usable members of the first tier that has any; with `try_anyway`, failing that, the
/// possible ones of the first tier that has any.
pub fn select(candidates: &[Candidate], try_anyway: bool) -> Selection {
    let owners = first_tier(candidates, |candidate| candidate.usable);
    if !owners.is_empty() || !try_anyway {
        return Selection { owners, tried: false };
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

    fn candidate(id: u8, tier: usize, weight: u32, usable: bool, possible: bool) -> Candidate {
        Candidate { id, tier, weight, usable, possible }
    }

    #[test]
    fn the_first_tier_with_a_usable_member_takes_all() {
        let members = [
            candidate(1, 0, 5, false, false),
            candidate(2, 1, 4, true, true),
            candidate(3, 1, 1, true, true),
            candidate(4, 2, 9, true, true),
        ];
        let selection = select(&members, true);
        assert_eq!(selection.owners, BTreeMap::from([(2, 4), (3, 1)]));
        assert!((selection.share(2) - 0.8).abs() < 1e-9);
        assert!(!selection.tried);
    }

    #[test]
    fn a_weight_of_zero_takes_nothing_even_alone() {
        assert!(select(&[candidate(1, 0, 0, true, true)], true).owners.is_empty());
    }

    #[test]
    fn what_is_possible_is_tried_only_when_nothing_is_usable_and_only_if_asked() {
        let members = [candidate(1, 0, 5, false, false), candidate(2, 1, 4, false, true)];
        assert!(select(&members, false).owners.is_empty());
        let selection = select(&members, true);
        assert_eq!(selection.owners, BTreeMap::from([(2, 4)]));
        assert!(selection.tried);
    }
}
