//! One round: look, decide, change, look again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::mending::{Extent, Mended, mend};
use super::report::{Failure, Report};
use super::state::StateDir;
use crate::clock;
use crate::kernel::{Kernel, KernelError, Linux};
use crate::kstate::{KernelState, NftOp, NftTable, Snapshot, Step};
use crate::plan::{
    self, ChangeSet, FormerPlaces, Layout, Mender, Scope, Standings, View, former_places,
};

/// How often a round looks and changes before it gives up: somebody else may be working too.
const PASSES: usize = 3;

/// How often it does so while the host itself goes on changing.
const LIMIT: usize = 12;

/// What a round needs to know.
#[derive(Debug, Clone)]
pub struct Round {
    /// The site.
    pub layout: Arc<Layout>,
    /// Which one.
    pub generation: u64,
    /// What the last round put in force, to tell drift from a new wish; `None` at the start.
    pub in_force: Option<Arc<(KernelState, Snapshot)>>,
    /// How uplinks answer, which may change while it runs.
    pub standings: Live,
}

/// How uplinks answer, as it is known at the moment.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Mutex<(u64, Arc<Standings>)>>);

impl Live {
    /// They answer like this from now on.
    pub fn set(&self, standings: &Arc<Standings>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let steers = !known.1.steers_like(standings) || !known.1.deals_like(standings);
        *known = (known.0 + u64::from(steers), standings.clone());
    }

    fn get(&self) -> Arc<Standings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Another each time that new sessions go other ways.
    fn version(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl From<Arc<Standings>> for Live {
    fn from(standings: Arc<Standings>) -> Live {
        Live(Arc::new(Mutex::new((0, standings))))
    }
}

/// Looks at the kernel with the settings of this site's devices.
///
/// # Errors
/// When the kernel cannot be read.
pub fn observe_for(kernel: &mut Linux, layout: &Layout) -> Result<Snapshot, KernelError> {
    let seen = kernel.observe()?;
    let uplinks = layout.site.uplinks.iter().map(|uplink| &uplink.interface);
    let interest = plan::interesting_sysctls(uplinks, seen.facts.links.keys());
    let settings = kernel.set_sysctl_interest(interest);
    let devices = kernel.set_offload_interest(plan::offload::offloading(&layout.site, &seen.facts));
    if settings || devices {
        return kernel.observe();
    }
    Ok(seen)
}

impl Round {
    /// Does the round. The kernel state put in force comes back with the report.
    pub fn run(
        self,
        kernel: &mut Linux,
        state: &mut StateDir,
    ) -> (Report, Option<(KernelState, Snapshot)>) {
        let started = clock::now();
        let mut report = Report {
            generation: self.generation,
            layout: self.layout.clone(),
            seen: None,
            view: None,
            steps: 0,
            drift: Vec::new(),
            mended: Mended::default(),
            failure: None,
            state_dir: None,
            took: std::time::Duration::ZERO,
        };
        let in_force = self.passes(kernel, state, &mut report);
        state.save();
        report.state_dir = state.trouble().map(str::to_owned);
        report.took = started.elapsed();
        (report, in_force)
    }

    /// What addresses were: as the kernel's table has it, which may be further than what is in force
    /// when something was refused; where that is gone, as ours has it.
    fn former_places(&self, seen: &Snapshot) -> FormerPlaces {
        let in_force = self.in_force.as_ref().and_then(|in_force| in_force.0.nft.as_deref());
        former_places(&self.layout, seen.ours.nft.as_deref().into_iter().chain(in_force))
    }

    fn passes(
        &self,
        kernel: &mut Linux,
        state: &mut StateDir,
        report: &mut Report,
    ) -> Option<(KernelState, Snapshot)> {
        let mut refused = None;
        let mut passes = 0;
        let mut answered = None;
        let mut wished: Option<KernelState> = None;
        // What addresses are is as it was before, also when they change between two passes.
        let mut former = None;
        // Links, addresses and answers may go on changing meanwhile: a pass that met another world
        // than the one before is not counted.
        for pass in 0..=LIMIT {
            let looked = self.standings.version();
            let mut seen = match observe_for(kernel, &self.layout) {
                Ok(seen) => seen,
                Err(error) => {
                    report.failure = Some(failure(describe(&error), &ChangeSet::default()));
                    return None;
                }
            };
            if let Some(in_force) = &self.in_force {
                share(&mut seen.ours.nft, &in_force.0.nft);
            }
            let former = former.get_or_insert_with(|| self.former_places(&seen));
            if pass == 0 {
                report.drift = self.drift(&seen);
            }
            let same_host = |before: &Arc<Snapshot>| {
                // What we did may have brought settings into being.
                let [were, are] = [&**before, &seen].map(|one| one.ours.sysctls.keys());
                before.facts == seen.facts && were.eq(are)
            };
            let unchanged = answered == Some(looked) && report.seen.as_ref().is_some_and(same_host);
            // Then it is as wished if it is as was wished.
            let reached = wished.take().filter(|wished| {
                unchanged && plan::diff(wished, &seen.ours, Scope::All).is_empty()
            });
            let (desired, changes) = match reached {
                Some(desired) => (desired, ChangeSet::default()),
                None => {
                    let (view, mut desired) =
                        decide(&self.layout, &seen, former, &self.standings.get());
                    share(&mut desired.nft, &seen.ours.nft);
                    let changes = plan::diff(&desired, &seen.ours, Scope::All);
                    report.view = Some(view);
                    (desired, changes)
                }
            };
            if changes.is_empty() {
                // The same, and it may be large.
                seen.ours.nft.clone_from(&desired.nft);
            }
            let before = report.seen.replace(Arc::new(seen.clone()));
            if changes.is_empty() {
                return Some((desired, seen));
            }
            // Steering may have changed elements between the last look and the last change.
            let same_answers = answered.replace(looked).is_none_or(|before| before == looked);
            let same = same_answers && before.is_none_or(|before| before.facts == seen.facts);
            if let Some(reason) = refused.filter(|_| same) {
                report.failure = Some(failure(reason, &changes));
                return None;
            }
            passes += usize::from(same);
            if pass == 0 && self.in_force.is_none() {
                report.mended = self.adopt(&report.view, &seen);
            }
            report.steps += changes.steps.len();
            refused = apply(kernel, state, &seen, &changes).err();
            wished = Some(desired);
            if passes > PASSES || pass == LIMIT {
                let changed = || "the kernel's state does not stay as it was set".to_owned();
                report.failure = Some(failure(refused.unwrap_or_else(changed), &changes));
                return None;
            }
        }
        None
    }

    /// Before the first rule stands, sessions that began without us get their uplink, or their next
    /// packet would go by another one.
    fn adopt(&self, view: &Option<View>, seen: &Snapshot) -> Mended {
        let Some(view) = view else { return Mended::default() };
        let mender = Mender::new(&self.layout, view, &seen.facts, &BTreeMap::new());
        let outcome = mend(&mender, Extent::Adopt, self.layout.site.marks);
        outcome.unwrap_or_else(|error| {
            tracing::warn!("older sessions are not adopted: {error}");
            Mended::default()
        })
    }

    /// What differs from what the last round left, apart from what the kernel itself takes away
    /// when a link or an address goes.
    fn drift(&self, seen: &Snapshot) -> Vec<String> {
        let Some(in_force) = &self.in_force else {
            return Vec::new();
        };
        let (desired, then) = &**in_force;
        let mut observed = seen.ours.clone();
        let moved = then.facts.links != seen.facts.links
            || then.facts.addresses != seen.facts.addresses
            || then.facts.routes != seen.facts.routes;
        if moved {
            // IPv6 addresses go when their device goes down.
            observed.addresses.clone_from(&desired.addresses);
            observed.routes.clone_from(&desired.routes);
            observed.sysctls.clone_from(&desired.sysctls);
        }
        if then.facts.links != seen.facts.links
            && let (Some(observed), Some(desired)) = (&mut observed.nft, &desired.nft)
        {
            // A device takes its place in a flowtable with it.
            Arc::make_mut(observed).flowtables.clone_from(&desired.flowtables);
        }
        plan::diff(desired, &observed, Scope::Structure).commands()
    }
}

/// Elements that are the same in both are kept once.
fn share(table: &mut Option<Arc<NftTable>>, other: &Option<Arc<NftTable>>) {
    let (Some(table), Some(other)) = (table, other) else { return };
    for (name, set) in &mut Arc::make_mut(table).sets {
        if let Some(other) = other.sets.get(name) {
            set.elements.share(&other.elements);
        }
    }
}

/// What is there to be used, and what must be in the kernel for it.
pub(super) fn decide(
    layout: &Layout,
    seen: &Snapshot,
    former: &FormerPlaces,
    standings: &Arc<Standings>,
) -> (View, KernelState) {
    let view = plan::assess_after(former, layout, seen, standings);
    let desired = plan::build(layout, &view, seen);
    (view, desired)
}

/// Does the steps. One that is refused does not keep the others from being tried, but the first
/// reason is what is told.
fn apply(
    kernel: &mut Linux,
    state: &mut StateDir,
    seen: &Snapshot,
    changes: &ChangeSet,
) -> Result<(), String> {
    let mut first = Ok(());
    if changes.steps.iter().any(|step| matches!(step, Step::SetSysctl(..))) {
        // Without a record `down` could not restore, but that must not leave the site without routing.
        let restored = seen.ours.sysctls.iter().filter(|(key, _)| plan::is_restored(key));
        let restored = restored.map(|(key, value)| (key.clone(), value.clone())).collect();
        state.record_settings(&restored);
    }
    for step in &changes.steps {
        if let Err(error) = kernel.apply(step) {
            tracing::debug!(?step, "refused: {}", describe(&error));
            first = first.and(Err(describe(&error)));
            if let Step::Nft(ops) = step {
                steer_alone(kernel, ops);
            }
        }
    }
    first
}

/// The transaction was refused, so what it makes anew is missing; new sessions still follow what
/// happened, by the sets that there are.
fn steer_alone(kernel: &mut Linux, ops: &[NftOp]) {
    for part in plan::steering_alone(ops) {
        if let Err(error) = kernel.apply(&Step::Nft(part)) {
            tracing::debug!("not steered: {error}");
        }
    }
}

/// How many commands a failure names.
const MOST_MISSING: usize = 20;

fn failure(reason: String, changes: &ChangeSet) -> Failure {
    let mut missing = changes.commands();
    let more = missing.len().saturating_sub(MOST_MISSING);
    missing.truncate(MOST_MISSING);
    if more > 0 {
        missing.push(format!("# and {more} more: `homing plan` shows all"));
    }
    Failure { reason, missing }
}

/// An error with its causes, in one line.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test says what it expects

    use std::sync::Arc;

    use super::{Live, Round, decide};
    use crate::kstate::{Address, Link, OwnAddress, Snapshot};
    use crate::model::{Family, IfName};
    use crate::plan::{FormerPlaces, Layout, Remembered, Standings, View};
    use crate::profile;

    const SERVED: &str = "
version: 1
site: served
uplinks: { fiber: { interface: wan0 } }
groups: { web: { servers: { a: { address: 10.0.0.2 } } } }
services:
  four: { virtual: [{ address: 203.0.113.10, on: fiber }], protocol: tcp, ports: [80], group: web }
  six: { virtual: [{ address: \"2001:db8:a::10\", on: fiber }], protocol: tcp, ports: [80], group: web }
";

    fn wan0() -> IfName {
        IfName::new("wan0").unwrap()
    }

    fn link(up: bool) -> Link {
        Link { index: 2, up, carrier: up, mtu: 1500, loopback: false, point_to_point: false }
    }

    fn address(net: &str) -> Address {
        Address {
            device: wan0(),
            net: net.parse().unwrap(),
            peer: None,
            global: true,
            tentative: false,
            deprecated: false,
            temporary: false,
        }
    }

    /// A round after one that left everything as wished, and what it left.
    fn after_a_good_one() -> (Round, Snapshot) {
        let site = profile::load(SERVED).site.unwrap();
        let layout = Arc::new(Layout::new(site, &Remembered::default()));
        let mut seen = Snapshot::default();
        seen.facts.links.insert(wan0(), link(true));
        let nets = ["192.0.2.2/24", "2001:db8::2/64"].map(address);
        seen.facts.addresses.extend(nets);
        let (_, desired) =
            decide(&layout, &seen, &FormerPlaces::new(), &Arc::<Standings>::default());
        seen.ours = desired.clone();
        let in_force = Some(Arc::new((desired, seen.clone())));
        let standings = Live::default();
        (Round { layout, generation: 1, in_force, standings }, seen)
    }

    #[test]
    fn an_address_that_somebody_deletes_is_drift() {
        let (round, mut seen) = after_a_good_one();
        assert_eq!(round.drift(&seen), Vec::<String>::new());
        let address = "203.0.113.10".parse().unwrap();
        assert!(seen.ours.addresses.remove(&OwnAddress { device: wan0(), address }));
        assert_eq!(round.drift(&seen), ["ip addr add 203.0.113.10/32 dev wan0 proto 201"]);
    }

    #[test]
    fn addresses_that_go_with_their_link_are_no_drift() {
        let (round, mut seen) = after_a_good_one();
        seen.facts.links.insert(wan0(), link(false));
        seen.facts.addresses.retain(|address| address.net.addr().is_ipv4());
        seen.ours.addresses.retain(|own| own.address.is_ipv4());
        assert_eq!(round.drift(&seen), Vec::<String>::new());
        // And back again, before anybody has looked.
        seen.facts.links.insert(wan0(), link(true));
        assert_eq!(round.drift(&seen), Vec::<String>::new());
    }

    /// Else bindings would be put back among those of another address.
    #[test]
    fn addresses_stay_what_they_are_when_the_table_is_gone() {
        let (round, mut seen) = after_a_good_one();
        seen.facts.addresses.insert(address("192.0.2.1/24"));
        let own = |round: &Round, seen: &Snapshot| {
            let former = round.former_places(seen);
            let (view, _) = decide(&round.layout, seen, &former, &Arc::default());
            view.uplinks.values().next().unwrap().places[&Family::V4].own
        };
        let new = Round { in_force: None, ..round.clone() };
        let first = "192.0.2.2".parse().ok();
        assert_eq!(own(&new, &seen), first, "as the table that is there has it");
        seen.ours.nft = None;
        assert_eq!(own(&round, &seen), first);
        assert_ne!(own(&new, &seen), first, "who does not know takes the lowest");
    }

    #[test]
    fn the_kernel_s_table_knows_better_than_what_was_in_force_before_a_refusal() {
        let (round, mut seen) = after_a_good_one();
        let other = address("192.0.2.8/24");
        seen.facts.addresses.retain(|address| address.net.addr().is_ipv6());
        seen.facts.addresses.insert(other);
        let own = |seen: &Snapshot| {
            let former = round.former_places(seen);
            decide(&round.layout, seen, &former, &Arc::default())
        };
        let (view, desired) = own(&seen);
        let place = |view: &View| view.uplinks.values().next().unwrap().places[&Family::V4].own;
        assert_eq!(place(&view), "192.0.2.8".parse().ok(), "replaced");
        // It was put in force, but something else was refused.
        seen.ours.nft = desired.nft;
        seen.facts.addresses.insert(address("192.0.2.3/24"));
        assert_eq!(place(&own(&seen).0), "192.0.2.8".parse().ok());
    }
}
