//! What it costs to be watched, and how long a question takes, while many sessions live.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::harness::http::{Connection, Door};
use crate::harness::{Site, V4, profile, until};
use crate::milliseconds;
use crate::sweep::datagram;

/// Clients × servers × sessions of each pair: 100,000.
const CLIENTS: u8 = 250;
const SERVERS: u8 = 200;
const SESSIONS: u16 = 2;

const QUESTIONS: usize = 2000;
const VIEWERS: usize = 20;
const SCRAPES: u32 = 12;
const BETWEEN: Duration = Duration::from_secs(5);

const MORE: &str = "policies: [{ name: default, persistence: { by: source } }]
api: { listen: [\"127.0.0.1:9480\"] }
";

/// Asks for the status, then watches for a minute as a small office's Prometheus and its people would.
pub(crate) fn measure() {
    let site = Site::start(V4, &profile(MORE));
    let longer = [("netfilter/nf_conntrack_udp_timeout", "900")];
    site.router().sysctl(&longer).unwrap();
    site.stage.layout().lan().enter(send_in_all).unwrap();
    let sessions = || site.status()["uplinks"]["fiber"]["sessions"].as_u64().unwrap();
    until(Duration::from_secs(60), sessions, |count| *count > 40_000).expect("sessions");
    println!("{} sessions", site.command("conntrack", &["-C"]).stdout.trim());
    for path in ["/v1/status", "/metrics"] {
        let mut connection = site.connect(Door::Socket);
        let mut times: Vec<Duration> = (0..QUESTIONS).map(|_| ask(&mut connection, path)).collect();
        times.sort_unstable();
        println!(
            "{path}: median {:.2} ms, p99 {:.2} ms, worst {:.2} ms ({QUESTIONS} questions)",
            milliseconds(times[QUESTIONS / 2]),
            milliseconds(times[QUESTIONS * 99 / 100]),
            milliseconds(times[QUESTIONS - 1])
        );
    }
    let idle = share(&site, || thread::sleep(BETWEEN * SCRAPES));
    let door = Door::Tcp("127.0.0.1:9480".parse::<SocketAddr>().unwrap());
    let viewers: Vec<_> =
        (0..VIEWERS).map(|_| site.stream(door, "/v1/events/stream", "")).collect();
    let watched = share(&site, || {
        for _ in 0..SCRAPES {
            assert_eq!(site.get(door, "/metrics").status, 200);
            thread::sleep(BETWEEN);
        }
    });
    drop(viewers);
    println!(
        "processor: {idle:.2} % of a core unwatched, {watched:.2} % with a scrape every 5 s and {VIEWERS} viewers"
    );
    println!("resident: {:.1} MB", resident(&site));
}

/// The time until the whole answer is there.
fn ask(connection: &mut Connection, path: &str) -> Duration {
    let begun = Instant::now();
    write!(connection, "GET {path} HTTP/1.1\r\nHost: homing\r\n\r\n").unwrap();
    let (mut read, mut buffer) = (Vec::new(), [0; 65_536]);
    loop {
        let count = connection.read(&mut buffer).unwrap();
        assert!(count > 0, "the connection has ended");
        read.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() >= length.parse::<usize>().unwrap() {
            return begun.elapsed();
        }
    }
}

/// Per cent of a core that the process takes while something is done.
fn share(site: &Site, work: impl FnOnce()) -> f64 {
    let (begun, before) = (Instant::now(), processor_time(site));
    work();
    (processor_time(site) - before) / begun.elapsed().as_secs_f64() * 100.0
}

/// Of all its threads, in seconds (`proc_pid_stat(5)`; a tick is a hundredth).
fn processor_time(site: &Site) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", site.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

fn resident(site: &Site) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// One datagram in each session, from addresses that the LAN's host need not have.
fn send_in_all() {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    for server in 0..SERVERS {
        let to = Ipv4Addr::new(203, 0, 113, server);
        for client in 0..CLIENTS {
            let from = Ipv4Addr::new(10, 1, 4, client);
            for session in 0..SESSIONS {
                let packet = datagram(from, to, 10_000 + session, 53);
                let to = SockAddr::from(SocketAddr::from(SocketAddrV4::new(to, 0)));
                socket.send_to(&packet, &to).unwrap();
            }
        }
    }
}
