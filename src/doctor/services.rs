//! What of this host services cannot do with.

use super::{Case, Finding, note, warning};
use crate::model::{IfName, Site, Virtual};

/// The first kernel that keeps by whom an address was added (`IFA_PROTO`).
const TELLS_WHOSE: (u32, u32) = (5, 18);

pub(super) fn examine(case: Case<'_>, site: &Site, out: &mut Vec<Finding>) {
    if site.services.is_empty() {
        return;
    }
    let leads_to_server = |bridge: &&IfName| {
        let here = case.seen.facts.addresses.iter().filter(|address| address.device == **bridge);
        let nets: Vec<_> = here.map(|address| address.net).collect();
        let mut servers = site.groups.values().flat_map(|group| &group.servers);
        servers.any(|server| nets.iter().any(|net| net.contains(&server.address)))
    };
    if let Some(bridge) = case.host.filtered_bridges.iter().find(leads_to_server) {
        out.push(note(
            "bridge-filtered",
            format!("what passes the bridge {bridge} passes the rules for IP too: a server behind it cannot reach itself by its virtual address"),
            "`sysctl net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0` (containers may want them); or nothing",
        ));
    }
    let taken = site.services.iter().flat_map(|service| &service.virtuals);
    let takes = taken.into_iter().any(|at| matches!(at, Virtual::Address { .. }));
    if let Some((major, minor)) = case.host.kernel.filter(|kernel| takes && *kernel < TELLS_WHOSE) {
        out.push(warning(
            "addresses-not-told",
            format!(
                "Linux {major}.{minor} does not keep by whom an address was added: homing takes virtual addresses, but neither finds them in place nor gives them up"
            ),
            "a kernel from 5.18 on; or addresses that the uplink has itself (`virtual: [UPLINK]`)",
        ));
    }
}
