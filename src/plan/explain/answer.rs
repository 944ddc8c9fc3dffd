//! The answer, as `homing explain --json` gives it (version 1; fields may be added, not changed).

use std::net::IpAddr;

use serde::Serialize;

/// What happens to the session, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// 1
    pub version: u32,
    /// What was asked, with what was found out about it.
    pub packet: Packet,
    /// What happens.
    pub outcome: Outcome,
    /// The same in one sentence.
    pub summary: String,
    /// What decides it.
    pub decided_by: DecidedBy,
    /// The policy that takes it.
    pub policy: Option<String>,
    /// The uplink, if only one is possible.
    pub uplink: Option<String>,
    /// The source address after translation, if only one is possible.
    pub source: Option<IpAddr>,
    /// The uplinks that may get it, with their shares; more than one when they take turns.
    pub ways: Vec<WayOut>,
    /// The service that it is for.
    pub service: Option<String>,
    /// The server, if only one is possible.
    pub server: Option<String>,
    /// The servers that may get it, with their shares.
    pub servers: Vec<ServerWay>,
    /// `elsewhere`: the device it leaves by.
    pub interface: Option<String>,
    /// The client's binding, if the policy binds and there is one.
    pub binding: Option<Bound>,
    /// Whether its packets go past the rules once it is established.
    pub fast_path: bool,
    /// The slot that the source's hash gives, with `source-hash`.
    pub slot: Option<u8>,
    /// Policies in their order, up to the one that takes it.
    pub policies: Vec<PolicyTried>,
    /// Every uplink, as the policy sees it.
    pub members: Vec<MemberWhy>,
    /// Why, step by step.
    pub reasons: Vec<String>,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Packet {
    /// From.
    pub from: IpAddr,
    /// To.
    pub to: IpAddr,
    /// `tcp`, `udp`, `icmp`, or a number.
    pub protocol: String,
    /// Destination port.
    pub port: Option<u16>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Code point.
    pub dscp: u8,
    /// The LAN or uplink it comes in by; null when it starts on the router, or the device is neither.
    #[serde(rename = "in")]
    pub input: Option<String>,
    /// The device it comes in by; null when it starts on the router.
    pub interface: Option<String>,
}

/// What happens to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It leaves by an uplink.
    Uplink,
    /// It goes on through a device that is no uplink: untouched.
    Elsewhere,
    /// It goes to a server of a service.
    Server,
    /// It ends on the router itself.
    Router,
    /// The sender is told at once: TCP RST or ICMP error.
    Refused,
    /// It vanishes.
    Dropped,
    /// Broadcast, multicast: never touched.
    Untouched,
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecidedBy {
    /// A policy.
    Policy,
    /// A service.
    Service,
    /// A route other than a default.
    Route,
    /// A source inside an uplink's `prefixes`.
    Prefix,
    /// It came in by an uplink.
    Entry,
    /// Our filters.
    Firewall,
    /// The kernel's routing alone.
    Kernel,
}

/// An uplink by which the session may leave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WayOut {
    /// The uplink.
    pub uplink: String,
    /// Its device.
    pub interface: String,
    /// Of the next sessions, from 0 to 1.
    pub share: f64,
    /// The source address after translation.
    pub source: IpAddr,
    /// Whether that is another one than before.
    pub translated: bool,
    /// The next hop; null on a point-to-point line.
    pub gateway: Option<IpAddr>,
}

/// A server that may get the session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServerWay {
    /// The server.
    pub server: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: Option<u16>,
    /// Of the next sessions, from 0 to 1.
    pub share: f64,
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// To this uplink.
    pub uplink: Option<String>,
    /// To this server.
    pub server: Option<String>,
    /// Seconds until it is forgotten.
    pub left_s: u64,
    /// Whether it holds; one to somebody who takes no sessions is forgotten.
    pub holds: bool,
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyTried {
    /// Its name.
    pub policy: String,
    /// Whether it takes the session.
    pub matches: bool,
    /// Every condition that fails; empty when it takes it.
    pub failed: Vec<String>,
}

/// One uplink in the eyes of the policy.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemberWhy {
    /// Its name.
    pub uplink: String,
    /// From 1; null when the policy does not use it.
    pub tier: Option<usize>,
    /// The weight in force.
    pub weight: u32,
    /// Whether it may take new sessions of this family.
    pub usable: bool,
    /// Whether it may get this one.
    pub takes: bool,
    /// Its share of new sessions.
    pub share: f64,
    /// Why.
    pub reason: String,
}
