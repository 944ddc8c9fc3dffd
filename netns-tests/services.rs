//! Services: sessions from the internet, and from inside, find a server behind a virtual address; and
//! what becomes of them when servers come and go.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use homing::lab::{Client, Protocol, Session};
use homing::model::Family;

use crate::harness::farm::{self, Farm, QUICK};
use crate::harness::{PATIENCE, Site, both, until};

both!(
    sessions_by_each_uplink_find_a_server_and_their_answers_go_back_there,
    a_server_that_dies_loses_its_sessions_and_nobody_else_s,
    nobody_is_left_behind_when_a_group_is_empty,
    a_drained_server_keeps_whom_it_has_and_a_disabled_one_does_not,
    weights_are_kept_within_two_points,
    connections_are_limited_exactly,
    a_backup_serves_only_while_nobody_else_does,
    a_recovered_server_gets_its_share_little_by_little,
    who_calls_from_inside_is_served_too,
    who_calls_over_a_bridge_of_the_router_is_served_too,
    icmp_errors_of_servers_go_back_by_the_entry_link,
    a_foreign_flush_is_repaired_and_services_go_on,
    an_address_of_its_own_is_taken_and_given_up,
    services_follow_a_renumbered_uplink,
    who_may_not_connect_is_not_served,
);

const UPLINKS: [&str; 3] = ["fiber", "cable", "lte"];
const SHOP: &str = "  shop: { virtual: [fiber, cable, lte], protocol: [tcp, udp], ports: [80, 443], group: web }\n";
const PORT: &str = "port: 8080";

/// A site with so many equal servers behind the shop.
fn shop(family: Family, servers: usize) -> (Site, Farm) {
    shop_of(family, QUICK, &vec![PORT; servers], SHOP)
}

fn shop_of(family: Family, group: &str, servers: &[&str], services: &str) -> (Site, Farm) {
    let mut site = Site::prepare(family, |b| b);
    let farm = site.farm(servers.len());
    site.run(&farm::profile(family, group, servers, services));
    for index in 0..servers.len() {
        site.wait_server(index, "up");
    }
    (site, farm)
}

/// Sessions of a caller to the shop by this uplink.
fn call(site: &Site, protocol: Protocol, uplink: &str, count: usize) -> Vec<Session> {
    let wanted = vec![(protocol, Some(site.client(1)), site.at(uplink, 443)); count];
    let opened = site.outside().open_all(&wanted).into_iter();
    opened.map(|one| one.unwrap_or_else(|e| panic!("{protocol:?} by {uplink}: {e}"))).collect()
}

fn sessions_by_each_uplink_find_a_server_and_their_answers_go_back_there(family: Family) {
    let (site, farm) = shop(family, 3);
    let mut sessions = Vec::new();
    for uplink in UPLINKS {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            sessions.extend(call(&site, protocol, uplink, 3));
        }
    }
    for session in &sessions {
        assert_eq!(session.seen.ip(), site.client(1), "the server sees who calls");
    }
    assert_eq!(site.counts(&farm, &sessions), [6, 6, 6]);
    site.assert_stay(&mut sessions, "a while later");
    site.assert_settled();
}

fn assert_reset(sessions: &mut [Session]) {
    for session in sessions {
        let end = session.wait_for_end(PATIENCE).unwrap();
        assert_eq!(end, Some(ErrorKind::ConnectionReset), "of {}", session.local);
    }
}

/// Those with this server, and the others.
fn divide(site: &Site, farm: &Farm, sessions: Vec<Session>, server: usize) -> [Vec<Session>; 2] {
    let (with, without) =
        sessions.into_iter().partition(|session| site.server_of(farm, session) == server);
    [with, without]
}

fn a_server_that_dies_loses_its_sessions_and_nobody_else_s(family: Family) {
    let (site, farm) = shop(family, 3);
    let sessions = UPLINKS.map(|uplink| call(&site, Protocol::Tcp, uplink, 9));
    let [mut idle, mut others] = divide(&site, &farm, sessions.into_iter().flatten().collect(), 0);
    let [mut busy, _] = divide(&site, &farm, call(&site, Protocol::Tcp, "cable", 9), 0);
    let datagrams = call(&site, Protocol::Udp, "fiber", 9);
    let [mut datagrams, mut other_datagrams] = divide(&site, &farm, datagrams, 0);
    farm.silence(&site, 0);
    std::thread::scope(|scope| {
        let talk = |session: &mut Session| {
            let mut asked = session.ask(2 * PATIENCE);
            while asked.is_ok() {
                std::thread::sleep(Duration::from_millis(5));
                asked = session.ask(2 * PATIENCE);
            }
            asked.unwrap_err().kind()
        };
        let talking: Vec<_> =
            busy.iter_mut().map(|session| scope.spawn(move || talk(session))).collect();
        for talk in talking {
            assert_eq!(talk.join().unwrap(), ErrorKind::ConnectionReset);
        }
    });
    assert_reset(&mut idle);
    site.wait_server(0, "down");
    // From the same port as before.
    for session in &mut datagrams {
        until(PATIENCE, || session.ask(Duration::from_millis(200)).is_ok(), |ok| *ok)
            .expect("another server answers");
        assert_ne!(site.server_of(&farm, session), 0);
    }
    site.assert_stay(&mut others, "another server is dead");
    site.assert_stay(&mut other_datagrams, "another server is dead");
    let counts = site.counts(&farm, &call(&site, Protocol::Tcp, "lte", 8));
    assert_eq!(counts, [0, 4, 4]);
    let log = site.log();
    assert!(log.contains("server web/a is down (was up)"), "{log}");
    assert!(log.contains("sessions of server web/a"), "{log}");
    farm.speak(&site);
    site.wait_server(0, "up");
    site.assert_stay(&mut datagrams, "the server is back: nobody moves");
    site.assert_settled();
}

/// Entries of connection tracking to the shop that no server has.
fn untranslated(site: &Site) -> Vec<String> {
    let family = if site.family == Family::V4 { "ipv4" } else { "ipv6" };
    let to = site.at("fiber", 443).ip().to_string();
    let listed = site.command("conntrack", &["-L", "-f", family, "-d", &to]).stdout;
    let dnat = |line: &&str| line.matches(&format!("src={to}")).count() > 0;
    listed.lines().filter(dnat).map(str::to_owned).collect()
}

fn nobody_is_left_behind_when_a_group_is_empty(family: Family) {
    let (site, farm) = shop(family, 2);
    farm.silence(&site, 0);
    farm.silence(&site, 1);
    site.wait_server(0, "down");
    site.wait_server(1, "down");
    let (client, to) = (Some(site.client(1)), site.at("fiber", 443));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let refused = site.outside().open(protocol, client, to).map(drop).map_err(|e| e.kind());
        assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "{protocol:?}");
    }
    assert_eq!(untranslated(&site), Vec::<String>::new());
    let status = site.status();
    assert_eq!(status["services"]["shop"]["usable"], false);
    let explained = explain(&site, "fiber", 443);
    assert_eq!(explained["outcome"], "refused", "{explained:#}");
    // A client that goes on from the same port is served as soon as there is a server.
    let from = SocketAddr::new(site.client(1), 40_000);
    site.outside().send(from, to).unwrap();
    farm.speak(&site);
    site.wait_server(0, "up");
    let before = farm.arrivals();
    site.outside().send(from, to).unwrap();
    until(PATIENCE, || farm.arrivals(), |now| *now != before).expect("the same port is served");
}

fn explain(site: &Site, uplink: &str, port: u16) -> serde_json::Value {
    let (from, to) = (site.client(1).to_string(), site.at(uplink, port).ip().to_string());
    let port = port.to_string();
    let args = ["explain", "--from", &from, "--to", &to, "--port", &port, "--in", uplink, "--json"];
    let outcome = site.homing(&args);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.json()
}

fn a_drained_server_keeps_whom_it_has_and_a_disabled_one_does_not(family: Family) {
    let services = "  shop: { virtual: [fiber], protocol: tcp, ports: [80, 443], group: web, \
                    persistence: ssl }\n";
    let (mut site, farm) = shop_of(family, QUICK, &[PORT; 2], services);
    let bound = call(&site, Protocol::Tcp, "fiber", 1);
    let server = site.server_of(&farm, &bound[0]);
    let name = format!("web/{}", farm::name(server));
    assert_eq!(site.homing(&["server", &name, "drain"]).code, Some(0));
    // The bound client stays, and is counted; others go elsewhere.
    assert_eq!(site.counts(&farm, &call(&site, Protocol::Tcp, "fiber", 4))[server], 4);
    let other = site.outside().open(Protocol::Tcp, Some(site.client(2)), site.at("fiber", 443));
    assert_ne!(site.server_of(&farm, &other.unwrap()), server);
    let own = farm::name(server).to_string();
    let status = site.status();
    let left = &status["groups"]["web"]["servers"][&own];
    assert_eq!((&left["admin"], &left["usable"]), (&"draining".into(), &false.into()), "{left}");
    assert_eq!(left["bindings"], 1, "{left}");
    assert!(left["sessions"].as_u64() >= Some(1), "{left}");
    // An order is kept over a restart.
    site.stop(nix::sys::signal::Signal::SIGTERM);
    site.run_again();
    assert_eq!(site.status()["groups"]["web"]["servers"][&own]["admin"], "draining");
    assert_eq!(site.homing(&["server", &own, "disable"]).code, Some(0));
    let mut bound = bound;
    assert_reset(&mut bound);
    assert_eq!(site.counts(&farm, &call(&site, Protocol::Tcp, "fiber", 4))[server], 0);
    assert_eq!(site.homing(&["server", &name, "enable"]).code, Some(0));
    let unknown = site.homing(&["server", "web/nobody", "drain"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("web/a"), "{unknown:?}");
}

fn weights_are_kept_within_two_points(family: Family) {
    let servers = ["port: 8080, weight: 7", "port: 8080, weight: 2", "port: 8080"];
    let group = format!("balance: weighted\n    {QUICK}");
    let (site, farm) = shop_of(family, &group, &servers, SHOP);
    let before = farm.arrivals();
    let sessions = call(&site, Protocol::Tcp, "fiber", 1000);
    assert_eq!(sessions.len(), 1000);
    let arrived: Vec<u64> = farm.arrivals().iter().zip(before).map(|(now, b)| now - b).collect();
    let total: u64 = arrived.iter().sum();
    for (count, weight) in arrived.iter().zip([7.0, 2.0, 1.0]) {
        let share = *count as f64 * 100.0 / total as f64;
        assert!((share - weight * 10.0).abs() <= 2.0, "{share} % for weight {weight}: {arrived:?}");
    }
}

fn connections_are_limited_exactly(family: Family) {
    let servers = ["port: 8080, max-connections: 5", "port: 8080, max-connections: 8"];
    let (site, farm) = shop_of(family, QUICK, &servers, SHOP);
    let to = site.at("fiber", 443);
    let wanted = vec![(Protocol::Tcp, Some(site.client(1)), to); 4 * 13];
    let opened = site.outside().open_all(&wanted);
    let (served, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
    let mut served: Vec<Session> = served.into_iter().map(Result::unwrap).collect();
    assert_eq!(site.counts(&farm, &served), [5, 8], "others get what is too much for one");
    for one in refused {
        assert_eq!(one.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    // A place is free as soon as a connection is closed.
    let closed = served.iter().position(|session| site.server_of(&farm, session) == 0);
    drop(served.remove(closed.unwrap()));
    let again = until(
        PATIENCE,
        || site.outside().open(Protocol::Tcp, Some(site.client(1)), to).ok(),
        Option::is_some,
    );
    let again = again.unwrap_or_else(|_| panic!("no place is free")).unwrap();
    assert_eq!(site.server_of(&farm, &again), 0);
    assert!(site.outside().open(Protocol::Tcp, Some(site.client(1)), to).is_err());
    site.assert_stay(&mut served, "others come and go");
    // A limit that comes later counts those that are there.
    site.reload(&farm::profile(family, QUICK, &[PORT; 2], SHOP));
    let mut more = call(&site, Protocol::Tcp, "fiber", 6);
    site.reload(&farm::profile(family, QUICK, &servers, SHOP));
    let refused = || site.outside().open(Protocol::Tcp, Some(site.client(1)), to).is_err();
    until(PATIENCE, refused, |refused| *refused).expect("who is there is counted");
    // There are still more than places.
    more.truncate(3);
    for attempt in 0..20 {
        assert!(refused(), "attempt {attempt}");
    }
    // Now there are as many as places, less one.
    (more, served) = (Vec::new(), served.split_off(1));
    assert!(more.is_empty() && served.len() == 11);
    until(PATIENCE, refused, |refused| !*refused).expect("a place is free");
}

fn a_backup_serves_only_while_nobody_else_does(family: Family) {
    let servers = [PORT, "port: 8080, backup: true"];
    let (site, farm) = shop_of(family, QUICK, &servers, SHOP);
    assert_eq!(site.counts(&farm, &call(&site, Protocol::Tcp, "fiber", 6)), [6, 0]);
    farm.silence(&site, 0);
    site.wait_server(0, "down");
    let mut kept = call(&site, Protocol::Tcp, "fiber", 6);
    assert_eq!(site.counts(&farm, &kept), [0, 6]);
    assert_eq!(site.status()["services"]["shop"]["reason"], "only backups serve");
    farm.speak(&site);
    site.wait_server(0, "up");
    assert_eq!(site.counts(&farm, &call(&site, Protocol::Tcp, "fiber", 6)), [6, 0]);
    site.assert_stay(&mut kept, "the backup keeps what it has");
}

fn share(site: &Site, server: &str) -> f64 {
    site.status()["groups"]["web"]["servers"][server]["share"].as_f64().unwrap()
}

fn a_recovered_server_gets_its_share_little_by_little(family: Family) {
    let group = format!("slow-start: 4s\n    {QUICK}");
    let (site, farm) = shop_of(family, &group, &[PORT; 2], SHOP);
    assert!((share(&site, "a") - 0.5).abs() < 0.01, "not at the start");
    farm.silence(&site, 0);
    site.wait_server(0, "down");
    farm.speak(&site);
    site.wait_server(0, "up");
    let first = share(&site, "a");
    assert!(first < 0.3, "{first}");
    let last = std::cell::Cell::new(first);
    until(
        PATIENCE,
        || share(&site, "a"),
        |now| {
            let before = last.replace(*now);
            assert!(*now >= before - 0.01, "{now} after {before}");
            (*now - 0.5).abs() < 0.01
        },
    )
    .expect("the whole share at last");
    assert_eq!(site.homing(&["server", "web/a", "disable"]).code, Some(0));
    assert_eq!(site.homing(&["server", "web/a", "enable"]).code, Some(0));
    assert!((share(&site, "a") - 0.5).abs() < 0.01, "not after an order");
}

fn call_from_inside(site: &Site, client: &Client, from: IpAddr, sees: IpAddr) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        // To each of the two servers.
        for _ in 0..2 {
            let session = client.open(protocol, Some(from), site.at("fiber", 443));
            let session = session.unwrap_or_else(|e| panic!("{protocol:?} of {from}: {e}"));
            assert_eq!(session.seen.ip(), sees, "{protocol:?} of {from}");
        }
    }
}

fn who_calls_from_inside_is_served_too(family: Family) {
    let (site, farm) = shop(family, 2);
    // In another LAN the server sees who calls.
    call_from_inside(&site, &site.lan(), site.host(3), site.host(3));
    // In the server's own, and from a server to itself, it sees the router.
    let router = homing::lab::dmz_router(family);
    for from in [homing::lab::dmz_server(family), farm.addresses[0], farm.addresses[1]] {
        call_from_inside(&site, &site.dmz(), from, router);
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let own = site.own().open(protocol, None, site.at("fiber", 443));
        own.unwrap_or_else(|e| panic!("{protocol:?} of the router itself: {e}"));
    }
}

/// LAN and DMZ are ports of one bridge on the router, as virtual machines would be.
fn bridge(site: &Site) -> IpAddr {
    let router = homing::lab::dmz_router(site.family);
    let (bits, nodad, host, default) = match site.family {
        Family::V4 => (24, "", "10.2.0.50", "default"),
        Family::V6 => (64, " nodad", "fd00:2::50", "::/0"),
    };
    let mut lines = vec!["link set dmz0 down".to_owned(), "link set dmz0 name port0".to_owned()];
    lines.push("link add dmz0 type bridge".to_owned());
    for port in ["port0", "lan0"] {
        lines.push(format!("address flush dev {port}"));
        lines.push(format!("link set {port} master dmz0"));
        lines.push(format!("link set {port} up"));
    }
    lines.push("link set dmz0 up".to_owned());
    lines.push(format!("address add {router}/{bits} dev dmz0{nodad}"));
    site.router().ip(&lines).unwrap();
    let lan = [
        format!("address add {host}/{bits} dev eth0{nodad}"),
        format!("route replace {default} via {router}"),
    ];
    site.stage.layout().lan().ip(&lan).unwrap();
    host.parse().unwrap()
}

fn who_calls_over_a_bridge_of_the_router_is_served_too(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let host = bridge(&site);
    let farm = site.farm(2);
    site.run(&farm::profile(family, QUICK, &[PORT; 2], SHOP));
    let router = homing::lab::dmz_router(family);
    for filtered in ["0", "1"] {
        for setting in ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"] {
            site.router().sysctl(&[(setting, filtered)]).expect("a kernel with br_netfilter");
        }
        call_from_inside(&site, &site.lan(), host, router);
        if filtered == "0" {
            call_from_inside(&site, &site.dmz(), farm.addresses[0], router);
        }
    }
}

fn icmp_errors_of_servers_go_back_by_the_entry_link(family: Family) {
    // Nobody listens at this port of the servers.
    let services =
        "  shop: { virtual: [fiber, cable, lte], protocol: udp, ports: [7777], group: web }\n";
    let (site, _farm) = shop_of(family, QUICK, &["", ""], services);
    for uplink in UPLINKS {
        let session =
            site.outside().open(Protocol::Udp, Some(site.client(1)), site.at(uplink, 7777));
        assert_eq!(session.unwrap_err().kind(), ErrorKind::ConnectionRefused, "by {uplink}");
    }
}

fn a_foreign_flush_is_repaired_and_services_go_on(family: Family) {
    let services = "  shop: { virtual: [fiber], protocol: tcp, ports: [443], group: web, \
                    persistence: ssl }\n";
    let (site, farm) = shop_of(family, QUICK, &[PORT; 3], services);
    // Another client had the first server.
    site.outside().open(Protocol::Tcp, Some(site.client(2)), site.at("fiber", 443)).unwrap();
    let mut sessions = call(&site, Protocol::Tcp, "fiber", 3);
    let server = site.server_of(&farm, &sessions[0]);
    assert_ne!(server, 0);
    site.router().nft("flush ruleset\n").unwrap();
    until(Duration::from_secs(5), || site.status(), |s| s["kernel"]["drift_repairs"] != 0)
        .expect("repaired");
    site.wait_settled();
    site.assert_stay(&mut sessions, "after a flush");
    let log = || site.log();
    until(PATIENCE, log, |log| log.contains("bindings were put back")).expect("put back");
    let counts = site.counts(&farm, &call(&site, Protocol::Tcp, "fiber", 4));
    assert_eq!(counts[server], 4, "{counts:?}: the binding is back");
}

fn addresses(site: &Site, device: &str) -> String {
    site.command("ip", &["-o", "address", "show", "dev", device]).stdout
}

fn an_address_of_its_own_is_taken_and_given_up(family: Family) {
    let (own, other) = match family {
        Family::V4 => ("198.51.101.77", "198.51.101.78"),
        Family::V6 => ("2001:db8:1::77", "2001:db8:1::78"),
    };
    let services = |address: &str| {
        format!(
            "  shop: {{ virtual: [{{ address: \"{address}\", on: fiber }}], protocol: tcp, ports: \
             [443], group: web }}\n"
        )
    };
    // The ISP finds them on the line, as it finds our usual address.
    let nets = [own, other].map(|address| ipnet::IpNet::from(address.parse::<IpAddr>().unwrap()));
    let mut site = Site::prepare(family, |b| b.isp("fiber", |isp| isp.prefixes = nets.to_vec()));
    let routes = nets.map(|net| format!("route del {net} dev cust"));
    site.stage.layout().place("fiber").unwrap().ip(&routes).unwrap();
    let _farm = site.farm(1);
    site.run(&farm::profile(family, QUICK, &[PORT], &services(own)));
    site.wait_server(0, "up");
    let reach = |address: &str| {
        let to = SocketAddr::new(address.parse().unwrap(), 443);
        site.outside().open(Protocol::Tcp, Some(site.client(1)), to)
    };
    reach(own).expect("its address is reached");
    let profile = |services: &str| farm::profile(family, QUICK, &[PORT], services);
    site.reload(&profile(&services(other)));
    reach(other).expect("the new address is reached");
    assert!(!addresses(&site, "wan0").contains(&format!("{own}/")));
    site.stop(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(site.homing(&["down"]).code, Some(0));
    assert!(!addresses(&site, "wan0").contains(&format!("{other}/")));
}

fn services_follow_a_renumbered_uplink(family: Family) {
    let (mut site, _farm) = shop(family, 2);
    let old = site.at("fiber", 443).ip();
    let mut sessions = call(&site, Protocol::Tcp, "cable", 4);
    site.stage
        .renumber("fiber", |isp| {
            isp.gateway4 = [192, 0, 2, 65].into();
            isp.customer4 = homing::lab::net4([192, 0, 2, 66], 26);
            isp.gateway6 = [0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, 1].into();
            let six = [0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, 2].into();
            isp.customer6 = homing::lab::net_of6(six, 64);
        })
        .unwrap();
    let to = site.at("fiber", 443);
    let reached = || site.outside().open(Protocol::Tcp, Some(site.client(1)), to).is_ok();
    until(PATIENCE, reached, |ok| *ok).expect("the service follows");
    // The status tells of it when the round is over.
    site.wait_status("the new address and not the old one", |status| {
        let addresses = status["services"]["shop"]["virtual"].as_array().unwrap();
        let has = |address: IpAddr| addresses.contains(&address.to_string().into());
        has(to.ip()) && !has(old)
    });
    site.assert_stay(&mut sessions, "another uplink was renumbered");
    site.wait_settled();
    site.stage.forget_old_addresses("fiber").unwrap();
}

fn who_may_not_connect_is_not_served(family: Family) {
    let allowed = if family == Family::V4 { "203.0.113.20/32" } else { "2001:db8:ffff::20/128" };
    let services = format!(
        "  shop: {{ virtual: [fiber], protocol: [tcp, udp], ports: [443], group: web, allow: \
         [\"{allowed}\"] }}\n"
    );
    let (site, farm) = shop_of(family, QUICK, &[PORT], &services);
    let open = |client: usize| {
        let outside = site.outside().timeout(Duration::from_millis(400));
        outside.open(Protocol::Tcp, Some(site.client(client)), site.at("fiber", 443))
    };
    open(1).expect("one who may");
    let before = farm.arrivals();
    assert!(open(0).is_err(), "one who may not");
    assert_eq!(farm.arrivals(), before);
}
