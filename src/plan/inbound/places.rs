//! Which address of an uplink is its own, as bindings tell it from further ones.
//!
//! An uplink's clients stay bound when its address is replaced: what is learned there bears the
//! uplink's name. Each further address has a name of its own for that. Which is which must not change
//! while an address is there, or its clients would be looked up among another's. So the table keeps it
//! (`places4`): it outlives the process, and a device that is down.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::kstate::{ElementData, Elements, NftTable, concatenate, ifname_bytes};
use crate::model::{Family, IfName, Virtual};
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

/// The addresses of an uplink in one family: those that there are, or were last while the device has
/// none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// The uplink's own; it may be gone.
    pub own: Option<IpAddr>,
    /// All others.
    pub further: BTreeSet<IpAddr>,
}

const OWN: u32 = 1;
const FURTHER: u32 = 2;

impl Places {
    /// As a table has them.
    pub(in crate::plan) fn read(table: &NftTable, device: &IfName, family: Family) -> Places {
        let mut places = Places::default();
        let set = table.sets.get(&names::places(family));
        for (key, data) in set.into_iter().flat_map(|set| set.elements.iter()) {
            let address = key.strip_prefix(ifname_bytes(device).as_slice());
            match (address.and_then(address_of), data) {
                (Some(address), data) if *data == value(OWN) => places.own = Some(address),
                (Some(address), _) => drop(places.further.insert(address)),
                (None, _) => {}
            }
        }
        places
    }

    /// As a table is to have them.
    pub(in crate::plan) fn write(&self, device: &IfName, elements: &mut Elements) {
        let further = self.further.iter().map(|address| (*address, FURTHER));
        for (address, place) in self.own.map(|own| (own, OWN)).into_iter().chain(further) {
            let key = concatenate(&[ifname_bytes(device), address_bytes(address)]);
            elements.insert(key, value(place));
        }
    }

    /// The uplink has these addresses now, the most suitable first. One that has just come takes the
    /// place of its own that is gone; one that is known stays what it is.
    pub(in crate::plan) fn follow(self, here: &[IpAddr]) -> Places {
        if here.is_empty() {
            return self;
        }
        let stays = self.own.filter(|own| here.contains(own));
        let comes = || here.iter().find(|address| !self.further.contains(address)).copied();
        let own = stays.or_else(comes).or(self.own);
        let further = here.iter().copied().filter(|address| Some(*address) != own);
        Places { own, further: further.collect() }
    }
}

fn value(place: u32) -> ElementData {
    ElementData::Value(mark_bytes(place))
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

    fn places(own: Option<u8>, further: &[u8]) -> Places {
        let further = further.iter().map(|last| address(*last)).collect();
        Places { own: own.map(address), further }
    }

    #[test]
    fn an_address_stays_what_it_is_while_it_is_there() {
        // What was, the addresses now, what is.
        for (was, here, is) in [
            // At first the most suitable is the uplink's own.
            (places(None, &[]), &[7, 3][..], places(Some(7), &[3])),
            (places(Some(7), &[]), &[3, 7], places(Some(7), &[3])),
            // Replaced: the old one gone, a new one there.
            (places(Some(7), &[]), &[8], places(Some(8), &[])),
            (places(Some(7), &[3]), &[3, 8], places(Some(8), &[3])),
            // The new one came first: its clients have been bound by its own name since.
            (places(Some(7), &[8]), &[8], places(Some(7), &[8])),
            (places(Some(7), &[8]), &[8, 7], places(Some(7), &[8])),
            (places(Some(7), &[8]), &[8, 9], places(Some(9), &[8])),
            // The device has none for a while, and they come one by one.
            (places(Some(7), &[3]), &[], places(Some(7), &[3])),
            (places(Some(7), &[3]), &[3], places(Some(7), &[3])),
        ] {
            let here: Vec<IpAddr> = here.iter().copied().map(address).collect();
            assert_eq!(was.clone().follow(&here), is, "{was:?} and {here:?}");
        }
    }

    #[test]
    fn a_table_keeps_them() {
        let device = IfName::new("wan0").unwrap();
        let written = places(Some(7), &[3, 9]);
        let mut elements = Elements::new();
        written.write(&device, &mut elements);
        written.write(&IfName::new("wan").unwrap(), &mut elements);
        let mut table = NftTable::default();
        let shape = crate::plan::nft::places_shape(Family::V4);
        let declaration = crate::kstate::Declared::new("", "");
        let role = crate::kstate::Role::Fixed;
        let set = crate::kstate::Set { declaration, role, shape, elements };
        table.sets.insert(names::places(Family::V4), set);
        assert_eq!(Places::read(&table, &device, Family::V4), written);
    }
}
