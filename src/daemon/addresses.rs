//! Where an uplink is: its addresses and gateways, and how people are told that they are others.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::events::{Level, Told};
use crate::model::{EventKind, Family, Name};
use crate::plan::UplinkFacts;

/// Addresses and gateways of an uplink.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    addresses: BTreeSet<IpAddr>,
    gateways: Vec<IpAddr>,
}

impl Place {
    pub(super) fn of(facts: &UplinkFacts) -> Place {
        let gateway = |family| facts.ways.get(&family).and_then(|way| way.gateway);
        Place {
            addresses: facts.addresses.iter().copied().collect(),
            gateways: Family::BOTH.into_iter().filter_map(gateway).collect(),
        }
    }

    /// The uplink is here now; it was there.
    pub(super) fn tell(&self, uplink: &Name, was: &Place) -> Told {
        let shown = |list: Vec<String>| match list.is_empty() {
            true => "none".to_owned(),
            false => list.join(", "),
        };
        let addresses = |place: &Place| texts(&place.addresses);
        let mut parts = Vec::new();
        if self.addresses != was.addresses {
            let (now, before) = (shown(addresses(self)), shown(addresses(was)));
            parts.push(format!("addresses {now} (were {before})"));
        }
        if self.gateways != was.gateways {
            let (now, before) = (shown(texts(&self.gateways)), shown(texts(&was.gateways)));
            parts.push(format!("gateways {now} (were {before})"));
        }
        let text = format!("uplink {uplink} has other {}", parts.join("; "));
        Told::new(Level::Info, EventKind::AddressChanged, text)
            .of_uplink(uplink)
            .with("addresses", addresses(self))
            .with("addresses_were", addresses(was))
            .with("gateways", texts(&self.gateways))
            .with("gateways_were", texts(&was.gateways))
    }
}

fn texts<'a>(list: impl IntoIterator<Item = &'a IpAddr>) -> Vec<String> {
    list.into_iter().map(ToString::to_string).collect()
}
