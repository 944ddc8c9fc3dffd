//! How long services' bindings last: under live sessions, idle, over a crash and a reload; what is
//! told about them; and what happens when there are too many.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use homing::lab::Protocol::{Tcp, Udp};
use homing::model::Family;
use serde_json::Value;

use crate::harness::callers::{Scene, caller, distinct};
use crate::harness::{PATIENCE, both, farm, until};

both!(
    a_binding_outlives_its_timeout_under_a_long_session_and_ends_idle,
    esp_alone_keeps_the_binding_of_its_key_exchange,
    datagrams_in_tcp_mode_are_a_session_for_the_timeout,
    bindings_survive_a_kill_and_a_reload,
    a_binding_is_told_with_client_server_age_and_reason,
    a_full_map_serves_new_clients_without_persistence,
    a_server_that_leaves_is_forgotten_and_its_return_moves_nobody,
);

fn shop(persistence: &str) -> String {
    format!(
        "  shop: {{ virtual: [fiber], protocol: [tcp, udp], ports: [443], group: web, \
         persistence: {{ {persistence} }} }}\n"
    )
}

fn a_binding_outlives_its_timeout_under_a_long_session_and_ends_idle(family: Family) {
    let scene = Scene::start(family, &shop("mode: ssl, timeout: 3s"));
    let mut sessions = scene.open(0..6, Tcp, "fiber", 443);
    sessions.extend(scene.open(6..12, Udp, "fiber", 443));
    let first = scene.servers(&sessions);
    let begun = Instant::now();
    // Time must pass here: longer than twice the timeout.
    while begun.elapsed() < Duration::from_secs(7) {
        scene.site.assert_stay(&mut sessions, "under way");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(scene.servers_of(0..12, Tcp, "fiber", 443), first, "under live sessions");
    drop(sessions);
    let none = until(2 * PATIENCE, || scene.bindings(), Vec::is_empty);
    none.unwrap_or_else(|left| panic!("idle, and still bound: {left:?}"));
    let mut anew = scene.servers_of((0..12).rev(), Tcp, "fiber", 443);
    anew.reverse();
    let again = scene.servers_of([0, 2, 4, 6, 8, 10], Udp, "fiber", 443);
    let even: Vec<usize> = anew.iter().step_by(2).copied().collect();
    assert_eq!(again, even, "bound anew");
}

fn esp_alone_keeps_the_binding_of_its_key_exchange(family: Family) {
    let service = "  tunnel: { virtual: [fiber], protocol: udp, group: web, \
                   persistence: { mode: vpn, timeout: 3s } }\n";
    let scene = Scene::start(family, service);
    let ears = scene.ears(50);
    let first = scene.servers_of(0..6, Udp, "fiber", 500);
    assert_eq!(distinct(&first), 3, "{first:?}");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(7) {
        for (client, server) in first.iter().enumerate() {
            assert_eq!(ears.server_of(&scene, client, "fiber"), *server, "ESP of {client}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(scene.servers_of([1, 0, 3, 2, 5, 4], Udp, "fiber", 500), {
        [1, 0, 3, 2, 5, 4].map(|client: usize| first[client])
    });
    let none = until(2 * PATIENCE, || scene.bindings(), Vec::is_empty);
    none.unwrap_or_else(|left| panic!("idle, and still bound: {left:?}"));
}

fn datagrams_in_tcp_mode_are_a_session_for_the_timeout(family: Family) {
    let scene = Scene::start(family, &shop("mode: tcp, timeout: 3s"));
    let session = || scene.send(0, 40_000, "fiber", 443);
    let (first, begun) = (session(), Instant::now());
    while begun.elapsed() < Duration::from_secs(5) {
        assert_eq!(session(), first, "under way");
        std::thread::sleep(Duration::from_millis(300));
    }
    let (to, word) = (scene.site.at("fiber", 0).ip().to_string(), scene.word());
    let ask = ["-L", "-f", word, "-p", "udp", "-d", &to];
    let look = || scene.site.command("conntrack", &ask).stdout;
    let line = look();
    let left = line.split_whitespace().nth(2).and_then(|text| text.parse::<u64>().ok());
    // Of what a flowtable carries the kernel tells no time.
    assert!(line.contains("[OFFLOAD]") || left.is_some_and(|left| left <= 3), "{line}");
    until(PATIENCE, look, String::is_empty).unwrap_or_else(|last| panic!("idle: {last}"));
    assert_ne!(session(), first, "it is the next server's turn");
}

fn bindings_survive_a_kill_and_a_reload(family: Family) {
    let mut scene = Scene::start(family, &shop("mode: ssl"));
    let first = scene.servers_of(0..12, Tcp, "fiber", 443);
    assert_eq!(distinct(&first), 3, "{first:?}");
    scene.kill_and_start();
    // In another order, or servers that take turns might do the same again.
    let odd_first: Vec<usize> = (0..12).map(|i| (i * 5 + 7) % 12).collect();
    let wanted: Vec<usize> = odd_first.iter().map(|client| first[*client]).collect();
    let look = |scene: &Scene| scene.servers_of(odd_first.iter().copied(), Udp, "fiber", 443);
    assert_eq!(look(&scene), wanted, "after a kill and a start");
    scene.reload_with(
        "  more: { virtual: [cable], protocol: tcp, ports: [80], group: web, \
         persistence: { mode: sticky } }\n",
    );
    assert_eq!(look(&scene), wanted, "after a reload");
    assert_eq!(scene.bindings().len(), 12);
    scene.site.assert_settled();
}

fn a_binding_is_told_with_client_server_age_and_reason(family: Family) {
    let scene = Scene::start(family, &shop("mode: ssl, timeout: 1h"));
    let first = scene.servers_of(0..3, Tcp, "fiber", 443);
    for (client, server) in first.iter().enumerate() {
        let client = caller(family, client).to_string();
        let server = farm::name(*server).to_string();
        let ask = ["bindings", "--json", "--service", "shop", "--client", &client];
        let look = || scene.site.homing(&ask).json();
        let told = |answer: &Value| {
            answer["bindings"].as_array().is_some_and(|b| b.len() == 1 && !b[0]["age_s"].is_null())
        };
        let answer = until(2 * PATIENCE, look, told);
        let answer = answer.unwrap_or_else(|last| panic!("bindings of {client}: {last}"));
        let binding = &answer["bindings"][0];
        assert_eq!(binding["client"], *client, "{binding}");
        assert_eq!(binding["server"], *server, "{binding}");
        assert_eq!(binding["services"][0], "shop", "{binding}");
        assert_eq!(binding["at"], "fiber", "{binding}");
        assert_eq!(binding["port"], "443", "{binding}");
        assert!(binding["age_s"].as_u64().is_some_and(|age| age < 60), "{binding}");
        let left = binding["left_s"].as_u64();
        assert!(left.is_some_and(|left| (3500..=3600).contains(&left)), "{binding}");
        let why = binding["why"].as_str().unwrap_or_default();
        assert!(why.contains("mode ssl") && why.contains("443"), "{binding}");
        let table = scene.site.homing(&["bindings", "--service", "shop"]).stdout;
        let line = table.lines().find(|line| line.contains(&format!("{client} ")));
        assert!(line.is_some_and(|line| line.contains(&server)), "{client}: {table}");
    }
}

fn a_full_map_serves_new_clients_without_persistence(family: Family) {
    let scene = Scene::start(family, &shop("mode: ssl"));
    let first = scene.servers_of(0..3, Tcp, "fiber", 443);
    assert_eq!(distinct(&first), 3, "{first:?}");
    let map = scene.maps().remove(0);
    let (name, size) = (map["name"].as_str().unwrap(), map["size"].as_u64().unwrap());
    let mark = map["elem"][0][1].as_u64().unwrap_or_else(|| panic!("no mark in {map}"));
    let mut script = String::new();
    for number in 0..size - 3 {
        let key = match family {
            Family::V4 => format!("10.9.{}.{}", number >> 8, number & 0xff),
            Family::V6 => format!("fd09::{number:x}"),
        };
        let start = format!("add element inet homing {name} {{");
        writeln!(script, "{start} {key} timeout 1h : {mark} }}").unwrap();
    }
    scene.site.router().nft(&script).expect("fill the map");

    let reason = || scene.site.status()["services"]["shop"]["reason"].clone();
    let told = |reason: &Value| reason.as_str().is_some_and(|text| text.contains("is full"));
    until(3 * PATIENCE, reason, told).unwrap_or_else(|last| panic!("told instead: {last}"));
    for _ in 0..2 {
        assert_eq!(scene.servers_of(0..3, Tcp, "fiber", 443), first, "bound before");
    }
    for client in 3..6 {
        let servers = scene.servers_of([client; 6], Tcp, "fiber", 443);
        assert_eq!(distinct(&servers), 3, "unbound: {servers:?}");
    }

    let flush = format!("flush map inet homing {name}\n");
    scene.site.router().nft(&flush).expect("empty the map");
    until(3 * PATIENCE, reason, |reason| reason == "")
        .unwrap_or_else(|last| panic!("told of a map that is not full: {last}"));
    let servers = scene.servers_of([3; 6], Tcp, "fiber", 443);
    assert_eq!(distinct(&servers), 1, "bound again: {servers:?}");
}

/// How many clients are bound to each server.
fn bound_to(scene: &Scene) -> [usize; 3] {
    let shown = scene.site.homing(&["bindings", "--json"]).json();
    let shown = shown["bindings"].as_array().cloned().unwrap_or_default();
    [0, 1, 2].map(|server| {
        let name = farm::name(server).to_string();
        shown.iter().filter(|binding| binding["server"] == name).count()
    })
}

fn a_server_that_leaves_is_forgotten_and_its_return_moves_nobody(family: Family) {
    let scene = Scene::start(family, &shop("mode: ssl"));
    let disable = |what| assert_eq!(scene.site.homing(&["server", "web/b", what]).code, Some(0));
    let mut servers = scene.servers_of(0..12, Tcp, "fiber", 443);
    for by_order in [true, false] {
        let before = [0, 1, 2].map(|server| servers.iter().filter(|one| **one == server).count());
        assert!(before[1] >= 1, "{servers:?}");
        assert_eq!(bound_to(&scene), before);
        if by_order {
            disable("disable");
        } else {
            scene.farm.silence(&scene.site, 1);
            scene.site.wait_server(1, "down");
        }
        let forgotten = [before[0], 0, before[2]];
        until(PATIENCE, || bound_to(&scene), |bound| *bound == forgotten)
            .unwrap_or_else(|last| panic!("{before:?} became {last:?}, not {forgotten:?}"));
        assert_eq!(scene.bindings().len(), before[0] + before[2], "as the kernel has it");
        let moved = scene.servers_of(0..servers.len(), Tcp, "fiber", 443);
        for (was, is) in servers.iter().zip(&moved) {
            assert!(*is != 1 && (was == is || *was == 1), "{servers:?} became {moved:?}");
        }
        if by_order {
            disable("enable");
        } else {
            scene.farm.speak(&scene.site);
        }
        scene.site.wait_server(1, "up");
        assert_eq!(scene.servers_of(0..servers.len(), Udp, "fiber", 443), moved, "it is back");
        // New ones come to it, for the second turn.
        servers = moved;
        if by_order {
            let new = scene.servers_of(12..24, Tcp, "fiber", 443);
            servers.extend(new);
        }
    }
}
