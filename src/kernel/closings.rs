//! Connections that are over, as connection tracking tells of them.
//!
//! Only while somebody listens does the kernel make these notices; some may be lost when there are
//! too many. Whoever needs all of them looks at the table besides.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use socket2::SockRef;

use super::conntrack::{Session, decode_session};
use super::socket::{NetlinkError, enlarge};
use super::wire;

/// `NFNLGRP_CONNTRACK_UPDATE`, `NFNLGRP_CONNTRACK_DESTROY`
const GROUPS: [u32; 2] = [2, 3];
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`
const DESTROYED: u16 = 1 << 8 | 2;
/// `TCP_CONNTRACK_TIME_WAIT`
const TIME_WAIT: u8 = 7;
/// Room for one datagram.
const DATAGRAM: usize = 64 * 1024;

/// Hears of sessions that are over.
#[derive(Debug)]
pub struct Closings {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Closings {
    /// Subscribes, in the network namespace of this thread.
    ///
    /// # Errors
    /// When a socket cannot be had, or a group cannot be joined.
    pub fn open() -> Result<Closings, NetlinkError> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        enlarge(&socket)?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Closings { socket, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Waits for so long, and shows who is over.
    ///
    /// # Errors
    /// When the socket fails; notices that were lost are no failure.
    pub fn wait(&mut self, time: Duration, mut each: impl FnMut(&Session)) -> io::Result<()> {
        SockRef::from(&self.socket).set_read_timeout(Some(time))?;
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        for received in wire::messages(&self.buffer) {
            let Some(session) = decode_session(received.body) else { continue };
            let over = session.tcp_state.is_some_and(|state| state >= TIME_WAIT);
            if received.kind == DESTROYED || over {
                each(&session);
            }
        }
        Ok(())
    }
}
