//! Sessions that the packet path did not see begin, or saw begin wrongly: which uplink they belong
//! to, and which of them must end.
//!
//! Three kinds exist: sessions older than homing, which carry no uplink yet; sessions begun while
//! somebody had taken our rules away, which may be translated wrongly or not at all; and sessions
//! whose uplink or address is gone. Translation is decided once, at a session's first packet, so a
//! wrong one can only end: its next packet begins a right one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::evacuate::is_dismissed;
use super::inbound::{Keyed, claimed, entrances};
use super::lans::inside_networks;
use super::path::{MAIN, UplinkFacts};
use super::view::{Layout, View};
use crate::kstate::{Facts, Route, RouteKind};
use crate::model::{Family, IfName, Mark, MarkLayout, Name, NatMode, Uplink};

/// `IPPROTO_UDP`
const UDP: u8 = 17;

/// A session, as far as its addresses tell where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// As the one who began it sent it: from,
    pub source: IpAddr,
    /// and to.
    pub destination: IpAddr,
    /// The IANA number of its protocol.
    pub protocol: u8,
    /// The port that it went to.
    pub port: u16,
    /// Where its replies go to: the source after translation.
    pub answered_at: IpAddr,
    /// Who replies: the destination after translation.
    pub answered_by: IpAddr,
    /// Somebody did reply.
    pub answered: bool,
    /// All bits of its mark.
    pub mark: Mark,
}

/// What to do with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// It belongs to this uplink.
    Adopt(Mark),
    /// It must end.
    End(Flaw),
}

/// Why a session must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// It leaves by an uplink with an address from inside.
    Untranslated,
    /// Its address was its uplink's, which has another one now.
    AddressGone,
    /// Its uplink is no longer in the profile.
    UplinkGone,
    /// It is for a service, and went past it.
    Unserved,
}

impl Flaw {
    /// In words, behind "sessions".
    pub fn describe(self) -> &'static str {
        match self {
            Flaw::Untranslated => "that would have left untranslated",
            Flaw::AddressGone => "whose address is gone",
            Flaw::UplinkGone => "whose uplink was removed",
            Flaw::Unserved => "that had gone past their service",
        }
    }
}

/// Judges sessions by what the site looks like now.
#[derive(Debug)]
pub struct Mender {
    marks: MarkLayout,
    /// Uplinks' addresses; the same one may be on several.
    addresses: BTreeMap<IpAddr, Vec<Mark>>,
    /// Addresses that uplinks had, and for which they have others now.
    former: BTreeSet<IpAddr>,
    local: BTreeSet<IpAddr>,
    inside: BTreeSet<IpNet>,
    /// Where the main table leads, without its defaults: the uplink, or `None` for other devices.
    routes: Vec<(IpNet, Option<Mark>)>,
    uplinks: BTreeMap<Mark, Uplink>,
    /// What services take.
    services: [Keyed; 2],
}

impl Mender {
    /// `former` are addresses that uplinks once had, each with its uplink.
    pub fn new(
        layout: &Layout,
        view: &View,
        facts: &Facts,
        former: &BTreeMap<IpAddr, Name>,
    ) -> Mender {
        let mut addresses: BTreeMap<IpAddr, Vec<Mark>> = BTreeMap::new();
        for (uplink, id) in layout.uplinks() {
            let facts = view.uplinks.get(&uplink.name);
            for address in facts.into_iter().flat_map(UplinkFacts::own_addresses) {
                addresses.entry(address).or_default().push(layout.mark(id));
            }
        }
        let replaced = |(address, name): &(&IpAddr, &Name)| {
            let facts = view.uplinks.get(*name);
            facts.is_some_and(|facts| facts.ways.contains_key(&Family::of(**address)))
        };
        let foreign = facts.addresses.iter().map(|address| address.net.addr());
        Mender {
            marks: layout.site.marks,
            local: foreign.chain(addresses.keys().copied()).collect(),
            addresses,
            former: former.iter().filter(replaced).map(|(address, _)| *address).collect(),
            inside: inside_networks(layout, view, facts),
            routes: specific_routes(layout, facts),
            uplinks: layout.uplinks().map(|(u, id)| (layout.mark(id), u.clone())).collect(),
            services: Family::BOTH
                .map(|family| claimed(layout, view, &entrances(layout, view, family))),
        }
    }

    /// Whether a session is for a service, but no server has it.
    fn is_unserved(&self, entry: &Entry) -> bool {
        let keyed = &self.services[usize::from(entry.destination.is_ipv6())];
        // Whom the router itself has answered by TCP is let alone: an administrator, perhaps.
        let open = entry.answered && entry.protocol != UDP;
        !open
            && entry.mark.0 & self.marks.server.0 == 0
            && entry.answered_by == entry.destination
            && keyed.find(entry.destination, entry.protocol, entry.port).is_some()
    }

    /// What to do with a session; `None` when it is as it should be, or not ours.
    pub fn judge(&self, entry: &Entry) -> Option<Mend> {
        let uplink = Mark(entry.mark.0 & self.marks.uplink.0);
        if is_dismissed(entry.mark, self.marks)
            || !is_routable(entry.destination)
            || !is_routable(entry.source)
        {
            return None;
        }
        if self.is_unserved(entry) {
            return Some(Mend::End(Flaw::Unserved));
        }
        let served = entry.mark.0 & self.marks.server.0 != 0;
        if served && self.former.contains(&entry.destination) {
            return Some(Mend::End(Flaw::AddressGone));
        }
        if uplink.0 != 0 && !self.uplinks.contains_key(&uplink) {
            return Some(Mend::End(Flaw::UplinkGone));
        }
        if self.former.contains(&entry.source) {
            // The router's own; the kernel sends nothing more from there.
            return None;
        }
        if self.former.contains(&entry.answered_at) || self.former.contains(&entry.destination) {
            return Some(Mend::End(Flaw::AddressGone));
        }
        match self.is_inside(entry.source) || self.local.contains(&entry.source) {
            true => self.judge_outbound(entry, uplink),
            false => self.judge_inbound(entry, uplink),
        }
    }

    /// It came in by an uplink, to an address of that uplink.
    fn judge_inbound(&self, entry: &Entry, uplink: Mark) -> Option<Mend> {
        match self.addresses.get(&entry.destination).map(Vec::as_slice) {
            Some([only]) if uplink.0 == 0 => Some(Mend::Adopt(*only)),
            _ => None,
        }
    }

    fn judge_outbound(&self, entry: &Entry, uplink: Mark) -> Option<Mend> {
        if self.local.contains(&entry.destination) {
            return None;
        }
        if let Some(owners) = self.addresses.get(&entry.answered_at) {
            return match owners.as_slice() {
                [only] if *only != uplink => Some(Mend::Adopt(*only)),
                _ => None,
            };
        }
        let untranslated = entry.answered_at == entry.source && !self.local.contains(&entry.source);
        match untranslated {
            true => self.judge_untranslated(entry, uplink),
            false => None,
        }
    }

    fn judge_untranslated(&self, entry: &Entry, uplink: Mark) -> Option<Mend> {
        let by = match (uplink, self.route(entry.destination)) {
            (Mark(0), Some(None)) => return None,
            (Mark(0), Some(Some(device))) => device,
            (Mark(0), None) if self.is_inside(entry.destination) => return None,
            (Mark(0), None) => self.owner_of(entry.source).unwrap_or(Mark(0)),
            (pinned, _) => pinned,
        };
        let right = match self.uplinks.get(&by) {
            Some(owner) => goes_untranslated(owner, entry.source),
            // For the internet, by whichever link.
            None => self.uplinks.values().any(|uplink| uplink.nat == NatMode::Never),
        };
        match (right, by == uplink || by.0 == 0) {
            (false, _) => Some(Mend::End(Flaw::Untranslated)),
            (true, true) => None,
            (true, false) => Some(Mend::Adopt(by)),
        }
    }

    /// The uplink whose `prefixes` a source is in.
    fn owner_of(&self, source: IpAddr) -> Option<Mark> {
        let owns = |uplink: &Uplink| uplink.prefixes.iter().any(|net| net.contains(&source));
        self.uplinks.iter().find(|(_, uplink)| owns(uplink)).map(|(mark, _)| *mark)
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        self.inside.iter().any(|net| net.contains(&address))
            || self.route(address).is_some_and(|uplink| uplink.is_none())
    }

    /// Where the main table leads without its defaults: to an uplink, to another device, or nowhere.
    fn route(&self, address: IpAddr) -> Option<Option<Mark>> {
        self.routes.iter().find(|(net, _)| net.contains(&address)).map(|(_, uplink)| *uplink)
    }
}

fn goes_untranslated(uplink: &Uplink, source: IpAddr) -> bool {
    match uplink.nat {
        NatMode::Never => true,
        NatMode::Always => false,
        NatMode::Auto => uplink.prefixes.iter().any(|net| net.contains(&source)),
    }
}

/// The longest first.
fn specific_routes(layout: &Layout, facts: &Facts) -> Vec<(IpNet, Option<Mark>)> {
    let main = facts.routes.iter().filter(|route| {
        route.table == MAIN && !route.is_default() && route.kind == RouteKind::Unicast
    });
    let uplink = |device: Option<&IfName>| {
        let mut uplinks = layout.uplinks();
        uplinks.find(|(uplink, _)| Some(&uplink.interface) == device).map(|(_, id)| layout.mark(id))
    };
    let leads = |route: &Route| (route.metric, route.destination, uplink(route.device.as_ref()));
    let mut routes: Vec<_> = main.map(leads).collect();
    routes.sort_by_key(|(metric, net, _)| (u8::MAX - net.prefix_len(), *metric));
    routes.into_iter().map(|(_, net, uplink)| (net, uplink)).collect()
}

/// Loopback, multicast, broadcast and link-local addresses never leave by an uplink's table.
fn is_routable(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !local && !address.is_loopback() && !address.is_multicast() && !address.is_unspecified()
}
