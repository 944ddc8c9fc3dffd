//! Services and their groups of servers: the inbound side.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Check, Name, PortRange, Protocol};

/// The servers that do one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The name in the profile.
    pub name: Name,
    /// How a slot is chosen.
    pub balance: GroupBalance,
    /// Over how long a recovered server gets its full share; zero turns it off.
    pub slow_start: Duration,
    /// How the servers are checked.
    pub check: Check,
    /// In the order of the file. Never empty.
    pub servers: Vec<Server>,
}

/// How a new binding picks a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum GroupBalance {
    /// In turn, equal shares.
    #[default]
    RoundRobin,
    /// In turn, shares by weight.
    Weighted,
    /// The server with the fewest live connections for its weight.
    LeastConnections,
    /// The server that answers its checks soonest.
    Fastest,
    /// By a hash of the source address, shares by weight.
    SourceHash,
}

impl GroupBalance {
    /// Whether it goes by what is measured.
    pub fn is_measured(self) -> bool {
        matches!(self, GroupBalance::LeastConnections | GroupBalance::Fastest)
    }
}

/// One physical server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The name in the profile, unique in its group.
    pub name: Name,
    /// Where it is.
    pub address: IpAddr,
    /// Its port; `None` is the port that the client asked for.
    pub port: Option<u16>,
    /// Its share.
    pub weight: u32,
    /// Most live connections.
    pub max_connections: Option<u32>,
    /// Serves only while no other server is usable.
    pub backup: bool,
}

/// One inbound balancer: virtual address, protocol and port → a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// The name in the profile.
    pub name: Name,
    /// Where clients reach it. Never empty.
    pub virtuals: Vec<Virtual>,
    /// Protocols; empty is every IP protocol (`any`).
    pub protocols: Vec<Protocol>,
    /// Destination ports; empty exactly when `protocols` is.
    pub ports: Vec<PortRange>,
    /// The group that serves it.
    pub group: Name,
    /// What a client's later sessions have in common with the first.
    pub persistence: ServicePersistence,
    /// Who may connect; empty is everybody.
    pub allow: Vec<IpNet>,
    /// A connection-tracking helper.
    pub helper: Option<Helper>,
}

/// An address that clients ask for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Virtual {
    /// The addresses of this uplink, as they change.
    Uplink(Name),
    /// An address that the router takes and announces on an uplink.
    Address {
        /// The address.
        address: IpAddr,
        /// The uplink.
        on: Name,
    },
}

/// Whether and how long a client keeps its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePersistence {
    /// What the binding's key is.
    pub mode: PersistenceMode,
    /// Idle time; in `tcp` mode of UDP alone. `None` exactly in `ip` mode, which keeps no table.
    pub timeout: Option<Duration>,
    /// Prefix length applied to an IPv4 client first, 0 to 32.
    pub client_mask: u8,
    /// Prefix length applied to an IPv6 client first, 0 to 128.
    pub client_mask6: u8,
}

/// The five modes of session persistence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum PersistenceMode {
    /// The session itself, nothing else.
    #[default]
    Tcp,
    /// Client and service, any client port.
    Ssl,
    /// Client and virtual address, over the services of one group.
    Sticky,
    /// Client and virtual address, learned from the IPsec key exchange.
    Vpn,
    /// Client and virtual address, by a consistent hash.
    Ip,
}

impl PersistenceMode {
    /// The idle time when the profile gives none.
    pub fn default_timeout(self) -> Option<Duration> {
        match self {
            PersistenceMode::Tcp | PersistenceMode::Vpn => Some(Duration::from_secs(180)),
            PersistenceMode::Ssl | PersistenceMode::Sticky => Some(Duration::from_secs(7200)),
            PersistenceMode::Ip => None,
        }
    }
}

impl Default for ServicePersistence {
    fn default() -> Self {
        ServicePersistence {
            mode: PersistenceMode::Tcp,
            timeout: PersistenceMode::Tcp.default_timeout(),
            client_mask: 32,
            client_mask6: 128,
        }
    }
}

/// A connection-tracking helper: it finds the second connections that a protocol opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Helper {
    /// File transfer.
    Ftp,
    /// Voice.
    Sip,
    /// Trivial file transfer.
    Tftp,
}

impl Helper {
    /// As the profile and the kernel name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Helper::Ftp => "ftp",
            Helper::Sip => "sip",
            Helper::Tftp => "tftp",
        }
    }

    /// The protocol that it listens to.
    pub fn transport(self) -> &'static str {
        match self {
            Helper::Ftp => "tcp",
            Helper::Sip | Helper::Tftp => "udp",
        }
    }

    /// The port at which sessions from the LANs are listened to.
    pub fn port(self) -> u16 {
        match self {
            Helper::Ftp => 21,
            Helper::Sip => 5060,
            Helper::Tftp => 69,
        }
    }
}
