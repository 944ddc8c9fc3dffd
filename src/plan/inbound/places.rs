//! Which address of an uplink is its own, as bindings tell it from further ones.
//!
//! An uplink's clients stay bound when its address is replaced: what is learned there bears the
//! uplink's name. Each further address has a name of its own for that. Which is which must not change
//! while an address is there, or its clients would be looked up among another's. So the table keeps it
//! (`places4`): it outlives the process, and a device that is down.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::kstate::{ElementData, Elements, NftTable, concatenate, ifname_bytes};
use crate::model::{Family, IfName, UplinkId, Virtual};
use crate::plan::nft::{address_bytes, mark_bytes, names};
use crate::plan::view::{Layout, View};

use super::entrance::addresses_of;

/// A virtual address, as bindings tell it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// As the profile has it.
    pub at: &'a Virtual,
    /// One more address of an uplink, that is not its own.
    pub further: Option<IpAddr>,
}

impl Place<'_> {
    /// Which address that is now, if there is one.
    pub fn address(&self, layout: &Layout, view: &View, family: Family) -> Option<IpAddr> {
        let mut here = addresses_of(layout, view, self.at).filter(|a| Family::of(*a) == family);
        let own = || match self.at {
            Virtual::Uplink(name) => view.uplinks.get(name)?.places.get(&family)?.own,
            Virtual::Address { address, .. } => Some(*address),
        };
        let wanted = self.further.or_else(own)?;
        here.find(|address| *address == wanted)
    }
}

/// The addresses of an uplink in one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The uplink's own; it may be gone.
    pub own: Option<IpAddr>,
    /// All others.
    pub further: BTreeSet<IpAddr>,
    /// Those that went when the device lost all: they are waited for.
    pub awaited: BTreeSet<IpAddr>,
}

const OWN: u32 = 1;
const FURTHER: u32 = 2;
const AWAITED: u32 = 3;

impl Places {
    /// As a table has them, if it knows of them.
    pub(in crate::plan) fn read(table: &NftTable, id: UplinkId, family: Family) -> Option<Places> {
        let mut places = Places::default();
        let set = table.sets.get(&names::places(family));
        for (key, data) in set.into_iter().flat_map(|set| set.elements.iter()) {
            let Some(address) = key.get(DEVICE_LEN..).and_then(address_of) else { continue };
            if *data == value(id, OWN) {
                places.own = Some(address);
            } else if *data == value(id, FURTHER) {
                places.further.insert(address);
            } else if *data == value(id, AWAITED) {
                places.awaited.insert(address);
            }
        }
        (places != Places::default()).then_some(places)
    }

    /// As a table is to have them.
    pub(in crate::plan) fn write(&self, device: &IfName, id: UplinkId, elements: &mut Elements) {
        let own = self.own.map(|address| (address, OWN));
        let further = self.further.iter().map(|address| (*address, FURTHER));
        let awaited = self.awaited.iter().map(|address| (*address, AWAITED));
        for (address, place) in own.into_iter().chain(further).chain(awaited) {
            let key = concatenate(&[ifname_bytes(device), address_bytes(address)]);
            elements.insert(key, value(id, place));
        }
    }

    /// The uplink has these addresses now, the most suitable first. One that has just come takes the
    /// place of its own that is gone, if it lasts, or none does; one that is known stays what it is.
    pub(in crate::plan) fn follow(
        self,
        here: &[IpAddr],
        lasts: impl Fn(&IpAddr) -> bool,
    ) -> Places {
        if here.is_empty() {
            let awaited = if self.further.is_empty() { self.awaited } else { self.further };
            return Places { own: self.own, further: BTreeSet::new(), awaited };
        }
        let stays = self.own.filter(|own| here.contains(own));
        let new = |address: &&IpAddr| {
            !self.further.contains(*address) && !self.awaited.contains(*address)
        };
        let suits = |address: &&IpAddr| lasts(address) || !here.iter().any(&lasts);
        let own = stays.or_else(|| here.iter().filter(new).find(suits).copied()).or(self.own);
        let further: BTreeSet<IpAddr> =
            here.iter().copied().filter(|address| Some(*address) != own).collect();
        let awaited = self.awaited.into_iter().filter(|one| !here.contains(one)).collect();
        Places { own, further, awaited }
    }

    /// All that have maps of their own.
    pub(super) fn apart(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.further.iter().chain(&self.awaited).copied()
    }
}

/// The bytes of a device's name in a key.
const DEVICE_LEN: usize = 16;

fn value(id: UplinkId, place: u32) -> ElementData {
    ElementData::Value(mark_bytes(u32::from(id.0) << 8 | place))
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).into());
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test says what it expects
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn places(own: Option<u8>, further: &[u8], awaited: &[u8]) -> Places {
        let [further, awaited] =
            [further, awaited].map(|all| all.iter().map(|last| address(*last)).collect());
        Places { own: own.map(address), further, awaited }
    }

    #[test]
    fn an_address_stays_what_it_is_while_it_is_there() {
        let p = places;
        // What was, the addresses now, what is. Those from 100 on do not last.
        for (was, here, is) in [
            // At first the most suitable is the uplink's own.
            (p(None, &[], &[]), &[7, 3][..], p(Some(7), &[3], &[])),
            (p(Some(7), &[], &[]), &[3, 7], p(Some(7), &[3], &[])),
            // Replaced: the old one gone, a new one there.
            (p(Some(7), &[], &[]), &[8], p(Some(8), &[], &[])),
            (p(Some(7), &[3], &[]), &[3, 8], p(Some(8), &[3], &[])),
            // The new one came first: its clients have been bound by its own name since.
            (p(Some(7), &[8], &[]), &[8], p(Some(7), &[8], &[])),
            (p(Some(7), &[8], &[]), &[8, 7], p(Some(7), &[8], &[])),
            (p(Some(7), &[8], &[]), &[8, 9], p(Some(9), &[8], &[])),
            // A privacy address takes no place but where there is no other.
            (p(Some(7), &[8], &[]), &[8, 100], p(Some(7), &[8, 100], &[])),
            (p(Some(7), &[], &[]), &[100], p(Some(100), &[], &[])),
            // The device has none for a while, and they come one by one.
            (p(Some(7), &[3, 9], &[]), &[], p(Some(7), &[], &[3, 9])),
            (p(Some(7), &[], &[3, 9]), &[], p(Some(7), &[], &[3, 9])),
            (p(Some(7), &[], &[3, 9]), &[3], p(Some(7), &[3], &[9])),
            (p(Some(7), &[3], &[9]), &[3, 9], p(Some(7), &[3, 9], &[])),
            (p(Some(7), &[3, 9], &[]), &[3, 9, 7], p(Some(7), &[3, 9], &[])),
            (p(Some(7), &[], &[3]), &[7], p(Some(7), &[], &[3])),
            (p(Some(7), &[], &[3]), &[7, 3], p(Some(7), &[3], &[])),
            // Only the last are waited for.
            (p(Some(7), &[5], &[3]), &[], p(Some(7), &[], &[5])),
        ] {
            let here: Vec<IpAddr> = here.iter().copied().map(address).collect();
            let lasts = |one: &IpAddr| *one < address(100);
            assert_eq!(was.clone().follow(&here, lasts), is, "{was:?} and {here:?}");
        }
    }

    #[test]
    fn a_table_keeps_them() {
        let (family, id) = (Family::V4, UplinkId(7));
        let device = |name| IfName::new(name).unwrap();
        let written = places(Some(7), &[3, 9], &[4]);
        let mut elements = Elements::new();
        written.write(&device("wan0"), id, &mut elements);
        places(Some(1), &[2], &[]).write(&device("wan1"), UplinkId(8), &mut elements);
        let mut table = NftTable::default();
        let shape = crate::plan::nft::places_shape(family);
        let declaration = crate::kstate::Declared::new("", "");
        let role = crate::kstate::Role::Fixed;
        let set = crate::kstate::Set { declaration, role, shape, elements };
        table.sets.insert(names::places(family), set);
        assert_eq!(Places::read(&table, id, family), Some(written));
        assert_eq!(Places::read(&table, UplinkId(9), family), None);
    }
}
