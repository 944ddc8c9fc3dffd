//! What people are told, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::super::addresses::Place;
use super::super::events::{Level, Told};
use super::super::failovers::Selections;
use super::super::judge::overall;
use super::super::report::Report;
use super::{Action, Engine};
use crate::health::{Figures, Health};
use crate::model::{EventKind, Family, Name};
use crate::plan::{Admin, Layout};

impl Engine {
    pub(super) fn tell_drift(&mut self, report: &Report, actions: &mut Vec<Action>) {
        let authors = std::mem::take(&mut self.authors);
        if report.drift.is_empty() {
            return;
        }
        self.drift_repairs += 1;
        let authors: Vec<String> = authors.into_iter().collect();
        let by =
            if authors.is_empty() { String::new() } else { format!(" by {}", authors.join(", ")) };
        let first = report.drift.first().map_or("", String::as_str);
        let more = match report.drift.len() {
            0 | 1 => String::new(),
            several => format!(" (and {} more)", several - 1),
        };
        let text = format!("our state was changed{by}; put right: {first}{more}");
        let told = Told::new(Level::Warning, EventKind::DriftRepaired, text);
        let told = told.with("repairs", report.drift.iter().take(20).cloned().collect::<Vec<_>>());
        actions.push(Action::Tell(told.with("by", authors)));
    }

    /// One line for each uplink whose addresses or gateways are others than before.
    pub(super) fn tell_addresses(&self, report: &Report) -> Vec<Told> {
        let now = report.view.as_ref().map(|view| &view.uplinks);
        let last = self.report.as_ref().and_then(|last| last.view.as_ref());
        let (Some(now), Some(before)) = (now, last.map(|view| &view.uplinks)) else {
            return Vec::new();
        };
        let changed = now.iter().filter_map(|(name, facts)| {
            let (was, is) = (Place::of(before.get(name)?), Place::of(facts));
            (was != is).then(|| is.tell(name, &was))
        });
        changed.collect()
    }

    /// One line for each uplink whose health has changed, or what people want of it.
    pub(super) fn tell_uplinks(&mut self, wall: SystemTime, actions: &mut Vec<Action>) {
        let (Some(view), Some(report)) = (self.view(), &self.report) else { return };
        let layout = report.layout.clone();
        let mut steered = tell_selections(&layout, &self.chosen, &view.selections);
        for (uplink, _) in layout.uplinks() {
            let name = &uplink.name;
            let standing = overall(&view, name);
            let now = (standing.health, view.standings.admin(name));
            let before = self.told.insert(name.clone(), now);
            if before == Some(now) {
                continue;
            }
            self.uplinks_since.insert(name.clone(), wall);
            let mut line = format!("uplink {name} is {}", standing.health.as_str());
            match before {
                Some((was, _)) if was != now.0 => line += &format!(" (was {})", was.as_str()),
                _ => {}
            }
            match (before.map_or(Admin::Enabled, |(_, was)| was), now.1) {
                (was, admin) if was == admin && admin == Admin::Enabled => {}
                (was, admin) if was == admin => line += &format!(", {}", admin.as_str()),
                (_, admin) => line += &format!(", {} by order", admin.as_str()),
            }
            if !standing.reason.is_empty() {
                line += &format!(": {}", standing.reason);
            }
            line += &self.tell_figures(name);
            line += &std::mem::take(&mut steered);
            let good = standing.health > Health::Down;
            let level = if good { Level::Info } else { Level::Warning };
            let was = before.map(|(was, _)| was);
            let kind = match was {
                // Nothing has changed: it is seen for the first time.
                None => EventKind::Remark,
                Some(was) if was == now.0 => EventKind::UplinkOrder,
                Some(_) => EventKind::UplinkHealth,
            };
            let told = Told::new(level, kind, line).of_uplink(name);
            let told = told.with("health", now.0.as_str()).with("was", was.map(Health::as_str));
            let told = told.with("admin", now.1.as_str()).with("reason", standing.reason);
            actions.push(Action::Tell(told));
        }
        let told = self.failovers.follow(&layout, &view, &self.chosen);
        actions.extend(told.into_iter().map(Action::Tell));
        self.chosen = view.selections;
    }

    /// What was measured of an uplink, as the end of a line.
    fn tell_figures(&self, uplink: &Name) -> String {
        let mut text = String::new();
        for family in Family::BOTH {
            let Figures { loss: Some(loss), rtt, jitter } = self.judge.figures(uplink, family)
            else {
                continue;
            };
            text += &format!("; IPv{}: loss {:.0} %", family.digit(), loss * 100.0);
            for (what, time) in [("rtt", rtt), ("jitter", jitter)] {
                let milliseconds = time.map(|time| time.as_secs_f64() * 1000.0);
                text += &milliseconds.map_or(String::new(), |ms| format!(", {what} {ms:.1} ms"));
            }
        }
        text
    }
}

/// How many policies a line names.
const MOST_NAMED: usize = 3;

/// Whose new sessions go elsewhere than before, as the end of a line.
fn tell_selections(layout: &Layout, before: &Selections, now: &Selections) -> String {
    let mut moved: BTreeMap<String, BTreeSet<&Name>> = BTreeMap::new();
    for (policy, families) in now {
        for (family, selection) in families {
            let was = before.get(policy).and_then(|families| families.get(family));
            if was.is_none_or(|was| was.owners == selection.owners) {
                continue;
            }
            let owners = layout.uplinks().filter(|(_, id)| selection.owners.contains_key(&id.0));
            let names: Vec<&str> = owners.map(|(uplink, _)| uplink.name.as_str()).collect();
            let to = match names.as_slice() {
                [] => "nowhere".to_owned(),
                names => names.join(", "),
            };
            moved.entry(to).or_default().insert(policy);
        }
    }
    let line = |(to, policies): (String, BTreeSet<&Name>)| {
        let named: Vec<&str> = policies.iter().take(MOST_NAMED).map(|name| name.as_str()).collect();
        let more = match policies.len().saturating_sub(MOST_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more policies"),
        };
        format!("; new sessions of {}{more} go to {to}", named.join(", "))
    };
    moved.into_iter().map(line).collect()
}
