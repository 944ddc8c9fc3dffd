//! Policies that can never match, because an earlier one takes everything that they would.
//!
//! Sound, not complete: a policy that only several earlier ones together cover is not told.

use ipnet::IpNet;

use crate::model::{Match, Policy, PortRange};

use super::finding::Findings;
use super::tree::Node;

/// A match in a form that is quick to compare: networks and ports merged and sorted.
struct Normal<'p> {
    matches: &'p Match,
    from: Vec<IpNet>,
    to: Vec<IpNet>,
    ports: Vec<PortRange>,
}

/// Warns of each such policy.
pub(super) fn check(policies: &[(Policy, Node<'_>)], out: &mut Findings) {
    let normal: Vec<Normal<'_>> = policies.iter().map(|(policy, _)| normal(policy)).collect();
    for (index, (policy, node)) in policies.iter().enumerate() {
        let Some(later) = normal.get(index) else {
            continue;
        };
        let Some(found) = normal.iter().take(index).position(|earlier| covers(earlier, later))
        else {
            continue;
        };
        if let Some((earlier, at)) = policies.get(found) {
            let (line, _) = at.place();
            let message = format!(
                "policy `{}` can never match: `{}` before it takes everything that it would",
                policy.name, earlier.name
            );
            let hint =
                format!("the first match wins: move it before `{}` (line {line})", earlier.name);
            out.warning(*node, message, hint);
        }
    }
}

fn normal(policy: &Policy) -> Normal<'_> {
    let matches = &policy.matches;
    let merged = |nets: &Vec<IpNet>| {
        let mut nets = IpNet::aggregate(nets);
        nets.sort_unstable();
        nets
    };
    Normal {
        matches,
        from: merged(&matches.from_nets),
        to: merged(&matches.to),
        ports: merged_ports(&matches.ports),
    }
}

/// Whether everything that `later` matches, `earlier` matches too.
fn covers(earlier: &Normal<'_>, later: &Normal<'_>) -> bool {
    sources(earlier, later)
        && (earlier.to.is_empty() || nets(&earlier.to, &later.to))
        && listed(&earlier.matches.protocols, &later.matches.protocols)
        && listed(&earlier.matches.dscp, &later.matches.dscp)
        && ports(&earlier.ports, &later.ports)
}

fn sources(earlier: &Normal<'_>, later: &Normal<'_>) -> bool {
    let (e, l) = (earlier.matches, later.matches);
    let unrestricted = e.from_lans.is_empty() && e.from_nets.is_empty();
    if unrestricted || is_everything(&earlier.from) {
        return true;
    }
    let restricted = !(l.from_lans.is_empty() && l.from_nets.is_empty());
    restricted
        && l.from_lans.iter().all(|lan| e.from_lans.contains(lan))
        && (later.from.is_empty() || nets(&earlier.from, &later.from))
}

fn is_everything(nets: &[IpNet]) -> bool {
    nets.len() == 2 && nets.iter().all(|net| net.prefix_len() == 0)
}

/// Whether each of `inner` (all addresses, when it is empty) lies inside one of `outer`.
fn nets(outer: &[IpNet], inner: &[IpNet]) -> bool {
    if inner.is_empty() {
        return is_everything(outer);
    }
    // Merged networks are apart from each other, so only the last one before can hold it.
    let holder = |net: &IpNet| outer.partition_point(|o| o <= net).checked_sub(1);
    inner.iter().all(|net| {
        let found = holder(net).and_then(|at| outer.get(at));
        found.is_some_and(|outer| outer.contains(net))
    })
}

/// Whether each of `inner` (everything, when it is empty) is in `outer` (likewise).
fn listed<T: PartialEq>(outer: &[T], inner: &[T]) -> bool {
    outer.is_empty() || (!inner.is_empty() && inner.iter().all(|item| outer.contains(item)))
}

fn ports(outer: &[PortRange], inner: &[PortRange]) -> bool {
    let inside = |range: &PortRange| {
        let holder = outer.partition_point(|o| o.first <= range.first).checked_sub(1);
        let found = holder.and_then(|at| outer.get(at));
        found.is_some_and(|outer| range.last <= outer.last)
    };
    outer.is_empty() || (!inner.is_empty() && inner.iter().all(inside))
}

fn merged_ports(ranges: &[PortRange]) -> Vec<PortRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged
}
