//! Dealing by what is measured: the least delay, or the most free bandwidth.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::SLOTS;

/// A shorter delay counts when it is shorter by this, and
const GAIN: Duration = Duration::from_millis(10);
/// of a server's by this, and
const RESPONSE_GAIN: Duration = Duration::from_micros(500);
/// by this share of the delay that it would replace.
const GAIN_SHARE: f64 = 0.2;
/// An uplink that carries this share of its bandwidth is full,
const FULL: f64 = 0.9;
/// and one that was full is not, below this.
const ROOM: f64 = 0.8;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The round-trip time.
    Delay,
    /// The rate, against the bandwidth.
    Usage,
    /// The time that a server takes to answer: less than a link's, and so are differences that count.
    Response,
    /// Live connections, against the capacity.
    Connections,
}

/// A member that may take new sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Its number in marks.
    pub id: u8,
    /// Its preference class.
    pub tier: usize,
    /// Its mean round-trip time, if known.
    pub delay: Option<Duration>,
    /// What it can carry, relative to the others.
    pub capacity: f64,
    /// How much of that it carries, 0 to 1 (of [`Measure::Connections`]: how many); `None` when that
    /// is not known.
    pub usage: Option<f64>,
}

/// Deals one slot table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dealer {
    /// Number → slots; together all of them. Empty: nobody has been dealt to yet.
    counts: BTreeMap<u8, usize>,
    /// Who has the least delay, as far as that is settled.
    leader: Option<u8>,
    /// Who is full.
    full: BTreeSet<u8>,
}

impl Dealer {
    /// One that goes on from these slots.
    pub fn from(counts: BTreeMap<u8, usize>) -> Dealer {
        let whole = counts.values().sum::<usize>() == SLOTS;
        Dealer { counts: if whole { counts } else { BTreeMap::new() }, ..Dealer::default() }
    }

    /// Number → slots.
    pub fn counts(&self) -> &BTreeMap<u8, usize> {
        &self.counts
    }

    /// Deals anew. Slots of members that make no offer go to the others at once; of the others at
    /// most `budget` move.
    pub fn deal(&mut self, measure: Measure, offers: &[Offer], budget: usize) {
        let target = match measure {
            Measure::Delay => self.by_delay(offers, GAIN),
            Measure::Response => self.by_delay(offers, RESPONSE_GAIN),
            Measure::Usage => self.by_usage(offers),
            Measure::Connections => by_connections(offers),
        };
        let staying = match self.counts.is_empty() {
            true => BTreeSet::new(),
            false => offers.iter().map(|offer| offer.id).collect(),
        };
        self.counts = approach(&self.counts, &target, &staying, budget);
    }

    /// Everything to the one with the least delay. Another must be better by enough.
    fn by_delay(&mut self, offers: &[Offer], gain: Duration) -> BTreeMap<u8, usize> {
        let first = offers.iter().map(|offer| offer.tier).min();
        let offers = || offers.iter().filter(|offer| Some(offer.tier) == first);
        let delay = |offer: &Offer| offer.delay.unwrap_or(Duration::MAX);
        let best = offers().min_by_key(|offer| (delay(offer), offer.id));
        let most = offers().max_by_key(|offer| self.counts.get(&offer.id).copied().unwrap_or(0));
        // Whoever holds most leads after a start.
        let held = most.filter(|offer| self.counts.contains_key(&offer.id)).map(|offer| offer.id);
        let leader = self.leader.or(held).and_then(|id| offers().find(|offer| offer.id == id));
        let next = match (leader, best) {
            (Some(leader), Some(best)) if !is_better(best.delay, leader.delay, gain) => {
                Some(leader.id)
            }
            (_, best) => best.map(|best| best.id),
        };
        self.leader = next;
        next.into_iter().map(|id| (id, SLOTS)).collect()
    }

    /// Shares follow the bandwidth that is free; the next tier joins when those before are full.
    fn by_usage(&mut self, offers: &[Offer]) -> BTreeMap<u8, usize> {
        for offer in offers {
            let limit = if self.full.contains(&offer.id) { ROOM } else { FULL };
            match offer.usage.is_some_and(|usage| usage >= limit) {
                true => self.full.insert(offer.id),
                false => self.full.remove(&offer.id),
            };
        }
        self.full.retain(|id| offers.iter().any(|offer| offer.id == *id));
        let mut tiers: Vec<usize> = offers.iter().map(|offer| offer.tier).collect();
        tiers.sort_unstable();
        tiers.dedup();
        let room = |offer: &&Offer| !self.full.contains(&offer.id);
        let last = tiers.iter().find(|tier| offers.iter().any(|o| o.tier == **tier && room(&o)));
        let free = |offer: &Offer| offer.capacity * (1.0 - offer.usage.unwrap_or(0.0)).max(0.0);
        let weights: Vec<(u8, f64)> = match last {
            Some(last) => {
                let joined = offers.iter().filter(|o| o.tier <= *last).filter(room);
                joined.map(|offer| (offer.id, free(offer))).collect()
            }
            // All are full: by what they can carry.
            None => {
                let first = offers.iter().filter(|offer| Some(&offer.tier) == tiers.first());
                first.map(|offer| (offer.id, offer.capacity)).collect()
            }
        };
        shares(&weights)
    }
}

/// Whether one delay is better than another by enough.
fn is_better(one: Option<Duration>, other: Option<Duration>, gain: Duration) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one + gain.max(other.mul_f64(GAIN_SHARE)) < other,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// So that the next connections make all equally full, for what each can carry: who has most already
/// gets none.
fn by_connections(offers: &[Offer]) -> BTreeMap<u8, usize> {
    let live: f64 = offers.iter().filter_map(|offer| offer.usage).sum();
    let next = (live / 8.0).max(offers.len() as f64 * 4.0);
    let mut order: Vec<(u8, f64, f64)> = offers
        .iter()
        .filter(|offer| offer.capacity > 0.0)
        .map(|offer| (offer.id, offer.capacity, offer.usage.unwrap_or(0.0)))
        .collect();
    order.sort_by(|a, b| (a.2 / a.1).total_cmp(&(b.2 / b.1)).then(a.0.cmp(&b.0)));
    let (mut capacity, mut load, mut level) = (0.0, 0.0, f64::INFINITY);
    for (_, of, has) in &order {
        if has / of >= level {
            break;
        }
        capacity += of;
        load += has;
        level = (load + next) / capacity;
    }
    let weights: Vec<(u8, f64)> =
        order.iter().map(|(id, of, has)| (*id, (level * of - has).max(0.0))).collect();
    shares(&weights)
}

/// Slots in proportion: largest remainders, ties to the lower number.
fn shares(weights: &[(u8, f64)]) -> BTreeMap<u8, usize> {
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    if total <= 0.0 {
        return BTreeMap::new();
    }
    let exact: Vec<(u8, f64)> =
        weights.iter().map(|(id, weight)| (*id, weight / total * SLOTS as f64)).collect();
    let mut counts: BTreeMap<u8, usize> =
        exact.iter().map(|(id, exact)| (*id, exact.floor() as usize)).collect();
    let mut order = exact.clone();
    order.sort_by(|a, b| b.1.fract().total_cmp(&a.1.fract()).then(a.0.cmp(&b.0)));
    let missing = SLOTS.saturating_sub(counts.values().sum());
    for (id, _) in order.iter().cycle().take(missing) {
        *counts.entry(*id).or_insert(0) += 1;
    }
    counts
}

/// From some counts towards others: slots of members that do not stay are dealt out at once, of the
/// others at most `budget` move.
fn approach(
    from: &BTreeMap<u8, usize>,
    target: &BTreeMap<u8, usize>,
    staying: &BTreeSet<u8>,
    budget: usize,
) -> BTreeMap<u8, usize> {
    let mut counts: BTreeMap<u8, usize> =
        from.iter().filter(|(id, _)| staying.contains(id)).map(|(id, n)| (*id, *n)).collect();
    let have = |counts: &BTreeMap<u8, usize>, id: u8| counts.get(&id).copied().unwrap_or(0);
    let wanted = |id: u8| target.get(&id).copied().unwrap_or(0);
    // Who lacks most, and who has most too many.
    let poorest = |counts: &BTreeMap<u8, usize>| {
        let lack = |id: u8| wanted(id).saturating_sub(have(counts, id));
        target.keys().copied().filter(|id| lack(*id) > 0).max_by_key(|id| (lack(*id), *id))
    };
    let richest = |counts: &BTreeMap<u8, usize>| {
        let more = |id: u8| have(counts, id).saturating_sub(wanted(id));
        counts.keys().copied().filter(|id| more(*id) > 0).max_by_key(|id| (more(*id), *id))
    };
    let free = SLOTS.saturating_sub(counts.values().sum());
    for _ in 0..free {
        let Some(id) = poorest(&counts) else { break };
        *counts.entry(id).or_insert(0) += 1;
    }
    for _ in 0..budget {
        let (Some(poor), Some(rich)) = (poorest(&counts), richest(&counts)) else { break };
        *counts.entry(poor).or_insert(0) += 1;
        *counts.entry(rich).or_insert(1) -= 1;
    }
    counts.retain(|_, count| *count > 0);
    counts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::SLOTS;
    use super::{Dealer, Measure, Offer};

    /// As many slots move in a second.
    const BUDGET: usize = 32;

    fn offer(id: u8, tier: usize, milliseconds: u64, capacity: f64, usage: f64) -> Offer {
        let delay = Some(Duration::from_millis(milliseconds));
        Offer { id, tier, delay, capacity, usage: Some(usage) }
    }

    fn by_delay(dealer: &mut Dealer, delays: &[(u8, u64)]) -> BTreeMap<u8, usize> {
        let offers: Vec<Offer> =
            delays.iter().map(|(id, delay)| offer(*id, 0, *delay, 1.0, 0.0)).collect();
        dealer.deal(Measure::Delay, &offers, BUDGET);
        dealer.counts().clone()
    }

    #[test]
    fn the_first_deal_is_whole_and_later_ones_are_limited() {
        let mut dealer = Dealer::default();
        assert_eq!(by_delay(&mut dealer, &[(1, 8), (2, 30)]), BTreeMap::from([(1, SLOTS)]));
        let later = by_delay(&mut dealer, &[(1, 80), (2, 30)]);
        assert_eq!(later, BTreeMap::from([(1, SLOTS - BUDGET), (2, BUDGET)]));
        for _ in 0..7 {
            by_delay(&mut dealer, &[(1, 80), (2, 30)]);
        }
        assert_eq!(dealer.counts(), &BTreeMap::from([(2, SLOTS)]));
    }

    #[test]
    fn a_small_gain_changes_nothing() {
        let mut dealer = Dealer::default();
        by_delay(&mut dealer, &[(1, 20), (2, 21)]);
        let all_first = BTreeMap::from([(1, SLOTS)]);
        assert_eq!(
            by_delay(&mut dealer, &[(1, 20), (2, 10)]),
            all_first,
            "10 ms are not more than 10"
        );
        assert_eq!(by_delay(&mut dealer, &[(1, 100), (2, 81)]), all_first, "19 of 100 ms");
        assert!(by_delay(&mut dealer, &[(1, 100), (2, 79)]).contains_key(&2));
    }

    #[test]
    fn whoever_goes_loses_all_at_once_and_whoever_returns_gains_slowly() {
        let mut dealer = Dealer::default();
        by_delay(&mut dealer, &[(1, 8), (2, 30)]);
        assert_eq!(by_delay(&mut dealer, &[(2, 30)]), BTreeMap::from([(2, SLOTS)]));
        let back = by_delay(&mut dealer, &[(1, 8), (2, 30)]);
        assert_eq!(back, BTreeMap::from([(1, BUDGET), (2, SLOTS - BUDGET)]));
    }

    #[test]
    fn the_next_connections_make_all_equally_full() {
        let deal = |loads: &[(f64, f64)]| {
            let offers: Vec<Offer> = (1..)
                .zip(loads)
                .map(|(id, (capacity, live))| offer(id, 0, 0, *capacity, *live))
                .collect();
            let mut dealer = Dealer::default();
            dealer.deal(Measure::Connections, &offers, SLOTS);
            dealer.counts().clone()
        };
        assert_eq!(deal(&[(1.0, 5.0), (1.0, 5.0)]), BTreeMap::from([(1, 128), (2, 128)]));
        assert_eq!(deal(&[(1.0, 100.0), (1.0, 0.0)]), BTreeMap::from([(2, SLOTS)]), "fewest first");
        assert_eq!(deal(&[(3.0, 30.0), (1.0, 10.0)]), BTreeMap::from([(1, 192), (2, 64)]));
    }

    #[test]
    fn after_a_start_the_slots_in_force_are_gone_on_from() {
        let mut dealer = Dealer::from(BTreeMap::from([(1, 56), (2, 200)]));
        assert_eq!(by_delay(&mut dealer, &[(1, 25), (2, 30)]), BTreeMap::from([(1, 24), (2, 232)]));
    }

    #[test]
    fn noise_around_equal_delays_hardly_ever_switches() {
        let (mut dealer, mut switches, mut random) = (Dealer::default(), 0, 7_u64);
        let mut noisy = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // The mean of 20 outcomes that are each within a fifth.
            30_000 + (random >> 33) % 3_000
        };
        let mut leader = None;
        for _ in 0..10_000 {
            let delay = |micros| Some(Duration::from_micros(micros));
            let offers =
                [1, 2].map(|id| Offer { delay: delay(noisy()), ..offer(id, 0, 0, 1.0, 0.0) });
            dealer.deal(Measure::Delay, &offers, BUDGET);
            switches += u32::from(dealer.leader != leader);
            leader = dealer.leader;
        }
        assert_eq!(switches, 1);
    }

    #[test]
    fn idle_links_share_by_bandwidth() {
        let mut dealer = Dealer::default();
        dealer.deal(Measure::Usage, &[offer(1, 0, 9, 300.0, 0.0), offer(2, 0, 9, 100.0, 0.0)], 32);
        assert_eq!(dealer.counts(), &BTreeMap::from([(1, 192), (2, 64)]));
    }

    #[test]
    fn the_next_tier_joins_when_the_first_is_full_and_leaves_when_it_is_not() {
        let mut dealer = Dealer::default();
        let deal = |dealer: &mut Dealer, usage: f64| {
            let offers = [offer(1, 0, 9, 100.0, usage), offer(2, 1, 9, 20.0, 0.0)];
            dealer.deal(Measure::Usage, &offers, SLOTS);
            dealer.counts().clone()
        };
        assert_eq!(deal(&mut dealer, 0.5), BTreeMap::from([(1, SLOTS)]));
        assert_eq!(deal(&mut dealer, 0.91), BTreeMap::from([(2, SLOTS)]));
        assert_eq!(
            deal(&mut dealer, 0.85),
            BTreeMap::from([(2, SLOTS)]),
            "full until there is room"
        );
        assert_eq!(deal(&mut dealer, 0.7), BTreeMap::from([(1, SLOTS)]));
    }

    #[test]
    fn load_spills_over_before_a_link_is_full_and_settles() {
        // Each new session loads its link for a minute; together they fill 1.2 times the first.
        let capacity = [100.0, 100.0];
        let mut load = [0.0_f64; 2];
        let mut dealer = Dealer::default();
        let mut arrived: Vec<(usize, usize)> = Vec::new();
        let (mut worst, mut shares) = (0.0_f64, Vec::new());
        for second in 0..600 {
            arrived.retain(|(_, until)| *until > second);
            for (link, load) in load.iter_mut().enumerate() {
                *load = arrived.iter().filter(|(on, _)| *on == link).count() as f64;
            }
            let offers: Vec<Offer> = (0..2)
                .map(|i| offer(i as u8 + 1, 0, 9, capacity[i], load[i] / capacity[i]))
                .collect();
            dealer.deal(Measure::Usage, &offers, BUDGET);
            let first = dealer.counts().get(&1).copied().unwrap_or(0);
            for session in 0..2 {
                let slot = (second * 2 + session) * 97 % SLOTS;
                arrived.push((usize::from(slot >= first), second + 60));
            }
            if second > 120 {
                worst = load.iter().map(|load| load / 100.0).fold(worst, f64::max);
                shares.push(first);
            }
        }
        assert!(worst < 0.9, "{worst}");
        let (least, most) = (shares.iter().min().copied(), shares.iter().max().copied());
        assert!(
            most.zip(least).is_some_and(|(most, least)| most - least < 96),
            "{least:?} {most:?}"
        );
    }

    proptest! {
        #[test]
        fn every_slot_has_an_owner_and_few_move(
            usages in prop::collection::vec(prop::collection::vec(0.0..1.5_f64, 4), 1..20),
            capacities in prop::collection::vec(1.0..1000.0_f64, 4),
        ) {
            let mut dealer = Dealer::default();
            let mut before: Option<BTreeMap<u8, usize>> = None;
            for usage in usages {
                let offers: Vec<Offer> = (0..4)
                    .map(|i| offer(i as u8 + 1, i / 2, 9, capacities[i], usage[i]))
                    .collect();
                dealer.deal(Measure::Usage, &offers, BUDGET);
                let counts = dealer.counts().clone();
                prop_assert_eq!(counts.values().sum::<usize>(), SLOTS);
                if let Some(before) = before {
                    let lost = |(id, was): (&u8, &usize)| {
                        was.saturating_sub(counts.get(id).copied().unwrap_or(0))
                    };
                    prop_assert!(before.iter().map(lost).sum::<usize>() <= BUDGET);
                }
                before = Some(counts);
            }
        }
    }
}
