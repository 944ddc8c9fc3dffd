//! Questions on a real kernel, in a network namespace of their own, where the only device is `lo`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::{Path, Prober};
use crate::kernel::stage::stage;
use crate::model::{Host, HttpExpect, IfName, Outcome, Target, Url};

const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

fn path(source: IpAddr) -> Path {
    Path { device: IfName::new("lo").unwrap(), index: 1, source, gateway: Some(source) }
}

/// Plays in a namespace and runtime of its own, once for each family.
pub(super) fn play<F: Future<Output = ()>>(
    scene: impl Fn(IpAddr) -> F + Send + Sync + Copy + 'static,
) {
    for address in LOOPBACK {
        stage(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(scene(address.parse().unwrap()));
        });
    }
}

async fn ask(target: Target, source: IpAddr) -> Outcome {
    Prober::default().ask(&target, &path(source), None, Duration::from_millis(500)).await
}

fn is_reply(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Reply(rtt) if *rtt < Duration::from_millis(500))
}

pub(super) fn wrong(outcome: Outcome) -> String {
    match outcome {
        Outcome::Wrong(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_echo_is_answered_by_who_is_there() {
    play(|me| async move {
        for target in [Target::Icmp(me), Target::Gateway] {
            let outcome = ask(target.clone(), me).await;
            assert!(is_reply(&outcome), "{target:?}: {outcome:?}");
        }
        let nobody = if me.is_ipv4() { "192.0.2.1" } else { "2001:db8::1" };
        let nobody: IpAddr = nobody.parse().unwrap();
        assert!(!is_reply(&ask(Target::Icmp(nobody), me).await));
    });
}

#[test]
fn many_echoes_at_once_are_told_apart() {
    play(|me| async move {
        let mut prober = Prober::default();
        let mut open = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let target = Target::Icmp(me);
            open.spawn(prober.ask(&target, &path(me), None, Duration::from_secs(2)));
        }
        let outcomes = open.join_all().await;
        assert!(outcomes.iter().all(is_reply), "{outcomes:?}");
    });
}

#[test]
fn a_path_that_is_no_more_cannot_be_asked_by() {
    play(|me| async move {
        let gone = Path { device: IfName::new("wan9").unwrap(), ..path(me) };
        for target in [Target::Icmp(me), Target::Tcp(SocketAddr::new(me, 9))] {
            let outcome =
                Prober::default().ask(&target, &gone, None, Duration::from_millis(500)).await;
            assert_eq!(wrong(outcome), "cannot ask: no such device");
        }
    });
}

#[test]
fn a_connection_is_an_answer_and_a_refusal_a_wrong_one() {
    play(|me| async move {
        let listener = TcpListener::bind((me, 0)).await.unwrap();
        let to = listener.local_addr().unwrap();
        assert!(is_reply(&ask(Target::Tcp(to), me).await));
        drop(listener);
        assert_eq!(wrong(ask(Target::Tcp(to), me).await), "connection refused");
    });
}

#[test]
fn a_connection_to_itself_is_no_answer() {
    play(|me| async move {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40000").unwrap();
        let to = SocketAddr::new(me, 40_000);
        assert_eq!(wrong(ask(Target::Tcp(to), me).await), "connection refused");
    });
}

#[test]
fn a_resolver_must_answer_without_error() {
    play(|me| async move {
        let server = UdpSocket::bind((me, 53)).await.unwrap();
        let answering = tokio::spawn(async move {
            for code in [0, 3] {
                let mut buffer = [0; 512];
                let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                // What is not an answer to the question is passed by.
                server.send_to(b"noise", from).await.unwrap();
                buffer[2] |= 0x80;
                buffer[3] |= code;
                server.send_to(&buffer[..length], from).await.unwrap();
            }
        });
        let target = Target::Dns { server: me, query: "example.com".to_owned() };
        assert!(is_reply(&ask(target.clone(), me).await));
        assert_eq!(wrong(ask(target, me).await), "the name does not exist (NXDOMAIN)");
        answering.await.unwrap();
    });
}

/// Reads a request and answers.
pub(super) async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await;
        let Ok(byte) = byte else { break };
        request.push(byte);
    }
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
    String::from_utf8(request).unwrap()
}

fn url(tls: bool, to: SocketAddr) -> Url {
    Url { tls, host: Host::Address(to.ip()), port: to.port(), path: "/check?a=1".to_owned() }
}

/// What comes of asking a server that answers so; and what it was asked.
async fn http(me: IpAddr, expect: HttpExpect, answer: &'static str) -> (Outcome, String) {
    let listener = TcpListener::bind((me, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    let serving =
        tokio::spawn(async move { serve(listener.accept().await.unwrap().0, answer).await });
    let outcome = ask(Target::Http { url: url(false, to), expect }, me).await;
    (outcome, serving.await.unwrap())
}

#[test]
fn status_and_body_must_be_the_ones_expected() {
    const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nall is well";
    const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";
    const LOGIN: &str = "HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n";
    let wants = |status: Option<u16>, body: Option<&str>| HttpExpect {
        status,
        body: body.map(str::to_owned),
        host: Some("www.example.com".to_owned()),
    };
    play(move |me| async move {
        let (outcome, request) = http(me, wants(None, Some("is well")), FINE).await;
        assert!(is_reply(&outcome), "{outcome:?}");
        assert!(request.starts_with("GET /check?a=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nhost: www.example.com:"), "{request}");
        assert!(is_reply(&http(me, wants(Some(204), None), EMPTY).await.0));
        let bad = [
            (
                wants(None, None),
                LOGIN,
                "captive portal: HTTP status 302 Found to http://login.example/",
            ),
            (wants(Some(200), None), EMPTY, "captive portal: HTTP status 204 No Content"),
            (wants(None, Some("sick")), FINE, "captive portal: another body than expected"),
        ];
        for (expect, answer, why) in bad {
            assert_eq!(wrong(http(me, expect, answer).await.0), why);
        }
        assert!(wrong(http(me, wants(None, None), "220 mail\r\n").await.0).starts_with("HTTP: "));
    });
}

/// A server with a certificate for this name; whether it is trusted is up to the client.
async fn https(me: IpAddr, name: &str, asked: &str, trusted: bool) -> Outcome {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let settings = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind((me, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let stream = listener.accept().await.unwrap().0;
        if let Ok(stream) = TlsAcceptor::from(Arc::new(settings)).accept(stream).await {
            serve(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let mut prober = Prober::default();
    let roots = if trusted { vec![made.cert.der().clone()] } else { Vec::new() };
    prober.tls.trust(roots).unwrap();
    let expect = HttpExpect { host: Some(asked.to_owned()), ..HttpExpect::default() };
    let target = Target::Http { url: url(true, to), expect };
    let outcome = prober.ask(&target, &path(me), None, Duration::from_secs(5)).await;
    serving.await.unwrap();
    outcome
}

#[test]
fn a_certificate_must_be_trusted_and_of_that_host() {
    play(|me| async move {
        let outcome = https(me, "www.example.com", "www.example.com", true).await;
        assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
        let other = wrong(https(me, "portal.example.net", "www.example.com", true).await);
        assert!(other.starts_with("TLS: invalid peer certificate"), "{other}");
        let unknown = wrong(https(me, "www.example.com", "www.example.com", false).await);
        assert!(unknown.starts_with("TLS: invalid peer certificate"), "{unknown}");
    });
}
