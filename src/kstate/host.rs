//! Other software on the host, as far as it can come in our way. Only [`crate::doctor`] looks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::model::IfName;

/// Something that homing needs and this host lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// What `doctor` reads besides a snapshot. What could not be read is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// Every nft table but ours.
    pub tables: Vec<ForeignTable>,
    /// Why the tables could not be listed.
    pub unlisted: Option<String>,
    /// Tables of iptables of the old kind, which nft does not list.
    pub legacy_tables: Vec<String>,
    /// systemd-networkd runs here, and removes rules and routes that it did not make: the settings.
    pub networkd_removes: Vec<&'static str>,
    /// Programs wait for packets here: TCP listeners and unconnected UDP sockets.
    pub listening: Vec<(&'static str, SocketAddr)>,
    /// Entries of the session table, and how many fit.
    pub sessions: Option<(u64, u64)>,
    /// Bridges; none if what passes them does not pass the rules for IPv4 or IPv6 too.
    pub filtered_bridges: Vec<IfName>,
    /// Whom the host asks for names.
    pub resolvers: Vec<IpAddr>,
    /// Major and minor release of the kernel.
    pub kernel: Option<(u32, u32)>,
}

/// An nft table that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForeignTable {
    /// `FAMILY NAME`.
    pub name: String,
    /// Chains of it.
    pub chains: Vec<ForeignChain>,
    /// Devices whose sessions it takes past the hooks.
    pub offloaded: Vec<IfName>,
    /// Rules that write a mark.
    pub marks: Vec<MarkChange>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForeignChain {
    /// Its name.
    pub name: String,
    /// It sees what passes through, and drops what it does not accept.
    pub closes_forward: bool,
    /// A rule of it accepts something.
    pub accepts: bool,
}

/// A rule that writes a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkChange {
    /// The chain that it is in.
    pub chain: String,
    /// The mark of the connection, not of the packet.
    pub connection: bool,
    /// The bits that may get another value.
    pub bits: u32,
}
