//! ICMP echo.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use surge_ping::{Client, Config, ICMP, PingIdentifier, PingSequence, SurgeError};

use super::Path;
use crate::model::{Family, Outcome};

/// What an echo carries; the answer brings it back.
const PAYLOAD: [u8; 24] = *b"homing asks: anyone out?";

/// The socket of one path. It is closed with the last question.
pub(super) struct Echo {
    client: Client,
    index: u32,
    identifier: PingIdentifier,
    sequence: u16,
}

impl Echo {
    pub(super) fn open(path: &Path) -> io::Result<Echo> {
        let kind = match Family::of(path.source) {
            Family::V4 => ICMP::V4,
            Family::V6 => ICMP::V6,
        };
        let config = Config::builder()
            .kind(kind)
            .interface(path.device.as_str())
            .bind(SocketAddr::new(path.source, 0));
        let identifier = PingIdentifier(RandomState::new().hash_one(path.index) as u16);
        Ok(Echo {
            client: Client::new(&config.build())?,
            index: path.index,
            identifier,
            sequence: 0,
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
        async move {
            let mut pinger = client.pinger(to, identifier).await;
            if matches!(to, IpAddr::V6(address) if address.is_unicast_link_local()) {
                pinger.scope_id(index);
            }
            pinger.timeout(timeout);
            match pinger.ping(sequence, &PAYLOAD).await {
                Ok((_, rtt)) => Outcome::Reply(rtt),
                Err(SurgeError::Timeout { .. }) => Outcome::Lost,
                Err(error) => Outcome::Wrong(error.to_string()),
            }
        }
    }
}
