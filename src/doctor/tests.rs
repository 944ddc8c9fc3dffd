//! Each finding, and the silence where there is none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::{Case, Finding, examine};
use crate::kstate::{
    Address, ForeignChain, ForeignTable, Host, Link, MarkChange, Missing, Offload, Route,
    RouteKind, Rule, RuleAction, Snapshot,
};
use crate::model::{Family, IfName, Mark, MarkMask, RulePriority, Site, TableId};
use crate::profile;

pub(super) const PROFILE: &str = "
version: 1
uplinks: { fiber: { interface: wan0 }, cable: { interface: wan1 } }
lans: { office: { interface: lan0 } }
";

fn site() -> Site {
    profile::load_bytes(PROFILE.as_bytes()).site.unwrap()
}

pub(super) fn device(name: &str) -> IfName {
    IfName::new(name).unwrap()
}

/// A host on which nothing is wrong.
pub(super) fn sound() -> Snapshot {
    let mut seen = Snapshot::default();
    for (index, (name, net)) in
        [("wan0", "192.0.2.2/24"), ("wan1", "198.51.100.2/24"), ("lan0", "10.1.0.1/24")]
            .into_iter()
            .enumerate()
    {
        let link = Link {
            index: u32::try_from(index).unwrap() + 2,
            up: true,
            carrier: true,
            mtu: 1500,
            loopback: false,
            point_to_point: false,
        };
        seen.facts.links.insert(device(name), link);
        add_address(&mut seen, name, net);
    }
    seen.facts.rules.insert(Rule { protocol: 2, ..rule(0, RuleAction::Lookup(TableId(255))) });
    seen.facts.rules.insert(Rule { protocol: 2, ..rule(32766, RuleAction::Lookup(TableId(254))) });
    add_route(&mut seen, 254, "0.0.0.0/0", "wan0");
    add_route(&mut seen, 254, "0.0.0.0/0", "wan1");
    seen
}

pub(super) fn add_address(seen: &mut Snapshot, name: &str, net: &str) {
    seen.facts.addresses.insert(Address {
        device: device(name),
        net: net.parse().unwrap(),
        peer: None,
        global: true,
        tentative: false,
        deprecated: false,
        temporary: false,
    });
}

pub(super) fn add_route(seen: &mut Snapshot, table: u32, net: &str, name: &str) {
    seen.facts.routes.insert(Route {
        table: TableId(table),
        destination: net.parse().unwrap(),
        kind: RouteKind::Unicast,
        gateway: None,
        device: Some(device(name)),
        source: None,
        metric: 0,
        mtu: None,
        onlink: false,
        protocol: 3,
    });
}

pub(super) fn rule(priority: u32, action: RuleAction) -> Rule {
    Rule {
        priority: RulePriority(priority),
        family: Family::V4,
        invert: false,
        mark: None,
        source: None,
        input: None,
        output: None,
        action,
        suppress_prefix_length: None,
        protocol: 0,
        has_more: false,
    }
}

pub(super) fn lookup(priority: u32, table: u32) -> Rule {
    rule(priority, RuleAction::Lookup(TableId(table)))
}

fn marked(rule: Rule, mark: u32, mask: u32) -> Rule {
    Rule { mark: Some((Mark(mark), MarkMask(mask))), ..rule }
}

pub(super) fn findings(seen: &Snapshot, host: &Host) -> Vec<Finding> {
    examine(Case { site: Some(&site()), missing: &[], seen, host })
}

/// `severity code` of each finding.
pub(super) fn codes(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|f| format!("{} {}", f.severity.as_str(), f.code)).collect()
}

#[track_caller]
fn expect_rules(rules: &[Rule], expected: &[&str]) {
    let mut seen = sound();
    for (table, net) in [(51820, "0.0.0.0/0"), (77, "0.0.0.0/1"), (52, "100.64.0.0/10")] {
        add_route(&mut seen, table, net, "vpn0");
    }
    seen.facts.rules.extend(rules.iter().cloned());
    assert_eq!(codes(&findings(&seen, &Host::default())), expected, "{rules:?}");
}

#[track_caller]
fn expect_table(table: ForeignTable, expected: &[&str]) {
    let host = Host { tables: vec![table], ..Host::default() };
    assert_eq!(codes(&findings(&sound(), &host)), expected);
}

#[test]
fn a_sound_host_is_left_in_peace() {
    assert_eq!(findings(&sound(), &Host::default()), []);
}

#[test]
fn what_the_kernel_lacks_comes_first_with_its_remedy() {
    let what = "sessions cannot be read (the kernel refused: no such file)".to_owned();
    let missing = [Missing { what, remedy: "modprobe nf_conntrack_netlink".to_owned() }];
    let mut seen = sound();
    add_address(&mut seen, "lan0", "fd00::1/64");
    seen.facts.links.get_mut(&device("lan0")).unwrap().mtu = 1200;
    let case = Case { site: Some(&site()), missing: &missing, seen: &seen, host: &Host::default() };
    let found = examine(case);
    assert_eq!(codes(&found), ["error missing", "warning mtu"]);
    assert!(found[0].message.ends_with("no such file)"), "{}", found[0].message);
    assert_eq!(found[0].remedy, "modprobe nf_conntrack_netlink");
}

#[test]
fn a_rule_that_takes_everything_to_a_vpn_bypasses_us() {
    let wireguard = Rule { invert: true, ..marked(lookup(9999, 51820), 0xca6c, u32::MAX) };
    expect_rules(&[wireguard], &["error bypass", "warning mark-shared"]);
    expect_rules(&[lookup(5000, 77)], &["error bypass"]);
    expect_rules(&[rule(5000, RuleAction::Unreachable)], &["error bypass"]);
}

#[test]
fn a_vpn_with_networks_of_its_own_is_welcome() {
    let tailscale = [
        marked(lookup(5210, 254), 0x80000, 0xff0000),
        marked(rule(5250, RuleAction::Unreachable), 0x80000, 0xff0000),
        lookup(5270, 52),
    ];
    expect_rules(&tailscale, &[]);
    let suppressed = Rule { suppress_prefix_length: Some(0), ..lookup(9998, 254) };
    expect_rules(&[suppressed], &[]);
}

#[test]
fn a_rule_for_some_is_told_as_such() {
    let guests = Rule { source: "10.1.9.0/24".parse().ok(), ..lookup(5000, 51820) };
    expect_rules(std::slice::from_ref(&guests), &["warning bypass-part"]);
    let behind = Rule { priority: RulePriority(32765), ..guests };
    expect_rules(&[behind], &["warning rule-never-reached"]);
    expect_rules(&[lookup(10_100, 52)], &["warning rule-among-ours"]);
    expect_rules(&[lookup(32_000, 52)], &["warning rule-never-reached"]);
    expect_rules(&[Rule { protocol: 3, ..lookup(32_766, 254) }, lookup(32_767, 253)], &[]);
}

#[test]
fn another_user_of_our_marks_is_an_error() {
    expect_rules(&[marked(lookup(2001, 1), 0x100, 0x3f00)], &["error mark-taken"]);
    expect_rules(&[marked(lookup(2001, 1), 0x10000, 0xff0000)], &[]);
}

#[test]
fn a_table_of_ours_that_another_uses_is_told() {
    let mut seen = sound();
    add_route(&mut seen, 10_005, "0.0.0.0/0", "wan1");
    assert_eq!(codes(&findings(&seen, &Host::default())), ["warning table-taken"]);
}

#[test]
fn tables_of_other_software_are_judged_by_what_they_do() {
    let chain = |name: &str, closes_forward, accepts| ForeignChain {
        name: name.into(),
        closes_forward,
        accepts,
    };
    let with = |table: &str, more| ForeignTable {
        name: table.into(),
        chains: vec![chain("FORWARD", true, false), more],
        ..ForeignTable::default()
    };
    let closed = |table: &str, more: &str| with(table, chain(more, false, false));
    let opened = |table: &str, more: &str| with(table, chain(more, false, true));
    expect_table(closed("ip filter", "DOCKER-USER"), &["warning docker"]);
    expect_table(opened("ip filter", "DOCKER-USER"), &["note forward-closed"]);
    expect_table(closed("ip filter", "ufw-user-forward"), &["warning ufw"]);
    expect_table(closed("ip6 filter", "ufw6-user-forward"), &["warning ufw"]);
    expect_table(opened("ip filter", "ufw-user-forward"), &["note forward-closed"]);
    expect_table(closed("inet firewalld", "x"), &["warning firewalld"]);
    expect_table(closed("inet filter", "x"), &["note forward-closed"]);
    let offloaded =
        |name| ForeignTable { offloaded: vec![device(name)], ..ForeignTable::default() };
    expect_table(offloaded("wan0"), &["warning offload"]);
    expect_table(offloaded("eth9"), &[]);
    let writes = |connection, bits| ForeignTable {
        marks: vec![MarkChange { chain: "c".into(), connection, bits }],
        ..ForeignTable::default()
    };
    expect_table(writes(true, u32::MAX), &["error session-mark-written"]);
    expect_table(writes(true, 0x00ff_0000), &[]);
    expect_table(writes(false, 0x100), &["warning packet-mark-written"]);
    expect_table(writes(false, 0x4000), &[]);
}

#[test]
fn what_nobody_could_look_at_is_told() {
    let blind = Host { unlisted: Some("nft ended".into()), ..Host::default() };
    assert_eq!(codes(&findings(&sound(), &blind)), ["warning not-judged"]);
    let missing = [Missing { what: "nft is not installed".into(), remedy: "install it".into() }];
    let case = Case { site: None, missing: &missing, seen: &sound(), host: &blind };
    assert_eq!(codes(&examine(case)), ["error missing"], "not said twice");
    let legacy = Host { legacy_tables: vec!["iptables filter".into()], ..Host::default() };
    assert_eq!(codes(&findings(&sound(), &legacy)), ["note legacy-tables"]);
}

#[test]
fn other_things_on_the_host_are_told() {
    let host = Host {
        networkd_removes: vec!["ManageForeignRoutes"],
        listening: vec![
            ("tcp", "0.0.0.0:22".parse().unwrap()),
            ("tcp", "127.0.0.1:25".parse().unwrap()),
            ("udp", "10.1.0.1:53".parse().unwrap()),
            ("udp", "192.0.2.2:51820".parse().unwrap()),
        ],
        sessions: Some((900, 1000)),
        ..Host::default()
    };
    let found = findings(&sound(), &host);
    let expected = ["warning networkd", "warning sessions-full", "note open-ports"];
    assert_eq!(codes(&found), expected);
    assert!(found[0].remedy.contains("ManageForeignRoutes=no"), "{}", found[0].remedy);
    assert!(found[2].message.ends_with("tcp 22, udp 51820"), "{}", found[2].message);
}

#[test]
fn it_is_told_why_sessions_do_not_go_past_the_rules() {
    let devices = || ["wan0", "wan1", "lan0"].map(device).into();
    let codes_with = |offload: Offload| {
        let mut seen = sound();
        seen.facts.offload = Some(offload);
        findings(&seen, &Host::default())
    };
    let fine = Offload { accepted: devices(), ..Offload::default() };
    assert!(codes(&codes_with(fine.clone())).is_empty());
    let missing = Offload { missing: Some("none here".into()), ..Offload::default() };
    let found = codes_with(missing);
    assert_eq!(codes(&found), ["note fast-path"]);
    assert!(found[0].message.contains("none here"), "{}", found[0].message);
    let refused = [(device("lan0"), "odd".to_owned())].into();
    let accepted = ["wan0", "wan1"].map(device).into();
    let found = codes_with(Offload { accepted, refused, ..Offload::default() });
    assert_eq!(codes(&found), ["note fast-path-device"]);
    let found = codes_with(Offload { software: Some("no driver".into()), ..fine });
    assert_eq!(codes(&found), ["note fast-path-hardware"]);
}
