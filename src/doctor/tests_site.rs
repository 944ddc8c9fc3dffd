//! Findings about the site's own devices and networks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::tests::{add_address, add_route, codes, device, findings, lookup, sound};
use super::{Case, examine, interesting_sysctls};
use crate::kstate::{Host, Rule, Snapshot, SysctlKey};
use crate::profile;

#[test]
fn networks_that_overlap_are_errors_unless_two_uplinks_share_one() {
    let overlap = |name: &str, net: &str| {
        let mut seen = sound();
        seen.facts.links.insert(device(name), seen.facts.links[&device("lan0")].clone());
        add_address(&mut seen, name, net);
        codes(&findings(&seen, &Host::default()))
    };
    assert_eq!(overlap("docker0", "10.1.0.129/25"), ["error overlap"]);
    assert_eq!(overlap("lan0", "192.0.2.9/26"), ["error overlap"]);
    assert_eq!(overlap("docker0", "192.0.2.9/26"), ["error overlap"]);
    assert_eq!(overlap("wan1", "192.0.2.3/24"), [""; 0]);
    assert_eq!(overlap("docker0", "172.17.0.1/16"), [""; 0]);
    assert_eq!(overlap("docker0", "10.1.0.9/32"), [""; 0]);
}

#[test]
fn a_device_that_is_not_there_is_told() {
    let mut seen = sound();
    seen.facts.links.remove(&device("wan1"));
    let found = findings(&seen, &Host::default());
    assert_eq!(codes(&found), ["warning no-device"]);
    assert!(found[0].message.contains("uplink cable"), "{}", found[0].message);
}

fn found(seen: &Snapshot) -> Vec<String> {
    codes(&findings(seen, &Host::default()))
}

#[test]
fn a_wide_network_around_ours_is_no_error() {
    let mut seen = sound();
    seen.facts.links.insert(device("wg0"), seen.facts.links[&device("lan0")].clone());
    add_address(&mut seen, "wg0", "10.0.0.1/8");
    assert_eq!(found(&seen), ["warning overlap"]);
}

#[test]
fn a_size_without_ipv6_counts_where_there_is_ipv6() {
    let mut seen = sound();
    seen.facts.links.get_mut(&device("wan1")).unwrap().mtu = 1200;
    assert_eq!(found(&seen), [""; 0]);
    add_address(&mut seen, "lan0", "fd00::1/64");
    assert_eq!(found(&seen), ["warning mtu"]);
}

#[test]
fn a_route_of_others_to_our_lan_is_an_error_unless_main_is_asked_first() {
    let cases: [(&str, &str, u32, &[&str]); 6] = [
        ("10.1.0.0/24", "tailscale0", 5270, &["error network-taken"]),
        ("10.0.0.0/8", "tailscale0", 5270, &["error network-taken"]),
        ("10.1.0.128/25", "tailscale0", 5270, &["error network-taken"]),
        ("10.1.0.0/24", "lan0", 5270, &[]),
        ("10.9.0.0/24", "tailscale0", 5270, &[]),
        ("10.1.0.0/24", "tailscale0", 32_000, &["warning rule-never-reached"]),
    ];
    for (net, by, priority, expected) in cases {
        let mut seen = sound();
        add_route(&mut seen, 52, net, by);
        seen.facts.rules.insert(lookup(priority, 52));
        assert_eq!(found(&seen), expected, "{net} by {by} at {priority}");
        let main = Rule { suppress_prefix_length: Some(0), ..lookup(priority - 1, 254) };
        seen.facts.rules.insert(main);
        let mended = if priority == 5270 { &[][..] } else { expected };
        assert_eq!(found(&seen), mended, "{net} by {by}, the remedy in place");
    }
}

#[test]
fn forwarding_that_is_off_for_one_device_is_an_error() {
    let site = profile::load_bytes(super::tests::PROFILE.as_bytes()).site.unwrap();
    let wanted = interesting_sysctls(&site);
    let set = |key: &str, value: &str, whole: &str| {
        let mut seen = sound();
        for known in &wanted {
            let value = if known.0.ends_with("proxy_arp") { "0" } else { "1" };
            seen.ours.sysctls.insert(known.clone(), value.to_owned());
        }
        seen.ours.sysctls.insert(SysctlKey("net/ipv4/ip_forward".to_owned()), whole.to_owned());
        let key = SysctlKey(format!("net/ipv4/conf/{key}"));
        assert!(wanted.contains(&key), "{key:?} is not read");
        seen.ours.sysctls.insert(key, value.to_owned());
        found(&seen)
    };
    assert_eq!(set("wan0/forwarding", "1", "1"), [""; 0]);
    assert_eq!(set("wan0/forwarding", "0", "1"), ["error forwarding-off"]);
    assert_eq!(set("lan0/forwarding", "0", "1"), ["error forwarding-off"]);
    assert_eq!(set("wan0/forwarding", "0", "0"), [""; 0], "homing switches it on for all");
    assert_eq!(set("wan0/proxy_arp", "1", "1"), ["warning proxy-arp"]);
    assert_eq!(set("lan0/proxy_arp", "1", "1"), [""; 0]);
    assert_eq!(set("all/proxy_arp", "1", "1"), ["warning proxy-arp"; 2]);
}

#[test]
fn an_uplink_whose_gateway_cannot_be_learned_is_told() {
    let mut seen = sound();
    seen.facts.routes.retain(|route| route.device != Some(device("wan1")));
    assert_eq!(found(&seen), ["warning no-gateway"]);
    let text = super::tests::PROFILE.replace("wan1", "wan1, gateway: 198.51.100.1");
    let told = profile::load_bytes(text.as_bytes()).site.unwrap();
    let case = Case { site: Some(&told), missing: &[], seen: &seen, host: &Host::default() };
    assert_eq!(examine(case), [], "the profile says it");
    seen.facts.links.get_mut(&device("wan1")).unwrap().carrier = false;
    assert_eq!(found(&seen), [""; 0], "nobody asked for an address there yet");
    let mut seen = sound();
    add_address(&mut seen, "wan0", "fd00:9::2/64");
    assert_eq!(found(&seen), [""; 0], "a local address asks for no gateway");
    add_address(&mut seen, "wan0", "2001:db8::2/64");
    assert_eq!(found(&seen), ["warning no-gateway"]);
}

#[test]
fn two_modems_with_one_address_are_told() {
    let mut seen = sound();
    add_address(&mut seen, "wan1", "192.0.2.2/24");
    assert_eq!(found(&seen), ["warning same-address"]);
}

#[test]
fn what_services_cannot_do_here_is_told_where_there_are_services() {
    let services = |at: &str| {
        let text = "groups: { web: { servers: { a: { address: 10.1.0.9 } } } }\nservices: { s: \
                    { virtual: [AT], protocol: tcp, ports: [80], group: web } }\n";
        super::tests::PROFILE.to_owned() + &text.replace("AT", at)
    };
    let judged = |text: &str, host: &Host| {
        let site = profile::load_bytes(text.as_bytes()).site.unwrap();
        codes(&examine(Case { site: Some(&site), missing: &[], seen: &sound(), host }))
    };
    let kernel = |kernel| Host { kernel: Some(kernel), ..Host::default() };
    let bridge = |name| Host { filtered_bridges: vec![device(name)], ..kernel((5, 15)) };
    assert_eq!(judged(super::tests::PROFILE, &bridge("lan0")), [""; 0]);
    assert_eq!(judged(&services("fiber"), &bridge("br0")), [""; 0], "no server is behind it");
    assert_eq!(judged(&services("fiber"), &bridge("lan0")), ["note bridge-filtered"]);
    let taken = services("{ address: 192.0.2.20, on: fiber }");
    assert_eq!(judged(&taken, &kernel((5, 15))), ["warning addresses-not-told"]);
    assert_eq!(judged(&taken, &kernel((5, 18))), [""; 0]);
    assert_eq!(judged(&taken, &kernel((6, 1))), [""; 0]);
}

#[test]
fn names_that_come_from_one_uplink_alone_are_told() {
    let judged = |resolvers: &[&str]| {
        let resolvers = resolvers.iter().map(|one| one.parse().unwrap()).collect();
        codes(&findings(&sound(), &Host { resolvers, ..Host::default() }))
    };
    assert_eq!(judged(&["192.0.2.1"]), ["warning resolver-of-one"]);
    assert_eq!(judged(&["192.0.2.1", "192.0.2.9"]), ["warning resolver-of-one"]);
    assert_eq!(judged(&["192.0.2.1", "198.51.100.1"]), [""; 0], "one of each");
    assert_eq!(judged(&["192.0.2.1", "9.9.9.9"]), [""; 0]);
    assert_eq!(judged(&["127.0.0.53"]), [""; 0], "its own");
    assert_eq!(judged(&["10.1.0.53"]), [""; 0], "in the LAN");
}
