//! Bindings: the maps in which packets write down who uses which uplink, and their keys.

use std::net::{IpAddr, Ipv6Addr};

use super::build::{Builder, address_type, map_of, names};
use crate::kstate::{Elements, FieldType, Role, SetShape, jhash};
use crate::model::{Family, Persistence, PersistenceKey, Policy};

/// How many bindings a policy can learn in one family.
const MOST_BINDINGS: u32 = 65_536;

/// Fixed, or bindings learned before would not be found.
const ADDRESS_SEED: u32 = 0x686f_6d66;

/// The map of what a policy learns, if it does.
pub(super) fn add_bindings(table: &mut Builder, policy: &Policy, family: Family) {
    if policy.persistence == Persistence::None {
        return;
    }
    // The timeout stands in the rules: a map that is made anew would forget what it has learned.
    let attributes = format!("size {MOST_BINDINGS}; flags dynamic,timeout;");
    let name = names::bindings(family, &policy.name);
    let shape = binding_shape(policy, family);
    table.set(name, Role::Learned, shape, &attributes, Elements::new());
}

/// The parts of a binding's key.
pub fn binding_shape(policy: &Policy, family: Family) -> SetShape {
    let address = address_type(family);
    let key = match policy.persistence {
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
pub(super) fn binding_key(key: PersistenceKey, family: Family) -> String {
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

/// A binding's key, as the kernel has it. No key is longer than this (see [`binding_key`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::plan) struct BindingKey {
    bytes: [u8; 16],
    length: u8,
}

impl BindingKey {
    /// `None` for more bytes than a key has.
    pub(in crate::plan) fn new(parts: &[&[u8]]) -> Option<BindingKey> {
        let (mut bytes, mut length) = ([0; 16], 0);
        for part in parts {
            bytes.get_mut(length..length + part.len())?.copy_from_slice(part);
            length += part.len();
        }
        Some(BindingKey { bytes, length: u8::try_from(length).ok()? })
    }

    pub(in crate::plan) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The key of a session's binding as the kernel computes it; `None` for mixed families.
pub(in crate::plan) fn key_of(
    key: PersistenceKey,
    source: IpAddr,
    destination: IpAddr,
) -> Option<BindingKey> {
    match (key, source, destination) {
        (PersistenceKey::Source, IpAddr::V4(source), _) => BindingKey::new(&[&source.octets()]),
        (PersistenceKey::Source, IpAddr::V6(source), _) => BindingKey::new(&[&source.octets()]),
        (PersistenceKey::SourceDestination, IpAddr::V4(source), IpAddr::V4(to)) => {
            BindingKey::new(&[&source.octets(), &to.octets()])
        }
        (PersistenceKey::SourceDestination, IpAddr::V6(source), IpAddr::V6(to)) => {
            let [source, to] = [source, to].map(|address| address_hash(address).to_ne_bytes());
            BindingKey::new(&[&source, &to])
        }
        (PersistenceKey::SourceDestination, _, _) => None,
    }
}

/// What stands for an IPv6 address in a key of two.
pub fn address_hash(address: Ipv6Addr) -> u32 {
    jhash(&address.octets(), u32::MAX, ADDRESS_SEED)
}
