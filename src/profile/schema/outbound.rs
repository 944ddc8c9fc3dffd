//! `uplinks`, `lans`, `policies`.

use serde_json::{Value, json};

use super::super::policies::{BALANCE, PERSISTENCE, WHEN_ALL_DOWN};
use super::super::uplinks::{MOST_WEIGHT, NAT};
use super::values::{block, boolean, named, number, one_or_many, reference, time, word, words};

pub(super) fn uplinks() -> Value {
    let gateway = |family: &str| {
        json!({
            "anyOf": [{ "enum": ["auto", "none"] }, { "$ref": "#/$defs/address" }],
            "default": "auto",
            "description": format!("The {family} gateway. auto: learned from the kernel (DHCP, RA, PPP); none: point-to-point."),
        })
    };
    let rate = |description: &str| reference(description, "rate");
    let bandwidth = block(
        "Line rates.",
        &["down", "up"],
        &[("down", rate("From the internet.")), ("up", rate("To the internet."))],
    );
    let probe = json!({
        "anyOf": [{ "$ref": "#/$defs/name" }, { "$ref": "#/$defs/probe" }],
        "description": "A name under `probes`, or a block of its own.",
    });
    let prefixes =
        "Networks that this ISP routes to us: sources inside leave by this uplink, untranslated.";
    let uplink = block(
        "One ISP link.",
        &["interface"],
        &[
            ("interface", reference("The network device.", "interface")),
            ("gateway", gateway("IPv4")),
            ("gateway6", gateway("IPv6")),
            ("bandwidth", bandwidth),
            (
                "weight",
                number(
                    "The share of new sessions; from bandwidth.down by default, else 1.",
                    0,
                    MOST_WEIGHT,
                    None,
                ),
            ),
            ("probe", probe),
            (
                "nat",
                word("auto: every source outside `prefixes` is translated.", &words(NAT), "auto"),
            ),
            ("prefixes", reference(prefixes, "prefixes")),
            ("metered", boolean("Probed at ten times the interval while up.")),
            ("id", number("Normally given by homing and remembered.", 1, 62, None)),
        ],
    );
    named("The ISP links, by name.", uplink)
}

pub(super) fn lans() -> Value {
    let networks = "What is behind it; by default the networks of the interface's addresses.";
    let lan = block(
        "An inside network.",
        &["interface"],
        &[
            ("interface", reference("The network device.", "interface")),
            ("networks", reference(networks, "prefixes")),
        ],
    );
    named("The inside, by name; left out: every interface that is no uplink.", lan)
}

pub(super) fn policies() -> Value {
    let name = json!({ "$ref": "#/$defs/name" });
    let tier = json!({ "type": "array", "items": name, "minItems": 1 });
    let uplinks = json!({
        "description": "Tiers, used in order; a flat list is one tier; by default all uplinks in one.",
        "anyOf": [name, tier, { "type": "array", "items": tier, "minItems": 1 }],
    });
    let evacuate = json!({
        "anyOf": [{ "const": "never" }, { "$ref": "#/$defs/time" }], "default": "never",
        "description": "How long sessions stay pinned to a dead uplink.",
    });
    let last = "What happens to new sessions when no uplink is usable.";
    let release = json!({
        "type": "boolean", "default": false,
        "description": "The router's own UDP that this matches goes back to an uplink that returns.",
    });
    let policy = block(
        "Which traffic may use which uplinks, and how.",
        &["name"],
        &[
            ("name", reference("A name of its own.", "name")),
            ("match", matches()),
            ("uplinks", uplinks),
            ("balance", word("How a new session picks its uplink.", &words(BALANCE), "weighted")),
            ("persistence", persistence()),
            ("evacuate-after", evacuate),
            ("when-all-down", word(last, &words(WHEN_ALL_DOWN), "try")),
            ("release-on-return", release),
        ],
    );
    json!({
        "type": "array", "items": policy, "minItems": 1, "maxItems": 254,
        "description": "The first that matches takes a session; without a match: all uplinks, weighted.",
    })
}

fn matches() -> Value {
    let source = json!({ "anyOf": [{ "$ref": "#/$defs/name" }, { "$ref": "#/$defs/prefix" }] });
    let code_point = json!({ "$ref": "#/$defs/dscp" });
    block(
        "All of these must be true; left out: everything.",
        &[],
        &[
            ("from", one_or_many("LANs that it arrived by, and source prefixes.", source)),
            ("to", reference("Destination prefixes.", "prefixes")),
            ("protocol", reference("Protocols.", "protocols")),
            ("ports", reference("Destination ports. Without a protocol: of TCP and UDP.", "ports")),
            ("dscp", one_or_many("Code points.", code_point)),
        ],
    )
}

fn persistence() -> Value {
    let by = json!({ "enum": words(PERSISTENCE) });
    let keyed = block(
        "What a client's sessions must have in common, and for how long.",
        &["by"],
        &[("by", by.clone()), ("timeout", time("Idle time.", "1h"))],
    );
    json!({
        "anyOf": [by, keyed], "default": "none",
        "description": "Whether a client's later sessions use the uplink of the first.",
    })
}
