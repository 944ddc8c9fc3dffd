//! What may enter from the uplinks.

use ipnet::IpNet;

use super::{Name, PortRange, Protocol};

/// The two directions in which uplinks are filtered, and the exceptions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Firewall {
    /// From an uplink into the LANs.
    pub forward: ForwardPolicy,
    /// From an uplink to the router itself.
    pub input: InputPolicy,
    /// What is let in nevertheless.
    pub allow: Vec<Allow>,
}

/// From an uplink into the LANs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardPolicy {
    /// Only replies, services, what another table port-forwards, and `allow`.
    #[default]
    Closed,
    /// Everything.
    Open,
}

/// From an uplink to the router itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputPolicy {
    /// Everything.
    #[default]
    Open,
    /// Only replies, ICMP, the DHCP client, services, and `allow`.
    Closed,
}

/// One exception.
#[derive(Debug, Clone, PartialEq)]
pub struct Allow {
    /// By this uplink; `None` is any.
    pub uplink: Option<Name>,
    /// To whom.
    pub to: AllowTarget,
    /// Protocols; empty is any. Ports without a protocol mean TCP and UDP, and are stored so.
    pub protocols: Vec<Protocol>,
    /// Destination ports; empty is any.
    pub ports: Vec<PortRange>,
}

/// Whom an exception concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowTarget {
    /// Left out: anybody.
    Any,
    /// The router's own addresses.
    Router,
    /// An address or a prefix, multicast too.
    Net(IpNet),
}
