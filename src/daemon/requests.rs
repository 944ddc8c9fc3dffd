//! What the API may ask of the engine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::oneshot;

use super::durations::Durations;
use super::events::{EventRecord, Following};
use super::notifier::NoticeCounts;
use super::paging::{SessionPage, SessionQuery};
use super::status::Status;
use crate::plan::Admin;
use crate::plan::explain::{Explanation, Question};

/// A question or an order, with the way back.
#[derive(Debug)]
pub enum Request {
    /// How are things?
    Status(oneshot::Sender<Status>),
    /// How are things, and everything that is counted?
    Census(oneshot::Sender<Census>),
    /// What has happened?
    Events(oneshot::Sender<Vec<Arc<EventRecord>>>),
    /// What has happened, and what will?
    Follow(oneshot::Sender<Following>),
    /// What the API cannot do, in plain words; it replaces what it said before.
    Trouble(Vec<String>),
    /// Which bindings are there?
    Bindings(oneshot::Sender<Result<Vec<Binding>, Refusal>>),
    /// Which sessions are there?
    Sessions(SessionQuery, oneshot::Sender<Result<SessionPage, Refusal>>),
    /// Where does this session go, and why?
    Explain(Box<Question>, oneshot::Sender<Result<Explanation, Refusal>>),
    /// Read the profile again; answered when it is in force (with its generation), or refused.
    Reload(oneshot::Sender<Result<u64, Refusal>>),
    /// Somebody wants the uplink of this name to be so; answered when new sessions follow.
    Order(String, Admin, oneshot::Sender<Result<(), Refusal>>),
    /// Somebody wants the server of this group (or the only one of that name) to be so; answered
    /// with its whole name when new sessions follow.
    OrderServer(Option<String>, String, Admin, oneshot::Sender<Result<String, Refusal>>),
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// The status, and what else is counted.
#[derive(Debug, Clone)]
pub struct Census {
    /// The status.
    pub status: Status,
    /// Uplink → bytes received and sent by its device.
    pub bytes: BTreeMap<String, (u64, u64)>,
    /// Sessions that bear marks of ours.
    pub sessions: u64,
    /// Uplink and family → how often new sessions left it because it did not do well.
    pub failovers: BTreeMap<(String, &'static str), u64>,
    /// The same → how often they took it again.
    pub failbacks: BTreeMap<(String, &'static str), u64>,
    /// How long it took to put something in force.
    pub applies: Durations,
    /// Kind → events since the process started.
    pub events: BTreeMap<&'static str, u64>,
    /// Map of bindings → how many it holds.
    pub maps: BTreeMap<String, u64>,
    /// Entries of connection tracking, and how many there may be.
    pub conntrack: Option<(u64, u64)>,
    /// Entry under `notify` → what became of its notices.
    pub notices: BTreeMap<String, NoticeCounts>,
}

/// One binding, as the kernel has learned it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Binding {
    /// The policy, of a client of the LANs.
    pub policy: Option<String>,
    /// The services, of a client of theirs.
    pub services: Vec<String>,
    /// The group that serves them.
    pub group: Option<String>,
    /// The virtual address: the uplink whose it is, or the address.
    pub at: Option<String>,
    /// The port, where it is part of the key.
    pub port: Option<String>,
    /// What is bound: the client's address.
    pub client: String,
    /// The destination, if it is part of the key. Of IPv6 pairs only hashes are kept: a
    /// hash is shown when no session tells its address.
    pub destination: Option<String>,
    /// The uplink that the client uses.
    pub uplink: Option<String>,
    /// The server that the client uses.
    pub server: Option<String>,
    /// What binds it, in plain words.
    pub why: String,
    /// Seconds since it was first seen: at most 10 s after it was made, or since homing started.
    pub age_s: Option<u64>,
    /// Seconds since the last session renewed it.
    pub idle_s: u64,
    /// Seconds until it is forgotten.
    pub left_s: u64,
}

/// One session, as connection tracking has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct SessionLine {
    /// `tcp`, `udp`, `icmp`, or the number.
    pub protocol: String,
    /// Who began it.
    pub client: IpAddr,
    /// Its port, where the protocol has ports.
    pub client_port: Option<u16>,
    /// What it asked for.
    pub to: IpAddr,
    /// The port that it asked for.
    pub port: Option<u16>,
    /// The uplink that it is pinned to.
    pub uplink: Option<String>,
    /// The policy that put it there.
    pub policy: Option<String>,
    /// The service that it came in by.
    pub service: Option<String>,
    /// The server that it is with, as `GROUP/NAME`.
    pub server: Option<String>,
    /// Of TCP: its state.
    pub state: Option<&'static str>,
    /// Packets went both ways.
    pub answered: bool,
    /// Its packets go past the rules.
    pub offloaded: bool,
    /// Seconds until it is forgotten, unless a packet comes; 0 when it is offloaded.
    pub left_s: u32,
}
