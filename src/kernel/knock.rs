//! Segments that make an idle TCP client speak, so that it hears that its connection is over.
//!
//! Nobody but the two ends knows the numbers that a valid reset must bear. A segment outside its
//! window makes a client answer with the right ones; that answer meets the rule that resets.
//!
//! Of four segments, half the number space apart in sequence and in acknowledgement, one always looks
//! like a late copy of what both ends have had long since. That one passes even a client's own
//! firewall that drops what is invalid (Linux since 6.1: `tcp_in_window` in the kernel's
//! `nf_conntrack_proto_tcp.c` lets late segments pass). It carries a byte, like a keepalive of old: a
//! late segment without data whose timestamp is old, too, is dropped without an answer
//! (`tcp_disordered_ack` in `tcp_input.c`), and whether a timestamp looks old is chance. Systems that
//! want a timestamp on every segment get one.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::conntrack::Session;
use crate::model::{IfName, Mark};

/// `IPPROTO_RAW`, `IPPROTO_TCP`
const RAW: i32 = 255;
const TCP: u8 = 6;
/// Half the number space.
const HALF: u32 = 1 << 31;
/// The priority of packets to clients behind an uplink.
const PRIORITY: u32 = crate::kstate::KNOCKING;
/// Bytes of the TCP header, with two fillers and a timestamp.
const HEADER: usize = 32;
/// And one byte of data.
const LENGTH: usize = HEADER + 1;

/// Sends them.
#[derive(Debug)]
pub struct Knocker {
    four: Socket,
    six: Socket,
}

impl Knocker {
    /// Packets get this mark: by it they are routed to the inside alone, and are not tracked.
    ///
    /// # Errors
    /// When a raw socket cannot be had (it takes CAP_NET_RAW).
    pub fn open(mark: Mark) -> io::Result<Knocker> {
        let open = |domain| {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
            socket.set_mark(mark.0)?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        };
        let four = open(Domain::IPV4)?;
        four.set_header_included_v4(true)?;
        let six = open(Domain::IPV6)?;
        six.set_header_included_v6(true)?;
        Ok(Knocker { four, six })
    }

    /// For clients behind an uplink: packets leave by it, whatever routes say, and are told from others
    /// by their priority (rules of ours see that they are not tracked).
    ///
    /// # Errors
    /// When a raw socket cannot be had (it takes CAP_NET_RAW and CAP_NET_ADMIN).
    pub fn outside(device: &IfName) -> io::Result<Knocker> {
        let knocker = Knocker::open(Mark(0))?;
        for socket in [&knocker.four, &knocker.six] {
            socket.bind_device(Some(device.as_str().as_bytes()))?;
            socket.set_priority(PRIORITY)?;
        }
        Ok(knocker)
    }

    /// To the client of a TCP session, as if from the other end.
    ///
    /// # Errors
    /// When there is no way to the client but by an uplink, or no room to send.
    pub fn knock(&self, session: &Session) -> io::Result<()> {
        let client = SocketAddr::new(session.orig.src, session.orig.sport);
        let remote = SocketAddr::new(session.orig.dst, session.orig.dport);
        let socket = if client.is_ipv4() { &self.four } else { &self.six };
        // The destination's port must be 0 on an IPv6 raw socket.
        let to = SocketAddr::new(client.ip(), 0).into();
        for sequence in [0, HALF] {
            for acknowledgement in [0, HALF] {
                let packet = packet(remote, client, sequence, acknowledgement);
                socket.send_to(&packet, &to)?;
            }
        }
        Ok(())
    }
}

fn packet(from: SocketAddr, to: SocketAddr, sequence: u32, acknowledgement: u32) -> Vec<u8> {
    let segment = segment(from, to, sequence, acknowledgement);
    let mut packet = Vec::with_capacity(40 + LENGTH);
    let length = LENGTH as u16;
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // Version and length, no class; whole length; no number, not to be cut; 64 hops.
            packet.extend([0x45, 0]);
            packet.extend((20 + length).to_be_bytes());
            // The kernel sums the header.
            packet.extend([0, 0, 0x40, 0, 64, TCP, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        (from, to) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([TCP, 64]);
            packet.extend(six(from).octets());
            packet.extend(six(to).octets());
        }
    }
    packet.extend(segment);
    packet
}

fn segment(from: SocketAddr, to: SocketAddr, sequence: u32, acknowledgement: u32) -> [u8; LENGTH] {
    let mut segment = Vec::with_capacity(LENGTH);
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgement.to_be_bytes());
    // Length in words; ACK; a window; the sum, later; nothing urgent.
    segment.extend([(HEADER as u8 / 4) << 4, 0x10, 4, 0, 0, 0, 0, 0]);
    // Two fillers, and a timestamp of 1 that echoes none.
    segment.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0]);
    segment.push(0);
    let sum = checksum(from.ip(), to.ip(), TCP, &segment);
    let mut whole = [0; LENGTH];
    whole.copy_from_slice(&segment);
    whole[16..18].copy_from_slice(&sum.to_be_bytes());
    whole
}

/// Over what follows the header of IP, and the addresses (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub(super) fn checksum(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut words = [octets(from), octets(to)].concat();
    words.extend([0, protocol]);
    words.extend((segment.len() as u16).to_be_bytes());
    words.extend_from_slice(segment);
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = words.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{LENGTH, TCP, checksum, packet, segment};

    fn ends(text: [&str; 2]) -> [SocketAddr; 2] {
        text.map(|one| one.parse().unwrap_or_else(|_| panic!("{one}")))
    }

    #[test]
    fn the_sum_of_a_segment_with_its_sum_is_nothing() {
        for text in [["192.0.2.1:80", "10.1.0.9:40000"], ["[2001:db8::1]:80", "[fd00::9]:40000"]] {
            let [from, to] = ends(text);
            let segment = segment(from, to, 1 << 31, 7);
            assert_eq!(checksum(from.ip(), to.ip(), TCP, &segment), 0);
        }
    }

    #[test]
    fn lengths_are_right() {
        let [from, to] = ends(["192.0.2.1:80", "10.1.0.9:40000"]);
        let four = packet(from, to, 0, 0);
        assert_eq!(four.len(), 20 + LENGTH);
        assert_eq!(four[2..4], 53_u16.to_be_bytes());
        let [from, to] = ends(["[2001:db8::1]:80", "[fd00::9]:40000"]);
        let six = packet(from, to, 0, 0);
        assert_eq!(six.len(), 40 + LENGTH);
        assert_eq!(six[4..6], 33_u16.to_be_bytes());
    }
}
