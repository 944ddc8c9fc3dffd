//! Lines that anybody could fill the journal with: told once a minute.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of a kind.
const PAUSE: Duration = Duration::from_secs(60);

/// When such a line was told last.
#[derive(Debug)]
pub(super) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    pub(super) const fn new() -> Seldom {
        Seldom(Mutex::new(None))
    }

    /// Whether it is time for such a line; from then on it is not.
    pub(super) fn is_time(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let time = last.is_none_or(|last| last.elapsed() >= PAUSE);
        if time {
            *last = Some(Instant::now());
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::Seldom;

    #[test]
    fn the_first_line_is_told_and_the_next_is_not() {
        let seldom = Seldom::new();
        assert_eq!([seldom.is_time(), seldom.is_time()], [true, false]);
    }
}
