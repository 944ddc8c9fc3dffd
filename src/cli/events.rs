//! `homing events`.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::control::{Wanted, ask, get, query};
use super::show::{text, wrap};

/// What was kept.
pub(super) fn list(runtime_dir: &Path, wanted: &Wanted<'_>, json: bool) -> ExitCode {
    get(runtime_dir, &query("/v1/events", wanted), json, show)
}

/// What was kept, and what comes, until nobody reads any more or homing ends.
pub(super) fn follow(runtime_dir: &Path, wanted: &Wanted<'_>, json: bool) -> ExitCode {
    let mut wanted = wanted.to_vec();
    wanted.push(("since", Some("0".to_owned())));
    let path = query("/v1/events/stream", &wanted);
    let mut out = std::io::stdout().lock();
    let mut each = |name: &str, data: &str| {
        let line = match (json, name) {
            (true, _) => format!("{data}\n"),
            (false, "lost") => format!("(too slow: events were missed: {data})\n"),
            (false, _) => line(&serde_json::from_str(data).unwrap_or_default()),
        };
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_ok()
    };
    let outcome = ask(runtime_dir, async |client| client.follow(&path, &mut each).await);
    outcome.map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

/// Events, each on a line; long ones are folded.
pub(super) fn show(answer: &Value) -> String {
    answer["events"].as_array().into_iter().flatten().map(line).collect()
}

fn line(event: &Value) -> String {
    let time = text(&event["time"]);
    let time = time.split('.').next().unwrap_or_default();
    let mark = if event["level"] == "info" { ' ' } else { '!' };
    let told = text(&event["text"]);
    let mut lines = told.lines();
    let first = lines.next().unwrap_or_default();
    let mut shown = wrap(&format!("{time}Z {mark} {first} [{}]", text(&event["kind"])));
    for more in lines {
        // As it is: a caret below it may point at a place.
        shown.extend(format!("    {more}").chars().take(80));
        shown.push('\n');
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::show;

    #[test]
    fn every_event_has_a_line_of_its_own_and_none_is_wide() {
        let event = |level: &str, text: &str| json!({ "time": "2026-11-26T03:04:05.678Z", "level": level, "kind": "remark", "text": text });
        let long = "a line that is so long that it does not fit into eighty columns, and is folded";
        let events =
            [event("info", "well"), event("warning", long), event("error", "bad\n  ^ here")];
        let wanted = "2026-11-26T03:04:05Z   well [remark]
2026-11-26T03:04:05Z ! a line that is so long that it does not fit into eighty
    columns, and is folded [remark]
2026-11-26T03:04:05Z ! bad [remark]
      ^ here
";
        assert_eq!(show(&json!({ "events": events })), wanted);
    }
}
