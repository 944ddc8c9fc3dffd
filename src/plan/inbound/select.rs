//! Who of a group takes new sessions.

use std::collections::BTreeMap;

use super::Numbered;
use crate::health::Health;
use crate::model::{Family, GroupBalance, Server};
use crate::plan::standing::{Admin, ServerStanding, Standings};
use crate::steering::{Candidate, Selection, select};

/// How slots are dealt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dealt {
    /// By shares, moving as few as possible: for sessions that pick in turn.
    Turn,
    /// By names and weights alone: for sessions that pick by a hash.
    Hash,
}

/// Who of a group takes new sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerChoice {
    /// Server number → weight; nobody when it is empty.
    pub selection: Selection,
    /// Only backups serve.
    pub by_backup: bool,
}

/// The servers that are in the best health; backups while no other server is usable.
pub fn choose(
    group: &Numbered<'_>,
    standings: &Standings,
    family: Family,
    dealt: Dealt,
) -> ServerChoice {
    let all: Vec<_> = group
        .servers(family)
        .map(|(server, id)| (server, id.0, standings.server(&group.group.name, &server.name)))
        .collect();
    let candidates = |backup: bool| -> Vec<Candidate> {
        let tier = all.iter().filter(|(server, ..)| server.backup == backup);
        let candidate = |(server, id, standing): &(&Server, u8, ServerStanding)| Candidate {
            id: *id,
            tier: 0,
            weight: weight(group.group.balance, server),
            health: standing.eligible(),
            possible: false,
        };
        tier.map(candidate).collect()
    };
    let mut selection = select(&candidates(false), false);
    let by_backup = selection.owners.is_empty();
    if by_backup {
        selection = select(&candidates(true), false);
    }
    if dealt == Dealt::Turn {
        let standing = |id: u8| all.iter().find(|(_, other, _)| *other == id).map(|(.., s)| s);
        if !apply_measures(group.group.balance, &mut selection.owners, standing) {
            apply_ramps(&mut selection.owners, standing);
        }
    }
    ServerChoice { by_backup: by_backup && !selection.owners.is_empty(), selection }
}

fn weight(balance: GroupBalance, server: &Server) -> u32 {
    match balance {
        GroupBalance::RoundRobin | GroupBalance::Fastest => server.weight.min(1),
        GroupBalance::Weighted | GroupBalance::LeastConnections | GroupBalance::SourceHash => {
            server.weight
        }
    }
}

/// One that has recovered gets its share little by little, unless it is alone.
fn apply_ramps<'a>(
    owners: &mut BTreeMap<u8, u32>,
    standing: impl Fn(u8) -> Option<&'a ServerStanding>,
) {
    let ramp = |id: u8| standing(id).map_or(ServerStanding::WHOLE, |one| one.ramp);
    if owners.keys().all(|id| ramp(*id) == ServerStanding::WHOLE) {
        return;
    }
    for (id, weight) in owners.iter_mut() {
        *weight = weight.saturating_mul(u32::from(ramp(*id).max(1)));
    }
}

/// Slots that were dealt by what is measured, as far as they still fit. One that has recovered gets
/// no more than what its ramp leaves of an even share.
fn apply_measures<'a>(
    balance: GroupBalance,
    owners: &mut BTreeMap<u8, u32>,
    standing: impl Fn(u8) -> Option<&'a ServerStanding>,
) -> bool {
    if !balance.is_measured() {
        return false;
    }
    let slots = |id: &u8| standing(*id).and_then(|one| one.slots).map(u32::from);
    let mut measured: BTreeMap<u8, u32> =
        owners.keys().filter_map(|id| Some((*id, slots(id)?))).filter(|(_, n)| *n > 0).collect();
    if measured.is_empty() {
        return false;
    }
    let even = measured.values().sum::<u32>() / u32::try_from(measured.len()).unwrap_or(1);
    let whole = u32::from(ServerStanding::WHOLE);
    for (id, slots) in &mut measured {
        let ramp = standing(*id).map_or(whole, |one| u32::from(one.ramp));
        if ramp < whole {
            *slots = (*slots).min(even * ramp / whole).max(1);
        }
    }
    *owners = measured;
    true
}

/// Whether clients that are bound to a server stay with it.
pub fn keeps(standing: &ServerStanding) -> bool {
    standing.admin != Admin::Disabled && standing.health > Health::Down
}
