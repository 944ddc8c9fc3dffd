//! What of this host services cannot do with.

use super::{Case, Finding, note, warning};
use crate::model::{Site, Virtual};

/// The first kernel that keeps by whom an address was added (`IFA_PROTO`).
const TELLS_WHOSE: (u32, u32) = (5, 18);

pub(super) fn examine(case: Case<'_>, site: &Site, out: &mut Vec<Finding>) {
    if site.services.is_empty() {
        return;
    }
    if case.host.bridge_filtered {
        out.push(note(
            "bridge-filtered",
            "what passes a bridge of this host passes the rules for IP too: a server behind a bridge cannot reach itself by its virtual address",
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
