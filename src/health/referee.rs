//! Whose fault it is when a target does not answer: the member's, or its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// What every member saw of every target.
#[derive(Debug, Clone, Default)]
pub(super) struct Referee {
    seen: BTreeMap<(usize, usize), Seen>,
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
    pub(super) fn asked(&mut self, member: usize, target: usize, now: Instant) {
        self.seen.entry((member, target)).or_default().open = Some(now);
    }

    /// Takes in a reply; true when the target was thought dead.
    pub(super) fn replied(&mut self, member: usize, target: usize, now: Instant) -> bool {
        let seen = self.seen.entry((member, target)).or_default();
        *seen = Seen { replied: Some(now), ..Seen::default() };
        self.dead.remove(&target)
    }

    /// Takes in that a question was not answered, or wrongly; how many in a row that is.
    pub(super) fn failed(&mut self, member: usize, target: usize, asked: Instant) -> u32 {
        let seen = self.seen.entry((member, target)).or_default();
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
        self.seen.get(&(member, target)).is_none_or(|seen| seen.failures == 0)
    }

    /// Nothing that a member saw counts any more: its line has changed.
    pub(super) fn forget(&mut self, member: usize) {
        self.seen.retain(|(who, _), _| *who != member);
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
            let Some(seen) = self.seen.get(&(*other, target)) else { return false };
            seen.replied.max(seen.failed).max(seen.open).is_some_and(|at| at >= since)
        };
        others.filter(|other| !asked(other)).collect()
    }

    /// Whose fault it is that a target fails here. `others` are the members over which it can be
    /// asked.
    pub(super) fn judge(&self, member: usize, target: usize, others: &[usize]) -> Fault {
        let Some(since) = self.failing(member, target) else { return Fault::Member };
        let seen = |other: &usize| self.seen.get(&(*other, target)).copied().unwrap_or_default();
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
        let another = |((_, other), seen): (&(usize, usize), &Seen)| {
            *other != target && seen.replied.is_some_and(|at| at >= since)
        };
        if self.seen.iter().any(another) { Fault::Target } else { Fault::Member }
    }

    fn failing(&self, member: usize, target: usize) -> Option<Instant> {
        self.seen.get(&(member, target))?.failing
    }
}
