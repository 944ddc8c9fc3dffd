//! Sessions that the packet path did not see begin, or whose uplink or address went away.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use homing::lab::{self, Protocol, Session};
use homing::model::Family;

use crate::harness::{PATIENCE, Site, both, one_policy, profile, until};

both!(
    sessions_older_than_homing_keep_their_link,
    sessions_that_would_leave_untranslated_are_ended,
    sessions_of_an_address_that_is_gone_are_ended,
    sessions_of_a_removed_uplink_are_ended,
    a_link_that_returns_with_its_address_keeps_its_sessions,
);

const MASQUERADE: &str = "table inet plain {
    chain post {
        type nat hook postrouting priority 110
        oifname \"wan*\" masquerade
    }
}\n";

/// A router without homing, whose only default route is by cable.
fn plain_router(family: Family) -> Site {
    let site = Site::prepare(family, |b| b);
    let forward = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];
    site.router().sysctl(&forward).unwrap();
    let any = if family == Family::V4 { "default" } else { "::/0" };
    let fiber = site.stage.isp("fiber").unwrap().layout().clone();
    let gateway = match family {
        Family::V4 => fiber.gateway4.to_string(),
        Family::V6 => "fe80::1".to_owned(),
    };
    let lines = [
        format!("route del {any} dev wan0 metric 101"),
        format!("route add {any} via {gateway} dev wan0 metric 999"),
    ];
    site.router().ip(&lines).unwrap();
    site
}

fn a_few(site: &Site) -> Vec<Session> {
    let mut sessions = site.open_many(Protocol::Tcp, 0..5);
    sessions.extend(site.open_many(Protocol::Udp, 5..10));
    sessions
}

fn sessions_older_than_homing_keep_their_link(family: Family) {
    let mut site = plain_router(family);
    site.router().nft(MASQUERADE).unwrap();
    let mut sessions = a_few(&site);
    let cable: IpAddr = site.stage.isp("cable").unwrap().layout().customer(family);
    sessions.push(site.own().open(Protocol::Tcp, Some(cable), site.server(1, 80)).unwrap());
    let ways: Vec<String> = sessions.iter().map(|session| site.uplink(session)).collect();
    assert!(ways.iter().all(|way| way == "cable"), "{ways:?}");
    // Clients go on sending meanwhile: nothing of it may leave by fiber, where new sessions go.
    let begun = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let (mut rounds, since) = (0, Instant::now());
            while !begun.load(Ordering::Relaxed) && since.elapsed() < 2 * PATIENCE {
                for session in &mut sessions {
                    let before = session.seen;
                    assert_eq!(session.ask(PATIENCE).expect("an answer"), before);
                }
                rounds += 1;
            }
            rounds
        });
        site.run(&one_policy("uplinks: [fiber]"));
        begun.store(true, Ordering::Relaxed);
        assert!(talk.join().expect("the sessions go on") > 1);
    });
    let adopted = site.status()["kernel"]["sessions_adopted"].as_u64();
    assert!(adopted >= Some(11), "{adopted:?}");
    assert!(site.log().contains("began without homing"), "{}", site.log());
}

/// Nobody translated before homing came: what clients tried leaks on until it is ended.
fn sessions_that_would_leave_untranslated_are_ended(family: Family) {
    let mut site = plain_router(family);
    // Whoever looks at states makes the kernel track sessions.
    let tracking = "table inet plain {
    chain forward {
        type filter hook forward priority 0
        ct state invalid counter
    }
}\n";
    site.router().nft(tracking).unwrap();
    let quick = site.lan().timeout(Duration::from_millis(100));
    for host in 0..5 {
        let from = Some(site.host(host));
        assert!(quick.open(Protocol::Udp, from, site.server(0, 53)).is_err(), "an answer");
    }
    for uplink in ["fiber", "cable", "lte"] {
        site.stage.isp(uplink).unwrap().forget().unwrap();
    }
    site.run(&profile(""));
    let ended = || site.status()["kernel"]["sessions_ended"].as_u64();
    until(PATIENCE, ended, |ended| *ended == Some(5)).expect("five sessions ended");
    assert!(site.log().contains("ended 5 sessions that would have left untranslated"));
    assert_eq!(a_few(&site).len(), 10);
}

fn renumber(site: &mut Site) {
    let change = |isp: &mut lab::IspLayout| {
        isp.gateway4 = [192, 0, 2, 65].into();
        isp.customer4 = lab::net4([192, 0, 2, 66], 26);
        isp.gateway6 = [0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, 1].into();
        isp.customer6 = lab::net_of6([0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, 2].into(), 64);
    };
    site.stage.renumber("fiber", change).unwrap();
}

/// How many sessions to the first server's port 80 the router knows that are not over, of one uplink
/// address.
fn entries(site: &Site, address: IpAddr) -> usize {
    let family = if site.family == Family::V4 { "ipv4" } else { "ipv6" };
    let listing =
        site.command("conntrack", &["-L", "-f", family, "--reply-dst", &address.to_string()]);
    let open = |line: &&str| line.contains("dport=80") && !line.contains(" CLOSE ");
    listing.stdout.lines().filter(open).count()
}

fn sessions_of_an_address_that_is_gone_are_ended(family: Family) {
    let mut site = Site::start(family, &one_policy("balance: round-robin"));
    let mut sessions = site.open_many(Protocol::Tcp, 0..30);
    let old = site.stage.isp("fiber").unwrap().layout().customer(family);
    let (on_fiber, rest): (Vec<_>, Vec<_>) =
        sessions.drain(..).partition(|session| site.uplink(session) == "fiber");
    assert_eq!(entries(&site, old), on_fiber.len());
    renumber(&mut site);
    until(PATIENCE, || entries(&site, old), |left| *left == 0).expect("they are ended");
    let ended = || site.status()["kernel"]["sessions_ended"].as_u64();
    until(PATIENCE, ended, |ended| *ended == Some(on_fiber.len() as u64)).expect("counted");
    site.stage.forget_old_addresses("fiber").unwrap();
    let mut rest = rest;
    site.assert_stay(&mut rest, "another uplink has another address");
    // What a client sends in such a session is refused by the server, not swallowed.
    for mut session in on_fiber {
        let error = session.ask(Duration::from_secs(5)).expect_err("a session without its address");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

fn sessions_of_a_removed_uplink_are_ended(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let mut sessions = site.open_many(Protocol::Tcp, 0..30);
    let address = site.stage.isp("lte").unwrap().layout().customer(family);
    let (on_lte, rest): (Vec<_>, Vec<_>) =
        sessions.drain(..).partition(|session| site.uplink(session) == "lte");
    let two = "version: 1\nsite: test\nuplinks:\n  fiber: { interface: wan0 }\n  cable: { interface: wan1 }\nlans:\n  office: { interface: lan0 }\n  dmz: { interface: dmz0 }\n";
    site.reload(two);
    until(PATIENCE, || entries(&site, address), |left| *left == 0).expect("they are ended");
    let mut rest = rest;
    site.assert_stay(&mut rest, "another uplink was removed");
    for mut session in on_lte {
        let error = session.ask(Duration::from_secs(5)).expect_err("a session without its uplink");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

/// A modem that dials in again and gets the address it had: nobody was renumbered.
fn a_link_that_returns_with_its_address_keeps_its_sessions(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [[fiber], [cable]]"));
    let mut sessions = a_few(&site);
    site.stage.recreate_line("fiber", true).unwrap();
    site.wait_usable("fiber", true);
    site.wait_way(0, "fiber");
    site.assert_stay(&mut sessions, "the link is back");
    assert_eq!(site.status()["kernel"]["sessions_ended"], 0);
}
