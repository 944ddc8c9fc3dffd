//! The only reader of time.

use std::time::{Instant, SystemTime};

/// For measuring how long something took, and for deadlines.
pub fn now() -> Instant {
    Instant::now()
}

/// For people.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// RFC 3339, in UTC, to the second.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The same to the millisecond.
pub fn rfc3339_millis(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
