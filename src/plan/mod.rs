//! From profile and facts to the desired state of the kernel, and from there to the change set.
//!
//! Pure. [`Layout`] numbers the profile's names; [`assess`] says what can be used now; [`build`]
//! writes down everything that must be in the kernel; [`diff`] says what is missing.

mod diff;
mod evacuate;
pub mod explain;
mod identity;
pub mod inbound;
mod lans;
mod limits;
mod mend;
mod nft;
pub mod offload;
mod path;
mod renewal;
mod routing;
mod standing;
mod steer;
mod sysctls;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::kstate::{KernelState, OwnAddress, Snapshot};
use crate::model::{Uplink, UplinkId};

pub use diff::{ChangeSet, Scope, diff, removal};
pub use evacuate::{Evacuation, Exit, Leaver, dismissed, is_dismissed};
pub use identity::{Identities, Remembered, identify};
pub use lans::inside_networks;
pub use limits::Limits;
pub use mend::{Entry, Flaw, Mend, Mender};
pub use nft::{
    address_hash, binding_shape, detour_key, detour_shape, measured_maps, names, observed_slots,
};
pub use path::{UplinkFacts, Way};
pub use renewal::{Learned, LearnedMap, Live, Renewals, renewal_period};
pub use routing::{PRIORITIES, TABLES};
pub use standing::{Admin, Dealt, GroupStanding, ServerStanding, Standing, Standings};
pub use steer::{Steering, steering_alone};
pub use sysctls::{interesting_sysctls, is_restored, restoring_order};
pub use view::{FormerPlaces, Layout, View, assess, assess_after, former_places, offered};

/// The addresses of services, each on its uplink's device.
fn build_addresses(layout: &Layout, view: &View) -> BTreeSet<OwnAddress> {
    let taken = |(uplink, _): (&Uplink, UplinkId)| {
        let facts = view.uplinks.get(&uplink.name);
        let own =
            |address: &IpAddr| OwnAddress { device: uplink.interface.clone(), address: *address };
        facts.into_iter().flat_map(|facts| &facts.taken).map(own).collect::<Vec<_>>()
    };
    layout.uplinks().flat_map(taken).collect()
}

/// Everything that must be in the kernel. `seen` gives the facts, and the slots dealt before.
pub fn build(layout: &Layout, view: &View, seen: &Snapshot) -> KernelState {
    KernelState {
        sysctls: sysctls::build_sysctls(layout, seen),
        addresses: build_addresses(layout, view),
        routes: routing::build_routes(layout, view, &seen.facts),
        rules: routing::build_rules(layout, view),
        nft: Some(Arc::new(nft::build_table(layout, view, seen))),
    }
}
