//! The map of a site: who has which name, interface and address. Plain data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{LabError, Namespace};
use crate::model::Family;

/// Addresses of the servers on the internet, IPv4. `HTTPS_V4` is the one that policies single out.
pub const SERVERS_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(203, 0, 113, 10),
    Ipv4Addr::new(203, 0, 113, 20),
    Ipv4Addr::new(203, 0, 113, 53),
    Ipv4Addr::new(198, 51, 100, 10),
];

/// Addresses of the servers on the internet, IPv6, in the same order.
pub const SERVERS_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10),
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x20),
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x53),
    Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10),
];

/// The ISP's link-local address, the same at every ISP, as routers announce themselves.
pub const ISP_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The ISP's interface towards its customer.
pub const CUSTOMER_SIDE: &str = "cust";

/// How an ISP hands its line over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handover {
    /// An Ethernet with a gateway on it.
    Gateway,
    /// A line with two ends: no gateway, a default route through the device, no ARP.
    PointToPoint,
}

/// One ISP and our line to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IspLayout {
    /// What we call it: the uplink's name.
    pub name: String,
    /// 1 for the first: it is part of addresses.
    pub number: u8,
    /// The router's interface.
    pub interface: String,
    /// How the line ends.
    pub handover: Handover,
    /// The ISP's own address on the line.
    pub gateway4: Ipv4Addr,
    /// The ISP's own address on the line, besides [`ISP_LINK_LOCAL`].
    pub gateway6: Ipv6Addr,
    /// Our address on the line.
    pub customer4: Ipv4Net,
    /// Our address on the line.
    pub customer6: Ipv6Net,
    /// Networks that the ISP routes to us.
    pub prefixes: Vec<IpNet>,
    /// Hosts on the line besides the gateway, with their networks (a modem's page).
    pub pages: Vec<IpNet>,
    /// Whether the ISP has IPv6.
    pub ipv6: bool,
    /// The line's MTU.
    pub mtu: u32,
    /// Whether the router gets addresses and default routes, as from DHCP and RA.
    pub configured: bool,
}

impl IspLayout {
    /// The usual line number `number`, by the interface `wanN` that it belongs to.
    pub fn usual(name: &str, number: u8) -> IspLayout {
        let k = u16::from(number);
        let net6 = |host| Ipv6Addr::new(0x2001, 0xdb8, k, 0, 0, 0, 0, host);
        IspLayout {
            name: name.to_owned(),
            number,
            interface: format!("wan{}", number.saturating_sub(1)),
            handover: Handover::Gateway,
            gateway4: Ipv4Addr::new(198, 51, 100u8.saturating_add(number), 1),
            gateway6: net6(1),
            customer4: net4([198, 51, 100u8.saturating_add(number), 2], 24),
            customer6: net_of6(net6(2), 64),
            prefixes: Vec::new(),
            pages: Vec::new(),
            ipv6: true,
            mtu: 1500,
            configured: true,
        }
    }

    /// Our address on the line, in one family.
    pub fn customer(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.customer4.addr().into(),
            Family::V6 => self.customer6.addr().into(),
        }
    }

    /// The ISP's own address on the line, in one family.
    pub fn gateway(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.gateway4.into(),
            Family::V6 => self.gateway6.into(),
        }
    }

    /// The metric of the router's default through this line, as a DHCP client would give it.
    pub fn metric(&self) -> u32 {
        100 + u32::from(self.number)
    }
}

/// The whole site, as it was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// What the names of its namespaces begin with.
    pub prefix: String,
    /// In order of number.
    pub isps: Vec<IspLayout>,
    /// How many hosts the LAN has.
    pub hosts: u16,
    /// Whether the router gets its addresses on LAN and DMZ.
    pub inside: bool,
    /// How many servers stand in the DMZ besides its host, each in a namespace of its own.
    pub farm: u8,
    /// How many hosts of the internet call in from outside.
    pub callers: u16,
}

impl Layout {
    /// Our router.
    pub fn router(&self) -> Namespace {
        self.named("r")
    }

    /// The internet, with all its servers.
    pub fn internet(&self) -> Namespace {
        self.named("net")
    }

    /// The LAN, all its hosts in one.
    pub fn lan(&self) -> Namespace {
        self.named("lan")
    }

    /// The DMZ's host.
    pub fn dmz(&self) -> Namespace {
        self.named("dmz")
    }

    /// A server of the DMZ; `index` below [`Layout::farm`].
    pub fn farm_space(&self, index: u8) -> Namespace {
        self.named(&format!("s{}", farm_letter(index)))
    }

    /// The names of the DMZ's servers, in order.
    pub fn farm_names(&self) -> impl Iterator<Item = String> {
        (0..self.farm).map(farm_name)
    }

    /// Which server of the DMZ has that name.
    ///
    /// # Errors
    /// With the names there are.
    pub fn find_farm(&self, name: &str) -> Result<u8, LabError> {
        (0..self.farm).find(|&index| farm_name(index) == name).ok_or_else(|| LabError::Unknown {
            kind: "server",
            name: name.to_owned(),
            known: self.farm_names().collect::<Vec<_>>().join(", "),
        })
    }

    /// The ISP's namespace.
    pub fn isp(&self, isp: &IspLayout) -> Namespace {
        self.named(&format!("i{}", isp.number))
    }

    /// Every namespace of the site.
    pub fn all(&self) -> Vec<Namespace> {
        let mut all = vec![self.router(), self.internet(), self.lan(), self.dmz()];
        all.extend((0..self.farm).map(|index| self.farm_space(index)));
        all.extend(self.isps.iter().map(|isp| self.isp(isp)));
        all
    }

    /// The ISP of that name.
    ///
    /// # Errors
    /// With the names there are.
    pub fn find(&self, name: &str) -> Result<&IspLayout, LabError> {
        let known = || self.isps.iter().map(|isp| isp.name.as_str());
        self.isps.iter().find(|isp| isp.name == name).ok_or_else(|| LabError::Unknown {
            kind: "uplink",
            name: name.to_owned(),
            known: known().collect::<Vec<_>>().join(", "),
        })
    }

    /// The namespace that a user calls by this name: lan, dmz, router, internet, an uplink's, or a
    /// server's.
    ///
    /// # Errors
    /// With the names there are.
    pub fn place(&self, name: &str) -> Result<Namespace, LabError> {
        match name {
            "lan" => return Ok(self.lan()),
            "dmz" => return Ok(self.dmz()),
            "router" => return Ok(self.router()),
            "internet" => return Ok(self.internet()),
            _ => {}
        }
        let isp = self.find(name).map(|isp| self.isp(isp));
        let server = || self.find_farm(name).map(|index| self.farm_space(index));
        isp.or_else(|_| server()).map_err(|_| LabError::Unknown {
            kind: "place",
            name: name.to_owned(),
            known: format!("lan, dmz, router, internet, {}", self.known()),
        })
    }

    /// Everything that can be broken, for a complaint: uplinks, then servers.
    pub(super) fn known(&self) -> String {
        let isps = self.isps.iter().map(|isp| isp.name.clone());
        isps.chain(self.farm_names()).collect::<Vec<_>>().join(", ")
    }

    /// The address of one host of the LAN; `index` below [`Layout::hosts`].
    pub fn host(&self, family: Family, index: u16) -> IpAddr {
        host_address(family, index)
    }

    fn named(&self, place: &str) -> Namespace {
        Namespace::named(format!("{}-{place}", self.prefix))
    }
}

/// The address of one host of the LAN (10.1.0.0/16, fd00:1::/64), counted from 0.
pub fn host_address(family: Family, index: u16) -> IpAddr {
    let number = index.saturating_add(10);
    match family {
        Family::V4 => {
            let [high, low] = number.to_be_bytes();
            Ipv4Addr::new(10, 1, high, low).into()
        }
        Family::V6 => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, number).into(),
    }
}

/// The router's address on the LAN.
pub fn lan_router(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 1, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// The router's address on the DMZ.
pub fn dmz_router(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 2, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// The server in the DMZ (10.2.0.0/24, fd00:2::/64).
pub fn dmz_server(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 2, 0, 10).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x10).into(),
    }
}

/// The name of a server of the DMZ, counted from 0: server-a.
pub fn farm_name(index: u8) -> String {
    format!("server-{}", farm_letter(index))
}

fn farm_letter(index: u8) -> char {
    char::from(b'a' + index % 26)
}

/// The address of a server of the DMZ, counted from 0: 10.2.0.11, fd00:2::11, and on.
pub fn farm_address(family: Family, index: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 2, 0, 11 + index % 26).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x11 + u16::from(index % 26)).into(),
    }
}

/// The address of a host of the internet that calls in, counted from 0 (192.0.2.0/24,
/// 2001:db8:ca11::/64).
pub fn caller_address(family: Family, index: u16) -> IpAddr {
    let number = index % 200 + 10;
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, number.to_be_bytes()[1]).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xca11, 0, 0, 0, 0, number).into(),
    }
}

/// A server on the internet, by its place in [`SERVERS_V4`] and [`SERVERS_V6`].
pub fn server(family: Family, index: usize) -> IpAddr {
    let index = index % SERVERS_V4.len();
    match family {
        Family::V4 => SERVERS_V4[index].into(),
        Family::V6 => SERVERS_V6[index].into(),
    }
}

/// An IPv4 address with its network's length; a length that does not exist becomes a host's.
pub fn net4(octets: [u8; 4], length: u8) -> Ipv4Net {
    let address = Ipv4Addr::from(octets);
    Ipv4Net::new(address, length).unwrap_or_else(|_| address.into())
}

/// An IPv6 address with its network's length; a length that does not exist becomes a host's.
pub fn net_of6(address: Ipv6Addr, length: u8) -> Ipv6Net {
    Ipv6Net::new(address, length).unwrap_or_else(|_| address.into())
}
