//! What is asked, and what must be asked of the kernel for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Scene;
use crate::kstate::{Lookup, RouteInput, RouteQuery};
use crate::model::{Dscp, Family, IfName, Mark, UplinkId};
use crate::plan::Layout;

/// The first packet of a new session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// IANA number.
    pub protocol: u8,
    /// Destination port.
    pub port: Option<u16>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Code point.
    pub dscp: Dscp,
    /// In by which LAN, uplink or device, as the user named it.
    pub input: Option<String>,
}

/// Where the packet starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// On the router itself.
    Router,
    /// It comes in by this device.
    Device(IfName),
}

/// One look-up, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// What kind of destination is it (`fib daddr type`)?
    Kind,
    /// A route other than a default (`fib daddr . mark oif`)?
    Specific,
    /// Where does it go without a mark?
    Unmarked,
    /// Where does it go with the mark of this uplink?
    Marked(UplinkId),
}

/// What the kernel answered.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Look-ups; what was not asked is taken for "nowhere".
    pub routes: BTreeMap<Ask, Lookup>,
    /// The client's binding, if there is one: the mark of its uplink, and the time left.
    pub binding: Option<(Mark, Duration)>,
}

impl Question {
    /// The family.
    pub fn family(&self) -> Family {
        Family::of(self.destination)
    }

    fn query(&self, mark: Mark, input: RouteInput) -> RouteQuery {
        RouteQuery {
            destination: self.destination,
            source: Some(self.source),
            mark,
            input,
            protocol: self.protocol,
            tos: self.dscp.0 << 2,
        }
    }
}

/// The look-up that tells where a source is, if the user does not.
pub fn origin_query(layout: &Layout, question: &Question) -> RouteQuery {
    RouteQuery {
        destination: question.source,
        source: None,
        mark: layout.site.marks.reserved(),
        input: RouteInput::Fib,
        protocol: question.protocol,
        tos: 0,
    }
}

/// Where the packet starts: as the user says, else where the route back to its source leads, else,
/// for an address of an uplink, from the internet by that uplink.
///
/// # Errors
/// When there is no such name, or nothing tells by which uplink it comes in.
pub fn origin(scene: Scene<'_>, question: &Question, back: &Lookup) -> Result<Origin, String> {
    if let Some(name) = &question.input {
        return named(scene, name).map(Origin::Device);
    }
    match back {
        Lookup::Local => return Ok(Origin::Router),
        Lookup::Forward { device, .. } => return Ok(Origin::Device(device.clone())),
        Lookup::Many | Lookup::Nowhere | Lookup::Invalid | Lookup::ReversePath => {}
    }
    if scene.seen.facts.is_local(question.source) {
        return Ok(Origin::Router);
    }
    let holds = |uplink: &&crate::model::Uplink| {
        let facts = scene.view.uplinks.get(&uplink.name);
        facts.is_some_and(|facts| facts.own_addresses().any(|a| a == question.destination))
    };
    let uplink = scene.layout.site.uplinks.iter().find(holds);
    let device = uplink.map(|uplink| Origin::Device(uplink.interface.clone()));
    device.ok_or_else(|| {
        format!(
            "nothing tells where {} comes in: name the LAN or the uplink with --in",
            question.source
        )
    })
}

fn named(scene: Scene<'_>, name: &str) -> Result<IfName, String> {
    let site = &scene.layout.site;
    let lan = site.lans.iter().find(|lan| lan.name.as_str() == name).map(|lan| &lan.interface);
    let uplink = || site.uplinks.iter().find(|u| u.name.as_str() == name).map(|u| &u.interface);
    let device = || scene.seen.facts.links.keys().find(|device| device.as_str() == name);
    lan.or_else(uplink).or_else(device).cloned().ok_or_else(|| {
        let lans = site.lans.iter().map(|lan| lan.name.as_str());
        let known: Vec<&str> = lans.chain(site.uplinks.iter().map(|u| u.name.as_str())).collect();
        format!("there is no LAN, uplink or interface `{name}`: known are {}", known.join(", "))
    })
}

/// Everything to look up for a packet that starts there.
pub fn asks(layout: &Layout, question: &Question, origin: &Origin) -> Vec<(Ask, RouteQuery)> {
    let none = Mark(0);
    // The kernel's answers about groups say who has joined them.
    if question.destination.is_multicast() {
        return Vec::new();
    }
    let device = match origin {
        Origin::Router => {
            return vec![(Ask::Unmarked, question.query(none, RouteInput::Own))];
        }
        Origin::Device(device) => RouteInput::Device(device.clone()),
    };
    let reserved = layout.site.marks.reserved();
    let mut asks = vec![
        (Ask::Kind, question.query(none, RouteInput::Fib)),
        (Ask::Specific, question.query(reserved, RouteInput::Fib)),
        (Ask::Unmarked, question.query(none, device.clone())),
    ];
    for (_, id) in layout.uplinks() {
        asks.push((Ask::Marked(id), question.query(layout.mark(id), device.clone())));
    }
    asks
}
