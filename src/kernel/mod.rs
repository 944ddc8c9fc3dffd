//! Effects on the kernel: look at it, change it, hear from it.
//!
//! [`Kernel`] is what the reconcile loop knows: [`Kernel::observe`] gives the whole state as a
//! value, [`Kernel::apply`] does one step. [`Linux`] is the real one, [`Fake`] one in memory.
//! Everything here blocks for a few milliseconds at most (except [`Conntrack`], which walks the
//! table of all sessions), and belongs on a thread of its own. [`Notices`] alone is asynchronous.
//!
//! A socket belongs to the network namespace of the thread that opens it; settings and `nft`
//! belong to that of the thread that calls. So open and use a [`Linux`] on one thread.
//!
//! What is ours: the nft table `inet homing`; single addresses of our protocol; routes of our protocol
//! in our range of tables; rules of our protocol in our range of priorities, and those that others add
//! to it while we run ([`Linux::claim_rules`]). All else goes to [`Facts`] and is never changed.

mod announce;
mod closings;
mod conntrack;
mod error;
mod fake;
mod features;
mod host;
#[doc(hidden)]
pub mod hostile;
mod hush;
mod knock;
mod nfnl;
mod nft_element;
mod nft_read;
mod nft_stages;
mod nft_write;
mod notices;
mod offload;
mod rtnl;
mod socket;
mod sysctl;
mod traffic;
mod wire;

#[cfg(test)]
pub(crate) mod stage;
#[cfg(test)]
mod tests_addresses;
#[cfg(test)]
mod tests_conntrack;
#[cfg(test)]
mod tests_nft;
#[cfg(test)]
mod tests_notices;
#[cfg(test)]
mod tests_routing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netlink_sys::protocols::NETLINK_NETFILTER;

pub use announce::{AnnounceError, Announcer};
pub use closings::Closings;
pub use conntrack::{Conntrack, Direction, Session, Timeouts, Tuple};
pub use error::KernelError;
pub use fake::Fake;
pub use features::probe as probe_features;
pub use host::read_host;
pub use hush::Hush;
pub use knock::Knocker;
pub use nft_element::DumpedElement;
pub use notices::{Neighbours, Notice, Notices, Unreachable};
pub use offload::release as release_flows;
pub use rtnl::{NoSuchDevice, RouteError};
pub use socket::NetlinkError;
pub use traffic::{read_device_bytes, read_fill};

use self::nft_write::Writer;
use self::rtnl::{Names, Rtnl};
use self::socket::Channel;
use crate::kstate::{
    Bytes, Facts, KernelState, Lookup, OUR_PROTOCOL, Offloading, Route, RouteQuery, Rule, Snapshot,
    Step, SysctlKey,
};
use crate::model::Family;

/// A kernel that can be looked at and changed.
pub trait Kernel {
    /// The state as it is now.
    ///
    /// # Errors
    /// When some part cannot be read; then nothing is known.
    fn observe(&mut self) -> Result<Snapshot, KernelError>;

    /// Does one step. "Exists already" and "gone already" are success.
    ///
    /// # Errors
    /// When the kernel refuses. A refused [`Step::Nft`] has changed nothing.
    fn apply(&mut self, step: &Step) -> Result<(), KernelError>;
}

/// Where our numbers lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    /// Our rules have this priority or one of the 399 above it.
    pub first_priority: u32,
    /// Our tables are this one and the 63 above it.
    pub first_table: u32,
}

impl Ranges {
    /// How many rule priorities are ours.
    pub const PRIORITIES: u32 = 400;
    /// How many routing tables are ours.
    pub const TABLES: u32 = 64;

    /// Whether a route is ours: by its table *and* its protocol.
    pub fn owns_route(&self, route: &Route) -> bool {
        let offset = route.table.0.checked_sub(self.first_table);
        route.protocol == OUR_PROTOCOL && offset.is_some_and(|o| o < Self::TABLES)
    }

    /// Whether a rule is ours: by its priority *and* its protocol.
    pub fn owns_rule(&self, rule: &Rule) -> bool {
        rule.protocol == OUR_PROTOCOL && self.holds_rule(rule)
    }

    /// Whether a rule stands among ours, whoever made it.
    pub fn holds_rule(&self, rule: &Rule) -> bool {
        let offset = rule.priority.0.checked_sub(self.first_priority);
        offset.is_some_and(|o| o < Self::PRIORITIES)
    }
}

/// The kernel of this host, in one network namespace.
#[derive(Debug)]
pub struct Linux {
    ranges: Ranges,
    sysctl_interest: Vec<SysctlKey>,
    rtnl: Rtnl,
    netfilter: Writer,
    generation: u32,
    tolerated: Option<BTreeSet<Rule>>,
    offload: offload::Trial,
}

impl Linux {
    /// Opens the sockets in the network namespace of this thread.
    ///
    /// # Errors
    /// When a socket cannot be opened.
    pub fn open(ranges: Ranges) -> Result<Linux, KernelError> {
        let open = |protocol| move |source| KernelError::Open { protocol, source };
        Ok(Linux {
            ranges,
            sysctl_interest: Vec::new(),
            rtnl: Rtnl::open().map_err(open("rtnetlink"))?,
            netfilter: Writer {
                channel: Channel::open(NETLINK_NETFILTER).map_err(open("nfnetlink"))?,
                hush: None,
            },
            generation: 0,
            tolerated: None,
            offload: offload::Trial::default(),
        })
    }

    /// Changes nftables unheard by our own [`Notices`].
    #[must_use]
    pub fn hushed(mut self, hush: &Hush) -> Linux {
        self.netfilter.hush = Some(hush.clone());
        self
    }

    /// Where our numbers lie.
    pub fn ranges(&self) -> Ranges {
        self.ranges
    }

    /// From now on every rule among ours is taken for ours, and so for one to remove, but for these,
    /// which were there before us.
    pub fn claim_rules(&mut self, tolerated: BTreeSet<Rule>) {
        self.tolerated = Some(tolerated);
    }

    fn owns_rule(&self, rule: &Rule) -> bool {
        let claimed = |before: &BTreeSet<Rule>| !before.contains(rule);
        self.ranges.owns_rule(rule)
            || (self.ranges.holds_rule(rule) && self.tolerated.as_ref().is_some_and(claimed))
    }

    /// Which settings [`Kernel::observe`] reads; true when others than before.
    pub fn set_sysctl_interest(&mut self, keys: Vec<SysctlKey>) -> bool {
        let others = self.sysctl_interest != keys;
        self.sysctl_interest = keys;
        others
    }

    /// Which devices [`Kernel::observe`] tries in a flowtable; true when others than before.
    pub fn set_offload_interest(&mut self, wanted: Option<Offloading>) -> bool {
        self.offload.want(wanted)
    }

    /// The settings of interest as they are now; those that do not exist are left out.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read_settings(&self) -> Result<BTreeMap<SysctlKey, String>, KernelError> {
        sysctl::read_all(&self.sysctl_interest)
    }

    /// The generation of the nft rule set that the last [`Kernel::observe`] saw. A notice of this
    /// one or an earlier one tells nothing new.
    pub fn nft_generation(&self) -> u32 {
        self.generation
    }

    /// The ports by which notices name changes of ours (see [`Notice::port`]).
    pub fn ports(&self) -> [u32; 2] {
        [self.rtnl.port(), self.netfilter.channel.port()]
    }

    /// The elements of one set of ours, with what is left of their time and their counters.
    ///
    /// # Errors
    /// When there is no such set.
    pub fn dump_elements(&mut self, set: &str) -> Result<Vec<DumpedElement>, KernelError> {
        nft_read::dump_elements(&mut self.netfilter.channel, set)
    }

    /// One element of a set of ours, if it is there.
    ///
    /// # Errors
    /// When there is no such set.
    pub fn get_element(
        &mut self,
        set: &str,
        key: &[u8],
    ) -> Result<Option<DumpedElement>, KernelError> {
        nft_read::get_element(&mut self.netfilter.channel, set, key)
    }

    /// Where a packet would go.
    ///
    /// # Errors
    /// When the kernel does not answer, or a device is not there.
    pub fn lookup(&mut self, query: &RouteQuery) -> Result<Lookup, KernelError> {
        self.rtnl.lookup(query)
    }

    /// Puts an element of one set of ours in the place of another, so that nobody else gets that
    /// place. If the old one is gone already, there may be no room for the new one.
    ///
    /// # Errors
    /// When there is no such set, or no room.
    pub fn replace_element(
        &mut self,
        set: &str,
        old: &Bytes,
        new: &Bytes,
    ) -> Result<(), KernelError> {
        nft_write::replace_element(&mut self.netfilter, set, old, new)
    }

    /// Deletes elements of one set of ours, in one transaction; missing ones are fine.
    ///
    /// # Errors
    /// When there is no such set.
    pub fn delete_elements(&mut self, set: &str, keys: &[Bytes]) -> Result<(), KernelError> {
        nft_write::delete_elements(&mut self.netfilter, set, keys)
    }

    /// Gives elements of one set of ours new times; those that are gone meanwhile stay gone.
    ///
    /// # Errors
    /// When there is no such set.
    pub fn renew_elements(
        &mut self,
        set: &str,
        elements: &[DumpedElement],
    ) -> Result<(), KernelError> {
        nft_write::renew_elements(&mut self.netfilter, set, elements)
    }

    /// Adds elements of one set of ours with their times; those that are there stay as they are.
    ///
    /// # Errors
    /// When there is no such set, or no room in it.
    pub fn learn_elements(
        &mut self,
        set: &str,
        elements: &[DumpedElement],
    ) -> Result<(), KernelError> {
        nft_write::learn_elements(&mut self.netfilter, set, elements)
    }

    fn observe_routing(&mut self, seen: &mut Snapshot) -> Result<(), KernelError> {
        seen.facts.links = self.rtnl.links()?;
        let links = seen.facts.links.iter();
        let names: Names = links.map(|(name, l)| (l.index, name.clone())).collect();
        (seen.ours.addresses, seen.facts.addresses) = self.rtnl.addresses(&names)?;
        for family in Family::BOTH {
            let routes = self.rtnl.routes(family, &names)?.into_iter();
            let (ours, foreign): (Vec<_>, Vec<_>) = routes.partition(|r| self.ranges.owns_route(r));
            seen.ours.routes.extend(ours);
            seen.facts.routes.extend(foreign);
            let rules = self.rtnl.rules(family)?.into_iter();
            let (ours, foreign): (Vec<_>, Vec<_>) = rules.partition(|r| self.owns_rule(r));
            seen.ours.rules.extend(ours);
            seen.facts.rules.extend(foreign);
        }
        Ok(())
    }
}

impl Kernel for Linux {
    fn observe(&mut self) -> Result<Snapshot, KernelError> {
        let view = nft_read::read(&mut self.netfilter.channel)?;
        let mut seen = Snapshot {
            ours: KernelState {
                sysctls: sysctl::read_all(&self.sysctl_interest)?,
                nft: view.ours.map(Arc::new),
                ..KernelState::default()
            },
            facts: Facts { foreign_tables: view.foreign_tables, ..Facts::default() },
        };
        self.observe_routing(&mut seen)?;
        // On newer kernels (seen on 7.3) a flowtable remembers devices that are gone.
        let table = seen.ours.nft.as_mut().map(Arc::make_mut);
        for flowtable in table.into_iter().flat_map(|table| table.flowtables.values_mut()) {
            flowtable.devices.retain(|device| seen.facts.links.contains_key(device));
        }
        seen.facts.offload = self.offload.look(&seen.facts.links);
        self.generation = view.generation;
        Ok(seen)
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::SetSysctl(key, value) => sysctl::write(key, value),
            Step::AddAddress(address) => self.rtnl.add_address(address),
            Step::DeleteAddress(address) => self.rtnl.delete_address(address),
            Step::AddRoute(route) => self.rtnl.add_route(route),
            Step::DeleteRoute(route) => self.rtnl.delete_route(route),
            Step::AddRule(rule) => self.rtnl.add_rule(rule),
            Step::DeleteRule(rule) => self.rtnl.delete_rule(rule),
            Step::Nft(ops) => nft_write::apply(&mut self.netfilter, ops),
        }
    }
}
