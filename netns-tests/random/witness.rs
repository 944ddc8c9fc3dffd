//! Who saw what: captures at every place, and the new sessions that the kernel tells of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use homing::lab::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

use super::shot::{Caught, Place, Shot, recognise};
use crate::harness::{PATIENCE, Site, until};

/// `ETH_P_ALL`, in network order
const EVERYTHING: i32 = 0x0300;

/// By place and serial number: sources seen, and whether it was refused.
#[derive(Debug, Default)]
struct Sightings {
    shots: BTreeMap<(Place, u32), BTreeSet<IpAddr>>,
    refused: BTreeSet<u32>,
}

pub struct Captures {
    seen: Arc<Mutex<Sightings>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Captures {
    pub fn start(places: &[(Place, Namespace)]) -> Captures {
        let seen = Arc::new(Mutex::new(Sightings::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let start = |(place, space): &(Place, Namespace)| {
            let (place, seen, stop) = (*place, seen.clone(), stop.clone());
            let open =
                || Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(EVERYTHING)));
            let socket = space.enter(open).expect("enter").expect("a packet socket");
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time limit");
            thread::spawn(move || capture(place, socket, &seen, &stop))
        };
        let threads = places.iter().map(start).collect();
        Captures { seen, stop, threads }
    }

    /// Where a packet was seen besides where it began, and with which source.
    pub fn of(&self, shot: &Shot) -> BTreeMap<Place, BTreeSet<IpAddr>> {
        let seen = self.seen.lock().unwrap();
        let here = seen.shots.iter().filter(|((_, serial), _)| *serial == shot.serial);
        let elsewhere = here.filter(|((place, _), _)| *place != shot.place);
        elsewhere.map(|((place, _), sources)| (*place, sources.clone())).collect()
    }

    pub fn refused(&self, shot: &Shot) -> bool {
        self.seen.lock().unwrap().refused.contains(&shot.serial)
    }
}

impl Drop for Captures {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn capture(place: Place, mut socket: Socket, seen: &Mutex<Sightings>, stop: &AtomicBool) {
    let mut packet = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = socket.read(&mut packet) else { continue };
        let mut seen = seen.lock().unwrap();
        match recognise(&packet[..length]) {
            Some(Caught::Shot { serial, source }) => {
                seen.shots.entry((place, serial)).or_default().insert(source);
            }
            Some(Caught::Refusal { serial }) => drop(seen.refused.insert(serial)),
            None => {}
        }
    }
}

/// A new session, as `conntrack` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub mark: u32,
    /// Where replies go: the source after translation.
    pub source: IpAddr,
}

type Key = (u8, IpAddr, IpAddr, u16);

/// `conntrack -E` in the router.
pub struct Events {
    child: Child,
    file: String,
}

impl Events {
    pub fn start(site: &Site) -> Events {
        let file = site.path("events");
        let out = fs::File::create(&file).expect("a file for events");
        let spawn = || {
            Command::new("conntrack")
                .args(["-E", "-e", "NEW", "-b", "8388608"])
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(Stdio::null())
                .spawn()
        };
        let child = site.router().enter(spawn).expect("enter").expect("start conntrack");
        Events { child, file }
    }

    /// Everything told so far.
    pub fn all(&self) -> BTreeMap<Key, Entry> {
        let text = fs::read_to_string(&self.file).expect("the events");
        text.lines().filter_map(parse).collect()
    }

    /// Waits until this session was told of: then all before it were, too.
    pub fn wait_for(&self, shot: &Shot) -> BTreeMap<Key, Entry> {
        let there = |all: &BTreeMap<Key, Entry>| all.contains_key(&key(shot));
        until(PATIENCE, || self.all(), there).expect("the session of the last packet")
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn key(shot: &Shot) -> Key {
    (shot.protocol, shot.from, shot.to, shot.id())
}

/// `[NEW] udp 17 30 src=… dst=… sport=… dport=… [UNREPLIED] src=… dst=… sport=… dport=… mark=…`
fn parse(line: &str) -> Option<(Key, Entry)> {
    let line = line.trim().strip_prefix("[NEW]")?;
    let protocol: u8 = line.split_whitespace().nth(1)?.parse().ok()?;
    let values = |name: &str| {
        let start = format!("{name}=");
        let found = line.split_whitespace().filter_map(move |word| word.strip_prefix(&start));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    let address = |name, index: usize| values(name).get(index)?.parse::<IpAddr>().ok();
    let id = values("sport").first().or(values("id").first()).and_then(|id| id.parse().ok());
    let mark = values("mark").first().and_then(|mark| mark.parse().ok()).unwrap_or(0);
    let key = (protocol, address("src", 0)?, address("dst", 0)?, id.unwrap_or(0));
    Some((key, Entry { mark, source: address("dst", 1)? }))
}
