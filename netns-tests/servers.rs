//! Groups of servers: how they are checked and chosen, and how a site with many of them, or one that
//! changes under load, does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use homing::lab::{Protocol, Session};
use homing::model::Family;

use crate::harness::callers::{Scene, caller};
use crate::harness::farm::{self, Farm, QUICK};
use crate::harness::{PATIENCE, Resolver, Site, both, until};

both!(
    a_udp_service_that_only_pings_is_unchecked,
    a_udp_server_is_asked_and_must_answer_right,
    who_has_fewest_connections_gets_the_next,
    who_answers_soonest_gets_the_next,
    a_server_that_is_dead_from_the_start_gets_nobody_for_long,
    a_reload_under_load_loses_nobody,
    ten_thousand_services_are_one_look_up,
    sessions_and_bindings_are_listed_as_they_are,
    a_vpn_server_calls_back_by_its_client_s_uplink,
    removing_a_server_moves_nobody_else,
    a_server_that_was_left_and_goes_on_sending_keeps_no_client,
);

const PORT: &str = "port: 8080";
const SHOP: &str =
    "  shop: { virtual: [fiber, cable, lte], protocol: tcp, ports: [80, 443], group: web }\n";

fn start(family: Family, group: &str, servers: &[&str], services: &str) -> (Site, Farm) {
    let mut site = Site::prepare(family, |b| b);
    let farm = site.farm(servers.len());
    site.run(&farm::profile(family, group, servers, services));
    (site, farm)
}

fn call(site: &Site, protocol: Protocol, uplink: &str, port: u16, count: usize) -> Vec<Session> {
    let wanted = vec![(protocol, Some(site.client(1)), site.at(uplink, port)); count];
    let opened = site.outside().open_all(&wanted).into_iter();
    opened.map(|one| one.unwrap_or_else(|e| panic!("{protocol:?} by {uplink}: {e}"))).collect()
}

fn a_udp_service_that_only_pings_is_unchecked(family: Family) {
    let services = "  voice: { virtual: [fiber], protocol: udp, ports: [5060], group: web }\n";
    let group = "check: { interval: 200ms, timeout: 150ms, fall: 2 }";
    let (site, farm) = start(family, group, &[""], services);
    site.wait_server(0, "unchecked");
    assert_eq!(site.status()["groups"]["web"]["servers"]["a"]["usable"], true);
    call(&site, Protocol::Udp, "fiber", 5060, 1);
    farm.silence(&site, 0);
    site.wait_server(0, "down");
}

fn a_udp_server_is_asked_and_must_answer_right(family: Family) {
    let services = "  voice: { virtual: [fiber], protocol: udp, ports: [5060], group: web }\n";
    // The servers tell who asks, and never say this.
    for (expect, health) in [("10.2.0.1", "up"), ("nonsense", "down")] {
        let expect = if family == Family::V6 && health == "up" { "fd00:2::1" } else { expect };
        let group = format!(
            "check: {{ udp: {{ send: \"0x3f0a\", expect: \"{expect}\" }}, interval: 200ms, timeout: \
             150ms, fall: 2 }}"
        );
        let (site, _farm) = start(family, &group, &[""], services);
        site.wait_server(0, health);
    }
}

fn share(site: &Site, server: &str) -> f64 {
    site.status()["groups"]["web"]["servers"][server]["share"].as_f64().unwrap()
}

fn who_has_fewest_connections_gets_the_next(family: Family) {
    let group = format!("balance: least-connections\n    {QUICK}");
    let (site, farm) = start(family, &group, &[PORT; 2], SHOP);
    site.wait_server(1, "up");
    assert_eq!(site.homing(&["server", "web/b", "disable"]).code, Some(0));
    let mut held = call(&site, Protocol::Tcp, "fiber", 443, 60);
    assert_eq!(site.counts(&farm, &held), [60, 0]);
    assert_eq!(site.homing(&["server", "web/b", "enable"]).code, Some(0));
    until(2 * PATIENCE, || share(&site, "b"), |share| *share > 0.95).expect("b has fewer");
    let next = site.counts(&farm, &call(&site, Protocol::Tcp, "fiber", 443, 20));
    assert!(next[1] >= 18, "{next:?}");
    site.assert_stay(&mut held, "others have fewer");
}

fn a_server_that_is_dead_from_the_start_gets_nobody_for_long(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let farm = site.farm(3);
    farm.silence(&site, 1);
    site.run(&farm::profile(family, QUICK, &[PORT; 3], SHOP));
    site.wait_server(0, "up");
    site.wait_server(1, "down");
    let counts = site.counts(&farm, &call(&site, Protocol::Tcp, "fiber", 443, 10));
    assert_eq!(counts, [5, 0, 5]);
}

fn a_reload_under_load_loses_nobody(family: Family) {
    let services = "  shop: { virtual: [fiber, cable], protocol: tcp, ports: [443], group: web, \
                    persistence: ssl }\n";
    let more =
        format!("{services}  more: {{ virtual: [lte], protocol: tcp, ports: [80], group: web }}\n");
    let profile = |servers: usize, services: &str| {
        farm::profile(family, QUICK, &vec![PORT; servers], services)
    };
    let mut site = Site::prepare(family, |b| b);
    let farm = site.farm(4);
    site.run(&profile(3, services));
    site.wait_server(2, "up");
    let mut held = call(&site, Protocol::Tcp, "fiber", 443, 10);
    let bound = site.server_of(&farm, &held[0]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| {
            let mut calls = 0;
            while !done.load(Ordering::Relaxed) {
                let other =
                    site.outside().open(Protocol::Tcp, Some(site.client(0)), site.at("cable", 443));
                other.unwrap_or_else(|e| panic!("call {calls}: {e}"));
                calls += 1;
            }
            calls
        });
        for (servers, services) in [(4, services), (4, &more), (3, &more), (3, services)] {
            site.reload(&profile(servers, services));
        }
        done.store(true, Ordering::Relaxed);
        assert!(calling.join().unwrap() > 20);
    });
    site.assert_stay(&mut held, "reloads");
    let again = call(&site, Protocol::Tcp, "fiber", 443, 3);
    assert!(again.iter().all(|session| site.server_of(&farm, session) == bound), "still bound");
    site.assert_settled();
}

fn ten_thousand_services_are_one_look_up(family: Family) {
    let mut services = String::new();
    for number in 0..10_000 {
        let port = 20_000 + number;
        services += &format!(
            "  s{number}: {{ virtual: [fiber], protocol: tcp, ports: [{port}], group: web }}\n"
        );
    }
    let (site, farm) = start(family, QUICK, &[PORT; 4], &services);
    for index in 0..4 {
        site.wait_server(index, "up");
    }
    for port in [20_000, 24_321, 29_999] {
        assert_eq!(site.counts(&farm, &call(&site, Protocol::Tcp, "fiber", port, 4)), [1, 1, 1, 1]);
    }
    let listed = site.homing(&["services", "--json"]).json();
    assert_eq!(listed["services"].as_object().map(serde_json::Map::len), Some(10_000));
    farm.silence(&site, 2);
    site.wait_server(2, "down");
    let counts = site.counts(&farm, &call(&site, Protocol::Tcp, "fiber", 25_000, 6));
    assert!(counts[2] == 0 && counts.iter().sum::<usize>() == 6, "{counts:?}");
}

fn sessions_and_bindings_are_listed_as_they_are(family: Family) {
    let services = "  shop: { virtual: [fiber, cable], protocol: tcp, ports: [443], group: web, \
                    persistence: ssl }\n  open: { virtual: [lte], protocol: tcp, ports: [443], \
                    group: web }\n";
    let (site, farm) = start(family, QUICK, &[PORT; 2], services);
    site.wait_server(1, "up");
    let sessions = call(&site, Protocol::Tcp, "cable", 443, 2);
    let _others = call(&site, Protocol::Tcp, "lte", 443, 2);
    let client = site.client(1).to_string();
    let server = farm::name(site.server_of(&farm, &sessions[0])).to_string();
    let listed = site.homing(&["sessions", "--service", "shop", "--json"]).json();
    let listed = listed["sessions"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    for one in listed {
        assert_eq!(one["client"], client);
        assert_eq!(one["uplink"], "cable");
        assert_eq!(one["server"], format!("web/{server}"));
    }
    let by_uplink = site.homing(&["sessions", "--uplink", "lte", "--json"]).json();
    let of_open = |one: &serde_json::Value| one["service"] == "open";
    assert_eq!(by_uplink["sessions"].as_array().unwrap().iter().filter(|s| of_open(s)).count(), 2);
    let by_server = site.homing(&["sessions", "--server", &server, "--json"]).json();
    assert!(by_server["sessions"].as_array().unwrap().len() >= 2);
    let bindings = site.homing(&["bindings", "--service", "shop", "--client", &client, "--json"]);
    let bindings = bindings.json();
    let [binding] = bindings["bindings"].as_array().unwrap().as_slice() else {
        panic!("{bindings:#}");
    };
    assert_eq!((&binding["server"], &binding["at"]), (&server.as_str().into(), &"cable".into()));
    assert!(binding["left_s"].as_u64() > Some(7000), "{binding}");
    assert!(binding["why"].as_str().unwrap().contains("ssl"), "{binding}");
    let table = site.homing(&["status"]).stdout;
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(table.contains("shop") && table.contains("web/a"), "{table}");
}

fn a_vpn_server_calls_back_by_its_client_s_uplink(family: Family) {
    let services = "  office: { virtual: [cable], group: web, persistence: vpn }\n";
    let (site, farm) = start(family, "check: { interval: 500ms }", &["", ""], services);
    site.wait_server(0, "unchecked");
    site.wait_server(1, "unchecked");
    let exchange = call(&site, Protocol::Udp, "cable", 500, 1);
    let server = farm.addresses[site.server_of(&farm, &exchange[0])];
    let other = *farm.addresses.iter().find(|address| **address != server).unwrap();
    let client = std::net::SocketAddr::new(site.client(1), 53);
    let seen = |from: std::net::IpAddr| {
        let session =
            site.dmz().timeout(Duration::from_secs(3)).open(Protocol::Udp, Some(from), client);
        site.uplink(&session.unwrap())
    };
    let by: Vec<String> = (0..6).map(|_| seen(server)).collect();
    assert!(by.iter().all(|uplink| uplink == "cable"), "{by:?}");
    // Another server has nobody to call back, and goes by the policies.
    let by: Vec<String> = (0..6).map(|_| seen(other)).collect();
    assert!(by.iter().any(|uplink| uplink != "cable"), "{by:?}");
}

fn removing_a_server_moves_nobody_else(family: Family) {
    for (balance, persistence) in [("source-hash", "tcp"), ("round-robin", "ip")] {
        let group = format!("balance: {balance}\n    {QUICK}");
        let services = format!(
            "  shop: {{ virtual: [fiber], protocol: tcp, ports: [443], group: web, persistence: \
             {persistence} }}\n"
        );
        let (site, farm) = start(family, &group, &[PORT; 3], &services);
        for index in 0..3 {
            site.wait_server(index, "up");
        }
        let place = |client: usize| {
            let session = site.outside().open(
                Protocol::Tcp,
                Some(site.client(client)),
                site.at("fiber", 443),
            );
            site.server_of(&farm, &session.unwrap())
        };
        let before: Vec<usize> = (0..4).map(place).collect();
        assert_eq!(before, (0..4).map(place).collect::<Vec<_>>(), "{persistence}: always the same");
        farm.silence(&site, 1);
        site.wait_server(1, "down");
        for (client, was) in before.iter().enumerate() {
            let now = place(client);
            assert!(
                now == *was || *was == 1,
                "{persistence}: client {client} went from {was} to {now}"
            );
        }
        farm.speak(&site);
        site.wait_server(1, "up");
        assert_eq!(
            before,
            (0..4).map(place).collect::<Vec<_>>(),
            "{persistence}: back as they were"
        );
    }
}

fn a_server_that_was_left_and_goes_on_sending_keeps_no_client(family: Family) {
    let services = "  feed: { virtual: [fiber], protocol: udp, ports: [7000], group: web }\n";
    let scene = Scene::start(family, services);
    let site = &scene.site;
    let ports = 6000..6012;
    let before: Vec<usize> = ports.clone().map(|port| scene.send(0, port, "fiber", 7000)).collect();
    let (name, server) = (farm::name(before[0]), scene.farm.addresses[before[0]]);
    let sends = |client: usize, port: u16| {
        let to = SocketAddr::new(caller(family, client), port);
        site.dmz().send(SocketAddr::new(server, 7000), to).expect("send");
        to
    };
    let begins = |client: usize, port: u16| {
        let to = sends(client, port);
        let begun =
            || site.command("conntrack", &["-L", "-f", scene.word(), "-d", &to.ip().to_string()]);
        let of_port = format!("sport=7000 dport={port} ");
        until(PATIENCE, begun, |listed| listed.stdout.contains(&of_port))
            .expect("a session begins");
    };
    // It has begun sessions of its own, too.
    ports.clone().for_each(|port| begins(1, port));
    assert_eq!(site.homing(&["server", &format!("web/{name}"), "disable"]).code, Some(0));
    let left = || site.command("conntrack", &["-L", "-f", scene.word(), "-p", "udp"]).stdout;
    until(PATIENCE, left, |all| !all.contains(&server.to_string())).expect("its sessions leave");
    // What these begin may be gone before anybody looks.
    for port in ports.clone() {
        sends(0, port);
    }
    for port in ports {
        for client in [0, 1] {
            let now = scene.send(client, port, "fiber", 7000);
            assert_ne!(scene.farm.addresses[now], server, "client {client}, port {port}");
        }
    }
}

/// The checks ask the server's name service; clients want its shop.
fn who_answers_soonest_gets_the_next(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let addresses = site.add_servers(2);
    let dmz = site.stage.layout().dmz();
    let resolvers: Vec<Resolver> = addresses.iter().map(|a| Resolver::start(&dmz, *a)).collect();
    let farm = site.farm_of(addresses, &[]);
    let router = homing::lab::dmz_router(family);
    let delays = |delays: [u64; 2]| {
        for (resolver, delay) in resolvers.iter().zip(delays) {
            resolver.delay(router, Duration::from_millis(delay));
        }
    };
    // So long that what else the machine does makes no difference of a fifth.
    delays([100, 40]);
    let check = "check: { dns: { port: 53, query: example.net }, interval: 200ms, timeout: 150ms }";
    let group = format!("balance: fastest\n    {check}");
    site.run(&farm::profile(family, &group, &[PORT; 2], SHOP));
    let all_to = |server: &str, index: usize| {
        until(2 * PATIENCE, || share(&site, server), |share| *share > 0.99).expect("it is faster");
        let held = call(&site, Protocol::Tcp, "fiber", 443, 10);
        assert_eq!(site.counts(&farm, &held)[index], 10);
        held
    };
    let mut held = all_to("b", 1);
    // A little faster is not enough: it would go to and fro.
    delays([36, 40]);
    let rtt = || site.status()["groups"]["web"]["servers"]["a"]["rtt_ms"].as_f64();
    until(3 * PATIENCE, rtt, |rtt| rtt.is_some_and(|rtt| rtt < 44.0)).expect("a is faster");
    held.extend(all_to("b", 1));
    delays([40, 100]);
    held.extend(all_to("a", 0));
    site.assert_stay(&mut held, "whoever was with the other stays");
}
