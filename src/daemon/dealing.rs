//! Once a second, slots of policies that choose by measure are dealt by what is measured. Pure.

use std::collections::BTreeMap;
use std::time::Instant;

use super::judge::Judge;
use crate::model::{Balance, Family, IfName, Name, Uplink};
use crate::plan::{Dealt, Layout, View, measured_maps, offered};
use crate::steering::{Candidate, Dealer, Measure, Offer};

/// So many of 256 slots move in a second, because of what is measured.
pub(super) const BUDGET: usize = 32;
/// So much of a rate is what was measured last; the rest is what it was before.
const FRESH: f64 = 0.5;

/// Bytes that each device received and sent.
pub(super) type Carried = BTreeMap<IfName, (u64, u64)>;

/// What is measured, and what was made of it.
#[derive(Debug, Default)]
pub(super) struct Dealing {
    /// By slot table.
    dealers: BTreeMap<String, Dealer>,
    /// Bytes that devices had carried, and when.
    bytes: Option<(Instant, Carried)>,
    /// Bits per second received and sent, smoothed.
    rates: BTreeMap<Name, (f64, f64)>,
}

impl Dealing {
    /// Whether any policy chooses by measure.
    pub(super) fn is_needed(layout: &Layout) -> bool {
        layout.policies.iter().any(|policy| measure(policy.balance).is_some())
    }

    /// Devices have carried so many bytes by now.
    pub(super) fn hear(&mut self, layout: &Layout, bytes: Carried, now: Instant) {
        if let Some((then, before)) = &self.bytes {
            let seconds = now.saturating_duration_since(*then).as_secs_f64().max(0.01);
            for uplink in &layout.site.uplinks {
                let (Some(now), Some(then)) =
                    (bytes.get(&uplink.interface), before.get(&uplink.interface))
                else {
                    self.rates.remove(&uplink.name);
                    continue;
                };
                let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 * 8.0 / seconds;
                let (down, up) = (rate(now.0, then.0), rate(now.1, then.1));
                let smooth = |was: f64, is: f64| was + (is - was) * FRESH;
                let known = self.rates.entry(uplink.name.clone()).or_insert((down, up));
                *known = (smooth(known.0, down), smooth(known.1, up));
            }
        }
        self.bytes = Some((now, bytes));
    }

    /// Deals every table that is dealt by measure. `held` tells the slots in force, for those that
    /// are dealt for the first time.
    pub(super) fn deal(
        &mut self,
        layout: &Layout,
        view: &View,
        judge: &Judge,
        budget: usize,
        held: impl Fn(&str) -> BTreeMap<u8, usize>,
    ) -> BTreeMap<String, Dealt> {
        let maps = measured_maps(layout);
        self.dealers.retain(|map, _| maps.contains_key(map));
        let mut dealt = BTreeMap::new();
        for (map, (family, policy)) in maps {
            let Some(measure) = measure(policy.balance) else { continue };
            let candidates = offered(layout, view, policy, family);
            if candidates.is_empty() {
                continue;
            }
            let offers: Vec<Offer> =
                candidates.iter().map(|one| self.offer(layout, judge, family, one)).collect();
            let dealer =
                self.dealers.entry(map.clone()).or_insert_with(|| Dealer::from(held(&map)));
            dealer.deal(measure, &offers, budget);
            let why = why(layout, measure, &offers);
            dealt.insert(map, Dealt { counts: dealer.counts().clone(), why });
        }
        dealt
    }

    fn offer(&self, layout: &Layout, judge: &Judge, family: Family, member: &Candidate) -> Offer {
        let uplink = layout.uplinks().find(|(_, id)| id.0 == member.id).map(|(uplink, _)| uplink);
        let usage = uplink.and_then(|uplink| {
            let bandwidth = uplink.bandwidth?;
            let (down, up) = self.rates.get(&uplink.name)?;
            let part = |rate: f64, of: u64| if of == 0 { 0.0 } else { rate / of as f64 };
            Some(part(*down, bandwidth.down).max(part(*up, bandwidth.up)))
        });
        Offer {
            id: member.id,
            tier: member.tier,
            delay: uplink.and_then(|uplink| judge.figures(&uplink.name, family).rtt),
            capacity: uplink.map_or(0.0, |uplink| capacity(layout, uplink)),
            usage,
        }
    }
}

fn measure(balance: Balance) -> Option<Measure> {
    match balance {
        Balance::LowestLatency => Some(Measure::Delay),
        Balance::LeastUsed => Some(Measure::Usage),
        _ => None,
    }
}

/// What an uplink can carry: its bandwidth; without one, what its weight makes of the others'.
fn capacity(layout: &Layout, uplink: &Uplink) -> f64 {
    let weight =
        |uplink: &Uplink| f64::from(layout.weights.get(&uplink.name).copied().unwrap_or(1));
    if let Some(bandwidth) = uplink.bandwidth {
        return bandwidth.down as f64;
    }
    let unit = |other: &Uplink| {
        let weight = weight(other);
        other.bandwidth.filter(|_| weight > 0.0).map(|bandwidth| bandwidth.down as f64 / weight)
    };
    let units: Vec<f64> = layout.site.uplinks.iter().filter_map(unit).collect();
    let unit = match units.as_slice() {
        [] => 1.0,
        several => several.iter().sum::<f64>() / several.len() as f64,
    };
    weight(uplink) * unit
}

/// The figures, for people.
fn why(layout: &Layout, measure: Measure, offers: &[Offer]) -> String {
    let name = |id: u8| {
        let uplink = layout.uplinks().find(|(_, other)| other.0 == id);
        uplink.map_or("", |(uplink, _)| uplink.name.as_str())
    };
    let figure = |offer: &Offer| match measure {
        Measure::Delay | Measure::Response => offer
            .delay
            .map_or("not measured".to_owned(), |d| format!("{:.1} ms", d.as_secs_f64() * 1000.0)),
        Measure::Usage | Measure::Connections => offer
            .usage
            .map_or("bandwidth not known".to_owned(), |u| format!("{:.0} % in use", u * 100.0)),
    };
    let all: Vec<String> =
        offers.iter().map(|offer| format!("{} {}", name(offer.id), figure(offer))).collect();
    let what = match measure {
        Measure::Delay | Measure::Response => "the shortest round-trip time decides",
        Measure::Usage | Measure::Connections => "free bandwidth decides",
    };
    format!("{what}: {}", all.join(", "))
}
