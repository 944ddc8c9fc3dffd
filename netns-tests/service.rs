//! As the service of the package runs it: a user of its own with two capabilities, started again by
//! somebody when it ends; and who may read and who may change something, by user and groups.

use std::fs;
use std::os::unix::fs::chown;

use homing::lab::Protocol;
use homing::model::Family;
use nix::sys::signal::Signal;

use crate::harness::program::install;
use crate::harness::{Outcome, Site, V4, both, homing, one_policy, profile};
use crate::privilege::{user, with_two_capabilities};

both!(a_service_that_is_killed_reloaded_and_stopped_disturbs_no_session);

/// A site whose homing runs as this user, by the command `before`.
fn prepare(family: Family, user: u32, before: &[String]) -> Site {
    let mut site = Site::prepare(family, |builder| builder);
    for name in ["run", "state"] {
        fs::create_dir_all(site.path(name)).unwrap();
        chown(site.path(name), Some(user), Some(user)).unwrap();
    }
    let program = site.path("homing");
    install(homing(), &program);
    let words: Vec<&str> = before.iter().map(String::as_str).collect();
    site.run_by(&words);
    site.program = program;
    site
}

fn a_service_that_is_killed_reloaded_and_stopped_disturbs_no_session(family: Family) {
    let user = user();
    let mut site = prepare(family, user, &with_two_capabilities(user));
    site.run(&one_policy("balance: round-robin"));
    let mut sessions = site.open_many(Protocol::Tcp, 0..12);
    sessions.extend(site.open_many(Protocol::Udp, 0..12));

    site.stop(Signal::SIGKILL);
    site.assert_stay(&mut sessions, "killed");
    site.run_again();
    site.assert_stay(&mut sessions, "started again");
    site.assert_settled();

    site.reload(&profile("policies:\n  - { name: bank, uplinks: [cable] }\n"));
    site.assert_stay(&mut sessions, "reloaded");
    assert_eq!(site.way_of(40), "cable");

    assert_eq!(site.stop(Signal::SIGTERM), Some(0));
    site.assert_stay(&mut sessions, "stopped");
    assert_eq!(site.way_of(41), "cable", "new sessions while it is stopped");
    site.assert_settled();
}

/// The user whom homing runs as, and the groups that may read and change.
const OWN: u32 = 61_000;
const ADMINS: u32 = 61_001;

/// Runs `homing` as a user with a group of that number, and further groups.
fn ask(site: &Site, user: u32, groups: &[u32], args: &[&str]) -> Outcome {
    let id = [format!("--reuid={user}"), format!("--regid={user}")];
    let further: Vec<String> = groups.iter().map(u32::to_string).collect();
    let further = match further.is_empty() {
        true => "--clear-groups".to_owned(),
        false => format!("--groups={}", further.join(",")),
    };
    let run = site.path("run");
    let mut words = vec![id[0].as_str(), &id[1], &further, "--inh-caps=-all", &site.program];
    words.extend(args);
    words.extend(["--runtime-dir", &run]);
    site.command("/usr/bin/setpriv", &words)
}

#[test]
fn groups_say_who_may_read_and_who_may_change() {
    if user() == 0 {
        println!("left out: there is one user alone here");
        return;
    }
    let (named, member, reader, stranger) = (61_010, ADMINS, 61_012, 61_013);
    // As homing sees users and groups.
    let mut before: Vec<String> =
        ["/usr/bin/unshare", "--mount", "sh", "-c"].map(String::from).into();
    before.push(
        "mount --bind $0.passwd /etc/passwd && mount --bind $0.group /etc/group && exec \"$@\""
            .into(),
    );
    let lists = std::env::temp_dir().join(format!("homing-lists-{}", std::process::id()));
    before.push(lists.display().to_string());
    before.extend(with_two_capabilities(OWN));
    let text = |name: &str| fs::read_to_string(format!("/etc/{name}")).unwrap();
    let warden = format!("warden:x:{named}:{named}::/:/bin/sh\n");
    fs::write(lists.with_extension("passwd"), text("passwd") + &warden).unwrap();
    let admins = format!("homing-admin:x:{ADMINS}:warden\n");
    fs::write(lists.with_extension("group"), text("group") + &admins).unwrap();
    let mut site = prepare(V4, OWN, &before);
    site.run(&one_policy("balance: round-robin"));
    let admin = |uplink: &str| site.status()["uplinks"][uplink]["admin"].clone();
    let drain = ["uplink", "fiber", "drain"];

    let seen = ask(&site, reader, &[OWN], &["uplinks"]);
    assert!(seen.code == Some(0) && seen.stdout.contains("fiber"), "{seen:?}");
    for order in [&drain[..], &["reload"], &["uplink", "fiber", "disable"]] {
        let refused = ask(&site, reader, &[OWN], order);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("members of the group homing-admin"), "{refused:?}");
    }
    assert_eq!(admin("fiber"), "enabled");

    let refused = ask(&site, stranger, &[], &["uplinks"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("no permission"), "{refused:?}");

    // In the group by the list of its members, with the rights of the group as a further one; and with
    // the group as its own. Neither is in the socket's group.
    for (user, groups) in [(named, &[ADMINS][..]), (member, &[])] {
        assert_eq!(ask(&site, user, groups, &["uplinks"]).code, Some(0));
        assert_eq!(ask(&site, user, groups, &drain).code, Some(0));
        assert_eq!(admin("fiber"), "draining");
        assert_eq!(ask(&site, user, groups, &["uplink", "fiber", "enable"]).code, Some(0));
        assert_eq!(admin("fiber"), "enabled");
    }
    // Root, and whoever homing itself runs as: what `ExecReload=` is.
    assert_eq!(site.homing(&["uplink", "fiber", "drain"]).code, Some(0));
    assert_eq!(ask(&site, OWN, &[], &["reload"]).code, Some(0));
    for name in ["passwd", "group"] {
        fs::remove_file(lists.with_extension(name)).unwrap();
    }
}
