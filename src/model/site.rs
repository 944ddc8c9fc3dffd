//! The whole site.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::{
    Firewall, Group, Helper, IfName, MarkLayout, Name, Notify, Policy, Probe, Service, Uplink,
};

/// A validated profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// `site:`; `homing` when left out.
    pub name: String,
    /// In the order of the file.
    pub uplinks: Vec<Uplink>,
    /// In the order of the file; empty means "every interface that is no uplink is inside".
    pub lans: Vec<Lan>,
    /// In the order of the file: the first that matches takes the session.
    pub policies: Vec<Policy>,
    /// Blocks under `probes`, and inline blocks under their uplink's name.
    pub probes: BTreeMap<Name, Probe>,
    /// Servers that services share.
    pub groups: BTreeMap<Name, Group>,
    /// In the order of the file.
    pub services: Vec<Service>,
    /// Connection-tracking helpers for sessions from the LANs.
    pub helpers: Vec<Helper>,
    /// Filters on the uplinks.
    pub firewall: Firewall,
    /// Our bits of the marks.
    pub marks: MarkLayout,
    /// Our ranges of rule priorities and routing tables.
    pub routing: Routing,
    /// `fast-path:`.
    pub fast_path: FastPath,
    /// `api:`.
    pub api: Api,
    /// Who is told of events, in the order of the file.
    pub notify: Vec<Notify>,
}

impl Site {
    /// The uplink of that name.
    pub fn uplink(&self, name: &Name) -> Option<&Uplink> {
        self.uplinks.iter().find(|uplink| &uplink.name == name)
    }

    /// What an uplink asks: the block that it names, else `default`, else public resolvers.
    pub fn probe_of(&self, uplink: &Uplink) -> Probe {
        let named = uplink.probe.as_ref().and_then(|name| self.probes.get(name));
        named.cloned().unwrap_or_else(|| Probe::public(uplink.name.clone()))
    }

    /// The LAN of that name.
    pub fn lan(&self, name: &Name) -> Option<&Lan> {
        self.lans.iter().find(|lan| &lan.name == name)
    }

    /// Each uplink's weight: as written, else from `bandwidth.down` relative to the others (the
    /// slowest gets 1), else 1.
    pub fn weights(&self) -> BTreeMap<Name, u32> {
        weights(&self.uplinks)
    }
}

/// See [`Site::weights`].
pub fn weights(uplinks: &[Uplink]) -> BTreeMap<Name, u32> {
    let down = |uplink: &Uplink| uplink.bandwidth.map(|b| b.down).filter(|&rate| rate > 0);
    let slowest = uplinks.iter().filter_map(down).min().unwrap_or(1);
    let derived = |uplink: &Uplink| {
        let ratio = down(uplink).map_or(1, |rate| (rate + slowest / 2) / slowest);
        u32::try_from(ratio).unwrap_or(u32::MAX)
    };
    let weight = |uplink: &Uplink| uplink.weight.unwrap_or_else(|| derived(uplink));
    uplinks.iter().map(|uplink| (uplink.name.clone(), weight(uplink))).collect()
}

/// An inside network behind an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lan {
    /// The name in the profile.
    pub name: Name,
    /// The network device.
    pub interface: IfName,
    /// `networks:`; empty means those of the interface's addresses.
    pub networks: Vec<IpNet>,
}

/// Our ranges of numbers in policy routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// Rule priorities from here on are ours.
    pub first_priority: u32,
    /// Routing tables from here on are ours.
    pub first_table: u32,
}

impl Default for Routing {
    fn default() -> Self {
        Routing { first_priority: 10_000, first_table: 10_000 }
    }
}

/// `fast-path:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FastPath {
    /// Where the kernel has it.
    #[default]
    Auto,
    /// Never.
    Off,
    /// With the network card's help.
    Hardware,
}

/// `api:`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Api {
    /// TCP addresses, besides the Unix socket.
    pub listen: Vec<SocketAddr>,
    /// The live page.
    pub page: bool,
    /// Where the token for remote readers is kept.
    pub token_file: Option<PathBuf>,
}
