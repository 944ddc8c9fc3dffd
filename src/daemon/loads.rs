//! Once a second, slots of groups that choose by measure are dealt: by live connections, or by the
//! time that checks take. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::checks::{Checks, Seat};
use crate::health::Health;
use crate::model::{Family, GroupBalance, Name, Server, ServerId};
use crate::plan::inbound::Numbered;
use crate::plan::{Layout, Standings};
use crate::steering::{Dealer, Measure, Offer};

/// So many of 256 slots of a group move in a second, because of what is measured.
const BUDGET: usize = 64;
/// Not more often than this.
const PACE: Duration = Duration::from_millis(900);

/// Live connections of each server.
pub(super) type Loads = BTreeMap<Seat, u64>;

/// What is measured, and what was made of it.
#[derive(Debug, Default)]
pub(super) struct LoadDealing {
    dealers: BTreeMap<(Name, Family), Dealer>,
    loads: Loads,
    dealt: Option<Instant>,
    /// Some group chooses by measure. Kept, as there may be thousands, and it is asked at every turn.
    needed: bool,
}

impl LoadDealing {
    /// For the groups of this site.
    pub(super) fn adopt(&mut self, layout: &Layout) {
        self.needed = layout.site.groups.values().any(|group| group.balance.is_measured());
    }

    /// Whether any group chooses by measure.
    pub(super) fn is_needed(&self) -> bool {
        self.needed
    }

    /// Servers have so many live connections by now.
    pub(super) fn hear(&mut self, loads: Loads) {
        self.loads = loads;
    }

    /// Deals every group that chooses by measure.
    pub(super) fn deal(&mut self, layout: &Layout, checks: &mut Checks, now: Instant) {
        if self.dealt.is_some_and(|dealt| now.saturating_duration_since(dealt) < PACE) {
            return;
        }
        self.dealt = Some(now);
        let standings = Standings { groups: checks.groups(), ..Standings::default() };
        for group in layout.groups().filter(|group| group.group.balance.is_measured()) {
            let mut slots = BTreeMap::new();
            for family in Family::BOTH {
                slots.extend(self.deal_group(&group, family, &standings, checks));
            }
            checks.set_slots(&group.group.name, &slots);
        }
    }

    fn deal_group(
        &mut self,
        group: &Numbered<'_>,
        family: Family,
        standings: &Standings,
        checks: &Checks,
    ) -> BTreeMap<Name, u16> {
        let name = &group.group.name;
        let health = |server: &Server| standings.server(name, &server.name).eligible();
        let able: Vec<(&Server, ServerId)> = group
            .servers(family)
            .filter(|(s, _)| s.weight > 0 && health(s) > Health::Down)
            .collect();
        // Backups, and those in worse health, are dealt to only while there is nobody else.
        let backup = able.iter().all(|(server, _)| server.backup);
        let best = able.iter().filter(|(s, _)| s.backup == backup).map(|(s, _)| health(s)).max();
        let takes = |(server, _): &&(&Server, ServerId)| {
            server.backup == backup && Some(health(server)) == best
        };
        let offers: Vec<Offer> =
            able.iter().filter(takes).map(|one| self.offer(group, one, checks)).collect();
        let measure = match group.group.balance {
            GroupBalance::Fastest => Measure::Response,
            _ => Measure::Connections,
        };
        let dealer = self.dealers.entry((name.clone(), family)).or_default();
        dealer.deal(measure, &offers, BUDGET);
        let counts = dealer.counts();
        let slots = |(server, id): &(&Server, ServerId)| {
            let count = counts.get(&id.0).copied().unwrap_or(0);
            (server.name.clone(), u16::try_from(count).unwrap_or(u16::MAX))
        };
        able.iter().map(slots).collect()
    }

    fn offer(
        &self,
        group: &Numbered<'_>,
        (server, id): &(&Server, ServerId),
        checks: &Checks,
    ) -> Offer {
        let seat = (group.group.name.clone(), server.name.clone());
        Offer {
            id: id.0,
            tier: 0,
            delay: checks.figures(&seat).rtt,
            capacity: f64::from(server.weight),
            usage: self.loads.get(&seat).map(|live| *live as f64),
        }
    }
}
