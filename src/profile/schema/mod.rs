//! The JSON Schema of profiles (draft 2020-12), for editors: completion, descriptions, and the
//! mistakes that one value shows. What several entries show together only [`super::load`] tells.
//!
//! Words come from the readers' own tables, and a test holds the keys equal to theirs.

mod inbound;
mod outbound;
mod values;

use serde_json::{Value, json};

use values::{block, one_or_many, word};

use crate::model::EventKind;

/// The schema that `homing schema` prints.
pub fn schema() -> Value {
    let mut schema = block(
        "A site of homing: its uplinks, its LANs, and how sessions use them.",
        &["version", "uplinks"],
        &[
            ("version", json!({ "const": 1, "description": "The version of this format." })),
            (
                "site",
                json!({ "type": "string", "minLength": 1, "maxLength": 64, "default": "homing",
                "description": "The site's name, for logs and status." }),
            ),
            ("uplinks", outbound::uplinks()),
            ("lans", outbound::lans()),
            ("probes", inbound::probes()),
            ("policies", outbound::policies()),
            ("groups", inbound::groups()),
            ("services", inbound::services()),
            ("firewall", firewall()),
            ("marks", marks()),
            ("routing", routing()),
            ("fast-path", fast_path()),
            ("helpers", helpers()),
            ("api", api()),
            ("notify", notify()),
        ],
    );
    if let Some(object) = schema.as_object_mut() {
        let draft = "https://json-schema.org/draft/2020-12/schema";
        object.insert("$schema".to_owned(), json!(draft));
        object.insert("title".to_owned(), json!("homing profile"));
        let mut definitions = values::definitions();
        definitions["degraded"] = inbound::degraded();
        definitions["probe"] = inbound::probe();
        object.insert("$defs".to_owned(), definitions);
    }
    schema
}

fn firewall() -> Value {
    let exception = block(
        "One exception.",
        &[],
        &[
            ("in", values::reference("Entering by this uplink; left out: by any.", "name")),
            (
                "to",
                json!({ "anyOf": [{ "const": "router" }, { "$ref": "#/$defs/prefix" }],
                "description": "An address or prefix, or `router` for the router itself; left out: anybody." }),
            ),
            ("protocol", values::reference("Protocols; left out: any.", "protocols")),
            (
                "ports",
                values::reference(
                    "Destination ports. Without a protocol: of TCP and UDP.",
                    "ports",
                ),
            ),
        ],
    );
    block(
        "What may enter from the uplinks.",
        &[],
        &[
            (
                "forward",
                word(
                    "From an uplink into the LANs. closed: replies, services, port forwards and `allow` alone.",
                    &["closed", "open"],
                    "closed",
                ),
            ),
            (
                "input",
                word(
                    "From an uplink to the router. closed: replies, ICMP, DHCP, services and `allow` alone.",
                    &["open", "closed"],
                    "open",
                ),
            ),
            ("allow", one_or_many("What enters nevertheless.", exception)),
        ],
    )
}

fn marks() -> Value {
    let mask = |description: &str, default: &str| json!({ "$ref": "#/$defs/mask", "description": description, "default": default });
    block(
        "Which bits of the packet and connection marks are ours. The masks must not overlap.",
        &[],
        &[
            ("uplink", mask("Two bits at least; one number stays reserved.", "0x3f00")),
            ("server", mask("As many numbers as the largest group has servers.", "0xff")),
            ("policy", mask("As many numbers as there are policies, and one more.", "0xff000000")),
        ],
    )
}

fn routing() -> Value {
    block(
        "Our ranges of numbers in policy routing.",
        &[],
        &[
            (
                "priority",
                values::number("Rule priorities from here on are ours.", 1, 32_000, Some(10_000)),
            ),
            (
                "table",
                values::number(
                    "Routing tables from here on are ours.",
                    256,
                    2_000_000_000,
                    Some(10_000),
                ),
            ),
        ],
    )
}

fn fast_path() -> Value {
    let words = values::words(super::settings::FAST_PATH);
    word("Whether established sessions take the kernel's flow table.", &words, "auto")
}

fn helpers() -> Value {
    let words = values::words(super::settings::HELPERS);
    one_or_many("Connection-tracking helpers for sessions from the LANs.", json!({ "enum": words }))
}

fn api() -> Value {
    let listen = one_or_many(
        "TCP addresses, beside the Unix socket. Others than loopback need `token-file`.",
        json!({ "type": "string", "examples": ["127.0.0.1:9480", "[::1]:9480"] }),
    );
    block(
        "The local HTTP interface.",
        &[],
        &[
            ("listen", listen),
            ("page", values::boolean("Whether to serve the status page.")),
            (
                "token-file",
                json!({ "type": "string", "pattern": "^/",
                "description": "Where the token is kept that readers by TCP must send." }),
            ),
        ],
    )
}

fn notify() -> Value {
    let kinds = EventKind::ALL.map(EventKind::as_str);
    let entry = block(
        "One who is told: by `webhook` or by `command`.",
        &[],
        &[
            (
                "webhook",
                json!({ "type": "string", "pattern": "^https?://",
                "description": "Where each event is posted as JSON; tried again until it is taken." }),
            ),
            (
                "command",
                one_or_many(
                    "A program, by its absolute path, and its arguments. It reads the event as JSON.",
                    json!({ "type": "string" }),
                ),
            ),
            (
                "events",
                one_or_many(
                    "Of what; left out: of all but `remark` and `sessions-mended`.",
                    json!({ "enum": kinds }),
                ),
            ),
            ("timeout", values::time("How long one try may take.", "10s")),
        ],
    );
    values::named("Who is told of events, each under a name.", entry)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::super::{
        check, groups, lans, notify, policies, probes, services, settings, uplinks,
    };
    use super::schema;

    fn keys_at<'s>(schema: &'s Value, pointer: &str) -> BTreeSet<&'s str> {
        let properties = schema.pointer(&format!("{pointer}/properties"));
        let properties = properties.unwrap_or_else(|| panic!("nothing at {pointer}"));
        properties.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let schema = schema();
        let allow = "/properties/firewall/properties/allow/anyOf/1/items";
        let named = "additionalProperties";
        let places = [
            (String::new(), super::super::KEYS),
            (format!("/properties/uplinks/{named}"), uplinks::KEYS),
            (format!("/properties/lans/{named}"), lans::KEYS),
            ("/$defs/probe".to_owned(), probes::KEYS),
            ("/properties/policies/items".to_owned(), policies::KEYS),
            ("/properties/policies/items/properties/match".to_owned(), policies::MATCH_KEYS),
            (format!("/properties/groups/{named}"), groups::KEYS),
            (format!("/properties/groups/{named}/properties/check/anyOf/1"), check::KEYS),
            (format!("/properties/groups/{named}/properties/servers/{named}"), groups::SERVER_KEYS),
            (format!("/properties/services/{named}"), services::KEYS),
            (
                format!("/properties/services/{named}/properties/persistence/anyOf/1"),
                services::PERSISTENCE_KEYS,
            ),
            ("/properties/firewall".to_owned(), settings::FIREWALL_KEYS),
            (allow.to_owned(), settings::ALLOW_KEYS),
            ("/properties/marks".to_owned(), settings::MARK_KEYS),
            ("/properties/routing".to_owned(), settings::ROUTING_KEYS),
            ("/properties/api".to_owned(), settings::API_KEYS),
            (format!("/properties/notify/{named}"), notify::KEYS),
        ];
        for (pointer, keys) in places {
            let read: BTreeSet<&str> = keys.iter().copied().collect();
            assert_eq!(keys_at(&schema, &pointer), read, "{pointer}");
        }
    }

    #[test]
    fn every_reference_has_its_definition() {
        let schema = schema();
        let text = schema.to_string();
        let mut count = 0;
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(schema.pointer(pointer).is_some(), "{pointer}");
            count += 1;
        }
        assert!(count > 20, "{count}");
    }
}
