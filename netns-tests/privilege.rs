//! An ordinary user with two capabilities, as a service manager starts him: nothing is missing.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::time::{Duration, Instant};

use homing::lab::Protocol;
use homing::model::Family;
use nix::sys::signal::Signal;

use crate::harness::program::install;
use crate::harness::{PATIENCE, Site, Snapshot, both, homing, one_policy, profile, until};

both!(an_ordinary_user_with_two_capabilities_does_everything);

/// `nobody`; where the scenarios themselves run in a user namespace of one user, that one.
pub fn user() -> u32 {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let alone = map.split_whitespace().nth(2) == Some("1");
    if alone { 0 } else { 65534 }
}

/// The command that takes everything else away; what is started by it keeps the two (`nft` needs
/// them too).
pub fn with_two_capabilities(user: u32) -> Vec<String> {
    let mut words = vec!["/usr/bin/setpriv".to_owned()];
    if user != 0 {
        words.extend([format!("--reuid={user}"), format!("--regid={user}")]);
        words.push("--clear-groups".to_owned());
    }
    for set in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        words.push(format!("{set}=-all,+net_admin,+net_raw"));
    }
    words.push("--no-new-privs".to_owned());
    words
}

/// What the process may do, as the kernel tells: effective capabilities and user.
fn rights(site: &Site) -> (String, u32) {
    let path = format!("/proc/{}", site.pid());
    let status = fs::read_to_string(format!("{path}/status")).unwrap();
    let line = |key| status.lines().find_map(|line: &str| line.strip_prefix(key)).unwrap();
    let user = line("Uid:").split_whitespace().nth(1).unwrap().parse().unwrap();
    (line("CapEff:").trim().to_owned(), user)
}

fn an_ordinary_user_with_two_capabilities_does_everything(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let before = Snapshot::of(&site.router());
    let user = user();
    for name in ["run", "state"] {
        fs::create_dir_all(site.path(name)).unwrap();
        chown(site.path(name), Some(user), Some(user)).unwrap();
    }
    // He may not even see where it was built.
    let program = site.path("homing");
    install(homing(), &program);
    let limited = with_two_capabilities(user);
    let words: Vec<&str> = limited.iter().map(String::as_str).collect();
    site.run_by(&words);
    site.program = program.clone();
    let keys = "balance: round-robin, persistence: { by: source, timeout: 2s }";
    site.run(&one_policy(keys));
    // CAP_NET_ADMIN (12) and CAP_NET_RAW (13).
    assert_eq!(rights(&site), ("0000000000003000".to_owned(), user));
    assert_eq!(fs::metadata(site.path("state/state.json")).unwrap().uid(), user);
    assert_eq!(site.status()["warnings"].as_array().map(Vec::len), Some(0));

    let mut sessions = site.open_many(Protocol::Tcp, 0..12);
    let bound: Vec<String> = sessions.iter().map(|session| site.uplink(session)).collect();
    // Longer than twice the timeout: the sweep must have seen the sessions and renewed the bindings.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        site.assert_stay(&mut sessions, "under way");
        std::thread::sleep(Duration::from_millis(100));
    }
    let now: Vec<String> = (0..12).map(|host| site.way_of(host)).collect();
    assert_eq!(now, bound, "bindings under live sessions");

    // A setting is put right, and a flush.
    let repairs = |least| {
        let look = || site.status()["kernel"]["drift_repairs"].as_u64();
        until(PATIENCE, look, |repairs| *repairs >= Some(least)).expect("put right");
    };
    site.router().sysctl(&[("ipv4/conf/wan0/rp_filter", "1")]).unwrap();
    repairs(1);
    site.router().nft("delete table inet homing\n").unwrap();
    repairs(2);
    site.assert_settled();
    for uplink in ["fiber", "cable", "lte"] {
        // What a flush lets out before the repair is not homing's.
        site.stage.isp(uplink).unwrap().forget().unwrap();
    }

    // A command has none of these rights.
    let (told, script) = (site.path("state/rights"), "cat /proc/self/status >");
    let command = format!("[/bin/sh, -c, \"{script} {told}.new && mv {told}.new {told}\"]");
    let notify = format!("notify: {{ log: {{ command: {command}, events: [uplink-order] }} }}\n");
    site.reload(&profile(&format!("policies:\n  - {{ name: bank, uplinks: [cable] }}\n{notify}")));
    assert_eq!(site.homing(&["uplink", "lte", "drain"]).code, Some(0));
    let status = until(PATIENCE, || fs::read_to_string(&told).ok(), Option::is_some);
    let status = status.expect("the command runs").unwrap_or_default();
    assert!(status.contains("\nCapEff:\t0000000000000000\n"), "{status}");
    assert_eq!(site.homing(&["uplink", "lte", "enable"]).code, Some(0));

    site.reload(&profile("policies:\n  - { name: bank, uplinks: [cable] }\n"));
    assert_eq!(site.way_of(40), "cable");
    site.assert_stay(&mut sessions, "after a reload");
    site.lose_carrier("cable");
    site.wait_usable("cable", false);
    site.stage.isp("cable").unwrap().heal().unwrap();
    site.wait_usable("cable", true);

    assert_eq!(site.stop(Signal::SIGTERM), Some(0));
    let (run, state) = (site.path("run"), site.path("state"));
    let down = [&program, "down", "--runtime-dir", &run, "--state-dir", &state];
    let args: Vec<&str> = words[1..].iter().copied().chain(down).collect();
    let outcome = site.command(words[0], &args);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(before.differences(&Snapshot::of(&site.router())), "");
}
