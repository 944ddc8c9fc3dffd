//! Policies: which traffic may use which uplinks, and how.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::Name;

/// One outbound balancer.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The name in the profile.
    pub name: Name,
    /// Which new sessions it takes.
    pub matches: Match,
    /// Uplinks by preference class; a lower tier is used first. Never empty.
    pub tiers: Vec<Vec<Name>>,
    /// How a slot is chosen.
    pub balance: Balance,
    /// What a client's later sessions have in common with the first.
    pub persistence: Persistence,
    /// How long sessions stay pinned to a dead uplink; `None` is `never`.
    pub evacuate_after: Option<Duration>,
    /// What happens to a new session when no uplink is usable.
    pub when_all_down: WhenAllDown,
    /// The router's own UDP goes back to an uplink that returns.
    pub release_on_return: bool,
}

/// Conditions, ANDed; an empty list does not restrict.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Match {
    /// Arrived by one of these LANs, or … (see `from_nets`).
    pub from_lans: Vec<Name>,
    /// … from one of these networks. `from` is satisfied by either list.
    pub from_nets: Vec<IpNet>,
    /// To one of these networks.
    pub to: Vec<IpNet>,
    /// One of these protocols. Ports without a protocol mean TCP and UDP, and are stored so.
    pub protocols: Vec<Protocol>,
    /// One of these destination ports.
    pub ports: Vec<PortRange>,
    /// One of these code points.
    pub dscp: Vec<Dscp>,
}

impl Match {
    /// Whether every session matches.
    pub fn is_any(&self) -> bool {
        self == &Match::default()
    }
}

/// An IP protocol as users name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `icmp`: ICMP and ICMPv6, as the family asks.
    Icmp,
    /// Any other, by its IANA number (6 is `tcp`, 17 is `udp`).
    Number(u8),
}

impl Protocol {
    /// TCP.
    pub const TCP: Protocol = Protocol::Number(6);
    /// UDP.
    pub const UDP: Protocol = Protocol::Number(17);

    /// Whether the protocol has ports (TCP, UDP, DCCP, SCTP, UDP-Lite).
    pub fn has_ports(self) -> bool {
        matches!(self, Protocol::Number(6 | 17 | 33 | 132 | 136))
    }
}

/// A closed range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port; equal to `first` for a single one.
    pub last: u16,
}

/// A differentiated-services code point, 0 to 63 (RFC 2474).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dscp(pub u8);

impl Match {
    /// Whether it takes what the router itself sends.
    pub fn takes_own(&self, to: IpAddr, protocol: Protocol, port: u16) -> bool {
        let from_anywhere = self.from_lans.is_empty() && self.from_nets.is_empty();
        let nets = self.to.is_empty() || self.to.iter().any(|net| net.contains(&to));
        let protocols = self.protocols.is_empty() || self.protocols.contains(&protocol);
        let within = |range: &PortRange| (range.first..=range.last).contains(&port);
        let ports = self.ports.is_empty() || self.ports.iter().any(within);
        from_anywhere && self.dscp.is_empty() && nets && protocols && ports
    }
}

/// How a new binding picks among usable members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Balance {
    /// In turn, shares by weight.
    #[default]
    Weighted,
    /// In turn, equal shares.
    RoundRobin,
    /// The member with the lowest round-trip time.
    LowestLatency,
    /// The member with the most free bandwidth.
    LeastUsed,
    /// By a hash of the source address, shares by weight; the same after a reboot.
    SourceHash,
}

impl Balance {
    /// Whether it goes by what is measured.
    pub fn is_measured(self) -> bool {
        matches!(self, Balance::LowestLatency | Balance::LeastUsed)
    }
}

/// Whether and how long a client keeps its uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Persistence {
    /// Each session on its own.
    #[default]
    None,
    /// Sessions with equal keys share an uplink until `timeout` after the last packet.
    By {
        /// What must be equal.
        key: PersistenceKey,
        /// Idle time.
        timeout: Duration,
    },
}

/// The key of an outbound binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PersistenceKey {
    /// The source address.
    Source,
    /// Source and destination address.
    SourceDestination,
}

/// What happens to a new session when no uplink of its policy is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum WhenAllDown {
    /// It is tried over those with carrier, an address and a gateway.
    #[default]
    Try,
    /// Refused at once: ICMP unreachable, or RST.
    Unreachable,
    /// Dropped silently.
    Drop,
    /// It goes where the router's own traffic goes.
    Main,
}
