//! Sessions leave a dead uplink when their policy says so: and only they, only then, and noticeably.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use homing::lab::{Fault, Protocol, Session};
use homing::model::Family;

use crate::harness::{PATIENCE, Site, both, profile, until};

both!(
    sessions_of_every_kind_leave_a_silent_uplink,
    nobody_leaves_when_nobody_else_is_usable,
    nobody_leaves_before_the_time_is_over,
    who_connects_during_the_break_finds_a_way_without_any_order,
    who_is_put_on_a_dead_uplink_leaves_when_another_is_usable,
    none_of_five_hundred_sessions_elsewhere_is_lost,
    a_disabled_uplink_loses_its_sessions_at_once,
    idle_clients_with_strict_firewalls_are_reset,
    a_link_that_returns_keeps_who_has_not_left,
);

/// Two policies alike, but for what becomes of their sessions; 8080 stays.
fn policies(after: &str) -> String {
    profile(&format!(
        "policies:
  - {{ name: staying, match: {{ ports: [8080] }}, balance: round-robin }}
  - {{ name: moving, balance: round-robin, evacuate-after: {after} }}
"
    ))
}

/// Sessions from 30 hosts over this uplink, and those over the others.
fn open(site: &Site, protocol: Protocol, port: u16, uplink: &str) -> (Vec<Session>, Vec<Session>) {
    let to = site.server(0, port);
    let wanted: Vec<_> = (0..30).map(|i| (protocol, Some(site.host(i)), to)).collect();
    let sessions = site.lan().open_all(&wanted).into_iter().map(|session| session.unwrap());
    let parts: (Vec<_>, Vec<_>) = sessions.partition(|session| site.uplink(session) == uplink);
    assert!(parts.0.len() >= 5, "{} over {uplink}", parts.0.len());
    parts
}

fn assert_reset(sessions: &mut [Session]) {
    for session in sessions {
        let end = session.wait_for_end(PATIENCE).unwrap();
        assert_eq!(end, Some(ErrorKind::ConnectionReset), "of {}", session.seen);
    }
}

fn assert_open(sessions: &mut [Session]) {
    for session in sessions {
        assert_eq!(session.wait_for_end(Duration::from_millis(1)).unwrap(), None);
    }
}

fn evacuated(site: &Site, uplink: &str) -> u64 {
    site.status()["uplinks"][uplink]["evacuated_sessions_total"].as_u64().unwrap()
}

fn wait_evacuated(site: &Site, uplink: &str, at_least: usize) {
    let enough = |count: &u64| *count >= at_least as u64;
    until(PATIENCE, || evacuated(site, uplink), enough).expect("sessions are evacuated");
}

fn sessions_of_every_kind_leave_a_silent_uplink(family: Family) {
    let site = Site::start(family, &policies("0s"));
    let (mut idle, mut others) = open(&site, Protocol::Tcp, 80, "fiber");
    let (mut busy, _) = open(&site, Protocol::Tcp, 443, "fiber");
    let (mut staying, _) = open(&site, Protocol::Tcp, 8080, "fiber");
    let (mut datagrams, mut other_datagrams) = open(&site, Protocol::Udp, 53, "fiber");
    let counted = idle.len() + busy.len() + datagrams.len();
    site.fail(&["fiber"], Fault::Silent);
    let ends = std::thread::scope(|scope| {
        // They talk all the time.
        let talking = busy.iter_mut().map(|session| {
            scope.spawn(|| {
                loop {
                    match session.ask(2 * PATIENCE) {
                        Ok(_) => std::thread::sleep(Duration::from_millis(5)),
                        Err(error) => return error.kind(),
                    }
                }
            })
        });
        let talking: Vec<_> = talking.collect();
        talking.into_iter().map(|talk| talk.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(ends.iter().all(|end| *end == ErrorKind::ConnectionReset), "{ends:?}");
    assert_reset(&mut idle);
    wait_evacuated(&site, "fiber", counted);
    for session in &mut datagrams {
        session.ask(PATIENCE).expect("an answer by another uplink");
        assert_ne!(site.uplink(session), "fiber");
    }
    // Only that uplink's, only that policy's.
    assert_open(&mut staying);
    site.assert_stay(&mut others, "another uplink is dead");
    site.assert_stay(&mut other_datagrams, "another uplink is dead");
    site.lan().ping(Some(site.host(1)), site.server(2, 0).ip()).expect("a ping by another");
    site.wait_settled();
    site.heal(&["fiber"]);
    site.assert_stay(&mut staying, "its uplink is back");
    let log = site.log();
    let line = log.lines().find(|line| line.contains("evacuated") && line.contains("of fiber"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in ["(policy moving)", "clients reset", "sessions released"] {
        assert!(line.contains(part), "{line}");
    }
}

fn nobody_leaves_when_nobody_else_is_usable(family: Family) {
    let site = Site::start(family, &policies("0s"));
    let (mut sessions, _) = open(&site, Protocol::Tcp, 80, "fiber");
    let (mut datagrams, _) = open(&site, Protocol::Udp, 53, "fiber");
    site.fail(&["cable", "lte"], Fault::Carrier);
    site.wait_health("cable", "down");
    site.wait_health("lte", "down");
    site.fail(&["fiber"], Fault::Silent);
    site.wait_health("fiber", "down");
    site.wait_settled();
    assert_open(&mut sessions);
    site.heal(&["fiber"]);
    site.assert_stay(&mut sessions, "its uplink is back");
    site.assert_stay(&mut datagrams, "its uplink is back");
    assert_eq!(evacuated(&site, "fiber"), 0);
}

fn nobody_leaves_before_the_time_is_over(family: Family) {
    let site = Site::start(family, &policies("1h"));
    let (mut sessions, _) = open(&site, Protocol::Tcp, 80, "fiber");
    site.fail(&["fiber"], Fault::Silent);
    site.wait_health("fiber", "down");
    site.wait_settled();
    assert_open(&mut sessions);
    site.heal(&["fiber"]);
    site.wait_health("fiber", "up");
    site.assert_stay(&mut sessions, "its uplink is back");
    assert_eq!(evacuated(&site, "fiber"), 0);
    // The time is another now, and the next break is over when it is.
    site.reload(&policies("500ms"));
    site.fail(&["fiber"], Fault::Silent);
    assert_reset(&mut sessions);
}

fn who_is_put_on_a_dead_uplink_leaves_when_another_is_usable(family: Family) {
    let site = Site::start(family, &policies("0s"));
    site.fail(&["cable", "lte"], Fault::Carrier);
    site.wait_health("cable", "down");
    site.wait_health("lte", "down");
    let (mut sessions, _) = open(&site, Protocol::Tcp, 80, "fiber");
    site.fail(&["fiber"], Fault::Silent);
    site.wait_health("fiber", "down");
    site.heal(&["cable"]);
    assert_reset(&mut sessions);
}

fn none_of_five_hundred_sessions_elsewhere_is_lost(family: Family) {
    let site = Site::start(family, &policies("0s"));
    let mut all = site.open_many(Protocol::Tcp, 0..500);
    all.extend(site.open_many(Protocol::Udp, 0..280));
    let (leaving, mut others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|session| site.uplink(session) == "fiber");
    assert!(others.len() >= 500, "{}", others.len());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let talk = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                site.assert_stay(&mut others, "another uplink dies and returns");
            }
        });
        site.fail(&["fiber"], Fault::Silent);
        wait_evacuated(&site, "fiber", leaving.len());
        site.heal(&["fiber"]);
        site.wait_health("fiber", "up");
        site.wait_settled();
        stop.store(true, Ordering::Relaxed);
        talk.join().unwrap();
    });
    site.assert_stay(&mut others, "another uplink is back");
}

fn a_disabled_uplink_loses_its_sessions_at_once(family: Family) {
    let site = Site::start(family, &policies("never"));
    let (mut sessions, mut others) = open(&site, Protocol::Tcp, 80, "fiber");
    let (mut datagrams, _) = open(&site, Protocol::Udp, 53, "fiber");
    assert_eq!(site.homing(&["uplink", "fiber", "disable"]).code, Some(0));
    assert_reset(&mut sessions);
    for session in &mut datagrams {
        // An answer that is on its way when its session is released is lost.
        let mut way = || {
            let answer = session.ask(Duration::from_millis(500));
            answer.ok().map(|_| site.uplink(session))
        };
        let elsewhere = |way: &Option<String>| way.as_ref().is_some_and(|way| way != "fiber");
        until(PATIENCE, &mut way, elsewhere).expect("an answer by another uplink");
    }
    site.assert_stay(&mut others, "another uplink is disabled");
}

/// Their first segments are lost; the second ones must not go the same way.
fn who_connects_during_the_break_finds_a_way_without_any_order(family: Family) {
    let site = Site::start(family, &policies("never"));
    site.fail(&["fiber"], Fault::Silent);
    let connect = |host| {
        let patient = site.lan().timeout(PATIENCE);
        let session = patient.open(Protocol::Tcp, Some(site.host(host)), site.server(0, 80));
        site.uplink(&session.expect("a connection"))
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..20).map(|host| scope.spawn(move || connect(host))).collect();
        for way in all {
            assert_ne!(way.join().unwrap(), "fiber");
        }
    });
    let log = site.log();
    assert!(log.contains("over fiber that nobody had answered yet begin anew"), "{log}");
    assert_eq!(evacuated(&site, "fiber"), 0, "nobody else leaves");
}

/// As many desktops have it: what does not belong to a known connection is dropped.
const STRICT: &str = "table inet strict {
    chain in {
        type filter hook input priority 0
        ct state invalid drop
    }
}
";

fn idle_clients_with_strict_firewalls_are_reset(family: Family) {
    let site = Site::start(family, &policies("0s"));
    site.stage.layout().lan().nft(STRICT).unwrap();
    let (mut sessions, _) = open(&site, Protocol::Tcp, 80, "fiber");
    site.fail(&["fiber"], Fault::Silent);
    assert_reset(&mut sessions);
}

fn a_link_that_returns_keeps_who_has_not_left(family: Family) {
    let site = Site::start(family, &policies("0s"));
    let (mut sessions, _) = open(&site, Protocol::Tcp, 80, "fiber");
    // They hear nothing meanwhile, as if they slept.
    let deaf = STRICT.replace("ct state invalid", "tcp sport 80");
    site.stage.layout().lan().nft(&deaf).unwrap();
    site.fail(&["fiber"], Fault::Silent);
    wait_evacuated(&site, "fiber", sessions.len());
    site.heal(&["fiber"]);
    site.wait_health("fiber", "up");
    let told = |log: &String| log.contains("sessions that had not left stay");
    until(PATIENCE, || site.log(), told).expect("they are kept");
    site.stage.layout().lan().nft("delete table inet strict\n").unwrap();
    site.assert_stay(&mut sessions, "its uplink is back");
}
