//! `RTM_NEWLINK`: decoded by hand, because driver-specific attributes, which we do not need, come
//! in shapes that no decoder keeps up with, and a link that cannot be read is a link that is gone.

use nix::libc;

use super::super::wire::{Message, attributes, text, u32_ne};
use crate::kstate::Link;
use crate::model::IfName;

/// `struct ifinfomsg`
const HEADER_LEN: usize = 16;
/// `IFLA_CARRIER`
const CARRIER: u16 = 33;
/// `RTEXT_FILTER_SKIP_STATS`
const SKIP_STATS: u32 = 1 << 3;

/// Asks for every link, without counters.
pub(super) fn request() -> Message {
    let mut message = Message::new(libc::RTM_GETLINK, 0);
    message.raw(&[0; HEADER_LEN]);
    message.attribute(libc::IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes());
    message
}

/// Name and link; `None` when the name is not one that we accept.
pub(super) fn decode(body: &[u8]) -> Option<(IfName, Link)> {
    let index = u32_ne(body.get(4..)?)?;
    let flags = u32_ne(body.get(8..)?)?;
    let has = |flag: libc::c_int| flags & flag.cast_unsigned() != 0;
    let (mut name, mut mtu, mut carrier) = (None, 0, true);
    for (kind, value) in attributes(body.get(HEADER_LEN..)?) {
        match kind {
            libc::IFLA_IFNAME => name = IfName::new(&text(value)).ok(),
            libc::IFLA_MTU => mtu = u32_ne(value).unwrap_or(0),
            CARRIER => carrier = value.first() != Some(&0),
            _ => {}
        }
    }
    let up = has(libc::IFF_UP);
    let link = Link {
        index,
        up,
        carrier: up && carrier,
        mtu,
        loopback: has(libc::IFF_LOOPBACK),
        point_to_point: has(libc::IFF_POINTOPOINT),
    };
    Some((name?, link))
}
