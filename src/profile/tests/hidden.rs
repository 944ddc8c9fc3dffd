//! Policies that an earlier one hides, and those that it only seems to.

use crate::profile::load;

/// A site with two policies.
fn two(first: &str, second: &str) -> String {
    let uplinks = "uplinks: { x: { interface: w0 }, y: { interface: w1 } }";
    let lans = "lans: { a: { interface: l0 }, b: { interface: l1 } }";
    let policies = format!("- {{ name: p, match: {first} }}\n- {{ name: q, match: {second} }}");
    format!("version: 1\n{uplinks}\n{lans}\npolicies:\n{policies}\n")
}

#[test]
fn a_policy_that_still_has_something_to_take_is_not_called_hidden() {
    let pairs = [
        ("{ ports: [80] }", "{ protocol: tcp }"),
        ("{ protocol: tcp, ports: [80] }", "{ ports: [80] }"),
        ("{ to: 10.0.0.0/8 }", "{}"),
        ("{ to: 0.0.0.0/0 }", "{}"),
        ("{ to: 10.0.0.0/8 }", "{ to: [10.1.0.0/16, 11.0.0.0/8] }"),
        ("{ to: [10.0.0.0/9, 10.128.0.0/10] }", "{ to: 10.0.0.0/8 }"),
        ("{ from: a }", "{ from: b }"),
        ("{ from: a }", "{ from: [a, 10.0.0.0/8] }"),
        ("{ from: 10.0.0.0/8 }", "{ from: a }"),
        ("{ dscp: ef }", "{ dscp: [ef, be] }"),
        ("{ ports: [\"1-100\", \"102-200\"] }", "{ ports: [\"90-110\"] }"),
        ("{ protocol: icmp }", "{ protocol: 58 }"),
    ];
    for (first, second) in pairs {
        let text = two(first, second);
        assert_eq!(load(&text).findings, [], "{text}");
    }
}

#[test]
fn a_policy_that_is_hidden_in_any_key_is_told() {
    let pairs = [
        ("{}", "{ to: 10.0.0.0/8 }"),
        ("{ to: [0.0.0.0/0, \"::/0\"] }", "{}"),
        ("{ from: [0.0.0.0/0, \"::/0\"] }", "{ from: a }"),
        ("{ from: [a, b] }", "{ from: b, ports: [1] }"),
        ("{ from: [a, 10.0.0.0/8] }", "{ from: [10.2.0.0/16, a] }"),
        ("{ protocol: [tcp, udp] }", "{ ports: [80] }"),
        ("{ ports: [\"1-100\", \"101-200\"] }", "{ ports: [\"90-110\"] }"),
        ("{ dscp: [ef, be] }", "{ dscp: 46 }"),
    ];
    for (first, second) in pairs {
        let text = two(first, second);
        let found = load(&text).findings;
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].message.contains("can never match"), "{found:?}");
    }
}
