//! `policies`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::model::{
    Balance, Family, Match, Name, Persistence, PersistenceKey, Policy, WhenAllDown,
};

use super::fields::{self, Fields, list, list_or_none};
use super::finding::Findings;
use super::names::{Names, reference};
use super::tree::{Kind, Node};
use super::{net, scalar};

pub(super) const KEYS: &[&str] = &[
    "name",
    "match",
    "uplinks",
    "balance",
    "persistence",
    "evacuate-after",
    "when-all-down",
    "release-on-return",
];
pub(super) const MATCH_KEYS: &[&str] = &["from", "to", "protocol", "ports", "dscp"];

/// Most policies that the connection mark can tell apart, beside the implied one.
const MOST: usize = 254;

/// Idle times that make sense for a binding.
pub(super) const IDLE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);

pub(super) const BALANCE: &[(&str, Balance)] = &[
    ("weighted", Balance::Weighted),
    ("round-robin", Balance::RoundRobin),
    ("lowest-latency", Balance::LowestLatency),
    ("least-used", Balance::LeastUsed),
    ("source-hash", Balance::SourceHash),
];

pub(super) const WHEN_ALL_DOWN: &[(&str, WhenAllDown)] = &[
    ("try", WhenAllDown::Try),
    ("unreachable", WhenAllDown::Unreachable),
    ("drop", WhenAllDown::Drop),
    ("main", WhenAllDown::Main),
];

pub(super) const PERSISTENCE: &[(&str, Option<PersistenceKey>)] = &[
    ("none", None),
    ("source", Some(PersistenceKey::Source)),
    ("source-destination", Some(PersistenceKey::SourceDestination)),
];

/// Reads the section; each policy with its place.
pub(super) fn read<'t>(
    node: Node<'t>,
    names: &Names,
    uplinks: &[Name],
    out: &mut Findings,
) -> Vec<(Policy, Node<'t>)> {
    if node.kind() != Kind::Sequence {
        let hint = "each begins with a dash: `- name: voice`";
        scalar::expected(node, "a list of policies", hint, out);
        return Vec::new();
    }
    let items = list_or_none(node);
    if items.len() > MOST {
        let message = format!("{} policies are more than {MOST}", items.len());
        out.error_with(node.key(), message, "give policies with the same members one `match`");
    }
    let mut all: Vec<(Policy, Node<'t>)> = Vec::new();
    let mut seen: BTreeMap<Name, Node<'t>> = BTreeMap::new();
    // Of very many, more findings would help nobody.
    for item in items.into_iter().take(MOST) {
        let Some(policy) = policy(item, names, uplinks, out) else {
            continue;
        };
        if let Some(earlier) = seen.get(&policy.name) {
            let message = format!("duplicate policy `{}`", policy.name);
            let hint = format!(
                "the first is in line {}: give one of them another name",
                earlier.place().0
            );
            out.error_with(item, message, hint);
        }
        seen.entry(policy.name.clone()).or_insert(item);
        all.push((policy, item));
    }
    all
}

fn policy(node: Node<'_>, names: &Names, uplinks: &[Name], out: &mut Findings) -> Option<Policy> {
    let fields = Fields::read(node, KEYS, out)?;
    let name = fields.required("name", "each policy has a name: `- name: voice`", out);
    let name = name.and_then(|node| fields::name(node, out));
    let matches = fields.get("match", out).and_then(|node| matches(node, names, out));
    let tiers = fields.get("uplinks", out).map(|node| tiers(node, names, out));
    let balance = fields.get("balance", out);
    let persistence = fields.get("persistence", out);
    let evacuate = fields.get("evacuate-after", out);
    let when_all_down = fields.get("when-all-down", out);
    let release = fields.get("release-on-return", out);
    let release = release.and_then(|node| scalar::boolean(node, out));
    let balance = balance.and_then(|n| scalar::choice(n, "a way to balance", BALANCE, out));
    let persistence = persistence.and_then(|n| self::persistence(n, out));
    let evacuate_after = evacuate.and_then(|n| evacuate_after(n, out));
    let when_all_down =
        when_all_down.and_then(|n| scalar::choice(n, "one of the ways out", WHEN_ALL_DOWN, out));
    Some(Policy {
        name: name?,
        matches: matches.unwrap_or_default(),
        tiers: tiers.unwrap_or_else(|| vec![uplinks.to_vec()]),
        balance: balance.unwrap_or_default(),
        persistence: persistence.unwrap_or_default(),
        evacuate_after: evacuate_after.unwrap_or_default(),
        when_all_down: when_all_down.unwrap_or_default(),
        release_on_return: release.unwrap_or_default(),
    })
}

fn matches(node: Node<'_>, names: &Names, out: &mut Findings) -> Option<Match> {
    let fields = Fields::read(node, MATCH_KEYS, out)?;
    let from = fields.get("from", out);
    let to = fields.get("to", out);
    let protocol = fields.get("protocol", out);
    let ports = fields.get("ports", out);
    let dscp = fields.get("dscp", out);
    let mut found = Match::default();
    for item in from.map_or_else(Vec::new, |node| list(node, out)) {
        source(item, names, &mut found, out);
    }
    found.to = to.map_or_else(Vec::new, |node| net::prefixes(node, out));
    (found.protocols, found.ports) = net::protocols_and_ports(protocol, ports, out);
    found.dscp = dscp.map_or_else(Vec::new, |node| net::code_points(node, out));
    families(fields.node(), &found, out);
    Some(found)
}

/// One entry of `from`: what has a dot, a colon, a slash or begins with a digit is no name.
fn source(node: Node<'_>, names: &Names, found: &mut Match, out: &mut Findings) {
    let text = node.text().unwrap_or_default();
    let numeric = text.starts_with(|c: char| c.is_ascii_digit()) || text.contains(['.', ':', '/']);
    if numeric || node.kind() != Kind::Scalar {
        found.from_nets.extend(net::prefix(node, out));
    } else if names.uplinks.contains(text) {
        let message = format!("`{text}` is an uplink, not a LAN");
        out.error_with(node, message, "policies take what comes from the LANs");
    } else {
        found.from_lans.extend(reference(node, "LAN", &names.lans, out));
    }
}

fn families(node: Node<'_>, found: &Match, out: &mut Findings) {
    let from: BTreeSet<Family> = found.from_nets.iter().map(Family::of_net).collect();
    let to: BTreeSet<Family> = found.to.iter().map(Family::of_net).collect();
    let apart = from.is_disjoint(&to) && !from.is_empty() && !to.is_empty();
    if apart && found.from_lans.is_empty() {
        let hint = "`from` and `to` are of different families";
        out.warning(node, "this can never match", hint);
    }
}

/// A flat list is one tier, a list of lists is several.
fn tiers(node: Node<'_>, names: &Names, out: &mut Findings) -> Vec<Vec<Name>> {
    let items = list(node, out);
    let nested = items.iter().filter(|item| item.kind() == Kind::Sequence).count();
    let mut seen = BTreeMap::new();
    if nested == 0 {
        return vec![tier(&items, names, &mut seen, out)];
    }
    if nested < items.len() {
        let hint = "either names alone (one tier), or lists alone: `[[fiber, cable], [lte]]`";
        out.error_with(node, "names and lists are mixed", hint);
        return Vec::new();
    }
    let mut tiers = Vec::new();
    for item in items {
        tiers.push(tier(&list(item, out), names, &mut seen, out));
    }
    tiers
}

fn tier<'t>(
    items: &[Node<'t>],
    names: &Names,
    seen: &mut BTreeMap<Name, Node<'t>>,
    out: &mut Findings,
) -> Vec<Name> {
    let mut members = Vec::new();
    for &item in items {
        let Some(name) = reference(item, "uplink", &names.uplinks, out) else {
            continue;
        };
        if seen.insert(name.clone(), item).is_some() {
            let hint = "name each uplink once, in the first tier that may use it";
            out.error_with(item, format!("uplink `{name}` a second time"), hint);
        }
        members.push(name);
    }
    members
}

fn persistence(node: Node<'_>, out: &mut Findings) -> Option<Persistence> {
    if node.kind() == Kind::Scalar {
        let key = scalar::choice(node, "a persistence", PERSISTENCE, out)?;
        return Some(by(key, None));
    }
    let fields = Fields::read(node, &["by", "timeout"], out)?;
    let key = fields.required("by", "say `by: source` or `by: source-destination`", out);
    let timeout = fields.get("timeout", out);
    let key = key.and_then(|node| scalar::choice(node, "a persistence", PERSISTENCE, out));
    let timeout_value = timeout.and_then(|node| scalar::duration(node, IDLE, out));
    if let (Some(None), Some(node)) = (key, timeout) {
        out.warning(node, "`timeout` has no effect with `by: none`", "remove it");
    }
    Some(by(key?, timeout_value))
}

fn by(key: Option<PersistenceKey>, timeout: Option<Duration>) -> Persistence {
    let timeout = timeout.unwrap_or(Duration::from_secs(3600));
    key.map_or(Persistence::None, |key| Persistence::By { key, timeout })
}

fn evacuate_after(node: Node<'_>, out: &mut Findings) -> Option<Option<Duration>> {
    if node.text() == Some("never") {
        return Some(None);
    }
    let day = Duration::from_secs(24 * 3600);
    scalar::duration(node, Duration::ZERO..=day, out).map(Some)
}
