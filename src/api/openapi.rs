//! `GET /v1/openapi.json`: what the API takes and gives, for programs. The shapes of answers come from
//! the types that are written; a test sends requests that it makes from this document.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::events::Events;
use super::server::Bindings;
use crate::daemon::{
    EventRecord, GroupStatus, PolicyStatus, ServiceStatus, SessionPage, Status, UplinkStatus,
};
use crate::model::EventKind;

const JSON: &str = "application/json";

/// The document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut shapes = settings.into_generator();
    let paths = paths(&mut shapes);
    let mut schemas: Map<String, Value> = shapes.take_definitions(true);
    schemas.insert("Error".to_owned(), error());
    schemas.insert("Explanation".to_owned(), explanation());
    schemas.insert("Findings".to_owned(), findings());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "homing",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "On the Unix socket everything; by TCP what reads, and `POST /v1/check`.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "Unix socket RUNTIME/api.sock, or `api.listen`" }],
        "security": [{}, { "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn paths(shapes: &mut SchemaGenerator) -> Value {
    let uplinks = part(shapes, &[part_of::<UplinkStatus>("uplinks")]);
    let policies = part(shapes, &[part_of::<PolicyStatus>("policies")]);
    let groups = part(shapes, &[part_of::<GroupStatus>("groups")]);
    let both = [part_of::<ServiceStatus>("services"), part_of::<GroupStatus>("groups")];
    let services = part(shapes, &both);
    let orders = json!({ "enum": ["drain", "disable", "enable"] });
    let name = || path("name", json!({ "type": "string" }), "Its name in the profile.");
    let order = || path("order", orders.clone(), "What it may be used for.");
    let group = || path("group", json!({ "type": "string" }), "The group of the server.");
    let done = |what: &str| {
        let properties = json!({ what: { "type": "string" }, "admin": { "type": "string" } });
        json!({ "type": "object", "properties": properties, "required": [what, "admin"] })
    };
    let generation = json!({ "type": "object", "required": ["generation"],
        "properties": { "generation": { "type": "integer", "minimum": 1 } } });
    json!({
        "/v1/status": { "get": get("Everything.", shapes.subschema_for::<Status>().to_value(), &[]) },
        "/v1/uplinks": { "get": get("The uplinks.", uplinks, &[]) },
        "/v1/policies": { "get": get("The policies.", policies, &[]) },
        "/v1/services": { "get": get("The services, and the groups behind them.", services, &[]) },
        "/v1/groups": { "get": get("The groups of servers.", groups, &[]) },
        "/v1/bindings": { "get": get("Which client is bound to what.",
            shapes.subschema_for::<Bindings>().to_value(), &[
                query("service", text(), "Only those of this service."),
                query("client", address(), "Only those of this client."),
            ]) },
        "/v1/sessions": { "get": get("Sessions, by the page.",
            shapes.subschema_for::<SessionPage>().to_value(), &sessions()) },
        "/v1/events": { "get": get("What has happened, oldest first.",
            shapes.subschema_for::<Events>().to_value(), &[events(), vec![
                query("limit", json!({ "type": "integer", "minimum": 0 }), "The last of them, so many at most."),
            ]].concat()) },
        "/v1/events/stream": { "get": stream(shapes.subschema_for::<EventRecord>().to_value()) },
        "/v1/explain": { "get": get("Where a new session would go, and why.",
            json!({ "$ref": "#/components/schemas/Explanation" }), &questions()) },
        "/v1/uplinks/{name}/{order}": { "post": post("Says what an uplink may be used for.",
            done("uplink"), vec![name(), order()]) },
        "/v1/servers/{name}/{order}": { "post": post("Says what the server of a name that is unique may be used for.",
            done("server"), vec![name(), order()]) },
        "/v1/servers/{group}/{name}/{order}": { "post": post("Says what a server may be used for.",
            done("server"), vec![group(), name(), order()]) },
        "/v1/reload": { "post": post("Reads the profile again; answers when it is in force.",
            generation, Vec::new()) },
        "/v1/check": { "post": check() },
        "/v1/openapi.json": { "get": get("This document.", json!({ "type": "object" }), &[]) },
        "/metrics": { "get": metrics() },
    })
}

/// A part of the status: a key, and what stands under each name below it.
type Part = (&'static str, fn(&mut SchemaGenerator) -> Value);

fn part_of<T: JsonSchema>(key: &'static str) -> Part {
    (key, |shapes| shapes.subschema_for::<T>().to_value())
}

fn part(shapes: &mut SchemaGenerator, parts: &[Part]) -> Value {
    let mut properties = Map::from_iter([("version".to_owned(), json!({ "const": 1 }))]);
    for (key, shape) in parts {
        let entries = json!({ "type": "object", "additionalProperties": shape(shapes) });
        properties.insert((*key).to_owned(), entries);
    }
    let required: Vec<String> = properties.keys().cloned().collect();
    json!({ "type": "object", "properties": properties, "required": required })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn address() -> Value {
    json!({ "type": "string", "format": "ip" })
}

fn sessions() -> Vec<Value> {
    vec![
        query("uplink", text(), "Only those that are pinned to this uplink."),
        query("policy", text(), "Only those of this policy."),
        query("service", text(), "Only those of this service."),
        query("server", text(), "Only those with this server: GROUP/NAME, or its name alone."),
        query("client", address(), "Only those that this address began."),
        query(
            "limit",
            json!({ "type": "integer", "minimum": 1, "maximum": 10_000, "default": 1000 }),
            "How many at most.",
        ),
        query("after", text(), "`next` of the page before this one."),
    ]
}

fn events() -> Vec<Value> {
    let kinds = EventKind::ALL.map(EventKind::as_str).join(", ");
    vec![
        query("kind", text(), &format!("Only these kinds, with commas between them: {kinds}.")),
        query("uplink", text(), "Only those about this uplink."),
        query("server", text(), "Only those about this server, as GROUP/NAME."),
        query(
            "since",
            json!({ "type": "integer", "minimum": 0 }),
            "Only those after the event of this number.",
        ),
    ]
}

fn questions() -> Vec<Value> {
    let number = |most: u32| json!({ "type": "integer", "minimum": 0, "maximum": most });
    let mut from = query("from", address(), "The source address.");
    let mut to = query("to", address(), "The destination address.");
    from["required"] = json!(true);
    to["required"] = json!(true);
    vec![
        from,
        to,
        query("protocol", text(), "tcp (the default), udp, icmp, or a number."),
        query("port", number(65_535), "The destination port."),
        query("source-port", number(65_535), "The source port."),
        query("dscp", number(63), "The code point."),
        query("in", text(), "In by which LAN, uplink or device."),
    ]
}

fn query(name: &str, schema: Value, description: &str) -> Value {
    json!({ "name": name, "in": "query", "schema": schema, "description": description })
}

fn path(name: &str, schema: Value, description: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": schema, "description": description })
}

fn content(description: &str, kind: &str, schema: Value) -> Value {
    json!({ "description": description, "content": { kind: { "schema": schema } } })
}

/// All answers: the good one, and those that say what is wrong.
fn answers(good: Value, bad: &[(&str, &str)]) -> Value {
    let mut answers = Map::from_iter([("200".to_owned(), good)]);
    let always = [
        ("401", "The token is missing or wrong (by TCP)."),
        ("413", "The body is too long."),
        ("421", "The Host header is none of ours (by TCP)."),
        ("503", "It is stopping, or too busy."),
    ];
    for (status, description) in always.iter().chain(bad) {
        let error = json!({ "$ref": "#/components/schemas/Error" });
        answers.insert((*status).to_owned(), content(description, JSON, error));
    }
    Value::Object(answers)
}

fn get(summary: &str, schema: Value, parameters: &[Value]) -> Value {
    let mut bad = vec![("500", "The kernel could not be read.")];
    if !parameters.is_empty() {
        bad.push(("400", "A parameter is wrong."));
        bad.push(("422", "The question cannot be answered."));
    }
    let answers = answers(content("It is so.", JSON, schema), &bad);
    json!({ "summary": summary, "parameters": parameters, "responses": answers })
}

fn post(summary: &str, schema: Value, parameters: Vec<Value>) -> Value {
    let bad = [
        ("400", "The path is wrong."),
        ("403", "Not by this way, or not for this user."),
        ("404", "There is nothing of that name, or no such order."),
        ("422", "Refused; the running profile stays in force."),
    ];
    let answers = answers(content("It is done.", JSON, schema), &bad);
    json!({ "summary": summary, "parameters": parameters, "responses": answers })
}

fn stream(event: Value) -> Value {
    let description = "Server-sent events: `data` is an event as JSON, `id` its number. An event \
                       `lost` says how many were missed by a reader who did not keep up. A reader who \
                       sends `Last-Event-ID`, or `since`, first gets what came after that one.";
    let good = content(description, "text/event-stream", event);
    let bad = [("400", "A parameter is wrong.")];
    json!({ "summary": "What happens, as it happens.", "parameters": events(),
        "responses": answers(good, &bad) })
}

fn check() -> Value {
    let good = content(
        "What is to be said of it.",
        JSON,
        json!({ "$ref": "#/components/schemas/Findings" }),
    );
    let bad = [("408", "The profile does not arrive.")];
    let body = json!({ "required": true, "description": "A profile, 4 MB at most.",
        "content": { "application/yaml": { "schema": { "type": "string" } } } });
    json!({ "summary": "Checks a profile, and changes nothing.", "requestBody": body,
        "responses": answers(good, &bad) })
}

fn metrics() -> Value {
    let mut good = content("Everything that is counted.", "text/plain", text());
    good["content"]["application/openmetrics-text"] = json!({ "schema": text() });
    json!({ "summary": "For Prometheus; OpenMetrics when `Accept` asks for it.",
        "responses": answers(good, &[("500", "The figures cannot be written.")]) })
}

fn error() -> Value {
    json!({ "type": "object", "required": ["error"],
        "properties": { "error": { "type": "string", "description": "What is wrong." } } })
}

/// Fields may be added.
fn explanation() -> Value {
    json!({
        "type": "object",
        "required": ["version", "packet", "outcome", "summary", "decided_by", "reasons"],
        "properties": {
            "version": { "const": 1 },
            "packet": { "type": "object", "additionalProperties": true },
            "outcome": { "type": "string" },
            "summary": { "type": "string", "description": "What happens, in one sentence." },
            "decided_by": { "type": "string" },
            "reasons": { "type": "array", "items": { "type": "string" } },
        },
        "additionalProperties": true,
    })
}

fn findings() -> Value {
    let number = json!({ "type": "integer", "minimum": 0 });
    let finding = json!({
        "type": "object",
        "required": ["severity", "line", "column", "path", "message", "hint"],
        "properties": {
            "severity": { "enum": ["error", "warning", "note"] },
            "line": number, "column": number,
            "path": { "type": "string" },
            "message": { "type": "string" },
            "hint": { "type": ["string", "null"] },
        },
    });
    json!({ "type": "object", "required": ["version", "findings"], "properties": {
        "version": { "const": 1 },
        "findings": { "type": "array", "items": finding },
    } })
}
