//! A blocking netlink socket: requests, dumps, batches.

use std::io;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;

use super::wire::{self, ACK, DUMP, HEADER_LEN, Message, REQUEST, Received};

/// Room for one datagram. The kernel fills at most 32 KiB when it dumps.
const DATAGRAM: usize = 128 * 1024;
/// Room for what is under way, as far as we may have it.
const SOCKET_BUFFER: usize = 16 << 20;
/// How often a dump is begun anew when the kernel's tables change under it.
const ATTEMPTS: usize = 10;
/// No answer of the kernel takes longer, unless it is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// What can go wrong on a netlink socket.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel said no. The text is its own, if it gave one.
    #[error("the kernel refused: {}{}", errno.desc(), explain(text))]
    Refused {
        /// The error number.
        errno: nix::errno::Errno,
        /// The extended acknowledgement.
        text: Option<String>,
    },
    /// The socket itself failed.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The tables changed during each of several attempts to read them.
    #[error("the kernel's tables kept changing while they were read")]
    Interrupted,
}

fn explain(text: &Option<String>) -> String {
    text.as_ref().map_or(String::new(), |t| format!(" ({t})"))
}

impl NetlinkError {
    /// Whether the kernel refused with one of these errors.
    pub(super) fn is(&self, wanted: &[nix::errno::Errno]) -> bool {
        matches!(self, NetlinkError::Refused { errno, .. } if wanted.contains(errno))
    }
}

/// One socket of one netlink protocol, bound to the network namespace of the thread that opens it.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    port: u32,
}

impl Channel {
    /// Opens, binds and connects a socket.
    pub(super) fn open(protocol: isize) -> Result<Channel, NetlinkError> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        enlarge(&socket)?;
        let view = SockRef::from(&socket);
        view.set_read_timeout(Some(PATIENCE))?;
        Ok(Channel { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM), port })
    }

    /// Makes rtnetlink look at the filter in a dump's header.
    pub(super) fn strict(self) -> Result<Channel, NetlinkError> {
        self.socket.set_netlink_get_strict_chk(true)?;
        Ok(self)
    }

    /// The number by which notices name this socket.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Sends one request and waits until it is done.
    pub(super) fn request(&mut self, mut message: Message) -> Result<(), NetlinkError> {
        message.add_flags(REQUEST | ACK);
        self.exchange(message, &mut |_| {})
    }

    /// Asks for one object.
    pub(super) fn get<T>(
        &mut self,
        message: Message,
        mut decode: impl FnMut(Received<'_>) -> Option<T>,
    ) -> Result<Option<T>, NetlinkError> {
        let mut found = None;
        let mut message = message;
        message.add_flags(REQUEST | ACK);
        self.exchange(message, &mut |received| {
            found = found.take().or_else(|| decode(received));
        })?;
        Ok(found)
    }

    /// Reads everything; begins anew when the kernel says that it changed meanwhile.
    pub(super) fn dump<T>(
        &mut self,
        message: &Message,
        mut decode: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..ATTEMPTS {
            let mut all = Vec::new();
            match self.walk(message.clone(), |body| all.extend(decode(body))) {
                Err(NetlinkError::Interrupted) => {}
                other => return other.map(|()| all),
            }
        }
        Err(NetlinkError::Interrupted)
    }

    /// Reads everything, once, without keeping it.
    pub(super) fn walk(
        &mut self,
        mut message: Message,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        message.add_flags(REQUEST | DUMP);
        self.exchange(message, &mut |received| each(received.body))
    }

    /// Sends a batch whose last message asks for an acknowledgement, and takes all answers:
    /// netfilter has answered when `send` returns.
    pub(super) fn batch(&mut self, message: Message) -> Result<(), NetlinkError> {
        let sequence = self.send(message)?;
        let mut outcome = None;
        loop {
            match self.receive(libc::MSG_DONTWAIT) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return outcome.unwrap_or_else(|| Err(no_answer().into()));
                }
                Err(error) => return Err(error.into()),
            }
            for received in wire::messages(&self.buffer) {
                // The first refusal counts; acknowledgements of the same batch do not undo it.
                let refused = matches!(outcome, Some(Err(_)));
                if received.sequence == sequence && is_error(&received) && !refused {
                    outcome = Some(refusal(&received));
                }
            }
        }
    }

    /// Takes one datagram. A signal is no reason to stop.
    fn receive(&mut self, flags: libc::c_int) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, flags) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|_| ()),
            }
        }
    }

    fn send(&mut self, message: Message) -> Result<u32, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.socket.send(&message.finish(self.sequence), 0)?;
        Ok(self.sequence)
    }

    fn exchange(
        &mut self,
        message: Message,
        each: &mut dyn FnMut(Received<'_>),
    ) -> Result<(), NetlinkError> {
        let sequence = self.send(message)?;
        let mut interrupted = false;
        loop {
            self.receive(0).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => no_answer(),
                _ => error,
            })?;
            for received in wire::messages(&self.buffer) {
                // An answer to a request that was given up earlier is nobody's.
                if received.sequence != sequence {
                    continue;
                }
                interrupted |= received.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                match i32::from(received.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        refusal(&received)?;
                        return match interrupted {
                            true => Err(NetlinkError::Interrupted),
                            false => Ok(()),
                        };
                    }
                    libc::NLMSG_NOOP => {}
                    _ => each(received),
                }
            }
        }
    }
}

/// Enlarges both buffers beyond the host's limits if we may, up to them if not.
pub(super) fn enlarge(socket: &Socket) -> Result<(), NetlinkError> {
    if setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        SockRef::from(socket).set_recv_buffer_size(SOCKET_BUFFER)?;
    }
    if setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        SockRef::from(socket).set_send_buffer_size(SOCKET_BUFFER)?;
    }
    Ok(())
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer")
}

fn is_error(received: &Received<'_>) -> bool {
    i32::from(received.kind) == libc::NLMSG_ERROR
}

/// `NLMSG_ERROR` and `NLMSG_DONE` carry a negative error number, or 0 for success.
pub(super) fn refusal(received: &Received<'_>) -> Result<(), NetlinkError> {
    let code = wire::u32_ne(received.body).map_or(0, u32::cast_signed);
    if code == 0 {
        return Ok(());
    }
    // NLMSG_ERROR holds the request's header (we asked for no more) before its attributes.
    let skip = if is_error(received) { 4 + HEADER_LEN } else { 4 };
    let has_text = received.flags & libc::NLM_F_ACK_TLVS as u16 != 0;
    let tail = received.body.get(skip..).filter(|_| has_text);
    Err(NetlinkError::Refused {
        // Whatever it is: of the lowest number there is no negative.
        errno: nix::errno::Errno::from_raw(code.wrapping_neg()),
        text: tail.and_then(|tail| wire::attribute(tail, EXT_ACK_MESSAGE)).map(wire::text),
    })
}

/// `NLMSGERR_ATTR_MSG`
const EXT_ACK_MESSAGE: u16 = 1;
