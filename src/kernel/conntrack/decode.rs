//! One session: from and to the kernel's bytes. Nothing is allocated.

use std::net::{IpAddr, Ipv6Addr};

use super::super::nfnl::HEADER_LEN;
use super::super::wire::{Message, attribute, attributes, u16_be, u32_be, u64_be};
use crate::model::{Family, Mark};

/// `enum ctattr_*` of `linux/netfilter/nfnetlink_conntrack.h`
pub(super) mod attr {
    pub(crate) const TUPLE_ORIGINAL: u16 = 1;
    pub(crate) const TUPLE_REPLY: u16 = 2;
    pub(crate) const STATUS: u16 = 3;
    pub(crate) const PROTOCOL_INFO: u16 = 4;
    pub(crate) const TIMEOUT: u16 = 7;
    pub(crate) const MARK: u16 = 8;
    pub(crate) const COUNTERS_ORIGINAL: u16 = 9;
    pub(crate) const COUNTERS_REPLY: u16 = 10;
    pub(crate) const ID: u16 = 12;
    pub(crate) const ZONE: u16 = 18;
    pub(crate) const MARK_MASK: u16 = 21;

    pub(crate) const TUPLE_IP: u16 = 1;
    pub(crate) const TUPLE_PROTOCOL: u16 = 2;
    pub(crate) const IP_V4_SOURCE: u16 = 1;
    pub(crate) const IP_V4_DESTINATION: u16 = 2;
    pub(crate) const IP_V6_SOURCE: u16 = 3;
    pub(crate) const IP_V6_DESTINATION: u16 = 4;
    pub(crate) const PROTOCOL_NUMBER: u16 = 1;
    pub(crate) const SOURCE_PORT: u16 = 2;
    pub(crate) const DESTINATION_PORT: u16 = 3;
    pub(crate) const ICMP_ID: u16 = 4;
    pub(crate) const ICMP_TYPE: u16 = 5;
    pub(crate) const ICMP_CODE: u16 = 6;
    pub(crate) const ICMP6_ID: u16 = 7;
    pub(crate) const ICMP6_TYPE: u16 = 8;
    pub(crate) const ICMP6_CODE: u16 = 9;
    pub(crate) const INFO_TCP: u16 = 1;
    pub(crate) const TCP_STATE: u16 = 1;
    pub(crate) const COUNTER_PACKETS: u16 = 1;
    pub(crate) const COUNTER_BYTES: u16 = 2;
}

/// `IPPROTO_TCP`
const TCP: u8 = 6;
/// `TCP_CONNTRACK_ESTABLISHED`
const ESTABLISHED: u8 = 3;
/// `IPPROTO_ICMP`, `IPPROTO_ICMPV6`
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// One entry of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The family of its original direction.
    pub family: Family,
    /// The IANA number of its protocol.
    pub protocol: u8,
    /// All bits of its mark, ours and others'.
    pub mark: Mark,
    /// `IPS_*`: see [`Session::REPLY_SEEN`] and its neighbours.
    pub status: u32,
    /// Seconds until it is forgotten, unless a packet comes; 0 while a flowtable carries it.
    pub timeout_s: u32,
    /// As the client sent it.
    pub orig: Tuple,
    /// As the replies come; NAT shows in the difference.
    pub reply: Tuple,
    /// Packets and bytes of both directions; zeros unless `nf_conntrack_acct` is on.
    pub sent: Direction,
    /// The same, of the replies.
    pub received: Direction,
    /// TCP: `TCP_CONNTRACK_*` (1 SYN sent, 2 SYN received, 3 established, 7 time wait, 8 close …).
    pub tcp_state: Option<u8>,
    /// Tells it from an earlier entry with the same addresses and ports.
    pub id: u32,
    /// The conntrack zone; 0 unless somebody sets zones.
    pub zone: u16,
}

/// What one direction carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Direction {
    /// Packets.
    pub packets: u64,
    /// Bytes, with IP headers.
    pub bytes: u64,
}

/// One direction's addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// From.
    pub src: IpAddr,
    /// To.
    pub dst: IpAddr,
    /// The source port; of ICMP: the identifier.
    pub sport: u16,
    /// The destination port; of ICMP: type × 256 + code.
    pub dport: u16,
}

impl Session {
    /// `IPS_SEEN_REPLY`: packets went both ways.
    pub const REPLY_SEEN: u32 = 1 << 1;
    /// `IPS_ASSURED`: it is not dropped early when the table is full.
    pub const ASSURED: u32 = 1 << 2;
    /// `IPS_CONFIRMED`: its first packet was let through.
    pub const CONFIRMED: u32 = 1 << 3;
    /// `IPS_SRC_NAT`
    pub const SOURCE_NAT: u32 = 1 << 4;
    /// `IPS_DST_NAT`
    pub const DESTINATION_NAT: u32 = 1 << 5;
    /// `IPS_OFFLOAD`: a flowtable carries it.
    pub const OFFLOAD: u32 = 1 << 14;

    /// `IPS_HW_OFFLOAD`: the network card does.
    pub const HARDWARE: u32 = 1 << 15;

    /// Whether its packets go past the rules.
    pub fn is_offloaded(&self) -> bool {
        self.has(Session::OFFLOAD | Session::HARDWARE)
    }

    /// Whether a status bit is set.
    pub fn has(&self, status: u32) -> bool {
        self.status & status != 0
    }
}

/// `AF_INET`, `AF_INET6`
pub(super) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// One message of a dump; `None` for what has no addresses of these families.
pub(in crate::kernel) fn session(body: &[u8]) -> Option<Session> {
    let (mut orig, mut reply) = (None, None);
    let (mut mark, mut status, mut timeout, mut id) = (0, 0, 0, 0);
    let (mut sent, mut received) = (Direction::default(), Direction::default());
    let (mut tcp_state, mut zone) = (None, 0);
    for (kind, value) in attributes(body.get(HEADER_LEN..)?) {
        match kind {
            attr::TUPLE_ORIGINAL => orig = tuple(value),
            attr::TUPLE_REPLY => reply = tuple(value),
            attr::STATUS => status = u32_be(value)?,
            attr::PROTOCOL_INFO => tcp_state = tcp(value),
            attr::TIMEOUT => timeout = u32_be(value)?,
            attr::MARK => mark = u32_be(value)?,
            attr::COUNTERS_ORIGINAL => sent = direction(value),
            attr::COUNTERS_REPLY => received = direction(value),
            attr::ID => id = u32_be(value)?,
            attr::ZONE => zone = u16_be(value)?,
            _ => {}
        }
    }
    let (protocol, orig) = orig?;
    if protocol == TCP && status & (Session::OFFLOAD | Session::HARDWARE) != 0 {
        // The kernel says neither state nor time of what a flowtable carries; it takes no others.
        tcp_state = tcp_state.or(Some(ESTABLISHED));
    }
    Some(Session {
        family: Family::of(orig.src),
        protocol,
        mark: Mark(mark),
        status,
        timeout_s: timeout,
        orig,
        reply: reply?.1,
        sent,
        received,
        tcp_state,
        id,
        zone,
    })
}

fn tcp(info: &[u8]) -> Option<u8> {
    attribute(attribute(info, attr::INFO_TCP)?, attr::TCP_STATE)?.first().copied()
}

fn direction(counters: &[u8]) -> Direction {
    let number = |kind| attribute(counters, kind).and_then(u64_be).unwrap_or(0);
    Direction { packets: number(attr::COUNTER_PACKETS), bytes: number(attr::COUNTER_BYTES) }
}

/// The protocol's number, and addresses and ports.
fn tuple(value: &[u8]) -> Option<(u8, Tuple)> {
    let (mut src, mut dst) = (None, None);
    for (kind, value) in attributes(attribute(value, attr::TUPLE_IP)?) {
        match kind {
            attr::IP_V4_SOURCE | attr::IP_V6_SOURCE => src = address(value),
            attr::IP_V4_DESTINATION | attr::IP_V6_DESTINATION => dst = address(value),
            _ => {}
        }
    }
    let (mut protocol, mut sport, mut dport) = (0, 0, 0);
    for (kind, value) in attributes(attribute(value, attr::TUPLE_PROTOCOL)?) {
        let byte = || value.first().copied().map(u16::from);
        match kind {
            attr::PROTOCOL_NUMBER => protocol = *value.first()?,
            attr::SOURCE_PORT | attr::ICMP_ID | attr::ICMP6_ID => sport = u16_be(value)?,
            attr::DESTINATION_PORT => dport = u16_be(value)?,
            attr::ICMP_TYPE | attr::ICMP6_TYPE => dport |= byte()? << 8,
            attr::ICMP_CODE | attr::ICMP6_CODE => dport |= byte()?,
            _ => {}
        }
    }
    let (src, dst) = (src?, dst?);
    Some((protocol, Tuple { src, dst, sport, dport }))
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.first_chunk::<4>().map(|octets| (*octets).into()),
        _ => value.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into()),
    }
}

/// Names a session in a request.
pub(super) fn write_identity(message: &mut Message, session: &Session) {
    message.nest(attr::TUPLE_ORIGINAL, |m| {
        m.nest(attr::TUPLE_IP, |m| write_addresses(m, &session.orig));
        m.nest(attr::TUPLE_PROTOCOL, |m| {
            m.attribute(attr::PROTOCOL_NUMBER, &[session.protocol]);
            write_ports(m, session.protocol, &session.orig);
        });
    });
    if session.zone != 0 {
        message.attribute(attr::ZONE, &session.zone.to_be_bytes());
    }
}

fn write_addresses(message: &mut Message, tuple: &Tuple) {
    match (tuple.src, tuple.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            message.attribute(attr::IP_V4_SOURCE, &src.octets());
            message.attribute(attr::IP_V4_DESTINATION, &dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            message.attribute(attr::IP_V6_SOURCE, &src.octets());
            message.attribute(attr::IP_V6_DESTINATION, &dst.octets());
        }
        // The kernel never mixes families within a tuple; without addresses it refuses.
        _ => {}
    }
}

fn write_ports(message: &mut Message, protocol: u8, tuple: &Tuple) {
    let (id, kind, code) = match protocol {
        ICMP => (attr::ICMP_ID, attr::ICMP_TYPE, attr::ICMP_CODE),
        ICMP6 => (attr::ICMP6_ID, attr::ICMP6_TYPE, attr::ICMP6_CODE),
        _ => {
            message.attribute(attr::SOURCE_PORT, &tuple.sport.to_be_bytes());
            message.attribute(attr::DESTINATION_PORT, &tuple.dport.to_be_bytes());
            return;
        }
    };
    let [type_byte, code_byte] = tuple.dport.to_be_bytes();
    message.attribute(id, &tuple.sport.to_be_bytes());
    message.attribute(kind, &[type_byte]);
    message.attribute(code, &[code_byte]);
}

#[cfg(test)]
mod tests {
    use super::{Direction, Session, Tuple, session};
    use crate::kernel::stage::captured;
    use crate::model::{Family, Mark};

    #[test]
    fn of_what_a_flowtable_carries_the_kernel_tells_no_state() {
        let here = std::net::IpAddr::from([10, 0, 0, 1]);
        let tuple = Tuple { src: here, dst: here, sport: 1, dport: 2 };
        let state = |status| {
            let mut message = super::Message::new(0, 0);
            message.raw(&[2, 0, 0, 0]);
            for kind in [super::attr::TUPLE_ORIGINAL, super::attr::TUPLE_REPLY] {
                message.nest(kind, |m| {
                    m.nest(super::attr::TUPLE_IP, |m| super::write_addresses(m, &tuple));
                    m.nest(super::attr::TUPLE_PROTOCOL, |m| {
                        m.attribute(super::attr::PROTOCOL_NUMBER, &[6]);
                        super::write_ports(m, 6, &tuple);
                    });
                });
            }
            message.attribute_be32(super::attr::STATUS, status);
            session(&message.finish(1)[16..]).and_then(|session| session.tcp_state)
        };
        assert_eq!(state(Session::OFFLOAD), Some(3), "it is established");
        assert_eq!(state(Session::ASSURED), None);
    }

    #[test]
    fn an_entry_is_read_whole() {
        // Linux 6.18: one datagram from 127.0.0.1:2001 to :1001
        let body = captured(
            "020000003400018014000180080001007f000001080002007f0000011c0002800500010011000000
             0600020007d100000600030003e900003400028014000180080001007f000001080002007f000001
             1c00028005000100110000000600020003e900000600030007d10000080003000000000808000800
             1000010008000c00495fc0f708000b0000000001080007000000001e1c0009800c00010000000000
             000000010c000200000000000000001d1c000a800c00010000000000000000000c00020000000000
             00000000",
        );
        let local = std::net::IpAddr::from([127, 0, 0, 1]);
        let tuple = |sport, dport| Tuple { src: local, dst: local, sport, dport };
        let expected = Session {
            family: Family::V4,
            protocol: 17,
            mark: Mark(0x1000_0100),
            status: Session::CONFIRMED,
            timeout_s: 30,
            orig: tuple(2001, 1001),
            reply: tuple(1001, 2001),
            sent: Direction { packets: 1, bytes: 29 },
            received: Direction::default(),
            tcp_state: None,
            id: 0x495f_c0f7,
            zone: 0,
        };
        assert_eq!(session(&body), Some(expected));
        for end in 0..body.len() {
            // Torn input may be less, but never stops us.
            let _ = session(&body[..end]);
        }
    }
}
