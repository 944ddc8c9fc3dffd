//! What only the whole site shows: things used twice, overlaps, numbers that do not fit.

use crate::model::{Lan, MarkLayout, Policy, Service};

use super::fields::Fields;
use super::finding::Findings;
use super::groups::Groups;
use super::tree::Node;
use super::uplinks::Uplinks;

/// Every section that another one is compared with.
pub(super) struct Sections<'t> {
    pub(super) top: Node<'t>,
    /// `uplinks`, where it is written.
    pub(super) section: Option<Node<'t>>,
    pub(super) uplinks: Uplinks<'t>,
    pub(super) lans: Vec<(Lan, Fields<'t>)>,
    pub(super) policies: Vec<(Policy, Node<'t>)>,
    pub(super) groups: Groups<'t>,
    pub(super) services: Vec<(Service, Fields<'t>)>,
    pub(super) marks: Option<(MarkLayout, Fields<'t>)>,
}

/// Looks at everything.
pub(super) fn check(_all: &Sections<'_>, _out: &mut Findings) {}
