//! What follows from a round that is over.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::super::announcing::lines;
use super::super::events::{Level, Told};
use super::super::mending::Mended;
use super::super::reconciler::InForce;
use super::super::report::Report;
use super::{Action, Engine, RETRY, SPACING, rule};
use crate::model::{EventKind, Uplink};
use crate::plan::{Mender, Steering, UplinkFacts};

impl Engine {
    pub(super) fn handle_mended(&mut self, mended: &Mended, actions: &mut Vec<Action>) {
        self.sessions_adopted += mended.adopted;
        self.sessions_ended += mended.ended.values().sum::<u64>();
        let told = mended.tell().into_iter();
        let told = told.map(|text| Told::new(Level::Info, EventKind::SessionsMended, text));
        actions.extend(told.map(Action::Tell));
    }

    pub(super) fn handle_report(
        &mut self,
        report: Report,
        in_force: InForce,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        self.running = false;
        self.took = report.took;
        if report.steps > 0 {
            self.evacuations.retry();
            self.airing.routes_changed(now);
            self.last_apply_ms = Some(report.took.as_secs_f64() * 1000.0);
            self.applies.add(report.took);
        }
        self.airing.set_carries(report.carries_sessions(), now);
        self.handle_mended(&report.mended, actions);
        self.tell_drift(&report, actions);
        self.find_paths(&report, now, actions);
        if let (Some(view), Some(seen)) = (&report.view, &report.seen) {
            self.announcing.follow(lines(&report.layout, view, seen), now);
        }
        match &report.failure {
            None => {
                if self.failures > 0 {
                    let text = "the kernel's state is as wished again";
                    let told = Told::new(Level::Info, EventKind::KernelRestored, text);
                    actions.push(Action::Tell(told));
                }
                self.failures = 0;
            }
            Some(failure) => {
                if self.report.as_ref().and_then(|last| last.failure.as_ref()) != Some(failure) {
                    let text = format!("not everything is in force: {}", failure.reason);
                    let told = Told::new(Level::Warning, EventKind::KernelDegraded, text);
                    actions.push(Action::Tell(told.with("missing", failure.missing.clone())));
                }
                let pause = (RETRY.0 * 2_u32.saturating_pow(self.failures.min(10))).min(RETRY.1);
                self.failures += 1;
                self.due = self.due.max(now + SPACING).min(now + pause);
            }
        }
        actions.extend(self.tell_addresses(&report).into_iter().map(Action::Tell));
        let moved = self.remember_addresses(&report);
        if in_force.is_some() {
            let lost = report.drift.iter().any(|one| {
                // Sets that packets write down who is where.
                let learned = [" bind4-", " bind6-", " live4-", " live6-"];
                learned.iter().any(|set| one.contains(set))
            });
            if let Some(view) = report.view.clone().filter(|_| lost || !self.ready) {
                actions.push(Action::Restore(report.layout.clone(), Box::new(view)));
            }
            actions.extend(self.mend(&report, moved));
            self.steering = steering(&report, &in_force);
            self.in_force = in_force;
            self.unsteered = false;
            self.regard = true;
            if report.generation == self.generation {
                self.server_moves.in_force();
            }
            self.steer(now, actions);
            if !self.ready {
                self.ready = true;
                actions.push(Action::Ready);
                actions.push(Action::Tell(Told::new(Level::Info, EventKind::Ready, "ready")));
            }
        }
        if self.settled < report.generation {
            self.settled = report.generation;
            let reason = report.failure.as_ref().map(|failure| failure.reason.clone());
            actions.push(Action::Settled(report.generation, reason));
        }
        self.report = Some(report);
    }

    /// Takes down which addresses uplinks had and have no more; true when their ways out changed.
    fn remember_addresses(&mut self, report: &Report) -> bool {
        let Some(view) = &report.view else { return false };
        let Some(before) = self.report.as_ref().and_then(|last| last.view.as_ref()) else {
            return false;
        };
        for (name, facts) in &before.uplinks {
            self.former.extend(facts.own_addresses().map(|address| (address, name.clone())));
        }
        let now: BTreeSet<IpAddr> =
            view.uplinks.values().flat_map(UplinkFacts::own_addresses).collect();
        self.former.retain(|address, _| !now.contains(address));
        before.uplinks != view.uplinks
    }

    /// Sessions may have gone wrong at the start, by drift, by a reload, and by a new address.
    fn mend(&mut self, report: &Report, moved: bool) -> Option<Action> {
        let renumbered = moved && !self.former.is_empty();
        if self.mended == report.generation && report.drift.is_empty() && !renumbered {
            return None;
        }
        let (view, seen) = (report.view.as_ref()?, report.seen.as_ref()?);
        let mender = Mender::new(&report.layout, view, &seen.facts, &self.former);
        self.mended = report.generation;
        Some(Action::Mend(report.layout.clone(), Box::new(mender)))
    }

    /// The ways out may be others now.
    fn find_paths(&mut self, report: &Report, now: Instant, actions: &mut Vec<Action>) {
        let (Some(view), Some(seen)) = (&report.view, &report.seen) else { return };
        let index = |uplink: &Uplink| {
            Some((uplink.name.clone(), seen.facts.links.get(&uplink.interface)?.index))
        };
        let indices = report.layout.site.uplinks.iter().filter_map(index).collect();
        let before = self.judge.paths();
        let mut rulings = self.judge.follow(&report.layout, view, &indices, now);
        rulings.extend(self.judge.lose(&self.carriers, now));
        rule(rulings, actions);
        let paths = self.judge.paths();
        if paths != before {
            actions.push(Action::Paths(paths));
        }
        self.retell = true;
    }
}

fn steering(report: &Report, in_force: &InForce) -> Option<Steering> {
    Some(Steering::new(report.layout.clone(), report.view.clone()?, in_force.clone()?))
}
