//! What only the whole site shows.

use super::{Case, check};

#[test]
fn findings_say_where_and_what_and_how_to_cure_it() {
    check(CASES);
}

const CASES: &[Case] = &[
    Case {
        name: "no uplinks",
        text: "version: 1\n",
        findings: &[
            "1:1: error: : `uplinks` is missing (name at least two: `uplinks: { fiber: { interface: wan0 }, … }`)",
        ],
    },
    Case {
        name: "empty uplinks",
        text: concat!("version: 1\n", "uplinks: {}\n",),
        findings: &[
            "2:1: error: uplinks: no uplinks (name at least two, each with its interface: `fiber: { interface: wan0 }`)",
        ],
    },
    Case {
        name: "uplinks without a value",
        text: concat!("version: 1\n", "uplinks:\n",),
        findings: &[
            "2:1: error: uplinks: `uplinks` has no value (give it a value, or remove the key)",
        ],
    },
    Case {
        name: "uplinks as a list",
        text: concat!("version: 1\n", "uplinks: [fiber, cable]\n",),
        findings: &[
            "2:10: error: uplinks: expected a block of uplinks by name, not a list (write the uplink's name, a colon, and its keys)",
        ],
    },
    Case {
        name: "an uplink without an interface",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: {}\n",
            "  cable: { interface: wan1 }\n",
            "  lte: { interface: wan2 }\n",
        ),
        findings: &[
            "3:3: error: uplinks.fiber: `interface` is missing (name the network device: `interface: wan0`)",
        ],
    },
    Case {
        name: "only one uplink",
        text: concat!("version: 1\n", "uplinks:\n", "  fiber: { interface: wan0 }\n",),
        findings: &[
            "2:1: warning: uplinks: only one uplink (there is nothing to spread sessions over, and nothing to fail over to)",
        ],
    },
    Case {
        name: "an interface of two uplinks",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan0 }\n",
        ),
        findings: &[
            "4:23: error: uplinks.cable.interface: `wan0` is the interface of uplink `fiber` too (each uplink and LAN has an interface of its own)",
        ],
    },
    Case {
        name: "an interface of an uplink and a lan",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "lans:\n",
            "  office: { interface: wan1 }\n",
        ),
        findings: &[
            "6:24: error: lans.office.interface: `wan1` is the interface of uplink `cable` too (each uplink and LAN has an interface of its own)",
        ],
    },
    Case {
        name: "an interface of two lans",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "lans:\n",
            "  office: { interface: lan0 }\n",
            "  dmz: { interface: lan0 }\n",
        ),
        findings: &[
            "7:21: error: lans.dmz.interface: `lan0` is the interface of LAN `office` too (each uplink and LAN has an interface of its own)",
        ],
    },
    Case {
        name: "lans that overlap",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "lans:\n",
            "  office: { interface: lan0, networks: [10.1.0.0/16, \"fd00::/64\"] }\n",
            "  dmz: { interface: lan1, networks: [10.0.0.0/8] }\n",
        ),
        findings: &[
            "7:38: error: lans.dmz.networks[0]: `10.0.0.0/8` overlaps `10.1.0.0/16` of LAN `office` (a network belongs to one LAN)",
        ],
    },
    Case {
        name: "prefixes that overlap",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0, prefixes: [203.0.113.0/24] }\n",
            "  cable: { interface: wan1, prefixes: [203.0.113.16/28] }\n",
        ),
        findings: &[
            "4:40: error: uplinks.cable.prefixes[0]: `203.0.113.16/28` overlaps `203.0.113.0/24` of uplink `fiber` (a prefix belongs to the uplink whose ISP routes it here)",
        ],
    },
    Case {
        name: "no lans",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "lans: {}\n",
        ),
        findings: &[
            "5:1: error: lans: no LANs (name one, or remove the key: then every interface that is no uplink is inside)",
        ],
    },
    Case {
        name: "every weight zero",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0, weight: 0 }\n",
            "  cable: { interface: wan1, weight: 0 }\n",
        ),
        findings: &[
            "2:1: error: uplinks: every uplink has the weight 0 (give one of them a weight: 0 takes no new sessions)",
        ],
    },
    Case {
        name: "an id out of range",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, id: 63 }\n",
        ),
        findings: &["4:33: error: uplinks.fiber.id: `63` is out of range (a number from 1 to 62)"],
    },
    Case {
        name: "an id twice",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0, id: 7 }\n",
            "  cable: { interface: wan1, id: 7 }\n",
        ),
        findings: &[
            "4:33: error: uplinks.cable.id: uplink `fiber` has the id 7 too (give each uplink its own, or none)",
        ],
    },
    Case {
        name: "an id that does not fit the mask",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  cable: { interface: wan1 }\n",
            "  fiber: { interface: wan0, id: 7 }\n",
            "marks: { uplink: 0x700 }\n",
        ),
        findings: &[
            "4:33: error: uplinks.fiber.id: `7` is out of range (from 1 to 6, as `marks.uplink` has room for)",
        ],
    },
    Case {
        name: "names that ask for one id",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  u2: { interface: wan0 }\n",
            "  u11: { interface: wan1 }\n",
        ),
        findings: &[
            "4:3: warning: uplinks.u11: `u11` and `u2` ask for the same id, 3 (which of them gets it depends on which came first; set `id:` to fix it)",
        ],
    },
    Case {
        name: "a mask with holes",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "marks: { uplink: 0x500 }\n",
        ),
        findings: &[
            "5:18: error: marks.uplink: the mask `0x500` has holes (use adjacent bits, for example 0x3f00)",
        ],
    },
    Case {
        name: "masks that overlap",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "marks: { server: 0x1ff }\n",
        ),
        findings: &[
            "5:18: error: marks.server: the mask `0x1ff` overlaps that of `uplink`, `0x3f00` (give each its own bits; the defaults are uplink 0x3f00, server 0xff, policy 0xff000000)",
        ],
    },
    Case {
        name: "an uplink mask of one bit",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "marks: { uplink: 0x100 }\n",
        ),
        findings: &[
            "5:18: error: marks.uplink: the mask `0x100` is too narrow (an uplink needs two bits at least: one number stays reserved)",
        ],
    },
    Case {
        name: "an uplink mask for fewer uplinks",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "  lte: { interface: wan2 }\n",
            "marks: { uplink: 0x300 }\n",
        ),
        findings: &[
            "2:1: error: uplinks: 3 uplinks are too many (widen `marks.uplink`: `0x300` has room for 2)",
            "5:3: warning: uplinks.lte: `lte` and `cable` ask for the same id, 1 (which of them gets it depends on which came first; set `id:` to fix it)",
        ],
    },
    Case {
        name: "a policy mask for fewer policies",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "policies:\n",
            "  - { name: a }\n",
            "marks: { policy: 0x80000000 }\n",
        ),
        findings: &[
            "7:18: error: marks.policy: 2 policies (with the implied one) are too many (widen `marks.policy`: `0x80000000` has room for 1)",
        ],
    },
    Case {
        name: "a mask out of range",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "marks: { server: 0x100000000 }\n",
        ),
        findings: &[
            "5:18: error: marks.server: `0x100000000` is out of range (a number from 1 to 4294967295)",
        ],
    },
    Case {
        name: "a fast path misspelt",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "fast-path: of\n",
        ),
        findings: &["5:12: error: fast-path: expected a fast path, not `of` (did you mean `off`?)"],
    },
    Case {
        name: "an unknown helper",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "helpers: [ftp, irc]\n",
        ),
        findings: &[
            "5:16: error: helpers[1]: expected a helper, not `irc` (say `ftp`, `sip` or `tftp`)",
        ],
    },
    Case {
        name: "a firewall direction misspelt",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "firewall: { forward: close }\n",
        ),
        findings: &[
            "5:22: error: firewall.forward: expected `open` or `closed`, not `close` (did you mean `closed`?)",
        ],
    },
    Case {
        name: "a firewall exception by an unknown uplink",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "firewall:\n",
            "  allow: [{ in: fibre, to: router, ports: [22] }]\n",
        ),
        findings: &[
            "6:17: error: firewall.allow[0].in: unknown uplink `fibre` (did you mean `fiber`?)",
        ],
    },
    Case {
        name: "a firewall exception with ports of esp",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "firewall:\n",
            "  allow: [{ protocol: esp, ports: [22] }]\n",
        ),
        findings: &[
            "6:28: error: firewall.allow[0].ports: `esp` has no ports (remove `ports`, or name only tcp, udp, sctp, dccp or udplite)",
        ],
    },
    Case {
        name: "an api that is open to all",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "api: { listen: [\"0.0.0.0:9480\"] }\n",
        ),
        findings: &[
            "5:17: error: api.listen[0]: `0.0.0.0:9480` can be reached from outside without a token (add `token-file: PATH`, or listen on 127.0.0.1 or [::1])",
        ],
    },
    Case {
        name: "an api without a port",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "api: { listen: [127.0.0.1] }\n",
        ),
        findings: &[
            "5:17: error: api.listen[0]: expected an address and a port, not `127.0.0.1` (for example \"192.0.2.1:443\" or \"[2001:db8::1]:443\")",
        ],
    },
    Case {
        name: "an api twice",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "api: { listen: [\"[::1]:80\", \"[::1]:80\"] }\n",
        ),
        findings: &["5:29: error: api.listen[1]: `[::1]:80` a second time (remove one of them)"],
    },
    Case {
        name: "a token in no place",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "api: { token-file: token }\n",
        ),
        findings: &[
            "5:20: error: api.token-file: `token` is not an absolute path (begin it with `/`)",
        ],
    },
    Case {
        name: "a notice that nobody gets",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "notify: { chat: { events: failover } }\n",
        ),
        findings: &[
            "5:11: error: notify.chat: nothing says how to tell (add `webhook: \"https://…\"` or `command: [/path/to/program]`)",
        ],
    },
    Case {
        name: "a notice by two ways",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "notify: { chat: { webhook: \"http://192.0.2.1/\", command: /bin/true } }\n",
        ),
        findings: &[
            "5:58: error: notify.chat.command: `webhook` and `command` in one entry (make two entries of it)",
        ],
    },
    Case {
        name: "a notice of nothing that there is",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "notify: { chat: { webhook: \"ftp://192.0.2.1/\", events: [fail-over] } }\n",
        ),
        findings: &[
            "5:28: error: notify.chat.webhook: expected an http or https address, not `ftp://192.0.2.1/` (for example \"http://192.0.2.3/generate_204\")",
            "5:57: error: notify.chat.events[0]: expected a kind of event, not `fail-over` (did you mean `failover`?)",
        ],
    },
    Case {
        name: "a notice by a program in no place",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "notify: { pager: { command: [page, now], timeout: 10m } }\n",
        ),
        findings: &[
            "5:30: error: notify.pager.command[0]: `page` is not an absolute path (begin it with `/`; arguments are further items)",
            "5:51: error: notify.pager.timeout: `10m` is out of range (from 100ms to 5m)",
        ],
    },
    Case {
        name: "a page to come",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "api: { page: true }\n",
        ),
        findings: &[
            "5:14: note: api.page: the page does not exist yet (it will be served when it does)",
        ],
    },
    Case {
        name: "a rule priority behind the kernels",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "routing: { priority: 32766 }\n",
        ),
        findings: &[
            "5:22: error: routing.priority: `32766` is out of range (a number from 1 to 32000)",
        ],
    },
    Case {
        name: "a table of the kernel",
        text: concat!(
            "version: 1\n",
            "uplinks:\n",
            "  fiber: { interface: wan0 }\n",
            "  cable: { interface: wan1 }\n",
            "routing: { table: 254 }\n",
        ),
        findings: &[
            "5:19: error: routing.table: `254` is out of range (a number from 256 to 2000000000)",
        ],
    },
];
