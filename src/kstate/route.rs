//! Routes of any table.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Family, IfName, TableId};

/// One route. A multipath route is held as one value for each next hop.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The table it is in.
    pub table: TableId,
    /// Where it leads.
    pub destination: IpNet,
    /// What happens to a packet that takes it.
    pub kind: RouteKind,
    /// The gateway; `None` means the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The device; `None` for routes without one (`unreachable`).
    pub device: Option<IfName>,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// Lower is preferred. (IPv6 shows 1024 for "none given".)
    pub metric: u32,
    /// The path MTU set on the route.
    pub mtu: Option<u32>,
    /// The gateway is reached although no connected route covers it.
    pub onlink: bool,
    /// Who made it (`rtnetlink(7)`, `rtm_protocol`).
    pub protocol: u8,
}

/// `rtm_type`, as far as we care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// Forward it.
    Unicast,
    /// Answer with ICMP unreachable.
    Unreachable,
    /// Anything else, by the kernel's number.
    Other(u8),
}

impl Route {
    /// The family.
    pub fn family(&self) -> Family {
        Family::of_net(&self.destination)
    }

    /// Whether it leads everywhere.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}
