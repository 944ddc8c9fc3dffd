//! `probes`, `groups`, `services`.

use serde_json::{Value, json};

use super::super::groups::BALANCE;
use super::super::services::MODES;
use super::super::settings::HELPERS;
use super::super::uplinks::MOST_WEIGHT;
use super::values::{block, boolean, named, number, one_or_many, reference, time, word, words};

pub(super) fn probes() -> Value {
    named("How uplinks are probed, by name.", json!({ "$ref": "#/$defs/probe" }))
}

pub(super) fn probe() -> Value {
    let targets = json!({
        "type": "array", "items": target(), "minItems": 1, "maxItems": 64,
        "description": "What each uplink asks by its own link.",
    });
    block(
        "How an uplink is probed.",
        &["targets"],
        &[
            ("targets", targets),
            ("quorum", number("Targets that must answer for a round to be good.", 1, 64, Some(1))),
            ("interval", time("From one round to the next.", "1s")),
            ("timeout", time("A later answer is none.", "500ms")),
            ("fall", number("Bad rounds in a row until `down`.", 1, 100, Some(3))),
            ("rise", number("Good rounds in a row until `up`.", 1, 100, Some(3))),
            ("degraded", json!({ "$ref": "#/$defs/degraded" })),
            ("hold-down", time("How long a recovered uplink must stay good.", "10s")),
        ],
    )
}

pub(super) fn degraded() -> Value {
    block(
        "Above any of these it is degraded; it is left at half of them.",
        &[],
        &[
            (
                "loss",
                json!({ "$ref": "#/$defs/share", "default": "10%", "description": "Lost answers." }),
            ),
            ("rtt", time("Round-trip time.", "150ms")),
            ("jitter", time("Its variation.", "30ms")),
        ],
    )
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn answer() -> [(&'static str, Value); 3] {
    [
        ("status", number("The status that is good.", 100, 599, None)),
        ("body", text("Text that the body must contain.")),
        ("host", text("The host name to ask for.")),
    ]
}

fn target() -> Value {
    let mut http = vec![("url", text("Where to."))];
    http.extend(answer());
    let http = block("An HTTP or HTTPS request.", &["url"], &http);
    let dns = block(
        "A DNS question.",
        &["server", "query"],
        &[
            ("server", reference("The resolver.", "address")),
            ("query", text("The name to ask for.")),
        ],
    );
    let mut kinds = block(
        "One kind of question.",
        &[],
        &[
            ("icmp", reference("An ICMP echo.", "address")),
            ("tcp", text("A TCP connection to ADDRESS:PORT.")),
            ("http", http.clone()),
            ("https", http),
            ("dns", dns),
        ],
    );
    if let Some(object) = kinds.as_object_mut() {
        object.insert("minProperties".to_owned(), json!(1));
        object.insert("maxProperties".to_owned(), json!(1));
    }
    json!({ "anyOf": [{ "const": "gateway" }, kinds] })
}

pub(super) fn groups() -> Value {
    let server = block(
        "One server.",
        &["address"],
        &[
            ("address", reference("Where it is.", "address")),
            (
                "port",
                number("Its port; left out: the one that the client asked for.", 1, 65_535, None),
            ),
            ("weight", number("Its share.", 0, MOST_WEIGHT, Some(1))),
            ("max-connections", number("Most live connections.", 1, u32::MAX, None)),
            ("backup", boolean("Serves only while no other server is usable.")),
        ],
    );
    let group = block(
        "The servers that do one job.",
        &["servers"],
        &[
            (
                "balance",
                word("How a new session picks its server.", &words(BALANCE), "round-robin"),
            ),
            (
                "slow-start",
                time("Over how long a recovered server gets its full share; 0s: at once.", "30s"),
            ),
            ("check", check()),
            ("servers", named("The servers, by name.", server)),
        ],
    );
    named("Groups of servers, by name.", group)
}

fn check() -> Value {
    let port = ("port", number("Another port than the service's.", 1, 65_535, None));
    let mut http = vec![port.clone(), ("path", text("What to ask for; by default `/`."))];
    http.extend(answer());
    let optional = |block: Value| json!({ "anyOf": [block, { "type": "null" }] });
    let http = optional(block("An HTTP or HTTPS request.", &[], &http));
    let tls = [port.clone(), ("host", text("The server name to ask for."))];
    let dns = [port.clone(), ("query", text("The name to ask for."))];
    let udp = [
        port.clone(),
        ("send", text("What is sent: text, or `0x` and two hexadecimal digits for each byte.")),
        ("expect", text("What the answer must contain, written alike; left out: anything.")),
    ];
    let keys = block(
        "One kind, and how often.",
        &[],
        &[
            ("icmp", optional(block("An ICMP echo.", &[], &[]))),
            ("tcp", optional(block("A TCP connection.", &[], &[port]))),
            ("http", http.clone()),
            ("https", http),
            ("tls", optional(block("A TLS handshake.", &[], &tls))),
            ("dns", block("A DNS question.", &["query"], &dns)),
            ("udp", block("A datagram and its answer.", &["send"], &udp)),
            ("interval", time("From one round to the next.", "2s")),
            ("timeout", time("A later answer is none.", "1s")),
            ("fall", number("Bad rounds in a row until `down`.", 1, 100, Some(3))),
            ("rise", number("Good rounds in a row until `up`.", 1, 100, Some(2))),
            ("hold-down", time("How long a recovered server must stay good.", "0s")),
            ("degraded", json!({ "$ref": "#/$defs/degraded" })),
        ],
    );
    json!({
        "anyOf": [{ "enum": ["icmp", "tcp", "http", "https", "tls"] }, keys],
        "description": "How each server is checked; by default TCP on its port (ICMP for UDP and `any`).",
    })
}

pub(super) fn services() -> Value {
    let address = block(
        "An address that the router takes and announces.",
        &["address", "on"],
        &[
            ("address", reference("The address.", "address")),
            ("on", reference("The uplink that it is reached by.", "name")),
        ],
    );
    let reached = json!({ "anyOf": [{ "$ref": "#/$defs/name" }, address] });
    let plain = json!({ "enum": ["tcp", "udp"] });
    let protocol = json!({
        "anyOf": [{ "enum": ["tcp", "udp", "any"] }, { "type": "array", "items": plain, "minItems": 1 }],
        "description": "any: every IP protocol, with the persistence mode `ip`.",
    });
    let service = block(
        "A virtual address, protocol and port, served by a group.",
        &["virtual", "group"],
        &[
            (
                "virtual",
                one_or_many(
                    "Uplinks, whose addresses are used as they change, or addresses.",
                    reached,
                ),
            ),
            ("protocol", protocol),
            ("ports", reference("Destination ports; not with `any`.", "ports")),
            ("group", reference("The servers: a name under `groups`.", "name")),
            ("persistence", persistence()),
            ("allow", reference("Who may connect; left out: everybody.", "prefixes")),
            (
                "helper",
                json!({ "enum": words(HELPERS), "description": "A connection-tracking helper." }),
            ),
        ],
    );
    named("What is served to the internet, by name.", service)
}

fn persistence() -> Value {
    let mode = json!({ "enum": words(MODES), "default": "tcp", "description":
        "tcp: the session alone; ssl: a client's sessions to the service; sticky: to the address; vpn: IPsec; ip: by a hash." });
    let keys = block(
        "What a client's sessions must have in common, and for how long.",
        &[],
        &[
            ("mode", mode.clone()),
            (
                "timeout",
                reference(
                    "Idle time; 2h for ssl and sticky, 3m for vpn and the UDP of tcp, none for ip.",
                    "time",
                ),
            ),
            (
                "client-mask",
                number("Prefix length that is applied to IPv4 clients first.", 0, 32, Some(32)),
            ),
            (
                "client-mask6",
                number("Prefix length that is applied to IPv6 clients first.", 0, 128, Some(128)),
            ),
        ],
    );
    json!({
        "anyOf": [mode, keys],
        "description": "Whether a client's later sessions use the server of the first.",
    })
}
