//! `RTM_NEWADDR`, there and back.

use ipnet::IpNet;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressMessage, AddressProtocol, AddressScope,
};

use super::{Names, address_family};
use crate::kstate::{Address, OUR_PROTOCOL, OwnAddress};
use crate::model::Family;

/// Whose an address is.
pub(super) enum Whose {
    /// It is a single one, of our protocol.
    Ours(OwnAddress),
    /// Somebody else's.
    Foreign(Address),
}

/// One address; `None` when its device is not one that we know.
pub(super) fn decode(message: &AddressMessage, names: &Names) -> Option<Whose> {
    let mut attributes = message.attributes.iter();
    let ours = AddressAttribute::Protocol(AddressProtocol::Other(OUR_PROTOCOL));
    let is_ours = attributes.any(|attribute| *attribute == ours);
    let address = decode_foreign(message, names)?;
    let single = address.net.prefix_len() == address.net.max_prefix_len();
    Some(match is_ours && single && address.peer.is_none() {
        true => Whose::Ours(OwnAddress { device: address.device, address: address.net.addr() }),
        false => Whose::Foreign(address),
    })
}

fn decode_foreign(message: &AddressMessage, names: &Names) -> Option<Address> {
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

/// The message that adds or deletes an address of ours, on the device with this index.
///
/// `IFA_F_NOPREFIXROUTE`: IPv6 would make a route to the single address in the main table.
pub(super) fn encode(own: &OwnAddress, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    let family = own.family();
    message.header = AddressHeader {
        family: address_family(family),
        prefix_len: family.host_bits(),
        scope: AddressScope::Universe,
        index,
        ..AddressHeader::default()
    };
    let flags = match family {
        Family::V4 => AddressFlags::Noprefixroute,
        Family::V6 => AddressFlags::Noprefixroute | AddressFlags::Nodad,
    };
    message.attributes = vec![
        AddressAttribute::Local(own.address),
        AddressAttribute::Address(own.address),
        AddressAttribute::Flags(flags),
        AddressAttribute::Protocol(AddressProtocol::Other(OUR_PROTOCOL)),
    ];
    message
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use netlink_packet_core::{Emitable, Parseable};
    use netlink_packet_route::address::AddressMessage;

    use super::{Whose, decode, encode};
    use crate::kstate::OwnAddress;
    use crate::model::IfName;

    #[test]
    fn what_is_written_is_read_back_as_ours() {
        for text in ["203.0.113.10", "2001:db8:a::10"] {
            let device = IfName::new("wan0").unwrap_or_else(|e| panic!("{e}"));
            let address = text.parse().unwrap_or_else(|e| panic!("{e}"));
            let own = OwnAddress { device: device.clone(), address };
            let message = encode(&own, 3);
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            let message = AddressMessage::parse(bytes.as_slice()).unwrap_or_else(|e| panic!("{e}"));
            let found = decode(&message, &BTreeMap::from([(3, device)]));
            assert!(matches!(found, Some(Whose::Ours(found)) if found == own));
            assert!(decode(&message, &BTreeMap::new()).is_none());
        }
    }
}
