//! What may enter from the uplinks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use homing::lab::{self, Client, Protocol, Servers};
use homing::model::Family;

use crate::harness::{Site, both, profile};

both!(
    nobody_enters_a_lan_from_an_uplink,
    a_lan_source_from_an_uplink_dies,
    input_is_open_unless_closed,
    closed_input_lets_in_replies_pings_and_what_is_allowed,
    segments_are_clamped_to_the_line,
);

const SHORT: Duration = Duration::from_millis(300);

/// The ISP itself tries, with routes to our inside.
fn intruder(site: &Site, isp: &str) -> Client {
    let isp = site.stage.isp(isp).unwrap();
    let lines: Vec<String> = match site.family {
        Family::V4 => ["10.1.0.0/16", "10.2.0.0/24"],
        Family::V6 => ["fd00:1::/64", "fd00:2::/64"],
    }
    .iter()
    .map(|net| format!("route add {net} via {}", isp.layout().customer(site.family)))
    .collect();
    isp.space().ip(&lines).unwrap();
    Client::new(isp.space()).timeout(SHORT)
}

fn nobody_enters_a_lan_from_an_uplink(family: Family) {
    let site = Site::start(family, &profile(""));
    let dmz = lab::dmz_server(family);
    let inside = [
        (site.stage.layout().lan(), site.host(0)),
        (site.stage.layout().dmz(), dmz),
    ];
    let servers = inside.map(|(space, address)| {
        (
            Servers::start(&space, &[address], &[80], &[53]).unwrap(),
            address,
        )
    });
    for isp in ["fiber", "cable", "lte"] {
        let client = intruder(&site, isp);
        for (_, address) in &servers {
            let to = |port| SocketAddr::new(*address, port);
            assert!(
                client.open(Protocol::Tcp, None, to(80)).is_err(),
                "tcp from {isp}"
            );
            assert!(
                client.open(Protocol::Udp, None, to(53)).is_err(),
                "udp from {isp}"
            );
            assert!(client.ping(None, *address).is_err(), "ping from {isp}");
        }
    }
    for (servers, address) in &servers {
        assert!(servers.sources().is_empty(), "{address} was reached");
    }
    // From one LAN into the other is no concern of the firewall's.
    let to = SocketAddr::new(dmz, 80);
    site.lan()
        .open(Protocol::Tcp, Some(site.host(1)), to)
        .expect("LAN to DMZ");
}

fn a_lan_source_from_an_uplink_dies(family: Family) {
    let site = Site::start(family, &profile("firewall: { forward: open }\n"));
    let own = site.stage.isp("cable").unwrap().layout().customer(family);
    let listening = Servers::start(&site.router(), &[own], &[], &[5060]).unwrap();
    let behind = Servers::start(&site.stage.layout().lan(), &[site.host(0)], &[], &[53]).unwrap();
    let client = intruder(&site, "cable");
    let spoofed = site.host(40);
    let space = site.stage.layout().place("cable").unwrap();
    let nodad = if family == Family::V6 { " nodad" } else { "" };
    let host = ipnet::IpNet::from(spoofed);
    space
        .ip(&[format!("addr add {host} dev lo{nodad}")])
        .unwrap();
    let gateway = site.stage.isp("cable").unwrap().layout().gateway(family);
    for source in [spoofed, gateway] {
        let from = SocketAddr::new(source, 0);
        client.send(from, SocketAddr::new(own, 5060)).unwrap();
        client
            .send(from, SocketAddr::new(site.host(0), 53))
            .unwrap();
    }
    let seen = |servers: &Servers| servers.sources().into_keys().collect::<Vec<IpAddr>>();
    // The honest one was sent last: once it is there, the other one would be as well.
    crate::harness::until(
        Duration::from_secs(5),
        || seen(&listening),
        |s| s.contains(&gateway),
    )
    .expect("the gateway's datagram arrives");
    crate::harness::until(
        Duration::from_secs(5),
        || seen(&behind),
        |s| s.contains(&gateway),
    )
    .expect("the gateway's datagram arrives behind an open firewall");
    assert_eq!(seen(&listening), [gateway]);
    assert_eq!(seen(&behind), [gateway]);
    // The host behind answers the ISP itself, which is never translated.
    let mut site = site;
    site.stage.allow_source("cable", site.host(0).into());
}

fn own_server(site: &Site) -> (Servers, IpAddr) {
    let own = site
        .stage
        .isp("cable")
        .unwrap()
        .layout()
        .customer(site.family);
    (
        Servers::start(&site.router(), &[own], &[22, 8080], &[5060]).unwrap(),
        own,
    )
}

fn input_is_open_unless_closed(family: Family) {
    let site = Site::start(family, &profile(""));
    let (_servers, own) = own_server(&site);
    let caller = Some(site.server(1, 0).ip());
    for port in [22, 8080] {
        let session = site
            .outside()
            .open(Protocol::Tcp, caller, SocketAddr::new(own, port));
        session.unwrap_or_else(|error| panic!("port {port}: {error}"));
    }
}

fn closed_input_lets_in_replies_pings_and_what_is_allowed(family: Family) {
    let firewall = "firewall:\n  input: closed\n  allow: [{ in: cable, to: router, protocol: tcp, ports: [8080] }]\n";
    let site = Site::start(family, &profile(firewall));
    let (_servers, own) = own_server(&site);
    let caller = Some(site.server(1, 0).ip());
    let outside = site.outside().timeout(SHORT);
    let to = |port| SocketAddr::new(own, port);
    outside
        .open(Protocol::Tcp, caller, to(8080))
        .expect("allowed");
    assert!(
        outside.open(Protocol::Tcp, caller, to(22)).is_err(),
        "closed"
    );
    assert!(
        outside.open(Protocol::Udp, caller, to(5060)).is_err(),
        "closed"
    );
    outside.ping(caller, own).expect("pings are answered");
    site.own()
        .open(Protocol::Tcp, None, site.server(0, 80))
        .expect("replies come in");
    let lan = SocketAddr::new(own, 22);
    site.lan()
        .open(Protocol::Tcp, Some(site.host(0)), lan)
        .expect("from inside all is open");
    site.assert_settled();
}

fn segments_are_clamped_to_the_line(family: Family) {
    let site = Site::start_on(
        family,
        &profile("policies:\n  - { name: default, uplinks: [cable] }\n"),
        |b| b.isp("cable", |isp| isp.mtu = 1400),
    );
    assert_eq!(site.way_of(0), "cable");
    let sizes = site
        .stage
        .isp("cable")
        .unwrap()
        .segment_sizes_seen()
        .unwrap();
    let expected = if family == Family::V4 { 1360 } else { 1340 };
    assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [expected]);
}
