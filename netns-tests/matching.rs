//! Which policy takes a session: every field of `match`, and their order.

use std::net::IpAddr;

use homing::lab::{self, Protocol};
use homing::model::Family;

use crate::harness::{Site, both, profile};

both!(
    by_lan,
    by_source_prefix,
    by_destination,
    by_protocol,
    by_ports,
    by_code_point,
    all_fields_must_match_and_the_first_policy_takes_it,
);

/// What matches goes by cable, all else by fiber.
fn site(family: Family, matches: &str) -> Site {
    let policies = format!(
        "policies:\n  - {{ name: special, match: {matches}, uplinks: [cable] }}\n  - {{ name: default, uplinks: [fiber] }}\n"
    );
    Site::start(family, &profile(&policies))
}

/// A network around an address of either family.
fn around(address: IpAddr, v4: u8, v6: u8) -> String {
    let length = if address.is_ipv4() { v4 } else { v6 };
    ipnet::IpNet::new(address, length).unwrap().trunc().to_string()
}

fn by_lan(family: Family) {
    let site = site(family, "{ from: [dmz] }");
    let to = site.server(0, 80);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let session = site.dmz().open(protocol, Some(lab::dmz_server(family)), to).unwrap();
        assert_eq!(site.uplink(&session), "cable");
        assert_eq!(site.way(protocol, 0, to), "fiber");
    }
}

fn by_source_prefix(family: Family) {
    // Hosts 6 to 21 are numbers 16 to 31.
    let net = around(lab::host_address(family, 6), 28, 124);
    let site = site(family, &format!("{{ from: [\"{net}\"] }}"));
    for (host, way) in [(5, "fiber"), (6, "cable"), (21, "cable"), (22, "fiber")] {
        assert_eq!(site.way_of(host), way, "host {host}");
    }
}

fn by_destination(family: Family) {
    let net = around(lab::server(family, 3), 24, 48);
    let site = site(family, &format!("{{ to: [\"{net}\"] }}"));
    for (server, way) in [(0, "fiber"), (1, "fiber"), (3, "cable")] {
        let to = site.server(server, 80);
        assert_eq!(site.way(Protocol::Tcp, 0, to), way, "server {server}");
        assert_eq!(site.way(Protocol::Udp, 0, to), way, "server {server}");
    }
}

fn by_protocol(family: Family) {
    let site = site(family, "{ protocol: [udp, icmp] }");
    let to = site.server(0, 80);
    assert_eq!(site.way(Protocol::Udp, 0, to), "cable");
    assert_eq!(site.way(Protocol::Tcp, 0, to), "fiber");
    site.lan().ping(Some(site.host(1)), site.server(2, 0).ip()).unwrap();
    let seen = |isp: &str| {
        let sightings = site.stage.isp(isp).unwrap().sightings().unwrap();
        sightings.iter().any(|s| s.destination == site.server(2, 0).ip())
    };
    assert!(seen("cable") && !seen("fiber"), "the ping's way");
}

fn by_ports(family: Family) {
    let site = site(family, "{ ports: [443, \"5000-6000\"] }");
    for (port, way) in [(443, "cable"), (5060, "cable"), (80, "fiber"), (8080, "fiber")] {
        assert_eq!(site.way(Protocol::Tcp, 0, site.server(0, port)), way, "tcp {port}");
        if port != 8080 {
            assert_eq!(site.way(Protocol::Udp, 0, site.server(0, port)), way, "udp {port}");
        }
    }
}

fn by_code_point(family: Family) {
    let site = site(family, "{ dscp: ef }");
    for (dscp, way) in [(46, "cable"), (0, "fiber"), (10, "fiber")] {
        let client = site.lan().dscp(dscp);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let session = client.open(protocol, Some(site.host(1)), site.server(0, 80)).unwrap();
            assert_eq!(site.uplink(&session), way, "code point {dscp} {protocol:?}");
        }
    }
}

fn all_fields_must_match_and_the_first_policy_takes_it(family: Family) {
    let net = around(lab::server(family, 3), 24, 48);
    let policies = format!(
        "policies:
  - {{ name: voice, match: {{ from: [office], protocol: udp, ports: [5060] }}, uplinks: [[lte], [cable]] }}
  - {{ name: bank, match: {{ to: [\"{net}\"], ports: [443, 5060], protocol: [tcp, udp] }}, uplinks: [cable] }}
  - {{ name: default, uplinks: [fiber] }}\n"
    );
    let site = Site::start(family, &profile(&policies));
    let cases = [
        (Protocol::Udp, 3, 5060, "lte"),
        (Protocol::Tcp, 3, 5060, "cable"),
        (Protocol::Tcp, 3, 443, "cable"),
        (Protocol::Tcp, 3, 80, "fiber"),
        (Protocol::Tcp, 0, 443, "fiber"),
        (Protocol::Udp, 0, 5060, "lte"),
    ];
    for (protocol, server, port, way) in cases {
        let to = site.server(server, port);
        assert_eq!(site.way(protocol, 2, to), way, "{protocol:?} to {to}");
    }
    let from = Some(lab::dmz_server(family));
    let session = site.dmz().open(Protocol::Udp, from, site.server(0, 5060)).unwrap();
    assert_eq!(site.uplink(&session), "fiber", "voice is for the office only");
}
