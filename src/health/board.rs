//! All members that are judged together: who is asked what, when, and what follows from it.
//!
//! A target that answers over no member while others do is the target's fault, not theirs: it
//! leaves the rounds until it answers somewhere. So that this is known before anybody is convicted,
//! a target that fails over one member is asked at once over the others.

mod verdicts;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::machine::{Health, Judgement, Machine, Terms};
use super::referee::Referee;
use super::rounds::Rounds;
use super::window::Figures;
use crate::model::Outcome;

/// Failures in a row of one target over one member, after which the others are asked.
const SUSPICIOUS: u32 = 2;

/// What is to be known of a member beforehand.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The targets that it asks and that count, by their number among all.
    pub targets: Vec<usize>,
    /// How many must answer for a round to be good.
    pub quorum: u32,
    /// How it is judged.
    pub terms: Arc<Terms>,
    /// Asked seldom while up.
    pub metered: bool,
    /// Its health before a restart, if that is known.
    pub remembered: Option<Health>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Ask a target over a member, and bring the outcome to [`Board::handle_outcome`].
    Ask(Question),
    /// A member's health, or why it is so, has changed.
    Changed(usize),
    /// This target answers over no member, while others do; it does not count.
    TargetDead(usize),
    /// This target answers again.
    TargetBack(usize),
}

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Over whom.
    pub member: usize,
    /// The target.
    pub target: usize,
    /// When it is asked.
    pub asked: Instant,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Its round; `None`: only to know whether the target answers at all.
    pub round: Option<u64>,
}

/// Judges members by what they answer.
#[derive(Debug, Clone)]
pub struct Board {
    members: Vec<State>,
    referee: Referee,
    /// Questions outside the rounds that are open.
    asides: Vec<Question>,
    /// Targets that one member alone asks: its gateway, a server. Their silence is its own.
    private: Box<[usize]>,
    /// A hold-down is waived when nobody else is usable here.
    waives: bool,
    seed: u64,
}

#[derive(Debug, Clone)]
struct State {
    /// What it asks, in the order of its rounds' outcomes.
    targets: Box<[usize]>,
    quorum: u32,
    machine: Machine,
    rounds: Rounds,
    /// It can be asked over.
    able: bool,
    /// What was answered wrongly in the last round, if that was a bad one.
    wrong: Option<Box<str>>,
    /// Why it was convicted without being asked, if no good round came after it.
    convicted: Option<Box<str>>,
}

impl Board {
    /// `private`: targets that one member alone can ask, so that they are never at fault
    /// themselves. `seed` spreads the starts of rounds.
    pub fn new(members: Vec<Member>, private: BTreeSet<usize>, seed: u64, now: Instant) -> Board {
        let state = |member: Member| State {
            machine: match member.remembered {
                Some(health) => Machine::remembered(member.terms.clone(), health),
                None => Machine::new(member.terms.clone()),
            },
            rounds: Rounds::new(member.terms, member.metered, member.targets.len(), now),
            able: false,
            wrong: None,
            convicted: None,
            quorum: member.quorum,
            targets: member.targets.into_boxed_slice(),
        };
        Board {
            members: members.into_iter().map(state).collect(),
            referee: Referee::default(),
            asides: Vec::new(),
            private: private.into_iter().collect(),
            waives: true,
            seed,
        }
    }

    /// The same, but who is usable besides its members is known elsewhere: see [`Board::waive`].
    #[must_use]
    pub fn strict(self) -> Board {
        Board { waives: false, ..self }
    }

    /// A member that answers and is held down need not wait any longer; true if there was one.
    pub fn waive(&mut self, member: usize) -> bool {
        let Some(state) = self.members.get_mut(member) else { return false };
        let before = state.machine.health();
        state.machine.waive_hold();
        state.machine.health() != before
    }

    /// A member's health.
    pub fn health(&self, member: usize) -> Health {
        self.members.get(member).map_or(Health::Unknown, |state| state.machine.health())
    }

    /// Whether it is asked and judged so.
    pub fn is_on(&self, member: usize, terms: &Terms) -> bool {
        self.members.get(member).is_some_and(|known| known.machine.terms() == terms)
    }

    /// Whether its last round was bad.
    pub fn doubts(&self, member: usize) -> bool {
        self.members.get(member).is_some_and(|state| state.machine.bad_rounds() > 0)
    }

    /// Why it is so.
    pub fn judgement(&self, member: usize) -> &Judgement {
        self.members.get(member).map_or(&Judgement::Waiting, |state| state.machine.judgement())
    }

    /// What was answered wrongly in the last round, if that was a bad one; else why the member was
    /// convicted without being asked.
    pub fn wrong(&self, member: usize) -> Option<&str> {
        let state = self.members.get(member)?;
        state.wrong.as_deref().or(state.convicted.as_deref())
    }

    /// Loss, round-trip time and jitter.
    pub fn figures(&self, member: usize) -> Figures {
        self.members.get(member).map(|s| s.machine.window().figures()).unwrap_or_default()
    }

    /// Whether a target answers over no member, while others do.
    pub fn is_dead(&self, target: usize) -> bool {
        self.referee.is_dead(target)
    }

    /// When to call [`Board::handle_timer`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let rounds = self.members.iter().filter(|s| s.able && !s.targets.is_empty());
        let held = self.members.iter().filter_map(|state| state.machine.poll_timeout());
        let asides = self.asides.iter().map(|question| question.asked + question.timeout);
        rounds.filter_map(|state| state.rounds.poll_timeout()).chain(held).chain(asides).min()
    }

    /// Whether the time has come to ask somebody.
    pub fn is_due(&self, now: Instant) -> bool {
        self.members.iter().any(|state| state.able && state.rounds.is_due(now))
    }

    /// Whether [`Board::hold`] holds somebody.
    pub fn is_held(&self) -> bool {
        self.members.iter().any(|state| state.rounds.is_held())
    }

    /// Nobody is asked anything new while it is held; what was asked has its time as ever.
    pub fn hold(&mut self, held: bool) {
        self.members.iter_mut().for_each(|state| state.rounds.hold(held));
    }

    /// Something about a member that counts at once has come (why), or is over. Nobody is asked
    /// anything before this has been called once.
    pub fn set_fault(&mut self, member: usize, fault: Option<String>, now: Instant) -> Vec<Action> {
        self.watch(|board, _| {
            let Some(state) = board.members.get_mut(member) else { return };
            let able = fault.is_none();
            if state.able != able {
                state.rounds.restart(now);
                board.referee.forget(member);
                board.asides.retain(|question| question.member != member);
            }
            state.able = able;
            state.machine.set_fault(fault, now);
        })
    }

    /// A member is known not to answer, and why. It is asked further, and comes back when it answers
    /// again; so one that is asked nothing is left alone.
    pub fn convict(&mut self, member: usize, why: String, now: Instant) -> Vec<Action> {
        self.watch(|board, _| {
            let asked = |state: &&mut State| state.able && !state.targets.is_empty();
            let Some(state) = board.members.get_mut(member).filter(asked) else { return };
            if state.machine.health() != Health::Down {
                state.convicted = Some(why.into());
                state.machine.convict(now);
            }
        })
    }

    /// Takes in what came of a question.
    pub fn handle_outcome(
        &mut self,
        question: Question,
        outcome: &Outcome,
        now: Instant,
    ) -> Vec<Action> {
        self.watch(|board, actions| {
            board.take(question, outcome, now, actions);
            board.settle(now, actions);
        })
    }

    /// Time has passed.
    pub fn handle_timer(&mut self, now: Instant) -> Vec<Action> {
        self.watch(|board, actions| {
            board.time_out(now, actions);
            board.settle(now, actions);
            for index in 0..board.members.len() {
                board.start_round(index, now, actions);
                board.members[index].machine.handle_timer(now);
            }
        })
    }

    /// Does the work, waives hold-downs that nobody else makes up for, and tells what changed.
    fn watch(&mut self, work: impl FnOnce(&mut Board, &mut Vec<Action>)) -> Vec<Action> {
        let figure = |state: &State| (state.machine.health(), state.machine.judgement().clone());
        let before: Vec<_> = self.members.iter().map(figure).collect();
        let mut actions = Vec::new();
        work(self, &mut actions);
        let usable = |state: &State| state.machine.health() >= Health::Degraded;
        if self.waives && !self.members.iter().any(usable) {
            self.members.iter_mut().for_each(|state| state.machine.waive_hold());
        }
        let changed = self.members.iter().map(figure).zip(before).enumerate();
        let changed = changed.filter(|(_, (now, before))| now != before);
        actions.extend(changed.map(|(index, _)| Action::Changed(index)));
        actions
    }

    fn start_round(&mut self, index: usize, now: Instant, actions: &mut Vec<Action>) {
        let jitter = self.jitter(index);
        let state = &mut self.members[index];
        if !state.able || state.targets.is_empty() {
            return;
        }
        let up = state.machine.health() == Health::Up;
        let Some(number) = state.rounds.start(now, up, jitter) else { return };
        let timeout = state.rounds.timeout();
        for target in &state.targets {
            self.referee.asked(index, *target, now);
            actions.push(Action::Ask(Question {
                member: index,
                target: *target,
                asked: now,
                timeout,
                round: Some(number),
            }));
        }
    }

    /// From 0.9 to 1.1, another at each call.
    fn jitter(&mut self, index: usize) -> f64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15 ^ index as u64);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        0.9 + 0.2 * ((mixed >> 40) as f64 / (1_u64 << 24) as f64)
    }

    fn take(
        &mut self,
        question: Question,
        outcome: &Outcome,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Question { member, target, asked, round, .. } = question;
        let Some(state) = self.members.get_mut(member) else { return };
        let known = match round {
            Some(number) => state
                .targets
                .iter()
                .position(|one| *one == target)
                .is_some_and(|place| state.rounds.record(number, place, outcome).is_some()),
            None => {
                let before = self.asides.len();
                self.asides.retain(|open| *open != question);
                self.asides.len() < before
            }
        };
        if !known {
            return;
        }
        if matches!(outcome, Outcome::Reply(_)) {
            if self.referee.replied(member, target, now) {
                actions.push(Action::TargetBack(target));
            }
            return;
        }
        let answered = self.referee.answers(member, target);
        let failures = self.referee.failed(member, target, asked);
        let state = &mut self.members[member];
        let counts = !self.referee.is_dead(target) && state.machine.health() != Health::Down;
        if round.is_none() || !counts {
            return;
        }
        if answered {
            state.rounds.doubt(now);
        }
        if failures >= SUSPICIOUS.min(state.machine.terms().pace.fall) {
            self.ask_others(member, target, now, actions);
        }
    }

    /// Asks a target at once over those that have not asked it since it failed here.
    fn ask_others(
        &mut self,
        member: usize,
        target: usize,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let others = self.others(member, target);
        for other in self.referee.not_asked(member, target, others.into_iter()) {
            let timeout = self.members[other].rounds.timeout();
            let question = Question { member: other, target, asked: now, timeout, round: None };
            self.referee.asked(other, target, now);
            self.asides.push(question);
            actions.push(Action::Ask(question));
        }
    }

    /// Over whom else a target can be asked.
    fn others(&self, member: usize, target: usize) -> Vec<usize> {
        let able = |index: &usize| *index != member && self.members[*index].able;
        let shared = |_: &usize| !self.private.contains(&target);
        (0..self.members.len()).filter(able).filter(shared).collect()
    }

    /// Questions whose time is over are lost; answers that are late raise doubt.
    fn time_out(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for index in 0..self.members.len() {
            let state = &self.members[index];
            for (number, place) in state.rounds.timed_out(now) {
                self.lose(index, number, place, now, actions);
            }
            let state = &mut self.members[index];
            let late = state.rounds.take_late(now);
            let fresh = |place: usize| {
                let target = state.targets[place];
                !self.referee.is_dead(target) && self.referee.answers(index, target)
            };
            if state.machine.health() != Health::Down && late.into_iter().any(fresh) {
                state.rounds.doubt(now);
            }
        }
        let over = |question: &Question| question.asked + question.timeout <= now;
        for question in self.asides.iter().copied().filter(over).collect::<Vec<_>>() {
            self.take(question, &Outcome::Lost, now, actions);
        }
    }

    fn lose(
        &mut self,
        index: usize,
        number: u64,
        place: usize,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let state = &self.members[index];
        let round = state.rounds.open.iter().find(|round| round.number == number);
        let Some(asked) = round.map(|round| round.started) else { return };
        let question = Question {
            member: index,
            target: state.targets[place],
            asked,
            timeout: state.rounds.timeout(),
            round: Some(number),
        };
        self.take(question, &Outcome::Lost, now, actions);
    }
}
