//! The fast path: established sessions go from device to device past all rules.
//!
//! Packets that come in *by an uplink* put their session into the flowtable, and no others: they carry
//! no mark, so the kernel, which looks the way back up with the packet's own mark and bound to the device
//! that it came in by, finds the uplink's table for it, and the way to the inside is the one that the
//! packet itself takes. And only sessions of *that* uplink: one whose answers come in by another would
//! be moved there.
//!
//! Connections of servers with a limit stay with the rules: newer kernels (seen on 7.3) tell connection
//! tracking of their end only when the flowtable lets go of them, and their places must be free at once.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::build::{Builder, ONE_EACH, at_most, names, verdicts_of};
use super::matching::{anonymous_set, nets_of, word};
use crate::kstate::{
    ElementData, Elements, FLOWTABLE, FieldType, Flowtable, OFFLOAD_CHAIN, OFFLOAD_GATE,
    OFFLOAD_RULE, Role, Verdict, ifname_bytes,
};
use crate::model::Family;
use crate::plan::view::Layout;

/// In `forward`: a packet of an established session that came in by an uplink.
pub(super) fn rule() -> String {
    format!("{OFFLOAD_GATE} iifname vmap @{}", names::FAST)
}

/// What goes to a server with a limit.
fn limited(layout: &Layout, family: Family) -> Option<String> {
    let servers = layout.site.groups.values().flat_map(|group| &group.servers);
    let limited = servers.filter(|server| server.max_connections.is_some());
    let nets: BTreeSet<IpNet> = limited.map(|server| IpNet::from(server.address)).collect();
    let nets = nets_of(nets.iter(), family);
    let to = format!("{} daddr", word(family));
    (!nets.is_empty()).then(|| format!("{to} {} return", anonymous_set(&nets)))
}

/// The flowtable, if there is to be one, and what leads into it.
pub(super) fn add(table: &mut Builder, layout: &Layout, flowtable: Flowtable) {
    let mask = layout.site.marks.uplink;
    let taken: BTreeSet<_> = flowtable.devices.clone();
    table.flowtable(FLOWTABLE, flowtable);
    table.chain(OFFLOAD_CHAIN).rule(OFFLOAD_RULE, "fast-path");
    let mut elements = Elements::new();
    for (uplink, id) in layout.uplinks().filter(|(one, _)| taken.contains(&one.interface)) {
        let (chain, mark) = (names::fast(id, &uplink.name), layout.mark(id));
        table
            .chain(chain.clone())
            .rules(limited(layout, Family::V4), "groups")
            .rules(limited(layout, Family::V6), "groups")
            .rule(format!("ct mark & {mask} == {mark} goto {OFFLOAD_CHAIN}"), "fast-path");
        let verdict = ElementData::Verdict(Verdict::Jump(chain));
        elements.insert(ifname_bytes(&uplink.interface), verdict);
    }
    let shape = verdicts_of(&[FieldType::IfName]);
    table.set(names::FAST, Role::Fixed, shape, &at_most(ONE_EACH), elements);
}
