//! The process dies between any two steps, loses its state directory, and starts again.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test says what it expects

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::kernel::{Fake, Kernel as _};
use crate::kstate::{Address, KernelState, Link, Route, RouteKind, Rule, RuleAction, Snapshot};
use crate::model::{Family, IfName, Site, TableId};
use crate::plan::{self, Layout, Remembered, Scope};
use crate::profile;

const FULL: &str = "
version: 1
site: crash
uplinks:
  fiber: { interface: wan0, weight: 5 }
  cable: { interface: wan1, weight: 4 }
  lte: { interface: wan2, prefixes: [192.0.2.0/28] }
lans: { office: { interface: lan0 } }
policies:
  - { name: voice, match: { protocol: udp, ports: [5060] }, uplinks: [[fiber], [cable]] }
  - { name: bank, match: { ports: [443] }, persistence: { by: source } }
groups: { web: { servers: { a: { address: 10.0.0.2 } } } }
services:
  one: { virtual: [{ address: 203.0.113.10, on: fiber }], protocol: tcp, ports: [443], group: web }
  two: { virtual: [{ address: '2001:db8:a::10', on: lte }], protocol: tcp, ports: [443], group: web }
";

/// Another uplink in the middle, one gone, other weights, another policy, an address elsewhere.
const OTHER: &str = "
version: 1
site: crash
uplinks:
  fiber: { interface: wan0, weight: 1 }
  dsl: { interface: wan3, weight: 3 }
  cable: { interface: wan1, weight: 4 }
lans: { office: { interface: lan0 } }
policies:
  - { name: bank, match: { ports: [443, 8443] }, persistence: { by: source, timeout: 5m } }
  - { name: default, balance: source-hash, when-all-down: drop }
firewall: { input: closed }
groups: { web: { servers: { a: { address: 10.0.0.2 } } } }
services:
  one: { virtual: [{ address: 203.0.113.10, on: cable }], protocol: tcp, ports: [443], group: web }
";

fn site(text: &str) -> Site {
    profile::load(text).site.expect("a right profile")
}

/// A host with four uplinks that work, and nothing of ours.
fn host() -> Snapshot {
    let mut seen = Snapshot::default();
    for (number, name) in ["wan0", "wan1", "wan2", "wan3", "lan0"].into_iter().enumerate() {
        let number = u8::try_from(number).unwrap();
        let device = IfName::new(name).unwrap();
        let link = Link {
            index: u32::from(number) + 2,
            up: true,
            carrier: true,
            mtu: 1500,
            loopback: false,
            point_to_point: false,
        };
        seen.facts.links.insert(device.clone(), link);
        for net in [format!("198.18.{number}.2/24"), format!("2001:db8:{number}::2/64")] {
            seen.facts.addresses.insert(Address {
                device: device.clone(),
                net: net.parse().unwrap(),
                peer: None,
                global: true,
                tentative: false,
                deprecated: false,
                temporary: false,
            });
        }
        let hops = [format!("198.18.{number}.1"), "fe80::1".to_owned()];
        for hop in hops.iter().filter(|_| name != "lan0") {
            let gateway = hop.parse().unwrap();
            seen.facts.routes.insert(Route {
                table: TableId(254),
                destination: Family::of(gateway).any(),
                kind: RouteKind::Unicast,
                gateway: Some(gateway),
                device: Some(device.clone()),
                source: None,
                metric: 100 + u32::from(number),
                mtu: None,
                onlink: false,
                protocol: 16,
            });
        }
    }
    let devices: Vec<_> = seen.facts.links.keys().cloned().collect();
    for key in plan::interesting_sysctls(devices.iter(), devices.iter()) {
        seen.ours.sysctls.insert(key, "0".to_owned());
    }
    seen
}

/// A start: what is remembered comes from the kernel alone. How far it gets is the fake's to say.
fn start(kernel: &mut Fake, site: &Site) -> (Layout, KernelState) {
    let seen = kernel.observe().unwrap();
    let remembered = seen.ours.nft.as_deref().map(Remembered::from_kernel).unwrap_or_default();
    let layout = Layout::new(site.clone(), &remembered);
    let desired = plan::build(&layout, &plan::assess(&layout, &seen, &Arc::default()), &seen);
    for step in plan::diff(&desired, &seen.ours, Scope::All).steps {
        if kernel.apply(&step).is_err() {
            break;
        }
    }
    (layout, desired)
}

fn running(text: &str) -> Fake {
    let mut kernel = Fake::new(host());
    start(&mut kernel, &site(text));
    kernel.done.clear();
    kernel
}

/// What a live session of an uplink needs, in every state on the way.
fn assert_carries(state: &KernelState, layout: &Layout, uplinks: &[&str], when: &str) {
    for (uplink, id) in layout.uplinks().filter(|(u, _)| uplinks.contains(&u.name.as_str())) {
        for family in Family::BOTH {
            let leads = |rule: &&Rule| {
                rule.family == family
                    && rule.mark == Some((layout.mark(id), layout.site.marks.uplink))
                    && rule.action == RuleAction::Lookup(layout.table(id))
            };
            assert!(state.rules.iter().any(|r| leads(&r)), "{when}: no rule of {}", uplink.name);
            let way = |route: &&Route| {
                route.table == layout.table(id)
                    && route.is_default()
                    && route.family() == family
                    && route.device.as_ref() == Some(&uplink.interface)
            };
            assert!(state.routes.iter().any(|r| way(&r)), "{when}: no way of {}", uplink.name);
        }
        let table = state.nft.as_ref().expect("the table");
        let mark = layout.mark(id).0.to_ne_bytes();
        assert!(
            table.sets["restore"].elements.contains_key(mark.as_slice()),
            "{when}: {}",
            uplink.name
        );
    }
}

/// Nothing that marks packets without the rules that keep marked packets in.
fn assert_tight(state: &KernelState, when: &str) {
    let floors = state.rules.iter().filter(|r| r.invert && r.action == RuleAction::Unreachable);
    let families: BTreeSet<Family> = floors.map(|rule| rule.family).collect();
    assert!(state.nft.is_none() || families.len() == 2, "{when}: marks without the floor");
}

/// An address that both profiles serve is there, wherever.
fn assert_reached(state: &KernelState, when: &str) {
    let mut addresses = state.addresses.iter().map(|own| own.address.to_string());
    assert!(addresses.any(|address| address == "203.0.113.10"), "{when}: the address is gone");
}

#[test]
fn a_first_start_that_dies_anywhere_is_finished_by_the_next() {
    let all = running(FULL).state;
    for limit in 0.. {
        let mut kernel = Fake::new(host());
        kernel.fail_at = Some(limit);
        start(&mut kernel, &site(FULL));
        let died = kernel.done.len() == limit;
        assert_tight(&kernel.state.ours, &format!("after {limit} steps"));
        kernel.fail_at = None;
        start(&mut kernel, &site(FULL));
        assert_eq!(kernel.state.ours, all.ours, "after {limit} steps");
        if !died {
            assert!(limit > 20, "only {limit} steps");
            return;
        }
    }
}

#[test]
fn a_reload_that_dies_anywhere_carries_what_stays_and_is_finished_by_the_next() {
    for (from, to) in [(FULL, OTHER), (OTHER, FULL), (FULL, FULL)] {
        let mut whole = running(from);
        let (layout, _) = start(&mut whole, &site(to));
        let steps = whole.done.len();
        for limit in 0..=steps {
            let when = format!("after {limit} of {steps} steps");
            let mut kernel = running(from);
            kernel.fail_at = Some(limit);
            start(&mut kernel, &site(to));
            assert_carries(&kernel.state.ours, &layout, &["fiber", "cable"], &when);
            assert_reached(&kernel.state.ours, &when);
            assert_tight(&kernel.state.ours, &when);
            kernel.fail_at = None;
            let (again, _) = start(&mut kernel, &site(to));
            assert_eq!(again.ids, layout.ids, "{when}: other numbers");
            assert_eq!(kernel.state.ours, whole.state.ours, "{when}");
        }
    }
}

#[test]
fn a_take_down_that_dies_anywhere_is_finished_by_the_next() {
    let steps = plan::removal(&running(FULL).state.ours).steps.len();
    for limit in 0..=steps {
        let mut kernel = running(FULL);
        kernel.fail_at = Some(limit);
        for step in plan::removal(&kernel.state.ours).steps {
            let _ = kernel.apply(&step);
        }
        kernel.fail_at = None;
        for step in plan::removal(&kernel.state.ours).steps {
            kernel.apply(&step).unwrap();
        }
        let left = &kernel.state.ours;
        assert!(left.nft.is_none() && left.rules.is_empty() && left.routes.is_empty());
        assert!(left.addresses.is_empty());
    }
}
