//! The validated site: what the profile says, in types that cannot hold nonsense.
//!
//! Everything else in the house reads these types; they import nothing of ours. A value of a
//! type here has been checked: a [`Name`] fits the grammar, an [`IfName`] is safe to write into
//! an nft script, a [`Mark`] lies inside its mask.

mod balance;
mod firewall;
mod identity;
mod marks;
mod names;
mod notify;
mod probe;
mod service;
mod site;
mod uplink;

pub use balance::{
    Balance, Dscp, Match, Persistence, PersistenceKey, Policy, PortRange, Protocol, WhenAllDown,
};
pub use firewall::{Allow, AllowTarget, Firewall, ForwardPolicy, InputPolicy};
pub use identity::{GroupId, MemberId, PolicyId, ServerId, UplinkId, natural_id};
pub use marks::{Mark, MarkLayout, MarkMask, RulePriority, TableId};
pub use names::{IfName, InvalidName, Name};
pub use notify::{EventKind, Messenger, Notify};
pub use probe::{
    Check, CheckKind, Degraded, Host, HttpExpect, Outcome, Pace, Probe, Share, Target, Url,
};
pub use service::{
    Group, GroupBalance, Helper, PersistenceMode, Server, Service, ServicePersistence, Virtual,
};
pub use site::{Api, FastPath, Lan, Routing, Site, weights};
pub use uplink::{Bandwidth, Gateway, NatMode, Uplink};

/// An address family. IPv4 and IPv6 are equals everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Both, in the order in which they are always shown.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(address: std::net::IpAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The family of a network.
    pub fn of_net(net: &ipnet::IpNet) -> Family {
        Family::of(net.addr())
    }

    /// As it is written in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }

    /// `4` or `6`: the suffix of names that exist once for each family.
    pub fn digit(self) -> char {
        match self {
            Family::V4 => '4',
            Family::V6 => '6',
        }
    }

    /// The prefix length of a host route.
    pub fn host_bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The default destination, `0.0.0.0/0` or `::/0`.
    pub fn any(self) -> ipnet::IpNet {
        match self {
            Family::V4 => ipnet::IpNet::V4(ipnet::Ipv4Net::default()),
            Family::V6 => ipnet::IpNet::V6(ipnet::Ipv6Net::default()),
        }
    }
}
