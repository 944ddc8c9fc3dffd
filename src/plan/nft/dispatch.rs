//! Which policy a new session belongs to: the first that matches.
//!
//! A few policies stand as rules, one after the other. Many would cost every new session a walk past
//! all of them. So policies whose conditions are of one kind (say: a destination and a port) share a
//! map, and what is looked up in it, beside the packet's fields, is the place of the best policy found
//! so far: an element holds only for places behind its own. Each lookup thus leaves the smaller of two
//! places, whatever the order of the lookups, and at the end that of the first policy that matches:
//!
//! ```text
//! ct mark set 0x04000000                                   the fourth takes everything
//! ct mark set ip daddr . ct mark map { 192.0.2.0/24 . 0x02000000-0xffffffff : 0x01000000, … }
//! ct mark set th dport . meta l4proto . ct mark map { 25 . 6 . 0x03000000-0xffffffff : 0x02000000, … }
//! ct mark vmap { 0x01000000 : goto policy4-9-first, … }
//! ```
//!
//! The kernel narrows the elements down field by field, and each that is left costs: so what tells them
//! apart best stands first, and the place, which most elements hold for, last.
//! Elements of one map must not overlap: what would is put in another map of the same kind. Places are
//! written where policies have their bits, so that they are never taken for an uplink.
//!
//! Such a lookup costs four times what a rule costs that does not match, and a session walks half of
//! the rules on average: few policies, or many that would need a map each, are walked.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::build::{Builder, names};
use super::matching::{Ports, conditions, destinations, join, numbers, ranges, sources, word};
use crate::model::{Family, IfName, Mark, MarkMask, Match, Policy, PolicyId, Site};
use crate::plan::view::Layout;

/// A lookup costs as much as so many rules that do not match.
const RULES_PER_LOOKUP: usize = 4;

/// A policy with more areas than this stands as a rule.
const MOST_AREAS: usize = 256;

/// A policy that packets of a family can match: what leads to it.
struct Entry<'a> {
    policy: &'a Policy,
    chain: String,
    conditions: Vec<String>,
}

pub(super) fn add_dispatch(table: &mut Builder, layout: &Layout, family: Family) {
    let mut entries: Vec<Entry<'_>> = layout
        .policies()
        .map(|(policy, id)| Entry::new(policy, id, &layout.site, family))
        .filter(|entry| !entry.conditions.is_empty())
        .collect();
    // Nothing gets past the first that takes everything.
    if let Some(last) = entries.iter().position(Entry::takes_everything) {
        entries.truncate(last + 1);
    }
    let search = Search::new(&entries, &layout.site, family);
    let name = format!("policies{}", family.digit());
    match search.is_worth_it(&entries, layout.site.marks.policy) {
        true => add_search(table, &name, layout.site.marks.policy, &entries, &search),
        false => add_walk(table, &name, &entries),
    }
}

impl<'a> Entry<'a> {
    fn new(policy: &'a Policy, id: PolicyId, site: &Site, family: Family) -> Entry<'a> {
        let chain = names::policy(family, id, &policy.name);
        Entry { policy, chain, conditions: conditions(&policy.matches, site, family) }
    }

    fn takes_everything(&self) -> bool {
        self.conditions.iter().any(String::is_empty)
    }

    fn origin(&self) -> String {
        format!("policies.{}", self.policy.name)
    }
}

/// One rule for each policy (two where LANs and networks are mixed).
fn add_walk(table: &mut Builder, name: &str, entries: &[Entry<'_>]) {
    let mut rules = table.chain(name);
    for entry in entries {
        for condition in &entry.conditions {
            let rule = join([condition.clone(), format!("goto {}", entry.chain)]);
            rules.rule(rule, &entry.origin());
        }
    }
}

fn add_search(
    table: &mut Builder,
    name: &str,
    mask: MarkMask,
    entries: &[Entry<'_>],
    search: &Search,
) {
    let mut rules = table.chain(name);
    rules.rule(format!("ct mark set {}", place(mask, entries.len() - 1)), "");
    for (kind, areas) in &search.lookups {
        let element = |(index, area): &(usize, Area)| {
            format!("{} . {} : {}", area.key(), behind(mask, *index), place(mask, *index))
        };
        let elements: Vec<String> = areas.iter().map(element).collect();
        let rule = format!(
            "ct mark set {} . ct mark map {{ {} }}",
            kind.expression(search.family),
            elements.join(", ")
        );
        rules.rule(rule, "policies");
    }
    for index in &search.walked {
        for condition in &entries[*index].conditions {
            let range = behind(mask, *index);
            let rule = format!("ct mark {range} {condition} ct mark set {}", place(mask, *index));
            rules.rule(rule, &entries[*index].origin());
        }
    }
    let verdict = |(index, entry): (usize, &Entry<'_>)| {
        format!("{} : goto {}", place(mask, index), entry.chain)
    };
    let verdicts: Vec<String> = entries.iter().enumerate().map(verdict).collect();
    rules.rule(format!("ct mark vmap {{ {} }}", verdicts.join(", ")), "policies");
}

/// The place of a policy; none has the place 0.
fn place(mask: MarkMask, index: usize) -> Mark {
    mask.place(u32::try_from(index + 1).unwrap_or(u32::MAX))
}

/// All places behind it. The range ends with lower bits set that no place has: so it is a handful of
/// prefixes for the kernel, and each costs.
fn behind(mask: MarkMask, index: usize) -> String {
    let lower = (1 << mask.0.trailing_zeros()) - 1;
    format!("{}-{}", place(mask, index + 1), Mark(mask.0 | lower))
}

/// How to find a session's policy with lookups.
struct Search {
    family: Family,
    /// Areas that do not overlap, with the policy's index; all of them of one kind.
    lookups: Vec<(Kind, Vec<(usize, Area)>)>,
    /// Policies that are not found by lookups.
    walked: Vec<usize>,
}

impl Search {
    fn new(entries: &[Entry<'_>], site: &Site, family: Family) -> Search {
        let mut kinds: BTreeMap<Kind, Vec<Vec<(usize, Area)>>> = BTreeMap::new();
        let mut walked = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            if entry.takes_everything() {
                continue;
            }
            let Some(areas) = areas_of(&entry.policy.matches, site, family) else {
                walked.push(index);
                continue;
            };
            for area in areas {
                put(kinds.entry(area.kind()).or_default(), index, area);
            }
        }
        let each =
            |(kind, lookups): (Kind, Vec<_>)| lookups.into_iter().map(move |areas| (kind, areas));
        Search { family, lookups: kinds.into_iter().flat_map(each).collect(), walked }
    }

    /// Whether lookups cost less than half of the walk, which is what a session walks on average.
    fn is_worth_it(&self, entries: &[Entry<'_>], mask: MarkMask) -> bool {
        let walk: usize = entries.iter().map(|entry| entry.conditions.len()).sum();
        let cost = self.lookups.len() * RULES_PER_LOOKUP + 2 * self.walked.len() + RULES_PER_LOOKUP;
        let fits = u32::try_from(entries.len()).is_ok_and(|count| count < mask.max());
        let ends = entries.last().is_some_and(Entry::takes_everything);
        cost < walk / 2 && fits && ends
    }
}

/// Puts an area into the first map in which it overlaps no other.
fn put(lookups: &mut Vec<Vec<(usize, Area)>>, index: usize, area: Area) {
    let free =
        |lookup: &&mut Vec<(usize, Area)>| lookup.iter().all(|(_, other)| !area.meets(other));
    match lookups.iter_mut().find(free) {
        Some(lookup) => lookup.push((index, area)),
        None => lookups.push(vec![(index, area)]),
    }
}

/// A part of what a policy matches: one value or range of each field that it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Area {
    device: Option<IfName>,
    source: Option<IpNet>,
    destination: Option<IpNet>,
    protocol: Option<u8>,
    ports: Option<Ports>,
}

/// Which fields an area asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    device: bool,
    source: bool,
    destination: bool,
    protocol: bool,
    ports: bool,
}

/// The areas of a match; `None` when it has too many, or asks for a code point.
fn areas_of(matches: &Match, site: &Site, family: Family) -> Option<Vec<Area>> {
    let sources = sources(matches, site, family);
    let destinations = destinations(matches, family);
    let protocols = values(numbers(&matches.protocols, family));
    let ports = values(ranges(&matches.ports));
    let many = sources.len() * destinations.len() * protocols.len() * ports.len();
    if !matches.dscp.is_empty() || many > MOST_AREAS {
        return None;
    }
    let mut areas = Vec::with_capacity(many);
    for (device, source) in &sources {
        for destination in &destinations {
            for protocol in &protocols {
                areas.extend(ports.iter().map(|ports| Area {
                    device: device.clone(),
                    source: *source,
                    destination: *destination,
                    protocol: *protocol,
                    ports: *ports,
                }));
            }
        }
    }
    Some(areas)
}

/// Each value, or the one that asks for none.
fn values<T>(asked: Vec<T>) -> Vec<Option<T>> {
    if asked.is_empty() { vec![None] } else { asked.into_iter().map(Some).collect() }
}

impl Area {
    fn kind(&self) -> Kind {
        Kind {
            device: self.device.is_some(),
            source: self.source.is_some(),
            destination: self.destination.is_some(),
            protocol: self.protocol.is_some(),
            ports: self.ports.is_some(),
        }
    }

    /// Whether a packet may lie in both; areas of one kind.
    fn meets(&self, other: &Area) -> bool {
        let nets = |one: Option<IpNet>, other: Option<IpNet>| match (one, other) {
            (Some(one), Some(other)) => one.contains(&other) || other.contains(&one),
            _ => true,
        };
        let ports = match (self.ports, other.ports) {
            (Some(Ports(one)), Some(Ports(other))) => {
                one.first <= other.last && other.first <= one.last
            }
            _ => true,
        };
        self.device == other.device
            && self.protocol == other.protocol
            && nets(self.source, other.source)
            && nets(self.destination, other.destination)
            && ports
    }

    fn key(&self) -> String {
        let parts = [
            self.device.as_ref().map(|device| format!("\"{device}\"")),
            self.source.map(|net| net.to_string()),
            self.destination.map(|net| net.to_string()),
            self.ports.map(|ports| ports.to_string()),
            self.protocol.map(|number| number.to_string()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" . ")
    }
}

impl Kind {
    fn expression(self, family: Family) -> String {
        let word = word(family);
        let parts = [
            self.device.then(|| "iifname".to_owned()),
            self.source.then(|| format!("{word} saddr")),
            self.destination.then(|| format!("{word} daddr")),
            self.ports.then(|| "th dport".to_owned()),
            self.protocol.then(|| "meta l4proto".to_owned()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" . ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test says what it expects

    use std::fmt::Write as _;

    use super::{Builder, add_dispatch};
    use crate::model::Family;
    use crate::plan::{Layout, Remembered};
    use crate::profile;

    /// The rules of the chain that chooses the policy, shortened after their first element.
    fn rules(policies: &str) -> Vec<String> {
        let text = format!(
            "version: 1\nuplinks: {{ a: {{ interface: wan0 }}, b: {{ interface: wan1 }} }}\n\
             lans: {{ office: {{ interface: lan0 }} }}\npolicies:\n{policies}"
        );
        let layout = Layout::new(profile::load(&text).site.unwrap(), &Remembered::default());
        let mut table = Builder::default();
        add_dispatch(&mut table, &layout, Family::V4);
        let chain = table.finish().chains.remove("policies4").unwrap();
        let first = |text: &str| text.split(", ").next().unwrap_or_default().to_owned();
        chain.rules.iter().map(|rule| first(&rule.text)).collect()
    }

    fn many(matches: impl Fn(usize) -> String) -> String {
        (0..40).fold(String::new(), |mut text, n| {
            writeln!(text, "  - {{ name: p{n}, match: {{ {} }} }}", matches(n)).unwrap();
            text
        })
    }

    #[test]
    fn many_policies_of_a_few_kinds_cost_one_lookup_for_each_kind() {
        let kinds = |n: usize| match n % 2 {
            0 => format!("to: [198.51.{n}.0/24]"),
            _ => format!("protocol: tcp, ports: [{}]", 1000 + n),
        };
        let rules = rules(&many(kinds));
        assert_eq!(
            rules[..3],
            [
                "ct mark set 0x29000000",
                "ct mark set th dport . meta l4proto . ct mark map { 1001 . 6 . 0x3000000-0xffffffff : 0x2000000",
                "ct mark set ip daddr . ct mark map { 198.51.0.0/24 . 0x2000000-0xffffffff : 0x1000000",
            ]
        );
        assert!(rules[3].starts_with("ct mark vmap { 0x1000000 : goto policy4-"), "{rules:#?}");
        assert_eq!(rules.len(), 4, "{rules:#?}");
    }

    #[test]
    fn few_policies_are_walked() {
        let rules = rules("  - { name: p, match: { to: [198.51.0.0/24] } }\n");
        assert!(rules[0].starts_with("ip daddr 198.51.0.0/24 goto policy4-"), "{rules:#?}");
        assert_eq!(rules.len(), 2, "{rules:#?}");
    }

    #[test]
    fn policies_that_overlap_each_other_are_walked() {
        let rules = rules(&many(|n| format!("from: [10.0.0.0/{}]", n % 20 + 8)));
        assert_eq!(rules.len(), 41, "{rules:#?}");
    }

    #[test]
    fn what_cannot_be_looked_up_asks_whether_something_better_was_found() {
        let matches = |n: usize| match n {
            7 => "dscp: 46".to_owned(),
            _ => format!("to: [198.51.{n}.0/24]"),
        };
        let rules = rules(&many(matches));
        let walked = "ct mark 0x9000000-0xffffffff ip dscp 46 ct mark set 0x8000000";
        assert_eq!(rules[2], walked, "{rules:#?}");
    }
}
