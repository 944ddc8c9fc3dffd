//! Whether established sessions can take the fast path.

use super::{Case, Finding, note};
use crate::model::{FastPath, Site};
use crate::plan::offload;

pub(super) fn examine(case: Case<'_>, site: &Site, out: &mut Vec<Finding>) {
    // Where something is missing nobody has asked the kernel, and that is told.
    if site.fast_path == FastPath::Off || case.seen.facts.offload.is_none() {
        return;
    }
    let fast = offload::wanted(site, &case.seen.facts);
    if let Some(reason) = fast.reason {
        out.push(note(
            "fast-path",
            format!(
                "sessions cannot go past the rules: {reason}; all works, each packet costs more"
            ),
            "a kernel with CONFIG_NF_FLOW_TABLE_INET and CONFIG_NFT_FLOW_OFFLOAD; or nothing",
        ));
        return;
    }
    let refused = case.seen.facts.offload.iter().flat_map(|offload| &offload.refused);
    for (device, why) in refused {
        out.push(note(
            "fast-path-device",
            format!("packets that come in by {device} always meet the rules: {why}"),
            "nothing: all works, but costs more",
        ));
    }
    if let Some(why) = fast.software {
        out.push(note(
            "fast-path-hardware",
            format!("network cards do not carry sessions: {why}"),
            "nothing, the kernel carries them; or `fast-path: auto` in the profile",
        ));
    }
}
