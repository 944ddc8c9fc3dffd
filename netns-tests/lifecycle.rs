//! Beginning, end, and beginning again.

use std::fs;

use homing::lab::{Protocol, Session};
use homing::model::Family;
use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Site, Snapshot, both, one_policy, profile, until};

both!(
    down_leaves_the_router_exactly_as_it_was,
    a_restart_disturbs_no_session,
    bindings_survive_a_restart,
    without_the_process_everything_goes_on,
    nothing_is_to_change_after_a_reload_or_traffic,
    a_stopped_process_ends_in_time_and_leaves_the_data_plane,
    an_uplink_keeps_its_number_when_others_come_and_go,
    a_reload_by_signal_is_one,
);

const FULL: &str = "policies:
  - { name: voice, match: { from: [office], protocol: udp, ports: [5060] }, uplinks: [[fiber], [cable]] }
  - { name: bank, match: { ports: [443] }, persistence: { by: source, timeout: 1h } }
  - { name: pairs, match: { ports: [8080] }, persistence: { by: source-destination } }
  - { name: default, uplinks: [[fiber, cable], [lte]] }
firewall:
  input: closed
  allow: [{ in: fiber, to: router, protocol: tcp, ports: [22] }]
";

fn some_traffic(site: &Site) -> Vec<Session> {
    let mut sessions = site.open_many(Protocol::Tcp, 0..10);
    for port in [443, 8080, 5060] {
        sessions.push(site.open(Protocol::Tcp, 1, site.server(1, port)));
    }
    sessions.push(site.open(Protocol::Udp, 2, site.server(2, 5060)));
    sessions.push(site.open(Protocol::Udp, 3, site.server(2, 53)));
    sessions
}

fn down_leaves_the_router_exactly_as_it_was(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let mine = "table inet mine {\n    chain in {\n        type filter hook input priority filter\n        counter\n    }\n}\n";
    site.router()
        .nft(&mine.replace("        counter\n", ""))
        .unwrap();
    let lines = [
        "rule add pref 700 to 192.0.2.99 lookup 99",
        "route add unreachable 192.0.2.99 table 99",
    ];
    site.router().ip(&lines.map(str::to_owned)).unwrap();
    let before = Snapshot::of(&site.router());
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        site.run(&profile(FULL));
        drop(some_traffic(&site));
        assert_ne!(Snapshot::of(&site.router()), before);
        let refused = site.homing(&["down"]);
        assert_eq!(refused.code, Some(1), "down while it runs: {refused:?}");
        site.stop(signal);
        let down = site.homing(&["down"]);
        assert_eq!(down.code, Some(0), "{down:?}");
        let differences = before.differences(&Snapshot::of(&site.router()));
        assert_eq!(differences, "", "after {signal} and down");
        let again = site.homing(&["down"]);
        assert_eq!(again.code, Some(0), "nothing there: {again:?}");
    }
}

fn a_restart_disturbs_no_session(family: Family) {
    let mut site = Site::start(family, &profile(FULL));
    let mut sessions = some_traffic(&site);
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM] {
        site.stop(signal);
        site.assert_stay(&mut sessions, &format!("after {signal}"));
        site.run_again();
        site.assert_stay(&mut sessions, &format!("started again after {signal}"));
        site.assert_settled();
    }
}

fn bindings_survive_a_restart(family: Family) {
    let mut site = Site::start(
        family,
        &one_policy("balance: round-robin, persistence: { by: source }"),
    );
    let ways = |site: &Site| (0..12).map(|host| site.way_of(host)).collect::<Vec<_>>();
    let first = ways(&site);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        site.stop(signal);
        assert_eq!(ways(&site), first, "without the process, after {signal}");
        site.run_again();
        assert_eq!(ways(&site), first, "started again after {signal}");
    }
}

fn without_the_process_everything_goes_on(family: Family) {
    let mut site = Site::start(family, &profile(""));
    site.stop(Signal::SIGKILL);
    let refused = site.homing(&["status", "--json"]);
    assert_eq!(refused.code, Some(3), "no running process: {refused:?}");
    let sessions = site.open_many(Protocol::Tcp, 0..100);
    let shares = site.shares(&sessions);
    assert!((shares["fiber"] - 50.0).abs() <= 5.0, "{shares:?}");
    assert!((shares["cable"] - 40.0).abs() <= 5.0, "{shares:?}");
}

fn nothing_is_to_change_after_a_reload_or_traffic(family: Family) {
    let site = Site::start(family, &profile(FULL));
    site.assert_settled();
    let _sessions = some_traffic(&site);
    site.assert_settled();
    site.reload(&one_policy(
        "uplinks: [cable, lte], persistence: { by: source }",
    ));
    site.assert_settled();
    site.reload(&profile(FULL));
    site.assert_settled();
    let full = site.homing(&["plan", "--full", &site.path("site.yaml")]);
    assert_eq!(full.code, Some(0));
    assert!(
        full.stdout.contains("homing") && full.stdout.lines().count() > 20,
        "{}",
        full.stdout
    );
}

fn a_stopped_process_ends_in_time_and_leaves_the_data_plane(family: Family) {
    let mut site = Site::start(family, &profile(FULL));
    let mut sessions = some_traffic(&site);
    let before = Snapshot::of(&site.router());
    let begun = std::time::Instant::now();
    assert_eq!(site.stop(Signal::SIGTERM), Some(0));
    assert!(begun.elapsed().as_secs_f64() < 2.5, "{:?}", begun.elapsed());
    let rules = |snapshot: &Snapshot| snapshot.only("rule");
    assert_eq!(rules(&before), rules(&Snapshot::of(&site.router())));
    site.assert_stay(&mut sessions, "after the end");
}

fn ids(site: &Site) -> Vec<(String, u64)> {
    let status = site.status();
    let uplinks = status["uplinks"].as_object().cloned().unwrap_or_default();
    let id = |value: &serde_json::Value| value["id"].as_u64().expect("an id");
    uplinks
        .iter()
        .map(|(name, uplink)| (name.clone(), id(uplink)))
        .collect()
}

fn an_uplink_keeps_its_number_when_others_come_and_go(family: Family) {
    let mut site = Site::start(family, &profile(""));
    let first = ids(&site);
    let mut sessions = site.open_many(Protocol::Tcp, 0..30);
    sessions.retain(|session| site.uplink(session) != "lte");
    let fewer = "version: 1\nsite: test\nuplinks:\n  cable: { interface: wan1 }\n  fiber: { interface: wan0 }\nlans:\n  office: { interface: lan0 }\n";
    site.reload(fewer);
    let second = ids(&site);
    assert!(
        second.iter().all(|id| first.contains(id)),
        "{first:?} {second:?}"
    );
    site.assert_stay(&mut sessions, "another uplink was removed");
    site.stop(Signal::SIGKILL);
    // The kernel remembers as well.
    let _ = fs::remove_dir_all(site.path("state"));
    site.run(&profile(""));
    assert_eq!(ids(&site), first);
    site.assert_stay(&mut sessions, "it came back, and all memory was lost");
}

fn a_reload_by_signal_is_one(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [fiber]"));
    assert_eq!(site.way_of(0), "fiber");
    site.write_profile(&one_policy("uplinks: [lte]"));
    site.signal(Signal::SIGHUP);
    site.wait_way(0, "lte");
    let plan = || site.homing(&["plan", &site.path("site.yaml")]).stdout;
    until(PATIENCE, plan, |plan| plan == "# nothing to change\n").expect("settled");
}
