//! The plan as a whole: golden texts for the shipped profiles, and the difference's laws.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test says what it expects

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;

use super::{Layout, Remembered, Scope, assess, build, diff, interesting_sysctls};
use crate::kstate::{Address, Facts, KernelState, Link, Route, RouteKind, Snapshot, SysctlKey};
use crate::model::{Family, Gateway, IfName, Site, TableId};
use crate::profile;

/// A host on which every interface of the site is there, with addresses and default routes.
fn host(site: &Site) -> Snapshot {
    let mut facts = Facts::default();
    let uplinks = site.uplinks.iter().map(|uplink| (&uplink.interface, Some(uplink)));
    let lans = site.lans.iter().map(|lan| (&lan.interface, None));
    for (number, (device, uplink)) in uplinks.chain(lans).enumerate() {
        let number = u8::try_from(number).unwrap();
        let base = if uplink.is_some() { 101 } else { 201 } + number;
        let (v4, v6) = (format!("198.18.{base}.2/24"), format!("2001:db8:{base}::2/64"));
        facts.links.insert(device.clone(), link(u32::from(number) + 2));
        for net in [v4, v6] {
            facts.addresses.insert(address(device, net.parse().unwrap()));
        }
        for family in uplink.iter().flat_map(|_| Family::BOTH) {
            let gateway = uplink.map(|uplink| *uplink.gateway_of(family));
            if gateway == Some(Gateway::Auto) {
                let hop = match family {
                    Family::V4 => format!("198.18.{base}.1"),
                    Family::V6 => "fe80::1".to_owned(),
                };
                facts.routes.insert(default_route(device, hop.parse().unwrap()));
            }
        }
    }
    let mut seen = Snapshot { facts, ..Snapshot::default() };
    let devices = site.uplinks.iter().map(|uplink| &uplink.interface);
    for key in interesting_sysctls(devices, seen.facts.links.keys()) {
        let value = if key.0.ends_with("accept_ra") { "1" } else { "0" };
        seen.ours.sysctls.insert(key, value.to_owned());
    }
    seen
}

fn link(index: u32) -> Link {
    Link { index, up: true, carrier: true, mtu: 1500, loopback: false, point_to_point: false }
}

fn address(device: &IfName, net: IpNet) -> Address {
    Address {
        device: device.clone(),
        net,
        peer: None,
        global: true,
        tentative: false,
        deprecated: false,
        temporary: false,
    }
}

fn default_route(device: &IfName, gateway: IpAddr) -> Route {
    Route {
        table: TableId(254),
        destination: Family::of(gateway).any(),
        kind: RouteKind::Unicast,
        gateway: Some(gateway),
        device: Some(device.clone()),
        source: None,
        metric: 100,
        mtu: None,
        onlink: false,
        protocol: 16,
    }
}

fn profiles() -> BTreeMap<String, Site> {
    let mut sites = BTreeMap::new();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let site = profile::load(&text).site.expect("a shipped profile is right");
        sites.insert(path.file_stem().unwrap().to_string_lossy().into_owned(), site);
    }
    sites
}

fn desired(site: Site) -> (KernelState, Snapshot) {
    let seen = host(&site);
    let layout = Layout::new(site, &Remembered::default());
    let view = assess(&layout, &seen, &Arc::default());
    (build(&layout, &view, &seen), seen)
}

/// 256 elements say more as a count of each owner.
fn shorten(command: &str) -> String {
    let Some((head, slots)) = command.split_once(" { 0 : ") else {
        return command.to_owned();
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for element in format!("0 : {slots}").trim_end_matches(" }'").split(", ") {
        let owner = element.split_once(" : ").unwrap().1;
        let owner =
            ["0x"].iter().find_map(|_| slots.find(owner).map(|at| &slots[at..at + owner.len()]));
        *counts.entry(owner.unwrap()).or_insert(0) += 1;
    }
    format!("{head} {{ 256 slots: {counts:?} }}'")
}

#[test]
fn the_plans_of_the_shipped_profiles_are_as_reviewed() {
    for (name, site) in profiles() {
        let (desired, seen) = desired(site);
        let commands = diff(&desired, &seen.ours, Scope::All).commands();
        let text: Vec<String> = commands.iter().map(|command| shorten(command)).collect();
        insta::assert_snapshot!(format!("plan-{name}"), text.join("\n"));
    }
}

#[test]
fn an_uplink_s_rules_do_not_change_when_another_is_put_before_it() {
    let site = profiles().remove("office").unwrap();
    let before = Layout::new(site.clone(), &Remembered::default());
    let mut remembered = Remembered::default();
    remembered.learn(&before.ids);
    let mut more = site.clone();
    let mut newcomer = site.uplinks[0].clone();
    newcomer.name = crate::model::Name::new("newcomer").unwrap();
    newcomer.interface = IfName::new("new0").unwrap();
    more.uplinks.insert(0, newcomer);
    let after = Layout::new(more, &remembered);
    for (name, id) in &before.ids.uplinks {
        assert_eq!(after.ids.uplinks[name], *id, "{name}");
    }
}

/// Applies the change set step by step.
fn applied(observed: &KernelState, desired: &KernelState) -> KernelState {
    let mut state = observed.clone();
    for step in diff(desired, observed, Scope::All).steps {
        state.apply(&step);
    }
    state
}

/// One of the shipped sites, with some of what it needs missing or changed.
fn damaged() -> impl Strategy<Value = (KernelState, KernelState)> {
    let sites: Vec<Site> = profiles().into_values().collect();
    let count = sites.len();
    (0..count, 0..count, any::<u64>()).prop_map(move |(from, to, seed)| {
        let (mut observed, _) = desired(sites[from].clone());
        let (desired, _) = desired(sites[to].clone());
        damage(&mut observed, seed);
        (observed, desired)
    })
}

fn damage(state: &mut KernelState, seed: u64) {
    let lost = |number: usize| (seed >> (number % 61)) & 7 == 0;
    let mut number = 0;
    let mut keep = || {
        number += 1;
        !lost(number)
    };
    state.routes.retain(|_| keep());
    state.rules.retain(|_| keep());
    let Some(table) = &mut state.nft else { return };
    for set in table.sets.values_mut() {
        set.elements.retain(|_, _| keep());
    }
    for chain in table.chains.values_mut() {
        chain.rules.retain(|_| keep());
    }
    if seed.is_multiple_of(5) {
        state.nft = None;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn applying_the_difference_gives_what_is_desired((observed, desired) in damaged()) {
        let after = applied(&observed, &desired);
        prop_assert!(diff(&desired, &after, Scope::All).is_empty());
        prop_assert_eq!(&after.routes, &desired.routes);
        prop_assert_eq!(&after.rules, &desired.rules);
        prop_assert_eq!(after.nft.as_ref().map(|t| &t.chains), desired.nft.as_ref().map(|t| &t.chains));
    }

    #[test]
    fn equal_states_give_nothing_to_do((_, desired) in damaged()) {
        prop_assert!(diff(&desired, &desired, Scope::All).is_empty());
    }
}

#[test]
fn forwarding_is_set_after_router_advertisements_are_safe() {
    let (desired, seen) = desired(profiles().remove("office").unwrap());
    let commands = diff(&desired, &seen.ours, Scope::All).commands();
    let place = |part: &str| commands.iter().rposition(|command| command.contains(part));
    let forwarding = place("ipv6.conf.all.forwarding=1");
    assert!(place("accept_ra=2") < forwarding, "{commands:#?}");
    // Nor may anything pass before it is translated.
    for needed in ["nft", "rule add"] {
        let last = place(needed);
        assert!(last.is_some() && last < place("ip_forward=1") && last < forwarding, "{needed}");
    }
    assert!(seen.ours.sysctls.contains_key(&SysctlKey("net/ipv4/ip_forward".into())));
}

#[test]
fn learned_bindings_are_never_flushed_or_recreated_while_their_policy_stays() {
    let site = profiles().remove("lab").unwrap();
    let (observed, _) = desired(site.clone());
    let mut other = site;
    for policy in &mut other.policies {
        if let crate::model::Persistence::By { timeout, .. } = &mut policy.persistence {
            *timeout *= 2;
        }
    }
    other.uplinks.truncate(2);
    let names = |site: &Site| site.uplinks.iter().map(|u| u.name.clone()).collect::<Vec<_>>();
    let left = names(&other);
    for policy in &mut other.policies {
        policy.tiers.iter_mut().for_each(|tier| tier.retain(|name| left.contains(name)));
    }
    let (wanted, _) = desired(other);
    let commands = diff(&wanted, &observed, Scope::All).commands();
    let touched = |command: &&String| command.contains(" bind") && !command.contains("rule");
    assert_eq!(commands.iter().filter(touched).collect::<Vec<_>>(), Vec::<&String>::new());
}
