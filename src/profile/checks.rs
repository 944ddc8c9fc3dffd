//! What only the whole site shows: things used twice, weights and numbers that do not fit.

use std::collections::{BTreeMap, HashMap};

use crate::model::{
    Family, IfName, Lan, MarkLayout, MarkMask, Name, Policy, Service, UplinkId, Virtual,
    natural_id, weights,
};

use super::fields::Fields;
use super::finding::Findings;
use super::groups::Groups;
use super::overlap;
use super::tree::Node;
use super::uplinks::Uplinks;

/// Every section that another one is compared with.
pub(super) struct Sections<'t> {
    /// `uplinks`, where it is written.
    pub(super) section: Option<Node<'t>>,
    pub(super) uplinks: Uplinks<'t>,
    pub(super) lans: Vec<(Lan, Fields<'t>)>,
    pub(super) policies: Vec<(Policy, Node<'t>)>,
    pub(super) groups: Groups<'t>,
    pub(super) services: Vec<(Service, Fields<'t>)>,
    pub(super) marks: Option<(MarkLayout, Fields<'t>)>,
}

/// Looks at everything.
pub(super) fn check(all: &Sections<'_>, out: &mut Findings) {
    let layout = all.marks.as_ref().map_or_else(MarkLayout::default, |(layout, _)| *layout);
    let masks_fit_each_other = masks(all, out);
    if masks_fit_each_other {
        uplink_count(all, &layout, out);
        ids(all, &layout, out);
        server_counts(all, &layout, out);
        policy_count(all, &layout, out);
    }
    interfaces(all, out);
    overlap::lans(&all.lans, out);
    overlap::prefixes(&all.uplinks, out);
    zero_weights(all, out);
    families(all, out);
}

/// Holes, overlaps, and room for the least; whether all is well.
fn masks(all: &Sections<'_>, out: &mut Findings) -> bool {
    let Some((layout, fields)) = &all.marks else {
        return true;
    };
    let masks =
        [("uplink", layout.uplink, 2), ("server", layout.server, 1), ("policy", layout.policy, 1)];
    let mut good = true;
    for (index, &(key, mask, least)) in masks.iter().enumerate() {
        let node = fields.raw(key).unwrap_or(fields.node());
        let Some(width) = mask.width() else {
            let hint = "use adjacent bits, for example 0x3f00";
            out.error_with(node, format!("the mask `{mask}` has holes"), hint);
            good = false;
            continue;
        };
        if width < least {
            let hint = "an uplink needs two bits at least: one number stays reserved";
            out.error_with(node, format!("the mask `{mask}` is too narrow"), hint);
            good = false;
        }
        for &(other_key, other, _) in masks.iter().take(index) {
            if mask.0 & other.0 != 0 {
                let hint = "give each its own bits; the defaults are uplink 0x3f00, server 0xff, policy 0xff000000";
                let message =
                    format!("the mask `{mask}` overlaps that of `{other_key}`, `{other}`");
                out.error_with(node, message, hint);
                good = false;
            }
        }
    }
    good
}

fn uplink_count(all: &Sections<'_>, layout: &MarkLayout, out: &mut Findings) {
    let Some(node) = all.section else { return };
    let count = all.uplinks.uplinks.len();
    let most = layout.max_uplink_id();
    if count > most as usize {
        let hint = if most < MarkLayout::MAX_UPLINKS {
            format!("widen `marks.uplink`: `{}` has room for {most}", layout.uplink)
        } else {
            format!("{most} is the most that a site can have")
        };
        out.error_with(node, format!("{count} uplinks are too many"), hint);
    }
    if count == 1 && node.pairs().count() == 1 {
        let hint = "there is nothing to spread sessions over, and nothing to fail over to";
        out.warning(node, "only one uplink", hint);
    }
}

fn ids(all: &Sections<'_>, layout: &MarkLayout, out: &mut Findings) {
    let most = layout.max_uplink_id();
    let mut given: BTreeMap<UplinkId, &Name> = BTreeMap::new();
    let mut natural: BTreeMap<u32, &Name> = BTreeMap::new();
    for (uplink, fields) in all.uplinks.uplinks.iter().zip(&all.uplinks.nodes) {
        let node = fields.raw("id").unwrap_or(fields.node());
        let Some(id) = uplink.id else {
            let number = natural_id(uplink.name.as_str(), most);
            if let Some(other) = natural.insert(number, &uplink.name) {
                let message =
                    format!("`{}` and `{other}` ask for the same id, {number}", uplink.name);
                let hint = "which of them gets it depends on which came first; set `id:` to fix it";
                out.warning(node, message, hint);
            }
            continue;
        };
        if u32::from(id.0) > most {
            let hint = format!("from 1 to {most}, as `marks.uplink` has room for");
            out.error_with(node, format!("`{id}` is out of range"), hint);
        }
        if let Some(other) = given.insert(id, &uplink.name) {
            let hint = "give each uplink its own, or none";
            out.error_with(node, format!("uplink `{other}` has the id {id} too"), hint);
        }
    }
}

fn server_counts(all: &Sections<'_>, layout: &MarkLayout, out: &mut Findings) {
    for (group, node) in all.groups.values() {
        // More than 255 are told where the servers are read.
        if group.servers.len() <= 255 {
            fits(*node, group.servers.len(), "servers", ("server", layout.server), out);
        }
    }
}

fn policy_count(all: &Sections<'_>, layout: &MarkLayout, out: &mut Findings) {
    // One number is that of the implied policy. More than 254 are told where they are read.
    let count = all.policies.len() + 1;
    if let Some((_, fields)) = all.marks.as_ref().filter(|_| count <= 255) {
        let node = fields.raw("policy").unwrap_or(fields.node());
        let what = "policies (with the implied one)";
        fits(node, count, what, ("policy", layout.policy), out);
    }
}

fn fits(
    node: Node<'_>,
    count: usize,
    what: &str,
    (key, mask): (&str, MarkMask),
    out: &mut Findings,
) {
    if count > mask.max() as usize {
        let hint = format!("widen `marks.{key}`: `{mask}` has room for {}", mask.max());
        out.error_with(node, format!("{count} {what} are too many"), hint);
    }
}

fn interfaces(all: &Sections<'_>, out: &mut Findings) {
    let uplinks = all.uplinks.uplinks.iter().zip(&all.uplinks.nodes);
    let uplinks =
        uplinks.map(|(uplink, fields)| (&uplink.interface, "uplink", &uplink.name, fields));
    let lans = all.lans.iter().map(|(lan, fields)| (&lan.interface, "LAN", &lan.name, fields));
    let mut seen: HashMap<&IfName, (&str, &Name)> = HashMap::new();
    for (interface, what, name, fields) in uplinks.chain(lans) {
        let Some((other, other_name)) = seen.insert(interface, (what, name)) else {
            continue;
        };
        let node = fields.raw("interface").unwrap_or(fields.node());
        let message = format!("`{interface}` is the interface of {other} `{other_name}` too");
        out.error_with(node, message, "each uplink and LAN has an interface of its own");
    }
}

fn zero_weights(all: &Sections<'_>, out: &mut Findings) {
    let weights = weights(&all.uplinks.uplinks);
    let idle = |name: &Name| weights.get(name) == Some(&0);
    if let Some(node) = all.section.filter(|_| !weights.is_empty() && weights.keys().all(idle)) {
        let hint = "give one of them a weight: 0 takes no new sessions";
        out.error_with(node, "every uplink has the weight 0", hint);
        return;
    }
    for (policy, node) in &all.policies {
        let mut members = policy.tiers.iter().flatten().peekable();
        if members.peek().is_some() && members.all(idle) {
            let message = format!("every uplink of policy `{}` has the weight 0", policy.name);
            out.error_with(
                *node,
                message,
                "add an uplink that takes new sessions, or give one a weight",
            );
        }
    }
}

/// A virtual address whose family has no server is not served.
fn families(all: &Sections<'_>, out: &mut Findings) {
    for (service, fields) in &all.services {
        let Some((group, _)) = all.groups.get(&service.group) else {
            continue;
        };
        let served = |address| {
            let family = Family::of(address);
            group.servers.iter().any(|server| Family::of(server.address) == family)
        };
        for address in &service.virtuals {
            let Virtual::Address { address, .. } = address else {
                continue;
            };
            if group.servers.is_empty() || served(*address) {
                continue;
            }
            let node = fields.raw("virtual").unwrap_or(fields.node());
            let message = format!(
                "`{address}` is not served: group `{}` has no server of its family",
                group.name
            );
            out.warning(node, message, "add a server, or remove the address");
        }
    }
}
