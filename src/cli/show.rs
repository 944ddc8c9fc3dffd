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
    for warning in status["warnings"].as_array().into_iter().flatten() {
        head.push_str(&wrap(&format!("warning: {}", text(warning))));
    }
    format!("{head}\n{}\n{}", uplinks(status), policies(status))
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

/// Which client is bound to which uplink.
pub(super) fn bindings(answer: &Value) -> String {
    let head = ["POLICY", "UPLINK", "IDLE", "LEFT", "CLIENT"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for binding in answer["bindings"].as_array().into_iter().flatten() {
        let destination = binding["destination"].as_str().map(|to| format!(" to {to}"));
        rows.push(vec![
            text(&binding["policy"]),
            text(&binding["uplink"]),
            format!("{}s", binding["idle_s"]),
            format!("{}s", binding["left_s"]),
            format!("{}{}", text(&binding["client"]), destination.unwrap_or_default()),
        ]);
    }
    table(&rows)
}

/// Every view of one answer, whatever it is: for [`crate::hostile`].
pub fn show_any(answer: &[u8]) {
    if let Ok(answer) = serde_json::from_slice::<Value>(answer) {
        let _ = (status(&answer), uplinks(&answer), policies(&answer), bindings(&answer));
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
