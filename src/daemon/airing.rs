//! When all sessions are let out of the flowtable, to get in again one by one. Pure.
//!
//! Where a route changes, newer kernels (seen on 7.3) let sessions out, and take them in again with
//! their next packet. But what is left of the first time is cleared away a second later, and then
//! connection tracking says of the session that it is in no flowtable, though it is. Nobody would
//! count it there, and its bindings would seem idle. After that it is put right by letting all out.

use std::time::{Duration, Instant};

/// By then the kernel has cleared away what was left.
const CLEARED: Duration = Duration::from_millis(2500);
/// Not more often than this, whatever becomes of the routes, and not later.
const SELDOM: Duration = Duration::from_secs(10);

/// A flowtable that is newer than this carried nobody when the routes changed: they changed with it.
const NEW: Duration = Duration::from_secs(1);

/// When it is time.
#[derive(Debug, Default)]
pub(super) struct Airing {
    /// Since when there is a flowtable.
    carries: Option<Instant>,
    due: Option<Instant>,
    /// The first change that nothing was done about.
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Airing {
    /// Whether there is a flowtable.
    pub(super) fn set_carries(&mut self, carries: bool, now: Instant) {
        if !carries {
            *self = Airing::default();
        } else if self.carries.is_none() {
            self.carries = Some(now);
        }
    }

    /// Routes, or what they depend on, may be others than before.
    pub(super) fn routes_changed(&mut self, now: Instant) {
        if self.carries.is_none_or(|since| now < since + NEW) {
            return;
        }
        let latest = *self.since.get_or_insert(now) + SELDOM;
        let earliest = self.last.map_or(now, |last| last + SELDOM);
        self.due = Some((now + CLEARED).min(latest).max(earliest));
    }

    /// When to call [`Airing::is_due`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time, once.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.due.take_if(|due| *due <= now).is_none() {
            return false;
        }
        self.since = None;
        self.last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Airing;

    #[test]
    fn it_waits_until_all_is_clear_and_comes_seldom() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut airing = Airing::default();
        airing.routes_changed(start - second);
        airing.set_carries(true, start - second);
        airing.routes_changed(start - second);
        assert_eq!(airing.poll_timeout(), None, "nobody was in a flowtable");
        airing.set_carries(true, start);
        airing.routes_changed(start);
        airing.routes_changed(start + second);
        assert!(!airing.is_due(start + 3 * second), "the last change counts");
        assert!(airing.is_due(start + 4 * second));
        assert!(!airing.is_due(start + 9 * second), "once");
        airing.routes_changed(start + 10 * second);
        assert!(!airing.is_due(start + 13 * second));
        assert!(airing.is_due(start + 14 * second));
        for later in 30..40 {
            assert!(!airing.is_due(start + later * second), "they change and change");
            airing.routes_changed(start + later * second);
        }
        assert!(airing.is_due(start + 40 * second));
    }
}
