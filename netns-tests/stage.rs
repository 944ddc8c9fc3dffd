//! The stage itself, with a plain masquerading router in place of homing.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use homing::lab::{self, Client, Fault, Namespace, Protocol, Servers, Stage};
use homing::model::Family;

use crate::harness::{PATIENCE, both, stage, until};

const SECOND: Duration = Duration::from_secs(1);

both!(
    traffic_flows_by_the_uplink_that_the_router_chooses,
    an_untranslated_source_is_seen_at_the_isp_and_never_answered,
    faults_break_the_line_as_they_say_and_heal,
    a_captive_portal_answers_web_clients_and_names_alone,
    a_line_without_a_gateway_carries_traffic,
    pings_and_datagrams_are_answered,
);

/// A router that masquerades, and sends everything by the uplink of lowest metric.
fn masquerade(stage: &Stage, masquerade: &str) {
    let router = stage.router();
    let forward = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];
    router.sysctl(&forward).unwrap();
    router
        .nft(&format!(
            "table inet plain {{\n chain post {{\n type nat hook postrouting priority 100\n {masquerade}\n }}\n }}\n"
        ))
        .unwrap();
}

fn prefer(router: &Namespace, stage: &Stage, isp: &str) {
    let isp = stage.isp(isp).unwrap();
    let layout = isp.layout();
    let dev = &layout.interface;
    let lines = [
        format!("route replace default via {} dev {dev} metric 1", layout.gateway4),
        "route del ::/0 metric 1".to_owned(),
        format!("route add ::/0 via {} dev {dev} metric 1", layout.gateway6),
    ];
    router.try_ip(&lines).unwrap();
}

fn servers(stage: &Stage, family: Family) -> Servers {
    let addresses: Vec<IpAddr> = (0..4).map(|i| lab::server(family, i)).collect();
    Servers::start(&stage.layout().internet(), &addresses, &[80, 443], &[53]).unwrap()
}

fn traffic_flows_by_the_uplink_that_the_router_chooses(family: Family) {
    let stage = stage(|b| b);
    masquerade(&stage, "oifname \"wan*\" masquerade");
    let servers = servers(&stage, family);
    let client = Client::new(&stage.layout().lan()).timeout(PATIENCE);
    for isp in ["fiber", "cable", "lte"] {
        prefer(&stage.router(), &stage, isp);
        let isp = stage.isp(isp).unwrap();
        let to = SocketAddr::new(lab::server(family, 0), 80);
        let wanted: Vec<_> =
            (0..50).map(|i| (Protocol::Tcp, Some(lab::host_address(family, i)), to)).collect();
        for session in client.open_all(&wanted) {
            assert_eq!(session.unwrap().seen.ip(), isp.layout().customer(family));
        }
        let seen = isp.sources_seen().unwrap();
        assert!(seen.contains(&isp.layout().customer(family)), "{seen:?}");
    }
    assert_eq!(servers.sources().values().sum::<u64>(), 150);
    stage.check_leaks().unwrap();
}

fn an_untranslated_source_is_seen_at_the_isp_and_never_answered(family: Family) {
    let stage = stage(|b| b);
    masquerade(&stage, "oifname \"wan1\" masquerade");
    let _servers = servers(&stage, family);
    let client = Client::new(&stage.layout().lan()).timeout(Duration::from_millis(200));
    let source = lab::host_address(family, 3);
    let to = SocketAddr::new(lab::server(family, 0), 80);
    assert!(client.open(Protocol::Tcp, Some(source), to).is_err());
    let leaks = stage.leaks().unwrap();
    assert_eq!(leaks.len(), 1, "{leaks:?}");
    assert_eq!(leaks[0].isp, "fiber");
    assert_eq!(leaks[0].packets[0].source, source);
    assert!(stage.check_leaks().unwrap_err().contains("fiber"));
}

fn faults_break_the_line_as_they_say_and_heal(family: Family) {
    let stage = stage(|b| b);
    masquerade(&stage, "oifname \"wan*\" masquerade");
    let _servers = servers(&stage, family);
    let fiber = stage.isp("fiber").unwrap();
    let router = Client::new(&stage.router()).timeout(Duration::from_millis(100));
    let gateway = fiber.layout().gateway(family);
    let far = lab::server(family, 0);
    let answers = |to| router.ping(None, to).is_ok();
    let expected = [
        (Fault::Carrier, false, None),
        (Fault::Silent, false, Some(false)),
        (Fault::GatewayOnly, true, Some(false)),
        (Fault::Captive, true, Some(false)),
        (Fault::Loss(100), false, Some(false)),
    ];
    for (fault, near, beyond) in expected {
        assert!(answers(gateway) && answers(far), "before {fault}");
        fiber.fail(fault).unwrap();
        assert_eq!(answers(gateway), near, "{fault}: gateway");
        if let Some(beyond) = beyond {
            assert_eq!(answers(far), beyond, "{fault}: beyond");
        }
        fiber.heal().unwrap();
        until(SECOND, || answers(gateway) && answers(far), |&ok| ok).expect("healed");
    }
}

/// The first words of a server's answer to a request for a page.
fn page(stage: &Stage, to: SocketAddr) -> std::io::Result<String> {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&to, SECOND)?;
        stream.set_read_timeout(Some(SECOND))?;
        stream.write_all(b"GET /generate_204 HTTP/1.1\r\nHost: example.com\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.lines().take(2).collect::<Vec<_>>().join(", "))
    };
    stage.router().enter(ask).unwrap()
}

fn a_captive_portal_answers_web_clients_and_names_alone(family: Family) {
    let stage = stage(|b| b);
    masquerade(&stage, "oifname \"wan*\" masquerade");
    let addresses: Vec<IpAddr> = (0..4).map(|index| lab::server(family, index)).collect();
    let internet = stage.layout().internet();
    let _servers = Servers::start(&internet, &addresses, &[80, 443, lab::PORTAL], &[53, 80]);
    let at = |port| SocketAddr::new(lab::server(family, 0), port);
    let fiber = stage.isp("fiber").unwrap();
    let login = format!("HTTP/1.1 302 Found, Location: {}", lab::LOGIN);
    let good = "HTTP/1.1 204 No Content, Connection: close";
    assert_eq!(page(&stage, at(80)).unwrap(), good);
    fiber.fail(Fault::Captive).unwrap();
    assert_eq!(page(&stage, at(80)).unwrap(), login);
    assert!(page(&stage, at(443)).is_err(), "no other port");
    let client = Client::new(&stage.router());
    client.open(Protocol::Udp, None, at(53)).expect("names are found");
    assert!(client.open(Protocol::Udp, None, at(80)).is_err(), "nothing else");
    fiber.heal().unwrap();
    assert_eq!(page(&stage, at(80)).unwrap(), good);
}

fn a_line_without_a_gateway_carries_traffic(family: Family) {
    let stage = stage(|b| b.isp("fiber", |isp| isp.handover = lab::Handover::PointToPoint));
    masquerade(&stage, "oifname \"wan*\" masquerade");
    let _servers = servers(&stage, family);
    let client = Client::new(&stage.layout().lan()).timeout(PATIENCE);
    let source = lab::host_address(family, 0);
    let to = SocketAddr::new(lab::server(family, 0), 80);
    let session = client.open(Protocol::Tcp, Some(source), to).unwrap();
    let fiber = stage.isp("fiber").unwrap();
    assert_eq!(session.seen.ip(), fiber.layout().customer(family));
}

fn pings_and_datagrams_are_answered(family: Family) {
    let stage = stage(|b| b);
    masquerade(&stage, "oifname \"wan*\" masquerade");
    let servers = servers(&stage, family);
    let client = Client::new(&stage.layout().lan()).timeout(PATIENCE);
    let source = lab::host_address(family, 0);
    let server = lab::server(family, 2);
    client.ping(Some(source), server).unwrap();
    let mut session =
        client.open(Protocol::Udp, Some(source), SocketAddr::new(server, 53)).unwrap();
    session.ask(SECOND).unwrap();
    assert_eq!(servers.sources().values().sum::<u64>(), 2);
}

#[test]
fn a_stage_stands_in_half_a_second_and_leaves_nothing() {
    crate::harness::prepare();
    let begun = Instant::now();
    let stage = stage(|b| b);
    let took = begun.elapsed();
    let spaces = stage.layout().all();
    assert!(spaces.iter().all(|ns| ns.path().exists()));
    drop(stage);
    assert!(spaces.iter().all(|ns| !ns.path().exists()));
    assert!(took < 4 * SECOND, "{took:?} beside other tests");
    println!("the stage stood after {took:?}");
}

#[test]
fn a_line_can_be_deleted_made_again_and_renumbered() {
    let mut stage = stage(|b| b);
    masquerade(&stage, "oifname \"wan*\" masquerade");
    let index = |stage: &Stage| {
        let links = stage.router().ip_json(&["link", "show", "wan0"]).unwrap();
        links[0]["ifindex"].as_u64().unwrap()
    };
    let before = index(&stage);
    stage.recreate_line("fiber", true).unwrap();
    assert_ne!(index(&stage), before);
    let ping = |stage: &Stage, family| {
        let to = stage.isp("fiber").unwrap().layout().gateway(family);
        let client = Client::new(&stage.router()).timeout(SECOND / 5);
        until(SECOND, || client.ping(None, to).is_ok(), |&ok| ok).expect("gateway answers");
    };
    Family::BOTH.iter().for_each(|&f| ping(&stage, f));
    stage
        .renumber("fiber", |isp| {
            isp.gateway4 = [198, 51, 101, 65].into();
            isp.customer4 = lab::net4([198, 51, 101, 66], 26);
        })
        .unwrap();
    Family::BOTH.iter().for_each(|&f| ping(&stage, f));
    let routes = stage.router().ip_json(&["route", "show", "default", "dev", "wan0"]).unwrap();
    assert_eq!(routes[0]["gateway"], "198.51.101.65", "{routes}");
}
