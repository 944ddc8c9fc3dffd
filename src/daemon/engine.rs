//! The engine: what happened, and the time, become what to do next. Pure.
//!
//! ```text
//!           notice, overrun, timer, new site
//!   idle ───────────────────────────────────► round running ──┐ more happens: another round after
//!     ▲                                           │           │ this one
//!     └──────────────── report ───────────────────┘◄──────────┘
//! ```
//!
//! New sessions leave a dead link the short way: a few elements are changed at once, from what is
//! known ([`Action::Steer`]); the round that follows looks at everything.
//!
//! One round runs at a time. A notice is acted on at once; a burst of them in steps of
//! [`SPACING`]. Without notices a round looks every [`PATROL`]; after a failure, sooner, with
//! doubling pauses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::mending::Mended;
use super::reconcile::Round;
use super::reconciler::InForce;
use super::report::Report;
use crate::kernel::Notice;
use crate::kstate::NftOp;
use crate::model::{Family, Name};
use crate::plan::{Layout, Mender, Steering, View};

/// The least time between the starts of two rounds.
const SPACING: Duration = Duration::from_millis(20);
/// How often the kernel is looked at when it tells nothing.
const PATROL: Duration = Duration::from_secs(5);
/// The first pause after a failure, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// The kernel told of a change.
    Noticed(Vec<Notice>),
    /// A round is over.
    Reported(Box<Report>, InForce),
    /// Sessions were gone through.
    Mended(Mended),
    /// A deadline has passed.
    Timer,
    /// Another site is wished for.
    Wished(Arc<Layout>),
}

/// Something to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Do a round.
    Round(Round),
    /// Change elements of sets at once, so that new sessions follow what happened.
    Steer(Vec<NftOp>),
    /// Go through the sessions: some may have gone wrong.
    Mend(Arc<Layout>, Box<Mender>),
    /// The first apply was found right: tell the service manager.
    Ready,
    /// Tell people.
    Tell(Level, String),
    /// The site of this generation is in force (or, with a reason, could not be put in force).
    Settled(u64, Option<String>),
}

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// As wished.
    Info,
    /// Not as wished.
    Warning,
}

/// All that is decided on.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) layout: Arc<Layout>,
    pub(super) generation: u64,
    pub(super) report: Option<Report>,
    pub(super) ready: bool,
    pub(super) drift_repairs: u64,
    pub(super) sessions_adopted: u64,
    pub(super) sessions_ended: u64,
    pub(super) last_apply_ms: Option<f64>,
    pub(super) uplinks_since: BTreeMap<Name, SystemTime>,
    in_force: InForce,
    steering: Option<Steering>,
    /// Heard since the round began: it may have looked before. By interface index.
    carriers: BTreeMap<u32, bool>,
    running: bool,
    due: Instant,
    started: Option<Instant>,
    failures: u32,
    authors: BTreeSet<String>,
    settled: u64,
    /// Addresses that uplinks had and have no more, each with its uplink.
    former: BTreeMap<IpAddr, Name>,
    /// The generation whose sessions were last gone through.
    mended: u64,
}

impl Engine {
    pub(super) fn new(layout: Arc<Layout>, now: Instant) -> Engine {
        Engine {
            layout,
            generation: 1,
            report: None,
            ready: false,
            drift_repairs: 0,
            sessions_adopted: 0,
            sessions_ended: 0,
            last_apply_ms: None,
            uplinks_since: BTreeMap::new(),
            in_force: None,
            steering: None,
            carriers: BTreeMap::new(),
            running: false,
            due: now,
            started: None,
            failures: 0,
            authors: BTreeSet::new(),
            settled: 0,
            former: BTreeMap::new(),
            mended: 0,
        }
    }

    /// Whether a round is under way.
    pub(super) fn is_applying(&self) -> bool {
        self.running
    }

    /// When to send [`Event::Timer`]; `None` while a round is under way.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.running).then_some(self.due)
    }

    /// Takes in what happened. `wall` is only for people.
    pub(super) fn handle(&mut self, event: Event, now: Instant, wall: SystemTime) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Noticed(notices) => self.handle_notices(notices, now, &mut actions),
            Event::Timer => {}
            Event::Mended(mended) => self.handle_mended(&mended, &mut actions),
            Event::Wished(layout) => {
                self.layout = layout;
                self.generation += 1;
                self.due = now;
            }
            Event::Reported(report, in_force) => {
                self.handle_report(*report, in_force, now, wall, &mut actions);
            }
        }
        if !self.running && self.due <= now {
            actions.push(self.start_round(now));
        }
        actions
    }

    fn handle_notices(&mut self, notices: Vec<Notice>, now: Instant, actions: &mut Vec<Action>) {
        let earliest = self.started.map_or(now, |started| started + SPACING);
        self.due = self.due.min(earliest.max(now));
        for notice in notices {
            match notice {
                Notice::Nft { pid, name, .. } => {
                    self.authors.insert(format!("{name} (pid {pid})"));
                }
                Notice::Link { index, carrier: Some(carrier), .. } => {
                    self.carriers.insert(index, carrier);
                }
                Notice::Overrun => {
                    let text =
                        "the kernel had more to tell than we could hear: looking at everything";
                    actions.push(Action::Tell(Level::Warning, text.to_owned()));
                }
                _ => {}
            }
        }
        self.steer(now, actions);
    }

    /// New sessions follow what was heard of carriers: of many that changed at once, in one batch.
    fn steer(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(steering) = &mut self.steering else { return };
        let ops = steering.follow_links(&self.carriers);
        if !ops.is_empty() {
            actions.push(Action::Steer(ops));
            // Nobody tells us of our own changes: look whether they stand.
            self.due = self.due.min(now + SPACING);
        }
    }

    fn start_round(&mut self, now: Instant) -> Action {
        self.carriers.clear();
        self.running = true;
        self.started = Some(now);
        self.due = now + PATROL;
        Action::Round(Round {
            layout: self.layout.clone(),
            generation: self.generation,
            in_force: self.in_force.clone(),
        })
    }

    fn handle_mended(&mut self, mended: &Mended, actions: &mut Vec<Action>) {
        self.sessions_adopted += mended.adopted;
        self.sessions_ended += mended.ended.values().sum::<u64>();
        let told = mended.tell().into_iter();
        actions.extend(told.map(|text| Action::Tell(Level::Info, text)));
    }

    fn handle_report(
        &mut self,
        report: Report,
        in_force: InForce,
        now: Instant,
        wall: SystemTime,
        actions: &mut Vec<Action>,
    ) {
        self.running = false;
        if report.steps > 0 {
            self.last_apply_ms = Some(report.took.as_secs_f64() * 1000.0);
        }
        self.handle_mended(&report.mended, actions);
        self.tell_drift(&report, actions);
        self.tell_uplinks(&report, wall, actions);
        match &report.failure {
            None => {
                if self.failures > 0 {
                    let text = "the kernel's state is as wished again".to_owned();
                    actions.push(Action::Tell(Level::Info, text));
                }
                self.failures = 0;
            }
            Some(failure) => {
                if self.report.as_ref().and_then(|last| last.failure.as_ref()) != Some(failure) {
                    let text = format!("not everything is in force: {}", failure.reason);
                    actions.push(Action::Tell(Level::Warning, text));
                }
                let pause = (RETRY.0 * 2_u32.saturating_pow(self.failures.min(10))).min(RETRY.1);
                self.failures += 1;
                self.due = self.due.max(now + SPACING).min(now + pause);
            }
        }
        let moved = self.remember_addresses(&report);
        if in_force.is_some() {
            actions.extend(self.mend(&report, moved));
            self.steering = steering(&report, &in_force);
            self.in_force = in_force;
            self.steer(now, actions);
            if !self.ready {
                self.ready = true;
                actions.push(Action::Ready);
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
            self.former.extend(facts.addresses.iter().map(|address| (*address, name.clone())));
        }
        let now: BTreeSet<&IpAddr> = view.uplinks.values().flat_map(|u| &u.addresses).collect();
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

    fn tell_drift(&mut self, report: &Report, actions: &mut Vec<Action>) {
        let authors = std::mem::take(&mut self.authors);
        if report.drift.is_empty() {
            return;
        }
        self.drift_repairs += 1;
        let authors: Vec<String> = authors.into_iter().collect();
        let by =
            if authors.is_empty() { String::new() } else { format!(" by {}", authors.join(", ")) };
        let first = report.drift.first().map_or("", String::as_str);
        let more = match report.drift.len() {
            0 | 1 => String::new(),
            several => format!(" (and {} more)", several - 1),
        };
        let text = format!("our state was changed{by}; put right: {first}{more}");
        actions.push(Action::Tell(Level::Warning, text));
    }

    /// One line for each uplink whose ways out have changed.
    fn tell_uplinks(&mut self, report: &Report, wall: SystemTime, actions: &mut Vec<Action>) {
        let Some(view) = &report.view else { return };
        let before = self.report.as_ref().and_then(|last| last.view.as_ref());
        for (uplink, _) in report.layout.uplinks() {
            let name = &uplink.name;
            let figure = |view: &View| {
                let families: Vec<bool> =
                    Family::BOTH.iter().map(|family| view.usable(name, *family)).collect();
                (families, view.uplinks.get(name).map(|facts| facts.reason(&uplink.interface)))
            };
            let now = figure(view);
            if before.map(figure).as_ref() == Some(&now) {
                continue;
            }
            self.uplinks_since.insert(name.clone(), wall);
            let usable = if view.usable_at_all(name) { "usable" } else { "not usable" };
            let text = format!("uplink {name}: {usable}: {}", now.1.unwrap_or_default());
            let level = if view.usable_at_all(name) { Level::Info } else { Level::Warning };
            actions.push(Action::Tell(level, text));
        }
    }
}

fn steering(report: &Report, in_force: &InForce) -> Option<Steering> {
    Some(Steering::new(report.layout.clone(), report.view.clone()?, in_force.clone()?))
}
