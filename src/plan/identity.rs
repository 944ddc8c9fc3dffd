//! Stable numbers for names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use litemap::LiteMap;
use serde::{Deserialize as _, Deserializer, Serializer};

use super::nft::names;
use crate::kstate::{Bytes, ElementData, NftTable};
use crate::model::{GroupId, Mark, MemberId, Name, PolicyId, ServerId, Site, UplinkId, natural_id};

/// The numbers that stand for names in marks, tables and priorities.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identities {
    /// Of uplinks.
    pub uplinks: BTreeMap<Name, UplinkId>,
    /// Of policies, the implied one included.
    pub policies: BTreeMap<Name, PolicyId>,
    /// Of groups.
    pub groups: BTreeMap<Name, GroupId>,
    /// Of servers, within their groups.
    pub servers: BTreeMap<Name, LiteMap<Name, ServerId>>,
}

/// Numbers of the members of one thing, by their names.
pub(in crate::plan) type Numbers = LiteMap<Name, u8>;

/// Numbers given before, from the state directory or read back from the kernel. Names that the
/// profile no longer has stay remembered, so that they get their number back.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Remembered {
    /// Uplink name → id.
    #[serde(default, deserialize_with = "names_alone", serialize_with = "as_map")]
    pub uplinks: Numbers,
    /// Policy name → id.
    #[serde(default, deserialize_with = "names_alone", serialize_with = "as_map")]
    pub policies: Numbers,
    /// Group name → id.
    #[serde(default, deserialize_with = "names_alone")]
    pub groups: BTreeMap<Name, u32>,
    /// Group name → server name → id.
    #[serde(default, deserialize_with = "groups_alone", serialize_with = "as_maps")]
    pub servers: BTreeMap<Name, Numbers>,
    /// Keys of servers and their addresses, as the kernel has them: it does not know their names.
    #[serde(skip)]
    pub hosts: Vec<(Mark, IpAddr)>,
}

/// What is no name was never one of ours.
fn named<Of, Into: FromIterator<(Name, Of)>>(found: BTreeMap<String, Of>) -> Into {
    let named = |(name, of): (String, Of)| Some((Name::new(&name).ok()?, of));
    found.into_iter().filter_map(named).collect()
}

fn names_alone<'de, D: Deserializer<'de>, Of, Into>(found: D) -> Result<Into, D::Error>
where
    Of: serde::Deserialize<'de>,
    Into: FromIterator<(Name, Of)>,
{
    BTreeMap::deserialize(found).map(named)
}

fn groups_alone<'de, D: Deserializer<'de>>(found: D) -> Result<BTreeMap<Name, Numbers>, D::Error> {
    let groups: BTreeMap<String, BTreeMap<String, u8>> = BTreeMap::deserialize(found)?;
    Ok(named(groups.into_iter().map(|(group, servers)| (group, named(servers))).collect()))
}

fn as_map<S: Serializer>(numbers: &Numbers, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(numbers)
}

fn as_maps<S: Serializer>(
    groups: &BTreeMap<Name, Numbers>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let of = |(group, servers)| (group, BTreeMap::from_iter(servers));
    serializer.collect_map(groups.iter().map(of))
}

impl Remembered {
    /// What the kernel's table tells: chains are named `KIND-ID-NAME`, and a map says where servers
    /// are.
    pub fn from_kernel(table: &NftTable) -> Remembered {
        let mut remembered = Remembered::default();
        for (name, set) in &table.sets {
            if names::tells_hosts(name) {
                remembered.hosts.extend(set.elements.iter().filter_map(host));
            }
        }
        for chain in table.chains.keys() {
            let mut parts = chain.splitn(3, '-');
            let (kind, id, name) = (parts.next(), parts.next(), parts.next());
            let name = name.and_then(|name| Name::new(name).ok());
            let Some((id, name)) = id.zip(name) else { continue };
            if let (Some("group4" | "group6"), Ok(id)) = (kind, id.parse::<u32>()) {
                remembered.groups.insert(name, id);
                continue;
            }
            let Ok(id) = id.parse::<u8>() else { continue };
            match kind {
                Some("uplink") => remembered.uplinks.insert(name, id),
                Some("policy4" | "policy6") => remembered.policies.insert(name, id),
                _ => None,
            };
        }
        remembered
    }

    /// Adds what another source remembers; it wins where both speak.
    pub fn merge(&mut self, other: Remembered) {
        self.uplinks.extend(other.uplinks);
        self.policies.extend(other.policies);
        self.groups.extend(other.groups);
        for (group, servers) in other.servers {
            self.servers.entry(group).or_default().extend(servers);
        }
        self.hosts.extend(other.hosts);
    }

    /// Adds the numbers now in force.
    pub fn learn(&mut self, identities: &Identities) {
        self.uplinks.extend(identities.uplinks.iter().map(|(name, id)| (name.clone(), id.0)));
        self.policies.extend(identities.policies.iter().map(|(name, id)| (name.clone(), id.0)));
        self.groups.extend(identities.groups.iter().map(|(name, id)| (name.clone(), id.0)));
        for (group, servers) in &identities.servers {
            let known = self.servers.entry(group.clone()).or_default();
            for (name, id) in servers {
                known.insert(name.clone(), id.0);
            }
        }
    }
}

/// A server's key, and its address.
fn host((key, data): (&Bytes, &ElementData)) -> Option<(Mark, IpAddr)> {
    let key = Mark(u32::from_ne_bytes(key.as_slice().try_into().ok()?));
    let ElementData::Value(address) = data else { return None };
    let four = || Some(<[u8; 4]>::try_from(address.as_slice()).ok()?.into());
    let six = || Some(<[u8; 16]>::try_from(address.as_slice()).ok()?.into());
    Some((key, four().or_else(six)?))
}

/// The numbers of servers: as remembered by their names, else by where they are.
fn known_servers(
    site: &Site,
    groups: &BTreeMap<Name, GroupId>,
    remembered: &Remembered,
) -> BTreeMap<Name, Numbers> {
    let mask = site.marks.server;
    let number = |key: &Mark| u8::try_from(mask.number(*key)).ok();
    let seats: BTreeMap<(u32, IpAddr), u8> = remembered
        .hosts
        .iter()
        .filter_map(|(key, address)| Some(((key.0 & !mask.0, *address), number(key)?)))
        .collect();
    let mut known: BTreeMap<Name, Numbers> = BTreeMap::new();
    for (name, group) in &site.groups {
        let Some(bits) = groups.get(name).map(|id| id.bits(mask).0) else { continue };
        let servers = group.servers.iter();
        let of_group = servers
            .filter_map(|server| Some((server.name.clone(), *seats.get(&(bits, server.address))?)));
        known.insert(name.clone(), of_group.collect());
    }
    for (group, servers) in &remembered.servers {
        let servers = servers.iter().map(|(name, id)| (name.clone(), *id));
        known.entry(group.clone()).or_default().extend(servers);
    }
    known
}

/// Gives every uplink and policy its number.
pub fn identify(site: &Site, policies: &[Name], remembered: &Remembered) -> Identities {
    let uplinks = site.uplinks.iter().map(|u| (&u.name, u.id.map(|id| id.0))).collect::<Vec<_>>();
    let policies = policies.iter().map(|name| (name, None)).collect::<Vec<_>>();
    let most_policies = site.marks.policy.max().min(255);
    let groups = number_groups(site, &remembered.groups);
    let servers = number_servers(site, &known_servers(site, &groups, remembered));
    Identities {
        uplinks: assign(&uplinks, &remembered.uplinks, site.marks.max_uplink_id()),
        policies: assign(&policies, &remembered.policies, most_policies),
        groups,
        servers,
    }
}

/// No session bears a group's number: any that is free will do, but a remembered one stays.
fn number_groups(site: &Site, remembered: &BTreeMap<Name, u32>) -> BTreeMap<Name, GroupId> {
    let known = |name: &Name| remembered.get(name.as_str()).copied().filter(|id| MOST_GROUPS > *id);
    let mut taken: BTreeSet<u32> = BTreeSet::from([0]);
    let mut given: BTreeMap<Name, GroupId> = BTreeMap::new();
    for name in site.groups.keys() {
        if let Some(id) = known(name).filter(|id| taken.insert(*id)) {
            given.insert(name.clone(), GroupId(id));
        }
    }
    let mut free = (1..MOST_GROUPS).filter(|id| !taken.contains(id));
    for name in site.groups.keys() {
        if !given.contains_key(name)
            && let Some(id) = free.next()
        {
            given.insert(name.clone(), GroupId(id));
        }
    }
    given
}

/// A group's number and a server's fit together into a mark, and a group's slots into 32 bits.
const MOST_GROUPS: u32 = 1 << 22;

fn number_servers(
    site: &Site,
    remembered: &BTreeMap<Name, Numbers>,
) -> BTreeMap<Name, LiteMap<Name, ServerId>> {
    let most = site.marks.server.max().min(255);
    let none = Numbers::new();
    let number = |(name, group): (&Name, &crate::model::Group)| {
        let servers: Vec<_> = group.servers.iter().map(|server| (&server.name, None)).collect();
        let known = remembered.get(name.as_str()).unwrap_or(&none);
        (name.clone(), assign(&servers, known, most).into_iter().collect())
    };
    let mut numbers: BTreeMap<_, LiteMap<Name, ServerId>> =
        site.groups.iter().map(number).collect();
    // An address and a number name one server of the site, also where groups share an address.
    let known = |group: &Name, server: &Name, id: ServerId| {
        let of = remembered.get(group.as_str());
        of.and_then(|of| of.get(server.as_str())) == Some(&id.0)
    };
    // Who has a number keeps it, whatever the order of names.
    let mut taken: BTreeSet<(IpAddr, u8)> = BTreeSet::new();
    let mut kept: BTreeSet<(&Name, &Name)> = BTreeSet::new();
    for (name, group) in &site.groups {
        for server in &group.servers {
            let id = numbers.get(name).and_then(|ids| ids.get(&server.name)).copied();
            if let Some(id) = id.filter(|id| known(name, &server.name, *id))
                && taken.insert((server.address, id.0))
            {
                kept.insert((name, &server.name));
            }
        }
    }
    for (name, group) in &site.groups {
        let Some(ids) = numbers.get_mut(name) else { continue };
        for server in &group.servers {
            let Some(id) = ids.get(&server.name).copied() else { continue };
            if kept.contains(&(name, &server.name)) || taken.insert((server.address, id.0)) {
                continue;
            }
            let used: BTreeSet<u8> = ids.values().map(|id| id.0).collect();
            let all = 1..=u8::try_from(most).unwrap_or(u8::MAX);
            let mut free = all.filter(|id| !used.contains(id));
            if let Some(id) = free.find(|id| taken.insert((server.address, *id))) {
                ids.insert(server.name.clone(), ServerId(id));
            }
        }
    }
    numbers
}

/// A number for each name: the one asked for, else the remembered one, else the natural one, else
/// the next free. The order of the names does not matter. A number that is remembered for an
/// absent name is given to another only when no other is left; names beyond the last number get
/// none.
fn assign<Id: MemberId>(
    names: &[(&Name, Option<u8>)],
    remembered: &Numbers,
    max: u32,
) -> BTreeMap<Name, Id> {
    let max = u8::try_from(max).unwrap_or(u8::MAX);
    let mut given: BTreeMap<Name, Id> = BTreeMap::new();
    let mut taken: BTreeSet<u8> = BTreeSet::new();
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    for (name, asked) in &sorted {
        if let Some(id) = asked.filter(|id| taken.insert(*id)) {
            given.insert((*name).clone(), Id::from_number(id));
        }
    }
    for (name, _) in &sorted {
        let former = remembered.get(name.as_str()).filter(|id| (1..=max).contains(*id));
        if given.contains_key(*name) {
            continue;
        }
        if let Some(id) = former.filter(|id| taken.insert(**id)) {
            given.insert((*name).clone(), Id::from_number(*id));
        }
    }
    for (name, _) in sorted {
        if given.contains_key(name) {
            continue;
        }
        if let Some(id) = next_free(name, &taken, remembered, max) {
            taken.insert(id);
            given.insert(name.clone(), Id::from_number(id));
        }
    }
    given
}

fn next_free(name: &Name, taken: &BTreeSet<u8>, remembered: &Numbers, max: u8) -> Option<u8> {
    let natural = natural_id(name.as_str(), u32::from(max));
    let candidates = (0..u32::from(max)).map(|n| ((natural - 1 + n) % u32::from(max) + 1) as u8);
    let mut free = candidates.filter(|id| !taken.contains(id));
    let first = free.next()?;
    let reserved = |id: &u8| remembered.values().any(|other| other == id);
    std::iter::once(first).chain(free).find(|id| !reserved(id)).or(Some(first))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{Numbers, Remembered, assign};
    use crate::model::{Name, UplinkId};

    fn names() -> impl Strategy<Value = Vec<Name>> {
        prop::collection::btree_set("[a-z]{1,4}", 1..20)
            .prop_map(|set| set.iter().filter_map(|text| Name::new(text).ok()).collect())
    }

    fn given_to(names: &[Name], remembered: &Numbers) -> BTreeMap<Name, UplinkId> {
        let asked: Vec<_> = names.iter().map(|name| (name, None)).collect();
        assign(&asked, remembered, 62)
    }

    fn memory(given: &BTreeMap<Name, UplinkId>) -> Numbers {
        given.iter().map(|(name, id)| (name.clone(), id.0)).collect()
    }

    proptest! {
        #[test]
        fn numbers_are_unique_and_in_range(names in names()) {
            let given = given_to(&names, &Numbers::new());
            let unique: std::collections::BTreeSet<_> = given.values().collect();
            prop_assert_eq!(given.len(), names.len());
            prop_assert_eq!(unique.len(), names.len());
            prop_assert!(given.values().all(|id| (1..=62).contains(&id.0)));
        }

        #[test]
        fn insertion_removal_and_reordering_change_nobody(
            (old, mut new) in (names(), names()), keep in any::<prop::sample::Index>()
        ) {
            let before = given_to(&old, &Numbers::new());
            new.extend(old.iter().skip(keep.index(old.len())).cloned());
            new.sort();
            new.dedup();
            new.reverse();
            let after = given_to(&new, &memory(&before));
            for (name, id) in &before {
                prop_assert!(after.get(name).is_none_or(|now| now == id), "{name} changed");
            }
        }
    }

    #[test]
    fn a_name_that_comes_back_gets_its_number_back() -> Result<(), crate::model::InvalidName> {
        let (fiber, cable) = (Name::new("fiber")?, Name::new("cable")?);
        let before = given_to(&[fiber.clone(), cable.clone()], &Numbers::new());
        let newcomers =
            (0..60).map(|n| Name::new(&format!("n{n}"))).collect::<Result<Vec<_>, _>>()?;
        let meanwhile = given_to(&newcomers, &memory(&before));
        assert!(!meanwhile.values().any(|id| before.values().any(|old| old == id)));
        let mut remembered = memory(&before);
        remembered.extend(memory(&meanwhile));
        assert_eq!(given_to(std::slice::from_ref(&fiber), &remembered)[&fiber], before[&fiber]);
        Ok(())
    }

    #[test]
    fn what_is_written_are_maps_and_what_is_no_name_is_not_read() -> Result<(), serde_json::Error> {
        let nothing = r#"{"uplinks":{},"policies":{},"groups":{},"servers":{}}"#;
        assert_eq!(serde_json::to_string(&Remembered::default())?, nothing);
        assert_eq!(serde_json::from_str::<Remembered>(nothing)?, Remembered::default());
        let some = r#"{"uplinks":{"fiber":7},"policies":{},"groups":{"web":9},"servers":{"web":{"a":1,"b":2},"x":{}}}"#;
        let read: Remembered = serde_json::from_str(some)?;
        assert_eq!(serde_json::to_string(&read)?, some);
        let odd = some.replace(r#""a":1"#, r#""a b":1"#).replace(r#""x":{}"#, r#""X":{"c":3}"#);
        let read: Remembered = serde_json::from_str(&odd)?;
        assert_eq!(
            serde_json::to_string(&read)?,
            some.replace(r#""a":1,"#, "").replace(r#","x":{}"#, "")
        );
        Ok(())
    }

    #[test]
    fn an_asked_number_wins_over_a_remembered_one() -> Result<(), crate::model::InvalidName> {
        let (fiber, cable) = (Name::new("fiber")?, Name::new("cable")?);
        let remembered = Numbers::from_iter([(cable.clone(), 7)]);
        let given: BTreeMap<Name, UplinkId> =
            assign(&[(&cable, None), (&fiber, Some(7))], &remembered, 62);
        assert_eq!(given[&fiber], UplinkId(7));
        assert_ne!(given[&cable], UplinkId(7));
        Ok(())
    }
}
