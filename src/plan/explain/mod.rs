//! Why a new session goes where it goes: the packet's walk (`docs/architecture.md`), step by step,
//! over the kernel's state as it was seen, with a reason at each turn.
//!
//! Pure. What only the kernel knows is asked for and handed in: [`asks`] says which routes to look
//! up, [`binding_of`] which binding to read, and [`explain`] puts the answers together. It follows
//! `plan/nft` and `plan/routing.rs`; the scenario `explain_agrees_with_the_kernel` holds both to
//! each other.

mod answer;
mod case;
mod inside;
mod leaving;
mod matching;
mod members;
mod outside;
mod policy;
mod question;
mod service;

use super::{Layout, View};
use crate::kstate::Snapshot;

pub use answer::{
    Bound, DecidedBy, Explanation, MemberWhy, Outcome, Packet, PolicyTried, ServerWay, WayOut,
};
pub use policy::binding_of;
pub use question::{Ask, Found, Origin, Question, asks, origin, origin_query};

use case::Case;

/// Everything that is known when a question is answered.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The site in force.
    pub layout: &'a Layout,
    /// What can be used now.
    pub view: &'a View,
    /// The kernel's state.
    pub seen: &'a Snapshot,
}

/// Explains a new session's first packet.
pub fn explain(
    scene: Scene<'_>,
    question: &Question,
    origin: &Origin,
    found: &Found,
) -> Explanation {
    let mut case = Case::new(scene, question, origin, found);
    match origin {
        Origin::Router if service::served(&mut case) => {}
        Origin::Router => outside::own_traffic(&mut case),
        Origin::Device(device) => match case.uplink_of(device) {
            Some(uplink) => outside::from_uplink(&mut case, uplink),
            None if service::served(&mut case) => {}
            None => inside::from_inside(&mut case),
        },
    }
    case.finish()
}
