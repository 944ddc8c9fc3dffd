//! One ISP link, as the profile describes it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Family, IfName, Name, UplinkId};

/// One ISP link: interface, gateways, and how it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct Uplink {
    /// The name in the profile.
    pub name: Name,
    /// The network device.
    pub interface: IfName,
    /// The IPv4 gateway.
    pub gateway: Gateway,
    /// The IPv6 gateway.
    pub gateway6: Gateway,
    /// Line rates, in bits per second.
    pub bandwidth: Option<Bandwidth>,
    /// `weight:` as written; [`super::Site::weights`] gives what is in force.
    pub weight: Option<u32>,
    /// `probe:`: the name of a block under `probes` (an inline block gets the uplink's own name).
    pub probe: Option<Name>,
    /// Source translation.
    pub nat: NatMode,
    /// Networks that this ISP routes to us.
    pub prefixes: Vec<IpNet>,
    /// Probed at ten times the interval while up.
    pub metered: bool,
    /// `id:` as written.
    pub id: Option<UplinkId>,
}

impl Uplink {
    /// The gateway setting of one family.
    pub fn gateway_of(&self, family: Family) -> &Gateway {
        match family {
            Family::V4 => &self.gateway,
            Family::V6 => &self.gateway6,
        }
    }
}

/// Where packets of one family go on an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gateway {
    /// Learned from the kernel's default route through the interface, whoever made it.
    #[default]
    Auto,
    /// This address.
    Address(IpAddr),
    /// Point-to-point: the device itself.
    None,
}

/// Line rates in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// From the internet to us.
    pub down: u64,
    /// From us to the internet.
    pub up: u64,
}

/// When the source address of a packet that leaves is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NatMode {
    /// Every source outside the uplink's `prefixes`.
    #[default]
    Auto,
    /// Every source but the uplink's own address.
    Always,
    /// Nothing.
    Never,
}
