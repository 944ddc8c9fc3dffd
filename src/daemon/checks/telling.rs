//! What people are told of servers.

use std::collections::BTreeSet;

use super::super::events::{Level, Told};
use super::{Checks, Seat};
use crate::health::Health;
use crate::model::{EventKind, Family, Name};
use crate::plan::inbound::{DealtBy, choose};
use crate::plan::{Layout, ServerStanding, Standings};

impl Checks {
    pub(super) fn tell(&mut self, layout: &Layout, seat: &Seat, before: &ServerStanding) {
        let now = self.known(seat);
        if now.shown() == before.shown() {
            return;
        }
        let (group, server) = seat;
        let mut line =
            format!("server {group}/{server} is {} (was {})", now.shown(), before.shown());
        if !now.reason.is_empty() {
            line += &format!(": {}", now.reason);
        }
        let figures = self.figures(seat);
        if let Some(loss) = figures.loss {
            line += &format!("; loss {:.0} %", loss * 100.0);
        }
        if let Some(rtt) = figures.rtt {
            line += &format!(", rtt {:.1} ms", rtt.as_secs_f64() * 1000.0);
        }
        line += &self.tell_takers(layout, group);
        let level = if now.health > Health::Down { Level::Info } else { Level::Warning };
        let told = Told::new(level, EventKind::ServerHealth, line);
        let told = told.of_server(format!("{group}/{server}"));
        let told = told.with("health", now.shown()).with("was", before.shown());
        self.told.push(told.with("reason", now.reason));
    }

    fn tell_takers(&self, layout: &Layout, name: &Name) -> String {
        let Some(group) = layout.group(name) else { return String::new() };
        let standings = Standings { groups: self.groups.clone(), ..Standings::default() };
        let dealt_by = group.tables().first().copied().unwrap_or(DealtBy::Turn);
        let mut takers = BTreeSet::new();
        for family in Family::BOTH {
            let owners = choose(&group, &standings, family, dealt_by).selection.owners;
            let chosen = group.servers(family).filter(|(_, id)| owners.contains_key(&id.0));
            takers.extend(chosen.map(|(server, _)| server.name.as_str()));
        }
        let takers: Vec<&str> = takers.into_iter().collect();
        match takers.as_slice() {
            [] => format!("; new sessions of {name} are refused"),
            takers => format!("; new sessions of {name} go to {}", takers.join(", ")),
        }
    }
}
