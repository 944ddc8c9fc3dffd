//! What the kernel tells on its own: that something changed, never what exactly.
//!
//! A notice is a reason to observe again, so its content is reduced to what decides whether that
//! is needed and how soon. The socket buffers are large, but they can overrun; then
//! [`Notice::Overrun`] says that anything may have changed.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use nix::libc;
use tokio::io::unix::AsyncFd;

use super::hush::Hush;
use super::nfnl::{HEADER_LEN, attr, kind, nft_kind};
use super::rtnl::has_carrier;
use super::socket::{NetlinkError, enlarge};
use super::wire::{self, Received, attribute, text, u32_be};

/// Room for one datagram; a notice of a link with many virtual functions is the longest.
const DATAGRAM: usize = 64 * 1024;
/// `NFNLGRP_NFTABLES`
pub(super) const NFTABLES_GROUP: u32 = 7;
/// `RTNLGRP_*`: links, addresses, routes and rules of both families.
const ROUTE_GROUPS: [u32; 7] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
];

/// `AF_UNSPEC`
const UNSPECIFIED: u8 = 0;

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A device: made, removed, up, down, carrier, MTU.
    Link {
        /// Its index.
        index: u32,
        /// Whether it is there, up, and has carrier, if the notice tells. (One for another reason
        /// tells it too, while that of the carrier itself may be held back for a second.)
        carrier: Option<bool>,
        /// The port of the socket that asked for the change; 0 if it was the kernel itself.
        port: u32,
    },
    /// An address.
    Address {
        /// The index of its device.
        index: u32,
        /// As above.
        port: u32,
    },
    /// A route.
    Route {
        /// As above.
        port: u32,
    },
    /// A rule.
    Rule {
        /// As above.
        port: u32,
    },
    /// A transaction on nftables.
    Nft {
        /// The rule set's generation after it.
        generation: u32,
        /// The process (or thread) that did it.
        pid: u32,
        /// Its name.
        name: String,
        /// As above.
        port: u32,
    },
    /// While we changed elements unheard, somebody else may have changed something too.
    Missed,
    /// Notices were lost: observe everything.
    Overrun,
}

impl Notice {
    /// The port of the socket that asked for the change: compare with [`super::Linux::ports`].
    pub fn port(&self) -> Option<u32> {
        match self {
            Notice::Link { port, .. }
            | Notice::Address { port, .. }
            | Notice::Route { port }
            | Notice::Rule { port }
            | Notice::Nft { port, .. } => Some(*port),
            Notice::Missed | Notice::Overrun => None,
        }
    }
}

/// The kernel's notices, of the network namespace of the thread that opened them.
pub struct Notices {
    route: Listener<Notice>,
    netfilter: Listener<Notice>,
    hush: Hush,
}

impl Notices {
    /// Subscribes. Changes from here on are told, but for our own that are made by `hush`. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// When a socket cannot be opened, or a group cannot be joined.
    pub fn open(hush: &Hush) -> Result<Notices, NetlinkError> {
        let netfilter = Listener::open(NETLINK_NETFILTER, &[NFTABLES_GROUP])?;
        hush.listen(netfilter.socket.get_ref().clone());
        let route = Listener::open(NETLINK_ROUTE, &ROUTE_GROUPS)?;
        Ok(Notices { route, netfilter, hush: hush.clone() })
    }

    /// Waits for the next notice. Cancel safe: what has arrived is kept.
    ///
    /// # Errors
    /// When a socket fails; then open new ones and observe everything.
    pub async fn next(&mut self) -> Result<Notice, NetlinkError> {
        Ok(poll_fn(|cx| self.poll(cx)).await?)
    }

    /// A further notice, if one has arrived; does not wait. Errors are left to [`Notices::next`].
    pub async fn arrived(&mut self) -> Option<Notice> {
        poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(notice) => Poll::Ready(notice.ok()),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Notice>> {
        if self.hush.poll_missed(cx) {
            return Poll::Ready(Ok(Notice::Missed));
        }
        let heard = match self.netfilter.poll(cx, decode_nft) {
            Poll::Pending => self.route.poll(cx, decode_route),
            heard => heard,
        };
        heard.map_ok(|heard| match heard {
            Heard::That(notice) => notice,
            Heard::Overrun => Notice::Overrun,
        })
    }
}

/// Neighbours that the kernel has given up. They have a socket of their own: somebody who scans a
/// network makes the kernel tell of thousands, and what is lost of them does no harm.
pub struct Neighbours(Listener<Unreachable>);

/// A neighbour that does not answer ARP or neighbour discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreachable {
    /// The index of the device.
    pub index: u32,
    /// The neighbour.
    pub address: IpAddr,
}

impl Neighbours {
    /// Subscribes. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn open() -> Result<Neighbours, NetlinkError> {
        Ok(Neighbours(Listener::open(NETLINK_ROUTE, &[libc::RTNLGRP_NEIGH])?))
    }

    /// Waits for the next one. Cancel safe.
    ///
    /// # Errors
    /// When the socket fails; then open a new one.
    pub async fn next(&mut self) -> Result<Unreachable, NetlinkError> {
        loop {
            match poll_fn(|cx| self.0.poll(cx, decode_neighbour)).await? {
                Heard::That(neighbour) => return Ok(neighbour),
                Heard::Overrun => {}
            }
        }
    }
}

/// What came in.
enum Heard<T> {
    That(T),
    /// Some was lost.
    Overrun,
}

/// One socket, and what has been read from it but not handed out.
struct Listener<T> {
    socket: AsyncFd<Arc<Socket>>,
    buffer: Vec<u8>,
    waiting: std::collections::VecDeque<T>,
}

impl<T> Listener<T> {
    fn open(protocol: isize, groups: &[u32]) -> Result<Listener<T>, NetlinkError> {
        let mut socket = Socket::new(protocol)?;
        // A socket that is not bound first joins groups, and hears nothing.
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        enlarge(&socket)?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        #[expect(
            deprecated,
            reason = "`register` is unsafe; this socket owns its descriptor to the end"
        )]
        let socket = AsyncFd::new(Arc::new(socket))?;
        Ok(Listener {
            socket,
            buffer: Vec::with_capacity(DATAGRAM),
            waiting: std::collections::VecDeque::new(),
        })
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        decode: fn(&Received<'_>) -> Option<T>,
    ) -> Poll<io::Result<Heard<T>>> {
        loop {
            if let Some(heard) = self.waiting.pop_front() {
                return Poll::Ready(Ok(Heard::That(heard)));
            }
            let mut ready = match self.socket.poll_read_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Poll::Pending,
            };
            self.buffer.clear();
            match ready.try_io(|socket| socket.get_ref().recv(&mut self.buffer, 0)) {
                // Not ready after all: asking again registers this task.
                Err(_) => {}
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Poll::Ready(Ok(Heard::Overrun));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Ok(Ok(_)) => {
                    let messages = wire::messages(&self.buffer);
                    self.waiting.extend(messages.filter_map(|message| decode(&message)));
                }
            }
        }
    }
}

fn decode_route(message: &Received<'_>) -> Option<Notice> {
    let port = message.port;
    // `struct ifinfomsg` and `struct ifaddrmsg` both have the index at offset 4.
    let index = || wire::u32_ne(message.body.get(4..)?);
    match message.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            // A bridge tells of its ports by the same messages, of another family.
            let of_link = message.body.first() == Some(&UNSPECIFIED);
            let there = message.kind == libc::RTM_NEWLINK;
            let carrier = of_link.then(|| there && has_carrier(message.body));
            Some(Notice::Link { index: index()?, carrier, port })
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => Some(Notice::Address { index: index()?, port }),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => Some(Notice::Route { port }),
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Some(Notice::Rule { port }),
        _ => None,
    }
}

/// Each transaction ends with one message of its own; those of its parts are left out.
fn decode_nft(message: &Received<'_>) -> Option<Notice> {
    nft_kind(message.kind).filter(|kind| *kind == kind::NEW_GENERATION)?;
    let body = message.body.get(HEADER_LEN..)?;
    let number = |wanted| attribute(body, wanted).and_then(u32_be);
    Some(Notice::Nft {
        generation: number(attr::GENERATION_ID)?,
        pid: number(attr::GENERATION_PID).unwrap_or(0),
        name: attribute(body, attr::GENERATION_NAME).map_or(String::new(), text),
        port: message.port,
    })
}

/// `NDA_DST`
const NEIGHBOUR_ADDRESS: u16 = 1;

fn decode_neighbour(message: &Received<'_>) -> Option<Unreachable> {
    if message.kind != libc::RTM_NEWNEIGH {
        return None;
    }
    // `struct ndmsg`: the index at offset 4, the state at offset 8; 12 bytes.
    let state = message.body.get(8..10).and_then(|bytes| bytes.try_into().ok());
    if state.map(u16::from_ne_bytes)? & libc::NUD_FAILED == 0 {
        return None;
    }
    let address = attribute(message.body.get(12..)?, NEIGHBOUR_ADDRESS)?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
    };
    Some(Unreachable { index: wire::u32_ne(message.body.get(4..)?)?, address })
}

/// Takes a message for a notice of each kind: whatever the bytes, it comes back.
pub(super) fn decode_any(message: &Received<'_>) {
    let _ = (decode_route(message), decode_nft(message), decode_neighbour(message));
}

#[cfg(test)]
mod tests {
    use super::{Notice, Unreachable, decode_neighbour, decode_nft, wire};
    use crate::kernel::stage::captured;

    #[test]
    fn only_neighbours_that_failed_are_told_of() {
        let body = |state: u16| {
            let mut body = vec![2, 0, 0, 0, 7, 0, 0, 0];
            body.extend(state.to_ne_bytes());
            body.extend([0, 1, 8, 0, 1, 0, 192, 0, 2, 1]);
            body
        };
        let decode = |kind: u16, state: u16| {
            let body = body(state);
            decode_neighbour(&wire::Received { kind, flags: 0, sequence: 0, port: 0, body: &body })
        };
        let failed = Some(Unreachable { index: 7, address: [192, 0, 2, 1].into() });
        assert_eq!(decode(28, 0x20), failed);
        assert_eq!(decode(28, 0x02), None, "reachable");
        assert_eq!(decode(29, 0x20), None, "deleted");
    }

    #[test]
    fn a_transaction_tells_who_made_it() {
        // Linux 6.18: nft add table ip x
        let datagram = captured(
            "2c0000000f0a000001000000cf2300000000000a080001000000000a08000200000023cf08000300
             6e667400",
        );
        let notice = wire::messages(&datagram).find_map(|message| decode_nft(&message));
        let (pid, port) = (0x23cf, 0x23cf);
        assert_eq!(notice, Some(Notice::Nft { generation: 10, pid, name: "nft".into(), port }));
    }
}
