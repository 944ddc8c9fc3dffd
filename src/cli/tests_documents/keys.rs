//! The list of a profile's keys, made from the schema.

use std::fmt::Write as _;

use serde_json::Value;

const HEAD: &str = "# Every key of a profile\n\n\
    Made from the schema (`homing schema`); [profile.md](profile.md) explains what they mean together. `NAME` is a name that\n\
    you give, `[]` an entry of a list. Words in capitals are explained at the end.\n";

pub(super) fn document(schema: &Value) -> String {
    let mut text = HEAD.to_owned();
    let required = names(&schema["required"]);
    for (key, node) in schema["properties"].as_object().into_iter().flatten() {
        let must = if required.contains(key) { " Required." } else { "" };
        let what = sentence(schema, node);
        let _ = write!(text, "\n## `{key}`\n\n{what}{must}\n\n");
        text += "| key | value | default | |\n|---|---|---|---|\n";
        rows(schema, key, node, required.contains(key), &mut text);
    }
    text += "\n## Values\n\n| word | what it is | for example |\n|---|---|---|\n";
    for (name, node) in schema["$defs"].as_object().into_iter().flatten() {
        if node["properties"].is_object() {
            continue;
        }
        let examples: Vec<String> =
            node["examples"].as_array().into_iter().flatten().map(shown).collect();
        let (word, what) = (name.to_uppercase(), sentence(schema, node));
        let what = if what.is_empty() { value(schema, node) } else { what };
        let _ = writeln!(text, "| {word} | {what} | {} |", examples.join(", "));
    }
    text
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What a reference stands for, with what is said beside it.
fn resolve<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
    match node["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        Some(name) => &schema["$defs"][name],
        None => node,
    }
}

fn sentence(schema: &Value, node: &Value) -> String {
    let own = node["description"].as_str();
    own.or(resolve(schema, node)["description"].as_str()).unwrap_or_default().replace('|', "\\|")
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

/// A key, and those below it.
fn rows(schema: &Value, path: &str, node: &Value, required: bool, text: &mut String) {
    let default = match (&node["default"], required) {
        (Value::Null, true) => "required".to_owned(),
        (Value::Null, false) => String::new(),
        (value, _) => shown(value),
    };
    let (value, what) = (value(schema, node), sentence(schema, node));
    let _ = writeln!(text, "| `{path}` | {value} | {default} | {what} |");
    below(schema, path, node, text);
}

fn below(schema: &Value, path: &str, node: &Value, text: &mut String) {
    let node = resolve(schema, node);
    let required = names(&node["required"]);
    for (key, part) in node["properties"].as_object().into_iter().flatten() {
        rows(schema, &format!("{path}.{key}"), part, required.contains(key), text);
    }
    if node["additionalProperties"].is_object() {
        below(schema, &format!("{path}.NAME"), &node["additionalProperties"], text);
    }
    if node["items"].is_object() {
        below(schema, &format!("{path}[]"), &node["items"], text);
    }
    let choices: Vec<&Value> =
        ["anyOf", "oneOf"].iter().filter_map(|key| node[*key].as_array()).flatten().collect();
    // One of them, or a list of the same.
    let alone = |list: &Value| choices.contains(&&list["items"]);
    for choice in choices.iter().filter(|choice| !alone(choice)) {
        below(schema, path, choice, text);
    }
}

/// What may stand there.
fn value(schema: &Value, node: &Value) -> String {
    if let Some(name) = node["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        let block = schema["$defs"][name]["properties"].is_object();
        return if block { "a block".to_owned() } else { name.to_uppercase() };
    }
    if let Some(choices) = node["enum"].as_array() {
        return choices.iter().map(shown).collect::<Vec<_>>().join(" · ");
    }
    if !node["const"].is_null() {
        return shown(&node["const"]);
    }
    if let Some(choices) = node["anyOf"].as_array().or(node["oneOf"].as_array()) {
        let mut all: Vec<String> = choices.iter().map(|one| value(schema, one)).collect();
        all.dedup();
        return all.join(" or ");
    }
    let range = |word: &str| match (&node["minimum"], &node["maximum"]) {
        (Value::Null, Value::Null) => word.to_owned(),
        (least, Value::Null) => format!("{word}, {least} or more"),
        (least, most) => format!("{least} to {most}"),
    };
    match node["type"].as_str() {
        Some("array") => format!("list of {}", value(schema, &node["items"])),
        Some("integer" | "number") => range("a number"),
        Some("boolean") => "`true` · `false`".to_owned(),
        Some("string") => "text".to_owned(),
        Some("object") if node["additionalProperties"].is_object() => "a mapping".to_owned(),
        Some("object") => "a block".to_owned(),
        _ => String::new(),
    }
}
