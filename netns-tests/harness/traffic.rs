//! Sessions from the site's hosts, and where they went.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use homing::lab::{self, Client, Protocol, Session};

use super::{PATIENCE, Site, until};

impl Site {
    /// A client in the LAN.
    pub fn lan(&self) -> Client {
        Client::new(&self.stage.layout().lan())
    }

    /// A client in the DMZ.
    pub fn dmz(&self) -> Client {
        Client::new(&self.stage.layout().dmz())
    }

    /// A client on the router itself.
    pub fn own(&self) -> Client {
        Client::new(&self.router())
    }

    /// A client on the internet.
    pub fn outside(&self) -> Client {
        Client::new(&self.stage.layout().internet())
    }

    pub fn host(&self, index: u16) -> IpAddr {
        lab::host_address(self.family, index)
    }

    /// A server on the internet.
    pub fn server(&self, index: usize, port: u16) -> SocketAddr {
        SocketAddr::new(lab::server(self.family, index), port)
    }

    /// A session from a host of the LAN.
    pub fn try_open(&self, protocol: Protocol, host: u16, to: SocketAddr) -> io::Result<Session> {
        self.lan().open(protocol, Some(self.host(host)), to)
    }

    /// A session from a host of the LAN that must come about.
    pub fn open(&self, protocol: Protocol, host: u16, to: SocketAddr) -> Session {
        self.try_open(protocol, host, to)
            .unwrap_or_else(|error| panic!("{protocol:?} from host {host} to {to}: {error}"))
    }

    /// The uplink that such a session takes.
    pub fn way(&self, protocol: Protocol, host: u16, to: SocketAddr) -> String {
        self.uplink(&self.open(protocol, host, to))
    }

    /// The uplink that a TCP session to the first server takes.
    pub fn way_of(&self, host: u16) -> String {
        self.way(Protocol::Tcp, host, self.server(0, 80))
    }

    /// Sessions to the first server, from host after host.
    pub fn open_many(&self, protocol: Protocol, hosts: std::ops::Range<u16>) -> Vec<Session> {
        let to = self.server(0, 80);
        let known = self.stage.layout().hosts;
        let wanted: Vec<_> = hosts.map(|i| (protocol, Some(self.host(i % known)), to)).collect();
        let opened = self.lan().open_all(&wanted).into_iter().enumerate();
        opened
            .map(|(i, session)| session.unwrap_or_else(|e| panic!("session {i} to {to}: {e}")))
            .collect()
    }

    /// The uplink that a session takes, by the address that the server saw.
    pub fn uplink(&self, session: &Session) -> String {
        self.uplink_with(session.seen.ip())
    }

    /// The uplink that has this address.
    pub fn uplink_with(&self, address: IpAddr) -> String {
        let mut isps = self.stage.layout().isps.iter();
        let isp = isps.find(|isp| isp.customer(self.family) == address);
        isp.map(|isp| isp.name.clone())
            .unwrap_or_else(|| panic!("no uplink has the address {address}"))
    }

    /// Each uplink's share of these sessions, in percent.
    pub fn shares(&self, sessions: &[Session]) -> BTreeMap<String, f64> {
        let names = self.stage.layout().isps.iter().map(|isp| isp.name.clone());
        let mut shares: BTreeMap<String, f64> = names.map(|name| (name, 0.0)).collect();
        let one = 100.0 / sessions.len() as f64;
        for session in sessions {
            *shares.entry(self.uplink(session)).or_default() += one;
        }
        shares
    }

    /// Every session still goes by the uplink it went by.
    pub fn assert_stay(&self, sessions: &mut [Session], when: &str) {
        for session in sessions {
            let before = session.seen;
            let now = session
                .ask(Duration::from_secs(5))
                .unwrap_or_else(|error| panic!("{when}: session of {before} broke: {error}"));
            assert_eq!(now, before, "{when}: a session moved");
        }
    }

    /// How long after this moment new sessions of a host take this uplink; those that take another
    /// are given up soon.
    pub fn time_until_way(&self, host: u16, uplink: &str, since: Instant) -> Duration {
        let quick = self.lan().timeout(Duration::from_millis(100));
        let look = || {
            let session = quick.open(Protocol::Tcp, Some(self.host(host)), self.server(0, 80));
            (session.ok().map(|session| self.uplink(&session)), since.elapsed())
        };
        let found = until(PATIENCE, look, |(way, _)| way.as_deref() == Some(uplink));
        found.unwrap_or_else(|last| panic!("new sessions take {last:?} and not {uplink}")).1
    }

    /// Waits until new sessions of a host take this uplink.
    pub fn wait_way(&self, host: u16, uplink: &str) {
        let quick = self.lan().timeout(Duration::from_millis(300));
        let look = || {
            let session = quick.open(Protocol::Tcp, Some(self.host(host)), self.server(0, 80));
            session.map(|session| self.uplink(&session)).map_err(|error| error.to_string())
        };
        let _ = until(PATIENCE, look, |way| way.as_deref() == Ok(uplink))
            .unwrap_or_else(|last| panic!("new sessions take {last:?} and not {uplink}"));
    }
}
