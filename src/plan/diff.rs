//! The difference between desired and observed, as steps in a safe order.
//!
//! Add before remove: settings, addresses, routes, rules, then one nft transaction (the commit point), then
//! rules that take every packet, forwarding, and then what is no longer wanted. Inside the
//! transaction: objects are made, changed chains emptied, elements swapped, chains filled again,
//! and what nothing refers to any more is deleted. A flowtable that differs is made anew: its sessions
//! go by the rules meanwhile.

use std::collections::BTreeSet;

use super::nft;
use super::routing::other_metric;
use super::steer::swap_elements;
use super::sysctls::opens;
use crate::kstate::{
    Elements, Flowtable, KernelState, NftOp, NftTable, Role, Route, Rule, Set, Step, SysctlKey,
};

/// Steps in order; empty when nothing differs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChangeSet {
    /// What to do.
    pub steps: Vec<Step>,
}

impl ChangeSet {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// As commands that a person would type, one a line.
    pub fn commands(&self) -> Vec<String> {
        self.steps.iter().flat_map(Step::commands).collect()
    }
}

/// Which differences count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All, steering too.
    All,
    /// All but elements that steering sets, and which uplink the router itself prefers; a new map
    /// still gets its elements.
    Structure,
}

/// What to do so that the observed state becomes the desired one.
pub fn diff(desired: &KernelState, observed: &KernelState, scope: Scope) -> ChangeSet {
    let mut steps = Vec::new();
    let differing =
        desired.sysctls.iter().filter(|(key, value)| observed.sysctls.get(*key) != Some(*value));
    let set = |(key, value): (&SysctlKey, &String)| Step::SetSysctl(key.clone(), value.clone());
    let (opening, settings): (Vec<_>, Vec<_>) = differing.partition(|(key, _)| opens(key));
    steps.extend(settings.into_iter().map(set));
    let new_addresses = desired.addresses.difference(&observed.addresses).cloned();
    steps.extend(new_addresses.map(Step::AddAddress));
    let routes = |wanted: &BTreeSet<Route>, there: &BTreeSet<Route>| -> Vec<Route> {
        let known = |route: &&Route| {
            there.contains(*route)
                || scope == Scope::Structure
                    && there
                        .contains(&Route { metric: other_metric(route.metric), ..(*route).clone() })
        };
        wanted.iter().filter(|route| !known(route)).cloned().collect()
    };
    let new_routes = routes(&desired.routes, &observed.routes);
    steps.extend(new_routes.into_iter().map(Step::AddRoute));
    // A rule for every packet would take live sessions away from the way they have before their
    // marks are restored.
    let (last, rules): (Vec<_>, Vec<_>) =
        desired.rules.difference(&observed.rules).cloned().partition(takes_everything);
    steps.extend(rules.into_iter().map(Step::AddRule));
    if let Some(desired) = &desired.nft {
        let ops = diff_table(desired, observed.nft.as_deref(), scope);
        if !ops.is_empty() {
            steps.push(Step::Nft(ops));
        }
    }
    steps.extend(last.into_iter().map(Step::AddRule));
    steps.extend(opening.into_iter().map(set));
    steps.extend(observed.rules.difference(&desired.rules).cloned().map(Step::DeleteRule));
    let old_routes = routes(&observed.routes, &desired.routes);
    steps.extend(old_routes.into_iter().map(Step::DeleteRoute));
    let old_addresses = observed.addresses.difference(&desired.addresses).cloned();
    steps.extend(old_addresses.map(Step::DeleteAddress));
    ChangeSet { steps }
}

fn takes_everything(rule: &Rule) -> bool {
    rule.mark.is_none() && rule.source.is_none() && rule.input.is_none() && rule.output.is_none()
}

/// What to do so that nothing of ours is left (settings are restored elsewhere). What translates
/// goes last, and first nothing may leave any more that it, or the rules, would have dealt with.
pub fn removal(observed: &KernelState) -> ChangeSet {
    let mut steps: Vec<Step> = Vec::new();
    steps.extend(observed.nft.as_deref().and_then(nft::closing).map(Step::Nft));
    steps.extend(observed.rules.iter().cloned().map(Step::DeleteRule));
    steps.extend(observed.routes.iter().cloned().map(Step::DeleteRoute));
    steps.extend(observed.addresses.iter().cloned().map(Step::DeleteAddress));
    if observed.nft.is_some() {
        steps.push(Step::Nft(vec![NftOp::DeleteTable]));
    }
    ChangeSet { steps }
}

fn diff_table(desired: &NftTable, observed: Option<&NftTable>, scope: Scope) -> Vec<NftOp> {
    let nothing = NftTable::default();
    let present = observed.is_some();
    let observed = observed.unwrap_or(&nothing);
    let sets = SetChanges::between(desired, observed);
    let flows = |there: &NftTable, other: &NftTable| -> Vec<(String, Flowtable)> {
        let differs =
            |(name, one): &(&String, &Flowtable)| other.flowtables.get(*name) != Some(*one);
        there.flowtables.iter().filter(differs).map(|(n, one)| (n.clone(), one.clone())).collect()
    };
    let (new_flows, old_flows) = (flows(desired, observed), flows(observed, desired));
    let old_names: BTreeSet<&str> = old_flows.iter().map(|(name, _)| name.as_str()).collect();
    let refill = chains_to_refill(desired, observed, &sets, &old_names);
    let mut ops = Vec::new();
    if !present {
        ops.push(NftOp::AddTable);
    }
    empty_chains(&mut ops, desired, observed, &refill);
    ops.extend(old_flows.iter().map(|(name, _)| NftOp::DeleteFlowtable(name.clone())));
    ops.extend(new_flows.into_iter().map(|(name, one)| NftOp::AddFlowtable(name, one)));
    ops.extend(sets.remade.iter().map(|name| NftOp::DeleteSet(name.clone())));
    let made = sets.made.iter().chain(&sets.remade);
    ops.extend(made.filter_map(|name| Some(make_set(name, desired.sets.get(name)?))));
    ops.extend(desired.objects.difference(&observed.objects).copied().map(NftOp::AddObject));
    make_chains(&mut ops, desired, observed);
    for name in &refill {
        let rules = desired.chains.get(name).into_iter().flat_map(|chain| &chain.rules);
        let add = |rule: &_| NftOp::AddRule { chain: name.clone(), rule: Clone::clone(rule) };
        ops.extend(rules.map(add));
    }
    // After the rules: for each of those the kernel walks the elements that are there already.
    change_elements(&mut ops, desired, observed, &sets, scope);
    ops.extend(sets.gone.iter().map(|name| NftOp::DeleteSet(name.clone())));
    let gone = observed.chains.keys().filter(|name| !desired.chains.contains_key(*name));
    ops.extend(gone.map(|name| NftOp::DeleteChain(name.clone())));
    ops.extend(observed.objects.difference(&desired.objects).copied().map(NftOp::DeleteObject));
    ops
}

/// Which sets come and go.
struct SetChanges {
    made: BTreeSet<String>,
    remade: BTreeSet<String>,
    gone: BTreeSet<String>,
}

impl SetChanges {
    fn between(desired: &NftTable, observed: &NftTable) -> SetChanges {
        let names = |table: &NftTable| table.sets.keys().cloned().collect::<BTreeSet<_>>();
        let (wanted, there) = (names(desired), names(observed));
        let changed = |name: &&String| {
            let declaration =
                |table: &NftTable| table.sets.get(*name).map(|s| s.declaration.clone());
            declaration(desired) != declaration(observed)
        };
        SetChanges {
            made: wanted.difference(&there).cloned().collect(),
            remade: wanted.intersection(&there).filter(changed).cloned().collect(),
            gone: there.difference(&wanted).cloned().collect(),
        }
    }
}

/// Chains whose rules differ, or that refer to a set or a flowtable that is made anew, or that are
/// made anew.
fn chains_to_refill(
    desired: &NftTable,
    observed: &NftTable,
    sets: &SetChanges,
    flowtables: &BTreeSet<&str>,
) -> Vec<String> {
    let refers = |text: &str| {
        text.split('@').skip(1).any(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"-._".contains(c));
            let name = &rest[..end.unwrap_or(rest.len())];
            sets.remade.contains(name) || flowtables.contains(name)
        })
    };
    let differs = |(name, chain): &(&String, &crate::kstate::Chain)| {
        let same = observed.chains.get(*name).is_some_and(|there| there == *chain);
        !same || chain.rules.iter().any(|rule| refers(&rule.text))
    };
    desired.chains.iter().filter(differs).map(|(name, _)| name.clone()).collect()
}

fn empty_chains(ops: &mut Vec<NftOp>, desired: &NftTable, observed: &NftTable, refill: &[String]) {
    for (name, chain) in &observed.chains {
        let wanted = desired.chains.get(name);
        if wanted.is_none() || (refill.contains(name) && !chain.rules.is_empty()) {
            ops.push(NftOp::FlushChain(name.clone()));
        }
    }
    for (name, chain) in &observed.chains {
        let wanted = desired.chains.get(name);
        if wanted.is_some_and(|wanted| wanted.declaration != chain.declaration) {
            ops.push(NftOp::DeleteChain(name.clone()));
        }
    }
}

fn make_set(name: &str, set: &Set) -> NftOp {
    NftOp::AddSet {
        name: name.to_owned(),
        shape: set.shape.clone(),
        declaration: set.declaration.clone(),
        role: set.role,
    }
}

fn make_chains(ops: &mut Vec<NftOp>, desired: &NftTable, observed: &NftTable) {
    for (name, chain) in &desired.chains {
        let there = observed.chains.get(name);
        if there.is_none_or(|there| there.declaration != chain.declaration) {
            let declaration = chain.declaration.clone();
            ops.push(NftOp::AddChain { name: name.clone(), declaration });
        }
    }
}

fn change_elements(
    ops: &mut Vec<NftOp>,
    desired: &NftTable,
    observed: &NftTable,
    sets: &SetChanges,
    scope: Scope,
) {
    for (name, set) in &desired.sets {
        let fresh = sets.made.contains(name) || sets.remade.contains(name);
        let steering = set.role == Role::Steering && scope == Scope::Structure && !fresh;
        if set.role == Role::Learned || steering {
            continue;
        }
        let nothing = Elements::new();
        let there =
            observed.sets.get(name).filter(|_| !fresh).map_or(&nothing, |set| &set.elements);
        ops.extend(swap_elements(name, &set.shape, there, &set.elements));
    }
}
