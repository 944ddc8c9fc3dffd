//! From a LAN, or any device that is no uplink: classify, and what is no policy's business.

use super::case::Case;
use super::leaving::{conclude, pinned, routed};
use super::policy::through_policies;
use super::question::Ask;
use super::{DecidedBy, Outcome};
use crate::kstate::Lookup;
use crate::model::{Family, NatMode, Uplink, UplinkId};

pub(super) fn from_inside(case: &mut Case<'_>) {
    let to = case.question.destination;
    match case.lookup(Ask::Kind) {
        Lookup::Local => {
            case.because(format!("{to} is an address of the router itself"));
            case.ends(Outcome::Router, DecidedBy::Kernel, "ends on the router itself");
        }
        Lookup::Many => {
            let fate = routed(case, &Lookup::Many, 1.0, "it is for many");
            conclude(case, fate, DecidedBy::Kernel);
        }
        // IPv6 looks for a route first, and what has none never reaches the policies.
        Lookup::Nowhere | Lookup::Invalid if case.question.family() == Family::V6 => {
            case.because(format!("the kernel has no route to {to}, not even a default"));
            not_ours(case);
        }
        Lookup::Forward { .. } | Lookup::Nowhere | Lookup::Invalid | Lookup::ReversePath => {
            classify(case);
        }
    }
}

fn classify(case: &mut Case<'_>) {
    let to = case.question.destination;
    let Some(device) = case.lookup(Ask::Specific).device() else {
        case.because(format!("{to} has no route but a default: it is for the internet"));
        return to_internet(case);
    };
    match case.uplink_of(device) {
        Some((uplink, id)) => {
            let name = &uplink.name;
            case.because(format!(
                "a route other than a default leads to {to} through {device}: the session is \
                 pinned to {name}, and no policy is asked"
            ));
            let fate = pinned(case, uplink, id, 1.0);
            conclude(case, fate, DecidedBy::Route);
        }
        None => {
            case.because(format!(
                "a route other than a default leads to {to} through {device}, which is no uplink"
            ));
            not_ours(case);
        }
    }
}

/// It goes where the kernel sends it without our mark.
fn not_ours(case: &mut Case<'_>) {
    let fate = routed(case, case.lookup(Ask::Unmarked), 1.0, "homing leaves it alone");
    conclude(case, fate, DecidedBy::Kernel);
}

fn to_internet(case: &mut Case<'_>) {
    match owner_of_source(case) {
        Some((uplink, id)) => {
            let (source, name) = (case.question.source, &uplink.name);
            case.because(format!(
                "{source} lies in the prefixes of {name}: it leaves by {name} alone, and no \
                 policy is asked"
            ));
            let fate = pinned(case, uplink, id, 1.0);
            conclude(case, fate, DecidedBy::Prefix);
        }
        None => through_policies(case),
    }
}

/// The first uplink whose ISP routes the source's network to us.
fn owner_of_source<'a>(case: &Case<'a>) -> Option<(&'a Uplink, UplinkId)> {
    let source = case.question.source;
    let owns = |uplink: &Uplink| {
        uplink.nat != NatMode::Always && uplink.prefixes.iter().any(|net| net.contains(&source))
    };
    case.scene.layout.uplinks().find(|(uplink, _)| owns(uplink))
}
