//! Why each uplink may get the session, or may not.

use super::MemberWhy;
use super::case::Case;
use crate::model::{Family, Name, Policy, UplinkId};
use crate::plan::{Admin, View};
use crate::steering::SlotTable;

/// A metered uplink that is up is asked so many times as seldom (`health/rounds.rs`).
const METERED: u32 = 10;

/// Every uplink in the eyes of the policy: its members by tier, then the others.
pub(super) fn members(
    case: &Case<'_>,
    policy: &Policy,
    slots: &SlotTable,
    candidates: &[(UplinkId, f64)],
    bound: bool,
) -> Vec<MemberWhy> {
    let layout = case.scene.layout;
    let counts = slots.counts();
    let active = |id: UplinkId| counts.contains_key(&id.0);
    let active_tier = policy.tiers.iter().position(|tier| {
        tier.iter().filter_map(|name| layout.ids.uplinks.get(name)).any(|id| active(*id))
    });
    let mut all = Vec::new();
    for (uplink, id) in layout.uplinks() {
        let name = &uplink.name;
        let tier = policy.tiers.iter().position(|tier| tier.contains(name));
        let weight = layout.weights.get(name).copied().unwrap_or(1);
        let chosen = candidates.iter().find(|(candidate, _)| *candidate == id);
        let reason = match (chosen, tier) {
            (Some(_), _) if bound => "the client is bound to it".to_owned(),
            (Some(_), _) if case.answer.slot.is_some() => "the slot is its".to_owned(),
            (Some((_, share)), _) => format!("takes {:.1}% of new sessions", share * 100.0),
            (None, None) => format!("policy {} does not use it", policy.name),
            (None, Some(tier)) => outdone(case, policy, name).unwrap_or_else(|| {
                why_not(case, name, weight, tier, active_tier, active(id), bound)
            }),
        };
        let reason = match uplink.metered {
            true => {
                let seldom = layout.site.probe_of(uplink).pace.interval * METERED;
                let seconds = seldom.as_secs_f64();
                format!(
                    "{reason}; metered: asked only every {seconds} s, a silent break is seen as late"
                )
            }
            false => reason,
        };
        all.push(MemberWhy {
            uplink: name.to_string(),
            tier: tier.map(|tier| tier + 1),
            weight,
            usable: case.scene.view.usable(name, case.question.family()),
            takes: chosen.is_some(),
            share: chosen.map_or(0.0, |(_, share)| *share),
            reason,
        });
    }
    all.sort_by_key(|member| member.tier.unwrap_or(usize::MAX));
    all
}

fn why_not(
    case: &Case<'_>,
    name: &Name,
    weight: u32,
    tier: usize,
    active_tier: Option<usize>,
    active: bool,
    bound: bool,
) -> String {
    let family = case.question.family();
    if !case.scene.view.usable(name, family) {
        let uplink = case.scene.layout.site.uplink(name);
        let device = uplink.map_or("its device", |uplink| uplink.interface.as_str());
        let why = why_not_usable(case.scene.view, name, device, family);
        return format!("not usable: {why}");
    }
    if weight == 0 {
        return "its weight is 0: it takes no new sessions".to_owned();
    }
    match active_tier {
        Some(active) if tier > active => {
            format!("tier {}: only while nobody of tier {} is usable", tier + 1, active + 1)
        }
        _ if bound => "the client is bound elsewhere".to_owned(),
        _ if active => "the slot is another's".to_owned(),
        _ => "no slot is its yet".to_owned(),
    }
}

/// What to say of one that is usable while others of the policy do better.
fn outdone(case: &Case<'_>, policy: &Policy, name: &Name) -> Option<String> {
    let (view, family) = (case.scene.view, case.question.family());
    let health = view.health(name, family);
    let usable = policy.tiers.iter().flatten().filter(|name| view.usable(name, family));
    let best = usable.map(|name| view.health(name, family)).max()?;
    if !view.usable(name, family) || best <= health {
        return None;
    }
    let why = view.standings.of(name, family).map_or("", |standing| standing.reason.as_str());
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    Some(format!("it is {}{why}: only while no other is {}", health.as_str(), best.as_str()))
}

fn why_not_usable(view: &View, name: &Name, device: &str, family: Family) -> String {
    let Some(facts) = view.uplinks.get(name) else {
        return "not looked at yet".to_owned();
    };
    if !facts.passes(family) {
        return facts.why_not(family, device);
    }
    match (view.standings.admin(name), view.standings.of(name, family)) {
        (Admin::Draining, _) => "it is drained: nothing new goes there".to_owned(),
        (Admin::Disabled, _) => "it is disabled".to_owned(),
        (Admin::Enabled, Some(standing)) => {
            format!("it is {}: {}", standing.health.as_str(), standing.reason)
        }
        (Admin::Enabled, None) => "it is not".to_owned(),
    }
}
