//! `RTM_NEWADDR`

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

use super::Names;
use crate::kstate::Address;

/// One address; `None` when its device is not one that we know.
pub(super) fn decode(message: &AddressMessage, names: &Names) -> Option<Address> {
    let header = &message.header;
    let mut flags = AddressFlags::from_bits_retain(u32::from(header.flags.bits()));
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(value) => address = Some(*value),
            AddressAttribute::Local(value) => local = Some(*value),
            AddressAttribute::Flags(value) => flags = *value,
            _ => {}
        }
    }
    // Point-to-point: `local` is ours and `address` is the far end. Else they are equal, or IPv6
    // gives `address` alone.
    let peer = address.filter(|far| local.is_some_and(|ours| ours != *far));
    let net = |ip| IpNet::new(ip, header.prefix_len).ok();
    let host_bits = if address?.is_ipv4() { 32 } else { 128 };
    Some(Address {
        device: names.get(&header.index)?.clone(),
        net: match (local.or(address)?, peer) {
            (ours, Some(_)) => IpNet::new(ours, host_bits).ok()?,
            (ours, None) => net(ours)?,
        },
        peer: peer.and_then(net),
        global: header.scope == AddressScope::Universe,
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
            && !flags.contains(AddressFlags::Optimistic),
        deprecated: flags.contains(AddressFlags::Deprecated),
        temporary: flags.contains(AddressFlags::Secondary),
    })
}
