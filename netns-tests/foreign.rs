//! What belongs to others is left alone.

use homing::lab::Protocol;
use homing::model::Family;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Site, both, one_policy, profile};

both!(
    foreign_rules_routes_and_tables_stay,
    foreign_bits_of_the_marks_are_kept,
    what_is_repaired_is_only_ours,
    a_vpn_s_routes_come_first,
);

const TABLE: &str = "table inet theirs {
    counter kept { }
    counter lost { }
    chain early {
        type filter hook prerouting priority -160
        iifname \"lan0\" meta mark set meta mark | 0x00050000
        iifname \"lan0\" ct mark set ct mark | 0x00a00000
    }
    chain through {
        type filter hook forward priority 50
        iifname \"lan0\" meta mark & 0x00ff0000 == 0x00050000 counter name kept
        iifname \"lan0\" meta mark & 0x00ff0000 != 0x00050000 counter name lost
    }
}
";

const LINES: [&str; 6] = [
    "rule add pref 500 fwmark 0x50000/0xff0000 lookup 77",
    "rule add pref 20000 from 192.0.2.77 lookup 77",
    "route add throw default table 77",
    "route add 192.0.2.0/25 dev dmz0 table 77",
    "route add blackhole 192.0.2.200 proto static",
    "route add throw ::/0 table 77",
];

fn install(site: &Site) {
    site.router().nft(TABLE).unwrap();
    site.router().ip(&LINES.map(str::to_owned)).unwrap();
}

/// Everything there is that is not ours, as the tools show it; counters apart.
fn theirs(site: &Site) -> Vec<Value> {
    let router = site.router();
    let mut all = Vec::new();
    let rules = router.ip_json(&["rule"]).unwrap();
    let listed = rules.as_array().cloned().unwrap_or_default();
    all.extend(listed.into_iter().filter(|rule| {
        let priority = rule["priority"].as_u64().unwrap_or_default();
        [0, 500, 20000, 32766, 32767].contains(&priority)
    }));
    all.push(router.ip_json(&["route", "show", "table", "77"]).unwrap());
    all.push(
        router
            .ip_json(&["-6", "route", "show", "table", "77"])
            .unwrap(),
    );
    all.push(
        router
            .ip_json(&["route", "show", "proto", "static"])
            .unwrap(),
    );
    all.push(
        router
            .nft_json(&["list", "chain", "inet", "theirs", "early"])
            .unwrap(),
    );
    all.push(
        router
            .nft_json(&["list", "chain", "inet", "theirs", "through"])
            .unwrap(),
    );
    all
}

fn foreign_rules_routes_and_tables_stay(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    install(&site);
    let before = theirs(&site);
    site.run(&profile(""));
    assert_eq!(theirs(&site), before, "after run");
    site.reload(&one_policy("uplinks: [cable]"));
    assert_eq!(theirs(&site), before, "after a reload");
    site.stop(Signal::SIGTERM);
    assert_eq!(site.homing(&["down"]).code, Some(0));
    assert_eq!(theirs(&site), before, "after down");
}

fn counter(site: &Site, name: &str) -> u64 {
    let listing = site
        .router()
        .nft_json(&["list", "counters", "table", "inet", "theirs"])
        .unwrap();
    let objects = listing["nftables"].as_array().cloned().unwrap_or_default();
    let found = objects
        .iter()
        .find(|object| object["counter"]["name"] == name);
    found
        .and_then(|object| object["counter"]["packets"].as_u64())
        .expect("a counter")
}

fn foreign_bits_of_the_marks_are_kept(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    install(&site);
    site.run(&one_policy("balance: round-robin"));
    let mut sessions = site.open_many(Protocol::Tcp, 0..30);
    sessions.extend(site.open_many(Protocol::Udp, 30..60));
    let shares = site.shares(&sessions);
    assert!(shares.values().all(|share| *share > 25.0), "{shares:?}");
    site.assert_stay(&mut sessions, "with foreign bits in the mark");
    assert_eq!(counter(&site, "lost"), 0, "packets that lost a foreign bit");
    assert!(counter(&site, "kept") > 100);
    let listing = site
        .command("conntrack", &["-L", "-f", ip(family)], &[])
        .stdout;
    let marks: Vec<u32> = listing
        .lines()
        .filter(|line| line.contains("dport=80"))
        .filter_map(|line| line.split("mark=").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    assert!(marks.len() >= 60, "{listing}");
    let right = |mark: &u32| mark & 0x00f0_0000 == 0x00a0_0000 && mark & 0x3f00 != 0;
    assert!(marks.iter().all(right), "{marks:x?}");
}

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Somebody removes one of our rules: it comes back, and what is theirs stays.
fn what_is_repaired_is_only_ours(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    install(&site);
    site.run(&profile(""));
    let before = theirs(&site);
    let option = if family == Family::V4 { "-4" } else { "-6" };
    let rules = || site.router().ip_json(&[option, "rule"]).unwrap();
    let all = rules();
    let own = all
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|rule| rule["priority"].as_u64());
    let own: Vec<u64> = own.filter(|p| (10_000..20_000).contains(p)).collect();
    assert!(own.len() > 3, "{all}");
    for priority in [own[0], own[1], own[own.len() - 1]] {
        let outcome = site.command(
            "ip",
            &[option, "rule", "del", "pref", &priority.to_string()],
            &[],
        );
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }
    crate::harness::until(crate::harness::PATIENCE, rules, |now| *now == all).expect("repaired");
    site.router().nft("delete table inet homing\n").unwrap();
    site.wait_status("the table is back", |_| {
        site.router()
            .nft_json(&["list", "table", "inet", "homing"])
            .is_ok()
    });
    crate::harness::until(
        crate::harness::PATIENCE,
        || site.homing(&["plan", &site.path("site.yaml")]).stdout,
        |plan| plan == "# nothing to change\n",
    )
    .expect("settled");
    assert_eq!(theirs(&site), before);
    assert_eq!(site.open_many(Protocol::Tcp, 0..20).len(), 20);
}

/// A network that somebody routes elsewhere (here into the DMZ) is no business of the uplinks'.
fn a_vpn_s_routes_come_first(family: Family) {
    let site = Site::start(family, &profile(""));
    let target = homing::lab::server(family, 1);
    let net = ipnet::IpNet::from(target);
    let gateway = homing::lab::dmz_server(family);
    let dmz = site.stage.layout().dmz();
    let nodad = if family == Family::V6 { " nodad" } else { "" };
    dmz.ip(&[format!("addr add {net} dev lo{nodad}")]).unwrap();
    let _servers = homing::lab::Servers::start(&dmz, &[target], &[80], &[53]).unwrap();
    site.router()
        .ip(&[format!("route add {net} via {gateway} dev dmz0")])
        .unwrap();
    let source = site.host(4);
    let session = site.open(Protocol::Tcp, 4, site.server(1, 80));
    assert_eq!(session.seen.ip(), source, "never translated");
    site.assert_settled();
}
