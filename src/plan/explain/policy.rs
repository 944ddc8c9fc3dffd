//! Through the policies: the first that matches, its binding, its slots.

use super::case::Case;
use super::leaving::{Fate, conclude, pinned, routed, sentence};
use super::matching::failures;
use super::members::members;
use super::question::{Ask, Origin, Question};
use super::{Bound, DecidedBy, Outcome, PolicyTried, Scene};
use crate::kstate::jhash;
use crate::model::{
    Balance, IfName, Mark, Persistence, PersistenceKey, Policy, PolicyId, UplinkId, WhenAllDown,
};
use crate::plan::nft::{SOURCE_SEED, key_of, names, observed_slots, slot_map};
use crate::steering::SlotTable;

/// Protocols that `reject` answers. Of others it wants to see the internet checksum over the whole
/// packet right, which they do not have (`nf_reject_verify_csum` in the kernel's `nf_reject.h`).
const REFUSABLE: [u8; 11] = [1, 2, 6, 17, 33, 47, 50, 51, 58, 132, 136];

/// The policy that takes the session, and whatever those before it lacked.
fn first_match<'a>(
    scene: Scene<'a>,
    question: &Question,
    device: &IfName,
) -> (Vec<PolicyTried>, Option<(&'a Policy, PolicyId)>) {
    let mut tried = Vec::new();
    for (policy, id) in scene.layout.policies() {
        let failed = failures(&policy.matches, &scene.layout.site, question, device);
        let matches = failed.is_empty();
        tried.push(PolicyTried { policy: policy.name.to_string(), matches, failed });
        if matches {
            return (tried, Some((policy, id)));
        }
    }
    (tried, None)
}

/// The map and the key of the client's binding, if its policy binds.
pub fn binding_of(
    scene: Scene<'_>,
    question: &Question,
    origin: &Origin,
) -> Option<(String, Vec<u8>)> {
    if let Some(found) = super::service::binding_of(scene, question) {
        return Some(found);
    }
    let Origin::Device(device) = origin else { return None };
    let (policy, _) = first_match(scene, question, device).1?;
    let Persistence::By { key, .. } = policy.persistence else { return None };
    let bytes = key_of(key, question.source, question.destination)?;
    Some((names::bindings(question.family(), &policy.name), bytes.as_slice().to_vec()))
}

pub(super) fn through_policies(case: &mut Case<'_>) {
    let device = case.answer.packet.interface.as_deref().and_then(|name| IfName::new(name).ok());
    let Some(device) = device else { return };
    let (tried, matching) = first_match(case.scene, case.question, &device);
    case.answer.policies = tried;
    let Some((policy, id)) = matching else {
        // The last policy takes everything; without a number it has no chain.
        let fate = routed(case, case.lookup(Ask::Unmarked), 1.0, "no policy takes it");
        return conclude(case, fate, DecidedBy::Kernel);
    };
    case.answer.policy = Some(policy.name.to_string());
    case.because(match policy.matches.is_any() {
        true => format!("policy {} takes everything that reaches it", policy.name),
        false => format!("policy {} is the first that matches", policy.name),
    });
    choose(case, policy, id);
}

fn choose(case: &mut Case<'_>, policy: &Policy, id: PolicyId) {
    let slots = slot_table(case, policy);
    let bound = bound(case, policy, id);
    let mut candidates: Vec<(UplinkId, f64)> = match bound {
        Some(uplink) => vec![(uplink, 1.0)],
        None => by_slot(case, policy, &slots),
    };
    candidates.retain(|(uplink, _)| takes(case, id, *uplink));
    case.answer.members = members(case, policy, &slots, &candidates, bound.is_some());
    if candidates.is_empty() {
        return nobody(case, policy);
    }
    leave(case, policy, &candidates);
}

/// The policy's slots as the kernel has them.
fn slot_table(case: &Case<'_>, policy: &Policy) -> SlotTable {
    let Scene { layout, seen, .. } = case.scene;
    let map = slot_map(layout, policy, case.question.family());
    observed_slots(seen, &map, layout.site.marks.uplink)
}

/// The uplink that the client is bound to, if the binding holds.
fn bound(case: &mut Case<'_>, policy: &Policy, id: PolicyId) -> Option<UplinkId> {
    let Persistence::By { key, timeout } = policy.persistence else { return None };
    let who = match key {
        PersistenceKey::Source => case.question.source.to_string(),
        PersistenceKey::SourceDestination => {
            format!("{} to {}", case.question.source, case.question.destination)
        }
    };
    let Some((mark, left)) = case.found.binding else {
        let seconds = timeout.as_secs();
        case.because(format!(
            "{who} is not bound: this session's uplink will be its own, for {seconds} s after \
             its last packet"
        ));
        return None;
    };
    let (name, uplink) = uplink_with(case, mark);
    let holds = uplink.filter(|uplink| keeps(case, mark) && takes(case, id, *uplink));
    let left_s = left.as_secs();
    case.because(match holds {
        Some(_) => format!("{who} is bound to {name}, for {left_s} s more"),
        None => format!("{who} was bound to {name}, which takes no sessions: that is forgotten"),
    });
    case.answer.binding =
        Some(Bound { uplink: Some(name), server: None, left_s, holds: holds.is_some() });
    holds
}

fn uplink_with(case: &Case<'_>, mark: Mark) -> (String, Option<UplinkId>) {
    let found = case.scene.layout.uplinks().find(|(_, id)| case.scene.layout.mark(*id) == mark);
    match found {
        Some((uplink, id)) => (uplink.name.to_string(), Some(id)),
        None => (format!("an uplink that is gone ({mark})"), None),
    }
}

/// Whether the kernel keeps bindings to an uplink.
fn keeps(case: &Case<'_>, mark: Mark) -> bool {
    has_element(case, &names::keepable(case.question.family()), mark)
}

/// Whether the kernel lets a policy use an uplink.
fn takes(case: &Case<'_>, policy: PolicyId, uplink: UplinkId) -> bool {
    let layout = case.scene.layout;
    has_element(case, names::TAKE, Mark(layout.policy_mark(policy).0 | layout.mark(uplink).0))
}

fn has_element(case: &Case<'_>, set: &str, mark: Mark) -> bool {
    let table = case.scene.seen.ours.nft.as_ref();
    let set = table.and_then(|table| table.sets.get(set));
    set.is_some_and(|set| set.elements.contains_key(mark.0.to_ne_bytes().as_slice()))
}

/// Who may get it by slot, with shares.
fn by_slot(case: &mut Case<'_>, policy: &Policy, slots: &SlotTable) -> Vec<(UplinkId, f64)> {
    if policy.balance == Balance::SourceHash {
        let slot = hash_slot(case.question);
        case.answer.slot = Some(slot);
        let owner = slots.owners().find(|(number, _)| *number == slot);
        case.because(format!("the hash of {} gives slot {slot}", case.question.source));
        return owner.into_iter().map(|(_, owner)| (UplinkId(owner), 1.0)).collect();
    }
    let counts = slots.counts();
    let all: usize = counts.values().sum();
    let share = |count: usize| count as f64 / all as f64;
    counts.into_iter().map(|(owner, count)| (UplinkId(owner), share(count))).collect()
}

fn hash_slot(question: &Question) -> u8 {
    let bytes = match question.source {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    u8::try_from(jhash(&bytes, 256, SOURCE_SEED)).unwrap_or(u8::MAX)
}

fn nobody(case: &mut Case<'_>, policy: &Policy) {
    let name = &policy.name;
    let word = match policy.when_all_down {
        WhenAllDown::Try => "try: there is nothing to try",
        WhenAllDown::Unreachable => "unreachable",
        WhenAllDown::Drop => "drop",
        WhenAllDown::Main => "main",
    };
    case.because(format!("no uplink of {name} can take it; its when-all-down is {word}"));
    match policy.when_all_down {
        WhenAllDown::Try | WhenAllDown::Unreachable
            if !REFUSABLE.contains(&case.question.protocol) =>
        {
            case.because("the kernel refuses only what carries a checksum that it knows");
            let text = format!("dropped: no uplink of {name} can take it");
            case.ends(Outcome::Dropped, DecidedBy::Policy, text);
        }
        WhenAllDown::Try | WhenAllDown::Unreachable => {
            let how = if case.question.protocol == 6 { "TCP RST" } else { "ICMP unreachable" };
            let text = format!("refused at once ({how}): no uplink of {name} can take it");
            case.ends(Outcome::Refused, DecidedBy::Policy, text);
        }
        WhenAllDown::Drop => {
            let text = format!("dropped: no uplink of {name} can take it");
            case.ends(Outcome::Dropped, DecidedBy::Policy, text);
        }
        WhenAllDown::Main => {
            let fate = routed(case, case.lookup(Ask::Unmarked), 1.0, "as the router's own");
            conclude(case, fate, DecidedBy::Policy);
        }
    }
}

fn leave(case: &mut Case<'_>, policy: &Policy, candidates: &[(UplinkId, f64)]) {
    let mut other = None;
    for (id, share) in candidates {
        let uplink = case.scene.layout.uplinks().find(|(_, other)| other == id);
        let Some((uplink, id)) = uplink else { continue };
        match pinned(case, uplink, id, *share) {
            Fate::Leaves(way) => case.answer.ways.push(way),
            fate => other = Some(fate),
        }
    }
    let (name, ways) = (&policy.name, &case.answer.ways);
    let text = match (ways.as_slice(), other) {
        ([], Some(fate)) => return conclude(case, fate, DecidedBy::Policy),
        ([one], _) => format!("{}, by policy {name}", sentence(one)),
        (several, _) => {
            let shown = |way: &super::WayOut| format!("{} {:.1}%", way.uplink, way.share * 100.0);
            let shown: Vec<String> = several.iter().map(shown).collect();
            format!("leaves by one of {}, by policy {name}", shown.join(", "))
        }
    };
    let map = slot_map(case.scene.layout, policy, case.question.family());
    if let Some(dealt) = case.scene.view.standings.dealt.get(&map) {
        case.because(dealt.why.clone());
    }
    if case.answer.ways.len() > 1 {
        case.because("they take turns: which of them is next cannot be foretold");
    }
    if let Some(after) = policy.evacuate_after {
        let when = match after.is_zero() {
            true => "is down".to_owned(),
            false => format!("has been down for {}", humantime::format_duration(after)),
        };
        case.because(format!(
            "it leaves its uplink again when that {when} and another of {name} is usable \
             (evacuate-after)"
        ));
    }
    case.ends(Outcome::Uplink, DecidedBy::Policy, text);
}
