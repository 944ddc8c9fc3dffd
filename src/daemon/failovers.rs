//! When new sessions leave an uplink that does not do well, and when they take it again. Pure.
//!
//! ```text
//!              it took new sessions, is down or degraded, and others take them
//!   at home ───────────────────────────────────────────────────────────────────► away
//!      ▲                 it does well, and takes new sessions again                │
//!      └───────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Of each policy and IP version alone; told and counted of each uplink and version together. What
//! people ordered is no failover.

use std::collections::{BTreeMap, BTreeSet};

use super::events::{Level, Told};
use crate::health::Health;
use crate::model::{EventKind, Family, Name, Uplink, UplinkId};
use crate::plan::{Admin, Layout, View};
use crate::steering::Selection;

/// Policy → family → who takes new sessions.
pub(super) type Selections = BTreeMap<Name, BTreeMap<Family, Selection>>;

/// How many policies an event names.
const MOST_NAMED: usize = 20;

/// An uplink in one family.
pub(super) type Place = (Name, Family);

/// Who is away, and how often that was so.
#[derive(Debug, Default)]
pub(super) struct Failovers {
    /// Places that new sessions have left, each with the policies whose they are.
    away: BTreeMap<Place, BTreeSet<Name>>,
    /// How often new sessions have left a place.
    pub(super) failovers: BTreeMap<Place, u64>,
    /// How often they took it again.
    pub(super) failbacks: BTreeMap<Place, u64>,
}

/// Policies whose new sessions move, and who takes them now.
#[derive(Default)]
struct Moved {
    policies: BTreeSet<Name>,
    takers: BTreeSet<Name>,
}

impl Failovers {
    /// New sessions went so, and go otherwise now.
    pub(super) fn follow(
        &mut self,
        layout: &Layout,
        view: &View,
        before: &Selections,
    ) -> Vec<Told> {
        self.away.retain(|(uplink, _), _| layout.ids.uplinks.contains_key(uplink));
        let (mut left, mut back) = (BTreeMap::new(), BTreeMap::new());
        for (policy, families) in &view.selections {
            for (family, selection) in families {
                let Some(was) = before.get(policy).and_then(|families| families.get(family)) else {
                    continue;
                };
                let taken = |(uplink, id): (&Uplink, UplinkId)| {
                    let place = (uplink.name.clone(), *family);
                    selection.owners.contains_key(&id.0) && !fails(view, &place)
                };
                let better = layout.uplinks().any(taken);
                for (uplink, id) in layout.uplinks() {
                    let place = (uplink.name.clone(), *family);
                    let [then, now] = [was, selection].map(|one| one.owners.contains_key(&id.0));
                    let moves = match (then, now, fails(view, &place)) {
                        (_, true, false) => self.returns(&place, policy).then_some(&mut back),
                        (true, false, true) if better && !self.is_away(&place, policy) => {
                            Some(&mut left)
                        }
                        // One that does no better is taken for want of others.
                        _ => None,
                    };
                    if let Some(moves) = moves {
                        let moved: &mut Moved = moves.entry(place).or_default();
                        moved.policies.insert(policy.clone());
                        moved.takers.extend(takers(layout, selection));
                    }
                }
            }
        }
        let left = left.into_iter().map(|(place, moved)| self.leave(view, place, &moved));
        let mut told: Vec<Told> = left.collect();
        told.extend(back.into_iter().map(|(place, moved)| self.come_back(place, &moved)));
        told
    }

    fn is_away(&self, place: &Place, policy: &Name) -> bool {
        self.away.get(place).is_some_and(|policies| policies.contains(policy))
    }

    /// A policy's new sessions take a place again that they had left.
    fn returns(&mut self, place: &Place, policy: &Name) -> bool {
        let Some(policies) = self.away.get_mut(place) else { return false };
        let returns = policies.remove(policy);
        if policies.is_empty() {
            self.away.remove(place);
        }
        returns
    }

    fn leave(&mut self, view: &View, place: Place, moved: &Moved) -> Told {
        let standing = view.standings.of(&place.0, place.1);
        let reason = standing.map_or(String::new(), |standing| standing.reason.clone());
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let takers: Vec<&str> = moved.takers.iter().map(Name::as_str).collect();
        let (uplink, takers) = (&place.0, takers.join(", "));
        let text =
            format!("failover: {} leave {uplink}, and go to {takers}{why}", moved.whose(place.1));
        self.away.entry(place.clone()).or_default().extend(moved.policies.iter().cloned());
        *self.failovers.entry(place.clone()).or_default() += 1;
        let told = moved.told(Level::Warning, EventKind::Failover, text, &place);
        told.with("reason", reason)
    }

    fn come_back(&mut self, place: Place, moved: &Moved) -> Told {
        let text = format!("failback: {} take {} again", moved.whose(place.1), place.0);
        *self.failbacks.entry(place.clone()).or_default() += 1;
        moved.told(Level::Info, EventKind::Failback, text, &place)
    }
}

impl Moved {
    /// Whose new sessions move, in words.
    fn whose(&self, family: Family) -> String {
        let named: Vec<&str> = self.policies.iter().take(3).map(Name::as_str).collect();
        let more = match self.policies.len().saturating_sub(3) {
            0 => String::new(),
            more => format!(" and {more} more policies"),
        };
        format!("new IPv{} sessions of {}{more}", family.digit(), named.join(", "))
    }

    fn told(&self, level: Level, kind: EventKind, text: String, place: &Place) -> Told {
        let names = |names: &BTreeSet<Name>| -> Vec<String> {
            names.iter().take(MOST_NAMED).map(ToString::to_string).collect()
        };
        Told::new(level, kind, text)
            .of_uplink(&place.0)
            .with("family", place.1.as_str())
            .with("policies", names(&self.policies))
            .with("to", names(&self.takers))
    }
}

/// Whether new sessions leave because it does not do well, and not by order.
fn fails(view: &View, (uplink, family): &Place) -> bool {
    let health = view.health(uplink, *family);
    view.standings.admin(uplink) == Admin::Enabled
        && matches!(health, Health::Down | Health::Degraded)
}

fn takers(layout: &Layout, selection: &Selection) -> Vec<Name> {
    let owners = layout.uplinks().filter(|(_, id)| selection.owners.contains_key(&id.0));
    owners.map(|(uplink, _)| uplink.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test says what it expects

    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::{Failovers, Selections};
    use crate::health::Health;
    use crate::kstate::{Address, Link, Route, RouteKind, Snapshot};
    use crate::model::{EventKind, Family, IfName, Name, TableId};
    use crate::plan::{Admin, Layout, Remembered, Standing, Standings, assess};
    use crate::profile;

    const SITE: &str = "
version: 1
uplinks: { fiber: { interface: wan0 }, cable: { interface: wan1 } }
policies:
  - { name: voice, match: { protocol: udp }, uplinks: [[fiber], [cable]] }
  - { name: web, match: { protocol: tcp }, uplinks: [cable] }
  - { name: rest, uplinks: [[fiber], [cable]] }
";

    /// Both uplinks have carrier, an address and a gateway, in IPv4.
    fn seen() -> Snapshot {
        let mut seen = Snapshot::default();
        for (index, device, ours, hop) in [
            (2, "wan0", "192.0.2.2/24", "192.0.2.1"),
            (3, "wan1", "198.51.100.2/24", "198.51.100.1"),
        ] {
            let device = IfName::new(device).unwrap();
            let (up, carrier, loopback, point_to_point) = (true, true, false, false);
            let link = Link { index, up, carrier, mtu: 1500, loopback, point_to_point };
            seen.facts.links.insert(device.clone(), link);
            seen.facts.addresses.insert(Address {
                device: device.clone(),
                net: ours.parse().unwrap(),
                peer: None,
                global: true,
                tentative: false,
                deprecated: false,
                temporary: false,
            });
            seen.facts.routes.insert(Route {
                table: TableId(254),
                destination: Family::V4.any(),
                kind: RouteKind::Unicast,
                gateway: Some(hop.parse().unwrap()),
                device: Some(device),
                source: None,
                metric: index,
                mtu: None,
                onlink: false,
                protocol: 16,
            });
        }
        seen
    }

    /// What is told when the uplinks go through these, one after the other.
    fn tell(steps: &[(Health, Health, Admin)]) -> (Vec<Vec<(EventKind, String)>>, Failovers) {
        let layout = Layout::new(profile::load(SITE).site.unwrap(), &Remembered::default());
        let (mut failovers, mut before) = (Failovers::default(), Selections::new());
        let mut told = Vec::new();
        for (fiber, cable, admin) in steps {
            let mut standings = Standings::default();
            for (name, health) in [("fiber", fiber), ("cable", cable)] {
                let reason = "no answer".to_owned();
                let standing = Standing { health: *health, reason };
                let families = BTreeMap::from([(Family::V4, standing)]);
                standings.answers.insert(Name::new(name).unwrap(), families);
            }
            standings.admin.insert(Name::new("fiber").unwrap(), *admin);
            let view = assess(&layout, &seen(), &Arc::new(standings));
            let events = failovers.follow(&layout, &view, &before);
            told.push(events.into_iter().map(|one| (one.kind, one.text)).collect());
            before = view.selections;
        }
        (told, failovers)
    }

    use Health::{Down, Unknown, Up};

    #[test]
    fn both_ways_are_told_once_for_all_policies() {
        let enabled = Admin::Enabled;
        let (told, counts) = tell(&[(Up, Up, enabled), (Down, Up, enabled), (Up, Up, enabled)]);
        assert_eq!(told[0], []);
        let away =
            "failover: new IPv4 sessions of rest, voice leave fiber, and go to cable: no answer";
        assert_eq!(told[1], [(EventKind::Failover, away.to_owned())]);
        let back = "failback: new IPv4 sessions of rest, voice take fiber again";
        assert_eq!(told[2], [(EventKind::Failback, back.to_owned())]);
        let place = (Name::new("fiber").unwrap(), Family::V4);
        assert_eq!((counts.failovers[&place], counts.failbacks[&place]), (1, 1));
    }

    #[test]
    fn a_start_an_order_and_a_loss_with_nowhere_to_go_are_none() {
        let enabled = Admin::Enabled;
        let (told, _) =
            tell(&[(Unknown, Unknown, enabled), (Up, Unknown, enabled), (Up, Up, enabled)]);
        assert_eq!(told.concat(), []);
        let (told, _) = tell(&[(Up, Up, enabled), (Up, Up, Admin::Draining), (Up, Up, enabled)]);
        assert_eq!(told.concat(), []);
        let (told, _) = tell(&[(Up, Down, enabled), (Down, Down, enabled)]);
        assert_eq!(told[1], [], "both are tried, and none is better");
    }

    #[test]
    fn one_that_is_taken_for_want_of_others_is_not_back() {
        let enabled = Admin::Enabled;
        let steps = [(Up, Up), (Down, Up), (Down, Down), (Up, Down), (Down, Down), (Up, Up)];
        let steps = steps.map(|(fiber, cable)| (fiber, cable, enabled));
        let (told, _) = tell(&steps);
        let kinds = |step: usize| told[step].iter().map(|(kind, _)| *kind).collect::<Vec<_>>();
        assert_eq!(kinds(1), [EventKind::Failover]);
        assert_eq!(kinds(2), [], "nobody is left: {:?}", told[2]);
        assert_eq!(kinds(3), [EventKind::Failback], "{:?}", told[3]);
        assert_eq!(kinds(4), [], "{:?}", told[4]);
        assert_eq!(kinds(5), [], "it had not left: {:?}", told[5]);

        // It is left again by who took it for want of others: that was told.
        let steps = [(Up, Up), (Down, Up), (Down, Down), (Down, Up), (Up, Up)];
        let (told, _) = tell(&steps.map(|(fiber, cable)| (fiber, cable, enabled)));
        let kinds = told.iter().map(|of| of.iter().map(|(kind, _)| *kind).collect::<Vec<_>>());
        let (away, back) = (vec![EventKind::Failover], vec![EventKind::Failback]);
        assert_eq!(kinds.collect::<Vec<_>>(), [vec![], away, vec![], vec![], back]);
    }
}
