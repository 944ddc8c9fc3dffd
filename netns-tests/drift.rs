//! Others change what is ours: it is put right, soon, counted and told; live sessions go on.

use std::time::{Duration, Instant};

use homing::lab::Protocol;
use homing::model::Family;
use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Site, both, one_policy, profile, until};

both!(
    whatever_others_take_away_comes_back_within_a_second,
    a_setting_that_is_set_back_is_put_right,
    a_rule_that_others_add_among_ours_is_removed,
    a_rule_that_stood_among_ours_before_is_left_alone,
    sessions_begun_while_our_table_was_gone_are_ended,
    an_nft_that_refuses_is_told_and_steering_goes_on,
    an_nft_that_hangs_is_stopped_and_steering_goes_on,
    notices_that_are_lost_are_made_up_for,
);

/// From the moment that somebody changed something.
const SOON: Duration = Duration::from_secs(1);

fn option(family: Family) -> &'static str {
    if family == Family::V4 { "-4" } else { "-6" }
}

/// All that is ours, without counters, handles and times.
fn ours(site: &Site) -> String {
    let mut all = String::new();
    for option in ["-4", "-6"] {
        all += &site.command("ip", &[option, "rule"]).stdout;
        let routes = site.command("ip", &[option, "route", "show", "table", "all", "proto", "201"]);
        all += &routes.stdout;
    }
    let listing = site.command("nft", &["-s", "list", "table", "inet", "homing"]).stdout;
    let learned = |line: &&str| !line.contains("expires") && !line.contains("elements");
    all + &listing.lines().filter(learned).collect::<Vec<_>>().join("\n")
}

fn repairs(site: &Site) -> u64 {
    site.status()["kernel"]["drift_repairs"].as_u64().unwrap_or_default()
}

/// Something of every kind that somebody may delete.
fn damages(site: &Site) -> Vec<(&'static str, Vec<String>)> {
    let option = option(site.family);
    let digit = if site.family == Family::V4 { 4 } else { 6 };
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    vec![
        ("flush", words("nft flush ruleset")),
        ("table", words("nft delete table inet homing")),
        ("chain", words("nft flush chain inet homing prerouting")),
        ("addresses", words(&format!("nft flush map inet homing snat{digit}"))),
        ("all rules", words(&format!("ip {option} rule flush"))),
        ("one rule", words(&format!("ip {option} rule del pref 10301"))),
        ("route", words(&format!("ip {option} route flush table 10000 proto 201"))),
    ]
}

/// Who owns which slot depends on what came before: at the start, on who answered first.
fn deal_afresh(site: &Site) {
    let counted = repairs(site);
    site.router().nft("delete table inet homing\n").unwrap();
    until(PATIENCE, || repairs(site), |now| *now > counted).expect("repaired");
    site.wait_settled();
}

fn whatever_others_take_away_comes_back_within_a_second(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    deal_afresh(&site);
    let mut sessions = site.open_many(Protocol::Tcp, 0..12);
    let before = ours(&site);
    for (what, command) in damages(&site) {
        let counted = repairs(&site);
        let args: Vec<&str> = command[1..].iter().map(String::as_str).collect();
        let outcome = site.command(&command[0], &args);
        assert_eq!(outcome.code, Some(0), "{what}: {outcome:?}");
        let since = Instant::now();
        if what == "all rules" {
            // Those were not ours to bring back.
            let restore = |pref: &str, table: &str| {
                let line =
                    format!("{} rule add pref {pref} lookup {table} proto kernel", option(family));
                site.command("ip", &line.split(' ').collect::<Vec<_>>()).code
            };
            assert_eq!(restore("32766", "main"), Some(0));
            if family == Family::V4 {
                assert_eq!(restore("32767", "default"), Some(0));
            }
        }
        let same = |now: &String| sorted(now) == sorted(&before);
        let repaired = until(PATIENCE, || ours(&site), same);
        let took = since.elapsed();
        repaired.unwrap_or_else(|now| panic!("{what}: {}", difference(&before, &now)));
        assert!(took < SOON, "{what}: repaired after {took:?}");
        let more = |now: &u64| *now > counted;
        until(PATIENCE, || repairs(&site), more).unwrap_or_else(|_| panic!("{what}: not counted"));
        site.assert_stay(&mut sessions, what);
        site.assert_settled();
        for uplink in ["fiber", "cable", "lte"] {
            // What a flush lets out before the repair is not homing's.
            site.stage.isp(uplink).unwrap().forget().unwrap();
        }
        assert_eq!(site.open_many(Protocol::Tcp, 20..26).len(), 6, "{what}");
    }
    let log = site.log();
    assert!(log.contains("our state was changed by nft (pid"), "{log}");
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.sort_unstable();
    lines
}

fn difference(before: &str, after: &str) -> String {
    let lines = |text: &str, other: &str, sign: char| {
        let gone = text.lines().filter(|line| !other.contains(line.trim()));
        gone.map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    lines(before, after, '-') + &lines(after, before, '+')
}

/// The kernel tells nobody of settings: they are looked at every five seconds.
fn a_setting_that_is_set_back_is_put_right(family: Family) {
    let site = Site::start(family, &profile(""));
    let (key, file) = match family {
        Family::V4 => ("ipv4/ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        Family::V6 => ("ipv6/conf/all/forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"),
    };
    let counted = repairs(&site);
    site.router().sysctl(&[(key, "0")]).unwrap();
    let now = || site.command("cat", &[file]).stdout;
    until(Duration::from_secs(6), now, |now| now == "1\n").expect("forwarding is back");
    until(PATIENCE, || repairs(&site), |now| *now > counted).expect("counted");
    assert_eq!(site.open_many(Protocol::Tcp, 0..6).len(), 6);
}

fn a_rule_that_others_add_among_ours_is_removed(family: Family) {
    let site = Site::start(family, &profile(""));
    let option = option(family);
    let before = site.command("ip", &[option, "rule"]).stdout;
    let line = [option, "rule", "add", "pref", "10002", "lookup", "main"];
    assert_eq!(site.command("ip", &line).code, Some(0));
    let since = Instant::now();
    let now = || site.command("ip", &[option, "rule"]).stdout;
    until(PATIENCE, now, |now| *now == before).expect("removed");
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    until(PATIENCE, || repairs(&site), |now| *now == 1).expect("counted");
}

fn a_rule_that_stood_among_ours_before_is_left_alone(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let option = option(family);
    let line = [option, "rule", "add", "pref", "10399", "from", "all", "lookup", "77"];
    assert_eq!(site.command("ip", &line).code, Some(0));
    site.run(&profile(""));
    let listed = site.command("ip", &[option, "rule", "show", "pref", "10399"]).stdout;
    assert!(!listed.is_empty(), "it is gone");
    assert!(site.log().contains("rule stands among ours"), "{}", site.log());
    site.assert_settled();
    assert_eq!(repairs(&site), 0);
}

fn sessions_begun_while_our_table_was_gone_are_ended(family: Family) {
    let site = Site::start(family, &profile(""));
    let watcher = "table inet watcher {
    chain forward {
        type filter hook forward priority 0
        ct state invalid counter
    }
}\n";
    site.router().nft(watcher).unwrap();
    let mut sessions = site.open_many(Protocol::Tcp, 0..12);
    site.signal(Signal::SIGSTOP);
    site.router().nft("delete table inet homing\n").unwrap();
    let quick = site.lan().timeout(Duration::from_millis(100));
    for host in 20..24 {
        let answer = quick.open(Protocol::Udp, Some(site.host(host)), site.server(0, 53));
        assert!(answer.is_err(), "an answer to a LAN's address");
    }
    site.signal(Signal::SIGCONT);
    let ended = || site.status()["kernel"]["sessions_ended"].as_u64();
    until(PATIENCE, ended, |ended| *ended == Some(4)).expect("four sessions ended");
    site.assert_stay(&mut sessions, "after the repair");
    for uplink in ["fiber", "cable", "lte"] {
        site.stage.isp(uplink).unwrap().forget().unwrap();
    }
    // The same clients and ports again: translated now.
    for host in 20..24 {
        site.open(Protocol::Udp, host, site.server(0, 53));
    }
    assert!(site.log().contains("ended 4 sessions that would have left untranslated"));
}

const MORE: &str = "policies:
  - { name: bank, match: { ports: [443] }, uplinks: [cable], persistence: { by: source } }
  - { name: default, balance: round-robin }
";

/// nft refuses the new policy: what is in force goes on, steering too, and it is told what is not.
fn an_nft_that_refuses_is_told_and_steering_goes_on(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    site.replace_nft();
    site.run(&profile("policies: [{ name: default, balance: round-robin }]\n"));
    let mut sessions = site.open_many(Protocol::Tcp, 0..12);
    sessions.retain(|session| site.uplink(session) != "fiber");
    site.spoil_nft(Some("echo 'Error: out of order' >&2; exit 1"));
    site.write_profile(&profile(MORE));
    let refused = site.homing(&["reload"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("out of order"), "{refused:?}");
    let kernel = site.status()["kernel"].clone();
    assert_eq!(kernel["state"], "degraded", "{kernel}");
    assert!(kernel["reason"].to_string().contains("out of order"), "{kernel}");
    assert!(kernel["missing"].to_string().contains("bank"), "{kernel}");
    steering_goes_on(&site, SOON);
    site.assert_stay(&mut sessions, "nft is out of order");
    site.spoil_nft(None);
    site.wait_status("all is in force", |status| status["kernel"]["state"] == "applied");
    assert_eq!(site.way(Protocol::Tcp, 3, site.server(1, 443)), "cable");
    site.assert_settled();
}

fn steering_goes_on(site: &Site, within: Duration) {
    let since = site.lose_carrier("fiber");
    let quick = site.lan().timeout(Duration::from_millis(100));
    let ways = || {
        let wanted: Vec<_> =
            (0..6).map(|i| (Protocol::Tcp, Some(site.host(i)), site.server(0, 80))).collect();
        quick.open_all(&wanted).iter().all(|s| s.as_ref().is_ok_and(|s| site.uplink(s) != "fiber"))
    };
    until(PATIENCE, ways, |all| *all).expect("new sessions leave fiber");
    assert!(since.elapsed() < within, "{:?}", since.elapsed());
    site.stage.isp("fiber").unwrap().heal().unwrap();
}

/// nft hangs: it is stopped after its time, and steering does not wait for it.
fn an_nft_that_hangs_is_stopped_and_steering_goes_on(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    site.replace_nft();
    site.run(&profile("policies: [{ name: default, balance: round-robin }]\n"));
    site.spoil_nft(Some("exec sleep 60"));
    site.write_profile(&profile(MORE));
    site.signal(Signal::SIGHUP);
    until(PATIENCE, || site.status()["kernel"]["state"].clone(), |state| state == "applying")
        .expect("nft is at work");
    let asked = Instant::now();
    site.status();
    assert!(asked.elapsed() < SOON, "status waits for nft: {:?}", asked.elapsed());
    steering_goes_on(&site, SOON);
    let degraded = |status: &serde_json::Value| status["kernel"]["state"] == "degraded";
    let look = || site.status();
    let told = until(2 * PATIENCE, look, degraded).expect("the time limit");
    assert!(told["kernel"]["reason"].to_string().contains("did not end"), "{told}");
    site.spoil_nft(None);
    let right = |status: &serde_json::Value| status["kernel"]["state"] == "applied";
    until(2 * PATIENCE, look, right).expect("all is in force");
}

/// More happens than the kernel can tell of: what was not heard of is seen all the same.
fn notices_that_are_lost_are_made_up_for(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    deal_afresh(&site);
    let before = ours(&site);
    site.signal(Signal::SIGSTOP);
    let route = |number: u32| match family {
        Family::V4 => {
            format!("10.{}.{}.{}/32", 100 + (number >> 16), number >> 8 & 255, number & 255)
        }
        Family::V6 => format!("fd00:99::{number:x}/128"),
    };
    let lines = |verb: &'static str| -> Vec<String> {
        (0..40_000).map(|number| format!("route {verb} {} dev dmz0", route(number))).collect()
    };
    site.router().ip(&lines("add")).unwrap();
    site.router().ip(&lines("del")).unwrap();
    site.router().nft("delete table inet homing\n").unwrap();
    site.signal(Signal::SIGCONT);
    let same = |now: &String| sorted(now) == sorted(&before);
    until(PATIENCE, || ours(&site), same).expect("repaired");
    assert!(site.log().contains("more to tell than we could hear"), "{}", site.log());
    // Nobody forwards without the table but the kernel itself.
    for uplink in ["fiber", "cable", "lte"] {
        site.stage.isp(uplink).unwrap().forget().unwrap();
    }
    site.assert_settled();
}
