//! What we read and never change: links, addresses, routes and rules of others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Offload, Route, Rule};
use crate::model::{Family, IfName};

/// The host as it is, apart from what is ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Every network device.
    pub links: BTreeMap<IfName, Link>,
    /// Every address that is not ours.
    pub addresses: BTreeSet<Address>,
    /// Routes that are not ours, of every table but `local` (255).
    pub routes: BTreeSet<Route>,
    /// Rules that are not ours.
    pub rules: BTreeSet<Rule>,
    /// Names of other nft tables, as `FAMILY NAME`.
    pub foreign_tables: BTreeSet<String>,
    /// Which devices flowtables take; `None` when nobody asked.
    pub offload: Option<Offload>,
}

/// One network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index; another one means the device was deleted and made again.
    pub index: u32,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Carrier, read anew and not from a notice (`IFLA_CARRIER`; false when down).
    pub carrier: bool,
    /// In bytes.
    pub mtu: u32,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// `IFF_POINTOPOINT`.
    pub point_to_point: bool,
}

/// One address of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The device.
    pub device: IfName,
    /// Our address with its prefix length (for point-to-point: `IFA_LOCAL`).
    pub net: IpNet,
    /// The far end of a point-to-point address.
    pub peer: Option<IpNet>,
    /// Scope global (`RT_SCOPE_UNIVERSE`); link-local and host addresses are not.
    pub global: bool,
    /// IPv6: duplicate address detection is not over, or failed.
    pub tentative: bool,
    /// IPv6: no longer to be used for new sessions.
    pub deprecated: bool,
    /// IPv6: a privacy address (`IFA_F_TEMPORARY`). IPv4: a secondary one.
    pub temporary: bool,
}

impl Facts {
    /// The addresses of a device in one family.
    pub fn addresses_of(
        &self,
        device: &IfName,
        family: Family,
    ) -> impl Iterator<Item = &Address> + use<'_> {
        let device = device.clone();
        self.addresses
            .iter()
            .filter(move |a| a.device == device && Family::of_net(&a.net) == family)
    }

    /// Whether an address is one of the host's own, apart from those that we gave it.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|a| a.net.addr() == address)
    }
}
