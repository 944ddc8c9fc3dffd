//! Steady light traffic: from the hosts of the LAN, and from the internet to the site's services.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::doors::Door;
use crate::lab::{
    Client, Layout, Namespace, Protocol, Session, caller_address, host_address, server,
};
use crate::model::Family;

/// Ports of the demo's servers.
pub(super) const TCP: [u16; 3] = [80, 443, 8080];
pub(super) const UDP: [u16; 2] = [53, 5060];

/// Sessions that stay open; the oldest goes when there are more.
const OPEN: usize = 240;
const OPEN_OUTSIDE: usize = 100;
/// A new session this often from each of the workers.
const PAUSE: Duration = Duration::from_millis(100);
const WORKERS: u16 = 3;
const TIMEOUT: Duration = Duration::from_secs(1);

/// What the clients lived through.
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
    /// The office's hosts call the internet's servers; hosts of the internet call the site's services.
    pub(super) fn start(layout: &Layout, doors: Vec<Door>) -> Traffic {
        let mut traffic =
            Traffic { counts: Arc::default(), alarm: Vec::new(), workers: Vec::new() };
        for number in 0..WORKERS {
            let hosts = layout.hosts;
            let next =
                move |step: u16| office(step.wrapping_mul(WORKERS).wrapping_add(number), hosts);
            traffic.add(Worker { space: layout.lan(), open: OPEN / usize::from(WORKERS), next });
        }
        if !doors.is_empty() && layout.callers > 0 {
            let callers = layout.callers;
            let next = move |step| outside(step, callers, &doors);
            traffic.add(Worker { space: layout.internet(), open: OPEN_OUTSIDE, next });
        }
        traffic
    }

    fn add(&mut self, worker: Worker<impl Fn(u16) -> Call + Send + 'static>) {
        let (alarm, wake) = mpsc::channel();
        let counts = Arc::clone(&self.counts);
        self.alarm.push(alarm);
        self.workers.push(thread::spawn(move || worker.work(&counts, &wake)));
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

/// Who calls whom next.
type Call = (Protocol, IpAddr, SocketAddr);

/// One who opens a session, lets one that is open say something, pauses, and begins again.
struct Worker<N> {
    space: Namespace,
    /// So many of its sessions stay open.
    open: usize,
    /// From the number of the step.
    next: N,
}

impl<N: Fn(u16) -> Call> Worker<N> {
    fn work(&self, counts: &Counts, wake: &mpsc::Receiver<()>) {
        let client = Client::new(&self.space).timeout(TIMEOUT);
        let mut open: VecDeque<Session> = VecDeque::new();
        let mut step = 0u16;
        while !counts.stop.load(Ordering::Relaxed) {
            begin(&client, (self.next)(step), &mut open, counts);
            if open.len() > self.open {
                open.pop_front();
            }
            talk(&client, &mut open, counts);
            step = step.wrapping_add(1);
            // Nothing is ever sent: this is a pause that ends early with the lab.
            if wake.recv_timeout(PAUSE) == Err(mpsc::RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }
}

fn begin(
    client: &Client,
    (protocol, from, to): Call,
    open: &mut VecDeque<Session>,
    counts: &Counts,
) {
    match client.open(protocol, Some(from), to) {
        Ok(session) => {
            counts.opened.fetch_add(1, Ordering::Relaxed);
            open.push_back(session);
        }
        Err(_) => drop(counts.failed.fetch_add(1, Ordering::Relaxed)),
    }
}

/// One open session says something, in turn. For one that broke its client calls anew, from another
/// port.
fn talk(client: &Client, open: &mut VecDeque<Session>, counts: &Counts) {
    let Some(mut session) = open.pop_front() else {
        return;
    };
    if session.ask(TIMEOUT).is_ok() {
        return open.push_back(session);
    }
    counts.broken.fetch_add(1, Ordering::Relaxed);
    let again = (session.protocol, session.local.ip(), session.remote);
    drop(session);
    begin(client, again, open, counts);
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
fn office(step: u16, hosts: u16) -> Call {
    let (protocol, index, port) = MIX[usize::from(step) % MIX.len()];
    let family = if (step / 8).is_multiple_of(2) { Family::V4 } else { Family::V6 };
    let host = step.wrapping_mul(7) % hosts.max(1);
    (protocol, host_address(family, host), SocketAddr::new(server(family, index), port))
}

/// The next door, and the next of those who call.
fn outside(step: u16, callers: u16, doors: &[Door]) -> Call {
    let (protocol, to) = doors[usize::from(step) % doors.len()];
    let caller = step.wrapping_mul(7) % callers.max(1);
    (protocol, caller_address(Family::of(to.ip()), caller), to)
}
