//! One question being answered: what is known, and the answer so far.

use std::net::IpAddr;

use super::question::{Ask, Found, Origin, Question};
use super::{DecidedBy, Explanation, Outcome, Packet, Scene, WayOut};
use crate::kstate::Lookup;
use crate::model::{Helper, IfName, Uplink, UplinkId};
use crate::plan::{inside_networks, offload};

/// A question on its way to its answer.
pub(super) struct Case<'a> {
    pub(super) scene: Scene<'a>,
    pub(super) question: &'a Question,
    pub(super) found: &'a Found,
    pub(super) answer: Explanation,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        scene: Scene<'a>,
        question: &'a Question,
        origin: &Origin,
        found: &'a Found,
    ) -> Case<'a> {
        let device = match origin {
            Origin::Router => None,
            Origin::Device(device) => Some(device),
        };
        let answer = Explanation {
            version: 1,
            packet: packet(scene, question, device),
            outcome: Outcome::Dropped,
            summary: String::new(),
            decided_by: DecidedBy::Kernel,
            policy: None,
            uplink: None,
            source: None,
            ways: Vec::new(),
            service: None,
            server: None,
            servers: Vec::new(),
            interface: None,
            binding: None,
            fast_path: false,
            slot: None,
            policies: Vec::new(),
            members: Vec::new(),
            reasons: Vec::new(),
        };
        Case { scene, question, found, answer }
    }

    /// Adds a reason.
    pub(super) fn because(&mut self, reason: impl Into<String>) {
        self.answer.reasons.push(reason.into());
    }

    /// Ends with this outcome.
    pub(super) fn ends(&mut self, outcome: Outcome, by: DecidedBy, summary: impl Into<String>) {
        self.answer.outcome = outcome;
        self.answer.decided_by = by;
        self.answer.summary = summary.into();
    }

    /// What the kernel said; of groups it is not asked.
    pub(super) fn lookup(&self, ask: Ask) -> &'a Lookup {
        if self.question.destination.is_multicast() {
            return &Lookup::Many;
        }
        self.found.routes.get(&ask).unwrap_or(&Lookup::Nowhere)
    }

    /// The uplink with this device.
    pub(super) fn uplink_of(&self, device: &IfName) -> Option<(&'a Uplink, UplinkId)> {
        self.scene.layout.uplinks().find(|(uplink, _)| &uplink.interface == device)
    }

    /// Whether an address lies inside.
    pub(super) fn is_inside(&self, address: IpAddr) -> bool {
        let Scene { layout, view, seen } = self.scene;
        inside_networks(layout, view, &seen.facts).iter().any(|net| net.contains(&address))
    }

    /// The answer; what all its ways have in common stands on top.
    pub(super) fn finish(mut self) -> Explanation {
        let ways = &self.answer.ways;
        let same = |other: &WayOut| ways.first().is_some_and(|way| way.source == other.source);
        self.answer.uplink = match ways.as_slice() {
            [one] => Some(one.uplink.clone()),
            _ => None,
        };
        self.answer.source = ways.first().filter(|_| ways.iter().all(same)).map(|way| way.source);
        self.go_fast();
        self.answer
    }
}

impl Case<'_> {
    /// Sessions between an uplink and the inside, of protocols with ports, that no helper follows.
    fn go_fast(&mut self) {
        let Scene { layout, seen, .. } = self.scene;
        let Some(input) = &self.answer.packet.interface else { return };
        let by_uplink = layout.site.uplinks.iter().any(|one| one.interface.as_str() == input);
        let passes = match self.answer.outcome {
            Outcome::Uplink => true,
            Outcome::Server => by_uplink,
            _ => false,
        };
        let fast = offload::wanted(&layout.site, &seen.facts);
        if !passes || fast.reason.is_some() || !matches!(self.question.protocol, 6 | 17) {
            return;
        }
        let followed = |helper: &Helper| {
            let transport = if helper.transport() == "tcp" { 6 } else { 17 };
            transport == self.question.protocol && Some(helper.port()) == self.question.port
        };
        if self.answer.outcome == Outcome::Uplink && layout.site.helpers.iter().any(followed) {
            self.because("a helper follows it, so each of its packets meets the rules");
            return;
        }
        self.answer.fast_path = true;
        let long = if self.question.protocol == 17 { " and lasts" } else { "" };
        self.because(format!("once it is established{long}, its packets take the fast path"));
    }
}

/// The name of a LAN or uplink by its device.
fn name_of(scene: Scene<'_>, device: &IfName) -> Option<String> {
    let site = &scene.layout.site;
    let lan = site.lans.iter().find(|lan| &lan.interface == device).map(|lan| &lan.name);
    let uplink = || site.uplinks.iter().find(|u| &u.interface == device).map(|u| &u.name);
    lan.or_else(uplink).map(ToString::to_string)
}

fn packet(scene: Scene<'_>, question: &Question, device: Option<&IfName>) -> Packet {
    Packet {
        from: question.source,
        to: question.destination,
        protocol: protocol_name(question.protocol),
        port: question.port,
        source_port: question.source_port,
        dscp: question.dscp.0,
        input: device.and_then(|device| name_of(scene, device)),
        interface: device.map(ToString::to_string),
    }
}

/// A protocol as users write it.
pub(super) fn protocol_name(number: u8) -> String {
    match number {
        1 | 58 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => other.to_string(),
    }
}
