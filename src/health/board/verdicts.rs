//! What rounds come to: good, bad, or the fault of a target.

use std::time::Instant;

use super::super::machine::Health;
use super::super::referee::Fault;
use super::{Action, Board};
use crate::model::Outcome;

impl Board {
    /// Judges rounds in the order of their start, and closes those of which all is known.
    pub(super) fn settle(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for index in 0..self.members.len() {
            self.judge(index, now, actions);
            while self.close(index, actions) {}
        }
    }

    fn judge(&mut self, index: usize, now: Instant, actions: &mut Vec<Action>) {
        while let Some((number, good)) = self.next_verdict(index, now, actions) {
            let state = &mut self.members[index];
            let Some(round) = state.rounds.open.iter_mut().find(|r| r.number == number) else {
                return;
            };
            round.judged = true;
            let Some(good) = good else { continue };
            let outcomes = state.targets.iter().zip(&round.outcomes);
            let wrong = outcomes.filter(|(target, _)| !good && !self.referee.is_dead(**target));
            state.wrong = wrong.filter_map(|(_, outcome)| complaint(outcome)).next_back();
            if !good && state.machine.health() != Health::Down {
                state.rounds.doubt(now);
            }
            state.machine.round(good, now);
            if good {
                state.convicted = None;
            }
            let down = state.machine.health() == Health::Down;
            state.rounds.judged(number, good, down);
        }
    }

    /// The first round that is not judged, if it can be: good, bad, or (`None`) saying nothing.
    fn next_verdict(
        &mut self,
        index: usize,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Option<(u64, Option<bool>)> {
        loop {
            let state = &self.members[index];
            let round = state.rounds.open.iter().find(|round| !round.judged)?;
            let number = round.number;
            let counted = |place: &usize| !self.referee.is_dead(state.targets[*place]);
            let places: Vec<usize> = (0..round.outcomes.len()).filter(counted).collect();
            let quorum = (state.quorum.max(1) as usize).min(places.len());
            if places.is_empty() {
                return Some((number, None));
            }
            let reply = |outcome: &Option<Outcome>| matches!(outcome, Some(Outcome::Reply(_)));
            let good = places.iter().filter(|place| reply(&round.outcomes[**place])).count();
            if good >= quorum {
                return Some((number, Some(true)));
            }
            let open = places.iter().filter(|place| round.outcomes[**place].is_none()).count();
            if good + open >= quorum {
                return None;
            }
            let failed = places.iter().filter(|p| !reply(&round.outcomes[**p]));
            let failed: Vec<usize> = failed.map(|p| state.targets[*p]).collect();
            match self.fault_of(index, &failed, now, actions) {
                Fault::Open => return None,
                Fault::Member => return Some((number, Some(false))),
                Fault::Target => {}
            }
        }
    }

    /// Whose fault it is that these targets fail; those at fault themselves are buried.
    fn fault_of(
        &mut self,
        index: usize,
        targets: &[usize],
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> Fault {
        // Only what would convict must be known for certain.
        let bad = self.members[index].machine.bad_rounds() + 1;
        let convicts = bad >= self.members[index].machine.terms().pace.fall;
        let mut fault = Fault::Member;
        for target in targets {
            if self.private.contains(target) {
                continue;
            }
            let others = self.others(index, *target);
            match self.referee.judge(index, *target, &others) {
                Fault::Member => {}
                Fault::Open if convicts => {
                    self.ask_others(index, *target, now, actions);
                    fault = Fault::Open;
                }
                Fault::Open => {}
                Fault::Target => {
                    self.bury(*target, actions);
                    return Fault::Target;
                }
            }
        }
        fault
    }

    fn bury(&mut self, target: usize, actions: &mut Vec<Action>) {
        self.referee.bury(target);
        for state in &mut self.members {
            state.machine.forget_losses(target);
        }
        actions.push(Action::TargetDead(target));
    }

    /// Closes the first round if all is known of it, also whose fault its failures are; its outcomes
    /// go into the figures.
    fn close(&mut self, index: usize, actions: &mut Vec<Action>) -> bool {
        let state = &self.members[index];
        let Some(round) = state.rounds.open.front() else { return false };
        if !round.judged || round.outcomes.iter().any(Option::is_none) {
            return false;
        }
        let outcomes: Vec<_> =
            state.targets.iter().copied().zip(round.outcomes.iter().flatten().cloned()).collect();
        let waits = state.machine.health() != Health::Down;
        for (target, outcome) in &outcomes {
            let failed = !matches!(outcome, Outcome::Reply(_)) && !self.private.contains(target);
            if !failed || self.referee.is_dead(*target) {
                continue;
            }
            match self.referee.judge(index, *target, &self.others(index, *target)) {
                Fault::Target => self.bury(*target, actions),
                // Its next answers tell, or those of the others, who are asked.
                Fault::Open if waits => return false,
                Fault::Open | Fault::Member => {}
            }
        }
        for (target, outcome) in &outcomes {
            if !self.referee.is_dead(*target) {
                self.members[index].machine.observe(*target, outcome);
            }
        }
        self.members[index].rounds.close();
        true
    }
}

/// What was wrong with an answer.
fn complaint(outcome: &Option<Outcome>) -> Option<Box<str>> {
    match outcome {
        Some(Outcome::Wrong(why)) => Some(why.as_str().into()),
        Some(Outcome::Reply(_) | Outcome::Lost) | None => None,
    }
}
