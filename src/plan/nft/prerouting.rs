//! The way of a packet before routing: restore, classify, and what came in by an uplink.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::build::{Builder, names};
use super::matching::{anonymous_set, nets_of};
use super::vpn;
use crate::kstate::{Facts, KNOCKING, Object, Route, Snapshot};
use crate::model::{Family, IfName, NatMode, TableId};
use crate::plan::lans::inside_networks;
use crate::plan::view::{Layout, View};

/// The main table.
const MAIN: TableId = TableId(254);

const HOOK: &str = "type filter hook prerouting priority mangle; policy accept;";

pub(super) fn add_chains(table: &mut Builder, layout: &Layout, view: &View, seen: &Snapshot) {
    add_prerouting(table, layout);
    add_from_uplink(table, layout, &inside_networks(layout, view, &seen.facts));
    add_classify(table, layout, &seen.facts);
    add_uplink_chains(table, layout);
    add_output(table, layout);
    add_untracked(table, layout);
}

fn add_prerouting(table: &mut Builder, layout: &Layout) {
    let uplink = layout.site.marks.uplink;
    table
        .hook("prerouting", HOOK)
        .rule(format!("iifname @{} goto from-uplink", names::UPLINKS), "")
        .rule(format!("ct mark & {uplink} != 0 goto restore-mark"), "")
        .rule("ct state != new goto unpinned", "")
        .rule("meta pkttype != host accept", "")
        .rule("icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect } accept", "")
        .rule("fib daddr type unicast goto classify", "");
    // A session that has left its uplink has a policy still, and no uplink (`plan/evacuate.rs`). Only
    // what comes from inside gets here: the client, or the host behind a port forward.
    let policy = layout.site.marks.policy;
    table
        .chain("unpinned")
        .rule(format!("ct mark & {policy} != 0 meta l4proto tcp reject with tcp reset"), "")
        .rule("accept", "");
    table
        .chain("restore-mark")
        .rule(format!("meta mark 0 meta mark set ct mark & {uplink} accept"), "")
        .rule(format!("ct mark & {uplink} vmap @{}", names::RESTORE), "")
        .rule(format!("meta mark set meta mark | {uplink}"), "");
}

/// A packet that came in by an uplink never gets a packet mark.
fn add_from_uplink(table: &mut Builder, layout: &Layout, inside: &BTreeSet<IpNet>) {
    let uplink = layout.site.marks.uplink;
    let mut rules = table.chain("from-uplink");
    rules.rule("meta ipsec exists accept", "");
    for (family, word) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let nets = nets_of(inside.iter(), family);
        if !nets.is_empty() {
            rules.rule(format!("{word} saddr {} drop", anonymous_set(&nets)), "lans");
        }
    }
    rules
        .rule(format!("ct mark & {uplink} != 0 accept"), "")
        .rules(ended_services(layout), "services")
        .rule(format!("ct mark & {} != 0 drop", layout.site.marks.policy), "")
        .rule("meta pkttype != host accept", "")
        .rule(format!("iifname vmap @{}", names::ENTRY), "");
}

/// The client of a service whose session has left its server is told so.
fn ended_services(layout: &Layout) -> Option<String> {
    let marks = layout.site.marks;
    (!layout.site.services.is_empty()).then(|| {
        format!(
            "ct mark & {} != 0 ct mark & {} != 0 ct direction original meta l4proto tcp reject \
             with tcp reset",
            marks.policy, marks.server
        )
    })
}

/// A new session from inside: a specific route through an uplink pins it there; a route to another
/// device is not ours; what has no route but a default is for the policies.
fn add_classify(table: &mut Builder, layout: &Layout, facts: &Facts) {
    layout.site.helpers.iter().for_each(|helper| table.object(Object::Helper(*helper)));
    let uplink = layout.site.marks.uplink;
    let others = !uplink.0;
    table
        .chain("classify")
        .rule(format!("meta mark set meta mark | {uplink}"), "")
        .rule("fib daddr . mark oif missing goto to-internet", "")
        .rules(default_found(facts), "")
        .rule(format!("fib daddr . mark oifname vmap @{}", names::ROUTED), "")
        .rule(format!("meta mark set meta mark & {others:#x} accept"), "");
    let mut rules = table.chain("to-internet");
    rules.rule(format!("meta mark set meta mark & {others:#x}"), "");
    for helper in &layout.site.helpers {
        let (transport, port, name) = (helper.transport(), helper.port(), helper.as_str());
        rules.rule(format!("{transport} dport {port} ct helper set \"{name}\""), "helpers");
    }
    vpn::add_turn(&mut rules, layout);
    for (member, id) in layout.uplinks().filter(|(u, _)| u.nat != NatMode::Always) {
        for (family, word) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
            let nets = nets_of(member.prefixes.iter(), family);
            if !nets.is_empty() {
                let origin = format!("uplinks.{}.prefixes", member.name);
                let chain = names::pin(id, &member.name);
                let set = anonymous_set(&nets);
                rules.rule(format!("{word} saddr {set} goto {chain}"), &origin);
            }
        }
    }
    let foreign = !layout.site.marks.ours();
    rules
        .rule(format!("ct mark & {foreign:#x} != 0 meta mark & {others:#x} == 0 goto carry"), "")
        .rule("meta nfproto ipv4 goto policies4", "policies")
        .rule("meta nfproto ipv6 goto policies6", "policies");
    add_carry(table, layout);
}

/// On newer kernels (seen on 7.3) `fib` of IPv6 does not heed `suppress_prefixlength`, and finds a default
/// route where there is no other. The route that was found is that one if it leads to a device of a default, and no
/// other route through such a device covers the destination.
fn default_found(facts: &Facts) -> Option<String> {
    let main = || {
        let six = |route: &&Route| route.table == MAIN && route.family() == Family::V6;
        facts.routes.iter().filter(six)
    };
    let defaults = main().filter(|route| route.is_default());
    let devices: BTreeSet<&IfName> = defaults.filter_map(|route| route.device.as_ref()).collect();
    let through = |route: &&Route| route.device.as_ref().is_some_and(|one| devices.contains(one));
    let specific = main().filter(|route| !route.is_default()).filter(through);
    let nets = nets_of(specific.map(|route| &route.destination), Family::V6);
    let elsewhere = match nets.is_empty() {
        true => "meta nfproto ipv6".to_owned(),
        false => format!("ip6 daddr != {}", anonymous_set(&nets)),
    };
    let devices: Vec<String> = devices.iter().map(|device| format!("\"{device}\"")).collect();
    let found = || format!("fib daddr . mark oifname {}", anonymous_set(&devices));
    (!devices.is_empty()).then(|| format!("{elsewhere} {} goto to-internet", found()))
}

/// Other owners' bits of the connection mark, on the first packet of a session: policies need the
/// whole mark (`policies.rs`), so those bits ride in the packet mark meanwhile, if that is empty, and
/// go back.
fn add_carry(table: &mut Builder, layout: &Layout) {
    let marks = layout.site.marks;
    let (uplink, foreign) = (marks.uplink, !marks.ours());
    table
        .chain("carry")
        .rule(format!("meta mark set ct mark & {foreign:#x}"), "")
        .rule("meta nfproto ipv4 jump policies4", "policies")
        .rule("meta nfproto ipv6 jump policies6", "policies")
        .rule(format!("ct mark & {} vmap @{}", marks.policy, names::CARRIED), "");
    for (policy, id) in layout.policies() {
        table
            .chain(names::carried(id, &policy.name))
            .rule(
                format!(
                    "ct mark set meta mark & {:#x} | {}",
                    foreign | uplink.0,
                    layout.policy_mark(id)
                ),
                "",
            )
            .rule(format!("meta mark set meta mark & {uplink}"), "");
    }
}

fn add_uplink_chains(table: &mut Builder, layout: &Layout) {
    let others = !layout.site.marks.uplink.0;
    for (uplink, id) in layout.uplinks() {
        let origin = format!("uplinks.{}", uplink.name);
        let mark = layout.mark(id);
        let chain = names::uplink(id, &uplink.name);
        table
            .chain(chain.clone())
            .rule(format!("meta mark set meta mark & {others:#x} | {mark}"), &origin);
        table
            .chain(names::pin(id, &uplink.name))
            .rule(format!("ct mark set ct mark & {others:#x} | {mark} goto {chain}"), &origin);
        table
            .chain(names::entry(id, &uplink.name))
            .rule(format!("ct mark set ct mark & {others:#x} | {mark}"), &origin);
    }
}

/// The router's own packets of a pinned session. Only a `route` chain looks the route up again;
/// only towards an uplink, or the RST that `reject` sends to a LAN client would leave by a dead
/// uplink.
fn add_output(table: &mut Builder, layout: &Layout) {
    let uplink = layout.site.marks.uplink;
    let mut rules = table.hook("output", "type route hook output priority mangle; policy accept;");
    rules.rule(
        format!(
            "oifname @{} ct mark & {uplink} != 0 meta mark & {uplink} == 0 goto restore-mark",
            names::UPLINKS
        ),
        "",
    );
    // A flow of the router's own whose address is that of a dead uplink (`daemon/evacuator.rs`).
    for (family, word) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let key = format!("{word} saddr . udp sport . {word} daddr . udp dport");
        let map = names::detour(family);
        let rule =
            format!("oifname @{} meta mark 0 meta mark set {key} map @{map}", names::UPLINKS);
        rules.rule(rule, "");
    }
}

/// Segments that make a client of an ended connection speak carry the reserved mark. They are none of
/// a session's, and never leave by an uplink.
fn add_untracked(table: &mut Builder, layout: &Layout) {
    let (uplink, reserved) = (layout.site.marks.uplink, layout.site.marks.reserved());
    let mut rules = table.hook("untracked", "type filter hook output priority raw; policy accept;");
    if !layout.site.services.is_empty() {
        // To clients of services, who are behind the uplinks.
        let (major, minor) = (KNOCKING >> 16, KNOCKING & 0xffff);
        rules.rule(format!("meta priority {major:x}:{minor:x} notrack accept"), "services");
    }
    rules
        .rule(format!("meta mark & {uplink} != {reserved} accept"), "")
        .rule(format!("oifname @{} drop", names::UPLINKS), "")
        .rule("notrack", "");
}
