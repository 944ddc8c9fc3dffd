//! Bindings and sessions in the user's words.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::checks::Seat;
use super::reader::is_live;
use super::requests::{Binding, SessionLine};
use super::status_services::mode;
use crate::clock;
use crate::kernel::{DumpedElement, Session};
use crate::kstate::{Bytes, ElementData, FieldType, SetShape, render_fields};
use crate::model::{
    Family, Mark, Name, Persistence, PersistenceKey, PersistenceMode, Policy, PolicyId, ServerId,
    UplinkId, Virtual,
};
use crate::plan::inbound::{Directory, Entrance, Place, entrances, uplink_of};
use crate::plan::{Layout, View};

/// A learned map of services.
pub(super) struct ServiceMap<'a> {
    pub(super) name: String,
    pub(super) family: Family,
    /// Those that use it: one, but for groups that several services share.
    pub(super) entrances: Vec<Entrance<'a>>,
}

/// Every learned map of services, once.
pub(super) fn service_maps<'a>(layout: &'a Layout, view: &View) -> Vec<ServiceMap<'a>> {
    let mut maps: BTreeMap<String, ServiceMap<'_>> = BTreeMap::new();
    for family in Family::BOTH {
        for entrance in entrances(layout, view, family) {
            let Some(bound) = &entrance.bound else { continue };
            let name = bound.map.clone();
            let new = || ServiceMap { name: name.clone(), family, entrances: Vec::new() };
            maps.entry(name.clone()).or_insert_with(new).entrances.push(entrance);
        }
    }
    maps.into_values().collect()
}

/// When bindings were first seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Ages(Arc<Mutex<FirstSeen>>);

/// By map and key.
type FirstSeen = HashMap<String, HashMap<Bytes, Instant>>;

impl Ages {
    /// A map holds these now.
    pub(super) fn see(&self, map: &str, elements: &[DumpedElement]) {
        let now = clock::now();
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = maps.remove(map).unwrap_or_default();
        let since = |element: &DumpedElement| {
            (element.key.clone(), known.remove(&element.key).unwrap_or(now))
        };
        let seen = elements.iter().map(since).collect();
        maps.insert(map.to_owned(), seen);
    }

    /// There are no others than these maps.
    pub(super) fn keep(&self, there: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|map, _| there(map));
    }

    fn of(&self, map: &str, key: &Bytes) -> Option<u64> {
        let maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(maps.get(map)?.get(key)?.elapsed().as_secs())
    }
}

/// The number that a binding leads to.
fn mark_of(element: &DumpedElement) -> Option<Mark> {
    let ElementData::Value(mark) = &element.data else { return None };
    Some(Mark(u32::from_ne_bytes(mark.as_slice().try_into().ok()?)))
}

/// One learned element of a policy.
pub(super) fn of_policy(
    layout: &Layout,
    policy: &Policy,
    (map, shape): (&str, &SetShape),
    element: &DumpedElement,
    ages: &Ages,
    known: impl Fn(&str) -> Option<String>,
) -> Option<Binding> {
    let mark = mark_of(element)?;
    let uplink = layout.uplinks().find(|(_, id)| layout.mark(*id) == mark)?.0;
    let key = render_fields(&shape.key, &element.key);
    let shown = |part: &str| known(part).unwrap_or_else(|| part.to_owned());
    let (client, destination) = match key.split_once(" . ") {
        None => (key, None),
        Some((source, to)) => (shown(source), Some(shown(to))),
    };
    let by = match policy.persistence {
        Persistence::By { key: PersistenceKey::SourceDestination, .. } => "source-destination",
        _ => "source",
    };
    let (idle_s, left_s) = times(element);
    Some(Binding {
        policy: Some(policy.name.to_string()),
        services: Vec::new(),
        group: None,
        at: None,
        port: None,
        client,
        destination,
        uplink: Some(uplink.name.to_string()),
        server: None,
        why: format!("policy {} binds by {by}", policy.name),
        age_s: ages.of(map, &element.key),
        idle_s,
        left_s,
    })
}

/// One learned element of a service, or of those that share a group.
pub(super) fn of_service(
    layout: &Layout,
    map: &ServiceMap<'_>,
    element: &DumpedElement,
    ages: &Ages,
) -> Option<Binding> {
    let mark = mark_of(element)?;
    let entrance = map.entrances.first()?;
    let group = layout.group(&entrance.service.group)?;
    let (server, _) = group.servers(map.family).find(|(_, id)| group.mark(*id) == mark)?;
    let field = if map.family == Family::V4 { FieldType::Ipv4 } else { FieldType::Ipv6 };
    let (idle_s, left_s) = times(element);
    let port = entrance.ports.map(|range| match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{}-{}", range.first, range.last),
    });
    let at = entrance.at.map(place_text);
    Some(Binding {
        policy: None,
        services: map.entrances.iter().map(|one| one.service.name.to_string()).collect(),
        group: Some(group.group.name.to_string()),
        client: client(render_fields(&[field], &element.key), entrance, map.family),
        destination: None,
        uplink: None,
        server: Some(server.name.to_string()),
        why: why(entrance, at.as_deref(), port.as_deref()),
        age_s: ages.of(&map.name, &element.key),
        at,
        port,
        idle_s,
        left_s,
    })
}

/// With the length of the mask, if that makes a network of it.
fn client(address: String, entrance: &Entrance<'_>, family: Family) -> String {
    match entrance.bound.as_ref().map(|bound| bound.mask) {
        Some(mask) if mask != family.host_bits() => format!("{address}/{mask}"),
        _ => address,
    }
}

fn why(entrance: &Entrance<'_>, at: Option<&str>, port: Option<&str>) -> String {
    let at = at.unwrap_or_default();
    let service = entrance.service;
    match service.persistence.mode {
        PersistenceMode::Ssl => {
            format!("mode ssl: every session to port {} of {at}", port.unwrap_or_default())
        }
        PersistenceMode::Sticky => {
            format!("mode sticky: every session to {at} that group {} serves", service.group)
        }
        PersistenceMode::Vpn => format!("mode vpn: its key exchange with {at}, and ESP"),
        other => format!("mode {}", mode(other)),
    }
}

fn place_text(place: Place<'_>) -> String {
    let uplink = uplink_of(place.at);
    match (place.at, place.further) {
        (Virtual::Uplink(_), None) => uplink.to_string(),
        (Virtual::Uplink(_), Some(address)) | (&Virtual::Address { address, .. }, _) => {
            format!("{address} on {uplink}")
        }
    }
}

fn times(element: &DumpedElement) -> (u64, u64) {
    let left = element.expires_ms.unwrap_or(0);
    let given = element.timeout_ms.unwrap_or(left);
    (given.saturating_sub(left) / 1000, left / 1000)
}

/// Shows sessions.
pub(super) struct Lister<'a> {
    layout: &'a Layout,
    directory: Directory<'a>,
    uplinks: HashMap<Mark, &'a Name>,
    policies: HashMap<Mark, &'a Name>,
    seats: HashMap<(IpAddr, Mark), Seat>,
}

impl<'a> Lister<'a> {
    pub(super) fn new(layout: &'a Layout, view: &View) -> Lister<'a> {
        let uplink =
            |(uplink, id): (&'a crate::model::Uplink, UplinkId)| (layout.mark(id), &uplink.name);
        let policy = |(policy, id): (&'a Policy, PolicyId)| (layout.policy_mark(id), &policy.name);
        Lister {
            layout,
            directory: Directory::new(layout, view),
            uplinks: layout.uplinks().map(uplink).collect(),
            policies: layout.policies().map(policy).collect(),
            seats: server_seats(layout),
        }
    }

    /// One session; `None` for what is neither a policy's nor a service's nor pinned.
    pub(super) fn line(&self, session: &Session) -> Option<SessionLine> {
        let marks = self.layout.site.marks;
        let bits = |mask: crate::model::MarkMask| Mark(session.mark.0 & mask.0);
        let name = |name: &&Name| name.to_string();
        let uplink = self.uplinks.get(&bits(marks.uplink)).map(name);
        let policy = self.policies.get(&bits(marks.policy)).map(name);
        let seat = self.seats.get(&(session.reply.src, bits(marks.server)));
        if uplink.is_none() && policy.is_none() && seat.is_none() {
            return None;
        }
        let (to, port) = (session.orig.dst, session.orig.dport);
        let entrance = seat.and_then(|_| self.directory.find(to, session.protocol, port));
        let ports = matches!(session.protocol, 6 | 17 | 33 | 132 | 136);
        Some(SessionLine {
            protocol: match session.protocol {
                1 | 58 => "icmp".to_owned(),
                6 => "tcp".to_owned(),
                17 => "udp".to_owned(),
                50 => "esp".to_owned(),
                other => other.to_string(),
            },
            client: session.orig.src,
            client_port: ports.then_some(session.orig.sport),
            to,
            port: ports.then_some(port),
            uplink,
            policy,
            service: entrance.map(|one| one.service.name.to_string()),
            server: seat.map(|(group, server)| format!("{group}/{server}")),
            state: session.tcp_state.and_then(|state| STATES.get(usize::from(state)).copied()),
            answered: session.has(Session::REPLY_SEEN),
            offloaded: session.is_offloaded(),
            left_s: session.timeout_s,
        })
    }
}

/// In the order of `TCP_CONNTRACK_*`.
const STATES: [&str; 10] = [
    "none",
    "syn-sent",
    "syn-received",
    "established",
    "fin-wait",
    "close-wait",
    "last-ack",
    "time-wait",
    "close",
    "syn-sent",
];

/// Address and mark → server.
pub(super) fn server_seats(layout: &Layout) -> HashMap<(IpAddr, Mark), Seat> {
    let mut seats = HashMap::new();
    for group in layout.groups() {
        for family in Family::BOTH {
            for (server, id) in group.servers(family) {
                let seat = (group.group.name.clone(), server.name.clone());
                seats.insert((server.address, group.mark(id)), seat);
            }
        }
    }
    seats
}

/// Sessions of each server that count as live.
pub(super) fn count_live(
    seats: &HashMap<(IpAddr, Mark), Seat>,
    server_mask: crate::model::MarkMask,
    session: &Session,
) -> Option<Seat> {
    let key = (session.reply.src, Mark(session.mark.0 & server_mask.0));
    seats.get(&key).filter(|_| is_live(session)).cloned()
}

/// The keys of all servers, by their group's number.
pub(super) fn server_keys(layout: &Layout) -> HashMap<Mark, Seat> {
    let mut keys = HashMap::new();
    for group in layout.groups() {
        let ids = layout.ids.servers.get(&group.group.name).into_iter().flatten();
        for (name, id) in ids {
            let id: ServerId = *id;
            keys.insert(group.key(id), (group.group.name.clone(), name.clone()));
        }
    }
    keys
}
