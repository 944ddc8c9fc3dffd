//! What can be chosen, sorted and left out: uplinks and servers, as the status has them.

use std::cmp::Ordering;

use serde_json::Value;

use crate::cli::show::{entries, text};

/// An uplink or a server.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Row {
    /// As the profile calls it; a server with its group.
    pub(super) name: String,
    pub(super) health: String,
    pub(super) admin: String,
    pub(super) reason: String,
    /// Milliseconds.
    pub(super) delay: Option<f64>,
    /// From 0 to 1.
    pub(super) loss: Option<f64>,
    /// Bits per second from there, and to there.
    pub(super) down: Option<f64>,
    pub(super) up: Option<f64>,
    /// From 0 to 1; of servers.
    pub(super) share: f64,
    pub(super) sessions: u64,
    /// Of servers: clients that are bound to it.
    pub(super) bound: u64,
}

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    #[default]
    Name,
    /// The worst first.
    Health,
    /// The slowest first.
    Delay,
    /// The most first.
    Loss,
    /// The most first; of servers: the largest share.
    Traffic,
    /// The most first.
    Sessions,
}

impl Sort {
    pub(super) fn next(self) -> Sort {
        match self {
            Sort::Name => Sort::Health,
            Sort::Health => Sort::Delay,
            Sort::Delay => Sort::Loss,
            Sort::Loss => Sort::Traffic,
            Sort::Traffic => Sort::Sessions,
            Sort::Sessions => Sort::Name,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::Health => "health",
            Sort::Delay => "delay",
            Sort::Loss => "loss",
            Sort::Traffic => "traffic",
            Sort::Sessions => "sessions",
        }
    }

    /// Equal ones stay in order of their names.
    fn compare(self, one: &Row, other: &Row) -> Ordering {
        let most_first = |key: fn(&Row) -> f64| key(other).total_cmp(&key(one));
        match self {
            Sort::Name => Ordering::Equal,
            Sort::Health => rank(&one.health).cmp(&rank(&other.health)),
            Sort::Delay => most_first(|row| row.delay.unwrap_or(-1.0)),
            Sort::Loss => most_first(|row| row.loss.unwrap_or(-1.0)),
            Sort::Traffic => most_first(|row| row.traffic() + row.share),
            Sort::Sessions => other.sessions.cmp(&one.sessions),
        }
    }
}

/// The worst first.
fn rank(health: &str) -> usize {
    let order = ["down", "degraded", "unknown", "unchecked", "up"];
    order.iter().position(|one| *one == health).unwrap_or(order.len())
}

impl Row {
    fn of(name: String, value: &Value) -> Row {
        Row {
            name,
            health: text(&value["health"]),
            admin: text(&value["admin"]),
            reason: value["reason"].as_str().unwrap_or_default().to_owned(),
            delay: value["rtt_ms"].as_f64(),
            loss: value["loss"].as_f64(),
            down: value["rx_bps"].as_f64(),
            up: value["tx_bps"].as_f64(),
            share: value["share"].as_f64().unwrap_or(0.0),
            sessions: value["sessions"].as_u64().unwrap_or(0),
            bound: value["bindings"].as_u64().unwrap_or(0),
        }
    }

    /// Bits per second, both ways.
    pub(super) fn traffic(&self) -> f64 {
        self.down.unwrap_or(0.0) + self.up.unwrap_or(0.0)
    }
}

pub(super) fn uplinks(status: &Value) -> Vec<Row> {
    entries(status, "uplinks").map(|(name, uplink)| Row::of(name.clone(), uplink)).collect()
}

pub(super) fn servers(status: &Value) -> Vec<Row> {
    let groups = entries(status, "groups");
    let of_group = |(group, of)| {
        entries(of, "servers").map(move |(name, server)| Row::of(format!("{group}/{name}"), server))
    };
    groups.flat_map(of_group).collect()
}

/// Those whose name, health or reason has the filter in it, sorted.
pub(super) fn select(rows: Vec<Row>, filter: &str, sort: Sort) -> Vec<Row> {
    let wanted = |row: &Row| {
        [&row.name, &row.health, &row.admin, &row.reason].iter().any(|text| text.contains(filter))
    };
    let mut rows: Vec<Row> = rows.into_iter().filter(wanted).collect();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows.sort_by(|one, other| sort.compare(one, other));
    rows
}

#[cfg(test)]
mod tests {
    use super::{Row, Sort, select};

    fn rows() -> Vec<Row> {
        let row = |name: &str, health: &str, delay, down, sessions| Row {
            name: name.to_owned(),
            health: health.to_owned(),
            delay,
            down,
            sessions,
            ..Row::default()
        };
        vec![
            row("fiber", "up", Some(8.0), Some(1e6), 120),
            row("cable", "down", None, Some(0.0), 3),
            row("lte", "degraded", Some(90.0), None, 40),
        ]
    }

    fn names(filter: &str, sort: Sort) -> Vec<String> {
        select(rows(), filter, sort).into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn rows_are_sorted_by_what_is_asked_for_and_the_worst_comes_first() {
        assert_eq!(names("", Sort::Name), ["cable", "fiber", "lte"]);
        assert_eq!(names("", Sort::Health), ["cable", "lte", "fiber"]);
        assert_eq!(names("", Sort::Delay), ["lte", "fiber", "cable"]);
        assert_eq!(names("", Sort::Loss), ["cable", "fiber", "lte"]);
        assert_eq!(names("", Sort::Traffic), ["fiber", "cable", "lte"]);
        assert_eq!(names("", Sort::Sessions), ["fiber", "lte", "cable"]);
    }

    #[test]
    fn a_filter_looks_at_names_and_health() {
        assert_eq!(names("fib", Sort::Name), ["fiber"]);
        assert_eq!(names("d", Sort::Name), ["cable", "lte"]);
        assert!(names("nothing", Sort::Name).is_empty());
    }

    #[test]
    fn every_order_is_reached_and_the_first_comes_again() {
        let mut seen = vec![Sort::Name];
        while let Some(next) = seen.last().map(|last| last.next()).filter(|n| *n != Sort::Name) {
            seen.push(next);
        }
        assert_eq!(seen.len(), 6);
    }
}
