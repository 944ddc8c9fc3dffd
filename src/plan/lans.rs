//! Which networks are inside.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::view::{Layout, View};
use crate::kstate::Facts;
use crate::model::IfName;

/// The networks whose addresses may never arrive as a source by an uplink: those of the LANs, or,
/// without LANs in the profile, of every interface that is no uplink. An uplink's own subnet is
/// never inside, whatever an interface says.
pub fn inside_networks(layout: &Layout, view: &View, facts: &Facts) -> BTreeSet<IpNet> {
    let mut inside = BTreeSet::new();
    if layout.site.lans.is_empty() {
        let uplink = |device: &IfName| layout.site.uplinks.iter().any(|u| &u.interface == device);
        let devices = facts.links.iter().filter(|(name, link)| !link.loopback && !uplink(name));
        inside.extend(devices.flat_map(|(name, _)| networks_of(facts, name)));
    }
    for lan in &layout.site.lans {
        inside.extend(lan.networks.iter().copied());
        if lan.networks.is_empty() {
            inside.extend(networks_of(facts, &lan.interface));
        }
    }
    let outside: Vec<_> = view.uplinks.values().flat_map(|u| u.addresses.iter()).collect();
    inside.retain(|net| !outside.iter().any(|address| net.contains(*address)));
    inside
}

fn networks_of(facts: &Facts, device: &IfName) -> impl Iterator<Item = IpNet> {
    let here = facts.addresses.iter().filter(|a| a.global && &a.device == device);
    here.map(|a| a.net.trunc()).collect::<Vec<_>>().into_iter()
}
