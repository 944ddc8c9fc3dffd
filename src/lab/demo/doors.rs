//! What the site serves to the internet: pure, from the profile to who can be called, and at which
//! ports servers must listen for it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::traffic;
use crate::lab::{LabError, Layout, Protocol, caller_address, farm_address};
use crate::model::{self, Family, Group, Service, Site, Virtual};

/// How many servers the DMZ gets if the profile has groups, and how many hosts call them.
pub(super) const FARM: u8 = 3;
pub(super) const CALLERS: u16 = 100;

/// A port of a virtual address.
pub(super) type Door = (Protocol, SocketAddr);

/// TCP and UDP ports at which the DMZ's servers listen.
pub(super) struct Ports {
    pub(super) tcp: Vec<u16>,
    pub(super) udp: Vec<u16>,
}

/// That each server of the profile is one of the lab's.
pub(super) fn check(site: &Site) -> Result<(), LabError> {
    let known: Vec<_> =
        (0..FARM).flat_map(|i| Family::BOTH.map(|family| farm_address(family, i))).collect();
    for group in site.groups.values() {
        if let Some(server) = group.servers.iter().find(|s| !known.contains(&s.address)) {
            let all: Vec<String> = known.iter().map(ToString::to_string).collect();
            return Err(LabError::Running(format!(
                "the lab's servers are at {}: `groups.{}.servers.{}.address` is {}",
                all.join(", "),
                group.name,
                server.name,
                server.address
            )));
        }
    }
    Ok(())
}

/// The usual ports, those of the services, and those that servers have of their own.
pub(super) fn ports(site: &Site) -> Ports {
    let services = site.services.iter().flat_map(first_ports);
    let own = site.groups.values().flat_map(|group| &group.servers).filter_map(|s| s.port);
    let more: BTreeSet<u16> = services.chain(own).collect();
    let with = |usual: &[u16]| {
        let all: BTreeSet<u16> = usual.iter().copied().chain(more.iter().copied()).collect();
        all.into_iter().collect()
    };
    Ports { tcp: with(&traffic::TCP), udp: with(&traffic::UDP) }
}

/// Every way in: each service at each of its uplinks, in both families. Addresses of their own are
/// left out: the lab's internet has no route to them.
pub(super) fn doors(site: &Site, layout: &Layout) -> Vec<Door> {
    let mut doors = Vec::new();
    for service in &site.services {
        let group = site.groups.get(&service.group);
        let families = Family::BOTH.into_iter().filter(|&family| {
            admits(service, family) && group.is_some_and(|group| serves(group, family))
        });
        for family in families {
            let addresses = service.virtuals.iter().filter_map(|at| match at {
                Virtual::Uplink(name) => layout.find(name.as_str()).ok(),
                Virtual::Address { .. } => None,
            });
            for address in addresses.map(|isp| isp.customer(family)) {
                let at = |port| SocketAddr::new(address, port);
                let ways = service.protocols.iter().filter_map(|&p| spoken(p));
                doors
                    .extend(ways.flat_map(|p| first_ports(service).map(move |port| (p, at(port)))));
            }
        }
    }
    doors
}

/// The first port of each range.
fn first_ports(service: &Service) -> impl Iterator<Item = u16> {
    service.ports.iter().map(|range| range.first)
}

/// Whether the lab's callers may connect.
fn admits(service: &Service, family: Family) -> bool {
    let caller = caller_address(family, 0);
    service.allow.is_empty() || service.allow.iter().any(|net| net.contains(&caller))
}

fn serves(group: &Group, family: Family) -> bool {
    group.servers.iter().any(|server| Family::of(server.address) == family)
}

/// What the lab's agents can speak.
fn spoken(protocol: model::Protocol) -> Option<Protocol> {
    match protocol {
        model::Protocol::TCP => Some(Protocol::Tcp),
        model::Protocol::UDP => Some(Protocol::Udp),
        model::Protocol::Icmp | model::Protocol::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{check, doors, ports};
    use crate::lab::{IspLayout, Layout};
    use crate::profile;

    fn layout() -> Layout {
        Layout {
            prefix: "hl-1-0".to_owned(),
            isps: vec![IspLayout::usual("fiber", 1)],
            hosts: 1,
            inside: true,
            farm: 3,
            callers: 1,
        }
    }

    fn site(server: &str, service: &str) -> crate::model::Site {
        let text = format!(
            "version: 1\nuplinks:\n  fiber: {{ interface: wan0 }}\n  cable: {{ interface: wan1 }}\n\
             groups:\n  web:\n    servers:\n      a: {{ {server} }}\n\
             services:\n  shop: {{ virtual: [fiber], group: web, {service} }}\n"
        );
        profile::load(&text).site.unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn each_port_of_a_family_that_is_served_is_a_door() {
        let site =
            site("address: 10.2.0.11, port: 9000", "protocol: [tcp, udp], ports: [80, \"90-99\"]");
        let shown: Vec<String> =
            doors(&site, &layout()).iter().map(|(p, at)| format!("{p:?} {at}")).collect();
        let expected = [
            "Tcp 198.51.101.2:80",
            "Tcp 198.51.101.2:90",
            "Udp 198.51.101.2:80",
            "Udp 198.51.101.2:90",
        ];
        assert_eq!(shown, expected);
        assert!(ports(&site).tcp.contains(&9000) && ports(&site).udp.contains(&90));
        assert!(check(&site).is_ok());
    }

    #[test]
    fn who_is_not_admitted_does_not_call() {
        let site =
            site("address: 10.2.0.11", "protocol: tcp, ports: [80], allow: [203.0.113.0/24]");
        assert_eq!(doors(&site, &layout()), []);
    }

    #[test]
    fn a_server_that_the_lab_does_not_have_is_named() {
        let site = site("address: 10.2.0.99", "protocol: tcp, ports: [80]");
        let text = check(&site).map_or_else(|error| error.to_string(), |()| String::new());
        assert!(
            text.contains("groups.web.servers.a.address") && text.contains("10.2.0.11"),
            "{text}"
        );
    }
}
