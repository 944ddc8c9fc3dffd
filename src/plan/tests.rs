//! The plan as a whole: golden texts for the shipped profiles, and the difference's laws.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test says what it expects

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;

use super::{Layout, Remembered, Scope, assess, build, diff, interesting_sysctls, removal};
use crate::kstate::{
    Address, Facts, KernelState, Link, Offload, OwnAddress, Route, RouteKind, Snapshot, Step,
    SysctlKey,
};
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
    let accepted = facts.links.keys().cloned().collect();
    facts.offload = Some(Offload { accepted, ..Offload::default() });
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
    let served = profile::load_bytes(SERVED.as_bytes()).site;
    let sites: Vec<Site> = profiles().into_values().chain(served).collect();
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
    state.addresses.retain(|_| keep());
    state.routes.retain(|_| keep());
    state.rules.retain(|_| keep());
    let Some(table) = state.nft.as_mut().map(Arc::make_mut) else { return };
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
        prop_assert_eq!(&after.addresses, &desired.addresses);
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

const SERVED: &str = "
version: 1
site: served
uplinks:
  fiber: { interface: wan0 }
  cable: { interface: wan1 }
groups:
  web: { servers: { a: { address: 10.0.0.2 } } }
services:
  site:
    virtual: [fiber, { address: 203.0.113.10, on: fiber }, { address: \"2001:db8:a::10\", on: fiber }]
    protocol: tcp
    ports: [443]
    group: web
  mail:
    virtual: [{ address: 203.0.113.10, on: fiber }, { address: 203.0.113.11, on: cable }]
    protocol: tcp
    ports: [25]
    group: web
";

/// What is desired of this host.
fn desired_of(text: &str, seen: &Snapshot) -> KernelState {
    let site = profile::load_bytes(text.as_bytes()).site.expect("a right profile");
    let layout = Layout::new(site, &Remembered::default());
    let view = assess(&layout, seen, &Arc::default());
    build(&layout, &view, seen)
}

fn served_host() -> Snapshot {
    host(&profile::load_bytes(SERVED.as_bytes()).site.unwrap())
}

fn own(device: &str, address: &str) -> OwnAddress {
    OwnAddress { device: IfName::new(device).unwrap(), address: address.parse().unwrap() }
}

/// The priorities of the rules for packets from an address, and whether `own4` or `own6` has it.
fn treated_as_own(state: &KernelState, own: &OwnAddress) -> (Vec<u32>, bool) {
    let source = Some(IpNet::from(own.address));
    let rules = state.rules.iter().filter(|rule| rule.source == source);
    let name = format!("own{}", Family::of(own.address).digit());
    let set = &state.nft.as_ref().unwrap().sets[&name];
    let mut texts = set.elements.iter().map(|(key, data)| set.shape.render(key, data));
    let element = format!("{} . {}", own.device, own.address).replace(' ', "");
    let has = |text: String| text.replace([' ', '"'], "") == element;
    (rules.map(|rule| rule.priority.0).collect(), texts.any(has))
}

#[test]
fn addresses_of_services_are_taken_where_the_profile_says() {
    let seen = served_host();
    let desired = desired_of(SERVED, &seen);
    let wanted = [("wan0", "203.0.113.10"), ("wan0", "2001:db8:a::10"), ("wan1", "203.0.113.11")];
    let wanted: BTreeSet<_> = wanted.map(|(device, address)| own(device, address)).into();
    assert_eq!(desired.addresses, wanted);
    let site = profile::load_bytes(SERVED.as_bytes()).site.unwrap();
    let ids = Layout::new(site, &Remembered::default()).ids.uplinks;
    for own in &wanted {
        let uplink = if own.device.as_str() == "wan0" { "fiber" } else { "cable" };
        let id = ids.iter().find(|(name, _)| name.as_str() == uplink).unwrap().1;
        assert_eq!(treated_as_own(&desired, own), (vec![10_200 + u32::from(id.0)], true), "{own}");
    }
    // Nothing else goes out with them: neither a route's source nor what is translated.
    let mut taken = wanted.iter().map(|own| own.address);
    assert!(!taken.any(|address| desired.routes.iter().any(|r| r.source == Some(address))));
    let commands = diff(&desired, &seen.ours, Scope::All).commands();
    let place = |part: &str| commands.iter().position(|command| command.starts_with(part));
    let add = place("ip addr add 203.0.113.10/32 dev wan0 proto 201");
    assert!(add.is_some() && add < place("nft"), "{commands:#?}");
    let six = place("ip -6 addr add 2001:db8:a::10/128 dev wan0 nodad proto 201");
    assert!(six.is_some() && six < place("nft"), "{commands:#?}");
}

#[test]
fn an_address_in_force_stays_ours_and_one_of_others_stays_theirs() {
    let mut seen = served_host();
    let first = desired_of(SERVED, &seen);
    seen.ours.addresses.clone_from(&first.addresses);
    assert_eq!(desired_of(SERVED, &seen), first);
    let one = own("wan0", "203.0.113.10");
    let net = "203.0.113.10/24".parse().unwrap();
    seen.facts.addresses.insert(address(&one.device, net));
    let desired = desired_of(SERVED, &seen);
    assert!(!desired.addresses.contains(&one) && desired.addresses.len() == 2);
    // The administrator's serves as well.
    assert_eq!(treated_as_own(&desired, &one), treated_as_own(&first, &one));
    let commands = diff(&desired, &seen.ours, Scope::All).commands();
    let delete = "ip addr del 203.0.113.10/32 dev wan0 proto 201";
    assert_eq!(commands.last().map(String::as_str), Some(delete));
}

#[test]
fn no_address_is_taken_on_a_device_that_is_down_or_gone() {
    let mut seen = served_host();
    seen.facts.links.get_mut(&IfName::new("wan0").unwrap()).unwrap().up = false;
    seen.facts.links.remove(&IfName::new("wan1").unwrap());
    assert!(desired_of(SERVED, &seen).addresses.is_empty());
}

#[test]
fn addresses_of_services_that_are_gone_are_given_up_last() {
    let mut seen = served_host();
    seen.ours = desired_of(SERVED, &seen);
    let without = SERVED.split_once("groups:").unwrap().0;
    let desired = desired_of(without, &seen);
    let steps = diff(&desired, &seen.ours, Scope::All).steps;
    let deletes = |step: &&Step| matches!(step, Step::DeleteAddress(_));
    assert_eq!(steps.iter().rev().take_while(deletes).count(), 3, "{steps:#?}");
    let taken_down = removal(&seen.ours);
    assert_eq!(taken_down.steps.iter().filter(deletes).count(), 3);
    let mut left = seen.ours.clone();
    taken_down.steps.iter().for_each(|step| left.apply(step));
    assert!(left.addresses.is_empty() && left.nft.is_none());
}

#[test]
fn an_uplink_s_first_address_is_settled_lasting_and_global() {
    let text = "version: 1\nsite: s\nuplinks:\n  fiber: { interface: wan0 }\n";
    let site = profile::load_bytes(text.as_bytes()).site.unwrap();
    let layout = Layout::new(site, &Remembered::default());
    let mut seen = Snapshot::default();
    let wan0 = IfName::new("wan0").unwrap();
    seen.facts.links.insert(wan0.clone(), link(2));
    let plain = |net: &str| address(&wan0, net.parse().unwrap());
    seen.facts.addresses.extend([
        plain("fd00::1/64"),
        Address { temporary: true, ..plain("2001:db8::1/64") },
        Address { deprecated: true, ..plain("2001:db8::2/64") },
        Address { tentative: true, ..plain("2001:db8::3/64") },
        plain("2001:db8::5/64"),
        plain("2001:db8::4/64"),
        Address { temporary: true, ..plain("192.0.2.1/24") },
        plain("192.0.2.2/24"),
    ]);
    let view = assess(&layout, &seen, &Arc::default());
    let order = ["2001:db8::4", "2001:db8::5", "fd00::1", "2001:db8::1"];
    let order = order.into_iter().chain(["2001:db8::2", "2001:db8::3"]);
    let order: Vec<IpAddr> = order.map(|text| text.parse().unwrap()).collect();
    let facts = view.uplinks.values().next().unwrap();
    let six: Vec<IpAddr> = facts.addresses.iter().copied().filter(IpAddr::is_ipv6).collect();
    assert_eq!(six, order);
    let four: Vec<IpAddr> = facts.addresses.iter().copied().filter(IpAddr::is_ipv4).collect();
    assert_eq!(four, ["192.0.2.2", "192.0.2.1"].map(|text| text.parse::<IpAddr>().unwrap()));
}

#[test]
fn a_public_source_goes_before_a_private_one() {
    let text = "version: 1\nsite: s\nuplinks:\n  dsl: { interface: ppp0, gateway: none }\n";
    let site = profile::load_bytes(text.as_bytes()).site.unwrap();
    let layout = Layout::new(site, &Remembered::default());
    let ppp0 = IfName::new("ppp0").unwrap();
    for private in ["10.0.0.2/32", "100.64.0.2/32", "169.254.0.2/32"] {
        let mut seen = Snapshot::default();
        seen.facts.links.insert(ppp0.clone(), Link { point_to_point: true, ..link(2) });
        let nets = [private, "203.0.113.7/32"].map(|net| address(&ppp0, net.parse().unwrap()));
        seen.facts.addresses.extend(nets);
        let view = assess(&layout, &seen, &Arc::default());
        let way = &view.uplinks.values().next().unwrap().ways[&Family::V4];
        assert_eq!(way.address, IpAddr::from([203, 0, 113, 7]), "beside {private}");
    }
}
