//! The nft table `inet homing`: its chains, sets and elements, built from the layout and the view.
//!
//! A packet's walk (design, section 4): `prerouting` restores the mark of a session that has one
//! (the whole cost of an established session) and sends a new one from inside through `classify`
//! to the policies; a chain `uplink-ID-NAME` puts the mark on the packet; `postrouting` translates
//! the source. Names of chains tell ids, so that they can be read back from the kernel.

mod bindings;
mod build;
mod dispatch;
mod elements;
mod fast;
mod filter;
mod matching;
mod nat;
mod places;
mod policies;
mod prerouting;
mod servers;
mod services;
mod slots;
mod vpn;

use crate::kstate::{Declared, FLOWTABLE, NftOp, NftTable, OFFLOAD_CHAIN, Role, Snapshot};

use super::offload;
use super::view::{Layout, View};

pub(super) use bindings::{BindingKey, key_of};
pub use bindings::{address_hash, binding_shape};
pub(super) use build::mark_bytes;
pub use build::names;
pub(super) use elements::address_bytes;
pub use elements::{detour_key, detour_shape};
#[cfg(test)]
pub(super) use places::places_shape;
pub(super) use policies::SOURCE_SEED;
pub(super) use servers::steer;
#[cfg(test)]
pub(super) use services::counted_shape;
pub(super) use services::{CLIENT_SEED, COUNTED_SEEDS};
use slots::build_steering;
pub(super) use slots::{
    SteeringSet, build_keepable, build_slots, slot_counts, slot_map, slot_maps,
};
pub use slots::{measured_maps, observed_slots};

/// Builds the whole table. `seen` gives addresses, and the slots dealt before, of which as few as
/// possible move.
pub(super) fn build_table(layout: &Layout, view: &View, seen: &Snapshot) -> NftTable {
    let mut table = build::Builder::default();
    elements::add_sets(&mut table, layout, view);
    prerouting::add_chains(&mut table, layout, view, seen);
    policies::add_chains(&mut table, layout);
    add_steering(&mut table, layout, view, seen);
    nat::add_chains(&mut table, layout);
    let flowtable = offload::wanted(&layout.site, &seen.facts).flowtable(&seen.ours.sysctls);
    filter::add_chains(&mut table, layout, flowtable.is_some());
    if let Some(flowtable) = flowtable {
        fast::add(&mut table, layout, flowtable);
    }
    places::add_sets(&mut table, layout, view);
    services::add_chains(&mut table, layout, view, seen);
    vpn::add_chains(&mut table, layout, view);
    table.finish()
}

/// What makes a table that is there let nothing through to the uplinks.
pub(super) fn closing(table: &NftTable) -> Option<Vec<NftOp>> {
    let there = table.chains.contains_key("forward") && table.sets.contains_key(names::UPLINKS);
    there.then(|| {
        let chain = "forward".to_owned();
        let rule = Declared::new(format!("oifname @{} drop", names::UPLINKS), "");
        let mut ops = vec![NftOp::FlushChain(chain.clone())];
        // What goes past the rules would not meet that one.
        if table.flowtables.contains_key(FLOWTABLE) {
            let offload = OFFLOAD_CHAIN.to_owned();
            ops.extend(
                table.chains.contains_key(OFFLOAD_CHAIN).then_some(NftOp::FlushChain(offload)),
            );
            ops.push(NftOp::DeleteFlowtable(FLOWTABLE.to_owned()));
        }
        ops.push(NftOp::AddRule { chain, rule });
        ops
    })
}

fn add_steering(table: &mut build::Builder, layout: &Layout, view: &View, seen: &Snapshot) {
    let observed = seen.ours.nft.as_ref();
    let previous = |name: &str| Some(&observed?.sets.get(name)?.elements);
    for (name, set) in build_steering(layout, view, previous) {
        let size = if name.starts_with("slots") { build::SLOT_ELEMENTS } else { build::ONE_EACH };
        table.set(name, Role::Steering, set.shape, &build::at_most(size), set.elements);
    }
}
