//! The process dies at any moment: nothing is lost, moved or leaked, and the next start finishes.

use std::fs;
use std::time::Instant;

use homing::lab::{Protocol, Session};
use homing::model::Family;
use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Site, Snapshot, both, profile, until};

both!(killed_at_twenty_moments_of_an_apply_nothing_is_lost, a_torn_state_file_is_replaced);

const ONE: &str = "policies:
  - { name: bound, match: { ports: [443] }, balance: round-robin, persistence: { by: source } }
  - { name: default, uplinks: [[fiber, cable], [lte]] }
";
const OTHER: &str = "policies:
  - { name: voice, match: { protocol: udp, ports: [5060] }, uplinks: [[lte], [cable]] }
  - { name: bound, match: { ports: [443, 8443] }, persistence: { by: source } }
  - { name: default, balance: source-hash }
firewall: { input: closed }
";

fn ids(site: &Site) -> Vec<(String, u64)> {
    let status = site.status();
    let uplinks = status["uplinks"].as_object().cloned().unwrap_or_default();
    uplinks.iter().map(|(name, u)| (name.clone(), u["id"].as_u64().expect("an id"))).collect()
}

fn bound_ways(site: &Site) -> Vec<String> {
    (0..9).map(|host| site.way(Protocol::Tcp, host, site.server(0, 443))).collect()
}

fn some(site: &Site) -> Vec<Session> {
    let mut sessions = site.open_many(Protocol::Tcp, 20..32);
    sessions.extend(site.open_many(Protocol::Udp, 32..44));
    sessions
}

fn killed_at_twenty_moments_of_an_apply_nothing_is_lost(family: Family) {
    let mut site = Site::start(family, &profile(ONE));
    let mut sessions = some(&site);
    let (bound, ids_before) = (bound_ways(&site), ids(&site));
    site.stop(Signal::SIGKILL);
    // How long an apply takes here, so that the moments lie within.
    site.write_profile(&profile(OTHER));
    let begun = Instant::now();
    site.run_again();
    let whole = begun.elapsed();
    site.stop(Signal::SIGKILL);
    for moment in 0..20_u32 {
        site.write_profile(&profile(if moment % 2 == 0 { ONE } else { OTHER }));
        if moment % 4 == 3 {
            // All memory but the kernel's is lost.
            let _ = fs::remove_dir_all(site.path("state"));
        }
        site.spawn();
        // Spread over the apply, not evenly: 7 and 20 have no divisor in common.
        std::thread::sleep(whole * (moment * 7 % 20) / 20);
        site.stop(Signal::SIGKILL);
        site.assert_stay(&mut sessions, &format!("killed at moment {moment}"));
    }
    site.run(&profile(ONE));
    site.assert_stay(&mut sessions, "started again");
    assert_eq!(ids(&site), ids_before, "uplinks' numbers");
    assert_eq!(bound_ways(&site), bound, "bindings");
    site.assert_settled();
}

/// Power was lost while it was written, on a file system that reorders.
fn a_torn_state_file_is_replaced(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let untouched = Snapshot::of(&site.router());
    site.run(&profile(ONE));
    let before = ids(&site);
    site.stop(Signal::SIGKILL);
    let file = format!("{}/state.json", site.path("state"));
    let whole = fs::read(&file).unwrap();
    for torn in [&whole[..whole.len() / 2], b"", b"\0\0\0\0"] {
        fs::write(&file, torn).unwrap();
        site.run_again();
        assert!(site.log().contains("is damaged"), "nothing is said of {torn:?}");
        assert_eq!(ids(&site), before);
        // How uplinks answer may have changed meanwhile, and is kept with the time.
        let kept = |text: &[u8]| -> serde_json::Value {
            let mut kept: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
            kept.as_object_mut().map(|kept| kept.remove("standings"));
            kept
        };
        let read = || kept(&fs::read(&file).unwrap());
        until(PATIENCE, read, |now| *now == kept(&whole)).expect("written again");
        site.stop(Signal::SIGKILL);
    }
    site.run_again();
    assert_eq!(site.stop(Signal::SIGTERM), Some(0));
    // It still knows what was before homing.
    let down = site.homing(&["down"]);
    assert_eq!(down.code, Some(0), "{down:?}");
    let differences = untouched.differences(&Snapshot::of(&site.router()));
    assert_eq!(differences, "");
}
