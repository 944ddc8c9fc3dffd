//! What the site looks like now: uplinks with their ways out, policies with their owners.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::identity::{Identities, Remembered, identify};
use super::inbound::{Places, Uses};
use super::nft::slot_map;
use super::path::{UplinkFacts, assess_uplinks};
use super::standing::{Admin, Standings};
use crate::health::Health;
use crate::kstate::{NftTable, Snapshot};
use crate::model::{
    Balance, Family, Mark, Match, Name, Persistence, Policy, PolicyId, Site, TableId, UplinkId,
    WhenAllDown,
};
use crate::steering::{Candidate, Selection, select};

/// The profile with its numbers: everything that does not depend on the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// The validated profile.
    pub site: Site,
    /// Numbers for names.
    pub ids: Identities,
    /// The policies as written, then the implied one, unless one that takes everything was written.
    pub policies: Vec<Policy>,
    /// Each uplink's weight in force.
    pub weights: BTreeMap<Name, u32>,
    /// Who uses what.
    pub uses: Uses,
}

impl Layout {
    /// Numbers the names of a site.
    pub fn new(site: Site, remembered: &Remembered) -> Layout {
        let policies = with_implied(&site);
        let names: Vec<Name> = policies.iter().map(|policy| policy.name.clone()).collect();
        let ids = identify(&site, &names, remembered);
        let weights = site.weights();
        let uses = Uses::new(&site);
        Layout { site, ids, policies, weights, uses }
    }

    /// An uplink's routing table.
    pub fn table(&self, id: UplinkId) -> TableId {
        TableId(self.site.routing.first_table + u32::from(id.0))
    }

    /// The table of the router's own traffic.
    pub fn default_table(&self) -> TableId {
        TableId(self.site.routing.first_table)
    }

    /// An uplink's mark.
    pub fn mark(&self, id: UplinkId) -> Mark {
        self.site.marks.uplink.place(u32::from(id.0))
    }

    /// A policy's mark.
    pub fn policy_mark(&self, id: PolicyId) -> Mark {
        self.site.marks.policy.place(u32::from(id.0))
    }

    /// Uplinks in the order of the profile, with their numbers.
    pub fn uplinks(&self) -> impl Iterator<Item = (&crate::model::Uplink, UplinkId)> + '_ {
        let with_id = |uplink| Some((uplink, *self.ids.uplinks.get(id_key(uplink))?));
        self.site.uplinks.iter().filter_map(with_id)
    }

    /// Policies in the order in which they match, with their numbers.
    pub fn policies(&self) -> impl Iterator<Item = (&Policy, PolicyId)> + '_ {
        let with_id = |policy: &'_ Policy| self.ids.policies.get(&policy.name).copied();
        self.policies.iter().filter_map(move |policy| Some((policy, with_id(policy)?)))
    }

    /// Every uplink's routing table.
    pub fn tables(&self) -> BTreeMap<Name, TableId> {
        self.ids.uplinks.iter().map(|(name, id)| (name.clone(), self.table(*id))).collect()
    }
}

fn id_key(uplink: &crate::model::Uplink) -> &Name {
    &uplink.name
}

/// The implied policy takes what no other does: all uplinks, weighted.
fn with_implied(site: &Site) -> Vec<Policy> {
    let mut policies = site.policies.clone();
    if policies.iter().any(|policy| policy.matches.is_any()) {
        return policies;
    }
    let taken: BTreeSet<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
    let free = ["default", "unmatched"].into_iter().find(|name| !taken.contains(name));
    let names = free.map(str::to_owned).into_iter().chain((2..).map(|n| format!("unmatched-{n}")));
    let name = names.filter(|name| !taken.contains(name.as_str())).find_map(|n| Name::new(&n).ok());
    policies.extend(name.map(|name| Policy {
        name,
        matches: Match::default(),
        tiers: vec![site.uplinks.iter().map(|uplink| uplink.name.clone()).collect()],
        balance: Balance::Weighted,
        persistence: Persistence::None,
        evacuate_after: None,
        when_all_down: WhenAllDown::Try,
        release_on_return: false,
    }));
    policies
}

/// What can be seen of the site now, and who takes new sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Uplinks.
    pub uplinks: BTreeMap<Name, UplinkFacts>,
    /// How they answer, and what people want of them.
    pub standings: Arc<Standings>,
    /// Policy → family → owners of its slots.
    pub selections: BTreeMap<Name, BTreeMap<Family, Selection>>,
}

impl View {
    /// How well an uplink does in a family: `Down` without carrier, an address or a gateway, else as
    /// it answers.
    pub fn health(&self, uplink: &Name, family: Family) -> Health {
        match self.passes(uplink, family) {
            true => self.standings.health(uplink, family),
            false => Health::Down,
        }
    }

    /// Whether an uplink may take new sessions of a family.
    pub fn usable(&self, uplink: &Name, family: Family) -> bool {
        self.eligible(uplink, family) > Health::Down
    }

    /// Whether clients that are bound to an uplink stay with it: also when none answers, so that they
    /// are not driven from one to the other.
    pub fn keeps(&self, uplink: &Name, family: Family) -> bool {
        let answers = |uplink: &Name| {
            self.standings.admin(uplink) != Admin::Disabled
                && self.health(uplink, family) > Health::Down
        };
        answers(uplink) || self.possible(uplink, family) && !self.uplinks.keys().any(answers)
    }

    /// Its health as far as new sessions are concerned: `Down` also when people want it so.
    fn eligible(&self, uplink: &Name, family: Family) -> Health {
        match self.standings.admin(uplink) {
            Admin::Enabled => self.health(uplink, family),
            Admin::Draining | Admin::Disabled => Health::Down,
        }
    }

    /// Whether packets can leave by it: new sessions may be tried when nobody is usable.
    fn possible(&self, uplink: &Name, family: Family) -> bool {
        self.standings.admin(uplink) == Admin::Enabled && self.passes(uplink, family)
    }

    /// Decides anew who takes new sessions.
    pub fn choose(&mut self, layout: &Layout) {
        for policy in &layout.policies {
            let choose = |family| (family, select_for(layout, self, policy, family));
            let chosen = Family::BOTH.map(choose).into();
            self.selections.insert(policy.name.clone(), chosen);
        }
    }

    fn passes(&self, uplink: &Name, family: Family) -> bool {
        self.uplinks.get(uplink).is_some_and(|facts| facts.passes(family))
    }

    /// Whether an uplink may take new sessions of some family.
    pub fn usable_at_all(&self, uplink: &Name) -> bool {
        Family::BOTH.into_iter().any(|family| self.usable(uplink, family))
    }
}

/// Looks at the kernel, and at how uplinks answer, and decides who takes new sessions.
pub fn assess(layout: &Layout, seen: &Snapshot, standings: &Arc<Standings>) -> View {
    assess_after(&former_places(layout, seen.ours.nft.as_deref()), layout, seen, standings)
}

/// What uplinks' addresses were.
pub type FormerPlaces = BTreeMap<(UplinkId, Family), Places>;

/// What uplinks' addresses were in the first of these tables that knows of them.
pub fn former_places<'a>(
    layout: &Layout,
    tables: impl IntoIterator<Item = &'a NftTable>,
) -> FormerPlaces {
    let mut former = FormerPlaces::new();
    for table in tables {
        for key in layout.uplinks().flat_map(|(_, id)| Family::BOTH.map(|family| (id, family))) {
            if !former.contains_key(&key) {
                former.extend(Places::read(table, key.0, key.1).map(|places| (key, places)));
            }
        }
    }
    former
}

/// The same where addresses were something before.
pub fn assess_after(
    former: &FormerPlaces,
    layout: &Layout,
    seen: &Snapshot,
    standings: &Arc<Standings>,
) -> View {
    let mut uplinks = assess_uplinks(&layout.site, &layout.tables(), seen);
    for (uplink, id) in layout.uplinks() {
        let Some(facts) = uplinks.get_mut(&uplink.name) else { continue };
        for family in Family::BOTH {
            let own = |a: &&IpAddr| Family::of(**a) == family && !layout.uses.names(**a);
            let here: Vec<IpAddr> = facts.addresses.iter().filter(own).copied().collect();
            let places = former.get(&(id, family)).cloned().unwrap_or_default();
            let places = places.follow(&here, |address| facts.lasting.contains(address));
            facts.places.insert(family, places);
        }
    }
    let mut view = View { uplinks, standings: standings.clone(), selections: BTreeMap::new() };
    view.choose(layout);
    view
}

/// Who takes new sessions of a policy.
pub(super) fn select_for(
    layout: &Layout,
    view: &View,
    policy: &Policy,
    family: Family,
) -> Selection {
    let candidates = candidates(layout, view, policy, family);
    let selection = select(&candidates, policy.when_all_down == WhenAllDown::Try);
    if !policy.balance.is_measured() || selection.tried {
        return selection;
    }
    let Some(dealt) = view.standings.dealt.get(&slot_map(layout, policy, family)) else {
        return selection;
    };
    // What was dealt before something changed may name some that may take nothing any more.
    let able = best(&candidates);
    let owners: BTreeMap<u8, u32> = dealt
        .counts
        .iter()
        .filter(|(id, _)| able.iter().any(|candidate| candidate.id == **id))
        .filter_map(|(id, count)| Some((*id, u32::try_from(*count).ok()?)))
        .collect();
    if owners.is_empty() { selection } else { Selection { owners, tried: false } }
}

/// The members of all tiers that may take new sessions: those in the best health. Nobody when they
/// would only be tried.
pub fn offered(layout: &Layout, view: &View, policy: &Policy, family: Family) -> Vec<Candidate> {
    let candidates = candidates(layout, view, policy, family);
    best(&candidates).into_iter().cloned().collect()
}

fn best(candidates: &[Candidate]) -> Vec<&Candidate> {
    let takers = || candidates.iter().filter(|candidate| candidate.weight > 0);
    let health = takers().map(|candidate| candidate.health).max().unwrap_or(Health::Down);
    let able = |candidate: &&Candidate| candidate.health == health && health > Health::Down;
    takers().filter(able).collect()
}

fn candidates(layout: &Layout, view: &View, policy: &Policy, family: Family) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for (tier, members) in policy.tiers.iter().enumerate() {
        for name in members {
            let Some(id) = layout.ids.uplinks.get(name) else {
                continue;
            };
            let weight = layout.weights.get(name).copied().unwrap_or(1);
            let equal = matches!(policy.balance, Balance::RoundRobin) && weight > 0;
            candidates.push(Candidate {
                id: id.0,
                tier,
                weight: if equal { 1 } else { weight },
                health: view.eligible(name, family),
                possible: view.possible(name, family),
            });
        }
    }
    candidates
}
