//! `RTM_GETROUTE`: where a packet would go, as the kernel itself decides it.

use std::net::IpAddr;

use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;

use super::super::socket::{Channel, NetlinkError};
use super::super::wire::{Message, attribute, u32_ne};
use crate::kstate::{Lookup, RouteInput, RouteQuery};
use crate::model::{Family, IfName};

/// `struct rtmsg`
const HEADER_LEN: usize = 12;
/// `RTA_MARK`, `RTA_IP_PROTO`
const MARK: u16 = 16;
const IP_PROTOCOL: u16 = 27;
/// `LOOPBACK_IFINDEX`: the input device by which nft's `fib` asks.
const LOOPBACK: u32 = 1;

/// Asks, and once more without the source when the loopback's own reverse-path filter, which no
/// packet meets, is what objects.
pub(super) fn ask(channel: &mut Channel, query: &RouteQuery) -> Result<Lookup, NetlinkError> {
    let Some(input) = input_index(query) else {
        return Ok(Lookup::Nowhere);
    };
    let answer = answer(channel, request(query, query.source, input))?;
    let odd = matches!(answer, Lookup::ReversePath | Lookup::Invalid);
    match query.input {
        RouteInput::Fib if odd => self::answer(channel, request(query, None, None)),
        RouteInput::Fib | RouteInput::Own | RouteInput::Device(_) => Ok(answer),
    }
}

/// `Some(None)`: no input device. `None`: the device is not there.
fn input_index(query: &RouteQuery) -> Option<Option<u32>> {
    match &query.input {
        RouteInput::Own => Some(None),
        RouteInput::Fib => Some(Some(LOOPBACK)),
        RouteInput::Device(device) => if_nametoindex(device.as_str()).ok().map(Some),
    }
}

fn request(query: &RouteQuery, source: Option<IpAddr>, input: Option<u32>) -> Message {
    let bits = query.family().host_bits();
    let family = match query.family() {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let mut header = [0; HEADER_LEN];
    header[0] = family as u8;
    header[1] = bits;
    header[2] = if source.is_some() { bits } else { 0 };
    header[3] = query.tos;
    let mut message = Message::new(libc::RTM_GETROUTE, 0);
    message.raw(&header);
    message.attribute(libc::RTA_DST, &bytes(query.destination));
    if let Some(source) = source {
        message.attribute(libc::RTA_SRC, &bytes(source));
    }
    if let Some(index) = input {
        message.attribute(libc::RTA_IIF, &index.to_ne_bytes());
    }
    message.attribute(MARK, &query.mark.0.to_ne_bytes());
    // The kernel knows three of them here; rules by any other protocol do not exist.
    if [libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6]
        .contains(&i32::from(query.protocol))
    {
        message.attribute(IP_PROTOCOL, &[query.protocol]);
    }
    message
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn answer(channel: &mut Channel, message: Message) -> Result<Lookup, NetlinkError> {
    match channel.get(message, |received| decode(received.body)) {
        Ok(answer) => Ok(answer.unwrap_or(Lookup::Nowhere)),
        Err(error) if error.is(&[Errno::EXDEV]) => Ok(Lookup::ReversePath),
        Err(error) if error.is(&[Errno::EINVAL]) => Ok(Lookup::Invalid),
        Err(error) if error.is(NOWHERE) => Ok(Lookup::Nowhere),
        Err(error) => Err(error),
    }
}

/// No route, `unreachable`, `prohibit`, `throw` at the end, forwarding is off, no such family.
const NOWHERE: &[Errno] = &[
    Errno::ENETUNREACH,
    Errno::EHOSTUNREACH,
    Errno::EACCES,
    Errno::EAGAIN,
    Errno::ESRCH,
    Errno::EAFNOSUPPORT,
    Errno::EOPNOTSUPP,
];

fn decode(body: &[u8]) -> Option<Lookup> {
    let attributes = body.get(HEADER_LEN..)?;
    Some(match *body.get(7)? {
        libc::RTN_UNICAST => {
            let index = attribute(attributes, libc::RTA_OIF).and_then(u32_ne)?;
            let name = nix::net::if_::if_indextoname(index).ok()?;
            let device = IfName::new(name.to_str().ok()?).ok()?;
            Lookup::Forward { device, gateway: gateway(attributes) }
        }
        libc::RTN_LOCAL | libc::RTN_ANYCAST => Lookup::Local,
        libc::RTN_BROADCAST | libc::RTN_MULTICAST => Lookup::Many,
        libc::RTN_BLACKHOLE => Lookup::Invalid,
        _ => Lookup::Nowhere,
    })
}

fn gateway(attributes: &[u8]) -> Option<IpAddr> {
    let address = |bytes: &[u8]| {
        let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
    };
    let via = || attribute(attributes, libc::RTA_VIA).and_then(|via| address(via.get(2..)?));
    attribute(attributes, libc::RTA_GATEWAY).and_then(address).or_else(via)
}
