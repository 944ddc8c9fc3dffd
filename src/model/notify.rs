//! What happens, by kind, and who is told of it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Name, Url};

/// What sort of thing has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// An uplink answers otherwise than before.
    UplinkHealth,
    /// Somebody wants an uplink to be used otherwise.
    UplinkOrder,
    /// New sessions leave an uplink that does not do well.
    Failover,
    /// New sessions take it again.
    Failback,
    /// A server answers otherwise than before.
    ServerHealth,
    /// Somebody wants a server to be used otherwise.
    ServerOrder,
    /// What somebody else changed of our state was put right.
    DriftRepaired,
    /// An uplink has other addresses or another gateway.
    AddressChanged,
    /// The profile was read again and is in force.
    ProfileReloaded,
    /// The profile was read again and is not in force.
    ProfileRefused,
    /// Not everything is in force.
    KernelDegraded,
    /// Everything is in force again.
    KernelRestored,
    /// Sessions have left what is dead.
    SessionsEvacuated,
    /// Sessions got the uplink they belong to, or were ended because they had gone wrong.
    SessionsMended,
    /// The first apply was found right.
    Ready,
    /// Anything else that is worth a line.
    Remark,
}

impl EventKind {
    /// All of them, in the order in which they are always shown.
    pub const ALL: [EventKind; 16] = [
        EventKind::UplinkHealth,
        EventKind::UplinkOrder,
        EventKind::Failover,
        EventKind::Failback,
        EventKind::ServerHealth,
        EventKind::ServerOrder,
        EventKind::DriftRepaired,
        EventKind::AddressChanged,
        EventKind::ProfileReloaded,
        EventKind::ProfileRefused,
        EventKind::KernelDegraded,
        EventKind::KernelRestored,
        EventKind::SessionsEvacuated,
        EventKind::SessionsMended,
        EventKind::Ready,
        EventKind::Remark,
    ];

    /// As it is written in profiles and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::UplinkHealth => "uplink-health",
            EventKind::UplinkOrder => "uplink-order",
            EventKind::Failover => "failover",
            EventKind::Failback => "failback",
            EventKind::ServerHealth => "server-health",
            EventKind::ServerOrder => "server-order",
            EventKind::DriftRepaired => "drift-repaired",
            EventKind::AddressChanged => "address-changed",
            EventKind::ProfileReloaded => "profile-reloaded",
            EventKind::ProfileRefused => "profile-refused",
            EventKind::KernelDegraded => "kernel-degraded",
            EventKind::KernelRestored => "kernel-restored",
            EventKind::SessionsEvacuated => "sessions-evacuated",
            EventKind::SessionsMended => "sessions-mended",
            EventKind::Ready => "ready",
            EventKind::Remark => "remark",
        }
    }

    /// The kind of that name.
    pub fn parse(text: &str) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Of what people are told who do not say of what: all but remarks, and what goes by itself.
    pub fn is_news(self) -> bool {
        !matches!(self, EventKind::Remark | EventKind::SessionsMended)
    }
}

/// An entry under `notify`: who is told, and of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// The name in the profile.
    pub name: Name,
    /// How.
    pub by: Messenger,
    /// Of what. Never empty.
    pub events: BTreeSet<EventKind>,
    /// How long one try may take.
    pub timeout: Duration,
}

impl Notify {
    /// How long one try may take, where the profile says nothing.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// What is told where the profile says nothing.
    pub fn news() -> BTreeSet<EventKind> {
        EventKind::ALL.into_iter().filter(|kind| kind.is_news()).collect()
    }
}

/// How somebody is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Messenger {
    /// By a POST of the event as JSON.
    Webhook(Url),
    /// By a program that reads the event as JSON; with its arguments. Never empty.
    Command(Vec<String>),
}
