//! Steady light traffic from the hosts of the LAN.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::lab::{Client, Layout, Namespace, Protocol, Session, host_address, server};
use crate::model::Family;

/// Ports of the demo's servers.
pub(super) const TCP: [u16; 3] = [80, 443, 8080];
pub(super) const UDP: [u16; 2] = [53, 5060];

/// Sessions that stay open; the oldest goes when there are more.
const OPEN: usize = 240;
/// A new session this often from each of the workers.
const PAUSE: Duration = Duration::from_millis(100);
const WORKERS: u16 = 3;
const TIMEOUT: Duration = Duration::from_secs(1);

/// What the clients of the LAN lived through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Sessions that came about.
    pub(super) opened: u64,
    /// Sessions that did not.
    pub(super) failed: u64,
    /// Sessions that broke later on.
    pub(super) broken: u64,
}

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    failed: AtomicU64,
    broken: AtomicU64,
    stop: AtomicBool,
}

/// The workers; they end when this is dropped.
pub(super) struct Traffic {
    counts: Arc<Counts>,
    alarm: Vec<mpsc::Sender<()>>,
    workers: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub(super) fn start(layout: &Layout) -> Traffic {
        let counts = Arc::new(Counts::default());
        let mut traffic =
            Traffic { counts: Arc::clone(&counts), alarm: Vec::new(), workers: Vec::new() };
        for number in 0..WORKERS {
            let (alarm, wake) = mpsc::channel();
            let (lan, hosts, counts) = (layout.lan(), layout.hosts, Arc::clone(&counts));
            traffic.alarm.push(alarm);
            traffic.workers.push(thread::spawn(move || work(number, &lan, hosts, &counts, &wake)));
        }
        traffic
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            opened: self.counts.opened.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
            broken: self.counts.broken.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        self.alarm.clear();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn work(number: u16, lan: &Namespace, hosts: u16, counts: &Counts, wake: &mpsc::Receiver<()>) {
    let client = Client::new(lan).timeout(TIMEOUT);
    let mut open: VecDeque<Session> = VecDeque::new();
    let mut step = number;
    while !counts.stop.load(Ordering::Relaxed) {
        let (protocol, host, to) = next(step, hosts);
        match client.open(protocol, Some(host_address(Family::of(to.ip()), host)), to) {
            Ok(session) => {
                counts.opened.fetch_add(1, Ordering::Relaxed);
                open.push_back(session);
            }
            Err(_) => drop(counts.failed.fetch_add(1, Ordering::Relaxed)),
        }
        if open.len() > OPEN / usize::from(WORKERS) {
            open.pop_front();
        }
        talk(&mut open, counts);
        step = step.wrapping_add(WORKERS);
        // Nothing is ever sent: this is a pause that ends early with the lab.
        if wake.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// One open session says something, in turn; one that broke is given up.
fn talk(open: &mut VecDeque<Session>, counts: &Counts) {
    let Some(mut session) = open.pop_front() else {
        return;
    };
    match session.ask(TIMEOUT) {
        Ok(_) => open.push_back(session),
        Err(_) => drop(counts.broken.fetch_add(1, Ordering::Relaxed)),
    }
}

/// What an office does: web, the bank, names, calls. Server and port.
const MIX: [(Protocol, usize, u16); 8] = [
    (Protocol::Tcp, 0, 80),
    (Protocol::Tcp, 1, 443),
    (Protocol::Udp, 2, 53),
    (Protocol::Tcp, 3, 443),
    (Protocol::Tcp, 0, 443),
    (Protocol::Udp, 1, 5060),
    (Protocol::Tcp, 1, 8080),
    (Protocol::Tcp, 0, 80),
];

/// Whether the office's hosts call this server, so that a call is none of homing's probes.
pub(super) fn calls(protocol: Protocol, to: SocketAddr) -> bool {
    let there = |(_, index, _): &&(_, usize, _)| server(Family::of(to.ip()), *index) == to.ip();
    MIX.iter().filter(there).any(|(by, _, port)| *by == protocol && *port == to.port())
}

/// A round of it, in both families.
fn next(step: u16, hosts: u16) -> (Protocol, u16, SocketAddr) {
    let (protocol, index, port) = MIX[usize::from(step) % MIX.len()];
    let family = if (step / 8).is_multiple_of(2) { Family::V4 } else { Family::V6 };
    let host = step.wrapping_mul(7) % hosts.max(1);
    (protocol, host, SocketAddr::new(server(family, index), port))
}
