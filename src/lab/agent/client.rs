//! Clients inside a namespace.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::Protocol;
use crate::lab::Namespace;

static PING: AtomicU16 = AtomicU16::new(1);

/// How to open sessions from a namespace.
#[derive(Debug, Clone)]
pub struct Client {
    space: Namespace,
    timeout: Duration,
    dscp: u8,
    device: Option<String>,
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    /// What it speaks.
    pub protocol: Protocol,
    /// Our end.
    pub local: SocketAddr,
    /// The server's end, as we called it.
    pub remote: SocketAddr,
    /// Our end as the server saw it at last.
    pub seen: SocketAddr,
    /// The name of the server that answered at last, if it has one.
    pub server: Option<String>,
    socket: Socket,
}

impl Client {
    /// A client that waits a second for each answer.
    pub fn new(space: &Namespace) -> Client {
        Client { space: space.clone(), timeout: Duration::from_secs(1), dscp: 0, device: None }
    }

    /// How long to wait for a connection and for an answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Client {
        self.timeout = timeout;
        self
    }

    /// Marks what it sends with a code point.
    #[must_use]
    pub fn dscp(mut self, dscp: u8) -> Client {
        self.dscp = dscp;
        self
    }

    /// Binds its sockets to a device.
    #[must_use]
    pub fn device(mut self, device: &str) -> Client {
        self.device = Some(device.to_owned());
        self
    }

    /// Opens a session from an address (any port) and asks once.
    ///
    /// # Errors
    /// When the server cannot be reached in time.
    pub fn open(
        &self,
        protocol: Protocol,
        from: Option<IpAddr>,
        to: SocketAddr,
    ) -> io::Result<Session> {
        let mut sessions = self.open_all(&[(protocol, from, to)]);
        sessions.pop().unwrap_or_else(|| Err(io::Error::other("no session")))
    }

    /// Opens sessions one after the other, asking each once.
    pub fn open_all(
        &self,
        wanted: &[(Protocol, Option<IpAddr>, SocketAddr)],
    ) -> Vec<io::Result<Session>> {
        let all = || wanted.iter().map(|&(p, from, to)| self.begin(p, from, to));
        self.space
            .enter(|| all().collect())
            .unwrap_or_else(|error| vec![Err(io::Error::other(error))])
    }

    /// Sends one datagram and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn send(&self, from: SocketAddr, to: SocketAddr) -> io::Result<()> {
        let send = || {
            let socket = self.socket(Protocol::Udp, Some(from), to)?;
            socket.send_to(b"?", &to.into()).map(drop)
        };
        self.space.enter(send).map_err(io::Error::other)?
    }

    /// Sends one echo request and waits for its answer.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn ping(&self, from: Option<IpAddr>, to: IpAddr) -> io::Result<Duration> {
        self.space.enter(|| self.echo(from, to)).map_err(io::Error::other)?
    }

    fn begin(
        &self,
        protocol: Protocol,
        from: Option<IpAddr>,
        to: SocketAddr,
    ) -> io::Result<Session> {
        let from = from.map(|address| SocketAddr::new(address, 0));
        let socket = self.socket(protocol, from, to)?;
        socket.connect_timeout(&to.into(), self.timeout)?;
        let mut session = Session {
            protocol,
            local: address(&socket)?,
            remote: to,
            seen: to,
            server: None,
            socket,
        };
        session.ask(self.timeout)?;
        Ok(session)
    }

    fn socket(
        &self,
        protocol: Protocol,
        from: Option<SocketAddr>,
        to: SocketAddr,
    ) -> io::Result<Socket> {
        let kind = match protocol {
            Protocol::Tcp => Type::STREAM,
            Protocol::Udp => Type::DGRAM,
        };
        let socket = Socket::new(Domain::for_address(to), kind, None)?;
        self.prepare(&socket, to.ip())?;
        if let Some(from) = from {
            socket.bind(&from.into())?;
        }
        Ok(socket)
    }

    fn prepare(&self, socket: &Socket, to: IpAddr) -> io::Result<()> {
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        let tos = u32::from(self.dscp) << 2;
        match to {
            _ if tos == 0 => Ok(()),
            IpAddr::V4(_) => socket.set_tos_v4(tos),
            IpAddr::V6(_) => socket.set_tclass_v6(tos),
        }
    }

    fn echo(&self, from: Option<IpAddr>, to: IpAddr) -> io::Result<Duration> {
        let (domain, protocol) = match to {
            IpAddr::V4(_) => (Domain::IPV4, socket2::Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, socket2::Protocol::ICMPV6),
        };
        let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        self.prepare(&socket, to)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        let id = PING.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        socket.send_to(&request(to, id), &SocketAddr::new(to, 0).into())?;
        let mut buffer = [0; 256];
        loop {
            let left = self.timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            socket.set_read_timeout(Some(left))?;
            let length = patiently(|| socket.read(&mut buffer))?;
            if answers(to, &buffer[..length], id) {
                return Ok(begun.elapsed());
            }
        }
    }
}

impl Session {
    /// Asks the server which source address it sees now.
    ///
    /// # Errors
    /// When no answer comes in time, or the session is over.
    pub fn ask(&mut self, timeout: Duration) -> io::Result<SocketAddr> {
        self.socket.set_read_timeout(Some(timeout))?;
        self.socket.set_write_timeout(Some(timeout))?;
        self.socket.write_all(b"?\n")?;
        let text = match self.protocol {
            Protocol::Tcp => self.read_line()?,
            Protocol::Udp => self.read_once()?,
        };
        let (seen, server) = understand(text.trim())?;
        (self.seen, self.server) = (seen, server);
        Ok(self.seen)
    }

    /// Says nothing, and waits for the end of the session; how it ended. `None`: it did not.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn wait_for_end(&mut self, timeout: Duration) -> io::Result<Option<ErrorKind>> {
        self.socket.set_read_timeout(Some(timeout))?;
        match self.read_once() {
            Ok(_) => Ok(None),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) => Ok(Some(error.kind())),
        }
    }

    fn read_once(&mut self) -> io::Result<String> {
        let mut buffer = [0; 256];
        let length = patiently(|| self.socket.read(&mut buffer))?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut text = String::new();
        while !text.ends_with('\n') {
            text.push_str(&self.read_once()?);
        }
        Ok(text)
    }
}

/// What a server says: the address it saw, and its name if it has one.
fn understand(text: &str) -> io::Result<(SocketAddr, Option<String>)> {
    let (seen, name) = text.split_once(' ').map_or((text, None), |(a, name)| (a, Some(name)));
    let strange = |_| io::Error::new(ErrorKind::InvalidData, format!("answer `{text}`"));
    Ok((seen.parse().map_err(strange)?, name.map(str::to_owned)))
}

/// A read with a time limit may be interrupted without any signal handler (signal(7)).
fn patiently<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn address(socket: &Socket) -> io::Result<SocketAddr> {
    let local = socket.local_addr()?;
    local.as_socket().ok_or_else(|| io::Error::other("a socket without an address"))
}

/// An echo request (RFC 792, RFC 4443); the kernel fills in the checksum of the latter.
fn request(to: IpAddr, id: u16) -> [u8; 16] {
    let mut packet = [0; 16];
    packet[0] = if to.is_ipv4() { 8 } else { 128 };
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[7] = 1;
    let checksum = if to.is_ipv4() { checksum(&packet) } else { 0 };
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The internet checksum (RFC 1071).
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2);
    let sum: u32 =
        words.map(|w| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or_default()
}

/// Whether a received packet is the answer; IPv4 raw sockets give the IP header as well.
fn answers(to: IpAddr, packet: &[u8], id: u16) -> bool {
    let (reply, header) = match to {
        IpAddr::V4(_) => (0, packet.first().map_or(0, |b| usize::from(b & 15) * 4)),
        IpAddr::V6(_) => (129, 0),
    };
    let body = packet.get(header..).unwrap_or_default();
    body.first() == Some(&reply) && body.get(4..6) == Some(&id.to_be_bytes()[..])
}

#[cfg(test)]
mod tests {
    use super::{checksum, request};

    #[test]
    fn the_checksum_of_a_packet_with_its_checksum_is_zero() {
        assert_eq!(checksum(&request([127, 0, 0, 1].into(), 0x1234)), 0);
    }
}
