//! The host is in a bad way: a full disk, a read-only one, an `nft` that is slow. It is routed all
//! the same, `status` says what is wrong, and what was missed is made up for.

use std::fs;
use std::time::{Duration, Instant};

use homing::lab::Protocol;
use homing::model::Family;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{PATIENCE, Site, Snapshot, both, one_policy, profile, until};

both!(
    a_full_disk_keeps_nobody_from_routing,
    a_read_only_state_directory_keeps_nobody_from_routing,
    a_disk_that_fills_up_while_it_runs_is_told,
    an_nft_that_hangs_at_the_start_is_told_and_waited_for,
    an_nft_that_is_slow_delays_no_session,
);

/// Rounds come at least every five seconds, and each tries to write again.
const NEXT_ROUND: Duration = Duration::from_secs(7);

/// A file system of four pages, full.
const FULL: &str = "mkdir -p \"$0\" && mount -t tmpfs -o size=16k none \"$0\" && \
                    (head -c 16384 /dev/zero > \"$0/filler\" || true)";
const READ_ONLY: &str = "mkdir -p \"$0\" && mount -t tmpfs -o ro none \"$0\"";

fn warned(site: &Site, word: &str) -> Value {
    let right = |status: &Value| status["warnings"][0].as_str().is_some_and(|w| w.contains(word));
    let status = until(NEXT_ROUND, || site.status(), right);
    status.unwrap_or_else(|last| panic!("no warning of `{word}`: {last:#}"))
}

fn nothing_warned(site: &Site) {
    let right = |status: &Value| status["warnings"].as_array().is_some_and(Vec::is_empty);
    until(NEXT_ROUND, || site.status(), right).expect("no warning any more");
}

fn routes(site: &Site) {
    let sessions = site.open_many(Protocol::Tcp, 0..20);
    assert!(site.shares(&sessions)["cable"] > 0.0);
    site.wait_status("all is in force", |status| status["kernel"]["state"] == "applied");
    site.assert_settled();
}

fn a_full_disk_keeps_nobody_from_routing(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let untouched = Snapshot::of(&site.router());
    let state = site.path("state");
    site.with_mounts(FULL, &state);
    let begun = Instant::now();
    site.run(&profile(""));
    assert!(begun.elapsed() < PATIENCE / 2, "ready after {:?}", begun.elapsed());
    routes(&site);
    warned(&site, "No space left");
    let shown = site.homing(&["status"]).stdout;
    assert!(shown.contains("warning: ") && shown.contains("No space left"), "{shown}");
    // Nothing half-written takes the little room that somebody makes.
    let left: Vec<_> = fs::read_dir(site.seen_by_homing("state")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    fs::remove_file(site.seen_by_homing("state/filler")).unwrap();
    nothing_warned(&site);
    for file in ["state.json", "state-copy.json"] {
        let text = fs::read_to_string(site.seen_by_homing("state").join(file)).unwrap();
        assert!(text.contains("net/ipv4/ip_forward") && text.contains("fiber"), "{file}: {text}");
        // Beyond the mount: what `down` will read.
        fs::write(format!("{state}/{file}"), text).unwrap();
    }
    site.stop(Signal::SIGTERM);
    assert_eq!(site.homing(&["down"]).code, Some(0));
    assert_eq!(untouched.differences(&Snapshot::of(&site.router())), "");
}

fn a_read_only_state_directory_keeps_nobody_from_routing(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let state = site.path("state");
    site.with_mounts(READ_ONLY, &state);
    site.run(&profile(""));
    routes(&site);
    warned(&site, "Read-only file system");
    let once = site.log().matches("Read-only file system").count();
    site.reload(&one_policy("uplinks: [cable, lte]"));
    assert_eq!(site.open_many(Protocol::Tcp, 0..6).len(), 6);
    let ids = |site: &Site| {
        ["fiber", "cable", "lte"].map(|name| site.status()["uplinks"][name]["id"].as_u64())
    };
    let before = ids(&site);
    site.stop(Signal::SIGKILL);
    site.run_again();
    assert_eq!(ids(&site), before, "the kernel remembers");
    let log = site.log();
    assert_eq!(log.matches("Read-only file system").count(), 2 * once, "said once a run: {log}");
}

fn a_disk_that_fills_up_while_it_runs_is_told(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let state = site.path("state");
    site.with_mounts("mkdir -p \"$0\" && mount -t tmpfs -o size=16k none \"$0\"", &state);
    site.run(&profile(""));
    nothing_warned(&site);
    let whole = fs::read(site.seen_by_homing("state/state.json")).unwrap();
    // The file system takes what it can.
    let _ = fs::write(site.seen_by_homing("state/filler"), vec![0; 16384]);
    site.reload(&one_policy("uplinks: [cable, lte], balance: round-robin"));
    let more = "policies:\n  - { name: bank, match: { ports: [443] }, uplinks: [cable] }\n";
    site.reload(&profile(more));
    warned(&site, "No space left");
    let now = fs::read(site.seen_by_homing("state/state.json")).unwrap();
    assert_eq!(now, whole, "what was there is not torn");
    assert_eq!(site.way(Protocol::Tcp, 3, site.server(1, 443)), "cable");
}

/// It may be the disk that hangs: without `nft` nothing can stand, but one is told, and it goes on
/// by itself.
fn an_nft_that_hangs_at_the_start_is_told_and_waited_for(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    site.replace_nft();
    site.spoil_nft(Some("exec sleep 60"));
    site.write_profile(&profile(""));
    site.spawn();
    let look = || site.homing(&["status", "--json"]).json();
    let degraded = |status: &Value| status["kernel"]["state"] == "degraded";
    let told = until(2 * PATIENCE, look, degraded).expect("the time limit");
    assert_eq!(told["ready"], false);
    assert!(told["kernel"]["reason"].to_string().contains("did not end"), "{told}");
    site.spoil_nft(None);
    let ready = |status: &Value| status["ready"] == true;
    until(3 * PATIENCE, look, ready).expect("ready by itself");
    routes(&site);
}

fn an_nft_that_is_slow_delays_no_session(family: Family) {
    const SLOW: Duration = Duration::from_secs(3);
    let mut site = Site::prepare(family, |b| b);
    site.replace_nft();
    site.run(&one_policy("balance: round-robin"));
    let mut sessions = site.open_many(Protocol::Tcp, 0..12);
    site.spoil_nft(Some("sleep 3"));
    let more = "policies:\n  - { name: bank, match: { ports: [443] }, uplinks: [cable] }\n";
    site.write_profile(&profile(more));
    let begun = Instant::now();
    site.signal(Signal::SIGHUP);
    while begun.elapsed() < SLOW / 2 {
        site.assert_stay(&mut sessions, "nft is at work");
        let asked = Instant::now();
        site.open_many(Protocol::Tcp, 20..23);
        assert!(asked.elapsed() < Duration::from_secs(1), "new sessions wait for nft");
    }
    until(PATIENCE, || site.status()["generation"].clone(), |generation| *generation == 2)
        .expect("the new profile");
    site.wait_status("all is in force", |status| status["kernel"]["state"] == "applied");
    assert!(begun.elapsed() >= SLOW, "nft was not slow");
    assert_eq!(site.way(Protocol::Tcp, 3, site.server(1, 443)), "cable");
    site.assert_stay(&mut sessions, "after a slow apply");
}
