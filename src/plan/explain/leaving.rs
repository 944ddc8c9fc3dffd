//! Leaving by an uplink: the route with its mark, and the translation of the source.

use std::net::IpAddr;

use ipnet::IpNet;

use super::case::Case;
use super::question::Ask;
use super::{DecidedBy, Outcome, WayOut};
use crate::kstate::Lookup;
use crate::model::{IfName, NatMode, Uplink, UplinkId};

/// What becomes of a packet.
pub(super) enum Fate {
    /// It leaves by an uplink.
    Leaves(WayOut),
    /// It goes on through a device that is no uplink.
    Elsewhere(IfName, String),
    /// It goes nowhere, for this reason.
    Ends(Outcome, String),
}

/// What becomes of a packet that carries an uplink's mark.
pub(super) fn pinned(case: &Case<'_>, uplink: &Uplink, id: UplinkId, share: f64) -> Fate {
    let name = &uplink.name;
    match case.lookup(Ask::Marked(id)) {
        Lookup::Forward { device, gateway } if device == &uplink.interface => {
            translated(case, uplink, share, *gateway)
        }
        Lookup::Nowhere => {
            let why = why_no_way(case, uplink);
            Fate::Ends(Outcome::Refused, format!("{name} has no way there: {why}"))
        }
        other => routed(case, other, share, &format!("a rule before ours takes {name}'s packets")),
    }
}

/// What becomes of a packet by the kernel's routing; `prelude` tells how it came to that.
pub(super) fn routed(case: &Case<'_>, lookup: &Lookup, share: f64, prelude: &str) -> Fate {
    match lookup {
        Lookup::Forward { device, gateway } => match case.uplink_of(device) {
            Some((uplink, _)) => translated(case, uplink, share, *gateway),
            None => Fate::Elsewhere(device.clone(), format!("{prelude}: it goes on by {device}")),
        },
        Lookup::Local => Fate::Ends(Outcome::Router, format!("{prelude}: it is for the router")),
        Lookup::Many => Fate::Ends(
            Outcome::Untouched,
            format!("{prelude}: a broadcast or multicast address, which homing never touches"),
        ),
        Lookup::Nowhere => Fate::Ends(
            Outcome::Refused,
            format!("{prelude}: the kernel has no route, and says so to the sender"),
        ),
        Lookup::Invalid => {
            Fate::Ends(Outcome::Dropped, format!("{prelude}: a blackhole route takes it"))
        }
        Lookup::ReversePath => Fate::Ends(
            Outcome::Dropped,
            format!(
                "the kernel's reverse-path filter (rp_filter) drops it: the route back to {} \
                 leads elsewhere",
                case.question.source
            ),
        ),
    }
}

fn why_no_way(case: &Case<'_>, uplink: &Uplink) -> String {
    let family = case.question.family();
    let facts = case.scene.view.uplinks.get(&uplink.name);
    let missing = facts.and_then(|facts| facts.missing.get(&family)).cloned();
    missing.unwrap_or_else(|| "its routing table has no route".to_owned())
}

/// The rules of `postrouting`, in their order.
fn translated(case: &Case<'_>, uplink: &Uplink, share: f64, gateway: Option<IpAddr>) -> Fate {
    let source = case.question.source;
    let way = |to: IpAddr| {
        Fate::Leaves(WayOut {
            uplink: uplink.name.to_string(),
            interface: uplink.interface.to_string(),
            share,
            source: to,
            translated: to != source,
            gateway,
        })
    };
    if keeps_source(case, uplink) {
        return way(source);
    }
    let facts = case.scene.view.uplinks.get(&uplink.name);
    let address = facts.and_then(|facts| facts.ways.get(&case.question.family()));
    match address {
        Some(known) => way(known.address),
        None => {
            let why = why_no_way(case, uplink);
            let name = &uplink.name;
            let text = format!("it may not leave by {name} untranslated, and {why}");
            Fate::Ends(Outcome::Dropped, text)
        }
    }
}

/// Whether a source leaves by an uplink as it is.
fn keeps_source(case: &Case<'_>, uplink: &Uplink) -> bool {
    let source = case.question.source;
    let link_local = matches!(source, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let facts = case.scene.view.uplinks.get(&uplink.name);
    let own = facts.is_some_and(|facts| facts.own_addresses().any(|a| a == source));
    let in_prefixes = uplink.prefixes.iter().any(|net: &IpNet| net.contains(&source));
    link_local
        || own
        || match uplink.nat {
            NatMode::Never => true,
            NatMode::Auto => in_prefixes,
            NatMode::Always => false,
        }
}

/// Ends the case with this fate, which has one way at most.
pub(super) fn conclude(case: &mut Case<'_>, fate: Fate, by: DecidedBy) {
    match fate {
        Fate::Leaves(way) => {
            let text = sentence(&way);
            case.answer.ways.push(way);
            case.ends(Outcome::Uplink, by, text);
        }
        Fate::Elsewhere(device, text) => {
            case.answer.interface = Some(device.to_string());
            case.ends(Outcome::Elsewhere, by, text);
        }
        Fate::Ends(outcome, text) => case.ends(outcome, by, text),
    }
}

/// `leaves by fiber (wan0) as 198.51.101.2`
pub(super) fn sentence(way: &WayOut) -> String {
    let unchanged = if way.translated { "" } else { ", which is not translated" };
    format!("leaves by {} ({}) as {}{unchanged}", way.uplink, way.interface, way.source)
}
