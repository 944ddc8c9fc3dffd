//! Targets of probes, which answer each caller as they are told to.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine as _;
use homing::lab::{CUSTOMER_SIDE, Namespace};
use homing::model::Family;
use nix::net::if_::if_nametoindex;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// Their ports, besides the resolver's own.
pub const TCP_PORT: u16 = 8001;
pub const HTTP_PORT: u16 = 8002;
pub const HTTPS_PORT: u16 = 8443;

/// A late answer comes after so long: longer than any timeout here.
const LATE: Duration = Duration::from_secs(1);

/// What [`GOOD_PAGE`] holds.
pub const GOOD_TEXT: &str = "all is well";
const GOOD_PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well";

/// Whom the good certificate is for.
pub const HOST: &str = "www.example.com";

/// How a caller is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Good,
    /// Not at all.
    Silent,
    /// By a reset, or by an ICMP error.
    Refused,
    /// Rightly, and too late.
    Late,
    /// With these bytes instead of a page.
    Page(&'static str),
    /// With another certificate.
    Certificate(Certificate),
    /// With this response code instead of an address.
    Code(u8),
    /// With the answer to another question.
    OtherQuestion,
}

/// Whose certificate a server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certificate {
    /// Trusted and of [`HOST`].
    Good,
    /// Trusted, and of somebody else.
    OtherHost,
    /// Of [`HOST`], as its owner says and nobody else.
    Untrusted,
}

/// By caller; who is not there is answered well.
type Moods = Arc<Mutex<BTreeMap<IpAddr, Mood>>>;

fn mood_of(moods: &Moods, caller: IpAddr) -> Mood {
    let moods = moods.lock().unwrap_or_else(PoisonError::into_inner);
    moods.get(&caller).copied().unwrap_or(Mood::Good)
}

/// Targets of every kind at one address; they end when dropped.
pub struct Targets {
    space: Namespace,
    moods: Moods,
    /// The certificates that are to be trusted.
    pub trusted: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Targets {
    /// Starts them. From then on echoes are answered by them alone.
    pub fn start(space: &Namespace, address: IpAddr) -> Targets {
        let moods = Moods::default();
        let (certificates, trusted) = certificates();
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let (inside, shared) = (space.clone(), Arc::clone(&moods));
        let thread = thread::spawn(move || {
            inside.join().expect("enter the namespace");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            runtime.block_on(async {
                open(address, &shared, certificates).expect("open the targets");
                ready.send(()).expect("the test waits");
                let _ = stopped.await;
            });
            runtime.shutdown_background();
        });
        started.recv().expect("the targets are open");
        let ignore = [("ipv4/icmp_echo_ignore_all", "1"), ("ipv6/icmp/echo_ignore_all", "1")];
        space.sysctl(&ignore).expect("leave echoes to us");
        let space = space.clone();
        Targets { space, moods, trusted, stop: Some(stop), thread: Some(thread) }
    }

    /// From now on this caller is answered so, by all of them.
    pub fn treat(&self, caller: IpAddr, mood: Mood) {
        self.moods.lock().unwrap_or_else(PoisonError::into_inner).insert(caller, mood);
        let family = if caller.is_ipv4() { "ip" } else { "ip6" };
        let from = format!("{family} saddr {caller}");
        let rules = match mood {
            Mood::Silent => format!(
                "{from} meta l4proto {{ tcp, udp }} drop
                {from} icmp type echo-request drop
                {from} icmpv6 type echo-request drop"
            ),
            Mood::Refused => {
                format!(
                    "{from} meta l4proto tcp reject with tcp reset\n{from} meta l4proto udp reject"
                )
            }
            _ => String::new(),
        };
        let chain = format!("chain in {{\ntype filter hook input priority 0\n{rules}\n}}");
        let script = format!(
            "add table inet mood\ndelete table inet mood\ntable inet mood {{\n{chain}\n}}\n"
        );
        self.space.nft(&script).expect("change how callers are answered");
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Certificates = BTreeMap<Certificate, Arc<ServerConfig>>;

fn open(address: IpAddr, moods: &Moods, certificates: Certificates) -> io::Result<()> {
    tokio::spawn(echo(echo_socket(address)?, Arc::clone(moods)));
    let resolver = std::net::UdpSocket::bind((address, 53));
    // An address with a link to it is a gateway, which is asked nothing else.
    let Ok(resolver) = resolver else { return Ok(()) };
    resolver.set_nonblocking(true)?;
    tokio::spawn(resolve(UdpSocket::from_std(resolver)?, Arc::clone(moods)));
    let certificates = Arc::new(certificates);
    for port in [TCP_PORT, HTTP_PORT, HTTPS_PORT] {
        let listener = std::net::TcpListener::bind((address, port))?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (moods, certificates) = (Arc::clone(moods), Arc::clone(&certificates));
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let mood = mood_of(&moods, peer.ip());
                tokio::spawn(serve(port, stream, mood, Arc::clone(&certificates)));
            }
        });
    }
    Ok(())
}

/// A raw socket in a datagram socket's clothes: the standard library reads it without ado.
fn echo_socket(address: IpAddr) -> io::Result<UdpSocket> {
    let protocol = if address.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let domain = Domain::for_address(SocketAddr::new(address, 0));
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    let own = match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, 0, 0, if_nametoindex(CUSTOMER_SIDE)?).into()
        }
        other => SocketAddr::new(other, 0),
    };
    socket.bind(&own.into())?;
    UdpSocket::from_std(socket.into())
}

async fn echo(socket: UdpSocket, moods: Moods) {
    let socket = Arc::new(socket);
    let mut buffer = [0; 2048];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let mood = mood_of(&moods, peer.ip());
        let Some(answer) = echo_answer(&buffer[..length], Family::of(peer.ip())) else { continue };
        let socket = Arc::clone(&socket);
        tokio::spawn(async move {
            wait(mood).await;
            let _ = socket.send_to(&answer, peer).await;
        });
    }
}

/// The reply to an echo request, as RFC 792 and RFC 4443 say. The kernel sums IPv6's up.
fn echo_answer(packet: &[u8], family: Family) -> Option<Vec<u8>> {
    let (head, request, reply) = match family {
        Family::V4 => (usize::from(packet.first()? & 0x0f) * 4, 8, 0),
        Family::V6 => (0, 128, 129),
    };
    let mut answer = packet.get(head..)?.to_vec();
    if *answer.first()? != request || answer.len() < 8 {
        return None;
    }
    answer[0] = reply;
    answer[2..4].fill(0);
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = answer.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    answer[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    Some(answer)
}

async fn resolve(socket: UdpSocket, moods: Moods) {
    let socket = Arc::new(socket);
    let mut buffer = [0; 512];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let mood = mood_of(&moods, peer.ip());
        let mut answer = buffer[..length].to_vec();
        answer[2] |= 0x80;
        match mood {
            Mood::Code(code) => answer[3] |= code,
            // The first letter of the name.
            Mood::OtherQuestion => answer[13] = b'x',
            _ => {}
        }
        let socket = Arc::clone(&socket);
        tokio::spawn(async move {
            wait(mood).await;
            let _ = socket.send_to(&answer, peer).await;
        });
    }
}

async fn wait(mood: Mood) {
    if mood == Mood::Late {
        tokio::time::sleep(LATE).await;
    }
}

async fn serve(port: u16, stream: TcpStream, mood: Mood, certificates: Arc<Certificates>) {
    let shown = match mood {
        Mood::Certificate(other) => other,
        _ => Certificate::Good,
    };
    match port {
        HTTP_PORT => page(stream, mood).await,
        HTTPS_PORT => {
            let acceptor = TlsAcceptor::from(Arc::clone(&certificates[&shown]));
            if let Ok(stream) = acceptor.accept(stream).await {
                page(stream, mood).await;
            }
        }
        _ => {}
    }
}

async fn page(mut stream: impl AsyncRead + AsyncWrite + Unpin, mood: Mood) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        request.push(byte);
    }
    wait(mood).await;
    let answer = match mood {
        Mood::Page(other) => other,
        _ => GOOD_PAGE,
    };
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// What each is served with, and the text of a file of those that are to be trusted.
fn certificates() -> (Certificates, String) {
    let mut all = Certificates::new();
    let mut trusted = String::new();
    for (which, name) in [
        (Certificate::Good, HOST),
        (Certificate::OtherHost, "portal.example.net"),
        (Certificate::Untrusted, HOST),
    ] {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("make one");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        if which != Certificate::Untrusted {
            trusted += &pem(made.cert.der());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let settings = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)
            });
        all.insert(which, Arc::new(settings.expect("a server's settings")));
    }
    (all, trusted)
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}
