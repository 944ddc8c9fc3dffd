//! Entrances: by which chain a session to a virtual address comes in, and which addresses and ports
//! lead there.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::model::{Family, Helper, Name, PersistenceMode, PortRange, Protocol, Service, Virtual};
use crate::plan::nft::names;
use crate::plan::view::{Layout, View};

use super::places::{Place, Places};

/// A service at one virtual address and port, as far as its persistence tells them apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Entrance<'a> {
    /// The service.
    pub service: &'a Service,
    /// Which sessions.
    pub family: Family,
    /// The virtual address, where bindings belong to one.
    pub at: Option<Place<'a>>,
    /// The ports, where bindings belong to them. A range counts as one.
    pub ports: Option<PortRange>,
    /// What is learned here.
    pub bound: Option<Bound>,
    /// The chain that begins it.
    pub chain: String,
    /// That is the group's own chain: the service adds nothing.
    pub direct: bool,
}

/// A map of bindings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Its name.
    pub map: String,
    /// Idle time.
    pub timeout: Duration,
    /// Prefix length that makes a client of an address.
    pub mask: u8,
}

/// The IANA number of ESP.
pub(in crate::plan) const ESP: u8 = 50;

/// The longest range whose ports are looked up one by one.
const SINGLE_PORTS: u16 = 64;

/// Every entrance of one family, in the order of the profile.
pub fn entrances<'a>(layout: &'a Layout, view: &View, family: Family) -> Vec<Entrance<'a>> {
    entrances_of(layout, view, family, layout.site.services.iter())
}

/// Those of some services.
pub fn entrances_of<'a>(
    layout: &'a Layout,
    view: &View,
    family: Family,
    services: impl Iterator<Item = &'a Service>,
) -> Vec<Entrance<'a>> {
    let mut all = Vec::new();
    for service in services {
        let Some(group) = layout.group(&service.group).filter(|group| group.serves(family)) else {
            continue;
        };
        let own = Owner { service, family, group: names::group(family, group.id, &service.group) };
        let places = || service.virtuals.iter().flat_map(|at| places(view, at, family));
        match service.persistence.mode {
            PersistenceMode::Tcp | PersistenceMode::Ip => all.push(own.entrance(None, None)),
            PersistenceMode::Sticky | PersistenceMode::Vpn => {
                all.extend(places().map(|at| own.entrance(Some(at), None)));
            }
            PersistenceMode::Ssl => {
                for at in places() {
                    let ports = service.ports.iter();
                    all.extend(ports.map(|ports| own.entrance(Some(at), Some(*ports))));
                }
            }
        }
    }
    all
}

/// A virtual address, once for each address that bindings tell apart.
fn places<'a>(view: &View, at: &'a Virtual, family: Family) -> Vec<Place<'a>> {
    let further = match at {
        Virtual::Uplink(name) => view.uplinks.get(name).and_then(|facts| facts.places.get(&family)),
        Virtual::Address { .. } => None,
    };
    let further = further.into_iter().flat_map(Places::apart).map(Some);
    std::iter::once(None).chain(further).map(|further| Place { at, further }).collect()
}

struct Owner<'a> {
    service: &'a Service,
    family: Family,
    group: String,
}

impl<'a> Owner<'a> {
    fn entrance(&self, at: Option<Place<'a>>, ports: Option<PortRange>) -> Entrance<'a> {
        let direct = at.is_none() && adds_nothing(self.service);
        Entrance {
            service: self.service,
            family: self.family,
            at,
            ports,
            bound: at.and_then(|at| self.bound(at, ports)),
            chain: match direct {
                true => self.group.clone(),
                false => names::service(self.family, &self.service.name, at, ports),
            },
            direct,
        }
    }

    fn bound(&self, at: Place<'_>, ports: Option<PortRange>) -> Option<Bound> {
        let persistence = &self.service.persistence;
        let owner = match persistence.mode {
            PersistenceMode::Ssl => &self.service.name,
            _ => &self.service.group,
        };
        let mask = match self.family {
            Family::V4 => persistence.client_mask,
            Family::V6 => persistence.client_mask6,
        };
        Some(Bound {
            map: names::bound(self.family, persistence.mode, owner, at, ports),
            timeout: persistence.timeout?,
            mask,
        })
    }
}

/// See [`Entrance::udp_seconds`].
pub(in crate::plan) fn udp_seconds(service: &Service) -> Option<u64> {
    let tcp = service.persistence.mode == PersistenceMode::Tcp;
    let udp = service.protocols.contains(&Protocol::UDP);
    service.persistence.timeout.filter(|_| tcp && udp).map(|time| time.as_secs().max(1))
}

/// Whether sessions may go to the group's own chain at once.
fn adds_nothing(service: &Service) -> bool {
    service.persistence.mode == PersistenceMode::Tcp
        && service.allow.is_empty()
        && service.helper.is_none()
        && !service.protocols.contains(&Protocol::UDP)
}

impl Entrance<'_> {
    /// The helper of its sessions.
    pub fn helper(&self) -> Option<Helper> {
        self.service.helper
    }

    /// How long an idle UDP session of the service lasts, where that is the persistence.
    pub fn udp_seconds(&self) -> Option<u64> {
        udp_seconds(self.service)
    }
}

/// What leads to which entrance (by their numbers).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyed {
    /// Address, protocol and port.
    pub exact: BTreeMap<(IpAddr, u8, u16), usize>,
    /// Address and protocol: long ranges of ports.
    pub ranges: BTreeMap<(IpAddr, u8), Vec<(PortRange, usize)>>,
    /// Addresses whose ESP is taken.
    pub esp: BTreeMap<IpAddr, usize>,
    /// Addresses of which everything is taken.
    pub whole: BTreeMap<IpAddr, usize>,
}

/// What leads to these entrances now.
pub fn claimed(layout: &Layout, view: &View, entrances: &[Entrance<'_>]) -> Keyed {
    let mut keyed = Keyed::default();
    for (number, entrance) in entrances.iter().enumerate() {
        let family = entrance.family;
        let mut add = |address| keyed.add(entrance, number, address);
        match entrance.at {
            Some(place) => place.address(layout, view, family).into_iter().for_each(add),
            None => {
                let all = entrance.service.virtuals.iter();
                let all = all.flat_map(|at| addresses_of(layout, view, at));
                all.filter(|address| Family::of(*address) == family).for_each(&mut add);
            }
        }
    }
    keyed
}

impl Keyed {
    fn add(&mut self, entrance: &Entrance<'_>, number: usize, address: IpAddr) {
        let service = entrance.service;
        if service.protocols.is_empty() {
            self.whole.insert(address, number);
        }
        if service.persistence.mode == PersistenceMode::Vpn {
            self.esp.insert(address, number);
        }
        let protocols = service.protocols.iter().filter_map(|protocol| match protocol {
            Protocol::Number(number) => Some(*number),
            Protocol::Icmp => None,
        });
        let ports = service.ports.iter().filter(|p| entrance.ports.is_none_or(|one| one == **p));
        let ports: Vec<PortRange> = ports.copied().collect();
        for protocol in protocols {
            for range in &ports {
                if range.last - range.first < SINGLE_PORTS {
                    let each = range.first..=range.last;
                    self.exact.extend(each.map(|port| ((address, protocol, port), number)));
                } else {
                    let ranges = self.ranges.entry((address, protocol)).or_default();
                    ranges.push((*range, number));
                }
            }
        }
    }

    /// The entrance of a session.
    pub fn find(&self, address: IpAddr, protocol: u8, port: u16) -> Option<usize> {
        let within = |(range, _): &&(PortRange, usize)| (range.first..=range.last).contains(&port);
        let ranges = || self.ranges.get(&(address, protocol))?.iter().find(within).map(|r| r.1);
        let esp = || self.esp.get(&address).copied().filter(|_| protocol == ESP);
        let exact = self.exact.get(&(address, protocol, port)).copied();
        exact.or_else(ranges).or_else(esp).or_else(|| self.whole.get(&address).copied())
    }
}

/// The addresses that a virtual address is now. An uplink's own are those that no service names.
pub(super) fn addresses_of<'a>(
    layout: &'a Layout,
    view: &'a View,
    at: &'a Virtual,
) -> impl Iterator<Item = IpAddr> + 'a {
    let facts = |name: &Name| view.uplinks.get(name).filter(|_| layout.site.uplink(name).is_some());
    let (own, named) = match at {
        Virtual::Uplink(name) => (facts(name), None),
        Virtual::Address { address, on } => {
            (None, facts(on).is_some_and(|facts| facts.present).then_some(*address))
        }
    };
    let own = own.into_iter().flat_map(|facts| facts.addresses.iter().copied());
    own.filter(|address| !layout.uses.names(*address)).chain(named)
}
