//! The table: pure, from what is known at a moment to text of at most 80 columns.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::net::IpAddr;

use serde_json::Value;

use super::traffic::Tally;
use crate::lab::Layout;
use crate::model::Family;

/// Shares are taken over so many moments.
const WINDOW: usize = 10;
const WIDTH: usize = 80;

/// Everything that is known at one moment.
pub(super) struct Moment<'a> {
    pub(super) layout: &'a Layout,
    /// `homing status --json`; null when there is none.
    pub(super) status: &'a Value,
    /// TCP connections by source address, as the servers saw them.
    pub(super) arrivals: &'a BTreeMap<IpAddr, u64>,
    pub(super) faults: &'a BTreeMap<String, String>,
    pub(super) traffic: Tally,
}

/// What is remembered from one moment to the next.
#[derive(Debug, Default)]
pub(super) struct View {
    /// By uplink: sessions that servers had seen by then.
    arrivals: VecDeque<BTreeMap<String, u64>>,
}

impl View {
    /// The table of this moment.
    pub(super) fn draw(&mut self, moment: &Moment<'_>) -> String {
        let now = by_uplink(moment);
        let first = self.arrivals.front().cloned().unwrap_or_default();
        let recent: BTreeMap<&str, u64> = now
            .iter()
            .map(|(name, count)| {
                let before = first.get(name).copied().unwrap_or_default();
                (name.as_str(), count.saturating_sub(before))
            })
            .collect();
        let mut text = head(moment);
        uplinks(&mut text, moment, &recent);
        policies(&mut text, moment);
        self.arrivals.push_back(now.clone());
        if self.arrivals.len() > WINDOW {
            self.arrivals.pop_front();
        }
        text.lines().map(|line| line.chars().take(WIDTH).collect::<String>() + "\n").collect()
    }
}

/// How many sessions the servers saw from each uplink's addresses.
fn by_uplink(moment: &Moment<'_>) -> BTreeMap<String, u64> {
    let count = |address: IpAddr| moment.arrivals.get(&address).copied().unwrap_or_default();
    let isps = moment.layout.isps.iter();
    isps.map(|isp| {
        let sum = Family::BOTH.iter().map(|&family| count(isp.customer(family))).sum();
        (isp.name.clone(), sum)
    })
    .collect()
}

fn head(moment: &Moment<'_>) -> String {
    let Tally { opened, failed, broken } = moment.traffic;
    let state = moment.status["kernel"]["state"].as_str().unwrap_or("no answer");
    format!(
        "homing lab: kernel {state}; sessions: {opened} opened, {failed} failed, {broken} broken\n\
         from a second terminal: homing lab fail NAME, heal NAME, exec PLACE -- COMMAND\n\n"
    )
}

fn uplinks(text: &mut String, moment: &Moment<'_>, recent: &BTreeMap<&str, u64>) {
    let total: u64 = recent.values().sum();
    let _ = writeln!(
        text,
        "{:<12} {:<9} {:>6} {:>8} {:>7} {:>6} {:>7} {:>7}  FAULT",
        "UPLINK", "HEALTH", "WEIGHT", "SESSIONS", "SEEN", "SHARE", "DOWN", "UP"
    );
    for isp in &moment.layout.isps {
        let uplink = &moment.status["uplinks"][&isp.name];
        let seen = recent.get(isp.name.as_str()).copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "{:<12.12} {:<9.9} {:>6} {:>8} {:>7} {:>6} {:>7} {:>7}  {}",
            isp.name,
            uplink["health"].as_str().unwrap_or("-"),
            number(&uplink["weight"]),
            number(&uplink["sessions"]),
            seen,
            percent(seen, total),
            rate(&uplink["rx_bps"]),
            rate(&uplink["tx_bps"]),
            moment.faults.get(&isp.name).map_or("", String::as_str),
        );
    }
    let _ = writeln!(
        text,
        "SEEN: TCP connections in the last {WINDOW} s, by the source that servers saw\n"
    );
}

fn policies(text: &mut String, moment: &Moment<'_>) {
    let names: Vec<&str> = moment.layout.isps.iter().map(|isp| isp.name.as_str()).collect();
    let width = ((WIDTH - 16) / names.len().max(1)).saturating_sub(1).min(16);
    let _ = write!(text, "{:<16}", "POLICY");
    for name in &names {
        let _ = write!(text, " {name:>width$.width$}");
    }
    text.push('\n');
    for (policy, value) in moment.status["policies"].as_object().into_iter().flatten() {
        let count = |name: &str| value["members"][name]["new_sessions_total"].as_u64();
        let total: u64 = names.iter().filter_map(|name| count(name)).sum();
        let _ = write!(text, "{policy:<16.16}");
        for name in &names {
            let share = |n| match width {
                0..14 => percent(n, total),
                _ => format!("{n} {:>5}", percent(n, total)),
            };
            let cell = count(name).map_or("-".to_owned(), share);
            let _ = write!(text, " {cell:>width$}");
        }
        text.push('\n');
    }
}

fn percent(part: u64, whole: u64) -> String {
    match (part * 100 + whole / 2).checked_div(whole) {
        Some(percent) => format!("{percent} %"),
        None => "-".to_owned(),
    }
}

fn number(value: &Value) -> String {
    value.as_u64().map_or("-".to_owned(), |number| number.to_string())
}

/// Bits per second, in three digits.
fn rate(value: &Value) -> String {
    let Some(rate) = value.as_f64() else {
        return "-".to_owned();
    };
    match rate {
        r if r >= 1e9 => format!("{:.1}G", r / 1e9),
        r if r >= 1e6 => format!("{:.1}M", r / 1e6),
        r if r >= 1e3 => format!("{:.1}k", r / 1e3),
        r => format!("{r:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Moment, Tally, View, rate};
    use crate::lab::{IspLayout, Layout};
    use crate::model::Family;

    fn layout() -> Layout {
        let name = "a-very-long-name-of-an-uplink-x";
        let isps = ["fiber", "cable", name];
        Layout {
            prefix: "hl-1-0".to_owned(),
            isps: (1..).zip(isps).map(|(k, name)| IspLayout::usual(name, k)).collect(),
            hosts: 1,
            inside: true,
        }
    }

    #[test]
    fn the_table_shows_shares_and_stays_within_eighty_columns() {
        let layout = layout();
        let [fiber, cable] = [0, 1].map(|i| layout.isps[i].customer(Family::V4));
        let status = json!({"kernel": {"state": "applied"},
            "uplinks": {"fiber": {"health": "degraded", "weight": 5, "sessions": 120, "rx_bps": 1.25e6}},
            "policies": {"default": {"members": {"fiber": {"new_sessions_total": 3},
                "cable": {"new_sessions_total": 1}}}}});
        let faults = [("cable".to_owned(), "loss=30% and more words".to_owned())].into();
        let arrivals = [(fiber, 3), (cable, 1)].into();
        let mut view = View::default();
        let text = view.draw(&Moment {
            layout: &layout,
            status: &status,
            arrivals: &arrivals,
            faults: &faults,
            traffic: Tally { opened: 1_000_000, failed: 20_000, broken: 10_000 },
        });
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("75 %") && text.contains("25 %"), "{text}");
        assert!(text.contains("1.2M") && text.contains("loss=30%"), "{text}");
    }

    #[test]
    fn rates_are_short() {
        let cases = [(0.0, "0"), (999.0, "999"), (1234.0, "1.2k"), (2.5e9, "2.5G")];
        for (value, text) in cases {
            assert_eq!(rate(&json!(value)), text);
        }
    }
}
