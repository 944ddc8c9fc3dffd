//! What keeps an uplink, or a LAN, from working though all its parts are there.

use std::net::IpAddr;

use super::networks::devices;
use super::{Case, Finding, error, warning};
use crate::kstate::{Address, Facts, Route, RouteKind, SysctlKey};
use crate::model::{Family, Gateway, IfName, Site, Uplink};

/// Whether the host forwards at all.
const FORWARD: &str = "net/ipv4/ip_forward";
/// Holds for every device, whatever its own says.
const PROXY_ARP: &str = "net/ipv4/conf/all/proxy_arp";

/// The settings that [`super::examine`] wants to see.
pub fn interesting_sysctls(site: &Site) -> Vec<SysctlKey> {
    let of = |device: &IfName| [forwarding(device), proxy_arp(device)];
    let general = [FORWARD, PROXY_ARP].map(|key| SysctlKey(key.to_owned()));
    general.into_iter().chain(devices(site).flat_map(|(_, device)| of(device))).collect()
}

fn forwarding(device: &IfName) -> SysctlKey {
    SysctlKey(format!("net/ipv4/conf/{device}/forwarding"))
}

fn proxy_arp(device: &IfName) -> SysctlKey {
    SysctlKey(format!("net/ipv4/conf/{device}/proxy_arp"))
}

pub(super) fn examine(case: Case<'_>, site: &Site, out: &mut Vec<Finding>) {
    let facts = &case.seen.facts;
    out.extend(not_forwarding(case, site));
    out.extend(site.uplinks.iter().filter_map(|uplink| answers_for_others(case, uplink)));
    for uplink in &site.uplinks {
        out.extend(Family::BOTH.iter().filter_map(|family| no_gateway(facts, uplink, *family)));
    }
    out.extend(same_addresses(site, facts));
    out.extend(resolvers_of_one(case, site));
}

/// Names come from one link alone: from its modem, mostly, as DHCP has it.
fn resolvers_of_one(case: Case<'_>, site: &Site) -> Option<Finding> {
    let behind = |resolver: &IpAddr| {
        let addresses = case.seen.facts.addresses.iter();
        let here = addresses.filter(|address| address.net.contains(resolver));
        let devices: Vec<&IfName> = here.map(|address| &address.device).collect();
        site.uplinks.iter().find(|uplink| devices.contains(&&uplink.interface))
    };
    let resolvers = &case.host.resolvers;
    let uplink = behind(resolvers.first()?)?;
    let alone = |one: &IpAddr| behind(one).is_some_and(|other| other.name == uplink.name);
    (site.uplinks.len() > 1 && resolvers.iter().all(alone)).then(|| {
        let message = format!(
            "whom this host asks for names ({}) is reached by uplink {} alone: without it nothing is found",
            resolvers[0], uplink.name
        );
        let remedy = "public resolvers in /etc/resolv.conf, or a resolver on this host (and in the DHCP clients' configuration, which may write them back)";
        warning("resolver-of-one", message, remedy)
    })
}

/// Forwarding may be off for one device alone; homing switches it on for all, when it is off for all.
fn not_forwarding(case: Case<'_>, site: &Site) -> Vec<Finding> {
    let value = |key: &SysctlKey| case.seen.ours.sysctls.get(key).map(String::as_str);
    if value(&SysctlKey(FORWARD.to_owned())) != Some("1") {
        return Vec::new();
    }
    let off = devices(site).filter(|(_, device)| value(&forwarding(device)) == Some("0"));
    let told = off.map(|(owner, device)| {
        let message = format!("{owner}: IPv4 forwarding is off for {device} alone: what comes in there goes nowhere");
        let remedy = format!(
            "`sysctl -w net/ipv4/conf/{device}/forwarding=1`, and look in /etc/sysctl.d and at the device's own configuration (networkd: `IPv4Forwarding=`) for what sets it"
        );
        error("forwarding-off", message, remedy)
    });
    told.collect()
}

/// Who has networks routed to him may have to answer for them.
fn answers_for_others(case: Case<'_>, uplink: &Uplink) -> Option<Finding> {
    let on = |key: &SysctlKey| case.seen.ours.sysctls.get(key).is_some_and(|value| value == "1");
    let own = proxy_arp(&uplink.interface);
    let all = SysctlKey(PROXY_ARP.to_owned());
    let key = [all, own].into_iter().find(|key| on(key)).filter(|_| uplink.prefixes.is_empty())?;
    let message = format!(
        "uplink {}: {}=1: the router answers ARP on {} for addresses of other networks, another uplink's gateway among them",
        uplink.name,
        key.0.replace('/', "."),
        uplink.interface
    );
    Some(warning("proxy-arp", message, format!("`sysctl -w {}=0`", key.0)))
}

/// An address from DHCP or RA without the default route that came with it: two clients that give
/// their routes the same metric replace each other's.
fn no_gateway(facts: &Facts, uplink: &Uplink, family: Family) -> Option<Finding> {
    let device = &uplink.interface;
    let link = facts.links.get(device)?;
    if !link.carrier || link.point_to_point || *uplink.gateway_of(family) != Gateway::Auto {
        return None;
    }
    let address = facts.addresses_of(device, family).find(|address| is_public(address))?;
    let leads = |route: &Route| {
        route.is_default()
            && route.family() == family
            && route.kind == RouteKind::Unicast
            && route.device.as_ref() == Some(device)
    };
    if facts.routes.iter().any(leads) {
        return None;
    }
    let (digit, key) = match family {
        Family::V4 => (4, "gateway"),
        Family::V6 => (6, "gateway6"),
    };
    let message = format!(
        "uplink {}: {device} has the address {}, but no IPv{digit} default route: homing cannot learn the gateway",
        uplink.name,
        address.net.addr()
    );
    let remedy = format!(
        "give the routes of each uplink a metric of their own (clients with equal ones replace each other's), or set `{key}` in the profile"
    );
    Some(warning("no-gateway", message, remedy))
}

/// An address with which the internet can be reached; in IPv4 that may be any.
fn is_public(address: &Address) -> bool {
    let local = matches!(address.net.addr(), IpAddr::V6(six) if six.is_unique_local());
    address.global && !address.tentative && !address.deprecated && !local
}

/// Two modems that hand out the same address.
fn same_addresses(site: &Site, facts: &Facts) -> Vec<Finding> {
    let has = |uplink: &Uplink, ip: IpAddr| {
        let mut addresses = facts.addresses.iter();
        addresses.any(|a| a.global && a.device == uplink.interface && a.net.addr() == ip)
    };
    let mut found = Vec::new();
    for (index, one) in site.uplinks.iter().enumerate() {
        for other in &site.uplinks[index + 1..] {
            let of_one = facts.addresses.iter().filter(|a| a.global && a.device == one.interface);
            let shared = of_one.map(|a| a.net.addr()).find(|ip| has(other, *ip));
            found.extend(shared.map(|ip| {
                let message = format!(
                    "uplinks {} and {} both have the address {ip}: what the router itself sends from it leaves by one of them alone",
                    one.name, other.name
                );
                let remedy = "renumber the inside of one of the two modems, or set it to bridge";
                warning("same-address", message, remedy)
            }));
        }
    }
    found
}
