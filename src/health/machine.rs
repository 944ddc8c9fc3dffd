//! One member's health.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::window::Window;
use crate::model::{Degraded, Outcome, Pace};

/// Flaps are counted over this time.
const FLAPS_WITHIN: Duration = Duration::from_secs(600);
/// Hold-down never grows beyond this, unless it is set so.
const LONGEST_HOLD: Duration = Duration::from_secs(600);

/// How well a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It does not answer, or cannot.
    Down,
    /// Nothing is known yet.
    Unknown,
    /// It answers, but badly.
    Degraded,
    /// It answers.
    Up,
}

impl Health {
    /// The health of that name.
    pub fn parse(text: &str) -> Option<Health> {
        let all = [Health::Up, Health::Degraded, Health::Unknown, Health::Down];
        all.into_iter().find(|health| health.as_str() == text)
    }

    /// As `status` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Up => "up",
            Health::Degraded => "degraded",
            Health::Unknown => "unknown",
            Health::Down => "down",
        }
    }
}

/// How a member is judged: how often it is asked, and when its health changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// Its rhythm.
    pub pace: Pace,
    /// When one that answers is `degraded`.
    pub degraded: Option<Degraded>,
    /// How long a recovered member must stay good.
    pub hold_down: Duration,
}

/// Why health is what it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// No verdict yet.
    Waiting,
    /// All is well.
    Good,
    /// Something that counts at once.
    Fault(String),
    /// So many bad rounds in a row.
    Silent(u32),
    /// It answers again, and is held down until then.
    Held(Instant),
    /// A figure is above its limit: which.
    Bad(&'static str),
}

/// Judges one member.
#[derive(Debug, Clone)]
pub struct Machine {
    terms: Arc<Terms>,
    health: Health,
    judgement: Judgement,
    /// Good rounds in a row, or bad ones.
    streak: Streak,
    window: Window,
    /// When it fell, lately.
    falls: Vec<Instant>,
    /// It has been up, or degraded, since the start.
    has_been_up: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streak {
    Good(u32),
    Bad(u32),
}

impl Machine {
    /// One of which nothing is known.
    pub fn new(terms: Arc<Terms>) -> Machine {
        Machine {
            terms,
            health: Health::Unknown,
            judgement: Judgement::Waiting,
            streak: Streak::Good(0),
            window: Window::default(),
            falls: Vec::new(),
            has_been_up: false,
        }
    }

    /// One whose health was known a moment ago, before a restart: it stays so until a verdict.
    pub fn remembered(terms: Arc<Terms>, health: Health) -> Machine {
        Machine { health, ..Machine::new(terms) }
    }

    /// How it is judged.
    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Its health.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Why.
    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// The last outcomes.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Bad rounds in a row.
    pub(super) fn bad_rounds(&self) -> u32 {
        match self.streak {
            Streak::Good(_) => 0,
            Streak::Bad(count) => count,
        }
    }

    /// Losses of this target were its own fault.
    pub(super) fn forget_losses(&mut self, target: usize) {
        self.window.forget_losses(target);
    }

    /// Takes in what came of asking one target, for the figures.
    pub fn observe(&mut self, target: usize, outcome: &Outcome) {
        self.window.push(target, outcome);
    }

    /// Takes in a round that is over.
    pub fn round(&mut self, good: bool, now: Instant) {
        self.streak = match (self.streak, good) {
            (Streak::Good(count), true) => Streak::Good(count.saturating_add(1)),
            (Streak::Bad(count), false) => Streak::Bad(count.saturating_add(1)),
            (_, true) => Streak::Good(1),
            (_, false) => Streak::Bad(1),
        };
        if matches!(self.judgement, Judgement::Fault(_)) {
            return;
        }
        match self.streak {
            Streak::Bad(count) if count >= self.terms.pace.fall => {
                self.fall(Judgement::Silent(count), now);
            }
            Streak::Good(count) if count >= self.terms.pace.rise => self.answer(now),
            _ if self.judgement != Judgement::Waiting => self.weigh(),
            _ => {}
        }
    }

    /// Something that counts at once has come (why), or has gone.
    pub fn set_fault(&mut self, fault: Option<String>, now: Instant) {
        match (fault, &self.judgement) {
            (Some(fault), _) => self.fall(Judgement::Fault(fault), now),
            (None, Judgement::Fault(_)) => {
                // What was good or bad before the fault says nothing of now.
                self.streak = Streak::Good(0);
                self.judgement = Judgement::Waiting;
            }
            (None, _) => {}
        }
    }

    /// It is known not to answer, without asking further.
    pub(super) fn convict(&mut self, now: Instant) {
        if self.health != Health::Down {
            self.streak = Streak::Bad(self.bad_rounds());
            self.fall(Judgement::Silent(self.bad_rounds()), now);
        }
    }

    /// When to call [`Machine::handle_timer`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.judgement {
            Judgement::Held(until) => Some(until),
            _ => None,
        }
    }

    /// The hold-down may be over.
    pub fn handle_timer(&mut self, now: Instant) {
        if matches!(self.judgement, Judgement::Held(until) if until <= now) {
            self.rise();
        }
    }

    /// No other member is usable: one that answers need not wait.
    pub fn waive_hold(&mut self) {
        if matches!(self.judgement, Judgement::Held(_)) {
            self.rise();
        }
    }

    fn fall(&mut self, why: Judgement, now: Instant) {
        if self.health >= Health::Degraded {
            self.falls.push(now);
        }
        self.health = Health::Down;
        self.judgement = why;
    }

    /// It has answered often enough.
    fn answer(&mut self, now: Instant) {
        match (self.health, &self.judgement) {
            (Health::Down, Judgement::Held(_)) => {}
            (Health::Down, _) if self.has_been_up && !self.terms.hold_down.is_zero() => {
                self.judgement = Judgement::Held(now + self.hold(now));
            }
            (Health::Down | Health::Unknown, _) => self.rise(),
            (Health::Degraded | Health::Up, _) => self.weigh(),
        }
    }

    fn rise(&mut self) {
        self.has_been_up = true;
        self.health = Health::Up;
        self.weigh();
    }

    /// Doubles with each flap.
    fn hold(&mut self, now: Instant) -> Duration {
        self.falls.retain(|fell| now.saturating_duration_since(*fell) <= FLAPS_WITHIN);
        let doublings = u32::try_from(self.falls.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let hold = self.terms.hold_down.saturating_mul(2_u32.saturating_pow(doublings.min(20)));
        hold.min(LONGEST_HOLD.max(self.terms.hold_down))
    }

    /// Whether one that answers does so well.
    fn weigh(&mut self) {
        if self.health < Health::Degraded {
            return;
        }
        let bad = self.bad_figure();
        self.health = if bad.is_some() { Health::Degraded } else { Health::Up };
        self.judgement = bad.map_or(Judgement::Good, Judgement::Bad);
    }

    /// The figure that is above its limit: one that is degraded already is left at half of it.
    fn bad_figure(&self) -> Option<&'static str> {
        let limits = self.terms.degraded?;
        let part = if self.health == Health::Degraded { 0.5 } else { 1.0 };
        let figures = self.window.figures();
        let above = |time: Option<Duration>, limit: Duration| {
            time.is_some_and(|time| time > limit.mul_f64(part))
        };
        if self.window.loss_of_full() > limits.loss.0 * part {
            Some("loss")
        } else if above(figures.rtt, limits.rtt) {
            Some("round-trip time")
        } else if above(figures.jitter, limits.jitter) {
            Some("jitter")
        } else {
            None
        }
    }
}
