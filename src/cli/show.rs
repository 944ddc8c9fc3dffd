//! JSON answers as tables for people.

use serde_json::{Map, Value};

use super::table::table;

/// The whole status.
pub(super) fn status(status: &Value) -> String {
    let kernel = &status["kernel"];
    let mut head = format!(
        "{}: {}, generation {}, kernel state {}",
        text(&status["site"]),
        if status["ready"] == true { "ready" } else { "not ready" },
        status["generation"],
        text(&kernel["state"]),
    );
    if let Some(reason) = kernel["reason"].as_str() {
        head.push_str(&format!("\n  {reason}"));
    }
    for missing in kernel["missing"].as_array().into_iter().flatten().take(5) {
        head.push_str(&format!("\n  not in force: {}", text(missing)));
    }
    head.push('\n');
    head.push_str(&fast_path(&status["fast_path"]));
    for warning in status["warnings"].as_array().into_iter().flatten() {
        head.push_str(&wrap(&format!("warning: {}", text(warning))));
    }
    let served = status["services"].as_object().is_some_and(|services| !services.is_empty());
    let services = if served { format!("\n{}", services(status)) } else { String::new() };
    format!("{head}\n{}\n{}{services}", uplinks(status), policies(status))
}

/// What becomes of established sessions; nothing when the answer does not say.
fn fast_path(fast: &Value) -> String {
    let devices = || {
        let names: Vec<String> =
            fast["devices"].as_array().into_iter().flatten().map(text).collect();
        match names.as_slice() {
            names if names.len() > 8 => format!("{} devices", names.len()),
            names => names.join(", "),
        }
    };
    let mut shown = match fast["used"].as_bool() {
        None => return String::new(),
        Some(false) => wrap(&format!("fast path: not used: {}", text(&fast["reason"]))),
        Some(true) => {
            let by = if fast["hardware"] == true { ", by network cards" } else { "" };
            wrap(&format!("fast path: {} sessions{by}; {}", fast["sessions"], devices()))
        }
    };
    if let Some(note) = fast["note"].as_str() {
        shown.push_str(&wrap(&format!("  not by network cards: {note}")));
    }
    for (device, why) in fast["left_out"].as_object().into_iter().flatten() {
        shown.push_str(&wrap(&format!("  without {device}: {}", text(why))));
    }
    shown
}

/// Services, and the servers of their groups.
pub(super) fn services(answer: &Value) -> String {
    let list = |value: &Value| {
        let items = value.as_array().into_iter().flatten();
        let items: Vec<String> = items.map(text).collect();
        match items.as_slice() {
            [] => "-".to_owned(),
            items if items.len() > 4 => format!("{},… ({})", items[..4].join(","), items.len()),
            items => items.join(","),
        }
    };
    let head = ["SERVICE", "USABLE", "GROUP", "MODE", "BINDINGS", "PORTS", "ADDRESSES"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut reasons = String::new();
    for (name, service) in entries(answer, "services") {
        rows.push(vec![
            name.clone(),
            if service["usable"] == true { "yes" } else { "no" }.to_owned(),
            text(&service["group"]),
            text(&service["persistence"]),
            text(&service["bindings"]),
            format!("{} {}", list(&service["protocol"]), list(&service["ports"])),
            list(&service["virtual"]).replace(',', " "),
        ]);
        if service["reason"].as_str().is_some_and(|reason| !reason.is_empty()) {
            reasons.push_str(&wrap(&format!("{name}: {}", text(&service["reason"]))));
        }
    }
    format!("{}{reasons}\n{}", table(&rows), servers(answer))
}

fn servers(answer: &Value) -> String {
    let head = ["SERVER", "HEALTH", "ADMIN", "SHARE", "SESSIONS", "BOUND", "NEW", "ADDRESS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut reasons = String::new();
    for (group, of) in entries(answer, "groups") {
        for (name, server) in entries(of, "servers") {
            let share = server["share"].as_f64().unwrap_or(0.0) * 100.0;
            rows.push(vec![
                format!("{group}/{name}"),
                text(&server["health"]),
                text(&server["admin"]),
                format!("{share:.1}%"),
                text(&server["sessions"]),
                text(&server["bindings"]),
                text(&server["new_sessions_total"]),
                text(&server["address"]),
            ]);
            if server["reason"].as_str().is_some_and(|reason| !reason.is_empty()) {
                reasons.push_str(&wrap(&format!("{group}/{name}: {}", text(&server["reason"]))));
            }
        }
    }
    format!("{}{reasons}", table(&rows))
}

/// Sessions, one on each line.
pub(super) fn sessions(answer: &Value) -> String {
    let head = ["PROTO", "STATE", "PATH", "UPLINK", "BY", "SERVER", "LEFT", "SESSION"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for session in answer["sessions"].as_array().into_iter().flatten() {
        let end = |address: &str, port: &str| match session[port].as_u64() {
            Some(port) => format!("{}:{port}", text(&session[address])),
            None => text(&session[address]),
        };
        let fast = session["offloaded"] == true;
        let by = if session["service"].is_null() { "policy" } else { "service" };
        rows.push(vec![
            text(&session["protocol"]),
            text(&session["state"]),
            if fast { "fast" } else { "rules" }.to_owned(),
            text(&session["uplink"]),
            text(&session[by]),
            text(&session["server"]),
            if fast { "-".to_owned() } else { format!("{}s", session["left_s"]) },
            format!("{} to {}", end("client", "client_port"), end("to", "port")),
        ]);
    }
    table(&rows)
}

/// Uplinks, each with its name and health on one line.
pub(super) fn uplinks(answer: &Value) -> String {
    let head = ["UPLINK", "HEALTH", "DEVICE", "WEIGHT", "SESSIONS", "NEW", "RX", "TX"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut reasons = String::new();
    for (name, uplink) in entries(answer, "uplinks") {
        rows.push(vec![
            name.clone(),
            text(&uplink["health"]),
            text(&uplink["interface"]),
            text(&uplink["weight"]),
            text(&uplink["sessions"]),
            text(&uplink["new_sessions_total"]),
            rate(&uplink["rx_bps"]),
            rate(&uplink["tx_bps"]),
        ]);
        reasons.push_str(&wrap(&format!("{name}: {}", text(&uplink["reason"]))));
    }
    format!("{}\n{reasons}", table(&rows))
}

/// Policies and the shares of their uplinks.
pub(super) fn policies(answer: &Value) -> String {
    let head = ["POLICY", "TIER", "UPLINK", "SHARE", "NEW", "BINDINGS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, policy) in entries(answer, "policies") {
        let members = policy["members"].as_object();
        let mut members: Vec<_> = members.into_iter().flatten().collect();
        members.sort_by_key(|(_, member)| member["tier"].as_u64());
        for (number, (uplink, member)) in members.into_iter().enumerate() {
            let first = number == 0;
            let share = member["share"].as_f64().unwrap_or(0.0) * 100.0;
            rows.push(vec![
                if first { name.clone() } else { String::new() },
                text(&member["tier"]),
                uplink.clone(),
                format!("{share:.1}%"),
                text(&member["new_sessions_total"]),
                if first { text(&policy["bindings"]) } else { String::new() },
            ]);
        }
    }
    table(&rows)
}

/// Which client is bound to which uplink or server.
pub(super) fn bindings(answer: &Value) -> String {
    let head = ["BY", "TO", "AGE", "IDLE", "LEFT", "CLIENT"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for binding in answer["bindings"].as_array().into_iter().flatten() {
        let destination = binding["destination"].as_str().map(|to| format!(" to {to}"));
        let to = match binding["server"].as_str() {
            Some(server) => format!("{}/{server}", text(&binding["group"])),
            None => text(&binding["uplink"]),
        };
        let services = binding["services"].as_array().into_iter().flatten().map(text);
        let services = services.collect::<Vec<_>>().join(",");
        let port = binding["port"].as_str().map(|port| format!(":{port}")).unwrap_or_default();
        let place = binding["at"].as_str().map(|at| format!(" at {at}{port}"));
        rows.push(vec![
            if services.is_empty() { text(&binding["policy"]) } else { services },
            to,
            format!("{}s", text(&binding["age_s"])),
            format!("{}s", binding["idle_s"]),
            format!("{}s", binding["left_s"]),
            format!(
                "{}{}{}",
                text(&binding["client"]),
                destination.unwrap_or_default(),
                place.unwrap_or_default()
            ),
        ]);
    }
    table(&rows)
}

/// Every view of one answer, whatever it is: for [`crate::hostile`].
pub fn show_any(answer: &[u8]) {
    if let Ok(answer) = serde_json::from_slice::<Value>(answer) {
        let _ = (status(&answer), uplinks(&answer), policies(&answer), bindings(&answer));
        let _ = (services(&answer), sessions(&answer));
    }
}

fn entries<'a>(answer: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    answer[key].as_object().into_iter().flat_map(Map::iter)
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Bits per second with a decimal prefix.
fn rate(value: &Value) -> String {
    let Some(mut rate) = value.as_f64() else {
        return "-".to_owned();
    };
    for unit in ["", "k", "M"] {
        if rate < 1000.0 {
            return format!("{rate:.0}{unit}");
        }
        rate /= 1000.0;
    }
    format!("{rate:.1}G")
}

/// At most 80 columns, continued with an indentation.
pub(super) fn wrap(text: &str) -> String {
    let (margin, text) = text.split_at(text.len() - text.trim_start().len());
    let mut lines = vec![margin.to_owned()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let first = line.trim().is_empty();
        if first || line.chars().count() + 1 + word.chars().count() <= 80 {
            if !first {
                line.push(' ');
            }
            line.push_str(word);
        } else {
            lines.push(format!("    {word}"));
        }
    }
    lines.join("\n") + "\n"
}
