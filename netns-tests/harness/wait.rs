//! Waiting: always a poll with a deadline, and the last value for the complaint.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// Looks until what it sees is right; what it saw last otherwise.
pub fn until<T: Debug>(
    within: Duration,
    mut look: impl FnMut() -> T,
    right: impl Fn(&T) -> bool,
) -> Result<T, T> {
    let begun = Instant::now();
    loop {
        let seen = look();
        if right(&seen) {
            return Ok(seen);
        }
        if begun.elapsed() > within {
            return Err(seen);
        }
        thread::sleep(Duration::from_millis(10));
    }
}
