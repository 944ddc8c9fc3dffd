//! One sweep over many sessions and bindings: how much processor time its thread takes, and whether
//! steering waits for it.

use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::harness::{Site, V4, one_policy, until};
use crate::milliseconds;

/// Clients × servers are bindings; times sessions of each pair.
const CLIENTS: u16 = 250;

/// Opens 200,000 sessions under 50,000 bindings, and watches the sweep that finds nothing to renew,
/// and one that finds all of them used meanwhile; the latter with 100,000 sessions, too, and with fewer bindings.
pub(crate) fn measure() {
    for (what, servers, each, again) in [
        ("nothing to renew", 200, 4, false),
        ("every binding renewed", 200, 4, true),
        ("every binding renewed", 200, 2, true),
        ("every binding renewed", 40, 10, true),
    ] {
        let policy = "persistence: { by: source-destination, timeout: 1m }";
        let site = Site::start(V4, &one_policy(policy));
        site.stage.layout().lan().enter(|| send_in_all(servers, each)).unwrap();
        if again {
            thread::sleep(Duration::from_secs(5));
            site.stage.layout().lan().enter(|| send_in_all(servers, each)).unwrap();
        }
        let sessions = site.command("conntrack", &["-C"]).stdout;
        let bindings = site.status()["policies"]["default"]["bindings"].clone();
        // Between sweeps it takes down what bindings there are, in case that somebody takes them away.
        let (begun, mut works, mut steered) = (Instant::now(), Vec::new(), None);
        while begun.elapsed() < Duration::from_secs(25) {
            let before = processor_time(&site);
            let grows = |now: &Duration| *now > before + Duration::from_millis(5);
            until(Duration::from_secs(40), || processor_time(&site), grows).expect("work");
            if steered.is_none() {
                site.lose_carrier("lte");
                site.wait_usable("lte", false);
                steered = site.status()["kernel"]["last_steer_ms"].as_f64();
            }
            works.push(rest(&site) - before);
        }
        let (least, most) = (works.iter().min().unwrap(), works.iter().max().unwrap());
        println!(
            "sweep over {} sessions and {bindings} bindings, {what}: {:.0} ms of processor time; \
             a look at the bindings alone: {:.0} ms; a steering change meanwhile: {:.2} ms",
            sessions.trim(),
            milliseconds(*most),
            milliseconds(*least),
            steered.unwrap()
        );
    }
}

/// The thread's processor time, once it does not grow any more.
fn rest(site: &Site) -> Duration {
    let mut last = processor_time(site);
    loop {
        thread::sleep(Duration::from_secs(1));
        let now = processor_time(site);
        if now == last {
            return now;
        }
        last = now;
    }
}

fn processor_time(site: &Site) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", site.pid())).unwrap();
    for task in tasks {
        let folder = task.unwrap().path();
        if fs::read_to_string(folder.join("comm")).unwrap().trim() == "sweeper" {
            let text = fs::read_to_string(folder.join("schedstat")).unwrap();
            let time: u64 = text.split(' ').next().unwrap().parse().unwrap();
            return Duration::from_nanos(time);
        }
    }
    panic!("no sweeper");
}

/// One datagram in each session, from addresses that the LAN's host need not have.
fn send_in_all(servers: u8, sessions: u16) {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    for server in 0..servers {
        let to = Ipv4Addr::new(203, 0, 113, server);
        for client in 0..CLIENTS {
            let from = Ipv4Addr::new(10, 1, 4, client as u8);
            for session in 0..sessions {
                let port = 10_000 + client * sessions + session;
                socket
                    .send_to(
                        &datagram(from, to, port, 53),
                        &SockAddr::from(std::net::SocketAddrV4::new(to, 0)),
                    )
                    .unwrap();
            }
        }
    }
}

/// IPv4 and UDP headers; the kernel fills in the checksum of the first, and the second has none.
pub(crate) fn datagram(from: Ipv4Addr, to: Ipv4Addr, port: u16, to_port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(port.to_be_bytes());
    packet.extend(to_port.to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    packet
}
