//! Tells the neighbours of a device who has an address, so that none goes on sending to whoever had it
//! before.
//!
//! IPv4: ARP that nobody asked for, once as a request and once as a reply (RFC 5227, section 3), for
//! some listen to one of them alone. IPv6: an unsolicited neighbour advertisement (RFC 4861, section
//! 7.2.6) that overrides what is known. Both go to everybody on the link. Neither makes a neighbour
//! remember an address that it does not use.
//!
//! The frames are sent by a packet socket, past the firewall. A device without an Ethernet address, such
//! as a point-to-point one, has no neighbours to tell.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::libc;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use super::knock::checksum;
use crate::kstate::OwnAddress;
use crate::model::IfName;

/// An Ethernet address.
type Mac = [u8; 6];

const EVERYBODY: Mac = [0xff; 6];
/// `33:33` and the end of `ff02::1` (RFC 2464, section 7).
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// `ETH_P_ARP`, `ETH_P_IPV6`
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// `ARPOP_REQUEST`, `ARPOP_REPLY`
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// `IPPROTO_ICMPV6`, `NDISC_NEIGHBOUR_ADVERTISEMENT`
const ICMPV6: u8 = 58;
const ADVERTISEMENT: u8 = 136;
/// From a router; not asked for; overrides.
const FLAGS: u8 = 0x80 | 0x20;

/// Why an address was not announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// There is no socket (it takes CAP_NET_RAW).
    #[error("cannot open a packet socket: {}", .0.desc())]
    Open(Errno),
    /// The devices' own addresses could not be read.
    #[error("cannot read the addresses of the network devices: {}", .0.desc())]
    ReadDevices(Errno),
    /// The device did not take it.
    #[error("cannot announce {} on {}: {}", address.address, address.device, errno.desc())]
    Send {
        /// Which.
        address: OwnAddress,
        /// Why.
        errno: Errno,
    },
}

/// Announces addresses, in the network namespace of the thread that opens it.
#[derive(Debug)]
pub struct Announcer {
    socket: OwnedFd,
}

impl Announcer {
    /// Opens a socket, which receives nothing.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn open() -> Result<Announcer, AnnounceError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None);
        Ok(Announcer { socket: socket.map_err(AnnounceError::Open)? })
    }

    /// Announces each, and goes on when one cannot be. Those of devices that are gone, down or without
    /// neighbours are left out.
    ///
    /// # Errors
    /// The first that was not announced.
    pub fn announce(&self, addresses: &[OwnAddress]) -> Result<(), AnnounceError> {
        let devices = ethernet_devices().map_err(AnnounceError::ReadDevices)?;
        let mut outcome = Ok(());
        for own in addresses {
            let Some((device, mac)) = devices.get(&own.device) else { continue };
            for frame in frames(*mac, own.address) {
                outcome = outcome.and(self.send(own, device, &frame));
            }
        }
        outcome
    }

    fn send(&self, own: &OwnAddress, device: &LinkAddr, frame: &[u8]) -> Result<(), AnnounceError> {
        match sendto(self.socket.as_raw_fd(), frame, device, MsgFlags::MSG_DONTWAIT) {
            // It was there a moment ago.
            Ok(_) | Err(Errno::ENETDOWN | Errno::ENXIO | Errno::ENODEV) => Ok(()),
            Err(errno) => Err(AnnounceError::Send { address: own.clone(), errno }),
        }
    }
}

/// Every device that has an Ethernet address.
fn ethernet_devices() -> Result<BTreeMap<IfName, (LinkAddr, Mac)>, Errno> {
    let device = |one: nix::ifaddrs::InterfaceAddress| {
        let link = *one.address?.as_link_addr()?;
        let ethernet = link.hatype() == libc::ARPHRD_ETHER && link.halen() == Mac::default().len();
        let mac = link.addr().filter(|_| ethernet)?;
        Some((IfName::new(&one.interface_name).ok()?, (link, mac)))
    };
    Ok(getifaddrs()?.filter_map(device).collect())
}

/// What to send for an address, whole.
fn frames(mac: Mac, address: IpAddr) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => [REQUEST, REPLY].map(|kind| arp(mac, address, kind)).into(),
        IpAddr::V6(address) => vec![advertisement(mac, address)],
    }
}

fn ethernet(to: Mac, from: Mac, protocol: u16) -> Vec<u8> {
    [&to[..], &from, &protocol.to_be_bytes()].concat()
}

fn arp(mac: Mac, address: Ipv4Addr, kind: u16) -> Vec<u8> {
    let mut frame = ethernet(EVERYBODY, mac, ARP);
    // Ethernet and IPv4, and how long their addresses are.
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(kind.to_be_bytes());
    // Sender and target are the same. A reply is for everybody, a request knows no target yet.
    let target = if kind == REPLY { EVERYBODY } else { Mac::default() };
    for hardware in [mac, target] {
        frame.extend(hardware);
        frame.extend(address.octets());
    }
    frame
}

fn advertisement(mac: Mac, address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, FLAGS, 0, 0, 0];
    message.extend(address.octets());
    // The target's link-layer address, in units of eight bytes.
    message.extend([2, 1]);
    message.extend(mac);
    let sum = checksum(address.into(), ALL_NODES.into(), ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(ALL_NODES_MAC, mac, IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    // Whoever gets it with fewer hops left knows that it came from elsewhere.
    frame.extend([ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(message);
    frame
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::{ALL_NODES, ICMPV6, REPLY, REQUEST, advertisement, arp, checksum};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn arp_names_the_address_as_sender_and_as_target() {
        for kind in [REQUEST, REPLY] {
            let frame = arp(MAC, [203, 0, 113, 10].into(), kind);
            assert_eq!(frame.len(), 14 + 28);
            assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 8, 6]);
            assert_eq!(frame[20..22], kind.to_be_bytes());
            assert_eq!(frame[22..28], MAC);
            assert_eq!(
                (&frame[28..32], &frame[38..42]),
                (&[203, 0, 113, 10][..], &[203, 0, 113, 10][..])
            );
        }
    }

    #[test]
    fn the_sum_of_an_advertisement_with_its_sum_is_nothing() {
        let address: Ipv6Addr = "2001:db8:a::10".parse().unwrap_or(Ipv6Addr::UNSPECIFIED);
        let frame = advertisement(MAC, address);
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[18..20], 32_u16.to_be_bytes());
        assert_eq!(frame[54 + 24..54 + 26], [2, 1]);
        assert_eq!(checksum(address.into(), ALL_NODES.into(), ICMPV6, &frame[54..]), 0);
    }
}
