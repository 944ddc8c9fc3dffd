//! When one member is asked, and what its rounds came to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::machine::Terms;
use crate::model::Outcome;

/// An answer is late after this time at least.
const LATE: Duration = Duration::from_millis(100);
/// In doubt, and while nothing is known, rounds follow so many times as fast.
const HASTE: u32 = 10;
/// While up, a metered member is asked so many times as seldom.
const THRIFT: u32 = 10;

/// One member's rounds.
#[derive(Debug, Clone)]
pub(super) struct Rounds {
    terms: Arc<Terms>,
    metered: bool,
    /// In the order of their start.
    pub(super) open: VecDeque<Round>,
    started: u64,
    next: Instant,
    /// No round starts for now.
    held: bool,
    /// In doubt: since this round.
    doubt: Option<Doubt>,
    /// Smoothed round-trip time, by place in the member's targets.
    smoothed: Box<[Option<Duration>]>,
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    since: u64,
    good: u32,
}

/// A question to every target.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) number: u64,
    pub(super) started: Instant,
    /// By place in the member's targets.
    pub(super) outcomes: Vec<Option<Outcome>>,
    pub(super) judged: bool,
    /// Which of its late answers were told of.
    late: Vec<bool>,
}

impl Rounds {
    pub(super) fn new(terms: Arc<Terms>, metered: bool, targets: usize, now: Instant) -> Rounds {
        Rounds {
            terms,
            metered,
            open: VecDeque::new(),
            started: 0,
            next: now,
            held: false,
            doubt: Some(Doubt { since: 0, good: 0 }),
            smoothed: vec![None; targets].into(),
        }
    }

    /// Begins anew: the line has changed.
    pub(super) fn restart(&mut self, now: Instant) {
        self.open.clear();
        self.next = now;
        self.smoothed.fill(None);
        self.doubt = Some(Doubt { since: self.started, good: 0 });
    }

    /// The first round is over.
    pub(super) fn close(&mut self) {
        self.open.pop_front();
        // There may be thousands that ask seldom.
        if self.open.is_empty() {
            self.open = VecDeque::new();
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.terms.pace.timeout
    }

    /// The next time at which something is due: a round, a late answer, or the end of a round.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = (!self.held).then_some(self.next);
        let waiting = self.open.iter().find(|round| unanswered(round).next().is_some());
        let ends = waiting.map(|round| round.started + self.terms.pace.timeout);
        let late = || {
            let waiting = self.open.iter().flat_map(|round| {
                let open = unanswered(round).filter(|(_, place)| !round.late[*place]);
                open.map(|(_, place)| round.started + self.late_after(place))
            });
            waiting.min()
        };
        let late = if self.doubt.is_none() { late() } else { None };
        [next, ends, late].into_iter().flatten().min()
    }

    /// Whether the time for a round has come.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// Keeps rounds from starting, or no longer.
    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Starts a round if one is due; its number.
    pub(super) fn start(&mut self, now: Instant, up: bool, jitter: f64) -> Option<u64> {
        if self.held || !self.is_due(now) {
            return None;
        }
        self.started += 1;
        let period = match self.doubt {
            Some(_) => self.terms.pace.interval / HASTE,
            None if self.metered && up => self.terms.pace.interval * THRIFT,
            None => self.terms.pace.interval,
        };
        self.next = now + period.mul_f64(jitter);
        self.open.push_back(Round {
            number: self.started,
            started: now,
            outcomes: vec![None; self.smoothed.len()],
            judged: false,
            late: vec![false; self.smoothed.len()],
        });
        Some(self.started)
    }

    /// Takes in an outcome; when its question was asked. `None` when it comes too late.
    pub(super) fn record(
        &mut self,
        number: u64,
        place: usize,
        outcome: &Outcome,
    ) -> Option<Instant> {
        let round = self.open.iter_mut().find(|round| round.number == number)?;
        let slot = round.outcomes.get_mut(place).filter(|slot| slot.is_none())?;
        *slot = Some(outcome.clone());
        if let (Outcome::Reply(rtt), Some(smoothed)) = (outcome, self.smoothed.get_mut(place)) {
            *smoothed = Some(smoothed.map_or(*rtt, |before| (before * 7 + *rtt) / 8));
        }
        Some(round.started)
    }

    /// The questions whose time is over, as round and place.
    pub(super) fn timed_out(&self, now: Instant) -> Vec<(u64, usize)> {
        let over = self.open.iter().filter(|round| round.started + self.terms.pace.timeout <= now);
        over.flat_map(unanswered).collect()
    }

    /// The places whose answer has become late; each is told once a round.
    pub(super) fn take_late(&mut self, now: Instant) -> Vec<usize> {
        let after: Vec<Duration> =
            (0..self.smoothed.len()).map(|place| self.late_after(place)).collect();
        let mut places = Vec::new();
        for round in &mut self.open {
            for (place, after) in after.iter().enumerate() {
                let late = round.outcomes[place].is_none() && round.started + *after <= now;
                if late && !round.late[place] {
                    round.late[place] = true;
                    places.push(place);
                }
            }
        }
        places
    }

    fn late_after(&self, place: usize) -> Duration {
        let smoothed = self.smoothed.get(place).copied().flatten().unwrap_or_default();
        LATE.max(smoothed * 4).min(self.terms.pace.timeout)
    }

    /// From now on rounds follow fast, until it is clear how the member does.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.doubt.is_none() {
            self.doubt = Some(Doubt { since: self.started, good: 0 });
            self.next = self.next.min(now);
        }
    }

    /// A round was judged: enough good ones in a row, or a fall, end the doubt.
    pub(super) fn judged(&mut self, number: u64, good: bool, down: bool) {
        let rise = self.terms.pace.rise;
        let Some(doubt) = &mut self.doubt else { return };
        if number <= doubt.since {
            return;
        }
        doubt.good = if good { doubt.good + 1 } else { 0 };
        if doubt.good >= rise || down {
            self.doubt = None;
        }
    }
}

fn unanswered(round: &Round) -> impl Iterator<Item = (u64, usize)> + '_ {
    let open = round.outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none());
    open.map(|(place, _)| (round.number, place))
}
