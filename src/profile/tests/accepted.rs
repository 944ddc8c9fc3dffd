//! What good profiles become.

use std::time::Duration;

use crate::model::{
    Balance, CheckKind, Dscp, EventKind, Gateway, Messenger, Name, Notify, Pace, Persistence,
    PersistenceKey, PersistenceMode, PortRange, Protocol, Site, Target, Virtual, WhenAllDown,
};
use crate::profile::load;

const MINIMAL: &str = include_str!("../../../profiles/minimal.yaml");
const FULL: &str = include_str!("../../../profiles/full.yaml");

fn example(text: &str) -> Site {
    load(text).site.unwrap()
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn the_least_profile_has_the_documented_defaults() {
    let site = example(MINIMAL);
    assert_eq!(site.name, "homing");
    let [fiber, cable] = site.uplinks.as_slice() else { panic!("{:?}", site.uplinks) };
    assert_eq!((fiber.name.as_str(), fiber.interface.as_str()), ("fiber", "wan0"));
    assert_eq!((cable.gateway, cable.gateway6), (Gateway::Auto, Gateway::Auto));
    assert_eq!((cable.probe.clone(), cable.weight, cable.id), (None, None, None));
    assert!(site.lans.is_empty() && site.policies.is_empty() && site.probes.is_empty());
    assert_eq!(site.firewall, Default::default());
    assert_eq!(site.marks, Default::default());
    assert_eq!(site.routing, Default::default());
    assert_eq!(site.api, Default::default());
}

#[test]
fn the_complete_profile_becomes_the_site_that_it_describes() {
    let site = example(FULL);
    assert_eq!(site.name, "osaka-office");
    let fiber = site.uplink(&name("fiber")).unwrap();
    assert_eq!(fiber.bandwidth.unwrap().down, 500_000_000);
    assert_eq!(fiber.bandwidth.unwrap().up, 100_000_000);
    assert_eq!(fiber.probe, Some(name("default")));
    assert_eq!(fiber.prefixes.len(), 2);
    assert!(site.uplink(&name("lte")).unwrap().metered);
    let voice = &site.policies[0];
    assert_eq!(voice.tiers, [[name("fiber")], [name("cable")]]);
    assert_eq!(voice.balance, Balance::LowestLatency);
    assert_eq!(voice.matches.protocols, [Protocol::UDP]);
    let sip = PortRange { first: 5060, last: 5060 };
    let rtp = PortRange { first: 10_000, last: 20_000 };
    assert_eq!(voice.matches.ports, [sip, rtp]);
    assert_eq!(site.policies[2].when_all_down, WhenAllDown::Drop);
}

#[test]
fn probes_groups_and_services_become_what_they_say() {
    let site = example(FULL);
    let probe = &site.probes[&name("default")];
    assert_eq!(probe.pace, Pace::PROBE);
    assert_eq!(probe.degraded, Default::default());
    assert_eq!(probe.targets.len(), 5);
    assert!(matches!(&probe.targets[3], Target::Http { url, expect }
        if url.to_string() == "http://192.0.2.3:80/generate_204" && expect.status == Some(204)));
    let web = &site.groups[&name("web")];
    assert_eq!(web.check.pace, Pace::CHECK);
    assert!(matches!(&web.check.kind, Some(CheckKind::Http { path, expect, .. })
        if path == "/healthz" && expect.body.as_deref() == Some("ok")));
    assert_eq!(web.servers[0].weight, 2);
    assert_eq!(web.servers[1].max_connections, Some(500));
    assert!(web.servers[2].backup);
    let shop = &site.services[0];
    assert_eq!(shop.virtuals, ["fiber", "cable"].map(|n| Virtual::Uplink(name(n))));
    assert_eq!(shop.persistence.mode, PersistenceMode::Ssl);
    assert_eq!(shop.persistence.timeout, Some(Duration::from_secs(7200)));
}

fn with(extra: &str) -> Site {
    let base = "version: 1\nuplinks: { fiber: { interface: wan0 }, cable: { interface: wan1 } }\n";
    let loaded = load(&format!("{base}{extra}"));
    loaded.site.unwrap_or_else(|| panic!("{extra}: {:?}", loaded.findings))
}

#[test]
fn ports_without_a_protocol_mean_tcp_and_udp() {
    let site = with("policies: [{ name: a, match: { ports: [443, \"8000-8010\"] } }]\n");
    assert_eq!(site.policies[0].matches.protocols, [Protocol::TCP, Protocol::UDP]);
}

#[test]
fn a_policy_without_uplinks_has_all_in_one_tier() {
    let site = with("policies: [{ name: a }, { name: b, uplinks: fiber, match: { dscp: 1 } }]\n");
    assert_eq!(site.policies[0].tiers, [[name("fiber"), name("cable")]]);
    assert_eq!(site.policies[1].tiers, [[name("fiber")]]);
}

#[test]
fn one_value_stands_for_a_list_of_one() {
    let site = with("policies: [{ name: a, match: { dscp: ef, protocol: 47, to: 192.0.2.1 } }]\n");
    let matches = &site.policies[0].matches;
    assert_eq!(matches.dscp, [Dscp(46)]);
    assert_eq!(matches.protocols, [Protocol::Number(47)]);
    assert_eq!(matches.to, ["192.0.2.1/32".parse().unwrap()]);
}

#[test]
fn persistence_lasts_an_hour_unless_it_says_otherwise() {
    let site = with("policies: [{ name: a, persistence: source-destination }]\n");
    let expected = Persistence::By {
        key: PersistenceKey::SourceDestination,
        timeout: Duration::from_secs(3600),
    };
    assert_eq!(site.policies[0].persistence, expected);
}

#[test]
fn an_inline_probe_has_its_uplinks_name() {
    let site = with("").uplinks.len();
    assert_eq!(site, 2);
    let text = "version: 1\nuplinks:\n  a: { interface: w0, probe: { targets: [{ icmp: 192.0.2.1 }], rise: 7 } }\n  b: { interface: w1 }\n";
    let site = load(text).site.unwrap();
    assert_eq!(site.uplinks[0].probe, Some(name("a")));
    assert_eq!(site.probes[&name("a")].pace.rise, 7);
}

#[test]
fn a_vpn_service_needs_neither_protocol_nor_ports() {
    let site = with(
        "groups: { g: { servers: { a: { address: 10.0.0.1 } } } }\nservices: { s: { virtual: fiber, group: g, persistence: { mode: vpn } } }\n",
    );
    let [ike, nat] = [500, 4500].map(|port| PortRange { first: port, last: port });
    assert_eq!(site.services[0].protocols, [Protocol::UDP]);
    assert_eq!(site.services[0].ports, [ike, nat]);
    assert_eq!(site.services[0].persistence.timeout, Some(Duration::from_secs(180)));
}

#[test]
fn code_points_have_their_names() {
    let of = |text: &str| {
        with(&format!("policies: [{{ name: a, match: {{ dscp: {text} }} }}]\n")).policies[0]
            .matches
            .dscp[0]
            .0
    };
    let names = ["be", "le", "cs1", "af11", "af43", "va", "cs7", "63", "0x2e"];
    assert_eq!(names.map(of), [0, 1, 8, 10, 38, 44, 56, 63, 46]);
}

#[test]
fn anchors_stand_for_what_they_name() {
    let site = with(
        "lans:\n  a: { interface: l0, networks: &n [10.0.0.0/8] }\npolicies: [{ name: p, match: { to: *n } }]\n",
    );
    assert_eq!(site.policies[0].matches.to, ["10.0.0.0/8".parse().unwrap()]);
}

#[test]
fn values_that_look_like_booleans_are_words_where_words_belong() {
    assert_eq!(with("fast-path: off\n").fast_path, crate::model::FastPath::Off);
    assert_eq!(with("site: yes\n").name, "yes");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_no_obstacle() {
    let text =
        "\u{feff}version: 1\r\nuplinks:\r\n  a: { interface: w0 }\r\n  b:\r\n    interface: w1\r\n";
    assert!(load(text).site.is_some(), "{:?}", load(text).findings);
}

#[test]
fn an_empty_list_is_the_default_written_out() {
    let site = with("policies: []\nhelpers: []\nfirewall: { allow: [] }\napi: { listen: [] }\n");
    assert!(site.policies.is_empty() && site.helpers.is_empty());
}

#[test]
fn who_says_nothing_more_is_told_the_news_within_ten_seconds() {
    let site = with(
        "notify:\n  chat: { webhook: \"https://chat.example.net/hook?x=1\" }\n  \
         pager: { command: [/bin/page, --now], events: [failover], timeout: 2s }\n",
    );
    let [chat, pager] = site.notify.as_slice() else { panic!("{:?}", site.notify) };
    assert!(matches!(&chat.by, Messenger::Webhook(url) if url.tls && url.path == "/hook?x=1"));
    assert_eq!((&chat.events, chat.timeout), (&Notify::news(), Duration::from_secs(10)));
    assert!(chat.events.contains(&EventKind::ProfileRefused));
    assert!(!chat.events.contains(&EventKind::Remark));
    let words = ["/bin/page", "--now"].map(str::to_owned).to_vec();
    assert_eq!(pager.by, Messenger::Command(words));
    assert_eq!(pager.events.iter().collect::<Vec<_>>(), [&EventKind::Failover]);
    assert_eq!(pager.timeout, Duration::from_secs(2));
}
