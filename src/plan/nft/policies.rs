//! Policies: the first that matches picks an uplink, by its binding or by a slot.
//!
//! While a policy chooses, the connection mark holds the candidate: at first the policy's place, where
//! there are many (`dispatch.rs`), then the uplink's bits alone, as they stand in bindings and slots,
//! then with the policy's, as the key of the map `take`. So
//! the packet mark keeps other owners' bits throughout; those of the connection mark, if another
//! owner set any on the very first packet before us, are carried past (`prerouting.rs`).

use super::bindings::{add_bindings, binding_key};
use super::build::{Builder, names};
use super::dispatch::add_dispatch;
use super::matching::conditions;
use super::slots::slot_map;
use crate::model::{Balance, Family, MarkMask, Persistence, Policy, PolicyId, WhenAllDown};
use crate::plan::view::Layout;

/// Fixed, so that the same client gets the same slot after a reboot.
pub(in crate::plan) const SOURCE_SEED: u32 = 0x686f_6d65;

pub(super) fn add_chains(table: &mut Builder, layout: &Layout) {
    for family in Family::BOTH {
        add_dispatch(table, layout, family);
        for (policy, id) in layout.policies() {
            if conditions(&policy.matches, &layout.site, family).is_empty() {
                continue;
            }
            add_bindings(table, policy, family);
            add_policy(table, layout, policy, id, family);
        }
    }
}

fn slot_index(balance: Balance, family: Family) -> String {
    match (balance, family) {
        (Balance::SourceHash, Family::V4) => {
            format!("jhash ip saddr mod 256 seed {SOURCE_SEED:#x}")
        }
        (Balance::SourceHash, Family::V6) => {
            format!("jhash ip6 saddr mod 256 seed {SOURCE_SEED:#x}")
        }
        _ => "numgen inc mod 256".to_owned(),
    }
}

fn add_policy(table: &mut Builder, layout: &Layout, policy: &Policy, id: PolicyId, family: Family) {
    let slots = slot_map(layout, policy, family);
    let uplink = layout.site.marks.uplink;
    let take = format!("ct mark set ct mark | {} ct mark vmap @take", layout.policy_mark(id));
    let pick = format!("ct mark set {} map @{slots}", slot_index(policy.balance, family));
    let keep = format!("ct mark @{}", names::keepable(family));
    let origin = format!("policies.{}", policy.name);
    let mut rules = table.chain(names::policy(family, id, &policy.name));
    if let Persistence::By { key, timeout } = policy.persistence {
        let key = binding_key(key, family);
        let map = names::bindings(family, &policy.name);
        let seconds = timeout.as_millis();
        let renew = format!("update @{map} {{ {key} timeout {seconds}ms : ct mark }}");
        let find = format!("ct mark set {key} map @{map}");
        let origin = format!("{origin}.persistence");
        rules
            .rule(format!("{find} {keep} {renew} {take}"), &origin)
            .rule(
                format!(
                    "ct mark & {uplink} != 0 delete @{map} {{ {key} : ct mark }} ct mark set 0"
                ),
                &origin,
            )
            .rule(format!("{pick} {keep} {renew} {find} {take}"), &origin);
    } else {
        rules.rule(pick, &origin);
    }
    rules.rule(format!("ct mark & {uplink} != 0 {take}"), &origin);
    for rule in when_nobody_takes(policy.when_all_down, layout.site.marks.policy) {
        rules.rule(rule, &format!("{origin}.when-all-down"));
    }
}

/// What happens to a session that found no uplink. What goes on without one bears no policy either.
fn when_nobody_takes(choice: WhenAllDown, policy: MarkMask) -> Vec<String> {
    let rules: &[&str] = match choice {
        WhenAllDown::Try | WhenAllDown::Unreachable => {
            &["meta l4proto tcp reject with tcp reset", "reject with icmpx no-route"]
        }
        WhenAllDown::Drop => &["drop"],
        WhenAllDown::Main => {
            return vec![format!("ct mark set ct mark & {:#x} accept", !policy.0)];
        }
    };
    rules.iter().map(|rule| (*rule).to_owned()).collect()
}
