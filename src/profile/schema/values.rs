//! The parts of which the schema is made.

use serde_json::{Map, Value, json};

/// A block of known keys.
pub(super) fn block(description: &str, required: &[&str], keys: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> =
        keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let mut block = json!({
        "type": "object",
        "description": description,
        "properties": properties,
        "additionalProperties": false,
    });
    if let Some(object) = block.as_object_mut().filter(|_| !required.is_empty()) {
        object.insert("required".to_owned(), json!(required));
    }
    block
}

/// A block whose keys are names.
pub(super) fn named(description: &str, entry: Value) -> Value {
    json!({
        "type": "object",
        "description": description,
        "propertyNames": { "pattern": "^[a-z][a-z0-9-]{0,30}$" },
        "additionalProperties": entry,
        "minProperties": 1,
    })
}

/// One value, or a list of such values.
pub(super) fn one_or_many(description: &str, item: Value) -> Value {
    json!({ "description": description, "anyOf": [item.clone(), { "type": "array", "items": item }] })
}

/// A value that is defined once for all.
pub(super) fn reference(description: &str, definition: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{definition}"), "description": description })
}

/// One of a few words.
pub(super) fn word(description: &str, words: &[&str], default: &str) -> Value {
    json!({ "enum": words, "default": default, "description": description })
}

/// The words of a reader's table.
pub(super) fn words<T>(table: &[(&'static str, T)]) -> Vec<&'static str> {
    table.iter().map(|(word, _)| *word).collect()
}

/// A whole number.
pub(super) fn number(description: &str, least: u32, most: u32, default: Option<u32>) -> Value {
    let mut number = json!({
        "type": "integer", "minimum": least, "maximum": most, "description": description,
    });
    if let (Some(object), Some(default)) = (number.as_object_mut(), default) {
        object.insert("default".to_owned(), json!(default));
    }
    number
}

/// `true` or `false`, by default `false`.
pub(super) fn boolean(description: &str) -> Value {
    json!({ "type": "boolean", "default": false, "description": description })
}

/// A time with its default.
pub(super) fn time(description: &str, default: &str) -> Value {
    json!({ "$ref": "#/$defs/time", "default": default, "description": description })
}

/// The values that `$ref` refers to.
pub(super) fn definitions() -> Value {
    let protocol = json!({
        "description": "A protocol by name or number; `icmp` is that of both families.",
        "anyOf": [{ "enum": words(super::super::net::PROTOCOLS) }, { "type": "integer", "minimum": 0, "maximum": 255 }],
    });
    let port = json!({
        "description": "A port, or a range like \"10000-20000\".",
        "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 65_535 },
            { "type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$" },
        ],
    });
    json!({
        "name": { "type": "string", "pattern": "^[a-z][a-z0-9-]{0,30}$" },
        "interface": { "type": "string", "pattern": "^[A-Za-z0-9_.@-]{1,15}$",
            "description": "The network device, as `ip link` shows it." },
        "address": { "type": "string", "examples": ["192.0.2.1", "2001:db8::1"] },
        "prefix": { "type": "string", "examples": ["192.0.2.0/24", "2001:db8::/32"] },
        "prefixes": one_or_many("Prefixes of either family; an address alone is that host.",
            json!({ "$ref": "#/$defs/prefix" })),
        "time": { "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$", "examples": ["500ms", "2s", "30m", "1h"] },
        "rate": { "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,3})?[kMG]$",
            "examples": ["500k", "20M", "1G"], "description": "Bits per second." },
        "share": { "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?%$", "examples": ["5%"] },
        "mask": { "anyOf": [{ "type": "integer", "minimum": 1, "maximum": u32::MAX },
            { "type": "string", "pattern": "^0x[0-9a-fA-F]+$" }] },
        "protocol": protocol,
        "protocols": one_or_many("Protocols.", json!({ "$ref": "#/$defs/protocol" })),
        "port": port,
        "ports": one_or_many("Destination ports.", json!({ "$ref": "#/$defs/port" })),
        "dscp": { "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 63 },
            { "type": "string", "pattern": "^(ef|va|be|le|cs[0-7]|af[1-4][1-3])$" }] },
    })
}
