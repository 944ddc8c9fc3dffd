//! Servers in the DMZ, for services: one host, an address for each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use homing::lab::{Protocol, Servers, Session};
use homing::model::Family;

use super::{PROBES, Site};

/// The port at which the servers serve, when they have one of their own.
pub const BEHIND: u16 = 8080;

/// TCP and UDP ports of each of them.
const TCP: [u16; 5] = [21, 80, 443, 5060, BEHIND];
const UDP: [u16; 8] = [53, 80, 443, 500, 4500, 5060, BEHIND, 20_000];

/// Some servers.
pub struct Farm {
    pub servers: Servers,
    pub addresses: Vec<IpAddr>,
    family: Family,
}

/// The server's name.
pub fn name(index: usize) -> char {
    char::from(b'a' + u8::try_from(index).expect("a small number"))
}

/// The address of a server.
pub fn address(family: Family, index: usize) -> IpAddr {
    let number = 11 + u16::try_from(index).expect("a small number");
    match family {
        Family::V4 => Ipv4Addr::new(10, 2, 0, number as u8).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, number).into(),
    }
}

/// The usual uplinks and LANs, checks that are quick, a group `web` of so many servers, and services.
pub fn profile(family: Family, group: &str, servers: &[&str], services: &str) -> String {
    let mut text = "version: 1\nsite: test\nuplinks:\n".to_owned();
    for (index, name) in ["fiber", "cable", "lte"].iter().enumerate() {
        text += &format!("  {name}: {{ interface: wan{index} }}\n");
    }
    text += PROBES;
    text += "lans:\n  office: { interface: lan0 }\n  dmz: { interface: dmz0 }\n";
    text += &format!("groups:\n  web:\n    {group}\n    servers:\n");
    for (index, keys) in servers.iter().enumerate() {
        let (name, address) = (name(index), address(family, index));
        let comma = if keys.is_empty() { "" } else { ", " };
        text += &format!("      {name}: {{ address: \"{address}\"{comma}{keys} }}\n");
    }
    text + "services:\n" + services
}

/// A check that decides within a fraction of a second.
pub const QUICK: &str =
    "check: { tcp: { port: 8080 }, interval: 200ms, timeout: 150ms, fall: 2, rise: 2 }";

impl Site {
    /// Starts so many servers in the DMZ.
    pub fn farm(&self, servers: usize) -> Farm {
        self.farm_of(self.add_servers(servers), &UDP)
    }

    /// Starts servers at these addresses of the DMZ, which take datagrams at these ports.
    pub fn farm_of(&self, addresses: Vec<IpAddr>, udp: &[u16]) -> Farm {
        let dmz = self.stage.layout().dmz();
        let servers = Servers::start(&dmz, &addresses, &TCP, udp).expect("start the servers");
        Farm { servers, addresses, family: self.family }
    }

    /// Gives the DMZ the addresses of so many servers.
    pub fn add_servers(&self, servers: usize) -> Vec<IpAddr> {
        let dmz = self.stage.layout().dmz();
        let addresses: Vec<IpAddr> = (0..servers).map(|i| address(self.family, i)).collect();
        let (bits, more) = if self.family == Family::V4 { (24, "") } else { (64, "nodad") };
        let add = |a: &IpAddr| format!("address add {a}/{bits} dev eth0 {more}");
        dmz.ip(&addresses.iter().map(add).collect::<Vec<_>>()).expect("add addresses");
        addresses
    }

    /// An address and port of services: the uplink's own, or another that is written out.
    pub fn at(&self, place: &str, port: u16) -> SocketAddr {
        let own = || self.stage.isp(place).unwrap().layout().customer(self.family);
        SocketAddr::new(place.parse().unwrap_or_else(|_| own()), port)
    }

    /// Which server a session is with: as the router's connection tracking has it.
    pub fn server_of(&self, farm: &Farm, session: &Session) -> usize {
        let found = self.try_server_of(farm, session);
        found.unwrap_or_else(|| panic!("no server has the session of {}", session.local))
    }

    pub fn try_server_of(&self, farm: &Farm, session: &Session) -> Option<usize> {
        let protocol = if session.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        let family = if self.family == Family::V4 { "ipv4" } else { "ipv6" };
        let (source, port) = (session.local.ip().to_string(), session.local.port().to_string());
        let to = session.remote.ip().to_string();
        let listed = self.command(
            "conntrack",
            &["-L", "-f", family, "-p", protocol, "-s", &source, "-d", &to, "--sport", &port],
        );
        let line = listed.stdout.lines().next()?;
        let answered = line.split(" src=").nth(2)?.split(' ').next()?;
        let answered: IpAddr = answered.parse().ok()?;
        farm.addresses.iter().position(|address| *address == answered)
    }

    /// The servers of many sessions: how many each has.
    pub fn counts(&self, farm: &Farm, sessions: &[Session]) -> Vec<usize> {
        let mut counts = vec![0; farm.addresses.len()];
        for session in sessions {
            counts[self.server_of(farm, session)] += 1;
        }
        counts
    }

    /// A host of the internet.
    pub fn client(&self, index: usize) -> IpAddr {
        self.server(index, 0).ip()
    }

    /// Waits until a server of the group `web` has this health.
    pub fn wait_server(&self, index: usize, health: &str) {
        let name = name(index).to_string();
        self.wait_status(&format!("server {name} is {health}"), |status| {
            status["groups"]["web"]["servers"][&name]["health"] == health
        });
    }
}

impl Farm {
    /// The server falls silent: nothing that is sent to it arrives.
    pub fn silence(&self, site: &Site, index: usize) {
        let (word, address) = (word(self.family), self.addresses[index]);
        let script = format!(
            "add table inet silence\nadd chain inet silence in {{ type filter hook prerouting \
             priority -400; }}\nadd rule inet silence in {word} daddr {address} drop\n"
        );
        site.stage.layout().dmz().nft(&script).expect("silence a server");
    }

    /// All servers speak again.
    pub fn speak(&self, site: &Site) {
        site.stage.layout().dmz().nft("delete table inet silence\n").expect("let servers speak");
    }

    /// How many connections and datagrams each server had, checks left out.
    pub fn arrivals(&self) -> Vec<u64> {
        let mut counts = vec![0; self.addresses.len()];
        let router = homing::lab::dmz_router(self.family);
        let arrivals = self.servers.arrivals().into_iter();
        for (arrival, count) in arrivals.filter(|(arrival, _)| arrival.source != router) {
            if let Some(index) = self.addresses.iter().position(|a| *a == arrival.server.ip()) {
                counts[index] += count;
            }
        }
        counts
    }
}

/// What a family's header is called.
pub fn word(family: Family) -> &'static str {
    if family == Family::V4 { "ip" } else { "ip6" }
}
