//! The fast path: what goes past the rules, and that it is steered as everything else.
//!
//! All but the first scenario need a kernel with flowtables, and are ignored unless somebody asks for
//! them: `netns-tests/on-kernels.sh` does, in virtual machines. There they fail where there are none.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use homing::lab::{Client, Fault, Namespace, Protocol, Session};
use homing::model::Family;
use serde_json::Value;

use crate::harness::callers::Scene;
use crate::harness::{PATIENCE, Site, both, one_policy, until};

both!(it_is_told_whether_sessions_take_it_and_why);

/// Like `both!`, but only where somebody asks for it.
macro_rules! with_flowtables {
    ($($name:ident),* $(,)?) => {
        mod with_flowtables {
            mod v4 {
                $(#[test] #[ignore = "needs a kernel with flowtables: make test-vm"]
                  fn $name() { super::super::$name($crate::harness::V4) })*
            }
            mod v6 {
                $(#[test] #[ignore = "needs a kernel with flowtables: make test-vm"]
                  fn $name() { super::super::$name($crate::harness::V6) })*
            }
        }
    };
}

mod devices;

with_flowtables!(
    established_sessions_go_past_the_rules,
    sessions_of_services_do_too,
    off_ends_it_and_nobody_notices,
    offloaded_sessions_leave_a_silent_uplink_and_no_other,
    offloaded_sessions_leave_a_disabled_uplink,
    offloaded_clients_leave_a_dead_server,
    a_closed_connection_is_over_and_a_reset_one_too,
    a_device_that_comes_back_takes_part_again,
    a_binding_lives_under_offloaded_sessions_and_ends_idle,
    datagrams_of_a_service_last_as_long_as_it_says,
    sessions_with_a_helper_and_short_ones_stay_with_the_rules,
    large_packets_are_told_of_a_narrow_path,
    hops_are_counted,
    answers_by_another_uplink_do_not_move_a_session,
    down_leaves_nothing_and_nothing_leaks,
);

fn word(family: Family) -> &'static str {
    if family == Family::V4 { "ipv4" } else { "ipv6" }
}

fn it_is_told_whether_sessions_take_it_and_why(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let has = site.has_flowtables();
    let status = site.status();
    let told = &status["fast_path"];
    assert_eq!(told["used"], has, "{told}");
    let path = site.profile_path();
    let doctor = site.command(crate::harness::homing(), &["doctor", path.to_str().unwrap()]).stdout;
    let doctor = doctor.split_whitespace().collect::<Vec<_>>().join(" ");
    let table = site.homing(&["status"]).stdout;
    if has {
        assert_eq!(told["reason"], Value::Null, "{told}");
        let devices = told["devices"].as_array().unwrap();
        assert!(devices.len() >= 4, "three uplinks and the LAN: {told}");
        assert!(!doctor.contains("[fast-path]"), "{doctor}");
        assert!(table.contains("fast path: "), "{table}");
    } else {
        let reason = told["reason"].as_str().unwrap();
        assert!(reason.contains("no flowtables"), "{told}");
        assert!(doctor.contains("[fast-path]") && doctor.contains("no flowtables"), "{doctor}");
        assert!(table.contains("fast path: not used"), "{table}");
    }
    // Hardware is a wish: a veth has none, and nothing fails.
    let hardware = format!("{}fast-path: hardware\n", one_policy("balance: round-robin"));
    site.reload(&hardware);
    let status = site.status();
    let told = &status["fast_path"];
    assert_eq!(told["used"], has, "{told}");
    assert_eq!(told["hardware"], false, "{told}");
    if has {
        assert!(told["note"].as_str().unwrap().contains("wan"), "whose driver: {told}");
    }
    site.reload(&format!("{}fast-path: off\n", one_policy("balance: round-robin")));
    let status = site.status();
    assert_eq!(status["fast_path"]["used"], false, "{status}");
    assert!(status["fast_path"]["reason"].as_str().unwrap().contains("off"), "{status}");
    assert_eq!(status["kernel"]["state"], "applied", "{status}");
}

/// The entries of connection tracking that a flowtable carries.
fn offloaded(site: &Site) -> Vec<String> {
    let listed = site.command("conntrack", &["-L", "-f", word(site.family)]).stdout;
    listed.lines().filter(|line| line.contains("[OFFLOAD")).map(str::to_owned).collect()
}

fn is_offloaded(site: &Site, session: &Session) -> bool {
    let port = format!(" sport={} ", session.local.port());
    offloaded(site).iter().any(|line| line.contains(&port))
}

/// The sessions speak until all go past the rules.
fn wait_offloaded(site: &Site, sessions: &mut [Session]) {
    let speak = || {
        // Of 24 packets one asks to be let in.
        for _ in 0..24 {
            for session in sessions.iter_mut() {
                session.ask(PATIENCE).expect("an answer");
            }
        }
        let carried = offloaded(site);
        let missing = sessions.iter().filter(|session| {
            let port = format!(" sport={} ", session.local.port());
            !carried.iter().any(|line| line.contains(&port))
        });
        missing.count()
    };
    until(2 * PATIENCE, speak, |missing| *missing == 0)
        .unwrap_or_else(|missing| panic!("{missing} sessions stay with the rules"));
}

/// Counts what passes the hook at which the rules are.
struct Witness(Namespace);

impl Witness {
    fn new(site: &Site) -> Witness {
        let router = site.router();
        let table = "table inet witness {\n counter passed { }\n chain c { type filter hook forward \
                     priority -10; meta l4proto { tcp, udp } counter name passed; }\n}\n";
        router.nft(&table.replace("passed { }", "passed {\n }")).expect("a counter");
        Witness(router)
    }

    fn passed(&self) -> u64 {
        let shown = self.0.nft_json(&["list", "counter", "inet", "witness", "passed"]).unwrap();
        let objects = shown["nftables"].as_array().unwrap();
        let counter = objects.iter().find_map(|object| object.get("counter")).unwrap();
        counter["packets"].as_u64().unwrap()
    }
}

/// Sessions from these hosts, of both kinds.
fn open(site: &Site, hosts: std::ops::Range<u16>) -> Vec<Session> {
    let to = site.server(0, 80);
    let kinds = [(Protocol::Tcp, to), (Protocol::Udp, site.server(0, 53))];
    let wanted: Vec<_> =
        hosts.flat_map(|host| kinds.map(|(kind, to)| (kind, Some(site.host(host)), to))).collect();
    site.lan().open_all(&wanted).into_iter().map(|session| session.unwrap()).collect()
}

/// Each speaks ten times, and none of it is seen by the rules.
fn assert_fast(site: &Site, sessions: &mut [Session]) {
    let witness = Witness::new(site);
    for _ in 0..10 {
        site.assert_stay(sessions, "past the rules");
    }
    assert_eq!(witness.passed(), 0, "packets met the rules");
    witness.0.nft("delete table inet witness\n").unwrap();
}

fn established_sessions_go_past_the_rules(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let mut sessions = open(&site, 0..6);
    wait_offloaded(&site, &mut sessions);
    assert_fast(&site, &mut sessions);
    let status = site.status();
    let carried = status["fast_path"]["sessions"].as_u64();
    assert!(carried >= Some(12), "{}", status["fast_path"]);
    let of: u64 = ["fiber", "cable", "lte"]
        .map(|name| status["uplinks"][name]["sessions"].as_u64().unwrap())
        .iter()
        .sum();
    assert!(of >= 12, "{of} sessions are counted");
    let listed = site.homing(&["sessions", "--json"]).json();
    let listed = listed["sessions"].as_array().unwrap();
    for session in &sessions {
        let port = session.local.port();
        let line = listed.iter().find(|line| line["client_port"] == port);
        assert_eq!(line.map(|line| &line["offloaded"]), Some(&Value::Bool(true)), "{line:?}");
    }
    let shown = site.homing(&["sessions"]).stdout;
    assert!(shown.lines().any(|line| line.contains("fast")), "{shown}");
    let (from, to) = (site.host(1).to_string(), site.server(0, 80).ip().to_string());
    let ask = ["explain", "--from", &from, "--to", &to, "--protocol", "tcp", "--port", "80"];
    let explained = site.homing(&ask).stdout;
    assert!(explained.contains("fast path"), "{explained}");
}

const SHOP: &str = "  shop: { virtual: [fiber], protocol: [tcp, udp], ports: [443], group: web }\n";

fn sessions_of_services_do_too(family: Family) {
    let scene = Scene::start(family, SHOP);
    let mut sessions = scene.open(0..4, Protocol::Tcp, "fiber", 443);
    sessions.extend(scene.open(4..8, Protocol::Udp, "fiber", 443));
    let servers = scene.servers(&sessions);
    wait_offloaded(&scene.site, &mut sessions);
    assert_fast(&scene.site, &mut sessions);
    assert_eq!(scene.servers(&sessions), servers, "each is with its server");
}

fn off_ends_it_and_nobody_notices(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let mut sessions = open(&site, 0..4);
    wait_offloaded(&site, &mut sessions);
    site.reload(&format!("{}fast-path: off\n", one_policy("balance: round-robin")));
    site.assert_stay(&mut sessions, "it is off");
    until(PATIENCE, || offloaded(&site), Vec::is_empty).expect("nothing is offloaded");
    site.reload(&one_policy("balance: round-robin"));
    wait_offloaded(&site, &mut sessions);
    site.assert_settled();
}

/// Sessions of a kind over this uplink, and all others.
fn part(site: &Site, sessions: Vec<Session>, kind: Protocol, uplink: &str) -> [Vec<Session>; 2] {
    let is = |session: &Session| session.protocol == kind && site.uplink(session) == uplink;
    let (these, others) = sessions.into_iter().partition(is);
    [these, others]
}

fn assert_reset(sessions: &mut [Session]) {
    for session in sessions {
        let end = session.wait_for_end(PATIENCE).unwrap();
        assert_eq!(end, Some(ErrorKind::ConnectionReset), "of {}", session.seen);
    }
}

const LEAVING: &str = "balance: round-robin, evacuate-after: 0s";

/// All on the way, then `leave` fiber: who leaves leaves as ever, and nobody else notices.
fn leave(site: &Site, leave: impl FnOnce()) {
    let mut sessions = open(site, 0..30);
    wait_offloaded(site, &mut sessions);
    let [mut connections, rest] = part(site, sessions, Protocol::Tcp, "fiber");
    let [mut datagrams, mut others] = part(site, rest, Protocol::Udp, "fiber");
    assert!(connections.len() >= 5 && datagrams.len() >= 5, "{}", connections.len());
    leave();
    let begun = Instant::now();
    let leaving = connections.len() + datagrams.len();
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            while begun.elapsed() < Duration::from_secs(5) {
                site.assert_stay(&mut others, "another uplink is left");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        assert_reset(&mut connections);
        others.join().expect("sessions over other uplinks");
    });
    for session in &mut datagrams {
        session.ask(PATIENCE).expect("an answer by another uplink");
        assert_ne!(site.uplink(session), "fiber");
    }
    let count = || site.status()["uplinks"]["fiber"]["evacuated_sessions_total"].as_u64().unwrap();
    let all = |count: &u64| *count >= leaving as u64;
    until(PATIENCE, count, all).expect("they are counted");
    wait_offloaded(site, &mut datagrams);
    wait_offloaded(site, &mut others);
    site.wait_settled();
}

fn offloaded_sessions_leave_a_silent_uplink_and_no_other(family: Family) {
    let site = Site::start(family, &one_policy(LEAVING));
    leave(&site, || site.fail(&["fiber"], Fault::Silent));
}

/// Here packets go on coming in by the uplink that is left.
fn offloaded_sessions_leave_a_disabled_uplink(family: Family) {
    let site = Site::start(family, &one_policy(LEAVING));
    leave(&site, || {
        assert_eq!(site.homing(&["uplink", "fiber", "disable"]).code, Some(0));
    });
}

fn offloaded_clients_leave_a_dead_server(family: Family) {
    let scene = Scene::start(family, SHOP);
    let site = &scene.site;
    let mut sessions = scene.open(0..9, Protocol::Tcp, "fiber", 443);
    sessions.extend(scene.open(9..18, Protocol::Udp, "fiber", 443));
    wait_offloaded(site, &mut sessions);
    let servers = scene.servers(&sessions);
    let dead = servers[0];
    scene.farm.silence(site, dead);
    let (mut others, mut connections, mut datagrams) = (Vec::new(), Vec::new(), Vec::new());
    for (session, server) in sessions.into_iter().zip(servers) {
        match (server == dead, session.protocol) {
            (false, _) => others.push(session),
            (true, Protocol::Tcp) => connections.push(session),
            (true, Protocol::Udp) => datagrams.push(session),
        }
    }
    assert!(connections.len() >= 2 && datagrams.len() >= 2 && others.len() >= 6);
    assert_reset(&mut connections);
    let anew = |session: &mut Session| session.ask(Duration::from_millis(500)).is_ok();
    for session in &mut datagrams {
        until(PATIENCE, || anew(session), |answered| *answered).expect("another server answers");
    }
    assert!(scene.servers(&datagrams).iter().all(|server| *server != dead));
    site.assert_stay(&mut others, "another server is dead");
}

/// What connection tracking has of a session: its line, if there is one.
fn entry(site: &Site, session: &Session) -> Option<String> {
    let port = format!(" sport={} ", session.local.port());
    let listed = site.command("conntrack", &["-L", "-f", word(site.family)]).stdout;
    listed.lines().find(|line| line.contains(&port)).map(str::to_owned)
}

fn a_closed_connection_is_over_and_a_reset_one_too(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let mut sessions: Vec<Session> =
        (0..2).map(|host| site.open(Protocol::Tcp, host, site.server(0, 80))).collect();
    wait_offloaded(&site, &mut sessions);
    let kept: Vec<_> = sessions.iter().map(|session| session.local.port()).collect();
    drop(sessions);
    let over = || {
        let listed = site.command("conntrack", &["-L", "-f", word(family)]).stdout;
        let open = listed.lines().filter(|line| {
            kept.iter().any(|port| line.contains(&format!(" sport={port} ")))
                && ["ESTABLISHED", "OFFLOAD"].iter().any(|state| line.contains(state))
        });
        open.map(str::to_owned).collect::<Vec<_>>()
    };
    // On newer kernels the flowtable lets go of a closed connection only after a while.
    until(6 * PATIENCE, over, Vec::is_empty).expect("closed connections are over");
    // The same addresses and ports are free for another.
    let again = site.open(Protocol::Tcp, 0, site.server(0, 80));
    assert!(entry(&site, &again).is_some());
}

fn flowtable_devices(site: &Site) -> Vec<String> {
    let listed = site.router().nft_json(&["list", "flowtables", "inet"]).unwrap();
    let tables = listed["nftables"].as_array().unwrap();
    let ours = tables.iter().filter_map(|object| object.get("flowtable"));
    let ours = ours.filter(|one| one["table"] == "homing").map(|one| &one["dev"]);
    let names = |dev: &Value| match dev {
        Value::String(one) => vec![one.clone()],
        many => many.as_array().unwrap().iter().map(|d| d.as_str().unwrap().to_owned()).collect(),
    };
    ours.flat_map(names).collect()
}

fn a_device_that_comes_back_takes_part_again(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let mut sessions = open(&site, 0..6);
    wait_offloaded(&site, &mut sessions);
    assert!(flowtable_devices(&site).contains(&"wan0".to_owned()));
    let others = |session: &Session| site.uplink(session) != "fiber";
    let mut others: Vec<_> = sessions.into_iter().filter(others).collect();
    site.stage.delete_line("fiber").unwrap();
    site.wait_usable("fiber", false);
    site.assert_stay(&mut others, "another device is gone");
    let without = |told: &Value| told["left_out"]["wan0"].is_string();
    until(PATIENCE, || site.status()["fast_path"].clone(), without).expect("it is told");
    site.stage.create_line("fiber", true).unwrap();
    site.wait_usable("fiber", true);
    let there = |devices: &Vec<String>| devices.contains(&"wan0".to_owned());
    until(PATIENCE, || flowtable_devices(&site), there).expect("it takes part again");
    let mut anew = open(&site, 6..12);
    assert!(anew.iter().any(|session| site.uplink(session) == "fiber"));
    wait_offloaded(&site, &mut anew);
    site.assert_stay(&mut others, "another device is back");
    site.wait_settled();
    site.wait_status("all is in force", |status| status["kernel"]["state"] == "applied");
}

fn bindings(site: &Site) -> Vec<Value> {
    let listed = site.homing(&["bindings", "--json"]).json();
    listed["bindings"].as_array().unwrap().clone()
}

fn a_binding_lives_under_offloaded_sessions_and_ends_idle(family: Family) {
    let policy = "balance: round-robin, persistence: { by: source, timeout: 6s }";
    let site = Site::start(family, &one_policy(policy));
    let mut sessions = open(&site, 0..3);
    wait_offloaded(&site, &mut sessions);
    let ways: Vec<String> = sessions.iter().map(|session| site.uplink(session)).collect();
    let witness = Witness::new(&site);
    let begun = Instant::now();
    // Time must pass here: longer than twice the timeout.
    while begun.elapsed() < Duration::from_secs(14) {
        site.assert_stay(&mut sessions, "past the rules");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(witness.passed(), 0, "packets met the rules, and might have renewed something");
    assert_eq!(bindings(&site).len(), 3);
    for (host, ways) in (0..).zip(ways.chunks(2)) {
        assert_eq!(site.way_of(host), ways[0], "host {host} is bound");
    }
    // Idle from now on, though open.
    let begun = Instant::now();
    until(3 * PATIENCE, || bindings(&site), Vec::is_empty).expect("idle bindings end");
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(3), "much too early: {took:?}");
    assert!(took <= Duration::from_secs(14), "much too late: {took:?}");
}

fn datagrams_of_a_service_last_as_long_as_it_says(family: Family) {
    let service = "  shop: { virtual: [fiber], protocol: udp, ports: [443], group: web, \
                   persistence: { mode: tcp, timeout: 60s } }\n";
    let scene = Scene::start(family, service);
    let site = &scene.site;
    // What every other UDP session gets is shorter.
    site.router().sysctl(&[("netfilter/nf_conntrack_udp_timeout_stream", "40")]).unwrap();
    let mut sessions = scene.open(0..2, Protocol::Udp, "fiber", 443);
    wait_offloaded(site, &mut sessions);
    let begun = Instant::now();
    let left = || sessions.iter().filter(|session| entry(site, session).is_some()).count();
    while begun.elapsed() < Duration::from_secs(50) {
        assert_eq!(left(), 2, "gone after {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_secs(1));
    }
    until(4 * PATIENCE, left, |left| *left == 0).expect("an idle session ends");
}

fn sessions_with_a_helper_and_short_ones_stay_with_the_rules(family: Family) {
    let policy = one_policy("balance: round-robin");
    let site = Site::start(family, &format!("{policy}helpers: [sip]\n"));
    let mut followed = vec![site.open(Protocol::Udp, 1, site.server(0, 5060))];
    let mut plain = vec![site.open(Protocol::Udp, 2, site.server(0, 443))];
    let short = site.open(Protocol::Udp, 3, site.server(0, 53));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        site.assert_stay(&mut followed, "with a helper");
        std::thread::sleep(Duration::from_millis(100));
    }
    wait_offloaded(&site, &mut plain);
    // Another would have got in by now, but for one of a million.
    for _ in 0..330 {
        followed[0].ask(PATIENCE).expect("an answer");
    }
    assert!(!is_offloaded(&site, &followed[0]), "{:?}", entry(&site, &followed[0]));
    assert!(!is_offloaded(&site, &short), "{:?}", entry(&site, &short));
}

fn large_packets_are_told_of_a_narrow_path(family: Family) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let to = site.server(0, 80);
    let connect = || std::net::TcpStream::connect_timeout(&to, PATIENCE);
    let stream = site.stage.layout().lan().enter(connect).unwrap().unwrap();
    stream.set_read_timeout(Some(2 * PATIENCE)).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    let port = format!(" sport={} ", stream.local_addr().unwrap().port());
    let mut stream = &stream;
    let mut ask = |bytes: usize| {
        stream.write_all(&vec![b'a'; bytes]).unwrap();
        stream.write_all(b"\n").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).expect("an answer");
        assert!(!answer.is_empty());
    };
    let mut carried = || {
        ask(10_000);
        offloaded(&site).iter().any(|line| line.contains(&port))
    };
    until(PATIENCE, &mut carried, |carried| *carried).expect("it goes past the rules");
    for isp in ["fiber", "cable", "lte"] {
        let space = site.stage.isp(isp).unwrap().space().clone();
        let server = to.ip().to_string();
        let found = space.ip_json(&["route", "get", &server]).unwrap();
        let device = found[0]["dev"].as_str().unwrap();
        space.ip(&[format!("link set {device} mtu 1300")]).unwrap();
    }
    ask(50_000);
    ask(50_000);
}

fn hops_are_counted(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let mut sessions = open(&site, 0..6);
    wait_offloaded(&site, &mut sessions);
    let field = if family == Family::V4 { "ip ttl" } else { "ip6 hoplimit" };
    let script = format!(
        "table inet hops {{\n counter right {{\n }}\n counter wrong {{\n }}\n chain c {{ type filter \
         hook prerouting priority -400; iifname \"cust\" meta l4proto {{ tcp, udp }} {field} 63 \
         counter name right accept; iifname \"cust\" meta l4proto {{ tcp, udp }} {field} 64 counter \
         name wrong; }}\n}}\n"
    );
    let spaces = ["fiber", "cable", "lte"].map(|isp| site.stage.isp(isp).unwrap().space().clone());
    spaces.iter().for_each(|space| space.nft(&script).unwrap());
    assert_fast(&site, &mut sessions);
    let count = |name: &str| -> u64 {
        let of = |space: &Namespace| {
            let shown = space.nft_json(&["list", "counter", "inet", "hops", name]).unwrap();
            let objects = shown["nftables"].as_array().unwrap();
            let counter = objects.iter().find_map(|object| object.get("counter")).unwrap();
            counter["packets"].as_u64().unwrap()
        };
        spaces.iter().map(of).sum()
    };
    assert!(count("right") >= 100, "{} packets", count("right"));
}

/// Answers that come in by another uplink do not bring the session there: it stays with the rules.
fn answers_by_another_uplink_do_not_move_a_session(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let to = site.server(0, 53);
    let mut sessions: Vec<_> = (0..6).map(|host| site.open(Protocol::Udp, host, to)).collect();
    let index = sessions.iter().position(|session| site.uplink(session) == "fiber").unwrap();
    let mut session = sessions.swap_remove(index);
    let (fiber, cable) = (site.stage.isp("fiber").unwrap(), site.stage.isp("cable").unwrap());
    // The server's answers come by cable alone: there is the server now, and fiber is silent.
    site.fail(&["fiber"], Fault::Silent);
    let inside = fiber.layout().customer(family);
    let links = site.router().ip_json(&["link", "show", "dev", "wan1"]).unwrap();
    let mac = links[0]["address"].as_str().unwrap();
    let bits = if family == Family::V4 { 32 } else { 128 };
    let nodad = if family == Family::V4 { "" } else { "nodad" };
    let lines = [
        format!("addr add {}/{bits} dev lo {nodad}", to.ip()),
        format!("route replace {inside}/{bits} dev cust"),
        format!("neigh replace {inside} lladdr {mac} dev cust nud permanent"),
    ];
    cable.space().ip(&lines).unwrap();
    let from_cable = Client::new(cable.space());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        from_cable.send(to, session.seen).unwrap();
        // What comes is no answer, only a packet of the session.
        let _ = session.ask(Duration::from_millis(50));
    }
    let line = entry(&site, &session).expect("the session");
    assert!(line.contains("[ASSURED]"), "a session that would be offloaded: {line}");
    assert!(!line.contains("[OFFLOAD]"), "{line}");
}

fn down_leaves_nothing_and_nothing_leaks(family: Family) {
    use nix::sys::signal::Signal;
    let mut site = Site::prepare(family, |b| b);
    let timeouts = ["tcp", "udp"].map(|kind| format!("net.netfilter.nf_flowtable_{kind}_timeout"));
    let read = |site: &Site| {
        timeouts.each_ref().map(|key| site.command("sysctl", &["-n", key]).stdout.trim().to_owned())
    };
    let before = read(&site);
    let policy = "balance: round-robin, persistence: { by: source, timeout: 6s }";
    site.run(&one_policy(policy));
    assert_eq!(read(&site), ["2", "2"], "a third of the shortest time");
    let mut sessions = open(&site, 0..6);
    wait_offloaded(&site, &mut sessions);
    site.stop(Signal::SIGTERM);
    // Without the process all goes on. A flow waits for two seconds only.
    wait_offloaded(&site, &mut sessions);
    assert_fast(&site, &mut sessions);
    // What the router answers itself to late packets goes where main says without homing.
    site.router().nft(crate::leaks::NO_RESETS).unwrap();
    let speaking = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while speaking.load(std::sync::atomic::Ordering::Relaxed) {
                for session in &mut sessions {
                    let _ = session.ask(Duration::from_millis(10));
                }
            }
        });
        let outcome = site.homing(&["down"]);
        std::thread::sleep(Duration::from_millis(500));
        speaking.store(false, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    });
    assert_eq!(flowtable_devices(&site), Vec::<String>::new());
    assert_eq!(read(&site), before);
    site.stage.check_leaks().unwrap();
}
