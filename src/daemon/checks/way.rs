//! How each server is asked.

use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{CheckKind, Group, Protocol, Server, Service};

/// How a server is asked.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::daemon) struct Way {
    pub(in crate::daemon) server: IpAddr,
    pub(in crate::daemon) kind: Arc<CheckKind>,
    pub(in crate::daemon) port: u16,
}

/// The last value of its kind, kept once: there may be thousands that ask alike.
#[derive(Debug)]
pub(super) struct Shared<T>(Option<Arc<T>>);

impl<T> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared(None)
    }
}

impl<T: PartialEq> Shared<T> {
    pub(super) fn of(&mut self, value: T) -> Arc<T> {
        match &self.0 {
            Some(last) if **last == value => last.clone(),
            _ => self.0.insert(Arc::new(value)).clone(),
        }
    }
}

/// How a server is asked, with what the profile leaves out.
pub(super) fn way(
    group: &Group,
    server: &Server,
    services: &[&Service],
    kinds: &mut Shared<CheckKind>,
) -> Way {
    let takes = |service: &&&Service, protocol| service.protocols.contains(&protocol);
    let port_of = |protocol: Protocol| {
        let service = services.iter().find(|one| takes(one, protocol))?;
        service.ports.first().map(|range| range.first)
    };
    let over_udp = matches!(group.check.kind, Some(CheckKind::Dns { .. } | CheckKind::Udp { .. }));
    let first = if over_udp { Protocol::UDP } else { Protocol::TCP };
    let second = if over_udp { Protocol::TCP } else { Protocol::UDP };
    let port = server.port.or_else(|| port_of(first)).or_else(|| port_of(second));
    let tcp = services.iter().any(|one| takes(&one, Protocol::TCP))
        || services.is_empty() && server.port.is_some();
    let usual = || if tcp { CheckKind::Tcp { port: None } } else { CheckKind::Icmp };
    let kind = group.check.kind.clone().unwrap_or_else(usual);
    let well_known = match &kind {
        CheckKind::Dns { .. } => Some(53),
        CheckKind::Http { tls: false, .. } => Some(80),
        CheckKind::Http { tls: true, .. } | CheckKind::Tls { .. } => Some(443),
        CheckKind::Icmp | CheckKind::Tcp { .. } | CheckKind::Udp { .. } => None,
    };
    let port = kind.port().or(port).or(well_known).unwrap_or(0);
    // A port that nobody names cannot be asked.
    let kind = if port == 0 { CheckKind::Icmp } else { kind };
    Way { server: server.address, kind: kinds.of(kind), port }
}

/// Whether an answer says nothing of what the server is there for.
pub(super) fn is_unchecked(kind: &CheckKind, services: &[&Service]) -> bool {
    let tcp = services.iter().any(|service| service.protocols.contains(&Protocol::TCP));
    *kind == CheckKind::Icmp && !tcp && !services.is_empty()
}
