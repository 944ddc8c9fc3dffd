//! Filters: what may come in by the uplinks, what must not leave, and the greatest segment.

use super::build::{Builder, Rules, names};
use super::fast;
use super::matching::{join, protocols_and_ports};
use crate::model::{Allow, AllowTarget, Family, Firewall, ForwardPolicy, InputPolicy, Site};
use crate::plan::view::Layout;

const FORWARD: &str = "type filter hook forward priority filter; policy accept;";
const INPUT: &str = "type filter hook input priority filter; policy accept;";

pub(super) fn add_chains(table: &mut Builder, layout: &Layout, offloads: bool) {
    add_forward(table, &layout.site.firewall, &layout.site, offloads);
    add_segments(table);
    if layout.site.firewall.input == InputPolicy::Closed {
        add_input(table, &layout.site.firewall, &layout.site);
    }
}

/// Established packets leave at the second rule, or the third.
fn add_forward(table: &mut Builder, firewall: &Firewall, site: &Site, offloads: bool) {
    let uplinks = names::UPLINKS;
    let mut rules = table.hook("forward", FORWARD);
    rules
        .rule("tcp flags & (syn | rst) == syn jump segment", "")
        .rules(offloads.then(fast::rule), "fast-path")
        .rule("ct state established,related accept", "")
        .rule(format!("oifname @{uplinks} ct state invalid drop"), "");
    if firewall.forward == ForwardPolicy::Closed {
        rules.rule(format!("iifname @{uplinks} goto from-internet"), "firewall.forward");
        let mut rules = table.chain("from-internet");
        rules.rule("ct status dnat accept", "");
        add_allowed(&mut rules, firewall, site, false);
        rules.rule("drop", "firewall.forward");
    }
}

/// Both directions: what a client announces to the internet, and what a server answers.
fn add_segments(table: &mut Builder) {
    let mut rules = table.chain("segment");
    for (family, protocol) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
        let map = names::segment(family);
        for direction in ["oifname", "iifname"] {
            let set = format!("tcp option maxseg size set {direction} map @{map}");
            rules.rule(format!("meta nfproto {protocol} {set}"), "");
        }
    }
}

fn add_input(table: &mut Builder, firewall: &Firewall, site: &Site) {
    let mut rules = table.hook("input", INPUT);
    let origin = "firewall.input";
    rules
        .rule(format!("iifname != @{} accept", names::UPLINKS), origin)
        .rule("ct state established,related accept", origin)
        .rule("meta l4proto { icmp, ipv6-icmp, igmp } accept", origin)
        .rule("udp sport 67 udp dport 68 accept", origin)
        .rule("udp dport 546 accept", origin);
    add_allowed(&mut rules, firewall, site, true);
    rules.rule("drop", origin);
}

fn add_allowed(rules: &mut Rules<'_>, firewall: &Firewall, site: &Site, to_router: bool) {
    for (number, allow) in firewall.allow.iter().enumerate() {
        if allow.to == AllowTarget::Router && !to_router {
            continue;
        }
        for family in Family::BOTH {
            if let Some(condition) = allow_condition(allow, site, family) {
                rules.rule(
                    join([condition, "accept".to_owned()]),
                    &format!("firewall.allow[{number}]"),
                );
            }
        }
    }
}

fn allow_condition(allow: &Allow, site: &Site, family: Family) -> Option<String> {
    let device = match &allow.uplink {
        Some(name) => format!("iifname \"{}\"", site.uplink(name)?.interface),
        None => format!("iifname @{}", names::UPLINKS),
    };
    let target = match (allow.to, family) {
        (AllowTarget::Net(net), Family::V4) if net.addr().is_ipv4() => format!("ip daddr {net}"),
        (AllowTarget::Net(net), Family::V6) if net.addr().is_ipv6() => format!("ip6 daddr {net}"),
        (AllowTarget::Net(_), _) => return None,
        (AllowTarget::Any | AllowTarget::Router, Family::V4) => "meta nfproto ipv4".to_owned(),
        (AllowTarget::Any | AllowTarget::Router, Family::V6) => "meta nfproto ipv6".to_owned(),
    };
    Some(join([device, target, protocols_and_ports(&allow.protocols, &allow.ports, family)]))
}
