//! Single values: what each of them may be, and what the hint offers instead.

use super::{Case, check};

#[test]
fn findings_say_where_and_what_and_how_to_cure_it() {
    check(CASES);
}

const CASES: &[Case] = &[
    Case {
        name: "a version to come",
        text: concat!(
            "version: 2\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
        ),
        findings: &[
            "1:10: error: version: `2` is not a version of profiles that is read here (say `version: 1`)",
        ],
    },
    Case {
        name: "no version",
        text: concat!(
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
        ),
        findings: &["1:1: error: : `version` is missing (begin the file with `version: 1`)"],
    },
    Case {
        name: "a word for a boolean",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, metered: yes }\n",
        ),
        findings: &[
            "4:38: error: uplinks.fiber.metered: expected `true` or `false`, not `yes` (say `true`)",
        ],
    },
    Case {
        name: "another word for a boolean",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, metered: off }\n",
        ),
        findings: &[
            "4:38: error: uplinks.fiber.metered: expected `true` or `false`, not `off` (say `false`)",
        ],
    },
    Case {
        name: "a quoted boolean",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, metered: \"true\" }\n",
        ),
        findings: &[
            "4:38: error: uplinks.fiber.metered: `\"true\"` is text, not a boolean (remove the quotes)",
        ],
    },
    Case {
        name: "a quoted number",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, weight: \"5\" }\n",
        ),
        findings: &[
            "4:37: error: uplinks.fiber.weight: expected a number, not text (`\"5\"`) (remove the quotes)",
        ],
    },
    Case {
        name: "a word for a number",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, weight: five }\n",
        ),
        findings: &[
            "4:37: error: uplinks.fiber.weight: expected a number, not `five` (a number from 0 to 1000000)",
        ],
    },
    Case {
        name: "a number out of range",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, weight: 1000001 }\n",
        ),
        findings: &[
            "4:37: error: uplinks.fiber.weight: `1000001` is out of range (a number from 0 to 1000000)",
        ],
    },
    Case {
        name: "a negative number",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, weight: -1 }\n",
        ),
        findings: &[
            "4:37: error: uplinks.fiber.weight: expected a number, not `-1` (a number from 0 to 1000000)",
        ],
    },
    Case {
        name: "a list for a number",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, weight: [1] }\n",
        ),
        findings: &[
            "4:37: error: uplinks.fiber.weight: expected a number, not a list (a number from 0 to 1000000)",
        ],
    },
    Case {
        name: "a key without a value",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, weight:  }\n",
        ),
        findings: &[
            "4:29: error: uplinks.fiber.weight: `weight` has no value (give it a value, or remove the key)",
        ],
    },
    Case {
        name: "a name with capitals",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  Fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "  lte: { interface: wan2 }\n",
        ),
        findings: &[
            "3:3: error: uplinks.Fiber: `Fiber` is not a name (a lower-case letter, then up to 30 of a-z, 0-9 and `-`)",
        ],
    },
    Case {
        name: "an interface that would break a script",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: \"wan;0\" }\n",
            "  cable: { interface: wan1 }\n",
            "  lte: { interface: wan2 }\n",
        ),
        findings: &[
            "3:23: error: uplinks.fiber.interface: `wan;0` is not an interface name (1 to 15 of A-Z, a-z, 0-9, `_`, `.`, `@` and `-`, as `ip link` shows it)",
        ],
    },
    Case {
        name: "an interface that is too long",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: enx0123456789abcdef }\n",
            "  cable: { interface: wan1 }\n",
            "  lte: { interface: wan2 }\n",
        ),
        findings: &[
            "3:23: error: uplinks.fiber.interface: `enx0123456789abcdef` is not an interface name (1 to 15 of A-Z, a-z, 0-9, `_`, `.`, `@` and `-`, as `ip link` shows it)",
        ],
    },
    Case {
        name: "a rate in small letters",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, bandwidth: { down: 50m, up: 10M } }\n",
        ),
        findings: &[
            "4:48: error: uplinks.fiber.bandwidth.down: expected a rate, not `50m` (did you mean `50M`?)",
        ],
    },
    Case {
        name: "a rate without a unit",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, bandwidth: { down: 50, up: 10M } }\n",
        ),
        findings: &[
            "4:48: error: uplinks.fiber.bandwidth.down: expected a rate, not `50` (say the unit: `50M` is megabits per second)",
        ],
    },
    Case {
        name: "a rate in other words",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, bandwidth: { down: fast, up: 10M } }\n",
        ),
        findings: &[
            "4:48: error: uplinks.fiber.bandwidth.down: expected a rate, not `fast` (a number and its unit, in bits per second: `500k`, `20M`, `1G`)",
        ],
    },
    Case {
        name: "half a bandwidth",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, bandwidth: { down: 50M } }\n",
        ),
        findings: &[
            "4:29: error: uplinks.fiber.bandwidth: `up` is missing (write both: `{ down: 500M, up: 100M }`)",
        ],
    },
    Case {
        name: "a gateway misspelt",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, gateway: atuo }\n",
        ),
        findings: &[
            "4:38: error: uplinks.fiber.gateway: expected a gateway, not `atuo` (did you mean `auto`?)",
        ],
    },
    Case {
        name: "an ipv6 gateway for ipv4",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, gateway: \"2001:db8::1\" }\n",
        ),
        findings: &[
            "4:38: error: uplinks.fiber.gateway: `2001:db8::1` is IPv6 (write it under `gateway6`)",
        ],
    },
    Case {
        name: "an ipv4 gateway for ipv6",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, gateway6: 192.0.2.1 }\n",
        ),
        findings: &[
            "4:39: error: uplinks.fiber.gateway6: `192.0.2.1` is IPv4 (write it under `gateway`)",
        ],
    },
    Case {
        name: "a kind of nat misspelt",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, nat: alway }\n",
        ),
        findings: &[
            "4:34: error: uplinks.fiber.nat: expected a kind of translation, not `alway` (did you mean `always`?)",
        ],
    },
    Case {
        name: "a prefix with host bits",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, prefixes: [203.0.113.1/28] }\n",
        ),
        findings: &[
            "4:40: error: uplinks.fiber.prefixes[0]: `203.0.113.1/28` has bits set after its prefix (did you mean the network `203.0.113.0/28`, or the host `203.0.113.1`?)",
        ],
    },
    Case {
        name: "an ipv6 prefix with host bits",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, prefixes: [\"2001:db8:a::1/56\"] }\n",
        ),
        findings: &[
            "4:40: error: uplinks.fiber.prefixes[0]: `2001:db8:a::1/56` has bits set after its prefix (did you mean the network `2001:db8:a::/56`, or the host `2001:db8:a::1`?)",
        ],
    },
    Case {
        name: "a prefix that is none",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, prefixes: [203.0.113.0/33] }\n",
        ),
        findings: &[
            "4:40: error: uplinks.fiber.prefixes[0]: expected a prefix, not `203.0.113.0/33` (for example 192.0.2.0/24 or \"2001:db8::/32\")",
        ],
    },
    Case {
        name: "an empty list",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "lans:\n",
            "  office: { interface: lan0, networks: [] }\n",
        ),
        findings: &[
            "6:40: error: lans.office.networks: an empty list (give it an entry, or remove the key)",
        ],
    },
    Case {
        name: "a network of every address",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, prefixes: [0.0.0.0/0] }\n",
        ),
        findings: &[
            "4:40: error: uplinks.fiber.prefixes[0]: `0.0.0.0/0` is every address (name the networks that are there)",
        ],
    },
    Case {
        name: "a gateway that is this machine",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, gateway: 127.0.0.1 }\n",
        ),
        findings: &[
            "4:38: error: uplinks.fiber.gateway: `127.0.0.1` is this machine (the address of one host is needed)",
        ],
    },
    Case {
        name: "a gateway that is a group",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, gateway6: \"ff02::2\" }\n",
        ),
        findings: &[
            "4:39: error: uplinks.fiber.gateway6: `ff02::2` is a multicast group (the address of one host is needed)",
        ],
    },
    Case {
        name: "the loopback as uplink",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: lo }\n",
            "  cable: { interface: wan1 }\n",
            "  lte: { interface: wan2 }\n",
        ),
        findings: &[
            "3:23: error: uplinks.fiber.interface: `lo` is this machine itself (name the device that the link or network is behind)",
        ],
    },
    Case {
        name: "an unknown probe",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, probe: slow }\n",
        ),
        findings: &[
            "4:36: error: uplinks.fiber.probe: unknown probe `slow` (the profile names no probes)",
        ],
    },
    Case {
        name: "a time without a unit",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, persistence: { by: source, timeout: 30 } }\n",
        ),
        findings: &[
            "6:52: error: policies[0].persistence.timeout: expected a time, not `30` (say the unit: `30s`, or `ms`, `m`, `h`)",
        ],
    },
    Case {
        name: "a time in other words",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, persistence: { by: source, timeout: 1d } }\n",
        ),
        findings: &[
            "6:52: error: policies[0].persistence.timeout: expected a time, not `1d` (a whole number and its unit: `500ms`, `2s`, `30m`, `1h`)",
        ],
    },
    Case {
        name: "a time out of range",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, persistence: { by: source, timeout: 0s } }\n",
        ),
        findings: &[
            "6:52: error: policies[0].persistence.timeout: `0s` is out of range (from 1s to 720h)",
        ],
    },
    Case {
        name: "a share without a percent sign",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p: { targets: [gateway], degraded: { loss: 5 } }\n",
        ),
        findings: &["6:46: error: probes.p.degraded.loss: expected a share, not `5` (say `5%`)"],
    },
    Case {
        name: "a share of more than everything",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p: { targets: [gateway], degraded: { loss: 101% } }\n",
        ),
        findings: &[
            "6:46: error: probes.p.degraded.loss: expected a share, not `101%` (a share from `0%` to `100%`)",
        ],
    },
    Case {
        name: "a site of two lines",
        text: concat!(
            "version: 1\n",
            "site: \"a\\nb\"\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
        ),
        findings: &["2:7: error: site: not a site's name (up to 64 characters on one line)"],
    },
];
