//! Rules and routes: how a mark, a device or a source address leads to an uplink's table.
//!
//! Every packet walks the rules in order, so the common case stands first (design, section 4).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::path::{MAIN, UplinkFacts, Way};
use super::view::{Layout, View};
use crate::kstate::{Facts, OUR_PROTOCOL, Route, RouteKind, Rule, RuleAction};
use crate::model::{Family, IfName, Mark, RulePriority, TableId, Uplink, UplinkId};

/// Offsets from the first priority of our range.
mod offset {
    pub(super) const UNMARKED_SPECIFIC: u32 = 0;
    pub(super) const RESERVED_SPECIFIC: u32 = 63;
    pub(super) const RESERVED_END: u32 = 64;
    pub(super) const DEVICE: u32 = 100;
    pub(super) const SOURCE: u32 = 200;
    pub(super) const FLOOR: u32 = 300;
    pub(super) const ROUTER: u32 = 301;
}

/// How many priorities from the first on are ours.
pub const PRIORITIES: u32 = 400;

/// How many tables from the first on are ours.
pub const TABLES: u32 = 64;

/// The metric of the `unreachable` default that ends each uplink's table.
const LAST: u32 = u32::MAX;

/// Added to the metric of uplinks that are not usable, in the table of the router's own traffic.
const NOT_USABLE: u32 = 1_000_000;

/// The metric that a route has when its uplink is usable, of one that is not, and the other way.
pub(super) fn other_metric(metric: u32) -> u32 {
    if metric < NOT_USABLE { metric + NOT_USABLE } else { metric - NOT_USABLE }
}

/// All rules.
pub(super) fn build_rules(layout: &Layout, view: &View) -> BTreeSet<Rule> {
    Family::BOTH.into_iter().flat_map(|family| family_rules(layout, view, family)).collect()
}

fn family_rules(layout: &Layout, view: &View, family: Family) -> Vec<Rule> {
    let mask = layout.site.marks.uplink;
    let reserved = layout.site.marks.reserved();
    let first = layout.site.routing.first_priority;
    let rule = |offset: u32, mark: Option<Mark>, action: RuleAction| Rule {
        priority: RulePriority(first + offset),
        family,
        invert: false,
        mark: mark.map(|mark| (mark, mask)),
        source: None,
        input: None,
        output: None,
        action,
        suppress_prefix_length: None,
        protocol: OUR_PROTOCOL,
        has_more: false,
    };
    let main = RuleAction::Lookup(MAIN);
    let specific =
        |offset, mark| Rule { suppress_prefix_length: Some(0), ..rule(offset, Some(mark), main) };
    let mut rules = vec![
        specific(offset::UNMARKED_SPECIFIC, Mark(0)),
        specific(offset::RESERVED_SPECIFIC, reserved),
        rule(offset::RESERVED_END, Some(reserved), RuleAction::Unreachable),
        Rule { invert: true, ..rule(offset::FLOOR, Some(Mark(0)), RuleAction::Unreachable) },
        rule(offset::ROUTER, None, RuleAction::Lookup(layout.default_table())),
    ];
    for (uplink, id) in layout.uplinks() {
        let table = RuleAction::Lookup(layout.table(id));
        let number = u32::from(id.0);
        rules.push(rule(number, Some(layout.mark(id)), table));
        let output = Some(uplink.interface.clone());
        rules.push(Rule { output, ..rule(offset::DEVICE + number, None, table) });
        for source in own_sources(uplink, view.uplinks.get(&uplink.name), family) {
            let source = Some(source);
            rules.push(Rule { source, ..rule(offset::SOURCE + number, None, table) });
        }
    }
    rules
}

/// Sources that belong to an uplink: its addresses, those that we take for services too, and the networks that its ISP routes to us.
fn own_sources(uplink: &Uplink, facts: Option<&UplinkFacts>, family: Family) -> BTreeSet<IpNet> {
    let addresses = facts.into_iter().flat_map(UplinkFacts::own_addresses);
    let hosts = addresses.map(IpNet::from);
    let all = hosts.chain(uplink.prefixes.iter().copied());
    all.filter(|net| Family::of_net(net) == family).collect()
}

/// All routes.
pub(super) fn build_routes(layout: &Layout, view: &View, facts: &Facts) -> BTreeSet<Route> {
    let mut routes = BTreeSet::new();
    for (position, (uplink, id)) in layout.uplinks().enumerate() {
        let Some(state) = view.uplinks.get(&uplink.name) else {
            continue;
        };
        routes.extend(Family::BOTH.map(|family| end_of_table(layout.table(id), family)));
        if state.up {
            routes.extend(specific_routes(layout, uplink, id, facts));
        }
        for (family, way) in &state.ways {
            let device = &uplink.interface;
            routes.insert(default_route(layout.table(id), *family, device, way, way.metric));
            let penalty = if view.usable(&uplink.name, *family) { 0 } else { NOT_USABLE };
            let metric = u32::try_from(position).unwrap_or(0) + 1 + penalty;
            let table = layout.default_table();
            routes.insert(default_route(table, *family, device, way, metric));
        }
    }
    routes
}

fn end_of_table(table: TableId, family: Family) -> Route {
    Route {
        table,
        destination: family.any(),
        kind: RouteKind::Unreachable,
        gateway: None,
        device: None,
        source: None,
        metric: LAST,
        mtu: None,
        onlink: false,
        protocol: OUR_PROTOCOL,
    }
}

fn default_route(table: TableId, family: Family, device: &IfName, way: &Way, metric: u32) -> Route {
    Route {
        table,
        destination: family.any(),
        kind: RouteKind::Unicast,
        gateway: way.gateway,
        device: Some(device.clone()),
        source: Some(way.address),
        metric: if family == Family::V6 { metric.max(1) } else { metric },
        mtu: way.route_mtu,
        onlink: way.onlink,
        protocol: OUR_PROTOCOL,
    }
}

/// Copies of the main table's routes through the uplink that lead to less than everywhere.
fn specific_routes(
    layout: &Layout,
    uplink: &Uplink,
    id: UplinkId,
    facts: &Facts,
) -> impl Iterator<Item = Route> {
    let table = layout.table(id);
    let device = uplink.interface.clone();
    let specific = move |route: &&Route| {
        route.table == MAIN
            && route.kind == RouteKind::Unicast
            && route.device.as_ref() == Some(&device)
            && !route.is_default()
            && !is_multicast(route.destination.addr())
    };
    let copy = move |route: &Route| Route { table, protocol: OUR_PROTOCOL, ..route.clone() };
    facts.routes.iter().filter(specific).map(copy).collect::<Vec<_>>().into_iter()
}

fn is_multicast(address: IpAddr) -> bool {
    address.is_multicast()
}
