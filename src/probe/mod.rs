//! Asking one target over one uplink: by its device and from its address, whatever routes say.
//!
//! A probe leaves by the uplink that it is about, also when that is drained or dead, because its
//! socket is bound to the device and homing's rules send what is bound there through that uplink's
//! table.

mod connect;
mod dns;
mod echo;
pub(crate) mod hostile;
mod http;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Family, Host, IfName, Outcome, Target};

use self::echo::Echo;
use self::http::Tls;

/// The way that questions over one uplink take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    /// Its device,
    pub device: IfName,
    /// with its number: a device that was made again is another one.
    pub index: u32,
    /// The address that is asked from.
    pub source: IpAddr,
    /// The next hop.
    pub gateway: Option<IpAddr>,
}

/// Asks.
#[derive(Default)]
pub struct Prober {
    /// One socket for each path, as long as it is the path.
    echoes: BTreeMap<Path, Echo>,
    tls: Tls,
}

/// An answer to come.
pub type Asking = Pin<Box<dyn Future<Output = Outcome> + Send>>;

impl Prober {
    /// Closes the sockets of paths that are no more.
    pub fn keep(&mut self, paths: &[Path]) {
        self.echoes.retain(|path, _| paths.contains(path));
    }

    /// Asks one target. `resolved` is the address of a target that is named. The answer comes within
    /// the timeout. Must be called within a tokio runtime.
    pub fn ask(
        &mut self,
        target: &Target,
        path: &Path,
        resolved: Option<IpAddr>,
        timeout: Duration,
    ) -> Asking {
        match target {
            Target::Gateway => match path.gateway {
                Some(gateway) => self.echo(gateway, path, timeout),
                None => wrong("no gateway"),
            },
            Target::Icmp(address) => self.echo(*address, path, timeout),
            Target::Tcp(address) => {
                let (address, path) = (*address, path.clone());
                within(timeout, async move { connect::ask(address, &path).await })
            }
            Target::Http { url, expect } => {
                let address = match &url.host {
                    Host::Address(address) => Some(*address),
                    Host::Name(_) => resolved,
                };
                let Some(address) = address else { return wrong("its name is not resolved") };
                let to = SocketAddr::new(address, url.port);
                let tls = if url.tls { self.tls.settings() } else { Ok(None) };
                let (url, expect, path) = (url.clone(), expect.clone(), path.clone());
                within(timeout, async move { http::ask(to, &url, &expect, &path, tls?).await })
            }
            Target::Dns { server, query } => {
                let (server, query, path) = (*server, query.clone(), path.clone());
                within(timeout, async move { dns::ask(server, &query, &path).await })
            }
        }
    }

    fn echo(&mut self, to: IpAddr, path: &Path, timeout: Duration) -> Asking {
        if Family::of(to) != Family::of(path.source) {
            return wrong("it is of the other family");
        }
        if !self.echoes.contains_key(path) {
            match Echo::open(path) {
                Ok(echo) => drop(self.echoes.insert(path.clone(), echo)),
                Err(error) => return wrong(&format!("cannot ask: {}", connect::plain(&error))),
            }
        }
        match self.echoes.get_mut(path) {
            Some(echo) => Box::pin(echo.ask(to, timeout)),
            None => wrong("cannot ask"),
        }
    }
}

fn wrong(why: &str) -> Asking {
    let why = why.to_owned();
    Box::pin(async move { Outcome::Wrong(why) })
}

/// The time that it takes is the round-trip time; an error is a wrong answer.
fn within(
    timeout: Duration,
    question: impl Future<Output = Result<Duration, String>> + Send + 'static,
) -> Asking {
    Box::pin(async move {
        match tokio::time::timeout(timeout, question).await {
            Ok(Ok(rtt)) => Outcome::Reply(rtt),
            Ok(Err(why)) => Outcome::Wrong(why),
            Err(_) => Outcome::Lost,
        }
    })
}

/// Since then.
fn since(started: Instant) -> Duration {
    started.elapsed()
}
