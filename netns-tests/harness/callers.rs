//! Clients of services: many of them on the internet, and which server each of their sessions, or
//! packets of any protocol, came to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use homing::lab::{Client, Protocol, Session};
use homing::model::Family;
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::farm::{self, Farm};
use super::{PATIENCE, Site, until};

/// How many clients there are.
const CALLERS: usize = 48;
/// The servers of a scene.
const SERVERS: usize = 3;

/// A site with three servers that take turns, in the groups `web` and `other`, and many clients.
pub struct Scene {
    pub site: Site,
    pub farm: Farm,
    profile: String,
}

/// A client's address: of three networks of 16.
pub fn caller(family: Family, index: usize) -> IpAddr {
    let number = u16::try_from(index).expect("a small number");
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, (112 + number) as u8).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x110 + number).into(),
    }
}

pub fn distinct(servers: &[usize]) -> usize {
    servers.iter().collect::<BTreeSet<_>>().len()
}

impl Site {
    /// Gives the internet many clients.
    pub fn add_callers(&self) {
        let (bits, more) = if self.family == Family::V4 { (32, "") } else { (128, "nodad") };
        let add = |i| format!("address add {}/{bits} dev lo {more}", caller(self.family, i));
        let internet = self.stage.layout().internet();
        internet.ip(&(0..CALLERS).map(add).collect::<Vec<_>>()).expect("add clients");
    }
}

/// A profile with two groups of the same servers, who take turns.
pub fn profile(family: Family, services: &str) -> String {
    let text = farm::profile(family, farm::QUICK, &[""; SERVERS], services);
    let (head, web) = text.split_once("  web:\n").expect("a group");
    let (web, tail) = web.split_once("services:\n").expect("services");
    format!("{head}  web:\n{web}  other:\n{web}services:\n{tail}")
}

impl Scene {
    pub fn start(family: Family, services: &str) -> Scene {
        let mut site = Site::prepare(family, |b| b);
        let farm = site.farm(SERVERS);
        site.add_callers();
        let profile = profile(family, services);
        site.run(&profile);
        let scene = Scene { site, farm, profile };
        scene.wait_up();
        scene
    }

    /// Waits until every server takes sessions.
    pub fn wait_up(&self) {
        self.site.wait_status("all servers are up", |status| {
            let groups = ["web", "other"].map(|group| &status["groups"][group]["servers"]);
            let up = |server: &Value| server["health"] == "up";
            groups.iter().all(|servers| servers.as_object().is_some_and(|s| s.values().all(up)))
        });
    }

    fn family(&self) -> Family {
        self.site.family
    }

    /// Sessions of these clients, in this order.
    pub fn open(
        &self,
        clients: impl IntoIterator<Item = usize>,
        protocol: Protocol,
        uplink: &str,
        port: u16,
    ) -> Vec<Session> {
        let to = self.site.at(uplink, port);
        let wanted = clients.into_iter().map(|i| (protocol, Some(caller(self.family(), i)), to));
        let wanted: Vec<_> = wanted.collect();
        let opened = self.outside().open_all(&wanted).into_iter().zip(&wanted);
        let opened = opened.map(|(session, (_, from, _))| {
            session.unwrap_or_else(|e| panic!("{protocol:?} of {from:?} to {to}: {e}"))
        });
        opened.collect()
    }

    fn outside(&self) -> Client {
        self.site.outside().timeout(Duration::from_secs(5))
    }

    /// The servers of new sessions of these clients.
    pub fn servers_of(
        &self,
        clients: impl IntoIterator<Item = usize>,
        protocol: Protocol,
        uplink: &str,
        port: u16,
    ) -> Vec<usize> {
        self.servers(&self.open(clients, protocol, uplink, port))
    }

    /// The servers of sessions, as connection tracking has them.
    pub fn servers(&self, sessions: &[Session]) -> Vec<usize> {
        let tracked = self.all_tracked();
        let server = |session: &Session| {
            let protocol = if session.protocol == Protocol::Tcp { 6 } else { 17 };
            let key = (protocol, session.local, session.remote);
            let found = tracked.get(&key).and_then(|answers| self.index(*answers));
            found.unwrap_or_else(|| panic!("no server has the session of {}", session.local))
        };
        sessions.iter().map(server).collect()
    }

    /// Sends a datagram from this port of a client; the server of that session.
    pub fn send(&self, client: usize, from: u16, uplink: &str, port: u16) -> usize {
        let from = SocketAddr::new(caller(self.family(), client), from);
        let to = self.site.at(uplink, port);
        self.outside().send(from, to).expect("send");
        let look = || self.all_tracked().get(&(17, from, to)).copied();
        let found = until(PATIENCE, look, Option::is_some).expect("a session").expect("a session");
        self.index(found).expect("a server")
    }

    pub fn ping(&self, client: usize, uplink: &str) {
        let from = caller(self.family(), client);
        let to = self.site.at(uplink, 0).ip();
        self.outside().ping(Some(from), to).unwrap_or_else(|e| panic!("echo of {from}: {e}"));
    }

    /// The servers of these clients' sessions of a protocol without ports.
    pub fn tracked(&self, protocol: u8, clients: Range<usize>, uplink: &str) -> Vec<usize> {
        let tracked = self.all_tracked();
        let to = self.site.at(uplink, 0);
        let server = |client| {
            let from = SocketAddr::new(caller(self.family(), client), 0);
            let found = tracked.get(&(protocol, from, to)).and_then(|to| self.index(*to));
            found.unwrap_or_else(|| panic!("protocol {protocol} of {from}: {tracked:?}"))
        };
        clients.map(server).collect()
    }

    fn index(&self, server: IpAddr) -> Option<usize> {
        self.farm.addresses.iter().position(|address| *address == server)
    }

    /// Protocol, client and address that it asked for → who answers.
    fn all_tracked(&self) -> BTreeMap<(u8, SocketAddr, SocketAddr), IpAddr> {
        let listed = self.site.command("conntrack", &["-L", "-f", self.word()]);
        listed.stdout.lines().filter_map(tracked_line).collect()
    }

    /// What `conntrack` calls the family.
    pub fn word(&self) -> &'static str {
        if self.family() == Family::V4 { "ipv4" } else { "ipv6" }
    }

    /// Connection tracking forgets everything.
    pub fn forget_sessions(&self) {
        let outcome = self.site.command("conntrack", &["-F"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }

    /// The elements of all maps of services' bindings of this family, as nft has them.
    pub fn bindings(&self) -> Vec<Value> {
        let maps = self.maps();
        maps.iter().flat_map(|map| map["elem"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// The maps of services' bindings of this family.
    pub fn maps(&self) -> Vec<Value> {
        let router = self.site.router();
        let listed = router.nft_json(&["list", "table", "inet", "homing"]).expect("nft");
        let start = if self.family() == Family::V4 { "bind4-" } else { "bind6-" };
        let objects = listed["nftables"].as_array().expect("a list").iter();
        let maps = objects.filter_map(|object| object.get("map"));
        maps.filter(|map| map["name"].as_str().unwrap_or_default().starts_with(start))
            .cloned()
            .collect()
    }

    /// Kills the process, and starts it again.
    pub fn kill_and_start(&mut self) {
        self.site.stop(Signal::SIGKILL);
        self.site.run_again();
    }

    /// The process, what it set up, what it remembers, and all sessions go; then it starts anew.
    pub fn lose_everything(&mut self) {
        self.site.stop(Signal::SIGTERM);
        let outcome = self.site.homing(&["down"]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        std::fs::remove_dir_all(self.site.path("state")).expect("remove the state");
        self.forget_sessions();
        self.site.run_again();
        self.wait_up();
    }

    /// The same with these services.
    pub fn reload_with(&self, more_services: &str) {
        self.site.reload(&format!("{}{more_services}", self.profile));
    }

    /// Looks until it sees these servers.
    pub fn until_equal(&self, wanted: &[usize], look: impl FnMut() -> Vec<usize>) {
        until(2 * PATIENCE, look, |seen| seen == wanted)
            .unwrap_or_else(|last| panic!("{last:?} does not become {wanted:?}"));
    }

    /// Ears of all servers for a protocol without ports.
    pub fn ears(&self, protocol: u8) -> Ears {
        let family = self.family();
        let listen = || {
            let sockets = self.farm.addresses.iter().map(|address| raw(family, protocol, *address));
            sockets.collect()
        };
        let sockets = self.site.stage.layout().dmz().enter(listen).expect("enter the DMZ");
        Ears { protocol, sockets }
    }
}

/// Raw sockets, one at each server.
pub struct Ears {
    protocol: u8,
    sockets: Vec<Socket>,
}

impl Ears {
    /// A client sends a packet; the server at which it arrives.
    pub fn server_of(&self, scene: &Scene, client: usize, uplink: &str) -> usize {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let packet = packet(self.protocol, number);
        let from = caller(scene.family(), client);
        let to = SocketAddr::new(scene.site.at(uplink, 0).ip(), 0);
        let send = || raw(scene.family(), self.protocol, from).send_to(&packet, &to.into());
        let sent = scene.site.stage.layout().internet().enter(send).expect("enter the internet");
        sent.expect("send a packet");
        let heard = until(PATIENCE, || self.heard(&packet), Option::is_some);
        let what = format!("protocol {} of {from} to {to}", self.protocol);
        heard.ok().flatten().unwrap_or_else(|| panic!("{what} arrives nowhere"))
    }

    fn heard(&self, packet: &[u8]) -> Option<usize> {
        let hears = |mut socket: &Socket| {
            let mut buffer = [0; 256];
            // What came before is of no interest.
            while let Ok(length) = socket.read(&mut buffer) {
                if buffer[..length].ends_with(packet) {
                    return true;
                }
            }
            false
        };
        self.sockets.iter().position(hears)
    }
}

/// Something that connection tracking takes for a packet of the protocol. Of ESP: SPI, number, data.
fn packet(protocol: u8, number: u32) -> Vec<u8> {
    let mut packet = match protocol {
        // GRE, version 0, no key, of IPv4 (RFC 2784).
        47 => vec![0, 0, 8, 0],
        // SCTP: an INIT chunk, from port 10000 to 10001 (RFC 9260).
        132 => vec![
            0x27, 0x10, 0x27, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0,
            1, 0, 1,
        ],
        _ => vec![0, 0, 0x10, 1],
    };
    packet.extend(number.to_be_bytes());
    if protocol == 132 {
        let checksum = crc32c(&packet).to_le_bytes();
        packet[8..12].copy_from_slice(&checksum);
    }
    packet
}

/// The checksum of SCTP (RFC 9260, appendix A).
fn crc32c(packet: &[u8]) -> u32 {
    let shift = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !packet.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shift))
}

fn raw(family: Family, protocol: u8, at: IpAddr) -> Socket {
    let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(i32::from(protocol).into()));
    let socket = socket.expect("make a raw socket");
    socket.bind(&SocketAddr::new(at, 0).into()).expect("bind a raw socket");
    socket.set_nonblocking(true).expect("set a raw socket up");
    socket
}

/// One line of `conntrack -L`.
fn tracked_line(line: &str) -> Option<((u8, SocketAddr, SocketAddr), IpAddr)> {
    let protocol = line.split_whitespace().nth(1)?.parse().ok()?;
    let values = |key: &str| {
        let key = key.to_owned();
        line.split_whitespace().filter_map(move |word| word.strip_prefix(&key))
    };
    let sources: Vec<IpAddr> = values("src=").filter_map(|text| text.parse().ok()).collect();
    let to: IpAddr = values("dst=").next()?.parse().ok()?;
    let port = |key| values(key).next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let from = SocketAddr::new(*sources.first()?, port("sport="));
    Some(((protocol, from, SocketAddr::new(to, port("dport="))), *sources.get(1)?))
}
