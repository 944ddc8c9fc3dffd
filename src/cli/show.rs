//! JSON answers as tables for people.

use serde_json::{Map, Value};

use super::table::table;

/// The whole status.
pub(super) fn status(status: &Value) -> String {
    let kernel = &status["kernel"];
    let mut head = wrap(&format!(
        "{}: {}, generation {}, kernel state {}",
        text(&status["site"]),
        if status["ready"] == true { "ready" } else { "not ready" },
        status["generation"],
        text(&kernel["state"]),
    ));
    if let Some(reason) = kernel["reason"].as_str() {
        head.push_str(&wrap(&format!("  {reason}")));
    }
    for missing in kernel["missing"].as_array().into_iter().flatten().take(5) {
        head.push_str(&wrap(&format!("  not in force: {}", text(missing))));
    }
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
    let head =
        ["UPLINK", "HEALTH", "RTT", "LOSS", "RX", "TX", "SESSIONS", "NEW", "WEIGHT", "DEVICE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut reasons = String::new();
    for (name, uplink) in entries(answer, "uplinks") {
        rows.push(vec![
            name.clone(),
            text(&uplink["health"]),
            delay(&uplink["rtt_ms"]),
            percent(&uplink["loss"]),
            rate(&uplink["rx_bps"]),
            rate(&uplink["tx_bps"]),
            text(&uplink["sessions"]),
            text(&uplink["new_sessions_total"]),
            text(&uplink["weight"]),
            text(&uplink["interface"]),
        ]);
        if uplink["reason"].as_str().is_some_and(|reason| !reason.is_empty()) {
            reasons.push_str(&wrap(&format!("{name}: {}", text(&uplink["reason"]))));
        }
    }
    let between = if reasons.is_empty() { "" } else { "\n" };
    format!("{}{between}{reasons}", table(&rows))
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
        let _ = (services(&answer), sessions(&answer), super::events::show(&answer));
    }
}

pub(super) fn entries<'a>(
    answer: &'a Value,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    answer[key].as_object().into_iter().flat_map(Map::iter)
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Milliseconds.
pub(super) fn delay(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}ms"))
}

/// A ratio from 0 to 1.
pub(super) fn percent(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |ratio| format!("{:.0}%", ratio * 100.0))
}

/// Bits per second with a decimal prefix.
pub(super) fn rate(value: &Value) -> String {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::status;

    /// A site whose uplinks, groups and servers have names of this length.
    fn site(name: usize) -> Value {
        let called = |letter: &str| letter.repeat(name);
        let long = "192.0.2.1 does not answer, and 2001:db8::1 does not answer ".repeat(4);
        let uplink = |health: &str| {
            json!({ "health": health, "reason": long, "interface": "wan0", "weight": 5,
                "rtt_ms": 8.13, "loss": 0.25, "sessions": 120, "new_sessions_total": 9120,
                "rx_bps": 1e6, "tx_bps": 2e5 })
        };
        json!({
            "site": "osaka", "ready": true, "generation": 7,
            "kernel": { "state": "degraded", "reason": long, "missing": [long] },
            "warnings": [long],
            "uplinks": { called("a"): uplink("up"), called("b"): uplink("degraded") },
            "policies": { called("p"): { "bindings": 3, "members": {
                called("a"): { "tier": 1, "share": 0.556, "new_sessions_total": 5000 },
            } } },
            "services": { called("s"): { "usable": true, "group": called("g"),
                "persistence": "ssl", "bindings": 31, "protocol": ["tcp"], "ports": [80, 443],
                "virtual": ["198.51.101.2", "2001:db8:a::1"] } },
            "groups": { called("g"): { "servers": { called("s"): { "health": "up",
                "admin": "enabled", "share": 0.5, "sessions": 12, "bindings": 3,
                "new_sessions_total": 500, "address": "10.2.0.11" } } } },
        })
    }

    #[test]
    fn the_status_fits_80_columns_whatever_the_names_are() {
        for name in [1, 8, 31] {
            let shown = status(&site(name));
            for line in shown.lines() {
                assert!(line.chars().count() <= 80, "{line}\n{shown}");
            }
            for (letter, health) in [("a", "up"), ("b", "degraded")] {
                let called = letter.repeat(name);
                let mut heads = shown.lines().map(|line| line.split_whitespace().take(2));
                assert!(heads.any(|head| head.eq([called.as_str(), health])), "{shown}");
            }
        }
    }

    #[test]
    fn what_a_slow_line_shows_is_seen_at_once() {
        let shown = status(&site(8));
        let line = "aaaaaaaa  up        8.1ms  25%   1M  200k  120       9120  5       wan0";
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
}
