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

mod reports;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::airing::Airing;
use super::announcing::Announcing;
use super::checks::{CheckAsk, Checks, Seat};
use super::dealing::{BUDGET, Carried, Dealing};
use super::durations::Durations;
use super::evacuations::Evacuations;
use super::evacuator::{Evacuated, Move};
use super::events::{Level, Told};
use super::failovers::{Failovers, Selections};
use super::judge::{Ask, Judge, Ruling};
use super::loads::{LoadDealing, Loads};
use super::mending::Mended;
use super::reconcile::{Live, Round};
use super::reconciler::InForce;
use super::report::Report;
use super::server_moves::ServerMoves;
use super::walker::Sight;
use crate::health::{Health, Question};
use crate::kernel::{Notice, Unreachable};
use crate::kstate::{NftOp, OwnAddress};
use crate::model::{Family, Name, Outcome};
use crate::plan::{Admin, Dealt, Layout, Mender, Standings, Steering, View};
use crate::probe::Path;

/// The least time between the starts of two rounds.
const SPACING: Duration = Duration::from_millis(20);
/// How often the kernel is looked at when it tells nothing.
const PATROL: Duration = Duration::from_secs(5);
/// Nor does it take more than a fortieth of the time.
const PATROL_REST: u32 = 40;
/// What is kept of uplinks is not older than this while the process lives.
const KEEPING: Duration = Duration::from_secs(120);
/// A timer that comes later than this says that this process was held up; then so much time is given
/// to answers that are there.
const LAG: Duration = Duration::from_millis(50);
const EXCUSE: Duration = Duration::from_millis(20);
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
    /// What came of questions.
    Answered(Vec<(Family, Question, Outcome)>),
    /// A named target was looked up.
    Resolved(String, Vec<IpAddr>),
    /// Devices have carried so many bytes.
    Traffic(Carried),
    /// Sessions have left an uplink.
    Evacuated(Evacuated),
    /// The kernel has taken what was to be done the short way. Otherwise the next round does it.
    Steered,
    /// The kernel has given a neighbour up.
    Unreachable(Unreachable),
    /// Somebody wants an uplink to be so.
    Ordered(Name, Admin),
    /// What came of asking servers.
    Checked(Vec<(u64, Question, Outcome)>),
    /// Somebody wants a server to be so.
    OrderedServer(Seat, Admin),
    /// Servers have so many live connections.
    Loads(Loads),
}

/// Something to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Do a round.
    Round(Round),
    /// Change elements of sets at once, so that new sessions follow what happened.
    Steer(Vec<NftOp>),
    /// Tell the neighbours that these addresses are ours.
    Announce(Vec<OwnAddress>),
    /// Ask a target over an uplink.
    Ask(Box<Ask>),
    /// Ask a server.
    Check(Box<CheckAsk>),
    /// Nobody asks over other ways than these any more.
    Paths(Vec<Path>),
    /// Keep how uplinks answer, for the next process.
    Keep(Arc<Standings>),
    /// Sessions leave a dead uplink; new ones do so already.
    Evacuate(Move),
    /// Go through the sessions: some may have gone wrong.
    Mend(Arc<Layout>, Box<Mender>),
    /// Bindings were taken away: put them back.
    Restore(Arc<Layout>, Box<View>),
    /// The first apply was found right: tell the service manager.
    Ready,
    /// Tell people.
    Tell(Told),
    /// The site of this generation is in force (or, with a reason, could not be put in force).
    Settled(u64, Option<String>),
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
    pub(super) judge: Judge,
    pub(super) checks: Checks,
    loads: LoadDealing,
    pub(super) standings: Arc<Standings>,
    /// The same, for the round that is under way.
    live: Live,
    /// What people want of uplinks, where it is not the usual.
    admin: BTreeMap<Name, Admin>,
    /// What was told last of each uplink.
    told: BTreeMap<Name, (Health, Admin)>,
    /// Who took new sessions then.
    chosen: Selections,
    pub(super) failovers: Failovers,
    pub(super) applies: Durations,
    /// When it was last kept how uplinks answer.
    kept: Option<Instant>,
    /// There may be something to tell of them.
    retell: bool,
    /// There may be sessions to evacuate.
    regard: bool,
    evacuations: Evacuations,
    airing: Airing,
    announcing: Announcing,
    server_moves: ServerMoves,
    dealing: Dealing,
    /// How many slots may move now because of what is measured.
    budget: Option<usize>,
    /// How many sessions have left each uplink.
    pub(super) evacuated: BTreeMap<Name, u64>,
    /// How many sessions have left each server.
    pub(super) evacuated_servers: BTreeMap<Seat, u64>,
    /// New sessions may still go to an uplink that is dead.
    unsteered: bool,
    /// Until then nothing is taken for lost.
    excused: Option<Instant>,
    in_force: InForce,
    steering: Option<Steering>,
    /// Heard since the round began: it may have looked before. By interface index.
    carriers: BTreeMap<u32, bool>,
    running: bool,
    due: Instant,
    started: Option<Instant>,
    /// How long the last round took.
    took: Duration,
    failures: u32,
    authors: BTreeSet<String>,
    settled: u64,
    /// Addresses that uplinks had and have no more, each with its uplink.
    former: BTreeMap<IpAddr, Name>,
    /// The generation whose sessions were last gone through.
    mended: u64,
}

impl Engine {
    /// `before`: how uplinks answered a moment ago, before a restart. `seed` spreads probes.
    pub(super) fn new(layout: Arc<Layout>, before: &Standings, seed: u64, now: Instant) -> Engine {
        let judge = Judge::new(&layout, before, seed, now);
        let checks = Checks::new(&layout, before, seed, now);
        let mut loads = LoadDealing::default();
        loads.adopt(&layout);
        let admin = before.admin.clone();
        let groups = checks.groups();
        let standings = Standings { admin: admin.clone(), groups, ..judge.standings() };
        Engine {
            live: Live::default(),
            standings: Arc::new(standings),
            judge,
            checks,
            loads,
            admin,
            told: BTreeMap::new(),
            chosen: BTreeMap::new(),
            failovers: Failovers::default(),
            applies: Durations::default(),
            evacuations: Evacuations::default(),
            airing: Airing::default(),
            announcing: Announcing::default(),
            server_moves: ServerMoves::default(),
            dealing: Dealing::default(),
            budget: None,
            evacuated: BTreeMap::new(),
            evacuated_servers: BTreeMap::new(),
            unsteered: true,
            kept: None,
            retell: false,
            regard: false,
            excused: None,
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
            took: Duration::ZERO,
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

    /// When to send [`Event::Timer`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let round = (!self.running).then_some(self.due);
        let judge = self.judge.poll_timeout().map(|due| self.excused.map_or(due, |e| e.max(due)));
        let evacuations = self.evacuations.poll_timeout().filter(|_| !self.unsteered);
        let checks = self.checks.poll_timeout().filter(|_| self.ready);
        let announcing = self.announcing.poll_timeout();
        let airing = self.airing.poll_timeout();
        let rest = evacuations.into_iter().chain(announcing).chain(checks).chain(airing);
        round.into_iter().chain(judge).chain(rest).min()
    }

    /// Takes in what happened. `wall` is only for people.
    pub(super) fn handle(&mut self, event: Event, now: Instant, wall: SystemTime) -> Vec<Action> {
        let mut actions = Vec::new();
        self.judge_time(now, &mut actions);
        match event {
            Event::Noticed(notices) => self.handle_notices(notices, now, &mut actions),
            Event::Timer => {}
            Event::Mended(mended) => self.handle_mended(&mended, &mut actions),
            Event::Wished(layout) => {
                let view = self.view().unwrap_or_default();
                self.server_moves.wish((&self.layout, &view), &layout);
                self.layout = layout;
                self.checks.adopt(&self.layout, now);
                self.loads.adopt(&self.layout);
                let uplinks = &self.layout.site.uplinks;
                self.admin.retain(|name, _| uplinks.iter().any(|uplink| uplink.name == *name));
                self.judge.adopt(&self.layout, now);
                self.generation += 1;
                self.due = now;
            }
            Event::Reported(report, in_force) => {
                self.handle_report(*report, in_force, now, &mut actions);
            }
            Event::Answered(answers) => {
                for (family, question, outcome) in answers {
                    let rulings = self.judge.handle_outcome(family, question, &outcome, now);
                    rule(rulings, &mut actions);
                }
            }
            Event::Resolved(name, addresses) => {
                self.judge.resolve(&self.layout, name, addresses, now);
            }
            Event::Traffic(bytes) => {
                self.dealing.hear(&self.layout, bytes, now);
                self.budget = Some(BUDGET);
            }
            Event::Evacuated(evacuated) => {
                evacuated.add_to(&mut self.evacuated, &mut self.evacuated_servers);
                let told = evacuated.tell().into_iter();
                actions.extend(told.map(Action::Tell));
            }
            Event::Steered => self.unsteered = false,
            Event::Unreachable(neighbour) => {
                let rulings = self.judge.give_up(neighbour, now);
                rule(rulings, &mut actions);
            }
            Event::Ordered(uplink, admin) => self.order(uplink, admin),
            Event::Checked(answers) => {
                for (inquiry, question, outcome) in answers {
                    self.checks.handle_outcome(&self.layout, inquiry, question, &outcome, now);
                }
            }
            Event::OrderedServer(seat, admin) => self.checks.order(&seat, admin),
            Event::Loads(loads) => {
                self.loads.hear(loads);
                self.loads.deal(&self.layout, &mut self.checks, now);
            }
        }
        if self.ready {
            self.checks.handle_timer(&self.layout, now);
        }
        let (asks, told) = self.checks.take();
        actions.extend(asks.into_iter().map(|ask| Action::Check(Box::new(ask))));
        actions.extend(told.into_iter().map(Action::Tell));
        self.follow_judge(now, wall, &mut actions);
        self.evacuate(now, &mut actions);
        self.announce(now, &mut actions);
        if self.airing.is_due(now) {
            actions.push(Action::Evacuate(Move::Air));
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
                    self.airing.routes_changed(now);
                }
                Notice::Address { .. } | Notice::Route { .. } | Notice::Rule { .. } => {
                    self.airing.routes_changed(now);
                }
                Notice::Overrun => {
                    let text =
                        "the kernel had more to tell than we could hear: looking at everything";
                    actions.push(Action::Tell(Told::remark(Level::Warning, text)));
                }
                _ => {}
            }
        }
        let rulings = self.judge.lose(&self.carriers, now);
        rule(rulings, actions);
        self.steer(now, actions);
    }

    /// Lets the judge see that time has passed. When this process itself was held up, answers may lie
    /// unread: they are taken in first.
    fn judge_time(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let due = self.judge.poll_timeout();
        if due.is_some_and(|due| now.saturating_duration_since(due) > LAG) && self.excused.is_none()
        {
            self.excused = Some(now + EXCUSE);
        }
        if self.excused.is_some_and(|until| now < until) {
            return;
        }
        self.excused = None;
        let rulings = self.judge.handle_timer(now);
        rule(rulings, actions);
    }

    /// Somebody wants an uplink to be so.
    fn order(&mut self, uplink: Name, admin: Admin) {
        match admin {
            Admin::Enabled => drop(self.admin.remove(&uplink)),
            other => drop(self.admin.insert(uplink, other)),
        }
    }

    /// Uplinks may answer otherwise by now, or people want something else of them: new sessions
    /// follow, and people are told.
    fn follow_judge(&mut self, now: Instant, wall: SystemTime, actions: &mut Vec<Action>) {
        let dealt = self.standings.dealt.clone();
        let (admin, groups) = (self.admin.clone(), self.checks.groups());
        let mut standings = Standings { admin, dealt, groups, ..self.judge.standings() };
        let same = standings.steers_like(&self.standings);
        if let Some(budget) = self.budget.take().or((!same).then_some(0)) {
            standings.dealt = self.deal(&standings, budget);
        }
        if standings != *self.standings {
            let before = std::mem::replace(&mut self.standings, Arc::new(standings));
            self.live.set(&self.standings);
            self.retell = true;
            self.steer(now, actions);
            if !self.standings.remembers_like(&before) {
                self.keep(now, actions);
            }
            if !self.standings.steers_like(&before) {
                // The router's own traffic follows too, which takes a look at everything.
                self.due = self.due.min(now + SPACING);
                self.keep(now, actions);
            }
        }
        if self.kept.is_none_or(|kept| now.saturating_duration_since(kept) >= KEEPING) {
            self.keep(now, actions);
        }
        if std::mem::take(&mut self.retell) {
            self.tell_uplinks(wall, actions);
            self.regard = true;
        }
    }

    /// Sessions leave uplinks that have been dead for long enough. What steers new ones away was
    /// done before.
    fn evacuate(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let due = self.evacuations.poll_timeout().is_some_and(|due| due <= now);
        if self.unsteered || !(std::mem::take(&mut self.regard) || due) {
            return;
        }
        let Some(view) = self.view() else { return };
        let mut moves = self.evacuations.follow(&self.layout, &view, now);
        moves.extend(self.server_moves.follow(&self.layout, &view));
        actions.extend(moves.into_iter().map(Action::Evacuate));
    }

    /// Addresses are new, or their link is back, or it is time again.
    fn announce(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let due = self.announcing.due(now);
        if !due.is_empty() {
            actions.push(Action::Announce(due));
        }
    }

    /// Slots of policies that choose by measure.
    fn deal(&mut self, standings: &Standings, budget: usize) -> BTreeMap<String, Dealt> {
        let view = self.report.as_ref().and_then(|report| report.view.as_ref());
        let (Some(view), Some(steering)) = (view, &self.steering) else { return BTreeMap::new() };
        if !Dealing::is_needed(&self.layout) {
            return BTreeMap::new();
        }
        let view = View { standings: Arc::new(standings.clone()), ..view.clone() };
        let held = |map: &str| steering.counts(map);
        self.dealing.deal(&self.layout, &view, &self.judge, budget, held)
    }

    /// The ways out of uplinks that may take new sessions.
    pub(super) fn usable_paths(&self) -> Vec<Path> {
        let Some(view) = self.view() else { return self.judge.paths() };
        let usable = |(uplink, family): &(Name, Family)| view.usable(uplink, *family);
        let ways = self.judge.ways().filter(|(place, _)| usable(place));
        ways.map(|(_, path)| path.clone()).collect()
    }

    /// Whether live connections are wanted, once a second.
    pub(super) fn wants_loads(&self) -> bool {
        self.loads.is_needed()
    }

    /// Whether rates are wanted, once a second.
    pub(super) fn wants_traffic(&self) -> bool {
        Dealing::is_needed(&self.layout)
    }

    fn keep(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.kept = Some(now);
        actions.push(Action::Keep(self.standings.clone()));
    }

    /// New sessions follow what was heard of carriers and of answers: of many that changed at once,
    /// in one batch.
    fn steer(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let Some(steering) = &mut self.steering else { return };
        let ops = steering.follow(&self.carriers, &self.standings);
        if !ops.is_empty() {
            self.unsteered = true;
            actions.push(Action::Steer(ops));
            // Nobody tells us of our own changes: look whether they stand.
            self.due = self.due.min(now + SPACING);
        }
    }

    fn start_round(&mut self, now: Instant) -> Action {
        self.carriers.clear();
        self.live.set(&self.standings);
        self.running = true;
        self.started = Some(now);
        self.due = now + PATROL.max(self.took * PATROL_REST);
        Action::Round(Round {
            layout: self.layout.clone(),
            generation: self.generation,
            in_force: self.in_force.clone(),
            standings: self.live.clone(),
        })
    }

    /// The site as it is known to be now: as the last round saw it, and as uplinks answer since.
    pub(super) fn sight(&self) -> Sight {
        let view = Arc::new(self.view().unwrap_or_default());
        Sight { layout: self.layout.clone(), view }
    }

    /// How it looks now; nothing before the first round.
    pub(super) fn view(&self) -> Option<View> {
        let mut view = self.report.as_ref()?.view.clone()?;
        view.standings = self.standings.clone();
        view.choose(&self.layout);
        Some(view)
    }
}

fn rule(rulings: Vec<Ruling>, actions: &mut Vec<Action>) {
    actions.extend(rulings.into_iter().map(|ruling| match ruling {
        Ruling::Ask(ask) => Action::Ask(ask),
        Ruling::Tell(told) => Action::Tell(told),
    }));
}
