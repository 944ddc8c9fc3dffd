//! The short way: an uplink changed, and new sessions follow by elements alone, without looking at
//! the kernel first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::nft::{SteeringSet, names, rebuild_steering};
use super::view::{Layout, View, reselect};
use crate::kstate::{Elements, KernelState, NftOp, SetShape, Snapshot};

/// Who takes new sessions, as the kernel has it: what was put in force, and what was changed since.
#[derive(Debug, Clone)]
pub struct Steering {
    layout: Arc<Layout>,
    view: View,
    in_force: Arc<(KernelState, Snapshot)>,
    changed: BTreeMap<String, SteeringSet>,
}

impl Steering {
    /// What was put in force, for this view of the site.
    pub fn new(
        layout: Arc<Layout>,
        view: View,
        in_force: Arc<(KernelState, Snapshot)>,
    ) -> Steering {
        Steering { layout, view, in_force, changed: BTreeMap::new() }
    }

    /// A device came or went, or its carrier did: what to change so that new sessions follow.
    pub fn follow_link(&mut self, index: u32, carrier: bool) -> Vec<NftOp> {
        let links = &self.in_force.1.facts.links;
        let Some((device, _)) = links.iter().find(|(_, link)| link.index == index) else {
            return Vec::new();
        };
        let mut uplinks = self.layout.site.uplinks.iter();
        let uplink = uplinks.find(|uplink| uplink.interface == *device);
        let before = self.view.clone();
        match uplink.and_then(|uplink| self.view.uplinks.get_mut(&uplink.name)) {
            Some(facts) if facts.carrier != carrier => facts.carrier = carrier,
            _ => return Vec::new(),
        }
        self.follow(&before)
    }

    fn follow(&mut self, before: &View) -> Vec<NftOp> {
        reselect(&self.layout, &mut self.view);
        let rebuilt =
            rebuild_steering(&self.layout, before, &self.view, |name| self.elements(name));
        let nothing = Elements::new();
        let mut ops = Vec::new();
        for (name, set) in &rebuilt {
            let there = self.elements(name).unwrap_or(&nothing);
            ops.extend(swap_elements(name, &set.shape, there, &set.elements));
        }
        self.changed.extend(rebuilt);
        ops
    }

    /// A set's elements as they are.
    fn elements(&self, name: &str) -> Option<&Elements> {
        let put = || Some(&self.in_force.0.nft.as_ref()?.sets.get(name)?.elements);
        self.changed.get(name).map(|set| &set.elements).or_else(put)
    }
}

/// What a transaction that was refused as a whole still says of the sets that there are: who takes
/// new sessions, and with which addresses. Each part is a transaction of its own.
pub fn steering_alone(ops: &[NftOp]) -> Vec<Vec<NftOp>> {
    let made: BTreeSet<&String> = ops
        .iter()
        .filter_map(|op| match op {
            NftOp::AddSet { name, .. } | NftOp::DeleteSet(name) => Some(name),
            _ => None,
        })
        .collect();
    let mut parts: BTreeMap<&String, Vec<NftOp>> = BTreeMap::new();
    for op in ops {
        if let NftOp::AddElements { set, .. } | NftOp::DeleteElements { set, .. } = op
            && names::steers(set)
            && !made.contains(set)
        {
            parts.entry(set).or_default().push(op.clone());
        }
    }
    parts.into_values().collect()
}

/// What turns some elements into others.
pub(super) fn swap_elements(
    set: &str,
    shape: &SetShape,
    there: &Elements,
    wanted: &Elements,
) -> impl Iterator<Item = NftOp> + use<> {
    let only_in = |one: &Elements, other: &Elements| -> Elements {
        let differs = |(key, data): &(&Vec<u8>, &_)| other.get(*key) != Some(*data);
        one.iter().filter(differs).map(|(key, data)| (key.clone(), data.clone())).collect()
    };
    let (stale, missing) = (only_in(there, wanted), only_in(wanted, there));
    let (set, shape) = (set.to_owned(), shape.clone());
    let delete = NftOp::DeleteElements { set: set.clone(), shape: shape.clone(), elements: stale };
    let add = NftOp::AddElements { set, shape, elements: missing };
    [delete, add].into_iter().filter(|op| match op {
        NftOp::AddElements { elements, .. } | NftOp::DeleteElements { elements, .. } => {
            !elements.is_empty()
        }
        _ => true,
    })
}
