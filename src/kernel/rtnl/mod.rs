//! rtnetlink: links, addresses, routes and rules.
//!
//! Bytes are decoded once, here at the edge, into the values of `kstate`; what the kernel adds on
//! its own (ages, flags of dead links, preferences) is left out, so that desired equals observed.

mod address;
mod link;
mod lookup;
mod route;
mod rule;

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_core::{DecodeError, Parseable};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::{RuleHeader, RuleMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::libc;

use self::address::Whose;
use super::KernelError;
use super::socket::{Channel, NetlinkError};
use super::wire::{CREATE, EXCL, Message, REPLACE};
use crate::kstate::{Address, Link, Lookup, OwnAddress, Route, RouteQuery, Rule};
use crate::model::{Family, IfName};

pub(super) use link::has_carrier;
pub use route::NoSuchDevice;

/// Devices by their index, as of one dump of links.
pub(super) type Names = BTreeMap<u32, IfName>;

/// Addresses of ours and of others.
pub(super) type Addresses = (BTreeSet<OwnAddress>, BTreeSet<Address>);

/// The rtnetlink side of the kernel.
#[derive(Debug)]
pub(super) struct Rtnl {
    channel: Channel,
}

impl Rtnl {
    /// Opens the socket in the network namespace of this thread.
    pub(super) fn open() -> Result<Rtnl, NetlinkError> {
        let channel = Channel::open(NETLINK_ROUTE)?.strict()?;
        Ok(Rtnl { channel })
    }

    /// The number by which notices name us.
    pub(super) fn port(&self) -> u32 {
        self.channel.port()
    }

    /// Every device whose name fits [`IfName`]. Its carrier is the one of now.
    pub(super) fn links(&mut self) -> Result<BTreeMap<IfName, Link>, KernelError> {
        let links =
            self.channel.dump(&link::request(), link::decode).map_err(KernelError::ReadLinks)?;
        Ok(links.into_iter().collect())
    }

    /// Every bridge.
    pub(super) fn bridges(&mut self) -> Result<Vec<IfName>, KernelError> {
        self.channel.dump(&link::request(), link::decode_bridge).map_err(KernelError::ReadLinks)
    }

    /// Every address of a known device: ours, and those of others.
    pub(super) fn addresses(&mut self, names: &Names) -> Result<Addresses, KernelError> {
        let all = self.dump_addresses(names).map_err(KernelError::ReadAddresses)?;
        let mut addresses = Addresses::default();
        for one in all {
            match one {
                Whose::Ours(own) => drop(addresses.0.insert(own)),
                Whose::Foreign(address) => drop(addresses.1.insert(address)),
            }
        }
        Ok(addresses)
    }

    fn dump_addresses(&mut self, names: &Names) -> Result<Vec<Whose>, NetlinkError> {
        let request = Message::new(libc::RTM_GETADDR, 0).body(&AddressMessage::default());
        self.channel.dump(&request, |body| decode_address(body, names))
    }

    /// Takes an address; one that is there already is fine.
    pub(super) fn add_address(&mut self, own: &OwnAddress) -> Result<(), KernelError> {
        match self.try_add_address(own) {
            Err(RouteError::Netlink(error)) if error.is(&[Errno::EEXIST]) => Ok(()),
            other => {
                other.map_err(|source| KernelError::AddAddress { address: own.clone(), source })
            }
        }
    }

    fn try_add_address(&mut self, own: &OwnAddress) -> Result<(), RouteError> {
        let index = route::index_of(&own.device)?;
        let body = address::encode(own, index);
        Ok(self.channel.request(Message::new(libc::RTM_NEWADDR, CREATE | EXCL).body(&body))?)
    }

    /// Gives an address up; one that is gone already (alone or with its device) is fine.
    ///
    /// The kernel does not look at the protocol when it deletes, so we look first.
    pub(super) fn delete_address(&mut self, own: &OwnAddress) -> Result<(), KernelError> {
        let Ok(index) = route::index_of(&own.device) else {
            return Ok(());
        };
        let fail = |source| KernelError::DeleteAddress { address: own.clone(), source };
        let names = Names::from([(index, own.device.clone())]);
        let ours = |whose: &Whose| matches!(whose, Whose::Ours(found) if found == own);
        if !self.dump_addresses(&names).map_err(fail)?.iter().any(ours) {
            return Ok(());
        }
        let body = address::encode(own, index);
        match self.channel.request(Message::new(libc::RTM_DELADDR, 0).body(&body)) {
            Err(error) if error.is(&[Errno::EADDRNOTAVAIL, Errno::ENODEV]) => Ok(()),
            other => other.map_err(fail),
        }
    }

    /// Every route of one family, but those of the table `local` and cached ones.
    pub(super) fn routes(
        &mut self,
        family: Family,
        names: &Names,
    ) -> Result<Vec<Route>, KernelError> {
        let request = route::request(family, None);
        let decode = |body: &[u8]| decode_route(body, names);
        if_family_exists(self.channel.dump(&request, decode))
            .map(|routes| routes.into_iter().flatten().collect())
            .map_err(|source| KernelError::ReadRoutes { family, source })
    }

    /// Asks where a packet would go.
    pub(super) fn lookup(&mut self, query: &RouteQuery) -> Result<Lookup, KernelError> {
        lookup::ask(&mut self.channel, query)
            .map_err(|source| KernelError::Lookup { destination: query.destination, source })
    }

    /// Every rule of one family.
    pub(super) fn rules(&mut self, family: Family) -> Result<Vec<Rule>, KernelError> {
        let mut message = RuleMessage::default();
        message.header = RuleHeader { family: address_family(family), ..RuleHeader::default() };
        let request = Message::new(libc::RTM_GETRULE, 0).body(&message);
        if_family_exists(self.channel.dump(&request, decode_rule))
            .map_err(|source| KernelError::ReadRules { family, source })
    }

    /// Adds a route; one that is there already is fine.
    ///
    /// Without `NLM_F_EXCL`: another route to the same destination with the same metric does not
    /// count as "there already", but gives way when it is deleted afterwards. (IPv4 uses the newer
    /// one at once, IPv6 both until then.)
    pub(super) fn add_route(&mut self, route: &Route) -> Result<(), KernelError> {
        self.try_add_route(route)
            .map_err(|source| KernelError::AddRoute { route: Box::new(route.clone()), source })
    }

    fn try_add_route(&mut self, route: &Route) -> Result<(), RouteError> {
        let body = route::encode(route)?;
        let add = |flags| Message::new(libc::RTM_NEWROUTE, flags).body(&body);
        match self.channel.request(add(CREATE)) {
            Err(error) if error.is(&[Errno::EEXIST]) => {
                let twins = self.twins(route)?;
                if twins.contains(route) {
                    return Ok(());
                }
                if twins.iter().any(|twin| twin.protocol != route.protocol) {
                    return Err(error.into());
                }
                // IPv6 takes equal next hops for equal routes, whatever their source and MTU.
                Ok(self.channel.request(add(CREATE | REPLACE))?)
            }
            other => Ok(other?),
        }
    }

    /// Deletes a route; one that is gone already (alone or with its device) is fine.
    ///
    /// IPv6 looks at neither source nor MTU when it deletes, so we look first.
    pub(super) fn delete_route(&mut self, route: &Route) -> Result<(), KernelError> {
        let Ok(body) = route::encode(route) else {
            return Ok(());
        };
        let fail = |source| KernelError::DeleteRoute { route: Box::new(route.clone()), source };
        if !self.twins(route).map_err(fail)?.contains(route) {
            return Ok(());
        }
        let message = Message::new(libc::RTM_DELROUTE, 0).body(&body);
        match self.channel.request(message) {
            Err(error) if error.is(&[Errno::ESRCH, Errno::ENOENT, Errno::ENODEV]) => Ok(()),
            other => other.map_err(fail),
        }
    }

    /// The routes of a table to the same destination with the same metric. Devices are named only
    /// where they are the route's own.
    fn twins(&mut self, route: &Route) -> Result<Vec<Route>, NetlinkError> {
        let mut names = Names::new();
        if let Some(device) = &route.device
            && let Ok(index) = nix::net::if_::if_nametoindex(device.as_str())
        {
            names.insert(index, device.clone());
        }
        let decode = |body: &[u8]| decode_route(body, &names);
        let request = route::request(route.family(), Some(route.table));
        let found = match self.channel.dump(&request, decode) {
            // No such table yet.
            Err(error) if error.is(&[Errno::ENOENT]) => Vec::new(),
            other => other?,
        };
        let twin = |r: &Route| r.destination == route.destination && r.metric == route.metric;
        Ok(found.into_iter().flatten().filter(twin).collect())
    }

    /// Adds a rule; one that is there already is fine. (A replace would add a second one.)
    pub(super) fn add_rule(&mut self, rule: &Rule) -> Result<(), KernelError> {
        let message = Message::new(libc::RTM_NEWRULE, CREATE | EXCL).body(&rule::encode(rule));
        match self.channel.request(message) {
            Err(error) if error.is(&[Errno::EEXIST]) => Ok(()),
            other => other
                .map_err(|source| KernelError::AddRule { rule: Box::new(rule.clone()), source }),
        }
    }

    /// Deletes a rule; one that is gone already is fine.
    ///
    /// The kernel deletes the *first* rule that has everything the message names, and a selector
    /// that the message lacks counts as "any" (and `not` does not count at all). So we look first,
    /// and rules of which one has all the selectors of another must not share a priority.
    pub(super) fn delete_rule(&mut self, rule: &Rule) -> Result<(), KernelError> {
        if !self.rules(rule.family)?.contains(rule) {
            return Ok(());
        }
        let message = Message::new(libc::RTM_DELRULE, 0).body(&rule::encode(rule));
        match self.channel.request(message) {
            Err(error) if error.is(&[Errno::ENOENT, Errno::ESRCH]) => Ok(()),
            other => other
                .map_err(|source| KernelError::DeleteRule { rule: Box::new(rule.clone()), source }),
        }
    }
}

fn decode_address(body: &[u8], names: &Names) -> Option<Whose> {
    address::decode(&readable("address", AddressMessage::parse(body))?, names)
}

fn decode_route(body: &[u8], names: &Names) -> Option<Vec<Route>> {
    Some(route::decode(&readable("route", RouteMessage::parse(body))?, names))
}

fn decode_rule(body: &[u8]) -> Option<Rule> {
    rule::decode(&readable("rule", RuleMessage::parse(body))?)
}

/// Takes a message for each kind of object in turn: whatever the bytes, it comes back. What can be
/// read can be written, too.
pub(super) fn decode_any(body: &[u8]) {
    let names: Names = IfName::new("wan0").map(|name| (3, name)).into_iter().collect();
    let _ = link::decode(body);
    if let Some(Whose::Ours(own)) = decode_address(body, &names) {
        let _ = address::encode(&own, 3);
    }
    for route in decode_route(body, &names).into_iter().flatten() {
        let _ = route::encode(&Route { device: None, ..route });
    }
    let _ = decode_rule(body).map(|rule| rule::encode(&rule));
}

/// Why a route or an address could not be added.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Its device does not exist.
    #[error(transparent)]
    NoSuchDevice(#[from] NoSuchDevice),
    /// The kernel did not take it.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// A kernel may lack a family; then it has none of its objects.
fn if_family_exists<T>(dumped: Result<Vec<T>, NetlinkError>) -> Result<Vec<T>, NetlinkError> {
    match dumped {
        Err(error) if error.is(&[Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP]) => Ok(Vec::new()),
        other => other,
    }
}

/// A message that this version of the decoder does not understand can only be somebody else's;
/// it must not keep us from seeing the rest.
fn readable<T>(what: &str, message: Result<T, DecodeError>) -> Option<T> {
    message.inspect_err(|error| tracing::warn!("{what} left out, cannot decode it: {error}")).ok()
}
