//! Policies that can never match, because an earlier one takes everything that they would.

use crate::model::Policy;

use super::finding::Findings;
use super::tree::Node;

/// Warns of each such policy.
pub(super) fn check(_policies: &[(Policy, Node<'_>)], _out: &mut Findings) {}
