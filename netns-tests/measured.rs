//! Balancing by what is measured: round-trip times, and rates against bandwidths.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use homing::lab::{Fault, Protocol};
use homing::model::Family;
use serde_json::Value;

use crate::harness::{PATIENCE, Resolver, Site, both, until, with_uplinks};

both!(
    the_shortest_round_trip_gets_new_sessions_and_switches_only_for_a_gain,
    new_sessions_spill_over_before_a_link_is_full,
    measured_slots_stay_over_a_restart,
);

const RESOLVERS: [&str; 2] = ["203.0.113.54", "2001:db8:ffff::54"];

/// Everything by one policy, with one resolver in each family as the target.
fn profile(keys: &[&str; 3], policy: &str) -> String {
    let text = with_uplinks(keys);
    let (before, rest) = text.split_once("probes:").unwrap();
    let (_, after) = rest.split_once("lans:").unwrap();
    let target = |address| format!("      - dns: {{ server: \"{address}\", query: a.example }}\n");
    let targets: String = RESOLVERS.into_iter().map(target).collect();
    format!(
        "{before}probes:\n  default:\n    targets:\n{targets}    interval: 200ms\n    \
         hold-down: 0s\nlans:{after}policies:\n  - {{ name: default, {policy} }}\n"
    )
}

struct Stage {
    site: Site,
    resolvers: [Resolver; 2],
}

impl Stage {
    fn prepare(family: Family) -> Stage {
        let site = Site::prepare(family, |b| b);
        let space = site.stage.layout().internet();
        let start = |address: &str| Resolver::start(&space, address.parse::<IpAddr>().unwrap());
        let resolvers = RESOLVERS.map(start);
        Stage { site, resolvers }
    }

    /// Both families alike: the policy is judged in both.
    fn delays(&self, delays: [u64; 3]) {
        for (isp, delay) in self.site.stage.layout().isps.iter().zip(delays) {
            for (resolver, family) in self.resolvers.iter().zip(Family::BOTH) {
                let after = Duration::from_millis(delay);
                resolver.delay(isp.customer(family), after);
            }
        }
    }

    /// The uplinks' slots in the family of this site, as the kernel has them.
    fn slots(&self) -> [usize; 3] {
        let prefix = if self.site.family == Family::V4 { "slots4" } else { "slots6" };
        let listing = self.site.router().nft_json(&["list", "maps", "inet"]).unwrap();
        let ids = self.site.status()["uplinks"].clone();
        let maps = listing["nftables"].as_array().unwrap().iter().map(|item| &item["map"]);
        let map = maps.filter(|m| m["name"].as_str().is_some_and(|n| n.starts_with(prefix)));
        let elements = map.flat_map(|map| map["elem"].as_array().cloned().unwrap_or_default());
        let owners: Vec<u64> =
            elements.filter_map(|pair| pair[1].as_u64().map(|mark| mark >> 8)).collect();
        ["fiber", "cable", "lte"].map(|name| {
            let id = ids[name]["id"].as_u64();
            owners.iter().filter(|owner| Some(**owner) == id).count()
        })
    }

    fn wait_slots(&self, what: &str, right: impl Fn(&[usize; 3]) -> bool) -> [usize; 3] {
        until(2 * PATIENCE, || self.slots(), right)
            .unwrap_or_else(|last| panic!("never came true: {what}; slots: {last:?}"))
    }

    fn rtt(&self, uplink: &str) -> f64 {
        let status = self.site.status();
        let of = &status["uplinks"][uplink]["families"][self.site.family.as_str()];
        of["rtt_ms"].as_f64().unwrap_or(f64::MAX)
    }
}

fn share(status: &Value, uplink: &str) -> f64 {
    status["policies"]["default"]["members"][uplink]["share"].as_f64().unwrap()
}

fn the_shortest_round_trip_gets_new_sessions_and_switches_only_for_a_gain(family: Family) {
    let mut stage = Stage::prepare(family);
    stage.delays([50, 20, 70]);
    stage.site.run(&profile(&["weight: 5", "weight: 4", "weight: 1"], "balance: lowest-latency"));
    stage.wait_slots("all cable's", |slots| *slots == [0, 256, 0]);
    let site = &stage.site;
    let mut sessions = site.open_many(Protocol::Tcp, 0..20);
    assert!(sessions.iter().all(|session| site.uplink(session) == "cable"));
    assert!((share(&site.status(), "cable") - 1.0).abs() < 1e-9);
    let (from, to) = (site.host(1).to_string(), site.server(0, 80).ip().to_string());
    let said = site.homing(&["explain", "--from", &from, "--to", &to, "--port", "80"]).stdout;
    assert!(said.contains("the shortest round-trip time decides"), "{said}");
    // A little better is not enough.
    stage.delays([15, 20, 70]);
    until(PATIENCE, || stage.rtt("fiber"), |rtt| *rtt < 20.0).expect("the new times are known");
    assert_eq!(stage.slots(), [0, 256, 0]);
    // Much better is, and it is done little by little.
    stage.delays([15, 80, 70]);
    let some = stage.wait_slots("some fiber's", |slots| slots[0] > 0);
    assert!(some[0] < 256 && some[0].is_multiple_of(32), "all at once: {some:?}");
    let begun = Instant::now();
    stage.wait_slots("all fiber's", |slots| *slots == [256, 0, 0]);
    let seconds = (256 - some[0]) / 32 - 1;
    assert!(begun.elapsed() >= Duration::from_secs(seconds as u64) / 2, "{:?}", begun.elapsed());
    site.assert_stay(&mut sessions, "new ones go elsewhere");
    // One that fails is left at once.
    site.fail(&["fiber"], Fault::Carrier);
    stage.wait_slots("none fiber's", |slots| slots[0] == 0 && slots.iter().sum::<usize>() == 256);
    site.wait_settled();
}

/// Sends so many bits per second over fiber, until told to stop.
fn load(site: &Site, rate: f64, stop: &AtomicBool) {
    let to = site.server(3, 9);
    let from = site.stage.isp("fiber").unwrap().layout().customer(site.family);
    let send = || {
        let socket = std::net::UdpSocket::bind(std::net::SocketAddr::new(from, 0)).unwrap();
        let (begun, mut sent) = (Instant::now(), 0.0);
        while !stop.load(Ordering::Relaxed) && begun.elapsed() < 6 * PATIENCE {
            while sent < rate * begun.elapsed().as_secs_f64() {
                let _ = socket.send_to(&[0; 1200], to);
                sent += 1240.0 * 8.0;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    site.router().enter(send).unwrap();
}

fn new_sessions_spill_over_before_a_link_is_full(family: Family) {
    let mut stage = Stage::prepare(family);
    let keys = [
        "bandwidth: { down: 8M, up: 8M }",
        "bandwidth: { down: 8M, up: 8M }",
        "bandwidth: { down: 8M, up: 8M }",
    ];
    stage.site.run(&profile(&keys, "uplinks: [fiber, cable], balance: least-used"));
    stage.wait_slots("shared", |slots| slots[0] > 110 && slots[1] > 110 && slots[2] == 0);
    let site = &stage.site;
    let mut sessions = site.open_many(Protocol::Tcp, 0..20);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| load(site, 7.8e6, &stop));
        stage.wait_slots("all cable's", |slots| *slots == [0, 256, 0]);
        let later = site.open_many(Protocol::Tcp, 20..40);
        let ways: Vec<String> = later.iter().map(|session| site.uplink(session)).collect();
        let (from, to) = (site.host(1).to_string(), site.server(0, 80).ip().to_string());
        let said = site.homing(&["explain", "--from", &from, "--to", &to, "--port", "80"]).stdout;
        stop.store(true, Ordering::Relaxed);
        loading.join().unwrap();
        assert!(ways.iter().all(|way| way == "cable"), "{ways:?}");
        assert!(said.contains("free bandwidth decides"), "{said}");
    });
    stage.wait_slots("shared again", |slots| slots[0] > 110 && slots[1] > 110);
    site.assert_stay(&mut sessions, "new ones went elsewhere");
}

fn measured_slots_stay_over_a_restart(family: Family) {
    let mut stage = Stage::prepare(family);
    stage.delays([50, 20, 70]);
    let text = profile(&["weight: 5", "weight: 4", "weight: 1"], "balance: lowest-latency");
    stage.site.run(&text);
    stage.wait_slots("all cable's", |slots| *slots == [0, 256, 0]);
    stage.site.stop(nix::sys::signal::Signal::SIGKILL);
    // So seldom that nothing is measured before the end of this test.
    stage.site.write_profile(&text.replace("interval: 200ms", "interval: 30s"));
    stage.site.spawn();
    stage.site.wait_ready();
    assert_eq!(stage.slots(), [0, 256, 0], "right after the start");
    stage.site.reload(&text.replace("interval: 200ms", "interval: 20s"));
    assert_eq!(stage.slots(), [0, 256, 0], "after a reload");
}
