//! Checks of servers on a real kernel, in a network namespace of their own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::Prober;
use super::tests::{play, serve, wrong};
use crate::kernel::stage::run;
use crate::model::{CheckKind, HttpExpect, Outcome};

/// A port that nobody listens on.
const FREE: u16 = 9;

async fn check(kind: &CheckKind, to: SocketAddr) -> Outcome {
    Prober::default().check(to.ip(), kind, to.port(), Duration::from_secs(5)).await
}

async fn is_silent(kind: &CheckKind, to: SocketAddr) -> bool {
    let asking = Prober::default().check(to.ip(), kind, to.port(), Duration::from_millis(100));
    asking.await == Outcome::Lost
}

fn is_reply(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Reply(_))
}

fn tls(host: Option<&str>) -> CheckKind {
    CheckKind::Tls { port: None, host: host.map(str::to_owned) }
}

fn http(tls: bool, expect: HttpExpect) -> CheckKind {
    CheckKind::Http { tls, port: None, path: "/check?a=1".to_owned(), expect }
}

fn dns() -> CheckKind {
    CheckKind::Dns { port: None, query: "example.com".to_owned() }
}

fn udp(expect: Option<&[u8]>) -> CheckKind {
    let expect = expect.map(<[u8]>::to_vec);
    CheckKind::Udp { port: None, send: b"\x00ping".to_vec(), expect }
}

/// One of each kind that has a port.
fn kinds() -> [CheckKind; 6] {
    let http = |tls| http(tls, HttpExpect::default());
    [CheckKind::Tcp { port: None }, tls(None), http(false), http(true), dns(), udp(None)]
}

/// What becomes of all packets that come to this host.
fn rule(what: &str) {
    run("nft add table inet test");
    run("nft add chain inet test input { type filter hook input priority 0 ; }");
    run(&format!("nft add rule inet test input {what}"));
}

#[test]
fn who_refuses_is_wrong_and_who_is_silent_is_lost() {
    play(|me| async move {
        let to = SocketAddr::new(me, FREE);
        for kind in kinds() {
            assert_eq!(wrong(check(&kind, to).await), "connection refused", "{kind:?}");
        }
        rule("drop");
        for kind in kinds().into_iter().chain([CheckKind::Icmp]) {
            assert!(is_silent(&kind, to).await, "{kind:?}");
        }
    });
}

#[test]
fn who_takes_a_connection_and_says_nothing_is_lost() {
    play(|me| async move {
        let listener = TcpListener::bind((me, 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        for kind in [tls(None), http(false, HttpExpect::default())] {
            assert!(is_silent(&kind, to).await, "{kind:?}");
        }
    });
}

#[test]
fn a_port_of_the_check_goes_before_that_of_the_service() {
    play(|me| async move {
        let listener = TcpListener::bind((me, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let free = SocketAddr::new(me, FREE);
        assert!(is_reply(&check(&CheckKind::Tcp { port: Some(port) }, free).await));
        let taken = SocketAddr::new(me, port);
        let outcome = check(&CheckKind::Tcp { port: Some(FREE) }, taken).await;
        assert_eq!(wrong(outcome), "connection refused");
    });
}

#[test]
fn one_socket_asks_all_servers_and_outlives_their_network() {
    play(|me| async move {
        let mut prober = Prober::default();
        let mut ask = |server| prober.check(server, &CheckKind::Icmp, FREE, Duration::from_secs(1));
        let nobody = if me.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
        assert!(is_reply(&ask(me).await));
        assert_eq!(wrong(ask(nobody.parse().unwrap()).await), "network is unreachable");
        run("ip link set lo down");
        assert!(!is_reply(&ask(me).await));
        run("ip link set lo up");
        // IPv6 loses its address with the device, and gets it back.
        assert!(is_reply(&ask(me).await));
    });
}

#[test]
fn echoes_are_answered_without_a_raw_socket_too() {
    play(|me| async move {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        let mut prober = Prober::default();
        let mut open = tokio::task::JoinSet::new();
        for _ in 0..20 {
            open.spawn(prober.check(me, &CheckKind::Icmp, FREE, Duration::from_secs(2)));
        }
        let outcomes = open.join_all().await;
        assert!(outcomes.iter().all(is_reply), "{outcomes:?}");
    });
}

#[test]
fn an_icmp_error_is_no_echo() {
    play(|me| async move {
        let echo = if me.is_ipv4() { "icmp" } else { "icmpv6" };
        rule(&format!("{echo} type echo-request reject with icmpx host-unreachable"));
        let outcome = check(&CheckKind::Icmp, SocketAddr::new(me, FREE)).await;
        assert_eq!(wrong(outcome), "destination unreachable");
    });
}

#[test]
fn a_broken_socket_is_opened_anew() {
    play(|me| async move {
        let mut prober = Prober::default();
        for _ in 0..2 {
            let asking = prober.check(me, &CheckKind::Icmp, FREE, Duration::from_secs(1));
            assert!(is_reply(&asking.await));
            let echo = prober.server_echoes.values().next().unwrap();
            assert!(!echo.broken.swap(true, Ordering::Relaxed), "it is another one");
        }
    });
}

#[test]
fn a_connection_that_came_about_is_reset() {
    play(|me| async move {
        let listener = TcpListener::bind((me, 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        assert!(is_reply(&check(&CheckKind::Tcp { port: None }, to).await));
        let mut stream = listener.accept().await.unwrap().0;
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

/// Serves one connection so.
async fn once(me: IpAddr, answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind((me, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    let serving = async move { serve(listener.accept().await.unwrap().0, answer).await };
    (to, tokio::spawn(serving))
}

const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well";

#[test]
fn a_page_must_have_the_status_and_body_expected() {
    const LOGIN: &str = "HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n";
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\n\r\n";
    let wants = |status, body: Option<&str>| {
        http(false, HttpExpect { status, body: body.map(str::to_owned), host: None })
    };
    play(move |me| async move {
        let cases = [
            (wants(Some(200), Some("is well")), FINE, None),
            (wants(Some(302), None), LOGIN, None),
            (wants(None, None), LOGIN, Some("HTTP status 302 Found to /login")),
            (wants(Some(200), None), BUSY, Some("HTTP status 503 Service Unavailable")),
            (wants(None, Some("sick")), FINE, Some("another body than expected")),
        ];
        for (kind, answer, why) in cases {
            let outcome = check(&kind, once(me, answer).await.0).await;
            match why {
                None => assert!(is_reply(&outcome), "{outcome:?}"),
                Some(why) => assert_eq!(wrong(outcome), why),
            }
        }
        let mail = check(&wants(None, None), once(me, "220 mail\r\n").await.0).await;
        assert!(wrong(mail).starts_with("HTTP: "));
    });
}

#[test]
fn a_server_is_asked_by_its_address_or_by_the_name_that_clients_use() {
    play(|me| async move {
        let (to, serving) = once(me, FINE).await;
        assert!(is_reply(&check(&http(false, HttpExpect::default()), to).await));
        let request = serving.await.unwrap();
        assert!(request.starts_with("GET /check?a=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nhost: {to}\r\n")), "{request}");
        let (to, serving) = once(me, FINE).await;
        let named = HttpExpect { host: Some("www.example.com".to_owned()), ..Default::default() };
        assert!(is_reply(&check(&http(false, named), to).await));
        let request = serving.await.unwrap();
        assert!(request.contains("\r\nhost: www.example.com\r\n"), "{request}");
    });
}

#[test]
fn a_long_page_is_judged_by_its_first_part() {
    play(|me| async move {
        let listener = TcpListener::bind((me, 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let rest = "x".repeat(2_000_000);
            let page = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwelcome{rest}");
            serve(listener.accept().await.unwrap().0, &page).await
        });
        let expect = HttpExpect { body: Some("welcome".to_owned()), ..HttpExpect::default() };
        let outcome = check(&http(false, expect), to).await;
        assert!(is_reply(&outcome), "{outcome:?}");
        serving.await.unwrap();
    });
}

/// A server's key and certificate.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
}

fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(vec!["server.example.net".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let key = ring::sign::any_supported_type(&key).unwrap();
    Identity { chain: vec![made.cert.der().clone()], key }
}

fn acceptor(
    Identity { chain, key }: Identity,
    version: &'static SupportedProtocolVersion,
) -> TlsAcceptor {
    // It may have a certificate that its key does not fit.
    let resolver = SingleCertAndKey::from(CertifiedKey::new(chain, key));
    let settings = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    TlsAcceptor::from(Arc::new(settings))
}

/// A server that speaks this version of TLS, and the server name that it is asked for.
async fn secure(
    me: IpAddr,
    identity: Identity,
    version: &'static SupportedProtocolVersion,
) -> (SocketAddr, JoinHandle<Option<String>>) {
    let acceptor = acceptor(identity, version);
    let listener = TcpListener::bind((me, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let stream = listener.accept().await.unwrap().0;
        let stream = acceptor.accept(stream).await.ok()?;
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        serve(stream, FINE).await;
        name
    });
    (to, serving)
}

#[test]
fn any_certificate_will_do_from_who_has_its_key() {
    const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];
    play(|me| async move {
        for version in VERSIONS {
            for host in [None, Some("www.example.com")] {
                let (to, serving) = secure(me, identity(), version).await;
                let outcome = check(&tls(host), to).await;
                assert!(is_reply(&outcome), "{outcome:?}");
                assert_eq!(serving.await.unwrap().as_deref(), host);
            }
            let (to, _) = secure(me, identity(), version).await;
            let outcome = check(&http(true, HttpExpect::default()), to).await;
            assert!(is_reply(&outcome), "{outcome:?}");
            let thief = Identity { key: identity().key, ..identity() };
            let outcome = check(&tls(None), secure(me, thief, version).await.0).await;
            assert_eq!(wrong(outcome), "TLS: invalid peer certificate: BadSignature");
        }
    });
}

#[test]
fn who_speaks_something_else_makes_no_handshake() {
    play(|me| async move {
        let listener = TcpListener::bind((me, 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            stream.write_all(b"220 mail.example.net\r\n").await.unwrap();
            stream.read_to_end(&mut Vec::new()).await
        });
        let why = wrong(check(&tls(None), to).await);
        assert_eq!(why, "TLS: received corrupt message of type InvalidContentType");
    });
}

#[test]
fn a_server_hears_a_farewell_after_a_handshake() {
    play(|me| async move {
        let acceptor = acceptor(identity(), &version::TLS13);
        let listener = TcpListener::bind((me, 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let stream = listener.accept().await.unwrap().0;
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.read(&mut [0; 16]).await
        });
        assert!(is_reply(&check(&tls(None), to).await));
        assert_eq!(serving.await.unwrap().unwrap(), 0);
    });
}

/// Answers each datagram so.
async fn answering(me: IpAddr, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let server = UdpSocket::bind((me, 0)).await.unwrap();
    let to = server.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = server.recv_from(&mut buffer).await {
            server.send_to(&answer(&buffer[..length]), from).await.unwrap();
        }
    });
    to
}

#[test]
fn a_name_server_must_answer_without_error() {
    play(|me| async move {
        let with = |code: u8| {
            move |question: &[u8]| {
                let mut answer = question.to_vec();
                answer[2] |= 0x80;
                answer[3] |= code;
                answer
            }
        };
        assert!(is_reply(&check(&dns(), answering(me, with(0)).await).await));
        let outcome = check(&dns(), answering(me, with(3)).await).await;
        assert_eq!(wrong(outcome), "the name does not exist (NXDOMAIN)");
        let noise = answering(me, |_| b"noise".to_vec()).await;
        assert!(is_silent(&dns(), noise).await);
    });
}

#[test]
fn a_datagram_must_bring_what_is_expected() {
    play(|me| async move {
        let to = answering(me, |sent| [sent, b" pong\xff!"].concat()).await;
        let good: [Option<&[u8]>; 4] = [None, Some(b"pong"), Some(b"\x00ping "), Some(b"\xff")];
        for expect in good {
            let outcome = check(&udp(expect), to).await;
            assert!(is_reply(&outcome), "{expect:?}: {outcome:?}");
        }
        let outcome = check(&udp(Some(b"\xfe")), to).await;
        assert_eq!(wrong(outcome), "another answer than expected");
        let empty = answering(me, |_| Vec::new()).await;
        assert!(is_reply(&check(&udp(None), empty).await));
        let silent = UdpSocket::bind((me, 0)).await.unwrap();
        assert!(is_silent(&udp(None), silent.local_addr().unwrap()).await);
    });
}
