//! Uplinks with several addresses of a family: each is a virtual address of its own.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use homing::lab::{
    self,
    Protocol::{Tcp, Udp},
};
use homing::model::Family;
use ipnet::IpNet;
use serde_json::Value;

use crate::harness::callers::{Scene, distinct};
use crate::harness::{PATIENCE, both, until};

both!(
    clients_are_bound_at_each_address_of_an_uplink,
    esp_follows_the_key_exchange_at_its_address,
    a_vpn_server_calls_back_from_the_address_that_its_client_knows,
    an_address_comes_and_goes_and_others_clients_stay,
    the_kernel_keeps_which_address_is_which,
    clients_stay_bound_when_their_uplink_is_renumbered,
);

const CALLERS: Range<usize> = 0..12;

/// Servers that take turns then give other answers.
fn another_order() -> impl Iterator<Item = usize> {
    CALLERS.step_by(2).chain(CALLERS.skip(1).step_by(2))
}

/// More addresses of fiber, higher than that which it has.
fn more(family: Family) -> [&'static str; 2] {
    match family {
        Family::V4 => ["198.51.101.77", "198.51.101.78"],
        Family::V6 => ["2001:db8:1::77", "2001:db8:1::78"],
    }
}

fn address(scene: &Scene, what: &str, address: &str) {
    let suffix = if scene.site.family == Family::V4 { "/24" } else { "/64 nodad" };
    let line = format!("address {what} {address}{suffix} dev wan0");
    scene.site.router().ip(&[line]).unwrap();
}

/// With one more address on fiber.
fn start(family: Family, services: &str) -> Scene {
    let mut scene = Scene::start(family, services);
    let internet = scene.site.stage.layout().internet();
    let way = internet.ip_json(&["route", "get", &scene.site.at("fiber", 0).ip().to_string()]);
    let way = way.unwrap()[0].clone();
    let (gateway, device) = (way["gateway"].as_str().unwrap(), way["dev"].as_str().unwrap());
    for one in more(family).into_iter().chain(lower(family)) {
        let net = IpNet::from(one.parse::<IpAddr>().unwrap());
        internet.ip(&[format!("route add {net} via {gateway} dev {device}")]).unwrap();
        scene.site.stage.allow_source("fiber", net);
    }
    add(&scene, more(family)[0]);
    scene
}

fn add(scene: &Scene, one: &str) {
    address(scene, "add", one);
    wait_reached(scene, one, true);
}

fn remove(scene: &Scene, one: &str) {
    address(scene, "del", one);
    wait_reached(scene, one, false);
}

fn wait_reached(scene: &Scene, one: &str, reached: bool) {
    scene.site.wait_status(&format!("services are reached at {one}: {reached}"), |status| {
        let services = status["services"].as_object().unwrap();
        let here = |service: &Value| {
            service["virtual"].as_array().unwrap().iter().any(|address| address == one)
        };
        !services.is_empty() && services.values().all(|service| here(service) == reached)
    });
    scene.site.wait_settled();
}

fn clients_are_bound_at_each_address_of_an_uplink(family: Family) {
    let [there, _] = more(family);
    for mode in ["ssl", "sticky"] {
        let scene = start(
            family,
            &format!(
                "  shop: {{ virtual: [fiber], protocol: [tcp, udp], ports: [80, 443], group: web, \
                 persistence: {mode} }}\n"
            ),
        );
        let first = scene.servers_of(CALLERS, Tcp, "fiber", 443);
        assert_eq!(distinct(&first), 3, "{first:?}");
        scene.servers_of(another_order(), Tcp, there, 443);
        let second = scene.servers_of(CALLERS, Udp, there, 443);
        assert_eq!(distinct(&second), 3, "{second:?}");
        assert_ne!(first, second, "mode {mode}: the addresses have one key");
        assert_eq!(scene.servers_of(CALLERS, Udp, "fiber", 443), first, "mode {mode}");
        assert_eq!(scene.servers_of(CALLERS, Tcp, there, 443), second, "mode {mode}");
        assert_eq!(scene.bindings().len(), 2 * CALLERS.len(), "mode {mode}");
        let shown = scene.site.homing(&["bindings", "--json"]).json();
        let shown = shown["bindings"].as_array().unwrap();
        for at in ["fiber".to_owned(), format!("{there} on fiber")] {
            let count = shown.iter().filter(|binding| binding["at"] == *at).count();
            assert_eq!(count, CALLERS.len(), "mode {mode}, at {at}: {shown:?}");
        }
    }
}

const TUNNEL: &str =
    "  tunnel: { virtual: [fiber], protocol: udp, group: web, persistence: vpn }\n";

fn esp_follows_the_key_exchange_at_its_address(family: Family) {
    let scene = start(family, TUNNEL);
    let [there, _] = more(family);
    let ears = scene.ears(50);
    let esp = |at| -> Vec<usize> {
        scene.forget_sessions();
        CALLERS.map(|client| ears.server_of(&scene, client, at)).collect()
    };
    let first = scene.servers_of(CALLERS, Udp, "fiber", 500);
    scene.servers_of(another_order(), Udp, there, 500);
    let second = scene.servers_of(CALLERS, Udp, there, 4500);
    assert_ne!(first, second, "the addresses have one key");
    assert_eq!(esp("fiber"), first);
    assert_eq!(esp(there), second);
}

fn a_vpn_server_calls_back_from_the_address_that_its_client_knows(family: Family) {
    let [there, named] = more(family);
    // Also where a service names an address of the uplink beside the uplink's own.
    for (virtuals, more) in [
        ("fiber".to_owned(), vec![there]),
        (format!("{{ address: \"{named}\", on: fiber }}, fiber"), vec![there, named]),
    ] {
        let scene = start(family, &TUNNEL.replace("[fiber]", &format!("[{virtuals}]")));
        let places = [vec!["fiber"], more].concat();
        // Not the uplink's own, though it is lower.
        add(&scene, lower(family)[0]);
        for (client, place) in places.iter().enumerate() {
            let at = scene.site.at(place, 500);
            let client = scene.site.client(client);
            let session = scene.site.outside().open(Udp, Some(client), at).unwrap();
            let server = scene.farm.addresses[scene.site.server_of(&scene.farm, &session)];
            for (protocol, port) in [(Udp, 53), (Tcp, 80)] {
                let to = SocketAddr::new(client, port);
                let back = scene.site.dmz().open(protocol, Some(server), to).unwrap();
                assert_eq!(back.seen.ip(), at.ip(), "{virtuals}: to the client at {place}");
            }
        }
        scene.site.assert_settled();
    }
}

const SHOP: &str =
    "  shop: { virtual: [fiber], protocol: tcp, ports: [443], group: web, persistence: ssl }\n";

/// Clients that are bound to other servers at each of two addresses.
fn bind_apart(scene: &Scene, places: [&str; 2]) -> [Vec<usize>; 2] {
    let first = scene.servers_of(CALLERS, Tcp, places[0], 443);
    scene.servers_of(another_order(), Tcp, places[1], 443);
    let second = scene.servers_of(CALLERS, Tcp, places[1], 443);
    assert_ne!(first, second);
    [first, second]
}

fn assert_bound(scene: &Scene, place: &str, servers: &[usize], when: &str) {
    assert_eq!(scene.servers_of(CALLERS, Tcp, place, 443), servers, "at {place}: {when}");
}

fn an_address_comes_and_goes_and_others_clients_stay(family: Family) {
    let scene = start(family, SHOP);
    let [there, another] = more(family);
    let own = scene.site.at("fiber", 0).ip().to_string();
    let [first, second] = bind_apart(&scene, [&own, there]);
    let both = |when: &str| {
        assert_bound(&scene, &own, &first, when);
        assert_bound(&scene, there, &second, when);
    };
    add(&scene, another);
    both("one more came");
    remove(&scene, another);
    both("it went");
    // Lower ones, of which one would have been the uplink's own.
    for lower in lower(family) {
        add(&scene, lower);
        both("a lower one came");
        remove(&scene, lower);
    }
    // The uplink's own goes for a while. (Of IPv4 the others of its network would go with it.)
    scene.site.router().sysctl(&[("ipv4/conf/wan0/promote_secondaries", "1")]).unwrap();
    remove(&scene, &own);
    assert_bound(&scene, there, &second, "the uplink's own went");
    add(&scene, &own);
    both("the uplink's own is back");
    scene.site.wait_settled();
}

/// Addresses of fiber that are lower than its own; of IPv4 in other networks, as none is secondary then.
fn lower(family: Family) -> [&'static str; 2] {
    match family {
        Family::V4 => ["192.0.2.9", "10.77.0.9"],
        Family::V6 => ["2001:db8:1::1", "fd77::9"],
    }
}

fn the_kernel_keeps_which_address_is_which(family: Family) {
    let mut scene = start(family, SHOP);
    let there = more(family)[0];
    let own = scene.site.at("fiber", 0).ip().to_string();
    let [first, second] = bind_apart(&scene, [&own, there]);
    // That would be the uplink's own for who does not know better.
    add(&scene, lower(family)[0]);
    scene.kill_and_start();
    scene.wait_up();
    assert_bound(&scene, &own, &first, "after a kill and a start");
    assert_bound(&scene, there, &second, "after a kill and a start");
    let shown = || scene.site.homing(&["bindings", "--json"]).json();
    let all = |shown: &Value| shown["bindings"].as_array().map(Vec::len) == Some(2 * CALLERS.len());
    until(PATIENCE, shown, all).unwrap();
    let router = scene.site.router();
    router.nft("flush ruleset\n").unwrap();
    let back = format!("{} bindings were put back", 2 * CALLERS.len());
    until(PATIENCE, || scene.site.log(), |log| log.contains(&back)).unwrap();
    assert_bound(&scene, &own, &first, "after a foreign flush");
    assert_bound(&scene, there, &second, "after a foreign flush");
    scene.site.wait_settled();
}

fn clients_stay_bound_when_their_uplink_is_renumbered(family: Family) {
    let mut scene = Scene::start(family, SHOP);
    let first = scene.servers_of(CALLERS, Tcp, "fiber", 443);
    let change = |isp: &mut lab::IspLayout| {
        isp.gateway4 = [192, 0, 2, 65].into();
        isp.customer4 = lab::net4([192, 0, 2, 66], 26);
        isp.gateway6 = [0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, 1].into();
        isp.customer6 = lab::net_of6([0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, 2].into(), 64);
    };
    scene.site.stage.renumber("fiber", change).unwrap();
    wait_reached(&scene, &scene.site.at("fiber", 0).ip().to_string(), true);
    let servers = scene.servers_of(another_order(), Tcp, "fiber", 443);
    let expected: Vec<usize> = another_order().map(|client| first[client]).collect();
    assert_eq!(servers, expected, "at the new address");
    scene.site.assert_settled();
}
