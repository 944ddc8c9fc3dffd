//! Whose fault it is when a target does not answer: the member's, or its own.

use std::collections::BTreeSet;
use std::time::Instant;

/// What every member saw of every target.
#[derive(Debug, Clone, Default)]
pub(super) struct Referee {
    /// In order. Most boards have one, and there may be thousands of boards.
    seen: Vec<((usize, usize), Seen)>,
    /// Targets that answer nowhere while others do.
    dead: BTreeSet<usize>,
}

/// What one member saw of one target.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// When the last reply came.
    replied: Option<Instant>,
    /// When the first question was asked that no reply followed.
    failing: Option<Instant>,
    /// When the last question was asked that ended without a reply.
    failed: Option<Instant>,
    /// When the newest question was asked that is still open.
    open: Option<Instant>,
    /// Questions in a row without a reply.
    failures: u32,
}

/// Whose fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Member,
    Target,
    /// Others must be asked first: these.
    Open,
}

impl Referee {
    fn get(&self, member: usize, target: usize) -> Option<&Seen> {
        let place = self.seen.binary_search_by_key(&(member, target), |(key, _)| *key).ok()?;
        self.seen.get(place).map(|(_, seen)| seen)
    }

    fn entry(&mut self, member: usize, target: usize) -> &mut Seen {
        let key = (member, target);
        let place = self.seen.binary_search_by_key(&key, |(key, _)| *key).unwrap_or_else(|place| {
            self.seen.reserve_exact(usize::from(self.seen.is_empty()));
            self.seen.insert(place, (key, Seen::default()));
            place
        });
        &mut self.seen[place].1
    }

    pub(super) fn asked(&mut self, member: usize, target: usize, now: Instant) {
        self.entry(member, target).open = Some(now);
    }

    /// Takes in a reply; true when the target was thought dead.
    pub(super) fn replied(&mut self, member: usize, target: usize, now: Instant) -> bool {
        let seen = self.entry(member, target);
        *seen = Seen { replied: Some(now), ..Seen::default() };
        self.dead.remove(&target)
    }

    /// Takes in that a question was not answered, or wrongly; how many in a row that is.
    pub(super) fn failed(&mut self, member: usize, target: usize, asked: Instant) -> u32 {
        let seen = self.entry(member, target);
        if seen.open == Some(asked) {
            seen.open = None;
        }
        if seen.replied.is_some_and(|replied| replied > asked) {
            return 0;
        }
        seen.failing.get_or_insert(asked);
        seen.failed = seen.failed.max(Some(asked));
        seen.failures += 1;
        seen.failures
    }

    /// The last question was answered, or none was asked.
    pub(super) fn answers(&self, member: usize, target: usize) -> bool {
        self.get(member, target).is_none_or(|seen| seen.failures == 0)
    }

    /// Nothing that a member saw counts any more: its line has changed.
    pub(super) fn forget(&mut self, member: usize) {
        self.seen.retain(|((who, _), _)| *who != member);
    }

    pub(super) fn is_dead(&self, target: usize) -> bool {
        self.dead.contains(&target)
    }

    pub(super) fn bury(&mut self, target: usize) {
        self.dead.insert(target);
    }

    /// Which of the others have not asked the target since it failed here.
    pub(super) fn not_asked(
        &self,
        member: usize,
        target: usize,
        others: impl Iterator<Item = usize>,
    ) -> Vec<usize> {
        let Some(since) = self.failing(member, target) else { return Vec::new() };
        let asked = |other: &usize| {
            let Some(seen) = self.get(*other, target) else { return false };
            seen.replied.max(seen.failed).max(seen.open).is_some_and(|at| at >= since)
        };
        others.filter(|other| !asked(other)).collect()
    }

    /// Whose fault it is that a target fails here. `others` are the members over which it can be
    /// asked.
    pub(super) fn judge(&self, member: usize, target: usize, others: &[usize]) -> Fault {
        let Some(since) = self.failing(member, target) else { return Fault::Member };
        let seen = |other: &usize| self.get(*other, target).copied().unwrap_or_default();
        if others.iter().any(|other| seen(other).replied.is_some_and(|at| at >= since)) {
            return Fault::Member;
        }
        let open = |other: &usize| {
            let seen = seen(other);
            seen.failed.is_none_or(|at| at < since)
        };
        if others.iter().any(open) {
            return Fault::Open;
        }
        let another = |((_, other), seen): &((usize, usize), Seen)| {
            *other != target && seen.replied.is_some_and(|at| at >= since)
        };
        if self.seen.iter().any(another) { Fault::Target } else { Fault::Member }
    }

    fn failing(&self, member: usize, target: usize) -> Option<Instant> {
        self.get(member, target)?.failing
    }
}
