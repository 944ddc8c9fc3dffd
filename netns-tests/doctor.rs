//! `homing doctor` on a real kernel: silent where all is well, and each collision by its name.

use homing::model::Family;
use serde_json::Value;

use crate::harness::{Site, V4, both, one_policy, profile};

both!(a_sound_site_is_left_in_peace, each_collision_is_named_with_its_remedy);

/// Severity and code of each finding, and the exit code.
fn doctor(site: &Site) -> (Vec<String>, Option<i32>) {
    let outcome = site.homing(&["doctor", &site.path("site.yaml"), "--json"]);
    let answer: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let findings = answer["findings"].as_array().expect("a list").iter();
    let code = |finding: &Value| {
        assert!(finding["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
        let word = |key: &str| finding[key].as_str().expect("a word").to_owned();
        format!("{} {}", word("severity"), word("code"))
    };
    (findings.map(code).collect(), outcome.code)
}

fn a_sound_site_is_left_in_peace(family: Family) {
    let mut site = Site::start(family, &profile(""));
    assert_eq!(doctor(&site), (vec![], Some(0)), "while homing runs");
    let people = site.homing(&["doctor", &site.path("site.yaml")]);
    assert_eq!(people.stdout, "nothing to complain of\n", "{people:?}");
    assert_eq!(site.homing(&["doctor"]).code, Some(0), "without a profile");
    site.stop(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(doctor(&site), (vec![], Some(0)), "after it ended");
    assert_eq!(site.homing(&["down"]).code, Some(0));
    assert_eq!(doctor(&site), (vec![], Some(0)), "before it is started again");
}

fn each_collision_is_named_with_its_remedy(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [cable]"));
    let router = site.router();
    let ip = |line: &str| {
        let option = if family == V4 { "-4" } else { "-6" };
        let words: Vec<&str> = [option].into_iter().chain(line.split(' ')).collect();
        let outcome = site.command("ip", &words);
        assert_eq!(outcome.code, Some(0), "{line}: {outcome:?}");
    };
    for (lines, expected) in [
        // As wg-quick does it for a full tunnel, after homing has started.
        (
            &["route add default dev dmz0 table 51820", "rule add not fwmark 51820 lookup 51820"][..],
            &["error bypass", "warning mark-shared"][..],
        ),
        (&["rule add pref 32000 iif dmz0 lookup 77"], &["warning rule-never-reached"]),
        (&["rule add pref 2001 fwmark 0x100/0x3f00 lookup 77"], &["error mark-taken"]),
        (&["route add default dev dmz0 table 10060"], &["warning table-taken"]),
    ] {
        lines.iter().for_each(|line| ip(line));
        expect(&site, expected);
        lines.iter().for_each(|line| ip(&line.replacen("add", "del", 1)));
    }
    for (name, chains, expected) in [
        (
            "filter",
            "chain DOCKER-USER {\n}\nchain FORWARD {\ntype filter hook forward priority 0; policy drop\naccept\n}",
            "warning docker",
        ),
        (
            "vpn",
            "chain save {\ntype filter hook prerouting priority 0\nudp dport 9999 ct mark set meta mark\n}",
            "error session-mark-written",
        ),
    ] {
        router.nft(&format!("table inet {name} {{\n{chains}\n}}\n")).unwrap();
        expect(&site, &[expected]);
        router.nft(&format!("delete table inet {name}")).unwrap();
    }
    assert_eq!(doctor(&site), (vec![], Some(0)), "all is undone");
}

#[track_caller]
fn expect(site: &Site, expected: &[&str]) {
    let (found, code) = doctor(site);
    assert_eq!(found, expected);
    let bad = expected.iter().any(|finding| finding.starts_with("error"));
    assert_eq!(code, Some(i32::from(bad)), "{expected:?}");
}
