//! The part of the status about services and groups.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::checks::{Checks, Seat};
use super::report::Measures;
use crate::health::Health;
use crate::model::{
    Family, Group, PersistenceMode, PortRange, Protocol, Server, ServerId, Service,
};
use crate::plan::inbound::{DealtBy, Numbered, choose, virtual_addresses};
use crate::plan::{Admin, Layout, ServerStanding, View};

/// One service.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ServiceStatus {
    /// The addresses at which it is reached now.
    pub r#virtual: Vec<IpAddr>,
    /// `tcp`, `udp`, `any`.
    pub protocol: Vec<String>,
    /// Ports; a range is a text.
    pub ports: Vec<Value>,
    /// The group that serves it.
    pub group: String,
    /// The mode.
    pub persistence: &'static str,
    /// How many bindings its persistence has learned; of `sticky` and `vpn` they may be other
    /// services' too.
    pub bindings: u64,
    /// Whether a new session of some family finds a server.
    pub usable: bool,
    /// Why it is so.
    pub reason: String,
}

/// One group.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GroupStatus {
    /// By name.
    pub servers: BTreeMap<String, ServerStatus>,
}

/// One server.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ServerStatus {
    /// Its id within its group.
    pub id: u8,
    /// Where it is.
    pub address: IpAddr,
    /// Its port; null is the port that the client asked for.
    pub port: Option<u16>,
    /// `up`, `degraded`, `down`, `unknown` or `unchecked`.
    pub health: &'static str,
    /// `enabled`, `draining` or `disabled`.
    pub admin: &'static str,
    /// Whether it may take new sessions.
    pub usable: bool,
    /// Its share of the next new sessions of its family, from 0 to 1.
    pub share: f64,
    /// Why it is so.
    pub reason: String,
    /// Mean round-trip time of the last 20 checks.
    pub rtt_ms: Option<f64>,
    /// Share of the last 20 checks that were not answered.
    pub loss: Option<f64>,
    /// Live sessions.
    pub sessions: u64,
    /// Clients that are bound to it.
    pub bindings: u64,
    /// New sessions since its table was made.
    pub new_sessions_total: u64,
    /// Sessions that were moved or ended because it was down, since the process started.
    pub evacuated_sessions_total: u64,
}

/// All services.
pub(super) fn services(
    layout: &Layout,
    view: &View,
    measures: &Measures,
) -> BTreeMap<String, ServiceStatus> {
    let status = |service: &Service| {
        (service.name.to_string(), service_status(layout, view, measures, service))
    };
    layout.site.services.iter().map(status).collect()
}

fn service_status(
    layout: &Layout,
    view: &View,
    measures: &Measures,
    service: &Service,
) -> ServiceStatus {
    let addresses = virtual_addresses(layout, view, &service.virtuals);
    let serves = |family| {
        let group = layout.group(&service.group)?;
        let table = group.tables().first().copied()?;
        let chosen = choose(&group, &view.standings, family, table);
        (!chosen.selection.owners.is_empty()).then_some(chosen.by_backup)
    };
    let reached = |family| addresses.iter().any(|address| Family::of(*address) == family);
    let served: Vec<bool> =
        Family::BOTH.into_iter().filter(|family| reached(*family)).filter_map(serves).collect();
    let mut reason = Vec::new();
    if addresses.is_empty() {
        reason.push("it has no address now".to_owned());
    } else if served.is_empty() {
        reason.push(format!("no server of {} is usable: clients are refused", service.group));
    } else if served.iter().all(|by_backup| *by_backup) {
        reason.push("only backups serve".to_owned());
    }
    if let Some(full) = measures.full.get(service.name.as_str()) {
        reason.push(format!("{full} is full: new clients are served without persistence"));
    }
    ServiceStatus {
        usable: !served.is_empty(),
        r#virtual: addresses,
        protocol: protocols(service),
        ports: service.ports.iter().map(port).collect(),
        group: service.group.to_string(),
        persistence: mode(service.persistence.mode),
        bindings: measures.bindings_of_services.get(service.name.as_str()).copied().unwrap_or(0),
        reason: reason.join("; "),
    }
}

/// The protocols of a service, by name.
pub(super) fn protocols(service: &Service) -> Vec<String> {
    if service.protocols.is_empty() {
        return vec!["any".to_owned()];
    }
    let name = |protocol: &Protocol| match *protocol {
        Protocol::TCP => "tcp".to_owned(),
        Protocol::UDP => "udp".to_owned(),
        Protocol::Icmp => "icmp".to_owned(),
        Protocol::Number(number) => number.to_string(),
    };
    service.protocols.iter().map(name).collect()
}

fn port(range: &PortRange) -> Value {
    match range.first == range.last {
        true => json!(range.first),
        false => json!(format!("{}-{}", range.first, range.last)),
    }
}

/// A mode by name.
pub(super) fn mode(mode: PersistenceMode) -> &'static str {
    match mode {
        PersistenceMode::Tcp => "tcp",
        PersistenceMode::Ssl => "ssl",
        PersistenceMode::Sticky => "sticky",
        PersistenceMode::Vpn => "vpn",
        PersistenceMode::Ip => "ip",
    }
}

/// All groups.
pub(super) fn groups(
    layout: &Layout,
    view: &View,
    checks: &Checks,
    evacuated: &BTreeMap<Seat, u64>,
    measures: &Measures,
) -> BTreeMap<String, GroupStatus> {
    let mut groups = BTreeMap::new();
    for group in layout.groups() {
        let mut servers = BTreeMap::new();
        for family in Family::BOTH {
            let table = group.tables().first().copied().unwrap_or(DealtBy::Turn);
            let selection = choose(&group, &view.standings, family, table).selection;
            for (server, id) in group.servers(family) {
                let seat = (group.group.name.clone(), server.name.clone());
                let mut status = server_status(&group, server, id, view, checks, &seat);
                status.share = selection.share(id.0);
                status.evacuated_sessions_total = evacuated.get(&seat).copied().unwrap_or(0);
                if let Some(measured) = measures.servers.get(&seat) {
                    status.sessions = measured.sessions;
                    status.bindings = measured.bindings;
                    status.new_sessions_total = measured.taken;
                }
                servers.insert(server.name.to_string(), status);
            }
        }
        groups.insert(group.group.name.to_string(), GroupStatus { servers });
    }
    groups
}

fn server_status(
    group: &Numbered<'_>,
    server: &Server,
    id: ServerId,
    view: &View,
    checks: &Checks,
    seat: &Seat,
) -> ServerStatus {
    let standing = view.standings.server(&seat.0, &seat.1);
    let figures = checks.figures(seat);
    ServerStatus {
        id: id.0,
        address: server.address,
        port: server.port,
        health: standing.shown(),
        admin: standing.admin.as_str(),
        usable: standing.eligible() > Health::Down,
        share: 0.0,
        reason: reason(group.group, server, &standing),
        rtt_ms: figures.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
        loss: figures.loss,
        sessions: 0,
        bindings: 0,
        new_sessions_total: 0,
        evacuated_sessions_total: 0,
    }
}

fn reason(group: &Group, server: &Server, standing: &ServerStanding) -> String {
    let mut parts = Vec::new();
    if standing.admin != Admin::Enabled {
        parts.push(format!("{} by order", standing.admin.as_str()));
    }
    if !standing.reason.is_empty() {
        parts.push(standing.reason.clone());
    }
    if standing.unchecked && standing.health > Health::Down {
        parts.push("it answers ICMP; what it serves is not checked".to_owned());
    }
    if standing.ramp < ServerStanding::WHOLE && standing.health > Health::Down {
        parts.push(format!("recovered, at {} % of its share", standing.ramp / 10));
    }
    if server.backup && standing.eligible() > Health::Down {
        parts.push("backup".to_owned());
    }
    if group.balance.is_measured() && standing.slots == Some(0) && parts.is_empty() {
        parts.push("others are better now".to_owned());
    }
    parts.join("; ")
}
