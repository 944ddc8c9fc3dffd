//! Probes of uplinks and checks of servers: what is asked, how often, and how it is judged.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Name;

/// A block under `probes`, or the inline block of one uplink.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The name under `probes`, or the uplink's own for an inline block.
    pub name: Name,
    /// What each uplink asks by its own link. Never empty.
    pub targets: Vec<Target>,
    /// Targets that must answer for a round to be good; `gateway` counts only when it is alone.
    pub quorum: u32,
    /// Time between rounds, and when a round or an uplink counts as bad.
    pub pace: Pace,
    /// When an uplink that answers is `degraded`.
    pub degraded: Degraded,
    /// How long a recovered uplink must stay good.
    pub hold_down: Duration,
}

impl Probe {
    /// How long a recovered uplink must stay good, where the profile says nothing.
    pub const HOLD_DOWN: Duration = Duration::from_secs(10);

    /// What an uplink asks when the profile says nothing: resolvers of three companies, in both
    /// families, of which one must answer.
    pub fn public(name: Name) -> Probe {
        let icmp = [
            IpAddr::from([1, 1, 1, 1]),
            IpAddr::from([8, 8, 8, 8]),
            IpAddr::from([0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111]),
            IpAddr::from([0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888]),
        ];
        let dns = [IpAddr::from([9, 9, 9, 9]), IpAddr::from([0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe])];
        let ask = |server| Target::Dns { server, query: "example.com".to_owned() };
        Probe {
            name,
            targets: icmp.map(Target::Icmp).into_iter().chain(dns.map(ask)).collect(),
            quorum: 1,
            pace: Pace::PROBE,
            degraded: Degraded::default(),
            hold_down: Probe::HOLD_DOWN,
        }
    }
}

/// The rhythm of a probe or check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From the start of one round to the start of the next.
    pub interval: Duration,
    /// An answer later than this is none.
    pub timeout: Duration,
    /// Bad rounds in a row that lead to `down`.
    pub fall: u32,
    /// Good rounds in a row that lead to `up`.
    pub rise: u32,
}

impl Pace {
    /// The defaults of a probe.
    pub const PROBE: Pace = Pace {
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        fall: 3,
        rise: 3,
    };
    /// The defaults of a check.
    pub const CHECK: Pace = Pace {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        fall: 3,
        rise: 2,
    };
}

/// One thing that an uplink asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The uplink's own gateway, by ICMP.
    Gateway,
    /// An ICMP echo.
    Icmp(IpAddr),
    /// A TCP connection.
    Tcp(SocketAddr),
    /// An HTTP or HTTPS request.
    Http {
        /// Where to.
        url: Url,
        /// What a good answer is.
        expect: HttpExpect,
    },
    /// A DNS question.
    Dns {
        /// The resolver.
        server: IpAddr,
        /// The name to ask for.
        query: String,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Gateway => f.write_str("gateway"),
            Target::Icmp(address) => write!(f, "icmp {address}"),
            Target::Tcp(address) => write!(f, "tcp {address}"),
            Target::Http { url, .. } => write!(f, "{url}"),
            Target::Dns { server, .. } => write!(f, "dns {server}"),
        }
    }
}

impl Target {
    /// The address that is asked, where the profile gives one.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Target::Gateway => None,
            Target::Icmp(address) => Some(*address),
            Target::Tcp(socket) => Some(socket.ip()),
            Target::Dns { server, .. } => Some(*server),
            Target::Http { url, .. } => match url.host {
                Host::Address(address) => Some(address),
                Host::Name(_) => None,
            },
        }
    }
}

/// An `http://` or `https://` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether it is `https`.
    pub tls: bool,
    /// The server.
    pub host: Host,
    /// The port; 80 or 443 when the text gives none.
    pub port: u16,
    /// From the first `/` on, with the query; at least `/`.
    pub path: String,
}

/// The server of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A literal address.
    Address(IpAddr),
    /// A name that must be resolved.
    Name(String),
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "https://" } else { "http://" })?;
        match &self.host {
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}")?,
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            Host::Name(name) => f.write_str(name)?,
        }
        write!(f, ":{}{}", self.port, self.path)
    }
}

/// What a good HTTP answer is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpExpect {
    /// The status; `None` is any from 200 to 299.
    pub status: Option<u16>,
    /// Text that the body must contain.
    pub body: Option<String>,
    /// The `Host` header (and server name of TLS), where it differs from the address.
    pub host: Option<String>,
}

/// What came of asking one target once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The right answer, after this time.
    Reply(Duration),
    /// No answer in time.
    Lost,
    /// An answer that is wrong (a redirect, another body), or an error; why.
    Wrong(String),
}

/// Above any of these an uplink is degraded; it is left at half of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Degraded {
    /// Share of lost answers.
    pub loss: Share,
    /// Round-trip time.
    pub rtt: Duration,
    /// Mean difference of successive round-trip times.
    pub jitter: Duration,
}

impl Default for Degraded {
    fn default() -> Self {
        Degraded {
            loss: Share(0.10),
            rtt: Duration::from_millis(150),
            jitter: Duration::from_millis(30),
        }
    }
}

/// A ratio from 0 to 1, written `5%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(pub f64);

/// How the servers of a group are checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What is asked; `None` is TCP on the server's port, or ICMP for services without ports and for UDP.
    pub kind: Option<CheckKind>,
    /// Rhythm.
    pub pace: Pace,
    /// How long a recovered server must stay good; zero unless set.
    pub hold_down: Duration,
    /// When a server that answers is `degraded`; never unless set.
    pub degraded: Option<Degraded>,
}

impl Default for Check {
    fn default() -> Self {
        Check { kind: None, pace: Pace::CHECK, hold_down: Duration::ZERO, degraded: None }
    }
}

/// One way to ask a server. A `port` of `None` is the port that its service is reached at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// An ICMP echo.
    Icmp,
    /// A TCP connection.
    Tcp {
        /// Another port than the service's.
        port: Option<u16>,
    },
    /// A TLS handshake.
    Tls {
        /// Another port than the service's.
        port: Option<u16>,
        /// The server name to ask for.
        host: Option<String>,
    },
    /// An HTTP or HTTPS request.
    Http {
        /// Whether it is `https`.
        tls: bool,
        /// Another port than the service's.
        port: Option<u16>,
        /// What to ask for.
        path: String,
        /// What a good answer is.
        expect: HttpExpect,
    },
    /// A DNS question over UDP.
    Dns {
        /// Another port than the service's.
        port: Option<u16>,
        /// The name to ask for.
        query: String,
    },
    /// A datagram and its answer.
    Udp {
        /// Another port than the service's.
        port: Option<u16>,
        /// What is sent.
        send: Vec<u8>,
        /// What the answer must contain; `None` is any answer.
        expect: Option<Vec<u8>>,
    },
}

impl CheckKind {
    /// The port that it asks for itself; `None` is that of the service (and for ICMP nothing).
    pub fn port(&self) -> Option<u16> {
        match self {
            CheckKind::Icmp => None,
            CheckKind::Tcp { port }
            | CheckKind::Tls { port, .. }
            | CheckKind::Http { port, .. }
            | CheckKind::Dns { port, .. }
            | CheckKind::Udp { port, .. } => *port,
        }
    }
}
