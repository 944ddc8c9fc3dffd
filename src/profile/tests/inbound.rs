//! `probes`, `groups` and `services`.

use super::{Case, check, load};
use crate::model::CheckKind;

#[test]
fn findings_say_where_and_what_and_how_to_cure_it() {
    check(CASES);
}

/// What a check by UDP sends and expects when the profile says so.
fn udp(send: &str, expect: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    let text = format!(
        "version: 1\nuplinks: {{ fiber: {{ interface: wan0 }} }}\ngroups: {{ web: {{ servers: {{ a: {{ address: 10.2.0.11 }} }}, check: {{ udp: {{ send: {send}{expect} }} }} }} }}\n",
    );
    let loaded = load(&text);
    let site = loaded.site.unwrap_or_else(|| panic!("{text}: {:?}", loaded.findings));
    let web = site.groups.into_values().next().unwrap();
    match web.check.kind {
        Some(CheckKind::Udp { port: None, send, expect }) => (send, expect),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_udp_sends_and_expects_is_text_or_hexadecimal() {
    assert_eq!(udp("ping", ""), (b"ping".to_vec(), None));
    assert_eq!(udp("0x00fF1b", ", expect: \"0x80\""), (vec![0, 0xff, 0x1b], Some(vec![0x80])));
    assert_eq!(udp("\"é 0x\"", ", expect: 42"), ("é 0x".into(), Some(b"42".to_vec())));
}

const CASES: &[Case] = &[
    Case {
        name: "no targets",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p: { interval: 1s }\n",
        ),
        findings: &[
            "6:3: error: probes.p: `targets` is missing (name what is asked: `targets: [{ icmp: 192.0.2.1 }]`)",
        ],
    },
    Case {
        name: "empty targets",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: []\n",
        ),
        findings: &[
            "7:14: error: probes.p.targets: an empty list (give it an entry, or remove the key)",
        ],
    },
    Case {
        name: "a target of an unknown kind",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: [{ ping: 192.0.2.1 }]\n",
        ),
        findings: &[
            "7:17: error: probes.p.targets[0].ping: unknown key `ping` (the keys here are `icmp`, `tcp`, `http`, `https` and `dns`)",
        ],
    },
    Case {
        name: "a target that is a word",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: [192.0.2.1]\n",
        ),
        findings: &[
            "7:15: error: probes.p.targets[0]: expected a target, not `192.0.2.1` (say `gateway`, or a kind and its address: `icmp: 192.0.2.1`)",
        ],
    },
    Case {
        name: "a target of two kinds",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: [{ icmp: 192.0.2.1, tcp: \"192.0.2.1:80\" }]\n",
        ),
        findings: &[
            "7:15: error: probes.p.targets[0]: `icmp` and `tcp` in one entry (one kind in each entry)",
        ],
    },
    Case {
        name: "a target twice",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: [{ icmp: 192.0.2.1 }, { icmp: 192.0.2.1 }]\n",
        ),
        findings: &[
            "7:36: error: probes.p.targets[1]: the same target a second time (remove one of them)",
        ],
    },
    Case {
        name: "a tcp target without a port",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: [{ tcp: 192.0.2.1 }]\n",
        ),
        findings: &[
            "7:22: error: probes.p.targets[0].tcp: expected an address and a port, not `192.0.2.1` (for example \"192.0.2.1:443\" or \"[2001:db8::1]:443\")",
        ],
    },
    Case {
        name: "an icmp target that is no address",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: [{ icmp: example.com }]\n",
        ),
        findings: &[
            "7:23: error: probes.p.targets[0].icmp: expected an address, not `example.com` (for example 192.0.2.1 or \"2001:db8::1\")",
        ],
    },
    Case {
        name: "an http target without an address",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: [{ http: { status: 204 } }]\n",
        ),
        findings: &[
            "7:17: error: probes.p.targets[0].http: `url` is missing (where to: `url: \"http://192.0.2.3/\"`)",
        ],
    },
    Case {
        name: "an http target with another scheme",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: [{ http: { url: \"ftp://192.0.2.1/\" } }]\n",
        ),
        findings: &[
            "7:30: error: probes.p.targets[0].http.url: expected an http or https address, not `ftp://192.0.2.1/` (for example \"http://192.0.2.3/generate_204\")",
        ],
    },
    Case {
        name: "an https target without tls",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: [{ https: { url: \"http://192.0.2.1/\" } }]\n",
        ),
        findings: &[
            "7:31: error: probes.p.targets[0].https.url: `https` with an `http://` address (say `http`, or `https://`)",
        ],
    },
    Case {
        name: "a dns target without a question",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: [{ dns: { server: 192.0.2.53 } }]\n",
        ),
        findings: &[
            "7:17: error: probes.p.targets[0].dns: `query` is missing (the name to ask for: `query: example.com`)",
        ],
    },
    Case {
        name: "a quorum that none can meet",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "probes:\n",
            "  p:\n",
            "    targets: [gateway, { icmp: 192.0.2.1 }]\n",
            "    quorum: 2\n",
        ),
        findings: &[
            "8:13: error: probes.p.quorum: no round can be good: 2 of 1 targets must answer (`gateway` does not count while there are other targets)",
        ],
    },
    Case {
        name: "a probe named as an uplink with its own",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, probe: { targets: [gateway] } }\n",
            "probes:\n",
            "  fiber: { targets: [gateway] }\n",
        ),
        findings: &[
            "4:29: error: uplinks.fiber.probe: `probes` has a block `fiber` too, which is this uplink's own name (give the one under `probes` another name)",
        ],
    },
    Case {
        name: "a group without servers",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { balance: fastest }\n",
        ),
        findings: &[
            "6:3: error: groups.web: `servers` is missing (name at least one: `a: { address: 10.2.0.11 }`)",
        ],
    },
    Case {
        name: "a group with no server",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: {} }\n",
        ),
        findings: &[
            "6:10: error: groups.web.servers: no servers (name at least one: `a: { address: 10.2.0.11 }`)",
        ],
    },
    Case {
        name: "a server without an address",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { port: 80 } } }\n",
        ),
        findings: &[
            "6:21: error: groups.web.servers.a: `address` is missing (where it is: `address: 10.2.0.11`)",
        ],
    },
    Case {
        name: "a server at a name",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: web1 } } }\n",
        ),
        findings: &[
            "6:35: error: groups.web.servers.a.address: expected an address, not `web1` (for example 192.0.2.1 or \"2001:db8::1\")",
        ],
    },
    Case {
        name: "two servers at one address",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 }, b: { address: 10.2.0.11 } } }\n",
        ),
        findings: &[
            "6:48: error: groups.web.servers.b: server `a` has the same address and port (remove one of them: use `weight` for a larger share)",
        ],
    },
    Case {
        name: "every server of weight zero",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11, weight: 0 } } }\n",
        ),
        findings: &[
            "6:10: error: groups.web.servers: every server has the weight 0 (give one of them a weight)",
        ],
    },
    Case {
        name: "a group balance misspelt",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } }, balance: least-conections }\n",
        ),
        findings: &[
            "6:59: error: groups.web.balance: expected a way to balance, not `least-conections` (did you mean `least-connections`?)",
        ],
    },
    Case {
        name: "a check of two kinds",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } }, check: { tcp: {}, icmp: {} } }\n",
        ),
        findings: &[
            "6:50: error: groups.web.check: `icmp` and `tcp` in one entry (one kind in each entry)",
        ],
    },
    Case {
        name: "a check of an unknown kind",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } }, check: { smtp: {} } }\n",
        ),
        findings: &[
            "6:59: error: groups.web.check.smtp: unknown key `smtp` (the keys here are `icmp`, `tcp`, `http`, `https`, `tls`, `dns`, `udp`, `interval`, `timeout`, `fall`, `rise`, `hold-down` and `degraded`)",
        ],
    },
    Case {
        name: "a check word that is none",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } }, check: htp }\n",
        ),
        findings: &[
            "6:57: error: groups.web.check: expected a check, not `htp` (did you mean `http`?)",
        ],
    },
    Case {
        name: "a udp check that sends nothing",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } }, check: { udp: { expect: pong } } }\n",
        ),
        findings: &["6:59: error: groups.web.check.udp: `send` is missing (what is sent)"],
    },
    Case {
        name: "a udp check whose bytes are none",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } }, check: { udp: { send: 0x123, expect: \"0xfg\" } } }\n",
            "  dns: { servers: { a: { address: 10.2.0.12 } }, check: { udp: { send: \"0x\", expect: 0x+1 } } }\n",
        ),
        findings: &[
            "6:72: error: groups.web.check.udp.send: expected bytes after `0x`, not `0x123` (two hexadecimal digits for each byte: `0x00ff`)",
            "6:87: error: groups.web.check.udp.expect: expected bytes after `0x`, not `0xfg` (two hexadecimal digits for each byte: `0x00ff`)",
            "7:72: error: groups.dns.check.udp.send: expected bytes after `0x`, not `0x` (two hexadecimal digits for each byte: `0x00ff`)",
            "7:86: error: groups.dns.check.udp.expect: expected bytes after `0x`, not `0x+1` (two hexadecimal digits for each byte: `0x00ff`)",
        ],
    },
    Case {
        name: "an http check with a bad path",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } }, check: { http: { path: healthz } } }\n",
        ),
        findings: &[
            "6:73: error: groups.web.check.http.path: expected a path, not `healthz` (begin it with `/`: `/healthz`)",
        ],
    },
    Case {
        name: "a service without anything",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "services:\n",
            "  shop: {}\n",
        ),
        findings: &[
            "6:3: error: services.shop: `virtual` is missing (where clients reach it: `virtual: [fiber]`)",
            "6:3: error: services.shop: `group` is missing (the servers: a name under `groups`)",
            "6:3: error: services.shop: `protocol` is missing (say `tcp`, `udp`, `[tcp, udp]` or `any`)",
        ],
    },
    Case {
        name: "an unknown group",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: wbe, protocol: tcp, ports: [80] }\n",
        ),
        findings: &["8:36: error: services.shop.group: unknown group `wbe` (did you mean `web`?)"],
    },
    Case {
        name: "a service without ports",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, protocol: tcp }\n",
        ),
        findings: &[
            "8:3: error: services.shop: `ports` is missing (name them: `ports: [80, 443]`, or say `protocol: any` with mode `ip`)",
        ],
    },
    Case {
        name: "every protocol with ports",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, protocol: any, ports: [80], persistence: { mode: ip } }\n",
        ),
        findings: &[
            "8:56: error: services.shop.ports: `any` has no ports (remove `ports`, or name the protocol)",
        ],
    },
    Case {
        name: "every protocol in another mode",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, protocol: any }\n",
        ),
        findings: &[
            "8:51: error: services.shop.protocol: `any` needs the persistence mode `ip` (add `persistence: { mode: ip }`: only that mode takes every protocol)",
        ],
    },
    Case {
        name: "a service of gre",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, protocol: gre, ports: [80] }\n",
        ),
        findings: &[
            "8:51: error: services.shop.protocol: `gre` cannot be a service's protocol here (say `tcp`, `udp`, `[tcp, udp]`, or `any` with mode `ip`)",
        ],
    },
    Case {
        name: "a vpn with ah",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, protocol: [udp, ah], persistence: { mode: vpn } }\n",
        ),
        findings: &[
            "8:57: error: services.shop.protocol[1]: `ah` cannot be sent on to a server (AH protects the addresses themselves: use ESP, which mode `vpn` takes by itself)",
        ],
    },
    Case {
        name: "a vpn with esp by name",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, protocol: [udp, esp], persistence: { mode: vpn } }\n",
        ),
        findings: &[
            "8:57: error: services.shop.protocol[1]: `esp` cannot be a service's protocol here (leave it out: mode `vpn` takes ESP by itself)",
        ],
    },
    Case {
        name: "a vpn of tcp",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, protocol: tcp, persistence: { mode: vpn } }\n",
        ),
        findings: &[
            "8:51: error: services.shop.protocol: `tcp` cannot be a service's protocol here (mode `vpn` is UDP 500 and 4500, and ESP by itself)",
        ],
    },
    Case {
        name: "a vpn at another port",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, ports: [1194], persistence: { mode: vpn } }\n",
        ),
        findings: &[
            "8:48: error: services.shop.ports: another port than 500 and 4500 with mode `vpn` (leave `ports` out: mode `vpn` is UDP 500 and 4500)",
        ],
    },
    Case {
        name: "an unknown mode",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, protocol: tcp, ports: [443], persistence: { mode: tls } }\n",
        ),
        findings: &[
            "8:91: error: services.shop.persistence.mode: expected a mode, not `tls` (say `tcp`, `ssl`, `sticky`, `vpn` or `ip`)",
        ],
    },
    Case {
        name: "a timeout where there is no table",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, protocol: tcp, ports: [443], persistence: { mode: ip, timeout: 1h } }\n",
        ),
        findings: &[
            "8:104: error: services.shop.persistence.timeout: `timeout` with mode `ip` (remove it: mode `ip` computes the server and keeps no table)",
        ],
    },
    Case {
        name: "a mask wider than an address",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, protocol: tcp, ports: [443], persistence: { client-mask: 33 } }\n",
        ),
        findings: &[
            "8:98: error: services.shop.persistence.client-mask: `33` is out of range (a number from 0 to 32)",
        ],
    },
    Case {
        name: "a virtual address without an uplink",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: 203.0.113.10, group: web, protocol: tcp, ports: [80] }\n",
        ),
        findings: &[
            "8:20: error: services.shop.virtual: an address needs the uplink that it is reached by (write `{ address: 203.0.113.10, on: UPLINK }`)",
        ],
    },
    Case {
        name: "a virtual address of a family without servers",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: { address: \"2001:db8::80\", on: fiber }, group: web, protocol: tcp, ports: [80] }\n",
        ),
        findings: &[
            "8:11: warning: services.shop.virtual: `2001:db8::80` is not served: group `web` has no server of its family (add a server, or remove the address)",
        ],
    },
    Case {
        name: "a virtual uplink twice",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber, fiber], group: web, protocol: tcp, ports: [80] }\n",
        ),
        findings: &[
            "8:28: error: services.shop.virtual[1]: the same address a second time (remove one of them)",
        ],
    },
    Case {
        name: "two services at one port",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "groups:\n",
            "  web: { servers: { a: { address: 10.2.0.11 } } }\n",
            "services:\n",
            "  shop: { virtual: [fiber], group: web, protocol: tcp, ports: [80, 443] }\n",
            "  mail: { virtual: [cable, fiber], group: web, protocol: [udp, tcp], ports: [\"400-500\"] }\n",
        ),
        findings: &[
            "9:3: error: services.mail: service `shop` has the same address, protocol and port (a port of an address belongs to one service)",
        ],
    },
];
