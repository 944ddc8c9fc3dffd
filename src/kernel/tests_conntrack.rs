//! Sessions on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::UdpSocket;

use super::stage::{run, stage};
use super::{Conntrack, Session, probe_features};
use crate::model::{Family, Mark, MarkMask};

const OURS: MarkMask = MarkMask(0x3f00);

/// Makes conntrack look, and marks UDP sessions by their port.
fn rules() {
    for line in [
        "add table inet t",
        "add chain inet t o { type filter hook output priority 0; }",
        "add rule inet t o udp dport 1001 ct mark set 0x10000100",
        "add rule inet t o udp dport 1002 ct mark set 0x10000200",
        "add rule inet t o ct state established accept",
    ] {
        run(&format!("nft {line}"));
    }
}

fn talk(from: &str, to: &str) {
    let socket = UdpSocket::bind(from).unwrap();
    socket.send_to(b"hello", to).unwrap();
}

fn all(conntrack: &mut Conntrack) -> Vec<Session> {
    let mut all = Vec::new();
    conntrack.walk(None, |s| all.push(s.clone())).unwrap();
    all
}

fn play() -> Conntrack {
    rules();
    talk("127.0.0.1:2001", "127.0.0.1:1001");
    talk("127.0.0.1:2002", "127.0.0.1:1002");
    talk("[::1]:2003", "[::1]:1001");
    Conntrack::open().unwrap()
}

#[test]
fn sessions_of_both_families_are_read() {
    stage(|| {
        let mut conntrack = play();
        let sessions = all(&mut conntrack);
        let found: Vec<_> = sessions.iter().filter(|s| s.protocol == 17).collect();
        assert_eq!(found.len(), 3, "{sessions:#?}");
        let v6 = found.iter().find(|s| s.family == Family::V6).unwrap();
        assert_eq!(v6.orig.src, v6.reply.dst);
        assert_eq!((v6.orig.sport, v6.orig.dport), (2003, 1001));
        assert_eq!((v6.reply.sport, v6.reply.dport), (1001, 2003));
        assert_eq!(v6.mark, Mark(0x1000_0100));
        assert!(v6.has(Session::CONFIRMED) && v6.timeout_s > 0);
        let listed = run("conntrack -L -f ipv6");
        assert!(listed.contains("sport=2003 dport=1001"), "{listed}");
    });
}

#[test]
fn sessions_are_counted_and_deleted_by_mark() {
    stage(|| {
        let mut conntrack = play();
        let counts = conntrack.count_by_mark(OURS).unwrap();
        assert_eq!(counts.get(&Mark(0x100)), Some(&2), "{counts:?}");
        assert_eq!(counts.get(&Mark(0x200)), Some(&1), "{counts:?}");
        let mut filtered = 0;
        let filter = Some((Mark(0x100), OURS));
        conntrack.walk(filter, |_| filtered += 1).unwrap();
        assert_eq!(filtered, 2);
        conntrack.delete_by_mark(Mark(0x100), OURS).unwrap();
        conntrack.delete_by_mark(Mark(0), MarkMask(0)).unwrap();
        let counts = conntrack.count_by_mark(OURS).unwrap();
        assert_eq!(counts.get(&Mark(0x100)), None, "{counts:?}");
        assert_eq!(counts.get(&Mark(0x200)), Some(&1), "{counts:?}");
    });
}

#[test]
fn one_session_is_marked_or_deleted() {
    stage(|| {
        let mut conntrack = play();
        run("ping -c 1 -W 2 127.0.0.1");
        run("ping -c 1 -W 2 ::1");
        for session in all(&mut conntrack) {
            conntrack.set_mark(&session, Mark(0x500), OURS).unwrap();
        }
        for session in all(&mut conntrack) {
            assert_eq!(session.mark.0 & OURS.0, 0x500, "{session:?}");
            let others = if session.protocol == 17 { 0x1000_0000 } else { 0 };
            assert_eq!(session.mark.0 & !OURS.0, others, "{session:?}");
        }
        let sessions = all(&mut conntrack);
        assert!(sessions.iter().any(|s| s.protocol == 1), "{sessions:#?}");
        assert!(sessions.iter().any(|s| s.protocol == 58), "{sessions:#?}");
        for session in &sessions {
            // Another entry with the same addresses and ports is left alone.
            let other = Session { id: session.id ^ 1, ..session.clone() };
            conntrack.delete(&other).unwrap();
        }
        assert_eq!(all(&mut conntrack).len(), sessions.len());
        for session in &sessions {
            conntrack.delete(session).unwrap();
            conntrack.delete(session).unwrap();
            conntrack.set_mark(session, Mark(0x600), OURS).unwrap();
        }
        assert_eq!(all(&mut conntrack), []);
    });
}

#[test]
fn this_host_has_what_we_need() {
    stage(|| assert_eq!(probe_features(), Ok(())));
}
