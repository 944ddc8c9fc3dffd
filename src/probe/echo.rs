//! ICMP echo.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use surge_ping::{Client, Config, ICMP, IcmpPacket, PingIdentifier, PingSequence, SurgeError};

use super::Path;
use super::connect::plain;
use crate::model::{Family, Outcome};

/// What an echo carries; the answer brings it back.
const PAYLOAD: [u8; 24] = *b"homing asks: anyone out?";

/// One socket: that of a path, or one for all that are asked by what routes say. It is closed with
/// the last question.
pub(super) struct Echo {
    client: Client,
    index: u32,
    identifier: PingIdentifier,
    sequence: u16,
    /// Nothing can be asked by it any more: so a question found out.
    pub(super) broken: Arc<AtomicBool>,
}

impl Echo {
    /// By this path.
    pub(super) fn open(path: &Path) -> io::Result<Echo> {
        let config = Config::builder()
            .kind(kind(Family::of(path.source)))
            .interface(path.device.as_str())
            .bind(SocketAddr::new(path.source, 0));
        Echo::with(&config.build(), path.index)
    }

    /// By what routes say.
    pub(super) fn unbound(family: Family) -> io::Result<Echo> {
        Echo::with(&Config::builder().kind(kind(family)).build(), 0)
    }

    fn with(config: &Config, index: u32) -> io::Result<Echo> {
        let identifier = PingIdentifier(RandomState::new().hash_one(index) as u16);
        Ok(Echo {
            client: Client::new(config)?,
            index,
            identifier,
            sequence: 0,
            broken: Arc::default(),
        })
    }

    /// Asks once.
    pub(super) fn ask(
        &mut self,
        to: IpAddr,
        timeout: Duration,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        self.sequence = self.sequence.wrapping_add(1);
        let (client, sequence) = (self.client.clone(), PingSequence(self.sequence));
        let (identifier, index) = (self.identifier, self.index);
        let broken = self.broken.clone();
        async move {
            let mut pinger = client.pinger(to, identifier).await;
            if matches!(to, IpAddr::V6(address) if address.is_unicast_link_local()) {
                pinger.scope_id(index);
            }
            pinger.timeout(timeout);
            let answer = pinger.ping(sequence, &PAYLOAD).await;
            if answer.as_ref().is_err_and(breaks) {
                broken.store(true, Ordering::Relaxed);
            }
            judge(answer)
        }
    }
}

fn kind(family: Family) -> ICMP {
    match family {
        Family::V4 => ICMP::V4,
        Family::V6 => ICMP::V6,
    }
}

fn judge(answer: Result<(IcmpPacket, Duration), SurgeError>) -> Outcome {
    match answer {
        Ok((packet, rtt)) => match complaint(&packet) {
            None => Outcome::Reply(rtt),
            Some(why) => Outcome::Wrong(why),
        },
        Err(SurgeError::Timeout { .. }) => Outcome::Lost,
        Err(SurgeError::IOError(error)) => Outcome::Wrong(plain(&error)),
        Err(error) => Outcome::Wrong(error.to_string()),
    }
}

/// What a router on the way says instead of an answer: a raw socket hears that too. The numbers are
/// those of RFC 792 and RFC 4443.
fn complaint(packet: &IcmpPacket) -> Option<String> {
    let (family, kind) = match packet {
        IcmpPacket::V4(packet) => (Family::V4, packet.get_icmp_type().0),
        IcmpPacket::V6(packet) => (Family::V6, packet.get_icmpv6_type().0),
    };
    match (family, kind) {
        (Family::V4, 0) | (Family::V6, 129) => None,
        (Family::V4, 3) | (Family::V6, 1) => Some("destination unreachable".to_owned()),
        (Family::V4, 11) | (Family::V6, 3) => Some("time to live exceeded".to_owned()),
        (_, other) => Some(format!("ICMP type {other} instead of an echo reply")),
    }
}

/// Whether an error is the socket's own. What the network or a firewall refuses may go well by the
/// same socket later.
fn breaks(error: &SurgeError) -> bool {
    match error {
        SurgeError::Timeout { .. } | SurgeError::IdenticalRequests { .. } => false,
        SurgeError::IOError(error) => !matches!(
            error.kind(),
            io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown
                | io::ErrorKind::PermissionDenied
        ),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use surge_ping::{PingSequence, SurgeError};

    use super::breaks;

    #[test]
    fn what_the_network_refuses_leaves_the_socket_whole() {
        for errno in [101, 113, 100, 1, 13] {
            let error = SurgeError::IOError(io::Error::from_raw_os_error(errno));
            assert!(!breaks(&error), "{error}");
        }
        assert!(!breaks(&SurgeError::Timeout { seq: PingSequence(1) }));
        for errno in [9, 19, 32, 88] {
            let error = SurgeError::IOError(io::Error::from_raw_os_error(errno));
            assert!(breaks(&error), "{error}");
        }
        assert!(breaks(&SurgeError::ClientDestroyed));
    }
}
