//! The inbound side: groups with their numbers, who of them takes new sessions, and the entrances by
//! which sessions come in.
//!
//! A *server key* names one server of the site in one mark: its id under the server mask (as in the
//! connection mark), its group's number in the bits beside it. An *entrance* is one chain: a service
//! at one virtual address and port, as far as its persistence tells those apart.

mod directory;
mod entrance;
mod places;
mod select;
#[cfg(test)]
mod tests;
mod uses;

use std::collections::BTreeSet;

use crate::model::{
    Family, Group, GroupBalance, GroupId, Mark, MarkMask, Name, PersistenceMode, ServerId, Service,
};

use super::view::Layout;

pub use directory::{Directory, uplink_of, virtual_addresses};
pub use entrance::{Bound, Entrance, Keyed, claimed, entrances, entrances_of};
pub(super) use entrance::{ESP, udp_seconds};
pub use places::{Place, Places};
pub use select::{Dealt as DealtBy, ServerChoice, choose, keeps};
pub use uses::{Uses, takes_datagrams};

/// So many groups share their sets.
const PART: u32 = 64;
/// Slots of a group, at most.
const MOST: usize = 256;
/// Most slots of all groups together, unless each had fewer than [`FEWEST`].
const ROOM: usize = 65_536;
/// So many groups at most have all slots by a hash: if their number changed, clients would move.
const HASHING: usize = 1024;
/// So many divide evenly among one to four members, and among six.
const FEWEST: usize = 12;

/// A group with its numbers.
#[derive(Debug, Clone, Copy)]
pub struct Numbered<'a> {
    /// As the profile has it.
    pub group: &'a Group,
    /// Its number.
    pub id: GroupId,
    layout: &'a Layout,
}

impl Layout {
    /// A group, if there is one of that name.
    pub fn group<'a>(&'a self, name: &Name) -> Option<Numbered<'a>> {
        let group = self.site.groups.get(name)?;
        Some(Numbered { group, id: *self.ids.groups.get(name)?, layout: self })
    }

    /// All groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = Numbered<'_>> {
        self.site.groups.keys().filter_map(|name| self.group(name))
    }

    /// The parts that there are.
    pub fn parts(&self) -> BTreeSet<u32> {
        self.groups().map(|group| group.part()).collect()
    }

    /// How many slots there are for each group, where there are many groups.
    fn slots_each(&self) -> usize {
        match ROOM / self.site.groups.len().max(1) {
            room if room >= MOST => MOST,
            room => (room / FEWEST).max(1) * FEWEST,
        }
    }
}

impl<'a> Numbered<'a> {
    /// The mark of one of its servers, alone in its group.
    pub fn mark(&self, server: ServerId) -> Mark {
        self.layout.site.marks.server.place(u32::from(server.0))
    }

    /// The bits that tell this group's servers from others'.
    pub fn bits(&self) -> Mark {
        self.id.bits(self.layout.site.marks.server)
    }

    /// The key of one of its servers.
    pub fn key(&self, server: ServerId) -> Mark {
        Mark(self.mark(server).0 | self.bits().0)
    }

    /// Its servers of one family, with their numbers.
    pub fn servers(
        &self,
        family: Family,
    ) -> impl Iterator<Item = (&'a crate::model::Server, ServerId)> + use<'a> {
        let ids = self.layout.ids.servers.get(&self.group.name);
        let of_family = move |server: &&crate::model::Server| Family::of(server.address) == family;
        let with_id =
            move |server: &'a crate::model::Server| Some((server, *ids?.get(&server.name)?));
        self.group.servers.iter().filter(of_family).filter_map(with_id)
    }

    /// Whether it serves a family at all.
    pub fn serves(&self, family: Family) -> bool {
        self.servers(family).next().is_some()
    }

    /// Whether one of its servers has a limit.
    pub fn is_limited(&self) -> bool {
        self.group.servers.iter().any(|server| server.max_connections.is_some())
    }

    /// Whether its own balance picks by a hash.
    pub fn hashes(&self) -> bool {
        self.group.balance == GroupBalance::SourceHash
    }

    /// The part of the groups whose sets it shares. The kernel walks a map for each rule that uses it,
    /// so maps of all groups would cost their number squared.
    pub fn part(&self) -> u32 {
        self.id.0 / PART
    }

    /// The first of the slots that are dealt so.
    pub fn first_slot(&self, dealt: DealtBy) -> u32 {
        (self.id.0 * 2 + u32::from(dealt == DealtBy::Hash)) << 8
    }

    /// How many slots are dealt so: fewer where there are many groups, but one for each server.
    pub fn slots(&self, dealt: DealtBy) -> usize {
        if dealt == DealtBy::Hash && self.layout.site.groups.len() <= HASHING {
            return MOST;
        }
        let one_each = self.group.servers.len().div_ceil(FEWEST) * FEWEST;
        self.layout.slots_each().max(one_each).min(MOST)
    }

    /// Its services, in the order of the profile.
    pub fn services(&self) -> impl Iterator<Item = &'a Service> + use<'a> {
        self.layout.uses.services(&self.layout.site, &self.group.name)
    }

    /// The tables of slots that it needs: one to pick in turn, one to pick by a hash.
    pub fn tables(&self) -> Vec<DealtBy> {
        let by_hash =
            |mode: PersistenceMode| matches!(mode, PersistenceMode::Ip | PersistenceMode::Vpn);
        let mut tables = Vec::new();
        if !self.hashes() {
            tables.push(DealtBy::Turn);
        }
        if self.hashes() || self.services().any(|service| by_hash(service.persistence.mode)) {
            tables.push(DealtBy::Hash);
        }
        tables
    }
}

impl GroupId {
    /// The bits that tell this group's servers from others' in a key.
    pub(super) fn bits(self, mask: MarkMask) -> Mark {
        Mark(beside(self.0, mask.0))
    }
}

/// Puts the bits of a number, lowest first, where a mask has none.
fn beside(number: u32, mask: u32) -> u32 {
    let places = (0..u32::BITS).filter(|bit| mask & (1 << bit) == 0);
    places.enumerate().fold(0, |put, (from, to)| put | (number >> from & 1) << to)
}
