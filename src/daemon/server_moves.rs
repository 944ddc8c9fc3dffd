//! When sessions leave a server: it is down or disabled, or the profile has it no more. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::checks::Seat;
use super::evacuator::Move;
use crate::health::Health;
use crate::kernel::{Session, Tuple};
use crate::model::{Family, IfName, Mark, MarkLayout, Name, PortRange, Server};
use crate::plan::inbound::{Numbered, entrances_of, takes_datagrams};
use crate::plan::{Admin, GroupStanding, Layout, ServerStanding, View};

/// The IANA number of UDP.
const UDP: u8 = 17;

/// Sessions of these servers leave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ServerEvacuation {
    /// By address and number: which server.
    pub(super) servers: BTreeMap<(IpAddr, Mark), Seat>,
    /// Where bindings to them are, and which value those have.
    pub(super) bindings: BTreeSet<(String, Mark)>,
    /// By address: the ports from which it answers datagrams.
    pub(super) datagrams: BTreeMap<IpAddr, Vec<PortRange>>,
    pub(super) marks: MarkLayout,
    /// By which device a session's client is reached, by the uplink's mark.
    pub(super) devices: BTreeMap<Mark, IfName>,
}

/// Who left.
#[derive(Debug, Default)]
pub(super) struct ServerMoves {
    gone: BTreeSet<Seat>,
    seen: BTreeMap<Name, Arc<GroupStanding>>,
    removed: ServerEvacuation,
    /// The site that has them no more is in force.
    ready: bool,
}

impl ServerMoves {
    /// The profile is another one: sessions of servers that it has no more leave, as soon as it is in
    /// force.
    pub(super) fn wish(&mut self, (before, view): (&Layout, &View), now: &Layout) {
        let mut removed = ServerEvacuation::new(before);
        for group in before.groups() {
            for family in Family::BOTH {
                for (server, id) in group.servers(family) {
                    let stays = now.site.groups.get(&group.group.name).is_some_and(|group| {
                        let same = |other: &&Server| other.name == server.name;
                        group.servers.iter().find(same).is_some_and(|other| {
                            other.address == server.address && other.port == server.port
                        })
                    });
                    if !stays {
                        removed.add((before, view), &group, server, family, group.mark(id));
                    }
                }
            }
        }
        self.removed.extend(removed);
        self.ready = false;
        self.seen.clear();
    }

    /// The site that was wished for last is in force.
    pub(super) fn in_force(&mut self) {
        self.ready = true;
    }

    /// The site looks like this now.
    pub(super) fn follow(&mut self, layout: &Layout, view: &View) -> Option<Move> {
        let removed =
            if self.ready { std::mem::take(&mut self.removed) } else { Default::default() };
        let mut leaving: ServerEvacuation = removed;
        for (name, standing) in view.standings.groups.iter() {
            if self.seen.get(name).is_some_and(|seen| Arc::ptr_eq(seen, standing)) {
                continue;
            }
            self.seen.insert(name.clone(), standing.clone());
            let Some(group) = layout.group(name) else { continue };
            for family in Family::BOTH {
                for (server, id) in group.servers(family) {
                    let seat = (name.clone(), server.name.clone());
                    if !standing.get(&server.name).is_some_and(is_gone) {
                        self.gone.remove(&seat);
                    } else if self.gone.insert(seat) {
                        leaving.add((layout, view), &group, server, family, group.mark(id));
                    }
                }
            }
        }
        if leaving.servers.is_empty() {
            return None;
        }
        leaving.extend(ServerEvacuation::new(layout));
        Some(Move::Servers(leaving))
    }
}

fn is_gone(standing: &ServerStanding) -> bool {
    standing.health == Health::Down || standing.admin == Admin::Disabled
}

impl ServerEvacuation {
    fn new(layout: &Layout) -> ServerEvacuation {
        let device =
            |(uplink, id): (&crate::model::Uplink, _)| (layout.mark(id), uplink.interface.clone());
        ServerEvacuation {
            marks: layout.site.marks,
            devices: layout.uplinks().map(device).collect(),
            ..ServerEvacuation::default()
        }
    }

    /// Whether a server that leaves began this session as if it were one of its service: the next
    /// packets of a client would be taken for replies to it.
    pub(super) fn claims(&self, session: &Session) -> bool {
        let Tuple { src, sport, .. } = session.orig;
        let own = |range: &PortRange| (range.first..=range.last).contains(&sport);
        session.protocol == UDP
            && session.mark.0 & self.marks.server.0 == 0
            && self.datagrams.get(&src).is_some_and(|ports| ports.iter().any(own))
    }

    fn extend(&mut self, other: ServerEvacuation) {
        self.servers.extend(other.servers);
        self.bindings.extend(other.bindings);
        for (address, ports) in other.datagrams {
            self.datagrams.entry(address).or_default().extend(ports);
        }
        (self.marks, self.devices) = (other.marks, other.devices);
    }

    fn add(
        &mut self,
        (layout, view): (&Layout, &View),
        group: &Numbered<'_>,
        server: &Server,
        family: Family,
        mark: Mark,
    ) {
        let seat = (group.group.name.clone(), server.name.clone());
        self.servers.insert((server.address, mark), seat);
        for service in group.services().filter(|service| takes_datagrams(service)) {
            let own = server.port.map(|port| PortRange { first: port, last: port });
            let ports = self.datagrams.entry(server.address).or_default();
            match own {
                Some(own) => ports.push(own),
                None => ports.extend(&service.ports),
            }
        }
        let entrances = entrances_of(layout, view, family, group.services());
        let maps = entrances.iter().filter_map(|one| one.bound.as_ref());
        self.bindings.extend(maps.map(|bound| (bound.map.clone(), mark)));
    }
}
