//! A reload under load: what stays is neither lost, moved nor held up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use homing::lab::{Builder, Protocol, Session};
use homing::model::Family;

use crate::harness::{PATIENCE, PROBES, Site, both};

both!(two_hundred_sessions_outlive_a_reload_but_for_those_of_the_removed_uplink);

fn site_of(uplinks: &[(&str, &str, u32)]) -> String {
    let mut text = "version: 1\nsite: test\nuplinks:\n".to_owned();
    for (name, device, weight) in uplinks {
        text += &format!("  {name}: {{ interface: {device}, weight: {weight} }}\n");
    }
    text + PROBES
        + "lans:\n  office: { interface: lan0 }\n  dmz: { interface: dmz0 }\npolicies:
  - { name: bound, match: { ports: [443] }, persistence: { by: source } }
  - { name: default }\n"
}

/// Asks in every session, over and over, until told to stop; the longest wait for an answer.
fn talk(sessions: &mut [Session], stop: &AtomicBool) -> (u64, Duration) {
    let (mut asked, mut longest, since) = (0, Duration::ZERO, Instant::now());
    while !stop.load(Ordering::Relaxed) && since.elapsed() < 4 * PATIENCE {
        for session in &mut *sessions {
            let (before, begun) = (session.seen, Instant::now());
            // One lost datagram is one answer missing.
            assert_eq!(session.ask(PATIENCE).expect("no packet is lost"), before, "it moved");
            longest = longest.max(begun.elapsed());
            asked += 1;
        }
    }
    (asked, longest)
}

fn two_hundred_sessions_outlive_a_reload_but_for_those_of_the_removed_uplink(family: Family) {
    let before = site_of(&[("fiber", "wan0", 5), ("cable", "wan1", 4), ("dsl", "wan3", 3)]);
    let after = site_of(&[("fiber", "wan0", 1), ("lte", "wan2", 6), ("dsl", "wan3", 3)]);
    let four = |_| Builder::new(&["fiber", "cable", "lte", "dsl"]);
    let site = Site::start_on(family, &before, four);
    let mut sessions = site.open_many(Protocol::Tcp, 0..100);
    sessions.extend(site.open_many(Protocol::Udp, 0..100));
    let ways = |hosts: std::ops::Range<u16>| -> Vec<String> {
        hosts.map(|host| site.way(Protocol::Tcp, host, site.server(1, 443))).collect()
    };
    let bound = ways(0..12);
    let (ended, mut stay): (Vec<_>, Vec<_>) =
        sessions.into_iter().partition(|session| site.uplink(session) == "cable");
    assert!(ended.len() > 40 && stay.len() > 80, "{} and {}", ended.len(), stay.len());
    let stop = AtomicBool::new(false);
    let (asked, longest) = std::thread::scope(|scope| {
        let talking = scope.spawn(|| talk(&mut stay, &stop));
        site.reload(&after);
        stop.store(true, Ordering::Relaxed);
        talking.join().expect("the sessions go on")
    });
    println!("{asked} answers during the reload, the longest after {longest:?}");
    assert!(asked > 100, "only {asked} answers");
    site.assert_stay(&mut stay, "after the reload");
    for (first, now) in bound.iter().zip(ways(0..12)) {
        assert!(first == "cable" || *first == now, "a binding moved from {first} to {now}");
    }
    for mut session in ended {
        let from = session.seen;
        let now = session.ask(Duration::from_secs(5));
        assert!(now.as_ref().map_or(true, |now| *now != from), "it still goes by cable: {now:?}");
    }
    site.assert_settled();
}
