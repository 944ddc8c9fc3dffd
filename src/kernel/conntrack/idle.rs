//! How long ago a session's last packet was: the time that its packets give it, less what is left.

use std::path::Path;
use std::time::Duration;

use super::decode::Session;

/// Where the kernel keeps the times, a file for each.
const FOLDER: &str = "/proc/sys/net/netfilter";

/// The times that packets give to sessions, in seconds, as the kernel is set now.
#[derive(Debug, Clone)]
pub struct Timeouts {
    tcp: [Option<u32>; 10],
    /// A TCP packet that is not acknowledged, or was sent again, gives less.
    tcp_waiting: [Option<u32>; 2],
    udp: Option<u32>,
    udp_stream: Option<u32>,
    icmp: Option<u32>,
    icmp6: Option<u32>,
    gre: [Option<u32>; 2],
    other: Option<u32>,
}

impl Timeouts {
    /// Reads them, in the network namespace of this thread.
    pub fn read() -> Timeouts {
        let read = |name: &str| {
            let file = Path::new(FOLDER).join(format!("nf_conntrack_{name}"));
            std::fs::read_to_string(file).ok()?.trim().parse().ok()
        };
        let tcp = |state: &str| read(&format!("tcp_timeout_{state}"));
        Timeouts {
            // In the order of `TCP_CONNTRACK_*`.
            tcp: [
                None,
                tcp("syn_sent"),
                tcp("syn_recv"),
                tcp("established"),
                tcp("fin_wait"),
                tcp("close_wait"),
                tcp("last_ack"),
                tcp("time_wait"),
                tcp("close"),
                tcp("syn_sent"),
            ],
            tcp_waiting: [tcp("unacknowledged"), tcp("max_retrans")],
            udp: read("udp_timeout"),
            udp_stream: read("udp_timeout_stream"),
            icmp: read("icmp_timeout"),
            icmp6: read("icmpv6_timeout"),
            gre: [read("gre_timeout"), read("gre_timeout_stream")],
            other: read("generic_timeout"),
        }
    }

    /// What a packet gives to an established TCP connection.
    pub fn established(&self) -> Option<u32> {
        self.tcp[3]
    }

    /// What a packet gives to a UDP session that is assured.
    pub fn udp_stream(&self) -> Option<u32> {
        self.udp_stream
    }

    /// Since the session's last packet, to the second, and never more than it was: the shortest of
    /// the times that the packet can have given is taken.
    pub fn idle(&self, session: &Session) -> Duration {
        if session.is_offloaded() {
            // The flowtable lets go of it when none has come for a while.
            return Duration::ZERO;
        }
        let left = session.timeout_s;
        let shortest = |given: &[Option<u32>]| {
            let possible = given.iter().flatten().filter(|given| **given >= left);
            possible.min().map_or(0, |given| given - left)
        };
        let seconds = match session.protocol {
            6 => {
                let state = session.tcp_state.and_then(|state| self.tcp.get(usize::from(state)));
                let [unacknowledged, resent] = self.tcp_waiting;
                shortest(&[state.copied().flatten(), unacknowledged, resent])
            }
            17 if session.has(Session::ASSURED) => shortest(&[self.udp_stream]),
            17 => shortest(&[self.udp]),
            1 => shortest(&[self.icmp]),
            58 => shortest(&[self.icmp6]),
            47 => shortest(&self.gre),
            _ => shortest(&[self.other]),
        };
        // What is left was rounded down.
        Duration::from_secs(u64::from(seconds.saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::super::{Direction, Tuple};
    use super::{Session, Timeouts};
    use crate::model::{Family, Mark};

    fn session(protocol: u8, tcp_state: Option<u8>, status: u32, timeout_s: u32) -> Session {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let tuple = Tuple { src: here, dst: here, sport: 1, dport: 2 };
        Session {
            family: Family::V4,
            protocol,
            mark: Mark(0),
            status,
            timeout_s,
            orig: tuple,
            reply: tuple,
            sent: Direction::default(),
            received: Direction::default(),
            tcp_state,
            id: 1,
            zone: 0,
        }
    }

    fn timeouts() -> Timeouts {
        let mut tcp = [Some(120); 10];
        tcp[3] = Some(432_000);
        Timeouts {
            tcp,
            tcp_waiting: [Some(300); 2],
            udp: Some(30),
            udp_stream: Some(120),
            icmp: Some(30),
            icmp6: Some(30),
            gre: [Some(30), Some(180)],
            other: Some(600),
        }
    }

    #[test]
    fn the_time_since_the_last_packet_is_what_it_gave_less_what_is_left() {
        let idle = |session: Session| timeouts().idle(&session).as_secs();
        let established = |left| session(6, Some(3), Session::ASSURED, left);
        assert_eq!(idle(established(432_000)), 0);
        assert_eq!(idle(established(431_899)), 100, "rounded down by one");
        assert_eq!(idle(established(289)), 10, "a packet that is not acknowledged");
        assert_eq!(idle(session(17, None, Session::ASSURED, 60)), 59);
        assert_eq!(idle(session(17, None, 0, 20)), 9);
        assert_eq!(idle(session(1, None, 0, 30)), 0);
        assert_eq!(idle(session(47, None, 0, 150)), 29);
        assert_eq!(idle(session(132, None, 0, 500)), 99);
        assert_eq!(idle(session(17, None, 0, 999)), 0, "a time that somebody else gave");
    }

    #[test]
    fn an_offloaded_session_is_not_idle() {
        let offloaded = session(6, Some(3), Session::OFFLOAD, 1000);
        assert_eq!(timeouts().idle(&offloaded), Duration::ZERO);
    }
}
