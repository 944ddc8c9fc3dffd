//! Whatever is done to the API, new sessions leave a dead link as soon as ever.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use homing::lab::Fault;

use crate::harness::http::{Connection, Door};
use crate::harness::{PATIENCE, Site, V4, profile, until};

const AT: &str = "127.0.0.1:9480";

fn start() -> (Site, Door) {
    let policy = "policies: [{ name: default, uplinks: [[fiber], [cable]] }]\n";
    let site = Site::start(V4, &profile(&format!("{policy}api: {{ listen: [\"{AT}\"] }}\n")));
    let door = Door::Tcp(AT.parse::<SocketAddr>().unwrap());
    until(PATIENCE, || site.try_connect(door).is_ok(), |open| *open).expect("it listens");
    (site, door)
}

/// New sessions leave fiber when it loses its carrier, within this time of the kernel's notice.
fn fails_over(site: &Site, within: Duration) {
    assert_eq!(site.way_of(1), "fiber");
    let told = site.lose_carrier("fiber");
    let took = site.time_until_way(2, "cable", told);
    assert!(took < within, "new sessions still took it {took:?} after the notice");
    site.heal(&["fiber"]);
    site.wait_way(3, "fiber");
}

#[test]
fn what_is_no_request_is_refused_with_a_reason() {
    let (site, door) = start();
    for door in [door, Door::Socket] {
        for bytes in [
            &b"nonsense\r\n\r\n"[..],
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\nConnection: close\r\n\r\n",
            b"GET \xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ] {
            let answer = site.send(door, bytes);
            assert_eq!(answer.status, 400, "{answer:?} to {}", String::from_utf8_lossy(bytes));
            assert!(answer.error().contains("no request"), "{answer:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(1 << 20));
        let answer = site.send(door, long.as_bytes());
        assert!([400, 414, 431].contains(&answer.status), "{answer:?}");
        assert!(!answer.error().is_empty());
        let many = "X: y\r\n".repeat(5000);
        let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
        let answer = site.send(door, head.as_bytes());
        assert_eq!(answer.status, 431);
        assert!(answer.error().contains("too many fields"), "{answer:?}");
        for (method, path, status) in [
            ("GET", "/v1/nothing", 404),
            ("GET", "/", 404),
            ("DELETE", "/v1/status", if matches!(door, Door::Socket) { 405 } else { 403 }),
            ("GET", "/v1/check", 405),
            ("GET", "/v1/explain?from=x&to=y", 400),
            ("GET", "/v1/events?since=-1", 400),
            ("GET", "/v1/bindings?client=x", 400),
        ] {
            let answer = site.request(door, method, path, "", "");
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
            assert!(!answer.error().is_empty());
        }
    }
    let told = site.log().matches("something that is no HTTP").count();
    assert_eq!(told, 1, "once a minute: {}", site.log());
    fails_over(&site, Duration::from_millis(500));
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    let (site, door) = start();
    for (door, path) in
        [(door, "/v1/check"), (Door::Socket, "/v1/check"), (Door::Socket, "/v1/reload")]
    {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
        );
        // Nothing of it is ever sent, and yet there is an answer.
        let answer = site.send(door, head.as_bytes());
        assert_eq!(answer.status, 413, "{answer:?}");
        assert!(answer.error().contains("99999999999"), "{answer:?}");
    }
    // One that does not say how long it is.
    let mut connection = site.connect(door);
    let head = "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.write_all(head.as_bytes()).unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, "a".repeat(1 << 16));
    for _ in 0..100 {
        if connection.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let mut answer = [0; 64];
    let read = connection.read(&mut answer).unwrap_or(0);
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(site.status()["ready"], true);
    fails_over(&site, Duration::from_millis(500));
}

#[test]
fn a_thousand_idle_connections_keep_nobody_out() {
    let (site, door) = start();
    let mut idle = Vec::new();
    for number in 0..1000 {
        idle.push(
            site.try_connect(door).unwrap_or_else(|error| panic!("number {number}: {error}")),
        );
        idle.push(site.try_connect(Door::Socket).expect("connect to the socket"));
    }
    let begun = Instant::now();
    for door in [door, Door::Socket] {
        assert_eq!(site.get(door, "/v1/status").status, 200, "one more is served");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // Those that have been idle longest were closed, the latest were not.
    assert!(is_closed(&mut idle[0]), "the first by TCP");
    assert!(is_closed(&mut idle[1]), "the first by the socket");
    let mut last = idle.pop().unwrap();
    write!(last, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    last.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "the last is served: {text}");
    let files = std::fs::read_dir(format!("/proc/{}/fd", site.pid())).unwrap().count();
    assert!(files < 700, "{files} files are open");
    fails_over(&site, Duration::from_millis(500));
}

fn is_closed(connection: &mut Connection) -> bool {
    let mut byte = [0];
    match connection.read(&mut byte) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn whoever_is_slow_or_greedy_disturbs_no_failover() {
    let (site, door) = start();
    let stop = AtomicBool::new(false);
    let asked: [AtomicU64; 4] = Default::default();
    // Some never finish their question, some never read the answer, some never stop asking.
    let mut half: Vec<Connection> = (0..50).map(|_| site.connect(door)).collect();
    for connection in &mut half {
        connection.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: ").unwrap();
    }
    let mut deaf: Vec<Connection> = (0..50).map(|_| site.connect(Door::Socket)).collect();
    for connection in &mut deaf {
        for path in ["/v1/sessions", "/v1/openapi.json", "/metrics", "/v1/events/stream?since=0"] {
            write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        }
    }
    let hostile = "a: &a [x,x,x,x,x,x,x,x,x]\n".repeat(2000);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (site, asked, stop, hostile) = (&site, &asked, &stop, &hostile);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = match number {
                        0 => site.request(door, "POST", "/v1/check", "", hostile),
                        1 => site.get(door, "/v1/sessions?limit=10000"),
                        2 => site.get(door, "/metrics"),
                        _ => site.get(door, "/v1/status"),
                    };
                    assert!([200, 503].contains(&answer.status), "{answer:?}");
                    asked[number].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // Until each of them was answered more than once, and three times at least.
            let busy = || asked.iter().all(|count| count.load(Ordering::Relaxed) > 1);
            for round in 0..20 {
                fails_over(&site, Duration::from_secs(1));
                if round >= 2 && busy() {
                    return;
                }
            }
            panic!("they were not busy: {asked:?} answers");
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = failed {
            std::panic::resume_unwind(panic);
        }
    });
    drop((half, deaf));
    assert_eq!(site.get(Door::Socket, "/v1/status").status, 200);
}

#[test]
fn whoever_watches_for_long_is_let_and_a_half_question_is_not() {
    let (site, door) = start();
    let mut half = site.connect(door);
    half.write_all(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    let mut viewers: Vec<_> =
        (0..20).map(|_| site.stream(door, "/v1/events/stream?kind=failover", "")).collect();
    let begun = Instant::now();
    let closed = || {
        let mut byte = [0];
        matches!(half.read(&mut byte), Ok(0) | Err(_)) && begun.elapsed() > Duration::from_secs(5)
    };
    until(3 * PATIENCE, closed, |closed| *closed)
        .expect("a question that is not finished is closed");
    site.fail(&["fiber"], Fault::Carrier);
    for viewer in &mut viewers {
        assert_eq!(viewer.event()["uplink"], "fiber");
    }
}

#[test]
fn whoever_does_not_read_keeps_nobody_from_reading() {
    let (site, door) = start();
    // Enough sessions for answers that fit into no socket.
    let fill = || {
        let socket = std::net::UdpSocket::bind((site.host(0), 0)).unwrap();
        for port in 1..20_000 {
            let _ = socket.send_to(b"x", (site.server(0, 80).ip(), port));
        }
    };
    let settings = [
        ("netfilter/nf_conntrack_udp_timeout", "600"),
        ("ipv4/tcp_wmem", "4096 16384 65536"),
        ("ipv4/tcp_rmem", "4096 65536 131072"),
    ];
    site.router().sysctl(&settings).unwrap();
    site.stage.layout().lan().enter(fill).unwrap();
    let large =
        "GET /v1/sessions?limit=10000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let ask = || site.get(door, "/v1/sessions?limit=10000");
    let whole = until(PATIENCE, ask, |answer| answer.body.len() > 1_500_000);
    whole.unwrap_or_else(|answer| panic!("{} bytes", answer.body.len()));
    let mut deaf: Vec<Connection> = (0..8).map(|_| site.connect(door)).collect();
    for connection in &mut deaf {
        connection.write_all(large.as_bytes()).unwrap();
    }
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", site.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    for _ in 0..4 {
        let answer = ask();
        assert_eq!(answer.status, 200, "{:.300}", answer.body);
        assert!(answer.json()["sessions"].as_array().is_some_and(|list| list.len() == 10_000));
        assert!(memory() < 100_000, "{} kB", memory());
    }
    assert!(deaf.iter_mut().any(is_closed_after_what_came), "somebody was sent away");
}

/// Reads what there is; whether the other side has closed then.
fn is_closed_after_what_came(connection: &mut Connection) -> bool {
    let mut buffer = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        match connection.read(&mut buffer) {
            Ok(0) => return length < 1_500_000,
            Ok(read) => length += read,
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}
