//! One packet: where it starts, and its bytes, with a serial number that no router changes.

use std::net::{IpAddr, SocketAddr};

use homing::lab::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

/// Who sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Lan,
    Dmz,
    Router,
    Isp(usize),
}

#[derive(Debug, Clone)]
pub struct Shot {
    pub serial: u32,
    pub place: Place,
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u8,
    /// Ports, for TCP and UDP; the first is the identifier of ICMP.
    pub ports: (u16, u16),
    pub dscp: u8,
}

/// What every serial number begins with.
pub const MAGIC: u32 = 0x5e00_0000;
const MAGIC_MASK: u32 = 0xff00_0000;

impl Shot {
    pub fn has_ports(&self) -> bool {
        [6, 17].contains(&self.protocol)
    }

    pub fn is_icmp(&self) -> bool {
        [1, 58].contains(&self.protocol)
    }

    /// What conntrack knows it by, beside its addresses.
    pub fn id(&self) -> u16 {
        if self.has_ports() || self.is_icmp() { self.ports.0 } else { 0 }
    }

    fn body(&self) -> Vec<u8> {
        let serial = self.serial.to_be_bytes();
        let (from, to) = (self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes());
        let mut body = match self.protocol {
            6 => [&from[..], &to, &serial, &[0; 4], &[0x50, 2, 4, 0, 0, 0, 0, 0]].concat(),
            17 => [&from[..], &to, &[0, 12, 0, 0], &serial].concat(),
            1 => [&[8, 0, 0, 0][..], &from, &[0, 1], &serial].concat(),
            58 => [&[128, 0, 0, 0][..], &from, &[0, 1], &serial].concat(),
            // GRE wants a header; the others take anything.
            _ => [&[0, 0, 8, 0][..], &serial, &[0; 8]].concat(),
        };
        let at = match self.protocol {
            6 => Some(16),
            17 => Some(6),
            1 | 58 => Some(2),
            _ => None,
        };
        if let Some(at) = at {
            let sum = checksum(&[self.pseudo_header(body.len()), body.clone()].concat());
            body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        body
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let length = (length as u32).to_be_bytes();
        match (self.from, self.to) {
            _ if self.protocol == 1 => Vec::new(),
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let end = [0, self.protocol, length[2], length[3]];
                [&from.octets()[..], &to.octets(), &end].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let end = [0, 0, 0, self.protocol];
                [&from.octets()[..], &to.octets(), &length, &end].concat()
            }
            mixed => panic!("{mixed:?}"),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let body = self.body();
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let length = (20 + body.len() as u16).to_be_bytes();
                let start = [0x45, self.dscp << 2, length[0], length[1], 0, 0, 0, 0, 64];
                let end = [self.protocol, 0, 0];
                [&start[..], &end, &from.octets(), &to.octets(), &body].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let class = self.dscp << 2;
                let length = (body.len() as u16).to_be_bytes();
                let start = [0x60 | class >> 4, class << 4, 0, 0, length[0], length[1]];
                let end = [self.protocol, 64];
                [&start[..], &end, &from.octets(), &to.octets(), &body].concat()
            }
            mixed => panic!("{mixed:?}"),
        }
    }

    pub fn fire(&self, space: &Namespace) {
        let send = || {
            let domain = if self.from.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            // IPPROTO_RAW: the header is ours.
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(255)))?;
            socket.set_broadcast(true)?;
            if self.place == Place::Router {
                socket.bind(&SocketAddr::new(self.from, 0).into())?;
            }
            socket.send_to(&self.bytes(), &SocketAddr::new(self.to, 0).into())
        };
        let sent = space.enter(send).expect("enter");
        // A router without a route says so at once.
        assert!(sent.is_ok() || self.place == Place::Router, "{self:?}: {sent:?}");
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let sum: u32 =
        words.map(|w| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// What a captured packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caught {
    /// The packet itself, with the source that it has now.
    Shot { serial: u32, source: IpAddr },
    /// A RST or an ICMP error about it.
    Refusal { serial: u32 },
}

/// What an IP packet is, if it is one of ours.
pub fn recognise(packet: &[u8]) -> Option<Caught> {
    let (source, protocol, body) = split(packet)?;
    let number = |at: usize| Some(u32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let ours = |serial: u32| (serial & MAGIC_MASK == MAGIC).then_some(serial);
    let about = |at| {
        let inner = recognise(body.get(at..)?)?;
        match inner {
            Caught::Shot { serial, .. } => Some(Caught::Refusal { serial }),
            Caught::Refusal { .. } => None,
        }
    };
    let at = match (protocol, *body.first()?) {
        (6, _) if *body.get(13)? & 0x17 == 0x14 => {
            return ours(number(8)?.wrapping_sub(1)).map(|serial| Caught::Refusal { serial });
        }
        (6, _) if *body.get(13)? & 0x17 == 2 => 4,
        (17, _) | (1, 8) | (58, 128) => 8,
        (1, 3) | (58, 1) => return about(8),
        (6 | 1 | 58, _) => return None,
        _ => 4,
    };
    ours(number(at)?).map(|serial| Caught::Shot { serial, source })
}

fn split(packet: &[u8]) -> Option<(IpAddr, u8, &[u8])> {
    match packet.first()? >> 4 {
        4 => {
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let header = usize::from(packet[0] & 15) * 4;
            Some((source.into(), *packet.get(9)?, packet.get(header..)?))
        }
        6 => {
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            Some((source.into(), *packet.get(6)?, packet.get(40..)?))
        }
        _ => None,
    }
}
