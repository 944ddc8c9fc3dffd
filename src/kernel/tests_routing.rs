//! Routes, rules, links and addresses on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::stage::{linux, plug_wan, run, stage};
use super::{Kernel, Linux};
use crate::kstate::{OUR_PROTOCOL, Route, RouteKind, Rule, RuleAction, Snapshot, Step, SysctlKey};
use crate::model::{Family, IfName, Mark, MarkMask, RulePriority, TableId};

fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn device(text: &str) -> Option<IfName> {
    IfName::new(text).ok()
}

fn observe(linux: &mut Linux) -> Snapshot {
    linux.observe().unwrap_or_else(|error| panic!("{error:?}"))
}

fn apply(linux: &mut Linux, step: Step) {
    linux.apply(&step).unwrap_or_else(|error| panic!("{error}: {error:?}"));
}

fn route(destination: &str) -> Route {
    Route {
        table: TableId(10_001),
        destination: net(destination),
        kind: RouteKind::Unicast,
        gateway: None,
        device: device("wan0"),
        source: None,
        metric: 100,
        mtu: None,
        onlink: false,
        protocol: OUR_PROTOCOL,
    }
}

fn routes() -> BTreeSet<Route> {
    let unreachable = |destination| Route {
        kind: RouteKind::Unreachable,
        device: None,
        metric: u32::MAX,
        ..route(destination)
    };
    let full = |destination, gateway, source| Route {
        gateway: ip(gateway),
        source: ip(source),
        mtu: Some(1400),
        ..route(destination)
    };
    let onlink = |destination, gateway| Route {
        gateway: ip(gateway),
        onlink: true,
        metric: 200,
        ..route(destination)
    };
    BTreeSet::from([
        full("0.0.0.0/0", "192.0.2.1", "192.0.2.2"),
        full("::/0", "2001:db8::1", "2001:db8::2"),
        full("::/0", "2001:db8::3", "2001:db8::2"),
        onlink("0.0.0.0/0", "203.0.113.1"),
        onlink("::/0", "2001:db8:f::1"),
        onlink("2001:db8:9::/48", "fe80::1"),
        route("192.0.2.0/24"),
        route("2001:db8::/64"),
        route("198.51.100.7/32"),
        Route { gateway: ip("2001:db8::1"), ..route("198.51.100.8/32") },
        unreachable("0.0.0.0/0"),
        unreachable("::/0"),
        Route { table: TableId(10_063), ..route("192.0.2.0/24") },
    ])
}

#[test]
fn routes_come_back_as_they_were_written() {
    stage(|| {
        plug_wan();
        let mut linux = linux();
        let before = observe(&mut linux);
        for _ in 0..2 {
            for route in routes() {
                apply(&mut linux, Step::AddRoute(route));
            }
            let seen = observe(&mut linux);
            // Two equal metrics are one multipath route in IPv6, which is one value each.
            assert_eq!(seen.ours.routes, routes());
            assert_eq!(seen.facts.routes, before.facts.routes);
        }
        for _ in 0..2 {
            for route in routes() {
                apply(&mut linux, Step::DeleteRoute(route));
            }
            assert_eq!(observe(&mut linux), before);
        }
    });
}

#[test]
fn a_route_changes_its_gateway_source_or_mtu_without_a_gap() {
    stage(|| {
        plug_wan();
        run("ip addr add 192.0.2.4/24 dev wan0");
        run("ip addr add 2001:db8::4/64 dev wan0 nodad");
        let mut linux = linux();
        for (destination, gateways, sources) in [
            ("0.0.0.0/0", ["192.0.2.1", "192.0.2.3"], ["192.0.2.2", "192.0.2.4"]),
            ("::/0", ["2001:db8::1", "2001:db8::3"], ["2001:db8::2", "2001:db8::4"]),
        ] {
            let variant = |gateway: usize, source: usize, mtu| Route {
                gateway: ip(gateways[gateway]),
                source: ip(sources[source]),
                mtu: Some(mtu),
                ..route(destination)
            };
            let steps = [
                variant(0, 0, 1400),
                variant(1, 0, 1400),
                variant(1, 1, 1400),
                variant(1, 1, 1300),
            ];
            apply(&mut linux, Step::AddRoute(steps[0].clone()));
            for pair in steps.windows(2) {
                apply(&mut linux, Step::AddRoute(pair[1].clone()));
                assert!(observe(&mut linux).ours.routes.contains(&pair[1]));
                apply(&mut linux, Step::DeleteRoute(pair[0].clone()));
                let seen = observe(&mut linux).ours.routes;
                let left: Vec<_> =
                    seen.iter().filter(|r| r.destination == pair[1].destination).collect();
                assert_eq!(left, [&pair[1]]);
            }
        }
    });
}

#[test]
fn routes_of_others_are_facts() {
    stage(|| {
        plug_wan();
        run("ip route add default via 192.0.2.1 metric 50");
        run("ip route add 198.51.100.0/24 table 10001 via 192.0.2.1");
        run(
            "ip route add 198.51.101.0/24 proto 201 nexthop via 192.0.2.1 weight 2 nexthop via 192.0.2.3",
        );
        run("ip -6 route add 2001:db8:1::/64 table 10001 proto 201 via 2001:db8::1");
        let seen = observe(&mut linux());
        let ours: Vec<_> = seen.ours.routes.iter().map(|r| r.to_string()).collect();
        assert_eq!(
            ours,
            ["2001:db8:1::/64 via 2001:db8::1 dev wan0 table 10001 metric 1024 proto 201"]
        );
        let facts: Vec<_> = seen.facts.routes.iter().map(|r| r.to_string()).collect();
        for wanted in [
            "default via 192.0.2.1 dev wan0 table 254 metric 50 proto 3",
            "198.51.100.0/24 via 192.0.2.1 dev wan0 table 10001 proto 3",
            "198.51.101.0/24 via 192.0.2.1 dev wan0 table 254 proto 201",
            "198.51.101.0/24 via 192.0.2.3 dev wan0 table 254 proto 201",
            "192.0.2.0/24 dev wan0 table 254 src 192.0.2.2 proto 2",
        ] {
            assert!(facts.contains(&wanted.to_owned()), "{wanted} not in {facts:#?}");
        }
        assert!(!facts.iter().any(|r| r.contains("table 255")), "{facts:#?}");
    });
}

#[test]
fn a_route_that_cannot_be_says_why() {
    stage(|| {
        plug_wan();
        let mut linux = linux();
        let mut bad = route("0.0.0.0/0");
        bad.gateway = ip("203.0.113.1");
        let error = linux.apply(&Step::AddRoute(bad.clone())).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot add the route `default via 203.0.113.1 dev wan0 table 10001 metric 100 proto 201`"
        );
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(
            source.as_deref(),
            Some("the kernel refused: Network is unreachable (Nexthop has invalid gateway)")
        );
        bad.device = device("gone0");
        let error = linux.apply(&Step::AddRoute(bad.clone())).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("there is no interface gone0"));
        apply(&mut linux, Step::DeleteRoute(bad));
    });
}

fn rule(priority: u32, family: Family, action: RuleAction) -> Rule {
    Rule {
        priority: RulePriority(priority),
        family,
        invert: false,
        mark: None,
        source: None,
        input: None,
        output: None,
        action,
        suppress_prefix_length: None,
        protocol: OUR_PROTOCOL,
        has_more: false,
    }
}

fn rules() -> BTreeSet<Rule> {
    let mut all = BTreeSet::new();
    let table = RuleAction::Lookup(TableId(10_001));
    let main = RuleAction::Lookup(TableId(254));
    let mark = |mark| Some((Mark(mark), MarkMask(0x3f00)));
    for family in Family::BOTH {
        let source = match family {
            Family::V4 => "192.0.2.2/32",
            Family::V6 => "2001:db8::2/128",
        };
        all.extend([
            Rule { mark: mark(0), suppress_prefix_length: Some(0), ..rule(10_000, family, main) },
            Rule { mark: mark(0x100), ..rule(10_001, family, table) },
            Rule { mark: mark(0x3f00), ..rule(10_100, family, RuleAction::Unreachable) },
            Rule { output: device("wan0"), ..rule(10_200, family, table) },
            Rule { source: Some(net(source)), ..rule(10_201, family, table) },
            Rule { input: device("wan0"), ..rule(10_202, family, table) },
            Rule { invert: true, mark: mark(0), ..rule(10_300, family, RuleAction::Unreachable) },
            rule(10_399, family, RuleAction::Lookup(TableId(10_063))),
        ]);
    }
    all
}

#[test]
fn rules_come_back_as_they_were_written() {
    stage(|| {
        let mut linux = linux();
        let before = observe(&mut linux);
        assert_eq!(before.facts.rules.len(), 5, "{:#?}", before.facts.rules);
        for _ in 0..2 {
            for rule in rules() {
                apply(&mut linux, Step::AddRule(rule));
            }
            let seen = observe(&mut linux);
            assert_eq!(seen.ours.rules, rules());
            assert_eq!(seen.facts, before.facts);
        }
        let listed = run("ip rule");
        assert_eq!(listed.lines().count(), 3 + 8, "no doubles: {listed}");
        for wanted in [
            "10000:\tfrom all fwmark 0/0x3f00 lookup main suppress_prefixlength 0 proto 201",
            "10001:\tfrom all fwmark 0x100/0x3f00 lookup 10001 proto 201",
            "10300:\tnot from all fwmark 0/0x3f00 unreachable proto 201",
        ] {
            assert!(listed.contains(wanted), "{wanted} not in {listed}");
        }
        for _ in 0..2 {
            for rule in rules() {
                apply(&mut linux, Step::DeleteRule(rule));
            }
            assert_eq!(observe(&mut linux), before);
        }
    });
}

#[test]
fn rules_with_more_than_we_hold_say_so() {
    stage(|| {
        run("ip rule add pref 10010 proto 201 ipproto tcp dport 80 lookup 10001");
        run("ip rule add pref 10011 proto 201 uidrange 0-0 lookup 10001");
        run("ip rule add pref 10012 proto 201 to 192.0.2.1 lookup 10001");
        run("ip rule add pref 10013 proto 201 tos 0x10 lookup 10001");
        run("ip rule add pref 10014 proto 201 goto 10399");
        run("ip rule add pref 10015 proto 201 from 192.0.2.1 iif lo lookup 10001");
        run("ip rule add pref 9999 proto 201 lookup 10001");
        run("ip rule add pref 10016 lookup 10001");
        let seen = observe(&mut linux());
        let more: Vec<_> = seen.ours.rules.iter().map(|r| (r.priority.0, r.has_more)).collect();
        let expected = [true, true, true, true, true, false];
        assert_eq!(more, (10_010..).zip(expected).collect::<Vec<_>>());
        let foreign = |p| seen.facts.rules.iter().any(|r| r.priority.0 == p);
        assert!(foreign(9999) && foreign(10_016));
    });
}

#[test]
fn links_and_addresses_are_read() {
    stage(|| {
        plug_wan();
        run("ip addr add 10.0.0.1 peer 10.0.0.9/32 dev wan0");
        run("ip addr add 192.0.2.3/24 dev wan0");
        run("ip addr add 2001:db8::9/64 dev wan0 nodad preferred_lft 0");
        let mut linux = linux();
        let wan0 = device("wan0").unwrap();
        let seen = observe(&mut linux);
        let link = &seen.facts.links[&wan0];
        assert!(link.up && link.carrier && !link.loopback && !link.point_to_point);
        assert_eq!(link.mtu, 1500);
        assert!(seen.facts.links[&device("lo").unwrap()].loopback);
        let found = |address: &str| {
            let address = ip(address);
            let mut all = seen.facts.addresses.iter();
            all.find(|a| Some(a.net.addr()) == address).cloned().unwrap()
        };
        let first = found("192.0.2.2");
        assert_eq!(first.net, net("192.0.2.2/24"));
        assert!(first.global && !first.tentative && !first.temporary);
        assert!(found("192.0.2.3").temporary);
        assert!(found("2001:db8::9").deprecated);
        assert_eq!(found("10.0.0.1").peer, Some(net("10.0.0.9/32")));
        assert!(!found("127.0.0.1").global);
        run("ip link set far0 down");
        assert!(!observe(&mut linux).facts.links[&wan0].carrier);
        run("ip link set wan0 down");
        assert!(!observe(&mut linux).facts.links[&wan0].up);
    });
}

#[test]
fn settings_are_those_of_this_namespace() {
    stage(|| {
        plug_wan();
        let key = |text: &str| SysctlKey(text.into());
        let (set, gone) =
            (key("net/ipv4/conf/wan0/rp_filter"), key("net/ipv4/conf/gone0/rp_filter"));
        let mut linux = linux();
        assert!(linux.set_sysctl_interest(vec![set.clone(), gone.clone()]));
        assert!(!linux.set_sysctl_interest(vec![set.clone(), gone.clone()]));
        apply(&mut linux, Step::SetSysctl(set.clone(), "2".into()));
        let seen = observe(&mut linux).ours.sysctls;
        assert_eq!(seen.get(&set).map(String::as_str), Some("2"));
        assert!(!seen.contains_key(&gone));
        let error = linux.apply(&Step::SetSysctl(gone, "1".into())).unwrap_err();
        assert_eq!(error.to_string(), "cannot set net.ipv4.conf.gone0.rp_filter to 1");
    });
}
