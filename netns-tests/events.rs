//! What happens is an event: listed, filtered, and told as it happens to whoever follows.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use homing::lab::Fault;
use homing::model::Family;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::farm::{self, QUICK};
use crate::harness::http::Door;
use crate::harness::{PATIENCE, Site, V4, both, homing, one_policy, until};

both!(what_happens_is_an_event, a_server_s_health_is_an_event, events_are_followed_as_they_happen);

const POLICY: &str = "uplinks: [[fiber], [cable], [lte]]";

fn events(site: &Site, filters: &[&str]) -> Vec<Value> {
    let outcome = site.homing(&[&["events", "--json"], filters].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let answer = outcome.json();
    assert_eq!(answer["version"], 1);
    answer["events"].as_array().expect("a list").clone()
}

/// Waits for an event of this kind that is as it should be.
fn wait_event(site: &Site, kind: &str, right: impl Fn(&Value) -> bool) -> Value {
    let look = || events(site, &["--kind", kind]);
    let found = until(PATIENCE, look, |list| list.iter().any(&right));
    let list = found.unwrap_or_else(|list| panic!("no such {kind}: {list:#?}\n{}", site.log()));
    list.into_iter().find(right).expect("it was there")
}

fn what_happens_is_an_event(family: Family) {
    let site = Site::start(family, &one_policy(POLICY));
    assert_eq!(wait_event(&site, "ready", |_| true)["level"], "info");
    assert_eq!(events(&site, &["--kind", "failover,failback"]), [] as [Value; 0], "at the start");

    site.wait_settled();
    site.router().ip(&["rule del pref 10300".to_owned()]).unwrap();
    let drift = wait_event(&site, "drift-repaired", |_| true);
    assert!(
        drift["details"]["repairs"][0].as_str().is_some_and(|one| one.contains("10300")),
        "{drift}"
    );

    let of_family = |event: &Value| event["details"]["family"] == family.as_str();
    site.fail(&["fiber"], Fault::Silent);
    let down = wait_event(&site, "uplink-health", |event| event["details"]["health"] == "down");
    assert_eq!((&down["uplink"], &down["level"]), (&"fiber".into(), &"warning".into()), "{down}");
    let away = wait_event(&site, "failover", of_family);
    assert_eq!(away["uplink"], "fiber");
    assert_eq!(away["details"]["policies"], serde_json::json!(["default"]));
    assert_eq!(away["details"]["to"], serde_json::json!(["cable"]));
    assert_eq!(site.way_of(0), "cable");
    site.heal(&["fiber"]);
    assert_eq!(wait_event(&site, "failback", of_family)["uplink"], "fiber");
    assert_eq!(site.way_of(1), "fiber");
    let text = site.homing(&["events", "--uplink", "fiber", "--kind", "failover"]).stdout;
    assert!(text.contains("failover: new IPv"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");

    assert_eq!(site.homing(&["uplink", "cable", "drain"]).code, Some(0));
    let order = wait_event(&site, "uplink-order", |event| event["uplink"] == "cable");
    assert_eq!(order["details"]["admin"], "draining");

    let (more, bits) =
        if family == Family::V4 { ("198.51.101.77", 24) } else { ("2001:db8:1::77", 64) };
    site.router().ip(&[format!("address add {more}/{bits} dev wan0")]).unwrap();
    let moved = wait_event(&site, "address-changed", |event| {
        event["text"].as_str().unwrap().contains(more)
    });
    assert_eq!(moved["uplink"], "fiber");

    site.reload(&one_policy("uplinks: [fiber]"));
    assert_eq!(wait_event(&site, "profile-reloaded", |_| true)["details"]["generation"], 2);
    site.write_profile("version: 1\nuplinks: [");
    assert_eq!(site.homing(&["reload"]).code, Some(1));
    assert_eq!(wait_event(&site, "profile-refused", |_| true)["level"], "error");

    let all = events(&site, &[]);
    let numbers: Vec<u64> = all.iter().map(|event| event["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "none is left out");
    let wrong = site.homing(&["events", "--kind", "fail-over"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("failover"), "it says which there are: {wrong:?}");
}

fn a_server_s_health_is_an_event(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let farm = site.farm(2);
    let services = "  shop: { virtual: [fiber], protocol: tcp, ports: [80], group: web }\n";
    site.run(&farm::profile(family, QUICK, &["port: 8080"; 2], services));
    site.wait_server(0, "up");
    farm.silence(&site, 0);
    let down = wait_event(&site, "server-health", |event| event["details"]["health"] == "down");
    assert_eq!(down["server"], "web/a");
    assert_eq!(site.homing(&["server", "b", "drain"]).code, Some(0));
    assert_eq!(wait_event(&site, "server-order", |_| true)["server"], "web/b");
    assert!(events(&site, &["--server", "web/b"]).len() < events(&site, &[]).len());
}

fn events_are_followed_as_they_happen(family: Family) {
    let mut site = Site::start(family, &one_policy(POLICY));
    let run = site.path("run");
    let follow = || {
        Command::new(homing())
            .args(["events", "--follow", "--json", "--runtime-dir", &run])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    };
    let mut child = site.router().enter(follow).unwrap().expect("start homing events");
    let (lines, told) = std::sync::mpsc::channel();
    let out = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).expect("one event on each line");
            if lines.send(event).is_err() {
                return;
            }
        }
    });
    let next = |kind: &str| loop {
        let event = told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{kind} is not told"));
        if event["kind"] == kind {
            return event;
        }
    };
    next("ready");
    site.fail(&["fiber"], Fault::Silent);
    assert_eq!(next("failover")["uplink"], "fiber");
    site.heal(&["fiber"]);
    assert_eq!(next("failback")["uplink"], "fiber");
    site.stop(Signal::SIGTERM);
    let end = until(PATIENCE, || child.try_wait().unwrap(), Option::is_some).expect("it ends too");
    assert_eq!(end.and_then(|status| status.code()), Some(3), "homing has ended");
    reader.join().unwrap();
}

#[test]
fn who_comes_back_gets_what_he_missed_and_who_sleeps_loses_it() {
    let site = Site::start(V4, &one_policy(POLICY));
    let order = |times: usize| {
        let mut connection = site.connect(Door::Socket);
        for number in 0..times {
            let verb = if number % 2 == 0 { "drain" } else { "enable" };
            let head = "Host: homing\r\nContent-Length: 0\r\n\r\n";
            write!(connection, "POST /v1/uplinks/lte/{verb} HTTP/1.1\r\n{head}").unwrap();
            read_one(&mut connection);
        }
    };
    let mut first =
        site.stream(Door::Socket, "/v1/events?since=0", "Accept: text/event-stream\r\n");
    let ready = first.event_of("ready")["number"].as_u64().unwrap();
    drop(first);
    order(2);
    let head = format!("Last-Event-ID: {ready}\r\n");
    let mut again = site.stream(Door::Socket, "/v1/events/stream?kind=uplink-order", &head);
    let missed = [again.event(), again.event()];
    assert!(missed.iter().all(|event| event["kind"] == "uplink-order"), "{missed:?}");
    assert!(missed[0]["number"].as_u64() > Some(ready));
    // Nobody reads this one while more happens than fits anywhere.
    let mut asleep = site.stream(Door::Socket, "/v1/events/stream", "");
    order(6000);
    order(2);
    let lost = loop {
        let event = asleep.event();
        if event["lost"].is_u64() {
            break event;
        }
    };
    assert!(lost["lost"].as_u64() > Some(0));
    assert_eq!(asleep.event_of("uplink-order")["uplink"], "lte", "and it goes on");
    let kept = events(&site, &[]).len();
    assert_eq!(kept, 1000, "the log is bounded");
}

/// Reads one answer without a body that is longer than it says.
fn read_one(connection: &mut crate::harness::http::Connection) {
    use std::io::Read as _;
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        connection.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&read).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.trim().parse().unwrap()];
    connection.read_exact(&mut body).unwrap();
}
