//! One question to the kernel's routing, and its answer.

use std::net::IpAddr;

use crate::model::{Family, IfName, Mark};

/// Where would this packet go? All rules and tables take part, ours and others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteQuery {
    /// To.
    pub destination: IpAddr,
    /// From; without one, rules by source do not take part.
    pub source: Option<IpAddr>,
    /// All bits of its packet mark.
    pub mark: Mark,
    /// How it reached routing.
    pub input: RouteInput,
    /// IANA number of its protocol.
    pub protocol: u8,
    /// Code point and ECN, as they stand in the header.
    pub tos: u8,
}

/// How a packet reaches routing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteInput {
    /// The router itself sends it.
    Own,
    /// It came in by this device: the reverse-path filter takes part.
    Device(IfName),
    /// As nft's `fib` asks, which knows no input device.
    Fib,
}

/// The kernel's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// On, through a device.
    Forward {
        /// The device.
        device: IfName,
        /// The next hop; `None` on the link itself.
        gateway: Option<IpAddr>,
    },
    /// To this host itself, an anycast address of its own included.
    Local,
    /// To everybody on a link, or to a multicast group.
    Many,
    /// Nowhere: no route, or one that forbids.
    Nowhere,
    /// A forbidding route or rule that drops without a word (`blackhole`), or an odd source.
    Invalid,
    /// The reverse-path filter drops it.
    ReversePath,
}

impl RouteQuery {
    /// The family.
    pub fn family(&self) -> Family {
        Family::of(self.destination)
    }
}

impl Lookup {
    /// The device it goes on through.
    pub fn device(&self) -> Option<&IfName> {
        match self {
            Lookup::Forward { device, .. } => Some(device),
            Lookup::Local
            | Lookup::Many
            | Lookup::Nowhere
            | Lookup::Invalid
            | Lookup::ReversePath => None,
        }
    }
}
