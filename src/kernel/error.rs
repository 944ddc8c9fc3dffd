//! What can go wrong: each variant is the operation, with its object.

use std::io;
use std::net::IpAddr;

use nix::errno::Errno;

use super::rtnl::RouteError;
use super::socket::NetlinkError;
use crate::kstate::{OwnAddress, Route, Rule, SysctlKey};
use crate::model::Family;

/// A failed operation on the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A netlink socket could not be opened.
    #[error("cannot open the {protocol} socket")]
    Open {
        /// Which.
        protocol: &'static str,
        /// Why.
        source: NetlinkError,
    },
    /// The network devices could not be read.
    #[error("cannot read the network devices")]
    ReadLinks(#[source] NetlinkError),
    /// The addresses could not be read.
    #[error("cannot read the addresses")]
    ReadAddresses(#[source] NetlinkError),
    /// The routes of one family could not be read.
    #[error("cannot read the IPv{} routes", family.digit())]
    ReadRoutes {
        /// Which.
        family: Family,
        /// Why.
        source: NetlinkError,
    },
    /// The rules of one family could not be read.
    #[error("cannot read the IPv{} rules", family.digit())]
    ReadRules {
        /// Which.
        family: Family,
        /// Why.
        source: NetlinkError,
    },
    /// The kernel did not say where a packet would go.
    #[error("cannot ask for the route to {destination}")]
    Lookup {
        /// To where.
        destination: IpAddr,
        /// Why.
        source: NetlinkError,
    },
    /// A part of nftables could not be read.
    #[error("cannot read the nftables {what}")]
    ReadNft {
        /// `tables`, `elements of slots4`, …
        what: String,
        /// Why.
        source: NetlinkError,
    },
    /// An address was not taken.
    #[error("cannot add the address {} to {}", address.address, address.device)]
    AddAddress {
        /// Which.
        address: OwnAddress,
        /// Why.
        source: RouteError,
    },
    /// An address was not given up.
    #[error("cannot delete the address {} from {}", address.address, address.device)]
    DeleteAddress {
        /// Which.
        address: OwnAddress,
        /// Why.
        source: NetlinkError,
    },
    /// A route was not added.
    #[error("cannot add the route `{route}`")]
    AddRoute {
        /// Which.
        route: Box<Route>,
        /// Why.
        source: RouteError,
    },
    /// A route was not deleted.
    #[error("cannot delete the route `{route}`")]
    DeleteRoute {
        /// Which.
        route: Box<Route>,
        /// Why.
        source: NetlinkError,
    },
    /// A rule was not added.
    #[error("cannot add the rule `{rule}`")]
    AddRule {
        /// Which.
        rule: Box<Rule>,
        /// Why.
        source: NetlinkError,
    },
    /// A rule was not deleted.
    #[error("cannot delete the rule `{rule}`")]
    DeleteRule {
        /// Which.
        rule: Box<Rule>,
        /// Why.
        source: NetlinkError,
    },
    /// A kernel setting could not be read.
    #[error("cannot read the setting {}", key.dotted())]
    ReadSysctl {
        /// Which.
        key: SysctlKey,
        /// Why.
        source: io::Error,
    },
    /// A kernel setting could not be set.
    #[error("cannot set {} to {value}", key.dotted())]
    SetSysctl {
        /// Which.
        key: SysctlKey,
        /// To what.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// The program `nft` is not there.
    #[error("nft is not installed: apt-get install nftables")]
    NftMissing,
    /// The program `nft` could not be run.
    #[error("cannot run {program}")]
    RunNft {
        /// Its path.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The program `nft` did not end in time, and was killed. Nothing is known of the transaction.
    #[error("{program} did not end within {seconds} s, and was stopped")]
    NftTimeout {
        /// Its path.
        program: String,
        /// The limit.
        seconds: u64,
    },
    /// nftables refused a transaction; nothing of it was done.
    #[error("nftables refused `{line}`: {message}")]
    NftScript {
        /// The offending line of the script, or its first.
        line: String,
        /// What nft said.
        message: String,
    },
    /// A transaction of elements was refused; nothing of it was done.
    #[error("cannot change elements of {sets}")]
    ChangeElements {
        /// The sets concerned.
        sets: String,
        /// Why.
        source: NetlinkError,
    },
    /// An operation on the table of sessions failed.
    #[error("cannot {what}")]
    Conntrack {
        /// `read the sessions`, …
        what: &'static str,
        /// Why.
        source: NetlinkError,
    },
    /// The fake was told to fail here.
    #[error("told to fail at step {0}")]
    Fake(usize),
}

impl KernelError {
    /// Whether what was to be read of nftables is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, KernelError::ReadNft { source, .. } if source.is(&[Errno::ENOENT]))
    }

    /// Whether a set has no room for more elements.
    pub fn is_full(&self) -> bool {
        matches!(self, KernelError::ChangeElements { source, .. } if source.is(&[Errno::ENFILE]))
    }
}
