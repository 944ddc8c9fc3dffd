//! The way out through an uplink, one family at a time, as the kernel's facts allow it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::kstate::{Address, Facts, Route, RouteKind, Snapshot};
use crate::model::{Family, Gateway, IfName, Name, Site, TableId, Uplink, Virtual};

use super::inbound::Places;

/// What an uplink can do now, and why not more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UplinkFacts {
    /// The device exists.
    pub present: bool,
    /// It is administratively up.
    pub up: bool,
    /// It has carrier.
    pub carrier: bool,
    /// The ways out; a family without an address or a gateway has none.
    pub ways: BTreeMap<Family, Way>,
    /// Why a family has none.
    pub missing: BTreeMap<Family, String>,
    /// Every global address of the device that others gave it, whatever its state; the one that suits
    /// best as the uplink's own first.
    pub addresses: Vec<IpAddr>,
    /// Those of them that are neither on their way out, nor for privacy, nor private.
    pub lasting: BTreeSet<IpAddr>,
    /// How bindings tell them apart.
    pub places: BTreeMap<Family, Places>,
    /// Addresses of services that the router takes there: all but those that the device has anyway,
    /// which stay their owner's. None while it is down.
    pub taken: BTreeSet<IpAddr>,
}

/// A way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The source address of what we translate.
    pub address: IpAddr,
    /// The next hop; `None` on a point-to-point link.
    pub gateway: Option<IpAddr>,
    /// No connected route covers the gateway.
    pub onlink: bool,
    /// The metric of the default route that the gateway was learned from.
    pub metric: u32,
    /// The path MTU set on that route.
    pub route_mtu: Option<u32>,
    /// The device's MTU, or the route's if that is smaller.
    pub mtu: u32,
}

impl UplinkFacts {
    /// Every address by which the uplink is reached.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().chain(&self.taken).copied()
    }

    /// Whether new sessions of a family can leave by it.
    pub fn passes(&self, family: Family) -> bool {
        self.carrier && self.ways.contains_key(&family)
    }

    /// Why no session of a family can leave by it, in plain words.
    pub fn why_not(&self, family: Family, device: &str) -> String {
        match self.missing.get(&family) {
            Some(missing) if !self.present || !self.up => missing.clone(),
            _ if !self.carrier => format!("no carrier on {device}"),
            Some(missing) => missing.clone(),
            None => String::new(),
        }
    }
}

/// A next hop and what is known of the route it came from.
struct NextHop {
    gateway: Option<IpAddr>,
    metric: u32,
    mtu: Option<u32>,
    onlink: bool,
}

/// The metric of our default route when nothing taught us another.
const OWN_METRIC: u32 = 1;

/// The main routing table.
pub(crate) const MAIN: TableId = TableId(254);

/// Looks at one uplink. `own_table` is the uplink's own routing table.
pub(super) fn assess_uplink(uplink: &Uplink, own_table: TableId, seen: &Snapshot) -> UplinkFacts {
    let Some(link) = seen.facts.links.get(&uplink.interface) else {
        let missing = format!("interface {} does not exist", uplink.interface);
        return UplinkFacts { missing: both(&missing), ..UplinkFacts::default() };
    };
    let mut facts = UplinkFacts {
        present: true,
        up: link.up,
        carrier: link.carrier,
        addresses: global_addresses(&seen.facts, &uplink.interface),
        lasting: lasting_addresses(&seen.facts, &uplink.interface),
        ..UplinkFacts::default()
    };
    if !link.up {
        facts.missing = both(&format!("interface {} is down", uplink.interface));
        return facts;
    }
    for family in Family::BOTH {
        match find_way(uplink, own_table, family, seen, link.mtu) {
            Ok(way) => drop(facts.ways.insert(family, way)),
            Err(reason) => drop(facts.missing.insert(family, reason)),
        }
    }
    facts
}

/// Looks at every uplink of the site.
pub(super) fn assess_uplinks(
    site: &Site,
    tables: &BTreeMap<Name, TableId>,
    seen: &Snapshot,
) -> BTreeMap<Name, UplinkFacts> {
    let assess = |uplink: &Uplink| {
        let table = tables.get(&uplink.name)?;
        let mut facts = assess_uplink(uplink, *table, seen);
        if facts.up {
            facts.taken = wanted_addresses(site, uplink, &seen.facts);
        }
        Some((uplink.name.clone(), facts))
    };
    site.uplinks.iter().filter_map(assess).collect()
}

/// What services want to be reached by over this uplink, unless the device has it from others.
fn wanted_addresses(site: &Site, uplink: &Uplink, facts: &Facts) -> BTreeSet<IpAddr> {
    let address = |one: &Virtual| match one {
        Virtual::Address { address, on } if *on == uplink.name => Some(*address),
        Virtual::Address { .. } | Virtual::Uplink(_) => None,
    };
    let all = site.services.iter().flat_map(|service| &service.virtuals).filter_map(address);
    let foreign = |address: &IpAddr| {
        facts
            .addresses_of(&uplink.interface, Family::of(*address))
            .any(|a| a.net.addr() == *address)
    };
    all.filter(|address| !foreign(address)).collect()
}

fn both(reason: &str) -> BTreeMap<Family, String> {
    Family::BOTH.map(|family| (family, reason.to_owned())).into()
}

fn global_addresses(facts: &Facts, device: &IfName) -> Vec<IpAddr> {
    let global = |a: &&Address| a.global && &a.device == device;
    let mut all: Vec<&Address> = facts.addresses.iter().filter(global).collect();
    all.sort_by_key(|a| (a.tentative || a.deprecated, a.temporary, is_local(a), a.net.addr()));
    // One may be there twice, with networks of two lengths.
    let mut seen = BTreeSet::new();
    all.into_iter().map(|a| a.net.addr()).filter(|address| seen.insert(*address)).collect()
}

fn lasting_addresses(facts: &Facts, device: &IfName) -> BTreeSet<IpAddr> {
    // Of IPv4 "temporary" is a secondary one, which lasts as well.
    let private = |a: &Address| a.temporary && a.net.addr().is_ipv6() || is_local(a);
    let lasts = |a: &&Address| a.global && &a.device == device && !a.deprecated && !private(a);
    facts.addresses.iter().filter(lasts).map(|a| a.net.addr()).collect()
}

/// Not routed in the internet: `fc00::/7`, RFC 1918, RFC 6598, `169.254.0.0/16`.
fn is_local(address: &Address) -> bool {
    match address.net.addr() {
        IpAddr::V6(v6) => v6.is_unique_local(),
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_private() || v4.is_link_local() || shared
        }
    }
}

fn find_way(
    uplink: &Uplink,
    own_table: TableId,
    family: Family,
    seen: &Snapshot,
    link_mtu: u32,
) -> Result<Way, String> {
    let hop = next_hop(uplink, own_table, family, seen);
    let via = hop.as_ref().and_then(|hop| hop.gateway);
    let address = source_address(&seen.facts, &uplink.interface, family, via).ok_or_else(|| {
        format!("no usable IPv{} address on {}", family.digit(), uplink.interface)
    })?;
    let hop = hop.ok_or_else(|| {
        format!("no IPv{} gateway: no default route through {}", family.digit(), uplink.interface)
    })?;
    Ok(Way {
        address,
        gateway: hop.gateway,
        onlink: hop.onlink,
        metric: hop.metric,
        route_mtu: hop.mtu,
        mtu: hop.mtu.map_or(link_mtu, |mtu| mtu.min(link_mtu)),
    })
}

fn next_hop(
    uplink: &Uplink,
    own_table: TableId,
    family: Family,
    seen: &Snapshot,
) -> Option<NextHop> {
    let device = &uplink.interface;
    match uplink.gateway_of(family) {
        Gateway::None => {
            Some(NextHop { gateway: None, metric: OWN_METRIC, mtu: None, onlink: false })
        }
        Gateway::Address(address) => Some(NextHop {
            gateway: Some(*address),
            metric: OWN_METRIC,
            mtu: None,
            onlink: needs_onlink(&seen.facts, device, *address),
        }),
        Gateway::Auto => learned(device, own_table, family, seen),
    }
}

/// The gateway of the kernel's default route through the device, whoever made it.
///
/// When another device's default has taken the place of ours (same table, same metric: a second
/// DHCP client that replaces routes), the gateway is still good; it stays, as our own table
/// remembers it, while the address that reaches it is there. A point-to-point device needs none.
fn learned(
    device: &IfName,
    own_table: TableId,
    family: Family,
    seen: &Snapshot,
) -> Option<NextHop> {
    let default = |route: &&Route| {
        route.is_default() && route.family() == family && route.kind == RouteKind::Unicast
    };
    let through = |route: &&Route| route.device.as_ref() == Some(device);
    let defaults = || seen.facts.routes.iter().filter(default);
    let rank = |route: &&Route| (route.table != MAIN, route.metric, route.table);
    let found = defaults().filter(through).min_by_key(rank);
    let hop = |route: &Route| NextHop {
        gateway: route.gateway,
        metric: route.metric,
        mtu: route.mtu,
        onlink: route.onlink
            || route.gateway.is_some_and(|gw| needs_onlink(&seen.facts, device, gw)),
    };
    if let Some(route) = found {
        return Some(hop(route));
    }
    let remembered = seen.ours.routes.iter().filter(|r| r.table == own_table).find(|r| default(r));
    let replaced = |ours: &&Route| {
        let taken = |other: &Route| other.table == MAIN && other.metric == ours.metric;
        let reachable = ours.gateway.is_none_or(|gw| !needs_onlink(&seen.facts, device, gw));
        through(ours) && reachable && defaults().any(taken)
    };
    if let Some(route) = remembered.filter(replaced) {
        return Some(hop(route));
    }
    let link = seen.facts.links.get(device)?;
    let point_to_point = link.point_to_point && !link.loopback;
    point_to_point.then_some(NextHop {
        gateway: None,
        metric: OWN_METRIC,
        mtu: None,
        onlink: false,
    })
}

/// Whether no address of the device has the gateway in its network.
fn needs_onlink(facts: &Facts, device: &IfName, gateway: IpAddr) -> bool {
    let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let covers = |a: &Address| {
        a.net.contains(&gateway) || a.peer.is_some_and(|peer| peer.contains(&gateway))
    };
    let family = Family::of(gateway);
    let routed = |route: &Route| {
        route.device.as_ref() == Some(device)
            && route.table == MAIN
            && route.gateway.is_none()
            && !route.is_default()
            && route.destination.contains(&gateway)
    };
    !link_local
        && !facts.addresses_of(device, family).any(covers)
        && !facts.routes.iter().any(routed)
}

/// The address that new sessions get: settled, global, in the gateway's network if one is, no
/// privacy or secondary address if there is another, and a globally routed one before a private one.
fn source_address(
    facts: &Facts,
    device: &IfName,
    family: Family,
    gateway: Option<IpAddr>,
) -> Option<IpAddr> {
    let good = |a: &&Address| a.global && !a.tentative && !a.deprecated;
    let rank = |a: &&Address| {
        let near = gateway.is_some_and(|gw| a.net.contains(&gw));
        (!near, a.temporary, is_local(a), a.net.addr())
    };
    facts.addresses_of(device, family).filter(good).min_by_key(rank).map(|a| a.net.addr())
}
