//! Sets and maps whose elements follow from ids, addresses and links.

use std::net::SocketAddr;

use super::build::{
    Builder, ONE_EACH, address_type, at_most, map_of, mark_bytes, names, set_of, verdicts_of,
};
use crate::kstate::{
    Bytes, ElementData, Elements, FieldType, Role, SetShape, Verdict, concatenate, ifname_bytes,
};
use crate::model::{Family, Name, Uplink, UplinkId};
use crate::plan::view::{Layout, View};

/// Every policy with every uplink.
const MOST_TAKES: u32 = 16_384;

/// Bytes of an address.
pub(in crate::plan) fn address_bytes(address: std::net::IpAddr) -> Bytes {
    match address {
        std::net::IpAddr::V4(v4) => Bytes::from_slice(&v4.octets()),
        std::net::IpAddr::V6(v6) => Bytes::from_slice(&v6.octets()),
    }
}

pub(super) fn add_sets(table: &mut Builder, layout: &Layout, view: &View) {
    let by_device = |chain: fn(UplinkId, &Name) -> String, verdict: fn(String) -> Verdict| {
        let element = |(uplink, id): (&Uplink, UplinkId)| {
            let verdict = verdict(chain(id, &uplink.name));
            (ifname_bytes(&uplink.interface), ElementData::Verdict(verdict))
        };
        layout.uplinks().map(element).collect::<Elements>()
    };
    let few = at_most(ONE_EACH);
    let counted = format!("{few} counter;");
    let devices = layout.uplinks().map(|(u, _)| (ifname_bytes(&u.interface), ElementData::Nothing));
    table.set(names::UPLINKS, Role::Fixed, set_of(&[FieldType::IfName]), &few, devices.collect());
    let entry = by_device(names::entry, Verdict::Jump);
    let shape = verdicts_of(&[FieldType::IfName]);
    table.set(names::ENTRY, Role::Fixed, shape, &counted, entry);
    let routed = by_device(names::pin, Verdict::Goto);
    let shape = verdicts_of(&[FieldType::RouteDevice]);
    table.set(names::ROUTED, Role::Fixed, shape, &counted, routed);
    let shape = verdicts_of(&[FieldType::Mark]);
    table.set(
        names::TAKE,
        Role::Fixed,
        shape.clone(),
        &format!("{} counter;", at_most(MOST_TAKES)),
        takes(layout),
    );
    let restore = layout.uplinks().map(|(uplink, id)| {
        let chain = names::uplink(id, &uplink.name);
        (mark_bytes(layout.mark(id).0), ElementData::Verdict(Verdict::Goto(chain)))
    });
    table.set(names::RESTORE, Role::Fixed, shape.clone(), &few, restore.collect());
    let carried = layout.policies().map(|(policy, id)| {
        let chain = names::carried(id, &policy.name);
        (mark_bytes(layout.policy_mark(id).0), ElementData::Verdict(Verdict::Goto(chain)))
    });
    table.set(names::CARRIED, Role::Fixed, shape, "", carried.collect());
    for family in Family::BOTH {
        add_family(table, layout, view, family);
    }
}

/// How many flows of the router's own can go another way than their address.
const MOST_DETOURS: u32 = 4096;

/// A flow: source and port, destination and port; and the mark of the uplink that it leaves by.
pub fn detour_shape(family: Family) -> SetShape {
    let address = address_type(family);
    map_of(&[address, FieldType::Port, address, FieldType::Port], FieldType::Mark)
}

/// The key of a flow.
pub fn detour_key(source: SocketAddr, destination: SocketAddr) -> Bytes {
    let port = |end: SocketAddr| Bytes::from_slice(&end.port().to_be_bytes());
    let address = |end: SocketAddr| address_bytes(end.ip());
    concatenate(&[address(source), port(source), address(destination), port(destination)])
}

/// Every pair of a policy and an uplink that it may use.
fn takes(layout: &Layout) -> Elements {
    let mut takes = Vec::new();
    for (policy, policy_id) in layout.policies() {
        for name in policy.tiers.iter().flatten() {
            let Some(id) = layout.ids.uplinks.get(name) else {
                continue;
            };
            let mark = layout.policy_mark(policy_id).0 | layout.mark(*id).0;
            let verdict = Verdict::Goto(names::uplink(*id, name));
            takes.push((mark_bytes(mark), ElementData::Verdict(verdict)));
        }
    }
    takes.into_iter().collect()
}

fn add_family(table: &mut Builder, layout: &Layout, view: &View, family: Family) {
    let address = address_type(family);
    let header = match family {
        Family::V4 => 40,
        Family::V6 => 60,
    };
    let (mut own, mut snat, mut segments) = (Elements::new(), Elements::new(), Elements::new());
    for (uplink, _) in layout.uplinks() {
        let Some(facts) = view.uplinks.get(&uplink.name) else {
            continue;
        };
        let device = ifname_bytes(&uplink.interface);
        for source in facts.own_addresses().filter(|a| Family::of(*a) == family) {
            let key = concatenate(&[device.clone(), address_bytes(source)]);
            own.insert(key, ElementData::Nothing);
        }
        if let Some(way) = facts.ways.get(&family) {
            let size = u16::try_from(way.mtu.saturating_sub(header)).unwrap_or(u16::MAX);
            snat.insert(device.clone(), ElementData::Value(address_bytes(way.address)));
            segments.insert(device, ElementData::Value(Bytes::from_slice(&size.to_be_bytes())));
        }
    }
    let device = FieldType::IfName;
    table.set(names::own(family), Role::Fixed, set_of(&[device, address]), "", own);
    table.set(
        names::snat(family),
        Role::Fixed,
        map_of(&[device], address),
        &at_most(ONE_EACH),
        snat,
    );
    let detours = at_most(MOST_DETOURS);
    table.set(
        names::detour(family),
        Role::Learned,
        detour_shape(family),
        &detours,
        Elements::new(),
    );
    let shape = map_of(&[device], FieldType::Size);
    table.set(names::segment(family), Role::Fixed, shape, &at_most(ONE_EACH), segments);
}
