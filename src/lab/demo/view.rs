//! The table: pure, from what is known at a moment to text of at most 80 columns.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::net::IpAddr;

use serde_json::Value;

use super::traffic::Tally;
use crate::lab::{Layout, farm_address, farm_name};
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
    /// TCP connections that came to each server of the DMZ.
    pub(super) served: &'a [u64],
    pub(super) faults: &'a BTreeMap<String, String>,
    pub(super) traffic: Tally,
}

/// What is remembered from one moment to the next.
#[derive(Debug, Default)]
pub(super) struct View {
    uplinks: History,
    servers: History,
}

impl View {
    /// The table of this moment.
    pub(super) fn draw(&mut self, moment: &Moment<'_>) -> String {
        let mut text = head(moment);
        uplinks(&mut text, moment, &self.uplinks.recent(by_uplink(moment)));
        policies(&mut text, moment);
        if moment.layout.farm > 0 {
            servers(&mut text, moment, &self.servers.recent(by_server(moment)));
        }
        text.lines().map(|line| line.chars().take(WIDTH).collect::<String>() + "\n").collect()
    }
}

/// By name: the sessions that had been seen by then, moment after moment.
#[derive(Debug, Default)]
struct History {
    moments: VecDeque<BTreeMap<String, u64>>,
}

impl History {
    /// What came in the last [`WINDOW`] moments.
    fn recent(&mut self, now: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let first = self.moments.front().cloned().unwrap_or_default();
        let before = |name| first.get(name).copied().unwrap_or_default();
        let recent = now.iter().map(|(name, n)| (name.clone(), n.saturating_sub(before(name))));
        let recent = recent.collect();
        self.moments.push_back(now);
        if self.moments.len() > WINDOW {
            self.moments.pop_front();
        }
        recent
    }
}

fn by_server(moment: &Moment<'_>) -> BTreeMap<String, u64> {
    (0..).map(farm_name).zip(moment.served.iter().copied()).collect()
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

fn uplinks(text: &mut String, moment: &Moment<'_>, recent: &BTreeMap<String, u64>) {
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

/// The DMZ's servers, each with all that groups say of its two addresses.
fn servers(text: &mut String, moment: &Moment<'_>, recent: &BTreeMap<String, u64>) {
    let total: u64 = recent.values().sum();
    let _ = writeln!(
        text,
        "\n{:<12} {:<9} {:<9} {:>8} {:>7} {:>7} {:>6}  FAULT",
        "SERVER", "IPV4", "IPV6", "SESSIONS", "NEW", "SEEN", "SHARE"
    );
    for index in 0..moment.layout.farm {
        let name = farm_name(index);
        let [v4, v6] = Family::BOTH.map(|family| roles(moment.status, farm_address(family, index)));
        let sum = |key: &str| {
            let figures = v4.iter().chain(&v6).filter_map(|role| role[key].as_u64());
            figures.reduce(|a, b| a + b).map_or("-".to_owned(), |sum| sum.to_string())
        };
        let seen = recent.get(&name).copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "{name:<12.12} {:<9.9} {:<9.9} {:>8} {:>7} {seen:>7} {:>6}  {}",
            health(&v4),
            health(&v6),
            sum("sessions"),
            sum("new_sessions_total"),
            percent(seen, total),
            moment.faults.get(&name).map_or("", String::as_str),
        );
    }
    text.push_str(
        "NEW: by homing's count, all sessions; SEEN: connections as the servers saw them\n",
    );
}

/// Every server of a group that has this address.
fn roles(status: &Value, address: IpAddr) -> Vec<&Value> {
    let address = address.to_string();
    let groups = status["groups"].as_object().into_iter().flatten();
    let servers = groups.flat_map(|(_, group)| group["servers"].as_object().into_iter().flatten());
    servers.map(|(_, server)| server).filter(|server| server["address"] == address).collect()
}

/// How it is, in each group that says something else.
fn health(roles: &[&Value]) -> String {
    let mut all: Vec<&str> = roles.iter().filter_map(|role| role["health"].as_str()).collect();
    all.dedup();
    if all.is_empty() { "-".to_owned() } else { all.join("/") }
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
            farm: 2,
            callers: 0,
        }
    }

    #[test]
    fn the_table_shows_shares_and_stays_within_eighty_columns() {
        let layout = layout();
        let [fiber, cable] = [0, 1].map(|i| layout.isps[i].customer(Family::V4));
        let status = json!({"kernel": {"state": "applied"},
            "uplinks": {"fiber": {"health": "degraded", "weight": 5, "sessions": 120, "rx_bps": 1.25e6}},
            "policies": {"default": {"members": {"fiber": {"new_sessions_total": 3},
                "cable": {"new_sessions_total": 1}}}},
            "groups": {"web": {"servers": {
                "b": {"address": "10.2.0.12", "health": "up", "sessions": 7},
                "b6": {"address": "fd00:2::12", "health": "down", "sessions": 70}}}}});
        let faults = [("cable", "loss=30% and more words"), ("server-b", "silent")];
        let faults = faults.map(|(name, fault)| (name.to_owned(), fault.to_owned())).into();
        let arrivals = [(fiber, 3), (cable, 1)].into();
        let mut view = View::default();
        let text = view.draw(&Moment {
            layout: &layout,
            status: &status,
            arrivals: &arrivals,
            served: &[1, 4],
            faults: &faults,
            traffic: Tally { opened: 1_000_000, failed: 20_000, broken: 10_000 },
        });
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("75 %") && text.contains("25 %"), "{text}");
        assert!(text.contains("1.2M") && text.contains("loss=30%"), "{text}");
        let words = |name: &str| -> Vec<&str> {
            let line = text.lines().find(|line| line.starts_with(name));
            line.map(|line| line.split_whitespace().collect()).unwrap_or_default()
        };
        assert_eq!(words("server-a"), ["server-a", "-", "-", "-", "-", "1", "20", "%"]);
        let b = ["server-b", "up", "down", "77", "-", "4", "80", "%", "silent"];
        assert_eq!(words("server-b"), b);
    }

    #[test]
    fn rates_are_short() {
        let cases = [(0.0, "0"), (999.0, "999"), (1234.0, "1.2k"), (2.5e9, "2.5G")];
        for (value, text) in cases {
            assert_eq!(rate(&json!(value)), text);
        }
    }
}
