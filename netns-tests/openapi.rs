//! The OpenAPI document against the running server: requests are made from what the document says,
//! good ones and bad ones, and each answer must be one that the document knows.

use std::collections::BTreeSet;

use homing::lab::Protocol;
use serde_json::{Map, Value};

use crate::harness::farm::{self, QUICK};
use crate::harness::http::{Answer, Door};
use crate::harness::{Site, V4};

/// What a value of the profile under test may be, besides what its schema says.
const KNOWN: [(&str, &[&str]); 8] = [
    ("uplink", &["fiber", "none"]),
    ("service", &["shop", "none"]),
    ("server", &["web/a", "a", "none/none"]),
    ("policy", &["default", "none"]),
    ("kind", &["failover", "ready,remark", "none"]),
    ("name", &["fiber", "a", "none", "%2e%2e", "%00"]),
    ("group", &["web", "none"]),
    ("after", &["tcp~10.1.0.10~1~203.0.113.10~80", "none"]),
];

/// One request.
#[derive(Debug, Clone)]
struct Shot {
    method: String,
    path: String,
    body: String,
}

/// Values that fit a schema, or just do not.
fn values(name: &str, schema: &Value) -> Vec<String> {
    let mut all: Vec<String> =
        ["", "x", "0", "-1", "%ff", "a%20b", "99999999999999999999"].map(str::to_owned).into();
    if let Some((_, known)) = KNOWN.iter().find(|(known, _)| *known == name) {
        all.extend(known.iter().map(|&value| value.to_owned()));
    }
    all.extend(
        schema["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|v| Some(v.as_str()?.to_owned())),
    );
    for limit in ["minimum", "maximum", "default"] {
        if let Some(number) = schema[limit].as_i64() {
            all.extend([number - 1, number, number + 1].map(|number| number.to_string()));
        }
    }
    if schema["format"] == "ip" {
        all.extend(["10.1.0.10", "203.0.113.10", "2001:db8::1", "10.1.0"].map(str::to_owned));
    }
    all
}

/// Requests for one operation: for each parameter each of its values, the others as they should be.
fn shots(path: &str, method: &str, operation: &Value) -> Vec<Shot> {
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let choices: Vec<(String, bool, bool, Vec<String>)> = parameters
        .iter()
        .map(|one| {
            let name = one["name"].as_str().unwrap().to_owned();
            let values = values(&name, &one["schema"]);
            (name, one["in"] == "path", one["required"] == true, values)
        })
        .collect();
    let usual = |name: &str| match name {
        "from" => "10.1.0.10",
        "to" => "203.0.113.10",
        "group" => "web",
        "order" => "enable",
        "name" if path.contains("servers") => "a",
        "name" => "fiber",
        other => panic!("{path}: what is usual for {other}?"),
    };
    let make = |chosen: Option<(usize, &str)>| {
        let (mut to, mut query) = (path.to_owned(), Vec::new());
        for (index, (name, in_path, required, _)) in choices.iter().enumerate() {
            let value = match chosen {
                Some((which, value)) if which == index => value,
                _ if *required => usual(name),
                _ => continue,
            };
            if *in_path {
                to = to.replace(&format!("{{{name}}}"), value);
            } else {
                query.push(format!("{name}={value}"));
            }
        }
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        Shot { method: method.to_uppercase(), path: format!("{to}{query}"), body: String::new() }
    };
    let mut all = vec![make(None)];
    for (index, (_, _, _, values)) in choices.iter().enumerate() {
        all.extend(values.iter().map(|value| make(Some((index, value)))));
    }
    if operation.get("requestBody").is_some() {
        let bodies = [
            "",
            "x",
            "version: 1\n",
            "{",
            "\u{0}",
            "version: 1\nuplinks: { a: { interface: b } }\n",
        ];
        let plain = make(None);
        all = bodies.map(|body| Shot { body: body.to_owned(), ..plain.clone() }).into();
    }
    all
}

/// Whether a value is as a schema says; why not.
fn fits(value: &Value, schema: &Value, document: &Value) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: {value:.300} against {schema:.300}"));
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        let target = document.pointer(pointer).ok_or(format!("{reference} leads nowhere"))?;
        return fits(value, target, document);
    }
    if let Some(some) = schema["anyOf"].as_array() {
        return match some.iter().any(|one| fits(value, one, document).is_ok()) {
            true => Ok(()),
            false => wrong("none fits"),
        };
    }
    if schema.get("const").is_some_and(|wanted| wanted != value) {
        return wrong("another value");
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
        return wrong("none of these");
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |wanted: &Value| wanted == kind || wanted == "number" && kind == "integer";
    let right = match &schema["type"] {
        Value::Null => true,
        Value::Array(several) => several.iter().any(is),
        one => is(one),
    };
    if !right {
        return wrong("another type");
    }
    if let (Some(number), Some(least)) = (value.as_f64(), schema["minimum"].as_f64())
        && number < least
    {
        return wrong("too small");
    }
    for item in value.as_array().into_iter().flatten() {
        fits(item, &schema["items"], document)?;
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    let nothing = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&nothing);
    for name in schema["required"].as_array().into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            return wrong(&format!("{name} is missing"));
        }
    }
    for (key, value) in object {
        match (properties.get(key), &schema["additionalProperties"]) {
            (Some(schema), _) => fits(value, schema, document)?,
            (None, Value::Bool(true)) => {}
            (None, more @ Value::Object(_)) => fits(value, more, document)?,
            // An object of which nothing is said may hold anything.
            (None, Value::Null) if properties.is_empty() => {}
            (None, _) => return wrong(&format!("`{key}` is not in the document")),
        }
    }
    Ok(())
}

fn judge(shot: &Shot, answer: &Answer, operation: &Value, document: &Value) {
    let response = &operation["responses"][answer.status.to_string()];
    assert!(
        !response.is_null(),
        "{shot:?}: status {} is not in the document\n{answer:.500?}",
        answer.status
    );
    let kind = answer.head.lines().find_map(|line| line.strip_prefix("content-type: "));
    let kind = kind.unwrap_or_else(|| panic!("{shot:?}: no content type"));
    let kind = kind.split(';').next().unwrap();
    let schema = response["content"].get(kind).map(|content| &content["schema"]);
    let schema = schema.unwrap_or_else(|| panic!("{shot:?}: {kind} is not in the document"));
    if kind == "application/json" {
        let value: Value = serde_json::from_str(&answer.body).expect("JSON");
        fits(&value, schema, document).unwrap_or_else(|why| panic!("{shot:?}: {why}"));
    }
}

#[test]
fn every_answer_is_one_that_the_document_knows() {
    let mut site = Site::prepare(V4, |b| b);
    let _farm = site.farm(2);
    let services =
        "  shop: { virtual: [fiber], protocol: tcp, ports: [80], group: web, persistence: ssl }\n";
    site.run(&farm::profile(V4, QUICK, &["port: 8080"; 2], services));
    site.wait_server(0, "up");
    let held = site.open_many(Protocol::Tcp, 0..3);
    let called = site.outside().open(Protocol::Tcp, Some(site.client(1)), site.at("fiber", 80));
    let document = site.get(Door::Socket, "/v1/openapi.json").json();
    let (mut seen, mut sent) = (BTreeSet::new(), 0);
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().unwrap() {
            if path.ends_with("/stream") {
                continue;
            }
            for shot in shots(path, method, operation) {
                let answer = site.request(Door::Socket, &shot.method, &shot.path, "", &shot.body);
                // A parameter may be such that its path is another one.
                if answer.status == 404 && answer.body.contains("nothing at this path") {
                    continue;
                }
                judge(&shot, &answer, operation, &document);
                seen.insert((path.clone(), answer.status));
                sent += 1;
            }
        }
    }
    for path in document["paths"].as_object().unwrap().keys().filter(|p| !p.ends_with("/stream")) {
        assert!(seen.contains(&(path.clone(), 200)), "{path} never went well: {seen:?}");
    }
    for status in [400, 404, 422] {
        assert!(seen.iter().any(|(_, one)| *one == status), "nothing led to {status}");
    }
    assert!(sent > 200, "{sent} requests");
    drop((held, called));
    let mut stream = site.stream(Door::Socket, "/v1/events/stream?since=0", "");
    let content = &document["paths"]["/v1/events/stream"]["get"]["responses"]["200"]["content"];
    fits(&stream.event(), &content["text/event-stream"]["schema"], &document).unwrap();
}
