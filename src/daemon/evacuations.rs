//! When the sessions of which policies leave which uplink. Pure.
//!
//! They leave when their uplink has been dead for the policy's `evacuate-after`, and another of its
//! members is usable; of an uplink that is disabled, at once. Connections that nobody answered yet
//! need no such order: their clients ask again anyway, and are let go elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::evacuator::{Homesick, Move, OwnLeave, Return};
use crate::health::Health;
use crate::model::{Family, Name, Policy};
use crate::plan::{Admin, Evacuation, Layout, UplinkFacts, View};

/// Who left, or will.
#[derive(Debug, Default)]
pub(super) struct Evacuations {
    /// Uplinks that are dead, each with its family: since when.
    dead: BTreeMap<(Name, Family), Instant>,
    /// Policies whose sessions have left an uplink since it died.
    done: BTreeSet<(Name, (Name, Family))>,
    /// Policies, or none, whose unanswered connections have left an uplink since it died.
    retried: BTreeSet<(Option<Name>, (Name, Family))>,
    next: Option<Instant>,
    /// Dead uplinks that the router's own UDP has left.
    own_left: BTreeSet<(Name, Family)>,
    /// Uplinks whose addresses the router's own UDP may use.
    home: BTreeSet<(Name, Family)>,
}

impl Evacuations {
    /// When to look again at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Routes have moved. Connections that went the old way meanwhile, and were not answered, are to
    /// be looked for again.
    pub(super) fn retry(&mut self) {
        self.retried.clear();
    }

    /// The site looks like this now.
    pub(super) fn follow<'a>(
        &mut self,
        layout: &'a Layout,
        view: &View,
        now: Instant,
    ) -> Vec<Move> {
        let mut rest = self.bury(layout, view, now);
        rest.extend(self.own(layout, view));
        let mut moves = Vec::new();
        self.next = None;
        for (place, since) in &self.dead {
            let (uplink, family) = place;
            let disabled = view.standings.admin(uplink) == Admin::Disabled;
            let (mut leaving, mut unanswered) = (Vec::new(), Vec::new());
            let mut retry = |policy: Option<&'a Name>, elsewhere: bool| {
                let key = (policy.cloned(), place.clone());
                if !elsewhere {
                    self.retried.remove(&key);
                } else if self.retried.insert(key) {
                    unanswered.push(policy);
                }
            };
            let elsewhere = preferred(layout, view, *family).is_some_and(|name| name != uplink);
            retry(None, elsewhere);
            for policy in &layout.policies {
                let key = (policy.name.clone(), place.clone());
                let elsewhere = others(view, policy, uplink, *family);
                retry(Some(&policy.name), elsewhere);
                let after = match disabled {
                    true => Some(Duration::ZERO),
                    false => policy.evacuate_after.filter(|_| elsewhere),
                };
                let Some(due) = after.map(|after| *since + after) else {
                    // Whoever is put there for want of another leaves when there is one.
                    self.done.remove(&key);
                    continue;
                };
                if due > now {
                    self.next = Some(self.next.map_or(due, |next| next.min(due)));
                } else if self.done.insert(key) {
                    leaving.push(&policy.name);
                }
            }
            if !(leaving.is_empty() && unanswered.is_empty()) {
                let out = Evacuation::new(layout, uplink, *family, &leaving, &unanswered);
                moves.extend(out.map(Move::Out));
            }
        }
        // Clients wait for those who leave.
        moves.extend(rest);
        moves
    }

    /// The router's own UDP leaves dead uplinks, and may come back to those that are not.
    fn own(&mut self, layout: &Layout, view: &View) -> Vec<Move> {
        let mut moves = Vec::new();
        for (uplink, _) in layout.uplinks() {
            for family in Family::BOTH {
                let place = (uplink.name.clone(), family);
                let Some(facts) = returned(layout, view, &uplink.name, family) else { continue };
                if !self.dead.contains_key(&place) {
                    self.own_left.remove(&place);
                    if view.usable(&uplink.name, family) && self.home.insert(place) {
                        let first = preferred(layout, view, family) == Some(&uplink.name);
                        let homesick = if first { homesick(layout) } else { Vec::new() };
                        moves.push(Move::Home(facts, homesick));
                    }
                    continue;
                }
                self.home.remove(&place);
                let to = preferred(layout, view, family).filter(|name| **name != uplink.name);
                let id = to.and_then(|name| layout.ids.uplinks.get(name));
                if let Some(id) = id
                    && self.own_left.insert(place)
                {
                    moves.push(Move::Own(OwnLeave { from: facts, to: layout.mark(*id) }));
                }
            }
        }
        moves
    }

    /// Notes who died, and who is back.
    fn bury(&mut self, layout: &Layout, view: &View, now: Instant) -> Vec<Move> {
        let mut back = Vec::new();
        let mut dead = BTreeMap::new();
        for (uplink, _) in layout.uplinks() {
            for family in Family::BOTH {
                let place = (uplink.name.clone(), family);
                let gone = view.standings.admin(&uplink.name) == Admin::Disabled
                    || view.health(&uplink.name, family) == Health::Down;
                if gone {
                    let since = self.dead.get(&place).copied().unwrap_or(now);
                    dead.insert(place, since);
                } else if self.dead.contains_key(&place) {
                    back.extend(returned(layout, view, &uplink.name, family).map(Move::Back));
                }
            }
        }
        let left = |place: &(Name, Family)| self.done.iter().any(|(_, one)| one == place);
        back.retain(|one| match one {
            Move::Back(uplink) => left(&(uplink.uplink.clone(), uplink.family)),
            _ => true,
        });
        self.done.retain(|(_, place)| dead.contains_key(place));
        self.retried.retain(|(_, place)| dead.contains_key(place));
        self.dead = dead;
        back
    }
}

fn returned(layout: &Layout, view: &View, uplink: &Name, family: Family) -> Option<Return> {
    let addresses = |name: &Name| -> BTreeSet<IpAddr> {
        let facts = view.uplinks.get(name);
        facts.into_iter().flat_map(UplinkFacts::own_addresses).collect()
    };
    Some(Return {
        uplink: uplink.clone(),
        mark: layout.mark(*layout.ids.uplinks.get(uplink)?),
        marks: layout.site.marks,
        family,
        addresses: addresses(uplink),
        all: layout.site.uplinks.iter().flat_map(|one| addresses(&one.name)).collect(),
    })
}

/// The uplink that the router's own sessions take.
fn preferred<'a>(layout: &'a Layout, view: &View, family: Family) -> Option<&'a Name> {
    let mut names = layout.site.uplinks.iter().map(|uplink| &uplink.name);
    names.find(|name| view.usable(name, family))
}

/// What policies say of the router's own UDP when its uplink is back.
fn homesick(layout: &Layout) -> Vec<Homesick> {
    let one = |policy: &Policy| Homesick {
        matches: policy.matches.clone(),
        returns: policy.release_on_return,
    };
    layout.policies.iter().map(one).collect()
}

/// Whether another member of the policy is usable.
fn others(view: &View, policy: &Policy, uplink: &Name, family: Family) -> bool {
    let mut members = policy.tiers.iter().flatten().filter(|name| *name != uplink);
    members.any(|name| view.usable(name, family))
}
