//! Services: ten thousand of them applied, one server's change, memory, bindings shown, and what
//! comes after the decision that a server is down.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::AsyncReadExt as _;

use crate::failover::{stamped, today};
use crate::harness::{PATIENCE, Site, V4, farm, until, with_uplinks};
use crate::spread;
use crate::sweep::datagram;

const FIRST_PORT: u16 = 10_000;
const SERVERS: usize = 4;
const STARTS: usize = 3;
const CHANGES: usize = 15;
/// For what takes a while with so much of everything.
const LONG: Duration = Duration::from_secs(60);
/// Two maps of so many.
const BINDINGS: u32 = 50_000;
/// Sessions of all three servers.
const SESSIONS: u16 = 30_300;
const IDLE: u64 = 10_000;
const DECISIONS: u32 = 7;

/// Ten thousand services: each with a group of its own, and all with one; and fewer, for comparison.
pub(crate) fn measure() {
    for (services, groups) in [(10_000, 10_000), (10_000, 1), (1000, 1000)] {
        let what = format!(
            "{services} services, {}",
            if groups == 1 { "one group" } else { "a group each" }
        );
        if let Err(why) = measure_many(&what, services, groups) {
            println!("{what}: not ready after {} s: {why}", LONG.as_secs());
        }
    }
}

fn measure_many(what: &str, services: u16, groups: u16) -> Result<(), String> {
    let mut site = Site::prepare(V4, |b| b);
    reach_servers(&site);
    site.write_profile(&many(services, groups));
    let (mut starts, mut applies, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        if site.running() {
            site.stop(Signal::SIGTERM);
            let down = site.homing(&["down"]);
            assert_eq!(down.code, Some(0), "{down:?}");
            let _ = std::fs::remove_dir_all(site.path("state"));
        }
        starts.push(start(&mut site)?);
        let took = status(&site)["kernel"]["last_apply_ms"].as_f64().expect("applied");
        applies.push(Duration::from_secs_f64(took / 1000.0));
        site.stop(Signal::SIGTERM);
        again.push(start(&mut site)?);
    }
    println!("{what}, applied, nothing there before: {}", spread(applies));
    println!("{what}, start to ready, nothing there before: {}", spread(starts));
    println!("{what}, start to ready, data plane in place: {}", spread(again));
    let last = format!("g{}", groups - 1);
    let all = usize::from(groups) * SERVERS;
    let since = Instant::now();
    let up = || ups(&status(&site));
    match until(LONG, up, |up| *up == all) {
        Ok(_) => println!("{what}, {all} servers up after: {:.1} s", since.elapsed().as_secs_f64()),
        Err(up) => println!("{what}, of {all} servers {up} up after: {} s", LONG.as_secs()),
    }
    let (mut changes, mut whole) = (Vec::new(), Vec::new());
    for turn in 0..CHANGES {
        let order = ["drain", "enable"][turn % 2];
        let begun = Instant::now();
        let done = site.homing(&["server", &format!("{last}/b"), order]);
        assert_eq!(done.code, Some(0), "{done:?}");
        let usable =
            |shown: &Value| shown["groups"][&last]["servers"]["b"]["usable"] == (order == "enable");
        let shown = until(PATIENCE, || status(&site), usable).expect("the order is obeyed");
        whole.push(begun.elapsed());
        let took = shown["kernel"]["last_steer_ms"].as_f64().expect("steered the short way");
        changes.push(Duration::from_secs_f64(took / 1000.0));
    }
    println!("{what}, one server's change: {}", spread(changes));
    println!("{what}, the command and a status after it: {}", spread(whole));
    let (now, most) = (resident(&site, "VmRSS:"), resident(&site, "VmHWM:"));
    println!("{what}, resident: {now:.1} MB (highest {most:.1} MB)");
    println!("{what}, idle: {:.2} % of a core", idle(&site));
    println!("{what}, resident after that: {:.1} MB", resident(&site, "VmRSS:"));
    Ok(())
}

/// Addresses of ten thousand groups, all of them the DMZ's host, behind one neighbour. It takes
/// connections at the port that is checked.
fn reach_servers(site: &Site) {
    let dmz = site.stage.layout().dmz();
    dmz.ip(&["addr add 10.2.0.11/24 dev eth0".into(), "route add local 10.3.0.0/16 dev lo".into()])
        .unwrap();
    let device = "dmz0";
    site.router().ip(&[format!("route add 10.3.0.0/16 via 10.2.0.11 dev {device}")]).unwrap();
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, farm::BEHIND).into())?;
        // A thousand servers are asked at once.
        socket.listen(4096)?;
        Ok::<_, std::io::Error>(TcpListener::from(socket))
    };
    let listener = dmz.enter(open).unwrap().unwrap();
    // It ends with the bench.
    thread::spawn(move || listener.incoming().for_each(drop));
}

fn many(services: u16, groups: u16) -> String {
    let mut text = with_uplinks(&["weight: 1", "weight: 1", "weight: 1"]);
    text += "groups:\n";
    for group in 0..groups {
        let check = "check: { tcp: { port: 8080 }, interval: 10m, rise: 1 }";
        write!(text, "  g{group}: {{ {check}, servers: {{").unwrap();
        for (place, name) in ["a", "b", "c", "d"].iter().enumerate() {
            let number = usize::from(group) * SERVERS + place;
            let comma = if place == 0 { "" } else { "," };
            write!(text, "{comma} {name}: {{ address: 10.3.{}.{} }}", number >> 8, number & 255)
                .unwrap();
        }
        text += " } }\n";
    }
    text += "services:\n";
    for service in 0..services {
        let (port, group) = (FIRST_PORT + service, service % groups);
        writeln!(
            text,
            "  s{service}: {{ virtual: [fiber], protocol: tcp, ports: [{port}], group: g{group} }}"
        )
        .unwrap();
    }
    text
}

/// From right before the process is made to its line `ready`; else the last that it said.
fn start(site: &mut Site) -> Result<Duration, String> {
    let _ = std::fs::remove_file(site.path("log"));
    let begun = SystemTime::now();
    site.spawn();
    let line = || site.log().lines().find(|l| l.ends_with(" INFO ready")).map(str::to_owned);
    let warning =
        || site.log().lines().rfind(|l| l.contains(" WARN ")).unwrap_or_default().to_owned();
    let line = until(LONG, line, Option::is_some).map_err(|_| warning())?.unwrap_or_default();
    Ok(today(line.split(' ').next().unwrap()).duration_since(begun).unwrap())
}

/// The status, however long it is.
fn status(site: &Site) -> Value {
    site.homing(&["status", "--json"]).json()
}

fn ups(status: &Value) -> usize {
    let groups = status["groups"].as_object().into_iter().flatten();
    let servers = groups.flat_map(|(_, group)| group["servers"].as_object().into_iter().flatten());
    servers.filter(|(_, server)| server["health"] == "up").count()
}

fn resident(site: &Site, what: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Processor time of all threads over ten seconds.
fn idle(site: &Site) -> f64 {
    let used = || -> BTreeMap<_, u64> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", site.pid())).unwrap();
        // Threads for one task come and go.
        let time = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            Some((task.file_name(), text.split(' ').next()?.parse().ok()?))
        };
        tasks.filter_map(|task| time(task.unwrap())).collect()
    };
    let before = used();
    thread::sleep(Duration::from_secs(10));
    let since = used().into_iter().map(|(task, time)| time - before.get(&task).unwrap_or(&0));
    since.sum::<u64>() as f64 / 1e10 * 100.0
}

/// Two services learn clients, and all of them are shown.
pub(crate) fn measure_bindings() {
    let mut site = Site::prepare(V4, |b| b);
    let _farm = site.farm(3);
    let service = |name: &str, port: u16| {
        format!(
            "  {name}: {{ virtual: [fiber], protocol: tcp, ports: [{port}], group: web, \
             persistence: {{ mode: ssl }} }}\n"
        )
    };
    let services = service("shop", 443) + &service("mail", 80);
    site.run(&farm::profile(V4, farm::QUICK, &["port: 8080"; 3], &services));
    site.wait_server(2, "up");
    let ids: Vec<u64> = (0..3)
        .map(|i| farm::name(i).to_string())
        .map(|name| site.status()["groups"]["web"]["servers"][name]["id"].as_u64().unwrap())
        .collect();
    for map in ["bind4-ssl.shop.fiber.443", "bind4-ssl.mail.fiber.80"] {
        let mut script = format!("add element inet homing {map} {{\n");
        for client in 0..BINDINGS {
            let [_, a, b, c] = client.to_be_bytes();
            let mark = ids[client as usize % ids.len()];
            writeln!(script, "100.{}.{b}.{c} timeout 1h : {mark:#x},", 64 + a).unwrap();
        }
        site.router().nft(&(script + "}\n")).unwrap();
    }
    let mut times = Vec::new();
    for _ in 0..7 {
        let begun = Instant::now();
        let shown = site.homing(&["bindings", "--json"]);
        times.push(begun.elapsed());
        let count = shown.json()["bindings"].as_array().map(Vec::len);
        assert_eq!(count, Some(2 * BINDINGS as usize), "bindings");
    }
    println!("{} bindings shown: {}", 2 * BINDINGS, spread(times));
    println!(
        "  resident: {:.1} MB (highest {:.1} MB)",
        resident(&site, "VmRSS:"),
        resident(&site, "VmHWM:")
    );
}

/// What comes after the decision that a server is down.
pub(crate) fn measure_moves() {
    let times: Vec<Duration> = (0..DECISIONS).map(|_| datagrams()).collect();
    println!("a UDP client is served by another server after the decision: {}", spread(times));
    let mut decisions = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let (told, told_sessions, untouched, others) = crowd();
        println!(
            "  evacuated {told_sessions} sessions; of {others} sessions of other servers {untouched} stayed"
        );
        assert_eq!(untouched, others, "sessions of other servers");
        decisions.push(told);
    }
    println!("10000 UDP sessions of a server evacuated after the decision: {}", spread(decisions));
    let idle = may_open();
    for _ in 0..3 {
        ends.push(reset(idle));
    }
    println!("{idle} idle clients of a server are reset after the decision: {}", spread(ends));
}

fn service(protocol: &str, port: u16) -> String {
    format!("  shop: {{ virtual: [fiber], protocol: {protocol}, ports: [{port}], group: web }}\n")
}

/// A site whose servers all serve.
fn served(group: &str, keys: &[&str], service: &str) -> (Site, farm::Farm) {
    let mut site = Site::prepare(V4, |b| b);
    let farm = site.farm(keys.len());
    site.run(&farm::profile(V4, &format!("{group}{}", farm::QUICK), keys, service));
    for index in 0..keys.len() {
        site.wait_server(index, "up");
    }
    (site, farm)
}

/// Until a client that sends every millisecond from one port is answered by another server.
fn datagrams() -> Duration {
    let (site, farm) = served("", &["", "", ""], &service("udp", 5060));
    let (to, host) = (site.at("fiber", 5060), site.client(1));
    let stop = AtomicBool::new(false);
    let silent = AtomicBool::new(false);
    let internet = site.stage.layout().internet();
    let socket =
        internet.enter(|| UdpSocket::bind(SocketAddr::new(host, 30_000))).unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    let flow = || {
        let (mut buffer, mut quiet) = ([0; 256], Instant::now());
        while !stop.load(Ordering::Relaxed) {
            let _ = socket.send_to(b"?", to);
            thread::sleep(Duration::from_millis(1));
            while socket.recv(&mut buffer).is_ok() {
                // Who has fallen silent says nothing for longer than this, until it is decided.
                if silent.load(Ordering::Relaxed) && quiet.elapsed() > Duration::from_millis(100) {
                    return SystemTime::now();
                }
                quiet = Instant::now();
            }
        }
        SystemTime::UNIX_EPOCH
    };
    thread::scope(|scope| {
        let flow = scope.spawn(flow);
        thread::sleep(Duration::from_millis(300));
        let index = first_server(&site, &farm, host, to);
        farm.silence(&site, index);
        silent.store(true, Ordering::Relaxed);
        let decided = stamped(&site, &format!("server web/{} is down", farm::name(index)));
        thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        let again = flow.join().unwrap();
        assert!(again > SystemTime::UNIX_EPOCH, "no other server answered");
        again.duration_since(decided).unwrap_or_default()
    })
}

/// Which server a client's only session is with.
fn first_server(site: &Site, farm: &farm::Farm, client: IpAddr, to: SocketAddr) -> usize {
    let sessions = sessions(site, "udp", to.port());
    let found = sessions.iter().find(|((source, _), _)| *source == client).expect("its session");
    farm.addresses.iter().position(|address| address == found.1).expect("one of ours")
}

/// Client and port of each session of a service, and the server.
fn sessions(site: &Site, protocol: &str, port: u16) -> BTreeMap<(IpAddr, u16), IpAddr> {
    let port = port.to_string();
    let listed = site.command("conntrack", &["-L", "-p", protocol, "--orig-port-dst", &port]);
    let session = |line: &str| {
        let all = |key: &str| -> Vec<String> {
            line.split(' ').filter_map(|w| w.strip_prefix(key)).map(str::to_owned).collect()
        };
        let (addresses, ports) = (all("src="), all("sport="));
        let client = (addresses.first()?.parse().ok()?, ports.first()?.parse().ok()?);
        Some((client, addresses.get(1)?.parse().ok()?))
    };
    listed.stdout.lines().filter_map(session).collect()
}

/// Thirty thousand sessions, a third of them with the server that falls silent: from the decision to
/// the line that says that all have left; how many, and how many of the others' are as they were.
fn crowd() -> (Duration, u64, usize, usize) {
    let (site, farm) = served("", &["", "", ""], &service("udp", 20_000));
    let to = site.at("fiber", 20_000);
    let clients: Vec<IpAddr> = (0..3).map(|index| site.client(index)).collect();
    let internet = site.stage.layout().internet();
    // Nobody listens there, and nobody is to say so.
    internet
        .nft("table inet quiet { chain in { type filter hook prerouting priority -400; udp sport 20000 drop; } ; }")
        .unwrap();
    internet.enter(|| send_in_all(&clients, to)).unwrap();
    let all = sessions(&site, "udp", to.port());
    assert!(all.len() > usize::from(SESSIONS) * 99 / 100, "{} sessions", all.len());
    farm.silence(&site, 0);
    let decided = stamped(&site, "server web/a is down");
    let told = stamped(&site, " sessions of server web/a");
    let line =
        site.log().lines().rfind(|l| l.contains(" sessions of server web/a")).map(str::to_owned);
    let words = line.unwrap();
    let count =
        words.split("evacuated ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    let after = sessions(&site, "udp", to.port());
    let others: BTreeSet<_> =
        all.iter().filter(|(_, server)| **server != farm.addresses[0]).collect();
    let stayed = others.iter().filter(|(client, server)| after.get(client) == Some(server)).count();
    let left = after.values().filter(|server| **server == farm.addresses[0]).count();
    assert_eq!(left, 0, "sessions are still with the server");
    (told.duration_since(decided).unwrap_or_default(), count.unwrap(), stayed, others.len())
}

/// One datagram in each session.
fn send_in_all(clients: &[IpAddr], to: SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    let SocketAddr::V4(to) = to else { panic!("IPv4") };
    for number in 0..SESSIONS {
        let IpAddr::V4(client) = clients[usize::from(number) % clients.len()] else {
            panic!("IPv4")
        };
        let packet = datagram(client, *to.ip(), 30_000 + number / 3, to.port());
        socket.send_to(&packet, &SockAddr::from(SocketAddrV4::new(*to.ip(), 0))).unwrap();
    }
}

/// So many idle clients, or as many as there may be: both ends of each session are ours.
fn may_open() -> usize {
    const OTHERS: u64 = 500;
    let wanted = 2 * IDLE + OTHERS;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let most = match setrlimit(Resource::RLIMIT_NOFILE, wanted.max(most), wanted.max(most)) {
        Ok(()) => wanted,
        Err(_) => most.min(wanted),
    };
    setrlimit(Resource::RLIMIT_NOFILE, most, getrlimit(Resource::RLIMIT_NOFILE).unwrap().1)
        .unwrap();
    usize::try_from((most - OTHERS) / 2).unwrap()
}

/// Until every idle TCP client of a server has seen its reset.
fn reset(idle: usize) -> Duration {
    let (site, farm) = served("", &["", "backup: true"], &service("tcp", 5060));
    let to = site.at("fiber", 5060);
    let hosts: Vec<IpAddr> = (0..3).map(|index| site.client(index)).collect();
    let (ready, opened) = mpsc::channel();
    let clients = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut all = tokio::task::JoinSet::new();
            for index in 0..idle {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                let port = 20_000 + u16::try_from(index / hosts.len()).unwrap();
                socket.bind(SocketAddr::new(hosts[index % hosts.len()], port)).unwrap();
                let mut stream = socket.connect(to).await.expect("a session");
                all.spawn(async move {
                    let mut byte = [0];
                    let _ = stream.read(&mut byte).await.expect_err("a reset");
                    SystemTime::now()
                });
            }
            ready.send(()).unwrap();
            let mut last = SystemTime::UNIX_EPOCH;
            while let Some(ended) = all.join_next().await {
                last = last.max(ended.unwrap());
            }
            last
        })
    };
    thread::scope(|scope| {
        let clients = scope.spawn(|| site.stage.layout().internet().enter(clients).unwrap());
        opened.recv().unwrap();
        farm.silence(&site, 0);
        let last = clients.join().unwrap();
        let decided = stamped(&site, "server web/a is down");
        let told = stamped(&site, " sessions of server web/a");
        println!("  homing was done after {:?}", told.duration_since(decided).unwrap_or_default());
        last.duration_since(decided).unwrap_or_default()
    })
}
