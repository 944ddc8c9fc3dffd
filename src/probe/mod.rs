//! Asking one target over one uplink, by its device and from its address, whatever routes say; and
//! asking one server of the site, by what they say.
//!
//! A probe leaves by the uplink that it is about, also when that is drained or dead, because its
//! socket is bound to the device and homing's rules send what is bound there through that uplink's
//! table. A check is bound to nothing: it takes the way that the router's own traffic to the server
//! takes.

mod connect;
mod dns;
mod echo;
pub(crate) mod hostile;
mod http;
mod post;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_servers;
mod tls;
mod udp;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{CheckKind, Family, Host, IfName, Outcome, Target};

pub use self::post::Postman;

use self::echo::Echo;
use self::tls::Tls;

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
    /// For all servers of a family.
    server_echoes: BTreeMap<Family, Echo>,
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
                within(timeout, async move { connect::ask(address, Some(&path)).await })
            }
            Target::Http { url, expect } => {
                let address = match &url.host {
                    Host::Address(address) => Some(*address),
                    Host::Name(_) => resolved,
                };
                let Some(address) = address else { return wrong("its name is not resolved") };
                let to = SocketAddr::new(address, url.port);
                let tls = url.tls.then(|| self.tls.with_targets()).transpose();
                let (question, path) = (http::Question::target(to, url, expect), path.clone());
                within(timeout, async move { http::ask(&question, Some(&path), tls?).await })
            }
            Target::Dns { server, query } => {
                let server = SocketAddr::new(*server, dns::PORT);
                let (query, path) = (query.clone(), path.clone());
                within(timeout, async move { dns::ask(server, &query, Some(&path)).await })
            }
        }
    }

    /// Asks one server, at `port` if the check has no port of its own. The answer comes within the
    /// timeout. Must be called within a tokio runtime.
    pub fn check(
        &mut self,
        server: IpAddr,
        kind: &CheckKind,
        port: u16,
        timeout: Duration,
    ) -> Asking {
        let to = SocketAddr::new(server, kind.port().unwrap_or(port));
        match kind {
            CheckKind::Icmp => self.server_echo(server, timeout),
            CheckKind::Tcp { .. } => within(timeout, async move { connect::ask(to, None).await }),
            CheckKind::Tls { host, .. } => {
                let tls = self.tls.with_servers();
                let name = host.clone().unwrap_or_else(|| server.to_string());
                within(timeout, async move { tls::ask(to, name, tls?).await })
            }
            CheckKind::Http { tls, path, expect, .. } => {
                let question = http::Question::server(to, *tls, path, expect);
                let tls = tls.then(|| self.tls.with_servers()).transpose();
                within(timeout, async move { http::ask(&question, None, tls?).await })
            }
            CheckKind::Dns { query, .. } => {
                let query = query.clone();
                within(timeout, async move { dns::ask(to, &query, None).await })
            }
            CheckKind::Udp { send, expect, .. } => {
                let (send, expect) = (send.clone(), expect.clone());
                within(timeout, async move { udp::ask(to, &send, expect.as_deref()).await })
            }
        }
    }

    fn echo(&mut self, to: IpAddr, path: &Path, timeout: Duration) -> Asking {
        if Family::of(to) != Family::of(path.source) {
            return wrong("it is of the other family");
        }
        let open = || Echo::open(path);
        echo_by(self.echoes.entry(path.clone()), open, to, timeout)
    }

    fn server_echo(&mut self, to: IpAddr, timeout: Duration) -> Asking {
        let family = Family::of(to);
        let open = || Echo::unbound(family);
        echo_by(self.server_echoes.entry(family), open, to, timeout)
    }
}

/// Asks by the socket of this place; one that is missing or broken is opened.
fn echo_by<K: Ord>(
    place: Entry<'_, K, Echo>,
    open: impl FnOnce() -> io::Result<Echo>,
    to: IpAddr,
    timeout: Duration,
) -> Asking {
    let echo = match place {
        Entry::Occupied(there) if !there.get().broken.load(Ordering::Relaxed) => {
            Ok(there.into_mut())
        }
        Entry::Occupied(mut there) => open().map(|echo| {
            there.insert(echo);
            there.into_mut()
        }),
        Entry::Vacant(place) => open().map(|echo| place.insert(echo)),
    };
    match echo {
        Ok(echo) => Box::pin(echo.ask(to, timeout)),
        Err(error) => wrong(&format!("cannot ask: {}", connect::plain(&error))),
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
