//! Entrances: by which chain a session to a virtual address comes in, and which addresses and ports
//! lead there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::model::{Family, Helper, Name, PersistenceMode, PortRange, Protocol, Service, Virtual};
use crate::plan::nft::names;
use crate::plan::view::{Layout, View};

/// A service at one virtual address and port, as far as its persistence tells them apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Entrance<'a> {
    /// The service.
    pub service: &'a Service,
    /// Which sessions.
    pub family: Family,
    /// The virtual address, where bindings belong to one.
    pub at: Option<&'a Virtual>,
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
pub fn entrances(layout: &Layout, family: Family) -> Vec<Entrance<'_>> {
    entrances_of(layout, family, |_| true)
}

/// Those of services of a mode.
pub fn entrances_by(layout: &Layout, family: Family, mode: PersistenceMode) -> Vec<Entrance<'_>> {
    entrances_of(layout, family, |service| service.persistence.mode == mode)
}

fn entrances_of(
    layout: &Layout,
    family: Family,
    wanted: impl Fn(&Service) -> bool,
) -> Vec<Entrance<'_>> {
    let mut all = Vec::new();
    for service in layout.site.services.iter().filter(|service| wanted(service)) {
        let Some(group) = layout.group(&service.group).filter(|group| group.serves(family)) else {
            continue;
        };
        let own = Owner { service, family, group: names::group(family, group.id, &service.group) };
        match service.persistence.mode {
            PersistenceMode::Tcp | PersistenceMode::Ip => all.push(own.entrance(None, None)),
            PersistenceMode::Sticky | PersistenceMode::Vpn => {
                all.extend(service.virtuals.iter().map(|at| own.entrance(Some(at), None)));
            }
            PersistenceMode::Ssl => {
                for at in &service.virtuals {
                    let ports = service.ports.iter();
                    all.extend(ports.map(|ports| own.entrance(Some(at), Some(*ports))));
                }
            }
        }
    }
    all
}

struct Owner<'a> {
    service: &'a Service,
    family: Family,
    group: String,
}

impl<'a> Owner<'a> {
    fn entrance(&self, at: Option<&'a Virtual>, ports: Option<PortRange>) -> Entrance<'a> {
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

    fn bound(&self, at: &Virtual, ports: Option<PortRange>) -> Option<Bound> {
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
    let explicit = explicit_addresses(layout);
    let mut addresses: BTreeMap<&Virtual, Vec<IpAddr>> = BTreeMap::new();
    let mut keyed = Keyed::default();
    for (number, entrance) in entrances.iter().enumerate() {
        let all = entrance.service.virtuals.iter();
        for at in all.filter(|at| entrance.at.is_none_or(|one| one == *at)) {
            let found = || addresses_of(layout, view, at, &explicit);
            let here = addresses.entry(at).or_insert_with(found);
            for address in here.iter().filter(|a| Family::of(**a) == entrance.family) {
                keyed.add(entrance, number, *address);
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

/// Addresses that some service names.
pub(super) fn explicit_addresses(layout: &Layout) -> BTreeSet<IpAddr> {
    let virtuals = layout.site.services.iter().flat_map(|service| &service.virtuals);
    let explicit = virtuals.filter_map(|at| match at {
        Virtual::Address { address, .. } => Some(*address),
        Virtual::Uplink(_) => None,
    });
    explicit.collect()
}

/// An uplink's own addresses are those that no service names.
pub(super) fn addresses_of(
    layout: &Layout,
    view: &View,
    at: &Virtual,
    explicit: &BTreeSet<IpAddr>,
) -> Vec<IpAddr> {
    match at {
        Virtual::Uplink(name) => {
            let facts = view.uplinks.get(name).into_iter().flat_map(|facts| &facts.addresses);
            facts.copied().filter(|address| !explicit.contains(address)).collect()
        }
        Virtual::Address { address, on } => {
            let there = |name: &Name| view.uplinks.get(name).is_some_and(|facts| facts.present);
            let known = layout.site.uplink(on).is_some() && there(on);
            known.then_some(*address).into_iter().collect()
        }
    }
}
