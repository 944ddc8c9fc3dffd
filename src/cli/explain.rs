//! `homing explain`.

use std::process::ExitCode;

use serde_json::Value;

use super::arguments::Explain;
use super::show::{text, wrap};
use super::table::table;
use super::{USAGE, control};
use crate::api::Asked;

pub(super) fn run(asked: Explain) -> ExitCode {
    let Explain { from, to, protocol, port, source_port, dscp, input, runtime, json } = asked;
    let asked = Asked { from, to, protocol, port, source_port, dscp, input };
    if let Err(reason) = asked.question() {
        eprintln!("homing: {reason}");
        return ExitCode::from(USAGE);
    }
    control::get(&runtime.runtime_dir, &asked.path(), json, show)
}

fn show(answer: &Value) -> String {
    let mut shown = format!("{}\n", packet(&answer["packet"]));
    shown += &wrap(&text(&answer["summary"]));
    shown.push('\n');
    for reason in list(answer, "reasons") {
        shown += &wrap(&format!("- {}", text(reason)));
    }
    for tried in list(answer, "policies").filter(|tried| tried["matches"] == false) {
        let failed: Vec<String> = list(tried, "failed").map(text).collect();
        let line = format!("- not policy {}: {}", text(&tried["policy"]), failed.join("; "));
        shown += &wrap(&line);
    }
    if list(answer, "members").next().is_some() {
        shown.push('\n');
        shown += &members(answer);
    }
    shown
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

/// `tcp 10.1.0.10 to 203.0.113.10 port 443, in by office (lan0)`
fn packet(packet: &Value) -> String {
    let port = |key: &str| match packet[key].as_u64() {
        Some(port) => format!(" port {port}"),
        None => String::new(),
    };
    let head = format!(
        "{} {}{} to {}{}",
        text(&packet["protocol"]),
        text(&packet["from"]),
        port("source_port"),
        text(&packet["to"]),
        port("port"),
    );
    match (packet["in"].as_str(), packet["interface"].as_str()) {
        (Some(name), Some(device)) => format!("{head}, in by {name} ({device})"),
        (None, Some(device)) => format!("{head}, in by {device}"),
        (_, None) => format!("{head}, from the router itself"),
    }
}

fn members(answer: &Value) -> String {
    let head = ["UPLINK", "TIER", "WEIGHT", "SHARE", "AS", "WHY"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for member in list(answer, "members") {
        let way = list(answer, "ways").find(|way| way["uplink"] == member["uplink"]);
        let share = member["share"].as_f64().unwrap_or(0.0) * 100.0;
        rows.push(vec![
            text(&member["uplink"]),
            text(&member["tier"]),
            text(&member["weight"]),
            format!("{share:.1}%"),
            way.map_or_else(|| "-".to_owned(), |way| text(&way["source"])),
            text(&member["reason"]),
        ]);
    }
    table(&rows)
}
