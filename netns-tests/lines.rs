//! Lines that are not all alike: shared gateways and subnets, none at all, specific routes,
//! networks of our own.

use std::net::{IpAddr, SocketAddr};

use homing::lab::{self, Builder, Handover, IspLayout, Protocol, Servers};
use homing::model::Family;

use crate::harness::{Site, both, profile, with_uplinks};

both!(
    two_uplinks_with_the_same_gateway_address,
    two_uplinks_in_the_same_subnet,
    a_point_to_point_line_is_learned,
    a_point_to_point_line_without_gateway_by_the_profile,
    a_modem_s_page_on_a_second_network_of_the_line,
    a_static_route_through_an_uplink,
    own_prefixes_leave_untranslated_by_their_uplink,
    gateways_written_in_the_profile,
);

/// Sessions use every uplink, and nobody the wrong address: the ISPs' records tell.
fn assert_all_used(site: &Site) {
    let mut sessions = site.open_many(Protocol::Tcp, 0..60);
    sessions.extend(site.open_many(Protocol::Udp, 0..60));
    let shares = site.shares(&sessions);
    assert!(shares.values().all(|share| *share > 1.0), "{shares:?}");
    site.assert_stay(&mut sessions, "at once");
    for uplink in ["fiber", "cable", "lte"] {
        let isp = site.stage.isp(uplink).unwrap();
        let server = site.server(3, 0).ip();
        let device = site.own().device(&isp.layout().interface);
        device
            .ping(None, server)
            .unwrap_or_else(|error| panic!("ping by {uplink}: {error}"));
        let caller = Some(site.server(1, 0).ip());
        let ping = site
            .outside()
            .ping(caller, isp.layout().customer(site.family));
        ping.unwrap_or_else(|error| panic!("ping to {uplink}: {error}"));
    }
    site.stage.check_leaks().unwrap();
    site.assert_settled();
}

/// Two modems of the same make: the same network and gateway behind both.
fn alike(isp: &mut IspLayout, host: u8) {
    let v6 = |host| std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, host);
    isp.gateway4 = [192, 168, 178, 1].into();
    isp.gateway6 = v6(1);
    isp.customer4 = lab::net4([192, 168, 178, host], 24);
    isp.customer6 = lab::net_of6(v6(host.into()), 64);
}

fn two_uplinks_with_the_same_gateway_address(family: Family) {
    let twins = |b: Builder| {
        b.isp("fiber", |i| alike(i, 21))
            .isp("cable", |i| alike(i, 22))
    };
    assert_all_used(&Site::start_on(family, &profile(""), twins));
}

fn two_uplinks_in_the_same_subnet(family: Family) {
    let second = |isp: &mut IspLayout| {
        isp.gateway4 = [198, 51, 101, 129].into();
        isp.gateway6 = [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x81].into();
        isp.customer4 = lab::net4([198, 51, 101, 130], 24);
        isp.customer6 = lab::net_of6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x82].into(), 64);
    };
    let site = Site::start_on(family, &profile(""), |b| b.isp("cable", second));
    assert_all_used(&site);
}

fn a_point_to_point_line_is_learned(family: Family) {
    let site = Site::start_on(family, &profile(""), |b| {
        b.isp("cable", |isp| isp.handover = Handover::PointToPoint)
    });
    assert_all_used(&site);
}

fn a_point_to_point_line_without_gateway_by_the_profile(family: Family) {
    let keys = ["weight: 1", "gateway: none, gateway6: none", "weight: 1"];
    let site = Site::start_on(family, &with_uplinks(&keys), |b| {
        b.isp("cable", |isp| isp.handover = Handover::PointToPoint)
    });
    assert_all_used(&site);
}

fn gateways_written_in_the_profile(family: Family) {
    let keys = [1, 2, 3].map(|k| format!("gateway: 198.51.10{k}.1, gateway6: \"2001:db8:{k}::1\""));
    let keys = [keys[0].as_str(), &keys[1], &keys[2]];
    let mut site = Site::prepare(family, |b| b);
    let routes = ["wan0", "wan1", "wan2"];
    let lines = routes.iter().flat_map(|dev| {
        [
            format!("route del default dev {dev}"),
            format!("route del ::/0 dev {dev}"),
        ]
    });
    site.router().ip(&lines.collect::<Vec<_>>()).unwrap();
    site.run(&with_uplinks(&keys));
    assert_all_used(&site);
}

fn page(family: Family) -> IpAddr {
    match family {
        Family::V4 => [192, 168, 100, 1].into(),
        Family::V6 => IpAddr::from([0xfd00, 0x64, 0, 0, 0, 0, 0, 1]),
    }
}

/// Everything goes by fiber, and cable's modem has a page that only cable reaches.
fn with_page(family: Family, line: &str) -> (Site, Servers) {
    let mut site = Site::prepare(family, |b| {
        b.isp("cable", |isp| isp.pages = Family::BOTH.map(page).to_vec())
    });
    site.router().ip(&[line.to_owned()]).unwrap();
    let space = site.stage.layout().place("cable").unwrap();
    let servers = Servers::start(&space, &[page(family)], &[80], &[53]).unwrap();
    site.run(&profile(
        "policies:\n  - { name: default, uplinks: [fiber] }\n",
    ));
    (site, servers)
}

fn assert_page(site: &Site) {
    let to = SocketAddr::new(page(site.family), 80);
    let mut session = site.open(Protocol::Tcp, 0, to);
    assert_eq!(site.uplink(&session), "cable");
    site.open(Protocol::Udp, 1, SocketAddr::new(to.ip(), 53));
    site.own()
        .open(Protocol::Tcp, None, to)
        .expect("the router sees the page as well");
    assert_eq!(site.way_of(0), "fiber");
    site.assert_stay(std::slice::from_mut(&mut session), "at once");
    let seen = site.stage.isp("fiber").unwrap().sightings().unwrap();
    assert!(seen.iter().all(|s| s.destination != to.ip()), "{seen:?}");
    site.assert_settled();
}

fn a_modem_s_page_on_a_second_network_of_the_line(family: Family) {
    let line = match family {
        Family::V4 => "addr add 192.168.100.2/24 dev wan1",
        Family::V6 => "addr add fd00:64::2/64 dev wan1 nodad",
    };
    let (mut site, _servers) = with_page(family, line);
    let net: ipnet::IpNet = match family {
        Family::V4 => "192.168.100.2/32".parse().unwrap(),
        Family::V6 => "fd00:64::2/128".parse().unwrap(),
    };
    site.stage.allow_source("cable", net);
    // The ISP answers either of our addresses; the router may pick the nearer one for itself.
    assert_page(&site);
}

fn a_static_route_through_an_uplink(family: Family) {
    let line = match family {
        Family::V4 => "route add 192.168.100.0/24 via 198.51.102.1 dev wan1",
        Family::V6 => "route add fd00:64::/64 via 2001:db8:2::1 dev wan1",
    };
    let (site, _servers) = with_page(family, line);
    assert_page(&site);
    // One that comes while homing runs counts as well.
    let (more, to) = match family {
        Family::V4 => ("route add 203.0.113.20/32 via 198.51.103.1 dev wan2", "lte"),
        Family::V6 => (
            "route add 2001:db8:ffff::20/128 via 2001:db8:3::1 dev wan2",
            "lte",
        ),
    };
    site.router().ip(&[more.to_owned()]).unwrap();
    crate::harness::until(
        crate::harness::PATIENCE,
        || site.way(Protocol::Tcp, 0, site.server(1, 80)),
        |way| way == to,
    )
    .expect("the new route is followed");
}

/// The network that fiber's ISP routes to us, and a host of the LAN in it.
fn our_own(family: Family) -> (&'static str, &'static str, IpAddr) {
    match family {
        Family::V4 => ("192.0.2.0/28", "192.0.2.1/28", [192, 0, 2, 5].into()),
        Family::V6 => (
            "2001:db8:a::/56",
            "2001:db8:a::1/64",
            IpAddr::from([0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 5]),
        ),
    }
}

fn own_prefixes_leave_untranslated_by_their_uplink(family: Family) {
    let (net, router, host) = our_own(family);
    let mut site = Site::prepare(family, |b| {
        b.isp("fiber", |isp| isp.prefixes = vec![net.parse().unwrap()])
    });
    let nodad = if family == Family::V6 { " nodad" } else { "" };
    site.router()
        .ip(&[format!("addr add {router} dev lan0{nodad}")])
        .unwrap();
    let lan = site.stage.layout().lan();
    let length = router.rsplit_once('/').unwrap().1;
    lan.ip(&[format!("addr add {host}/{length} dev eth0{nodad}")])
        .unwrap();
    let keys = [&format!("prefixes: [\"{net}\"]"), "weight: 4", "weight: 1"];
    let allow = format!(
        "policies:\n  - {{ name: default, uplinks: [cable] }}\nfirewall:\n  allow: [{{ in: fiber, to: \"{host}\", protocol: tcp, ports: [8080] }}]\n"
    );
    site.run(&(with_uplinks(&keys) + &allow));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let session = site
            .lan()
            .open(protocol, Some(host), site.server(0, 80))
            .unwrap();
        assert_eq!(session.seen.ip(), host, "untranslated");
        assert_eq!(
            site.way(protocol, 0, site.server(0, 80)),
            "cable",
            "all others"
        );
    }
    let _behind = Servers::start(&lan, &[host], &[80, 8080], &[]).unwrap();
    let caller = Some(site.server(1, 0).ip());
    let quick = site.outside().timeout(crate::harness::PATIENCE / 30);
    quick
        .open(Protocol::Tcp, caller, SocketAddr::new(host, 8080))
        .expect("allowed");
    assert!(
        quick
            .open(Protocol::Tcp, caller, SocketAddr::new(host, 80))
            .is_err(),
        "not allowed"
    );
    site.assert_settled();
}
