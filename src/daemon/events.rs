//! What has happened: the bounded log in memory, and those who follow it.
//!
//! Everything that people are told of is an event: it goes to the journal as a line, into a ring of
//! the last [`KEPT`], and to whoever follows. A follower who does not keep up loses events, and is
//! told so; nobody waits for him.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::broadcast;

use crate::clock;
use crate::model::EventKind;

/// How many events are kept.
const KEPT: usize = 1000;

/// The longest text of an event, in characters: some tell commands.
const LONGEST: usize = 2000;

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// As wished.
    Info,
    /// Not as wished.
    Warning,
    /// Refused.
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// Something to tell people.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Told {
    pub(super) level: Level,
    pub(super) kind: EventKind,
    /// The uplink that it is about.
    pub(super) uplink: Option<String>,
    /// The server that it is about, as `GROUP/NAME`.
    pub(super) server: Option<String>,
    /// In plain words.
    pub(super) text: String,
    pub(super) details: Map<String, Value>,
}

impl Told {
    pub(super) fn new(level: Level, kind: EventKind, text: impl Into<String>) -> Told {
        let text = text.into();
        Told { level, kind, uplink: None, server: None, text, details: Map::new() }
    }

    /// Of no special kind.
    pub(super) fn remark(level: Level, text: impl Into<String>) -> Told {
        Told::new(level, EventKind::Remark, text)
    }

    pub(super) fn of_uplink(mut self, uplink: impl ToString) -> Told {
        self.uplink = Some(uplink.to_string());
        self
    }

    pub(super) fn of_server(mut self, server: String) -> Told {
        self.server = Some(server);
        self
    }

    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Told {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct EventRecord {
    /// Counts events, from 1 since the process started.
    pub number: u64,
    /// When, RFC 3339, to the millisecond.
    pub time: String,
    /// What sort of event.
    pub kind: &'static str,
    /// `info`, `warning` or `error`.
    pub level: &'static str,
    /// The uplink that it is about.
    pub uplink: Option<String>,
    /// The server that it is about, as `GROUP/NAME`.
    pub server: Option<String>,
    /// In plain words.
    pub text: String,
    /// What else is known, by kind.
    pub details: Map<String, Value>,
}

/// What was kept, and what comes.
pub type Following = (Vec<Arc<EventRecord>>, broadcast::Receiver<Arc<EventRecord>>);

/// The log.
#[derive(Debug)]
pub(super) struct EventLog {
    kept: VecDeque<Arc<EventRecord>>,
    last: u64,
    /// How many of each kind there were since the start.
    totals: BTreeMap<&'static str, u64>,
    followers: broadcast::Sender<Arc<EventRecord>>,
}

impl EventLog {
    pub(super) fn new() -> EventLog {
        EventLog {
            kept: VecDeque::new(),
            last: 0,
            totals: EventKind::ALL.map(|kind| (kind.as_str(), 0)).into(),
            followers: broadcast::channel(KEPT).0,
        }
    }

    /// Takes an event down.
    pub(super) fn record(&mut self, told: Told, wall: SystemTime) -> Arc<EventRecord> {
        self.last += 1;
        *self.totals.entry(told.kind.as_str()).or_default() += 1;
        let event = Arc::new(EventRecord {
            number: self.last,
            time: clock::rfc3339_millis(wall),
            kind: told.kind.as_str(),
            level: told.level.as_str(),
            uplink: told.uplink,
            server: told.server,
            text: shortened(told.text),
            details: told.details,
        });
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(event.clone());
        // Nobody may be there to hear.
        let _ = self.followers.send(event.clone());
        event
    }

    /// Those that are kept, oldest first.
    pub(super) fn list(&self) -> Vec<Arc<EventRecord>> {
        self.kept.iter().cloned().collect()
    }

    /// The same, and those that come: none twice, none left out.
    pub(super) fn follow(&self) -> Following {
        (self.list(), self.followers.subscribe())
    }

    pub(super) fn totals(&self) -> BTreeMap<&'static str, u64> {
        self.totals.clone()
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test says what it expects

    use std::time::SystemTime;

    use super::{EventLog, KEPT, LONGEST, Level, Told};

    fn record(log: &mut EventLog, count: usize) {
        for number in 0..count {
            let told = Told::remark(Level::Info, format!("remark {number}"));
            log.record(told, SystemTime::UNIX_EPOCH);
        }
    }

    #[test]
    fn the_oldest_go_and_the_count_does_not() {
        let mut log = EventLog::new();
        record(&mut log, KEPT + 5);
        let kept = log.list();
        assert_eq!(kept.len(), KEPT);
        assert_eq!((kept[0].number, kept[KEPT - 1].number), (6, KEPT as u64 + 5));
        assert_eq!(log.totals()["remark"], KEPT as u64 + 5);
        assert_eq!(log.totals()["failover"], 0, "kinds that did not happen are counted too");
    }

    #[test]
    fn a_follower_misses_nothing_and_one_who_sleeps_is_told_how_much_he_lost() {
        let mut log = EventLog::new();
        record(&mut log, 3);
        let (before, mut live) = log.follow();
        record(&mut log, 1);
        assert_eq!((before.len(), live.try_recv().unwrap().number), (3, 4));
        // The channel holds a power of two.
        record(&mut log, 2 * KEPT);
        let lost = live.try_recv().unwrap_err().to_string();
        assert!(lost.contains("lag"), "{lost}");
        assert!(live.try_recv().unwrap().number > 4, "and goes on");
    }

    #[test]
    fn an_endless_text_is_cut() {
        let mut log = EventLog::new();
        let event =
            log.record(Told::remark(Level::Info, "ä".repeat(9_999)), SystemTime::UNIX_EPOCH);
        assert_eq!(event.text.chars().count(), LONGEST + 1);
        assert_eq!(event.time, "1970-01-01T00:00:00.000Z");
    }
}
