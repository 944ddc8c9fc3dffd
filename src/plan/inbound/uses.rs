//! Who uses what, looked up by name and address: with ten thousand groups nobody can look at all
//! services for each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::{Name, Protocol, Service, Site, Virtual};

/// What a site's services use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uses {
    /// By group: the places of its services in the profile.
    services: BTreeMap<Name, Vec<usize>>,
    /// By address: the servers there that answer datagrams, each with its group.
    datagrams: BTreeMap<IpAddr, Vec<(Name, Name)>>,
    /// Addresses that some service names.
    named: BTreeSet<IpAddr>,
}

impl Uses {
    /// Looks at all services once.
    pub fn new(site: &Site) -> Uses {
        let mut uses = Uses::default();
        for (place, service) in site.services.iter().enumerate() {
            uses.services.entry(service.group.clone()).or_default().push(place);
            uses.named.extend(service.virtuals.iter().filter_map(|at| match at {
                Virtual::Address { address, .. } => Some(*address),
                Virtual::Uplink(_) => None,
            }));
        }
        for (name, group) in &site.groups {
            if uses.services(site, name).any(takes_datagrams) {
                for server in &group.servers {
                    let seat = (name.clone(), server.name.clone());
                    uses.datagrams.entry(server.address).or_default().push(seat);
                }
            }
        }
        uses
    }

    /// The services of a group, in the order of the profile.
    pub fn services<'a>(
        &'a self,
        site: &'a Site,
        group: &Name,
    ) -> impl Iterator<Item = &'a Service> + use<'a> {
        let places = self.services.get(group).into_iter().flatten();
        places.filter_map(|place| site.services.get(*place))
    }

    /// Whether some service names this address.
    pub fn names(&self, address: IpAddr) -> bool {
        self.named.contains(&address)
    }

    /// The servers at an address that answer datagrams, each with its group.
    pub fn datagram_seats(&self, address: IpAddr) -> &[(Name, Name)] {
        self.datagrams.get(&address).map_or(&[], Vec::as_slice)
    }
}

/// Whether a service is one of UDP, among others.
pub fn takes_datagrams(service: &Service) -> bool {
    service.protocols.is_empty() || service.protocols.contains(&Protocol::UDP)
}
