//! The five modes of persistence: each part of a session that belongs to a mode's key, and each that
//! does not. How long bindings last is told in `bound.rs`.
//!
//! Servers take turns. So clients that nothing binds get another server each time; and where a second
//! look must be independent of the first, the clients come in another order: taking turns, upwards
//! or downwards, then cannot give the same answers by chance.

use std::ops::Range;

use homing::lab::Protocol::{Tcp, Udp};
use homing::model::Family;

use crate::harness::both;
use crate::harness::callers::{Scene, distinct};

both!(
    tcp_binds_nothing_but_the_session,
    ssl_binds_a_client_at_one_address_and_port,
    sticky_binds_a_client_at_one_address_and_group,
    vpn_binds_key_exchange_and_esp_at_one_address,
    ip_binds_every_protocol_at_one_address_without_a_table,
    a_masked_client_is_a_whole_network,
    ip_mode_masks_clients_too,
    ip_mode_finds_the_same_servers_after_the_loss_of_everything,
    esp_without_key_exchange_goes_where_a_hash_says,
    esp_that_came_first_follows_the_key_exchange,
);

const CALLERS: Range<usize> = 0..12;

/// A service at two addresses and two ports.
fn shop(persistence: &str) -> String {
    format!(
        "  shop: {{ virtual: [fiber, cable], protocol: [tcp, udp], ports: [80, 443], group: web, \
         persistence: {{ {persistence} }} }}\n"
    )
}

/// All of these clients, twice each, go where they went before.
fn assert_bound(scene: &Scene, before: &[usize], (protocol, uplink, port): Way) {
    for _ in 0..2 {
        let now = scene.servers_of(CALLERS, protocol, uplink, port);
        assert_eq!(now, before, "{protocol:?} to {uplink}:{port} has another key");
    }
}

/// These clients' servers there have nothing to do with those before.
fn assert_free(scene: &Scene, before: &[usize], (protocol, uplink, port): Way) -> Vec<usize> {
    let order: Vec<usize> = CALLERS.step_by(2).chain(CALLERS.skip(1).step_by(2)).collect();
    let servers = scene.servers_of(order.iter().copied(), protocol, uplink, port);
    let mut now = vec![0; order.len()];
    for (client, server) in order.into_iter().zip(servers) {
        now[client] = server;
    }
    assert_ne!(now, before, "{protocol:?} to {uplink}:{port} has the same key");
    assert_eq!(distinct(&now), 3, "{now:?}");
    now
}

type Way = (homing::lab::Protocol, &'static str, u16);

fn tcp_binds_nothing_but_the_session(family: Family) {
    let scene = Scene::start(family, &shop("mode: tcp"));
    let every_way =
        [Tcp, Udp].map(|protocol| ["fiber", "cable"].map(|uplink| (protocol, uplink, 443)));
    for (protocol, uplink, port) in every_way.into_iter().flatten() {
        let mut sessions = scene.open([0; 9], protocol, uplink, port);
        let servers = scene.servers(&sessions);
        for server in 0..3 {
            let count = servers.iter().filter(|one| **one == server).count();
            assert_eq!(count, 3, "of one client, {protocol:?} to {uplink}: {servers:?}");
        }
        scene.site.assert_stay(&mut sessions, "a while later");
        assert_eq!(scene.servers(&sessions), servers);
    }

    // One and the same session, told by client port, address and port.
    let ways = ["fiber", "cable"].map(|uplink| [(uplink, 80), (uplink, 443)]).concat();
    let datagrams = || -> Vec<usize> {
        let ports = [40_000, 40_001, 40_002].into_iter();
        let all = ports.flat_map(|from| ways.iter().map(move |way| (from, *way)));
        all.map(|(from, (uplink, port))| scene.send(1, from, uplink, port)).collect()
    };
    let first = datagrams();
    for server in 0..3 {
        assert_eq!(first.iter().filter(|one| **one == server).count(), 4, "{first:?}");
    }
    assert_eq!(datagrams(), first, "the same sessions again");
    assert!(scene.bindings().is_empty(), "there is no table");
}

fn ssl_binds_a_client_at_one_address_and_port(family: Family) {
    let scene = Scene::start(family, &shop("mode: ssl"));
    let first = scene.servers_of(CALLERS, Tcp, "fiber", 443);
    assert_eq!(distinct(&first), 3, "{first:?}");
    assert_bound(&scene, &first, (Tcp, "fiber", 443));
    assert_bound(&scene, &first, (Udp, "fiber", 443));
    for way in [(Tcp, "fiber", 80), (Udp, "cable", 443), (Tcp, "cable", 80)] {
        let there = assert_free(&scene, &first, way);
        assert_bound(&scene, &there, way);
    }
    assert_bound(&scene, &first, (Tcp, "fiber", 443));
    assert_eq!(scene.bindings().len(), 4 * CALLERS.len());
    scene.site.assert_settled();
}

fn sticky_binds_a_client_at_one_address_and_group(family: Family) {
    let services = shop("mode: sticky").replace("[80, 443]", "[80]")
        + "  voice: { virtual: [fiber, cable], protocol: udp, ports: [5060], group: web, \
           persistence: { mode: sticky } }\n  \
           admin: { virtual: [fiber], protocol: [tcp, udp], ports: [443], group: other, \
           persistence: { mode: sticky } }\n";
    let scene = Scene::start(family, &services);
    let first = scene.servers_of(CALLERS, Tcp, "fiber", 80);
    assert_eq!(distinct(&first), 3, "{first:?}");
    for way in [(Tcp, "fiber", 80), (Udp, "fiber", 80), (Udp, "fiber", 5060)] {
        assert_bound(&scene, &first, way);
    }
    let cable = assert_free(&scene, &first, (Udp, "cable", 5060));
    assert_bound(&scene, &cable, (Tcp, "cable", 80));
    let other = assert_free(&scene, &first, (Tcp, "fiber", 443));
    assert_bound(&scene, &other, (Udp, "fiber", 443));
    assert_bound(&scene, &first, (Tcp, "fiber", 80));
    scene.site.assert_settled();
}

const TUNNEL: &str = "  tunnel: { virtual: [fiber, cable], protocol: udp, group: web, \
                      persistence: { mode: vpn } }\n";

fn vpn_binds_key_exchange_and_esp_at_one_address(family: Family) {
    let scene = Scene::start(family, TUNNEL);
    let ears = scene.ears(50);
    let first = scene.servers_of(CALLERS, Udp, "fiber", 500);
    assert_eq!(distinct(&first), 3, "{first:?}");
    assert_bound(&scene, &first, (Udp, "fiber", 500));
    assert_bound(&scene, &first, (Udp, "fiber", 4500));
    let esp = |uplink| -> Vec<usize> {
        CALLERS.map(|client| ears.server_of(&scene, client, uplink)).collect()
    };
    assert_eq!(esp("fiber"), first, "ESP goes where its key exchange went");
    assert_eq!(scene.tracked(50, CALLERS, "fiber"), first, "as connection tracking has it");
    let cable = assert_free(&scene, &first, (Udp, "cable", 4500));
    assert_bound(&scene, &cable, (Udp, "cable", 500));
    // What has no ports can be translated for one address only between a client and a server.
    scene.forget_sessions();
    assert_eq!(esp("cable"), cable, "at the other address");
    scene.forget_sessions();
    assert_eq!(esp("fiber"), first, "and still at the first");
    scene.site.assert_settled();
}

fn esp_without_key_exchange_goes_where_a_hash_says(family: Family) {
    let scene = Scene::start(family, TUNNEL);
    let ears = scene.ears(50);
    let esp = |uplink| -> Vec<usize> {
        CALLERS.map(|client| ears.server_of(&scene, client, uplink)).collect()
    };
    let first = esp("fiber");
    assert!(distinct(&first) > 1, "{first:?}");
    for _ in 0..2 {
        scene.forget_sessions();
        assert_eq!(esp("fiber"), first, "the same again");
    }
    scene.forget_sessions();
    assert_ne!(esp("cable"), first, "the address is part of the key");
    assert!(scene.bindings().is_empty(), "ESP learns nothing");
}

/// After the loss of its sessions a tunnel goes on with ESP; then the client negotiates anew.
fn esp_that_came_first_follows_the_key_exchange(family: Family) {
    let services = TUNNEL.replace("mode: vpn", "mode: vpn, timeout: 3s");
    let scene = Scene::start(family, &services);
    let ears = scene.ears(50);
    let esp = || -> Vec<usize> {
        CALLERS.map(|client| ears.server_of(&scene, client, "fiber")).collect()
    };
    let by_hash = esp();
    let bound = scene.servers_of(CALLERS, Udp, "fiber", 500);
    assert_ne!(bound, by_hash);
    scene.until_equal(&bound, || {
        assert_bound(&scene, &bound, (Udp, "fiber", 500));
        esp()
    });
}

const EVERYTHING: &str = "  all: { virtual: [fiber, cable], protocol: any, group: web, \
                          persistence: { mode: ip } }\n";

fn ip_binds_every_protocol_at_one_address_without_a_table(family: Family) {
    let scene = Scene::start(family, EVERYTHING);
    let first = scene.servers_of(CALLERS, Tcp, "fiber", 443);
    assert_eq!(distinct(&first), 3, "{first:?}");
    for way in [(Tcp, "fiber", 443), (Tcp, "fiber", 80), (Udp, "fiber", 443), (Udp, "fiber", 53)] {
        assert_bound(&scene, &first, way);
    }
    for protocol in [50, 47, 132, 253] {
        let ears = scene.ears(protocol);
        for client in CALLERS {
            let server = ears.server_of(&scene, client, "fiber");
            assert_eq!(server, first[client], "protocol {protocol} of client {client}");
        }
    }
    for client in CALLERS {
        scene.ping(client, "fiber");
    }
    let echo = if family == Family::V4 { 1 } else { 58 };
    assert_eq!(scene.tracked(echo, CALLERS, "fiber"), first, "echo requests");
    let cable = assert_free(&scene, &first, (Tcp, "cable", 443));
    assert_bound(&scene, &cable, (Udp, "cable", 53));
    assert!(scene.bindings().is_empty(), "there is no table");
    scene.site.assert_settled();
}

fn ip_mode_finds_the_same_servers_after_the_loss_of_everything(family: Family) {
    let mut scene = Scene::start(family, EVERYTHING);
    let first = scene.servers_of(0..40, Tcp, "fiber", 443);
    assert_eq!(distinct(&first), 3, "{first:?}");
    scene.lose_everything();
    assert_eq!(scene.servers_of(0..40, Udp, "fiber", 53), first);
}

/// Three networks of 16 addresses each.
const MASKED: &str = "client-mask: 28, client-mask6: 124";

fn a_masked_client_is_a_whole_network(family: Family) {
    for (mode, protocol, port) in [("ssl", Tcp, 443), ("sticky", Tcp, 80), ("vpn", Udp, 500)] {
        let service = match mode {
            "vpn" => TUNNEL.replace("mode: vpn", &format!("mode: vpn, {MASKED}")),
            mode => shop(&format!("mode: {mode}, {MASKED}")),
        };
        let scene = Scene::start(family, &service);
        let clients: Vec<usize> = [0..16, 16..32, 32..48].into_iter().flatten().collect();
        let servers = scene.servers_of(clients, protocol, "fiber", port);
        let networks: Vec<_> = servers.chunks(16).map(<[usize]>::to_vec).collect();
        let heads: Vec<usize> = networks.iter().map(|network| network[0]).collect();
        assert_eq!(distinct(&heads), 3, "{mode}: {servers:?}");
        for network in networks {
            assert_eq!(distinct(&network), 1, "{mode}: {servers:?}");
        }
        assert_eq!(scene.bindings().len(), 3, "{mode}");
        if mode == "vpn" {
            let ears = scene.ears(50);
            for client in [15, 31, 47, 3, 19, 35] {
                let server = ears.server_of(&scene, client, "fiber");
                assert_eq!(server, heads[client / 16], "ESP of client {client}");
            }
        }
    }
}

fn ip_mode_masks_clients_too(family: Family) {
    let masked = "mode: ip, client-mask: 30, client-mask6: 126";
    let scene = Scene::start(family, &EVERYTHING.replace("mode: ip", masked));
    let servers = scene.servers_of(0..48, Tcp, "fiber", 443);
    let networks: Vec<usize> = servers.chunks(4).map(|network| network[0]).collect();
    assert!(distinct(&networks) > 1, "{servers:?}");
    for network in servers.chunks(4) {
        assert_eq!(distinct(network), 1, "{servers:?}");
    }
}
