//! Which service a session belongs to.

use std::net::IpAddr;

use super::entrance::{Entrance, Keyed, addresses_of, claimed, entrances};
use crate::model::{Family, Name, Virtual};
use crate::plan::view::{Layout, View};

/// Finds services by what clients ask for.
#[derive(Debug)]
pub struct Directory<'a> {
    sides: [Side<'a>; 2],
}

#[derive(Debug)]
struct Side<'a> {
    entrances: Vec<Entrance<'a>>,
    keyed: Keyed,
}

impl<'a> Directory<'a> {
    /// Of a site as it looks now.
    pub fn new(layout: &'a Layout, view: &View) -> Directory<'a> {
        let side = |family| {
            let entrances = entrances(layout, view, family);
            let keyed = claimed(layout, view, &entrances);
            Side { entrances, keyed }
        };
        Directory { sides: Family::BOTH.map(side) }
    }

    /// The entrance of a session to this address.
    pub fn find(&self, address: IpAddr, protocol: u8, port: u16) -> Option<&Entrance<'a>> {
        let side = &self.sides[usize::from(address.is_ipv6())];
        side.entrances.get(side.keyed.find(address, protocol, port)?)
    }

    /// Every entrance of a family.
    pub fn entrances(&self, family: Family) -> &[Entrance<'a>] {
        &self.sides[usize::from(family == Family::V6)].entrances
    }

    /// What leads to them.
    pub fn keyed(&self, family: Family) -> &Keyed {
        &self.sides[usize::from(family == Family::V6)].keyed
    }
}

/// The addresses at which a service can be reached now.
pub fn virtual_addresses(layout: &Layout, view: &View, virtuals: &[Virtual]) -> Vec<IpAddr> {
    virtuals.iter().flat_map(|at| addresses_of(layout, view, at)).collect()
}

/// The uplink at which a virtual address is.
pub fn uplink_of(at: &Virtual) -> &Name {
    match at {
        Virtual::Uplink(name) | Virtual::Address { on: name, .. } => name,
    }
}
