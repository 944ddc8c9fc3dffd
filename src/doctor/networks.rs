//! Devices, networks and sizes of the site.

use ipnet::IpNet;

use super::rules::{DEFAULT, MAIN, Shown, family_option, takes_all};
use super::{Case, Finding, error, warning};
use crate::kstate::{Facts, Route, RouteKind, Rule, RuleAction};
use crate::model::{Family, IfName, Site, TableId};

/// No IPv6 link may carry less.
const LEAST_MTU: u32 = 1280;

/// A network and who has it.
struct Owned<'a> {
    net: IpNet,
    device: &'a IfName,
    owner: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uplink,
    Lan,
    Other,
}

pub(super) fn examine(case: Case<'_>, site: &Site, out: &mut Vec<Finding>) {
    let facts = &case.seen.facts;
    for (owner, device) in devices(site) {
        let Some(link) = facts.links.get(device) else {
            out.push(warning(
                "no-device",
                format!("{owner}: there is no device {device}"),
                "`ip link` shows what there is; a device that comes later is taken up then",
            ));
            continue;
        };
        if link.mtu < LEAST_MTU && has_ipv6(site, facts) {
            out.push(warning(
                "mtu",
                format!(
                    "{owner}: {device} has an MTU of {}: IPv6 needs {LEAST_MTU}, so the kernel has none there",
                    link.mtu
                ),
                format!("`ip link set {device} mtu 1280` or more, if the line carries it"),
            ));
        }
    }
    let networks = networks(site, facts);
    overlaps(&networks, out);
    taken_networks(case, &networks, out);
}

/// Every device of the profile, and whose it is.
pub(super) fn devices(site: &Site) -> impl Iterator<Item = (String, &IfName)> {
    let uplinks = site.uplinks.iter().map(|u| (format!("uplink {}", u.name), &u.interface));
    let lans = site.lans.iter().map(|lan| (format!("LAN {}", lan.name), &lan.interface));
    uplinks.chain(lans)
}

/// Whether the site uses IPv6 at all.
fn has_ipv6(site: &Site, facts: &Facts) -> bool {
    let global = |device| facts.addresses_of(device, Family::V6).any(|address| address.global);
    devices(site).any(|(_, device)| global(device))
}

fn networks<'a>(site: &'a Site, facts: &'a Facts) -> Vec<Owned<'a>> {
    let mut all = Vec::new();
    for address in facts.addresses.iter().filter(|address| address.global) {
        let device = &address.device;
        let uplink = site.uplinks.iter().find(|uplink| uplink.interface == *device);
        let lan = site.lans.iter().find(|lan| lan.interface == *device);
        let (owner, kind) = match (uplink, lan) {
            (Some(uplink), _) => (format!("uplink {} ({device})", uplink.name), Kind::Uplink),
            (_, Some(lan)) => (format!("LAN {} ({device})", lan.name), Kind::Lan),
            // Without `lans`, every other device is inside.
            _ if site.lans.is_empty() => (device.to_string(), Kind::Lan),
            _ => (device.to_string(), Kind::Other),
        };
        all.push(Owned { net: address.net.trunc(), device, owner, kind });
    }
    for lan in &site.lans {
        for net in &lan.networks {
            let owner = format!("LAN {} ({})", lan.name, lan.interface);
            all.push(Owned { net: net.trunc(), device: &lan.interface, owner, kind: Kind::Lan });
        }
    }
    // A single address is no network; what it stands for is behind its peer.
    all.retain(|owned| owned.net.prefix_len() < owned.net.max_prefix_len());
    all
}

fn overlaps(all: &[Owned<'_>], out: &mut Vec<Finding>) {
    let mut told: Vec<(&IfName, &IfName)> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            let pair = (one.device.min(other.device), one.device.max(other.device));
            let overlap = one.net.contains(&other.net) || other.net.contains(&one.net);
            // Two uplinks may share a subnet.
            let may = one.kind == other.kind && one.kind != Kind::Lan;
            if !overlap || may || one.device == other.device || told.contains(&pair) {
                continue;
            }
            told.push(pair);
            // A wide network around a narrow one loses that part; of a VPN it may be meant so.
            let wide = if one.net.prefix_len() <= other.net.prefix_len() { one } else { other };
            let nested = one.net != other.net && wide.kind == Kind::Other;
            let message = format!(
                "{} of {} overlaps {} of {}: the kernel knows one way for both",
                one.net, one.owner, other.net, other.owner
            );
            let remedy = "renumber one of them (a modem's LAN is the easiest)";
            out.push(match nested {
                true => warning("overlap", message, remedy),
                false => error("overlap", message, remedy),
            });
        }
    }
}

/// Networks of the site that another's rule leads elsewhere before the main table is asked, as
/// Tailscale does when another router offers a route to the same network.
fn taken_networks(case: Case<'_>, networks: &[Owned<'_>], out: &mut Vec<Finding>) {
    let facts = &case.seen.facts;
    for family in Family::BOTH {
        let all = |rule: &&Rule| rule.family == family && takes_all(rule);
        let mut rules: Vec<&Rule> = facts.rules.iter().filter(all).collect();
        rules.sort_by_key(|rule| rule.priority);
        for rule in rules {
            let RuleAction::Lookup(table) = rule.action else { continue };
            if rule.priority.0 >= case.routing().first_priority || table == MAIN {
                break;
            }
            if table != LOCAL && table != DEFAULT {
                let ours = networks.iter().filter(|owned| owned.kind != Kind::Other);
                out.extend(ours.filter_map(|owned| taken_network(facts, rule, table, owned)));
            }
        }
    }
}

/// `RT_TABLE_LOCAL`
const LOCAL: TableId = TableId(255);

fn taken_network(facts: &Facts, rule: &Rule, table: TableId, owned: &Owned<'_>) -> Option<Finding> {
    // What leads everywhere, or half there, is told as a bypass.
    let shortest = rule.suppress_prefix_length.map_or(2, |length| length.saturating_add(1).max(2));
    let takes = |route: &&Route| {
        route.table == table
            && route.kind == RouteKind::Unicast
            && u32::from(route.destination.prefix_len()) >= shortest
            && route.device.as_ref().is_some_and(|device| device != owned.device)
            && (route.destination.contains(&owned.net) || owned.net.contains(&route.destination))
    };
    let route = facts.routes.iter().find(takes)?;
    let device = route.device.as_ref().map(ToString::to_string).unwrap_or_default();
    let message = format!(
        "{} leads {} by {device}, and with it {} of {}",
        Shown(rule),
        route.destination,
        owned.net,
        owned.owner
    );
    let remedy = format!(
        "do not take that route (Tailscale: `tailscale set --accept-routes=false`), or put the main table's own routes first: `ip {}rule add pref {} lookup main suppress_prefixlength 0`",
        family_option(rule),
        rule.priority.0.saturating_sub(1)
    );
    Some(error("network-taken", message, remedy))
}
