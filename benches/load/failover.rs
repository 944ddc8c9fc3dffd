//! From a break to the first of 20 new sessions in a row that all succeed; from the decision to the
//! resets that idle clients see, and to the next answer of a UDP flow; and what it costs to probe.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use homing::lab::{Builder, Fault};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt as _;

use crate::harness::{PATIENCE, Site, V4, until, with_uplinks};
use crate::spread;

const RUNS: u32 = 20;
/// So often a new session is begun,
const EVERY: Duration = Duration::from_millis(1);
/// and so long it may wait for its answer.
const ANSWER: Duration = Duration::from_millis(100);
/// So many in a row must succeed.
const ROW: usize = 20;

pub(crate) fn measure() {
    for (what, fault, pace, watch) in [
        ("carrier lost", Fault::Carrier, "", 1500),
        ("silent break, default settings", Fault::Silent, "", 3500),
        (
            "silent break, interval and timeout 100 ms",
            Fault::Silent,
            "    interval: 100ms\n    timeout: 100ms\n",
            1500,
        ),
    ] {
        let mut site = Site::prepare(V4, |b| b);
        let text = profile(pace, "balance: round-robin");
        let mut times = Vec::new();
        for run in 0..RUNS {
            fresh(&mut site, &text);
            // A phase of its own in the interval of a second.
            std::thread::sleep(Duration::from_millis(
                1500 + u64::from(run) * 1000 / u64::from(RUNS),
            ));
            times.push(break_and_watch(&site, fault, Duration::from_millis(watch)));
            heal(&site);
        }
        println!("failover, {what}: {}", spread(times));
    }
}

/// What comes after the decision.
pub(crate) fn measure_evacuation() {
    for count in [1, 5000] {
        let times: Vec<Duration> =
            (0..if count == 1 { 5 } else { 3 }).map(|_| reset(count)).collect();
        println!("reset of {count} idle clients after the decision: {}", spread(times));
    }
    let times: Vec<Duration> = (0..5).map(|_| datagrams()).collect();
    println!("a UDP flow answers again after the decision: {}", spread(times));
}

/// Two servers are asked; who comes back is taken at once.
fn profile(pace: &str, policy: &str) -> String {
    let text = with_uplinks(&["weight: 1", "weight: 1", "weight: 1"]);
    let (before, rest) = text.split_once("probes:").unwrap();
    let (_, after) = rest.split_once("lans:").unwrap();
    format!(
        "{before}probes:\n  default:\n    targets:\n      - icmp: 203.0.113.10\n      - icmp: 203.0.113.20\n\
         {pace}lans:{after}policies:\n  - {{ name: default, {policy} }}\n"
    )
}

/// homing begins anew, and remembers nothing of how uplinks answered.
fn fresh(site: &mut Site, text: &str) {
    if site.running() {
        site.stop(Signal::SIGTERM);
        let _ = std::fs::remove_dir_all(site.path("state"));
    }
    site.write_profile(text);
    site.spawn();
    site.wait_ready();
    for uplink in ["fiber", "cable"] {
        let up = |health: &String| health == "up";
        until(PATIENCE, || site.health(uplink).0, up).expect("up at the start");
    }
}

/// Until something answers by the link again: the first second after a carrier's return is lost to
/// neighbour discovery, and would be in the figures of the next run.
fn heal(site: &Site) {
    site.heal(&["fiber"]);
    let target = site.server(0, 0).ip().to_string();
    let ping = ["-n", "-c", "1", "-W", "1", "-I", "wan0", target.as_str()];
    until(PATIENCE, || site.command("ping", &ping).code, |code| *code == Some(0))
        .expect("it answers again");
}

/// Begins sessions all the time; when the first of a row began that all succeeded, after the break.
fn break_and_watch(site: &Site, fault: Fault, watch: Duration) -> Duration {
    let (to, host) = (site.server(0, 53), site.host(1));
    let (broken, breaks) = mpsc::channel::<Instant>();
    let sessions = move || {
        let mut open: VecDeque<(Instant, UdpSocket)> = VecDeque::new();
        let mut done: Vec<(Instant, bool)> = Vec::new();
        let mut end = Instant::now() + 10 * watch;
        let mut at = None;
        let mut next = Instant::now();
        let mut buffer = [0; 256];
        while Instant::now() < end || !open.is_empty() {
            if let Ok(moment) = breaks.try_recv() {
                (at, end) = (Some(moment), moment + watch);
            }
            let now = Instant::now();
            if now < end && now >= next {
                let socket = UdpSocket::bind(SocketAddr::new(host, fresh_port())).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.send_to(b"?", to);
                open.push_back((now, socket));
                next = now + EVERY;
            }
            while let Some((begun, socket)) = open.front() {
                let answered = socket.recv(&mut buffer).is_ok();
                if !answered && begun.elapsed() < ANSWER {
                    break;
                }
                done.push((*begun, answered));
                open.pop_front();
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        (at.unwrap(), done)
    };
    let (at, done) = std::thread::scope(|scope| {
        let watching = scope.spawn(move || site.stage.layout().lan().enter(sessions).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        let moment = Instant::now();
        site.fail(&["fiber"], fault);
        broken.send(moment).unwrap();
        watching.join().unwrap()
    });
    let after: Vec<_> = done.iter().filter(|(begun, _)| *begun >= at).collect();
    // To break a link takes a moment in which it still works: the row begins after the first loss.
    let lost = after.iter().position(|(_, answered)| !answered);
    assert!(lost.is_some() || fault == Fault::Carrier, "nothing was broken");
    let rest = &after[lost.unwrap_or_default()..];
    let row = rest.windows(ROW).find(|row| row.iter().all(|(_, answered)| *answered));
    row.expect("new sessions never succeeded again")[0].0.duration_since(at)
}

/// From a port that was not used for a minute: a session that the kernel still knows is no new one.
fn fresh_port() -> u16 {
    const FIRST: u32 = 2000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % (65536 - FIRST);
    u16::try_from(FIRST + number).unwrap()
}

/// The moment of the line in the log that says that fiber is down.
fn decided(site: &Site) -> SystemTime {
    stamped(site, "uplink fiber is down")
}

/// The moment of the last line in the log with these words, which is waited for.
pub(crate) fn stamped(site: &Site, words: &str) -> SystemTime {
    let line = || site.log().lines().rfind(|line| line.contains(words)).map(str::to_owned);
    let line = until(PATIENCE, line, Option::is_some).expect("it is told").unwrap();
    let stamp = line.split(' ').next().unwrap();
    today(stamp)
}

/// `2026-01-02T03:04:05.678901Z`; only the time of day counts here.
pub(crate) fn today(stamp: &str) -> SystemTime {
    let (_, time) = stamp.trim_end_matches('Z').split_once('T').unwrap();
    let mut parts = time.split(':').map(|part| part.parse::<f64>().unwrap());
    let mut part = || parts.next().unwrap();
    let of_day = part() * 3600.0 + part() * 60.0 + part();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let midnight = (now / 86400.0).floor() * 86400.0;
    SystemTime::UNIX_EPOCH + Duration::from_secs_f64(midnight + of_day)
}

/// Until every one of so many idle clients has seen its reset.
fn reset(count: usize) -> Duration {
    let mut site = Site::prepare(V4, |b| b.hosts(250));
    fresh(&mut site, &profile("", "uplinks: [[fiber], [cable]], evacuate-after: 0s"));
    // Both ends of each session are ours.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let to = site.server(0, 80);
    let hosts: Vec<_> = (0..250).map(|index| site.host(index)).collect();
    let (ready, opened) = mpsc::channel();
    let clients = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut all = tokio::task::JoinSet::new();
            for index in 0..count {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.bind(SocketAddr::new(hosts[index % hosts.len()], 0)).unwrap();
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
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| site.stage.layout().lan().enter(clients).unwrap());
        opened.recv().unwrap();
        site.fail(&["fiber"], Fault::Silent);
        let last = clients.join().unwrap();
        last.duration_since(decided(&site)).unwrap_or_default()
    })
}

/// Until a flow that sends every millisecond is answered by the other link.
fn datagrams() -> Duration {
    let mut site = Site::prepare(V4, |b| b);
    fresh(&mut site, &profile("", "uplinks: [[fiber], [cable]], evacuate-after: 0s"));
    let (to, host) = (site.server(0, 53), site.host(1));
    let stop = AtomicBool::new(false);
    let flow = || {
        let socket = UdpSocket::bind(SocketAddr::new(host, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut first, mut buffer) = (String::new(), [0; 256]);
        while !stop.load(Ordering::Relaxed) {
            let _ = socket.send_to(b"?", to);
            std::thread::sleep(EVERY);
            while let Ok(length) = socket.recv(&mut buffer) {
                let seen = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if first.is_empty() {
                    first = seen;
                } else if first != seen {
                    return SystemTime::now();
                }
            }
        }
        SystemTime::UNIX_EPOCH
    };
    std::thread::scope(|scope| {
        let flow = scope.spawn(|| site.stage.layout().lan().enter(flow).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        site.fail(&["fiber"], Fault::Silent);
        let decided = decided(&site);
        let again = flow.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        again.duration_since(decided).unwrap_or_default()
    })
}

/// Eight uplinks ask four targets each, every second.
pub(crate) fn measure_probing() {
    const SECONDS: u64 = 20;
    let names: Vec<String> = (1..=8).map(|number| format!("isp{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut site = Site::prepare(V4, |_| Builder::new(&names));
    let mut text = "version: 1\nsite: test\nuplinks:\n".to_owned();
    for (index, name) in names.iter().enumerate() {
        text += &format!("  {name}: {{ interface: wan{index} }}\n");
    }
    text += "probes:\n  default:\n    targets:\n";
    for index in 0..4 {
        text += &format!("      - icmp: {}\n", site.server(index, 0).ip());
    }
    text += "lans: { office: { interface: lan0 } }\n";
    site.run(&text);
    // What the start costs is not counted.
    std::thread::sleep(Duration::from_secs(3));
    let stat = || -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", site.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = stat();
    std::thread::sleep(Duration::from_secs(SECONDS));
    // A hundred ticks are a second.
    let share = (stat() - before) as f64 / SECONDS as f64;
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    println!(
        "8 uplinks ask 4 targets each second: {share:.2} % of a core, {:.1} MB",
        kilobytes / 1024.0
    );
}
