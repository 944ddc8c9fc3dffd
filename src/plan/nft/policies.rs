//! Policies: the first that matches picks an uplink, by its binding or by a slot.
//!
//! While a policy chooses, the connection mark holds the candidate: first the uplink's bits alone,
//! as they stand in bindings and slots, then with the policy's, as the key of the map `take`. So
//! the packet mark keeps other owners' bits throughout; those of the connection mark, if another
//! owner set any on the very first packet before us, are carried past (`prerouting.rs`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use super::build::{Builder, map_of, names};
use super::elements::address_type;
use super::matching::{conditions, join};
use super::slots::{Shared, add_slots, shared_slots};
use crate::kstate::{Elements, FieldType, Role, SetShape, Snapshot, jhash};
use crate::model::{
    Balance, Family, Name, Persistence, PersistenceKey, Policy, PolicyId, WhenAllDown,
};
use crate::plan::view::{Layout, View};

/// How many bindings a policy can learn in one family.
pub(super) const MOST_BINDINGS: u32 = 65_536;

/// Seeds are fixed, so that the same client gets the same slot after a reboot.
const SOURCE_SEED: u32 = 0x686f_6d65;
const ADDRESS_SEED: u32 = 0x686f_6d66;

pub(super) fn add_chains(table: &mut Builder, layout: &Layout, view: &View, seen: &Snapshot) {
    for family in Family::BOTH {
        let shared = shared_slots(layout, view, family);
        add_slots(table, layout, &shared, family, seen);
        let dispatch = format!("policies{}", family.digit());
        table.chain(dispatch.clone());
        for (policy, id) in layout.policies() {
            let conditions = conditions(&policy.matches, &layout.site, family);
            if conditions.is_empty() {
                continue;
            }
            let chain = names::policy(family, id, &policy.name);
            let origin = format!("policies.{}", policy.name);
            for condition in conditions {
                let rule = join([condition, format!("goto {chain}")]);
                table.chain(dispatch.clone()).rule(rule, &origin);
            }
            add_bindings(table, policy, family);
            add_policy(table, layout, policy, id, family, &shared);
        }
    }
}

fn add_bindings(table: &mut Builder, policy: &Policy, family: Family) {
    if policy.persistence == Persistence::None {
        return;
    }
    // The timeout stands in the rules: a map that is made anew would forget what it has learned.
    let attributes = format!("size {MOST_BINDINGS}; flags dynamic,timeout;");
    let name = names::bindings(family, &policy.name);
    let shape = binding_shape(policy.persistence, family);
    table.set(name, Role::Learned, shape, &attributes, Elements::new());
}

/// The parts of a binding's key.
pub(super) fn binding_shape(persistence: Persistence, family: Family) -> SetShape {
    let address = address_type(family);
    let key = match persistence {
        Persistence::None => PersistenceKey::Source,
        Persistence::By { key, .. } => key,
    };
    let fields: &[FieldType] = match (key, family) {
        (PersistenceKey::Source, _) => &[address],
        (PersistenceKey::SourceDestination, Family::V4) => &[address, address],
        (PersistenceKey::SourceDestination, Family::V6) => &[FieldType::Hash, FieldType::Hash],
    };
    map_of(fields, FieldType::Mark)
}

/// The key of a binding as an expression. Two IPv6 addresses do not fit: for a key of more than 16
/// bytes nft 1.0.6 writes an `update` that overwrites the key's end. So hashes of them take part.
fn binding_key(key: PersistenceKey, family: Family) -> String {
    match (key, family) {
        (PersistenceKey::Source, Family::V4) => "ip saddr".to_owned(),
        (PersistenceKey::Source, Family::V6) => "ip6 saddr".to_owned(),
        (PersistenceKey::SourceDestination, Family::V4) => "ip saddr . ip daddr".to_owned(),
        (PersistenceKey::SourceDestination, Family::V6) => {
            let hash = |part| format!("jhash ip6 {part} mod {} seed {ADDRESS_SEED:#x}", u32::MAX);
            format!("{} . {}", hash("saddr"), hash("daddr"))
        }
    }
}

/// The key of a session's binding as the kernel computes it; `None` for mixed families.
pub(in crate::plan) fn binding_bytes(
    key: PersistenceKey,
    source: IpAddr,
    destination: IpAddr,
) -> Option<Vec<u8>> {
    Some(match (key, source, destination) {
        (PersistenceKey::Source, IpAddr::V4(source), _) => source.octets().to_vec(),
        (PersistenceKey::Source, IpAddr::V6(source), _) => source.octets().to_vec(),
        (PersistenceKey::SourceDestination, IpAddr::V4(source), IpAddr::V4(to)) => {
            [source.octets(), to.octets()].concat()
        }
        (PersistenceKey::SourceDestination, IpAddr::V6(source), IpAddr::V6(to)) => {
            [source, to].map(|address| address_hash(address).to_ne_bytes()).concat()
        }
        (PersistenceKey::SourceDestination, _, _) => return None,
    })
}

/// What stands for an IPv6 address in a key of two.
pub fn address_hash(address: Ipv6Addr) -> u32 {
    jhash(&address.octets(), u32::MAX, ADDRESS_SEED)
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

fn add_policy(
    table: &mut Builder,
    layout: &Layout,
    policy: &Policy,
    id: PolicyId,
    family: Family,
    shared: &BTreeMap<Name, Shared>,
) {
    let Some(slots) = shared.get(&policy.name).map(|shared| &shared.map) else {
        return;
    };
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
            .rule(find.clone(), &origin)
            .rule(format!("{keep} {renew} {take}"), &origin)
            .rule(
                format!(
                    "ct mark & {uplink} != 0 delete @{map} {{ {key} : ct mark }} ct mark set 0"
                ),
                &origin,
            )
            .rule(pick, &origin)
            .rule(format!("{keep} {renew} {find}"), &origin);
    } else {
        rules.rule(pick, &origin);
    }
    rules.rule(format!("ct mark & {uplink} != 0 {take}"), &origin);
    for rule in when_nobody_takes(policy.when_all_down) {
        rules.rule(*rule, &format!("{origin}.when-all-down"));
    }
}

/// What happens to a session that found no uplink.
fn when_nobody_takes(choice: WhenAllDown) -> &'static [&'static str] {
    match choice {
        WhenAllDown::Try | WhenAllDown::Unreachable => {
            &["meta l4proto tcp reject with tcp reset", "reject with icmpx no-route"]
        }
        WhenAllDown::Drop => &["drop"],
        WhenAllDown::Main => &["accept"],
    }
}
