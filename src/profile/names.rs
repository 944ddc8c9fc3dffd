//! Names that one part of a profile gives and another refers to.

use std::collections::BTreeSet;

use crate::model::Name;

use super::fields::did_you_mean;
use super::finding::Findings;
use super::text::all_of;
use super::tree::Node;

/// Every name that may be referred to.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) uplinks: BTreeSet<Name>,
    pub(super) lans: BTreeSet<Name>,
    pub(super) probes: BTreeSet<Name>,
    pub(super) groups: BTreeSet<Name>,
}

/// The keys of a section, without findings: its own reader makes those.
pub(super) fn keys(section: Option<Node<'_>>) -> BTreeSet<Name> {
    let pairs = section.into_iter().flat_map(Node::pairs);
    pairs.filter_map(|(key, _)| Name::new(key.text()?).ok()).collect()
}

/// A name that must exist.
pub(super) fn reference(
    node: Node<'_>,
    what: &str,
    names: &BTreeSet<Name>,
    out: &mut Findings,
) -> Option<Name> {
    let text = node.text().unwrap_or_default();
    if let Some(name) = names.get(text) {
        return Some(name.clone());
    }
    let known = || names.iter().map(Name::as_str);
    let hint = did_you_mean(text, known(), out).unwrap_or_else(|| match names.len() {
        0 => format!("the profile names no {what}s"),
        1 => format!("the only {what} is {}", all_of(known())),
        _ => format!("the {what}s are {}", all_of(known().take(21))),
    });
    out.error_with(node, format!("unknown {what} {}", node.describe()), hint);
    None
}
