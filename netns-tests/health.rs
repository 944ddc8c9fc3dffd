//! Health, and what follows from it: who takes new sessions, who stays, and what people are told.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use homing::lab::{Fault, Protocol, Session};
use homing::model::Family;
use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Site, both, one_policy, profile, until};

both!(
    a_silent_break_moves_new_sessions_and_no_others,
    bindings_of_a_silent_uplink_are_forgotten_and_no_others,
    two_at_once_leave_the_third,
    losses_make_degraded_and_that_is_the_last_resort,
    when_nothing_answers_new_sessions_are_tried,
    when_nothing_answers_the_policy_says_what_to_do,
    one_that_flaps_is_held_down_longer_each_time,
    a_hold_down_is_waived_when_nothing_else_is_usable,
    health_is_known_after_a_restart,
    a_reload_keeps_the_health_of_who_stays,
    a_gateway_without_an_answer_to_arp_counts_at_once,
    the_router_s_own_way_follows_health,
    drained_keeps_what_it_has_and_gets_nothing_new,
    disabled_keeps_nothing,
);

const EQUAL: &str = "balance: round-robin";

/// Opens many short sessions; the uplinks that took them.
fn ways(site: &Site, hosts: std::ops::Range<u16>) -> Vec<String> {
    hosts.map(|host| site.way_of(host)).collect()
}

/// Sessions over this uplink, and the others.
fn split(site: &Site, uplink: &str) -> (Vec<Session>, Vec<Session>) {
    let sessions = site.open_many(Protocol::Tcp, 0..30);
    let parts: (Vec<_>, Vec<_>) =
        sessions.into_iter().partition(|session| site.uplink(session) == uplink);
    assert!(parts.0.len() >= 5 && parts.1.len() >= 15, "{} {}", parts.0.len(), parts.1.len());
    parts
}

fn a_silent_break_moves_new_sessions_and_no_others(family: Family) {
    let site = Site::start(family, &one_policy(EQUAL));
    let (mut pinned, mut others) = split(&site, "fiber");
    site.fail(&["fiber"], Fault::Silent);
    let reason = site.wait_health("fiber", "down");
    assert!(reason.contains("no answer"), "{reason}");
    let moved = ways(&site, 0..20);
    assert!(moved.iter().all(|way| way != "fiber"), "{moved:?}");
    site.assert_stay(&mut others, "another uplink is down");
    let mut later = site.open_many(Protocol::Tcp, 0..20);
    site.heal(&["fiber"]);
    site.wait_health("fiber", "up");
    // What was pinned to it stayed there; what went elsewhere meanwhile does not come back.
    site.assert_stay(&mut pinned, "its uplink is back");
    site.assert_stay(&mut later, "another uplink is back");
    site.assert_stay(&mut others, "another uplink is back");
    site.wait_settled();
    assert!(ways(&site, 0..20).iter().any(|way| way == "fiber"), "new sessions come back to it");
    let log = site.log();
    let line = log.lines().find(|line| line.contains("uplink fiber is down (was up)"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    for part in ["no answer", "loss", "new sessions of default go to cable, lte"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

fn bindings_of_a_silent_uplink_are_forgotten_and_no_others(family: Family) {
    let site = Site::start(family, &one_policy(&format!("{EQUAL}, persistence: {{ by: source }}")));
    let before = ways(&site, 0..20);
    assert!(["fiber", "cable", "lte"].iter().all(|name| before.iter().any(|way| way == name)));
    site.fail(&["fiber"], Fault::Silent);
    site.wait_health("fiber", "down");
    let meanwhile = ways(&site, 0..20);
    for (was, now) in before.iter().zip(&meanwhile) {
        assert!(now != "fiber" && (was == "fiber" || was == now), "from {was} to {now}");
    }
    site.heal(&["fiber"]);
    site.wait_health("fiber", "up");
    assert_eq!(ways(&site, 0..20), meanwhile, "nobody moves back");
}

fn two_at_once_leave_the_third(family: Family) {
    let site = Site::start(family, &one_policy(EQUAL));
    site.fail(&["fiber", "cable"], Fault::Silent);
    site.wait_health("fiber", "down");
    site.wait_health("cable", "down");
    assert!(ways(&site, 0..20).iter().all(|way| way == "lte"));
    site.wait_settled();
}

fn losses_make_degraded_and_that_is_the_last_resort(family: Family) {
    let policies = "policies:
  - { name: fiber-alone, match: { ports: [443] }, uplinks: [fiber] }
  - { name: default, balance: round-robin }
";
    let site = Site::start(family, &profile(policies));
    site.fail(&["fiber"], Fault::Loss(30));
    let reason = site.wait_health("fiber", "degraded");
    assert!(reason.contains("loss is above its limit"), "{reason}");
    assert!(ways(&site, 0..20).iter().all(|way| way != "fiber"), "others are up");
    let patient = site.lan().timeout(PATIENCE);
    let session = patient.open(Protocol::Tcp, Some(site.host(1)), site.server(0, 443));
    assert_eq!(site.uplink(&session.expect("a session with losses")), "fiber", "nothing else");
    let (from, to) = (site.host(1).to_string(), site.server(0, 80).ip().to_string());
    let said = site.homing(&["explain", "--from", &from, "--to", &to, "--port", "80"]).stdout;
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("only while no other is up"), "{said}");
    site.heal(&["fiber"]);
    site.wait_health("fiber", "up");
}

const ALL: [&str; 3] = ["fiber", "cable", "lte"];

fn all_silent(site: &Site) {
    site.fail(&ALL, Fault::Silent);
    for uplink in ALL {
        site.wait_health(uplink, "down");
    }
}

fn when_nothing_answers_new_sessions_are_tried(family: Family) {
    let site = Site::start(family, &one_policy(EQUAL));
    // The sites that are asked are dead, and the lines are not: probes alone cut nobody off.
    let rules = "table inet quiet {
    chain in {
        type filter hook input priority 0
        icmp type echo-request drop
        icmpv6 type echo-request drop
    }
}
";
    site.stage.layout().internet().nft(rules).unwrap();
    for uplink in ALL {
        let reason = site.wait_health(uplink, "down");
        assert!(reason.contains("no answer"), "{reason}");
        site.wait_usable(uplink, false);
    }
    let status = site.status();
    for uplink in ALL {
        let shown = &status["uplinks"][uplink];
        assert_eq!(shown["usable"], false, "{shown}");
        let reason = shown["reason"].as_str().unwrap();
        assert!(reason.contains("tried, nothing else is up"), "{reason}");
    }
    let tried = ways(&site, 0..20);
    assert!(ALL.iter().all(|name| tried.iter().any(|way| way == name)), "{tried:?}");
    site.stage.layout().internet().nft("delete table inet quiet\n").unwrap();
    for uplink in ALL {
        site.wait_health(uplink, "up");
    }
}

fn when_nothing_answers_the_policy_says_what_to_do(family: Family) {
    let policies = "policies:
  - { name: no, match: { ports: [443] }, when-all-down: unreachable }
  - { name: silence, match: { ports: [8080] }, when-all-down: drop }
  - { name: main, match: { ports: [5060] }, when-all-down: main }
  - { name: default }
";
    let site = Site::start(family, &profile(policies));
    all_silent(&site);
    for uplink in ALL {
        site.stage.isp(uplink).unwrap().forget().unwrap();
    }
    let attempt = |port: u16| {
        let begun = Instant::now();
        let quick = site.lan().timeout(Duration::from_secs(2));
        let session = quick.open(Protocol::Tcp, Some(site.host(1)), site.server(2, port));
        (session.expect_err("nothing answers").kind(), begun.elapsed())
    };
    // Who came to which ISP for the third server, which nobody else asks.
    let seen = || -> Vec<&str> {
        let there = |name: &&str| {
            let seen = site.stage.isp(name).unwrap().sightings().unwrap();
            seen.iter().any(|s| s.protocol == "tcp" && s.destination == site.server(2, 0).ip())
        };
        ALL.into_iter().filter(there).collect()
    };
    let (refused, took) = attempt(443);
    assert!(refused != ErrorKind::TimedOut, "{refused} after {took:?}");
    assert_eq!(attempt(8080).0, ErrorKind::TimedOut);
    assert_eq!(seen(), Vec::<&str>::new(), "neither is tried");
    assert_eq!(attempt(5060).0, ErrorKind::TimedOut);
    assert_eq!(seen(), ["fiber"], "the main table's own way");
    assert_eq!(attempt(80).0, ErrorKind::TimedOut);
    assert!(!seen().is_empty(), "tried");
}

/// The time from the mend to `up`.
fn held(site: &Site, uplink: &str) -> Duration {
    site.fail(&[uplink], Fault::Silent);
    site.wait_health(uplink, "down");
    site.heal(&[uplink]);
    let begun = Instant::now();
    site.wait_status("it is held down", |status| {
        let of = &status["uplinks"][uplink]["families"][site.family.as_str()];
        of["health"] == "down" && of["reason"].as_str().is_some_and(|r| r.contains("held down"))
    });
    assert!(ways(site, 0..6).iter().all(|way| way != uplink), "nothing new while held down");
    let look = || site.health(uplink).0;
    until(2 * PATIENCE, look, |health| health != "down").expect("held for ever");
    begun.elapsed()
}

fn one_that_flaps_is_held_down_longer_each_time(family: Family) {
    let text = one_policy(EQUAL).replace("hold-down: 0s", "hold-down: 2s");
    let site = Site::start(family, &text);
    let (first, second) = (held(&site, "fiber"), held(&site, "fiber"));
    assert!(first >= Duration::from_secs(2), "{first:?}");
    assert!(second >= Duration::from_secs(4), "{second:?}");
}

fn a_hold_down_is_waived_when_nothing_else_is_usable(family: Family) {
    let text = one_policy(EQUAL).replace("hold-down: 0s", "hold-down: 10m");
    let site = Site::start(family, &text);
    all_silent(&site);
    site.heal(&["cable"]);
    let look = || site.health("cable").0;
    until(PATIENCE, look, |health| health != "down").expect("held down for nothing");
    assert!(ways(&site, 0..10).iter().all(|way| way == "cable"));
    // The next one must wait: somebody is usable now.
    site.heal(&["fiber"]);
    site.wait_status("fiber is held down", |status| {
        let reason = &status["uplinks"]["fiber"]["families"][site.family.as_str()]["reason"];
        reason.as_str().is_some_and(|reason| reason.contains("held down"))
    });
}

fn health_is_known_after_a_restart(family: Family) {
    // So slow that nothing is learned anew before the end of this test.
    let slow = |interval: &str| {
        one_policy(EQUAL).replace("interval: 250ms", &format!("interval: {interval}"))
    };
    let mut site = Site::start(family, &slow("250ms"));
    site.fail(&["fiber"], Fault::Silent);
    site.wait_health("fiber", "down");
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        site.stop(signal);
        assert!(ways(&site, 0..10).iter().all(|way| way != "fiber"), "while nobody steers");
        site.write_profile(&slow("30s"));
        site.spawn();
        site.wait_ready();
        assert_eq!(site.health("fiber").0, "down");
        assert_eq!(site.health("cable").0, "up");
        assert!(ways(&site, 0..10).iter().all(|way| way != "fiber"), "right after the start");
    }
    site.heal(&["fiber"]);
    site.reload(&slow("250ms"));
    site.wait_health("fiber", "up");
}

fn a_reload_keeps_the_health_of_who_stays(family: Family) {
    let site = Site::start(family, &one_policy(EQUAL));
    site.fail(&["fiber"], Fault::Silent);
    site.wait_health("fiber", "down");
    site.reload(&one_policy("uplinks: [fiber, cable]"));
    assert_eq!(site.health("fiber").0, "down");
    assert_eq!(site.health("cable").0, "up");
    assert!(ways(&site, 0..10).iter().all(|way| way == "cable"));
}

fn a_gateway_without_an_answer_to_arp_counts_at_once(family: Family) {
    let text = one_policy(EQUAL).replace("interval: 250ms", "interval: 20s");
    let site = Site::start(family, &text);
    site.fail(&["fiber"], Fault::Silent);
    // Anybody's packet makes the kernel look for the gateway; probes are far too seldom to do it.
    site.router().ip(&["neigh flush dev wan0".to_owned()]).unwrap();
    let _ = site.own().device("wan0").ping(None, site.server(2, 0).ip());
    let reason = site.wait_health("fiber", "down");
    assert!(reason.contains("its gateway") && reason.contains("does not answer"), "{reason}");
}

fn the_router_s_own_way_follows_health(family: Family) {
    let site = Site::start(family, &one_policy(EQUAL));
    let quick = site.own().timeout(Duration::from_millis(300));
    let own = || {
        let session = quick.open(Protocol::Tcp, None, site.server(0, 80));
        session.map(|session| site.uplink(&session)).map_err(|error| error.to_string())
    };
    assert_eq!(own().as_deref(), Ok("fiber"));
    site.fail(&["fiber"], Fault::Silent);
    let _ = until(PATIENCE, own, |way| way.as_deref() == Ok("cable")).expect("cable is next");
    site.heal(&["fiber"]);
    let _ = until(PATIENCE, own, |way| way.as_deref() == Ok("fiber")).expect("fiber is back");
}

fn order(site: &Site, uplink: &str, what: &str) {
    let outcome = site.homing(&["uplink", uplink, what]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), ""), "{outcome:?}");
}

fn drained_keeps_what_it_has_and_gets_nothing_new(family: Family) {
    let bound = format!("{EQUAL}, persistence: {{ by: source }}");
    let policies = format!(
        "policies:\n  - {{ name: bound, match: {{ ports: [443] }}, {bound} }}\n  \
         - {{ name: default, {EQUAL} }}\n"
    );
    let mut site = Site::start(family, &profile(&policies));
    let (mut pinned, mut others) = split(&site, "fiber");
    let bank = |site: &Site| -> Vec<String> {
        let to = site.server(1, 443);
        (0..12).map(|host| site.way(Protocol::Tcp, host, to)).collect()
    };
    let before = bank(&site);
    order(&site, "fiber", "drain");
    let shown = |site: &Site| site.status()["uplinks"]["fiber"].clone();
    let status = shown(&site);
    assert_eq!((&status["admin"], &status["usable"]), (&"draining".into(), &false.into()));
    assert_eq!(status["health"], "up", "it is asked further");
    assert!(status["reason"].as_str().unwrap().contains("draining by order"), "{status}");
    assert!(ways(&site, 0..20).iter().all(|way| way != "fiber"));
    assert_eq!(bank(&site), before, "who is bound to it stays");
    site.assert_stay(&mut pinned, "drained");
    site.assert_stay(&mut others, "drained");
    assert!(site.log().contains("uplink fiber is up, draining by order"), "{}", site.log());
    let (from, to) = (site.host(1).to_string(), site.server(0, 80).ip().to_string());
    let said = site.homing(&["explain", "--from", &from, "--to", &to, "--port", "80"]).stdout;
    assert!(said.contains("it is drained"), "{said}");
    site.wait_settled();
    // Kept over restarts and reloads.
    site.stop(Signal::SIGKILL);
    site.run_again();
    assert_eq!(shown(&site)["admin"], "draining");
    assert!(ways(&site, 0..20).iter().all(|way| way != "fiber"));
    site.reload(&profile(&policies));
    assert_eq!(shown(&site)["admin"], "draining");
    order(&site, "fiber", "enable");
    assert_eq!(shown(&site)["admin"], "enabled");
    assert!(ways(&site, 0..20).iter().any(|way| way == "fiber"));
    site.assert_stay(&mut pinned, "enabled again");
    let wrong = site.homing(&["uplink", "dsl", "drain"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("there is no uplink `dsl`"), "{wrong:?}");
    site.stop(Signal::SIGTERM);
    assert_eq!(site.homing(&["uplink", "fiber", "drain"]).code, Some(3));
}

fn disabled_keeps_nothing(family: Family) {
    let site = Site::start(family, &one_policy(&format!("{EQUAL}, persistence: {{ by: source }}")));
    let before = ways(&site, 0..20);
    assert!(before.iter().any(|way| way == "fiber"));
    order(&site, "fiber", "disable");
    assert_eq!(site.status()["uplinks"]["fiber"]["admin"], "disabled");
    for (was, now) in before.iter().zip(ways(&site, 0..20)) {
        assert!(now != "fiber" && (was == "fiber" || *was == now), "from {was} to {now}");
    }
    order(&site, "fiber", "enable");
    site.wait_usable("fiber", true);
}
