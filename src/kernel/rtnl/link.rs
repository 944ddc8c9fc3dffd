//! `RTM_NEWLINK`: decoded by hand, because driver-specific attributes, which we do not need, come
//! in shapes that no decoder keeps up with, and a link that cannot be read is a link that is gone.

use nix::libc;

use super::super::wire::{Message, attribute, attributes, text, u32_ne};
use crate::kstate::Link;
use crate::model::IfName;

/// `struct ifinfomsg`
const HEADER_LEN: usize = 16;
/// `IFLA_CARRIER`
const CARRIER: u16 = 33;
/// All but `NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`
const NESTED: u16 = 0x3fff;
/// `RTEXT_FILTER_SKIP_STATS`
const SKIP_STATS: u32 = 1 << 3;

/// Asks for every link, without counters.
pub(super) fn request() -> Message {
    let mut message = Message::new(libc::RTM_GETLINK, 0);
    message.raw(&[0; HEADER_LEN]);
    message.attribute(libc::IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
    message
}

/// The name of a bridge; `None` for everything else.
pub(super) fn decode_bridge(body: &[u8]) -> Option<IfName> {
    let (mut name, mut is_bridge) = (None, false);
    for (kind, value) in attributes(body.get(HEADER_LEN..)?) {
        match kind & NESTED {
            libc::IFLA_IFNAME => name = IfName::new(&text(value)).ok(),
            libc::IFLA_LINKINFO => {
                is_bridge = attributes(value)
                    .any(|(kind, value)| kind == libc::IFLA_INFO_KIND && text(value) == "bridge");
            }
            _ => {}
        }
    }
    name.filter(|_| is_bridge)
}

/// Name and link; `None` when the name is not one that we accept.
pub(super) fn decode(body: &[u8]) -> Option<(IfName, Link)> {
    let index = u32_ne(body.get(4..)?)?;
    let flags = u32_ne(body.get(8..)?)?;
    let has = |flag: libc::c_int| flags & flag.cast_unsigned() != 0;
    let (mut name, mut mtu) = (None, 0);
    for (kind, value) in attributes(body.get(HEADER_LEN..)?) {
        match kind {
            libc::IFLA_IFNAME => name = IfName::new(&text(value)).ok(),
            libc::IFLA_MTU => mtu = u32_ne(value).unwrap_or(0),
            _ => {}
        }
    }
    let link = Link {
        index,
        up: has(libc::IFF_UP),
        carrier: has_carrier(body),
        mtu,
        loopback: has(libc::IFF_LOOPBACK),
        point_to_point: has(libc::IFF_POINTOPOINT),
    };
    Some((name?, link))
}

/// Whether a link is up and can send, by the body of its message. Without carrier it cannot, from that
/// moment on; when the carrier is back it cannot either until the kernel has set the device going
/// (`IFF_RUNNING`), and a first packet in between would be lost for a second.
pub(in crate::kernel) fn has_carrier(body: &[u8]) -> bool {
    let flags = body.get(8..).and_then(u32_ne).unwrap_or(0);
    let going = (libc::IFF_UP | libc::IFF_RUNNING).cast_unsigned();
    let carrier = body.get(HEADER_LEN..).and_then(|rest| attribute(rest, CARRIER));
    flags & going == going && carrier.and_then(<[u8]>::first) != Some(&0)
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::messages;
    use super::{Message, decode, libc};

    /// A link with these flags, whose driver says it has carrier.
    fn link(name: &str, flags: libc::c_int) -> Vec<u8> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.raw(&[0, 0, 1, 0, 9, 0, 0, 0]);
        message.raw(&flags.to_ne_bytes());
        message.raw(&[0; 4]);
        message.attribute_text(libc::IFLA_IFNAME, name);
        message.attribute(super::CARRIER, &[1]);
        message.finish(1)
    }

    #[test]
    fn a_link_that_is_down_or_not_yet_going_has_no_carrier() {
        let going = libc::IFF_UP | libc::IFF_RUNNING;
        for (flags, expected) in [(going, true), (libc::IFF_UP, false), (libc::IFF_RUNNING, false)]
        {
            let bytes = link("wan0", flags);
            let found = messages(&bytes).find_map(|message| decode(message.body));
            let found = found.map(|(name, link)| (name.to_string(), link.index, link.carrier));
            assert_eq!(found, Some(("wan0".to_owned(), 9, expected)));
        }
    }

    #[test]
    fn a_name_that_could_break_a_script_is_no_link() {
        let bytes = link("a\";drop", libc::IFF_UP);
        assert_eq!(messages(&bytes).find_map(|message| decode(message.body)), None);
    }
}
