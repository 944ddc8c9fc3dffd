//! An address that the router takes for a service.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::OUR_PROTOCOL;
use crate::model::{Family, IfName};

/// An address of ours on a device: a single one, without a route to its network.
///
/// It is known to be ours by its protocol (`IFA_PROTO`, Linux 5.18). It is there to be reached by: what is
/// routed or translated gets a source that somebody else has set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnAddress {
    /// The device.
    pub device: IfName,
    /// The address.
    pub address: IpAddr,
}

impl OwnAddress {
    /// Its family.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }
}

impl fmt::Display for OwnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", IpNet::from(self.address), self.device)?;
        // It must answer at once, and whoever has it too is to give it up.
        if self.family() == Family::V6 {
            f.write_str(" nodad")?;
        }
        write!(f, " proto {OUR_PROTOCOL}")
    }
}
