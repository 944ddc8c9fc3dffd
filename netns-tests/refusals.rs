//! Bad input: a clear error that names the remedy, nothing half-applied, nothing lost.

use std::fs;

use homing::lab::Protocol;
use homing::model::Family;

use crate::harness::{Site, Snapshot, V4, both, homing, one_policy, profile};

both!(
    a_wrong_profile_at_reload_leaves_the_running_one_in_force,
    a_second_run_is_refused_and_disturbs_nothing,
);

fn a_wrong_profile_at_reload_leaves_the_running_one_in_force(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [cable]"));
    let mut sessions = site.open_many(Protocol::Tcp, 0..5);
    let before = Snapshot::of(&site.router());
    for (wrong, word) in [
        ("version: 1\nuplinks: [", "site.yaml"),
        ("version: 1\nuplinks:\n  fiber: { interface: wan0, wieght: 5 }\n", "weight"),
        (&one_policy("uplinks: [calbe]"), "cable"),
    ] {
        site.write_profile(wrong);
        let outcome = site.homing(&["reload"]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(word), "`{word}` in {outcome:?}");
        assert_eq!(before.differences(&Snapshot::of(&site.router())), "");
        assert_eq!(site.way_of(7), "cable");
        site.assert_stay(&mut sessions, "a reload was refused");
    }
    fs::remove_file(site.profile_path()).unwrap();
    assert_eq!(site.homing(&["reload"]).code, Some(1), "the file is gone");
    assert_eq!(site.status()["ready"], true);
    site.reload(&one_policy("uplinks: [lte]"));
    assert_eq!(site.way_of(7), "lte");
}

fn a_second_run_is_refused_and_disturbs_nothing(family: Family) {
    let site = Site::start(family, &profile(""));
    let before = Snapshot::of(&site.router());
    let profile = site.path("site.yaml");
    let same = site.homing(&["run", &profile]);
    assert_eq!(same.code, Some(1), "{same:?}");
    assert!(same.stderr.contains("homing"), "{same:?}");
    let (run, state) = (site.path("other-run"), site.path("other-state"));
    let args = ["run", &profile, "--runtime-dir", &run, "--state-dir", &state];
    let elsewhere = site.command(homing(), &args);
    assert_eq!(elsewhere.code, Some(1), "with other directories: {elsewhere:?}");
    assert_eq!(before.differences(&Snapshot::of(&site.router())), "");
    assert_eq!(site.status()["ready"], true);
    assert_eq!(site.open_many(Protocol::Tcp, 0..10).len(), 10);
}

/// What a refused `run` leaves behind: nothing.
fn assert_refused(site: &Site, args: &[&str], words: &[&str]) {
    let before = Snapshot::of(&site.router());
    let outcome = site.command(args[0], &args[1..]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let stderr = outcome.stderr.to_lowercase();
    assert!(words.iter().any(|word| stderr.contains(word)), "none of {words:?} in {outcome:?}");
    assert!(!stderr.contains("panicked"), "{outcome:?}");
    assert_eq!(before.differences(&Snapshot::of(&site.router())), "");
}

#[test]
fn without_permission_it_says_what_it_needs() {
    let site = Site::prepare(V4, |b| b);
    site.write_profile(&profile(""));
    let (run, state, path) = (site.path("run"), site.path("state"), site.path("site.yaml"));
    let drop = ["/usr/bin/setpriv", "--bounding-set=-all", "--inh-caps=-all", homing()];
    let run = ["run", &path, "--runtime-dir", &run, "--state-dir", &state];
    let args: Vec<&str> = drop.into_iter().chain(run).collect();
    assert_refused(&site, &args, &["root", "cap_net_admin", "sudo"]);
}

/// A mount namespace in which `nft` is no program hides it, wherever homing looks.
#[test]
fn without_nft_it_says_what_to_install() {
    let site = Site::prepare(V4, |b| b);
    site.write_profile(&profile(""));
    let (run, state, path) = (site.path("run"), site.path("state"), site.path("site.yaml"));
    let script = "mount --bind /dev/null \"$(command -v nft)\" && exec \"$@\"";
    let hide = ["/usr/bin/unshare", "--mount", "sh", "-c", script, "sh", homing()];
    let run = ["run", &path, "--runtime-dir", &run, "--state-dir", &state];
    let args: Vec<&str> = hide.into_iter().chain(run).collect();
    assert_refused(&site, &args, &["nft"]);
}

#[test]
fn a_wrong_profile_at_start_changes_nothing() {
    let site = Site::prepare(V4, |b| b);
    site.write_profile("version: 1\nuplinks:\n  fiber: { interface: wan0, gatway: auto }\n");
    let (run, state, path) = (site.path("run"), site.path("state"), site.path("site.yaml"));
    let args = [homing(), "run", &path, "--runtime-dir", &run, "--state-dir", &state];
    assert_refused(&site, &args, &["gateway"]);
}

#[test]
fn commands_without_a_process_say_so() {
    let site = Site::prepare(V4, |b| b);
    for command in ["status", "uplinks", "policies", "bindings", "events", "sessions", "reload"] {
        let outcome = site.homing(&[command]);
        assert_eq!(outcome.code, Some(3), "{command}: {outcome:?}");
        assert!(!outcome.stderr.is_empty(), "{command}: {outcome:?}");
    }
}
