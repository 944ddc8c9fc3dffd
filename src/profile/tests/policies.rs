//! `policies`: matches, tiers, and the order among them.

use super::{Case, check};

#[test]
fn findings_say_where_and_what_and_how_to_cure_it() {
    check(CASES);
}

const CASES: &[Case] = &[
    Case {
        name: "no list",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies: { name: a }\n",
        ),
        findings: &[
            "5:1: error: policies: expected a list of policies, not a block of keys (each begins with a dash: `- name: voice`)",
        ],
    },
    Case {
        name: "an empty list",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { to: [] } }\n",
        ),
        findings: &[
            "6:29: error: policies[0].match.to: an empty list (give it an entry, or remove the key)",
        ],
    },
    Case {
        name: "no name",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - uplinks: [fiber]\n",
        ),
        findings: &[
            "6:5: error: policies[0]: `name` is missing (each policy has a name: `- name: voice`)",
        ],
    },
    Case {
        name: "a duplicate name",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { ports: [1] } }\n",
            "  - { name: a }\n",
        ),
        findings: &[
            "7:5: error: policies[1]: duplicate policy `a` (the first is in line 6: give one of them another name)",
        ],
    },
    Case {
        name: "an unknown lan",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "lans: { office: { interface: lan0 } }\n",
            "policies:\n",
            "  - { name: a, match: { from: [offce] } }\n",
        ),
        findings: &[
            "7:32: error: policies[0].match.from[0]: unknown LAN `offce` (did you mean `office`?)",
        ],
    },
    Case {
        name: "an uplink for a lan",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { from: [fiber] } }\n",
        ),
        findings: &[
            "6:32: error: policies[0].match.from[0]: `fiber` is an uplink, not a LAN (policies take what comes from the LANs)",
        ],
    },
    Case {
        name: "an unknown uplink",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, uplinks: [cabel] }\n",
        ),
        findings: &[
            "6:26: error: policies[0].uplinks[0]: unknown uplink `cabel` (did you mean `cable`?)",
        ],
    },
    Case {
        name: "an uplink like no other",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, uplinks: [[fiber], [satellite]] }\n",
        ),
        findings: &[
            "6:36: error: policies[0].uplinks[1][0]: unknown uplink `satellite` (the uplinks are `cable` and `fiber`)",
        ],
    },
    Case {
        name: "an uplink twice in tiers",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, uplinks: [[fiber], [cable, fiber]] }\n",
        ),
        findings: &[
            "6:43: error: policies[0].uplinks[1][1]: uplink `fiber` a second time (name each uplink once, in the first tier that may use it)",
        ],
    },
    Case {
        name: "names and tiers mixed",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, uplinks: [[fiber], cable] }\n",
        ),
        findings: &[
            "6:25: error: policies[0].uplinks: names and lists are mixed (either names alone (one tier), or lists alone: `[[fiber, cable], [lte]]`)",
        ],
    },
    Case {
        name: "an empty tier",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, uplinks: [[fiber], []] }\n",
        ),
        findings: &[
            "6:35: error: policies[0].uplinks[1]: an empty list (give it an entry, or remove the key)",
        ],
    },
    Case {
        name: "a balance misspelt",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, balance: weigthed }\n",
        ),
        findings: &[
            "6:25: error: policies[0].balance: expected a way to balance, not `weigthed` (did you mean `weighted`?)",
        ],
    },
    Case {
        name: "an unknown balance",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, balance: random }\n",
        ),
        findings: &[
            "6:25: error: policies[0].balance: expected a way to balance, not `random` (say `weighted`, `round-robin`, `lowest-latency`, `least-used` or `source-hash`)",
        ],
    },
    Case {
        name: "a when all down misspelt",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, when-all-down: reject }\n",
        ),
        findings: &[
            "6:31: error: policies[0].when-all-down: expected one of the ways out, not `reject` (say `try`, `unreachable`, `drop` or `main`)",
        ],
    },
    Case {
        name: "a persistence misspelt",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, persistence: { by: destination } }\n",
        ),
        findings: &[
            "6:35: error: policies[0].persistence.by: expected a persistence, not `destination` (say `none`, `source` or `source-destination`)",
        ],
    },
    Case {
        name: "a persistence without a key",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, persistence: { timeout: 1h } }\n",
        ),
        findings: &[
            "6:16: error: policies[0].persistence: `by` is missing (say `by: source` or `by: source-destination`)",
        ],
    },
    Case {
        name: "a timeout for no persistence",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, persistence: { by: none, timeout: 1h } }\n",
        ),
        findings: &[
            "6:50: warning: policies[0].persistence.timeout: `timeout` has no effect with `by: none` (remove it)",
        ],
    },
    Case {
        name: "an unknown protocol",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { protocol: tpc } }\n",
        ),
        findings: &[
            "6:35: error: policies[0].match.protocol: expected a protocol, not `tpc` (did you mean `tcp`?)",
        ],
    },
    Case {
        name: "a protocol of one family",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { protocol: icmpv6 } }\n",
        ),
        findings: &[
            "6:35: error: policies[0].match.protocol: expected a protocol, not `icmpv6` (`icmp` is the one of both families)",
        ],
    },
    Case {
        name: "a protocol number out of range",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { protocol: 256 } }\n",
        ),
        findings: &[
            "6:35: error: policies[0].match.protocol: expected a protocol, not `256` (a number from 0 to 255, or `tcp`, `udp`, `icmp`, `sctp`, `dccp`, `udplite`, `esp`, `ah`, `gre`, `igmp`, `ipip` or `ospf`)",
        ],
    },
    Case {
        name: "ports of a protocol that has none",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { protocol: [udp, icmp], ports: [53] } }\n",
        ),
        findings: &[
            "6:48: error: policies[0].match.ports: `icmp` has no ports (remove `ports`, or name only tcp, udp, sctp, dccp or udplite)",
        ],
    },
    Case {
        name: "a port out of range",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { ports: [65536] } }\n",
        ),
        findings: &[
            "6:33: error: policies[0].match.ports[0]: expected a port, not `65536` (a number from 1 to 65535, or a range like \"10000-20000\")",
        ],
    },
    Case {
        name: "port zero",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { ports: [0] } }\n",
        ),
        findings: &[
            "6:33: error: policies[0].match.ports[0]: expected a port, not `0` (a number from 1 to 65535, or a range like \"10000-20000\")",
        ],
    },
    Case {
        name: "a range that ends before it begins",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { ports: [\"20-10\"] } }\n",
        ),
        findings: &[
            "6:33: error: policies[0].match.ports[0]: the range `20-10` ends before it begins (did you mean \"10-20\"?)",
        ],
    },
    Case {
        name: "a code point out of range",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { dscp: 64 } }\n",
        ),
        findings: &[
            "6:31: error: policies[0].match.dscp: expected a code point, not `64` (a number from 0 to 63, or `ef`, `cs0` to `cs7`, `af11` to `af43`, `be`, `le`, `va`)",
        ],
    },
    Case {
        name: "a code point that does not exist",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { dscp: af44 } }\n",
        ),
        findings: &[
            "6:31: error: policies[0].match.dscp: expected a code point, not `af44` (a number from 0 to 63, or `ef`, `cs0` to `cs7`, `af11` to `af43`, `be`, `le`, `va`)",
        ],
    },
    Case {
        name: "families that never meet",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, match: { from: [10.0.0.0/8], to: [\"2001:db8::/32\"] } }\n",
        ),
        findings: &[
            "6:16: warning: policies[0].match: this can never match (`from` and `to` are of different families)",
        ],
    },
    Case {
        name: "a policy behind one for everything",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: all }\n",
            "  - { name: web, match: { ports: [80] } }\n",
        ),
        findings: &[
            "7:5: warning: policies[1]: policy `web` can never match: `all` before it takes everything that it would (the first match wins: move it before `all` (line 6))",
        ],
    },
    Case {
        name: "a policy behind a wider network",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: wide, match: { to: [10.0.0.0/9, 10.128.0.0/9] } }\n",
            "  - { name: narrow, match: { to: [10.126.0.0/15], protocol: tcp } }\n",
        ),
        findings: &[
            "7:5: warning: policies[1]: policy `narrow` can never match: `wide` before it takes everything that it would (the first match wins: move it before `wide` (line 6))",
        ],
    },
    Case {
        name: "a policy behind wider ports",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: wide, match: { ports: [\"1-100\", \"101-200\"] } }\n",
            "  - { name: narrow, match: { ports: [\"90-110\"], protocol: udp, dscp: ef } }\n",
        ),
        findings: &[
            "7:5: warning: policies[1]: policy `narrow` can never match: `wide` before it takes everything that it would (the first match wins: move it before `wide` (line 6))",
        ],
    },
    Case {
        name: "every weight of a policy zero",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0, weight: 0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a, uplinks: [fiber] }\n",
        ),
        findings: &[
            "6:5: error: policies[0]: every uplink of policy `a` has the weight 0 (add an uplink that takes new sessions, or give one a weight)",
        ],
    },
];
