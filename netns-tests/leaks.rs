//! Whatever happens, no packet leaves with a LAN's source or another uplink's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use homing::lab::{self, Fault, Protocol, Session};
use homing::model::Family;
use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Site, both, one_policy, profile, until};

both!(
    nothing_leaks_while_lines_come_and_go,
    nothing_leaks_while_homing_dies_and_reloads,
    nothing_leaks_without_a_translation_address,
    after_a_flush_nothing_leaks_once_it_is_repaired,
);

const EQUAL: &str = "balance: round-robin";

pub const NO_RESETS: &str = "table inet quiet {
    chain output {
        type filter hook output priority 0
        tcp flags & rst == rst drop
    }
}\n";

/// Fewer packets than these show nothing.
const ENOUGH: usize = 200;

/// Hosts that send all the time: in sessions that there are, and in new ones.
fn under_traffic(site: &mut Site, what: impl FnOnce(&mut Site)) {
    let lan = site.lan().timeout(Duration::from_millis(20));
    let hosts: Vec<_> = (0..40).map(|index| site.host(index)).collect();
    let servers: Vec<_> = (0..4).map(|index| site.server(index, 53)).collect();
    let mut sessions = site.open_many(Protocol::Tcp, 0..15);
    sessions.extend(site.open_many(Protocol::Udp, 15..30));
    let stop = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let talking = scope.spawn(|| {
            let (mut sent, mut asked, since) = (0_usize, 0, Instant::now());
            while (!stop.load(Ordering::Relaxed) || asked <= ENOUGH)
                && since.elapsed() < 6 * PATIENCE
            {
                // Whether anybody answers is not the question here.
                asked += sessions.len() + 2;
                sessions.retain_mut(survives);
                let (from, to) = (hosts[sent % 40], servers[sent % 4]);
                let _ = lan.send((from, 0).into(), to);
                let wanted = [(Protocol::Tcp, Some(from), (to.ip(), 80).into())];
                sessions.extend(lan.open_all(&wanted).into_iter().flatten());
                sessions.truncate(60);
                sent += 1;
            }
            asked
        });
        what(site);
        stop.store(true, Ordering::Relaxed);
        talking.join().expect("the hosts send")
    });
    assert!(asked > ENOUGH, "only {asked} packets");
    site.stage.check_leaks().unwrap_or_else(|leaks| panic!("{leaks}"));
}

fn survives(session: &mut Session) -> bool {
    match session.ask(Duration::from_millis(1)) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

fn nothing_leaks_while_lines_come_and_go(family: Family) {
    let mut site = Site::start(family, &one_policy(EQUAL));
    under_traffic(&mut site, |site| {
        for uplink in ["fiber", "cable", "lte", "cable"] {
            let isp = site.stage.isp(uplink).unwrap();
            isp.fail(Fault::Carrier).unwrap();
            site.wait_usable(uplink, false);
            isp.heal().unwrap();
            site.wait_usable(uplink, true);
        }
        for uplink in ["cable", "lte"] {
            site.stage.recreate_line(uplink, true).unwrap();
            site.wait_usable(uplink, true);
        }
        let any = if family == Family::V4 { "default" } else { "::/0" };
        let gone = format!("route del {any} dev wan1 metric 102");
        site.router().ip(&[gone]).unwrap();
        site.wait_way(0, "fiber");
        let change = |isp: &mut lab::IspLayout| {
            isp.gateway4 = [192, 0, 2, 65].into();
            isp.customer4 = lab::net4([192, 0, 2, 66], 26);
            isp.gateway6 = [0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, 1].into();
            isp.customer6 = lab::net_of6([0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, 2].into(), 64);
        };
        site.stage.renumber("fiber", change).unwrap();
        let new = site.stage.isp("fiber").unwrap().layout().customer(family).to_string();
        site.wait_status("the new address", |status| {
            status["uplinks"]["fiber"]["addresses"].to_string().contains(&new)
        });
        site.wait_way(0, "fiber");
        site.stage.forget_old_addresses("fiber").unwrap();
        site.wait_way(0, "fiber");
    });
}

fn nothing_leaks_while_homing_dies_and_reloads(family: Family) {
    let mut site = Site::start(family, &one_policy(EQUAL));
    under_traffic(&mut site, |site| {
        for turn in 0..4 {
            site.stop(if turn % 2 == 0 { Signal::SIGKILL } else { Signal::SIGTERM });
            site.run_again();
            site.reload(&profile("firewall: { input: closed }\n"));
            site.reload(&one_policy("uplinks: [[lte], [cable]], persistence: { by: source }"));
            site.reload(&one_policy(EQUAL));
        }
        site.stop(Signal::SIGKILL);
        // What it answers itself to late packets of ended sessions goes where main says without homing.
        site.router().nft(NO_RESETS).unwrap();
        let down = site.homing(&["down"]);
        assert_eq!(down.code, Some(0), "{down:?}");
        // Without homing this router forwards nothing: that is how it was before.
        site.run_again();
    });
}

/// Somebody empties the map of addresses: sessions wait for the repair.
fn nothing_leaks_without_a_translation_address(family: Family) {
    let mut site = Site::start(family, &one_policy(EQUAL));
    let digit = if family == Family::V4 { 4 } else { 6 };
    under_traffic(&mut site, |site| {
        for _ in 0..3 {
            site.signal(Signal::SIGSTOP);
            site.router().nft(&format!("flush map inet homing snat{digit}\n")).unwrap();
            std::thread::sleep(Duration::from_millis(200));
            site.signal(Signal::SIGCONT);
            site.wait_way(0, "fiber");
        }
    });
}

fn after_a_flush_nothing_leaks_once_it_is_repaired(family: Family) {
    let mut site = Site::start(family, &one_policy(EQUAL));
    // Somebody else who looks at states: sessions are tracked while our table is gone.
    let watcher = "table inet watcher {
    chain forward {
        type filter hook forward priority 0
        ct state invalid counter
    }
}\n";
    site.router().nft(watcher).unwrap();
    under_traffic(&mut site, |site| {
        for _ in 0..3 {
            let count = |status: serde_json::Value| status["kernel"]["drift_repairs"].as_u64();
            let before = count(site.status());
            site.router().nft("delete table inet homing\n").unwrap();
            let repaired = |now: &Option<u64>| *now > before;
            until(PATIENCE, || count(site.status()), repaired).expect("repaired");
            // Those that leak on are ended a moment after the repair.
            let settled = || {
                for uplink in ["fiber", "cable", "lte"] {
                    site.stage.isp(uplink).unwrap().forget().unwrap();
                }
                std::thread::sleep(Duration::from_millis(100));
                site.stage.check_leaks()
            };
            drop(until(PATIENCE, settled, Result::is_ok).expect("no more leaks"));
        }
    });
}
