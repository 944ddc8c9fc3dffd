//! Sessions from the internet, and the router's own.

use super::case::Case;
use super::leaving::{conclude, routed};
use super::matching::transport_failures;
use super::question::Ask;
use super::service::served;
use super::{DecidedBy, Outcome};
use crate::kstate::Lookup;
use crate::model::{Allow, AllowTarget, ForwardPolicy, InputPolicy, Uplink, UplinkId};

/// The router's own session goes by the kernel's routing, where rules of ours lead it to the first
/// usable uplink, or to the one whose device or address it is bound to.
pub(super) fn own_traffic(case: &mut Case<'_>) {
    let source = case.question.source;
    case.because(format!("{source} is the router's own: policies are for the LANs' sessions"));
    let fate = routed(case, case.lookup(Ask::Unmarked), 1.0, "the router's own");
    conclude(case, fate, DecidedBy::Kernel);
}

pub(super) fn from_uplink(case: &mut Case<'_>, (uplink, _): (&Uplink, UplinkId)) {
    let (source, name) = (case.question.source, &uplink.name);
    if case.is_inside(source) {
        case.because(format!("{source} belongs inside, and comes in by {name}: it is forged"));
        let text = "dropped: a source of the inside cannot come from the internet";
        return case.ends(Outcome::Dropped, DecidedBy::Firewall, text);
    }
    case.because(format!("it comes in by {name}: its replies leave by {name}"));
    if served(case) {
        return;
    }
    match case.lookup(Ask::Unmarked).clone() {
        Lookup::Local => input(case, uplink),
        Lookup::Forward { .. } => forward(case, uplink),
        other => {
            let fate = routed(case, &other, 1.0, "it came in");
            conclude(case, fate, DecidedBy::Kernel);
        }
    }
}

fn input(case: &mut Case<'_>, uplink: &Uplink) {
    let firewall = &case.scene.layout.site.firewall;
    let text = "ends on the router itself";
    if firewall.input == InputPolicy::Open {
        case.because("firewall.input is open: whatever listens there is reached");
        return case.ends(Outcome::Router, DecidedBy::Entry, text);
    }
    if let Some(reason) = always_let_in(case).or_else(|| allowed(case, uplink, true)) {
        case.because(reason);
        return case.ends(Outcome::Router, DecidedBy::Firewall, text);
    }
    case.because("firewall.input is closed, and no entry of firewall.allow lets it in");
    case.ends(Outcome::Dropped, DecidedBy::Firewall, "dropped by firewall.input");
}

/// ICMP and IGMP, and what a DHCP client is sent.
fn always_let_in(case: &Case<'_>) -> Option<String> {
    let question = case.question;
    let dhcp = question.protocol == 17
        && ((question.source_port, question.port) == (Some(67), Some(68))
            || question.port == Some(546));
    let icmp = [1, 2, 58].contains(&question.protocol);
    (dhcp || icmp).then(|| "firewall.input always lets ICMP and DHCP answers in".to_owned())
}

fn forward(case: &mut Case<'_>, uplink: &Uplink) {
    let firewall = &case.scene.layout.site.firewall;
    if firewall.forward == ForwardPolicy::Closed {
        let Some(reason) = allowed(case, uplink, false) else {
            case.because(
                "firewall.forward is closed, and no entry of firewall.allow lets it in (what \
                 another table on this host port-forwards would be)",
            );
            return case.ends(Outcome::Dropped, DecidedBy::Firewall, "dropped by firewall.forward");
        };
        case.because(reason);
    } else {
        case.because("firewall.forward is open");
    }
    let fate = routed(case, case.lookup(Ask::Unmarked), 1.0, "let in");
    conclude(case, fate, DecidedBy::Entry);
}

/// The first entry of `firewall.allow` that lets the packet in.
fn allowed(case: &Case<'_>, uplink: &Uplink, to_router: bool) -> Option<String> {
    let lets_in = |allow: &&Allow| {
        let by = allow.uplink.as_ref().is_none_or(|name| name == &uplink.name);
        let to = match allow.to {
            AllowTarget::Any => true,
            AllowTarget::Router => to_router,
            AllowTarget::Net(net) => net.contains(&case.question.destination),
        };
        by && to && transport_failures(&allow.protocols, &allow.ports, case.question).is_empty()
    };
    let allow = &case.scene.layout.site.firewall.allow;
    let number = allow.iter().position(|allow| lets_in(&allow))?;
    Some(format!("firewall.allow[{number}] lets it in"))
}
