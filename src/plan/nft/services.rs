//! Services: a new session to a virtual address finds its server.
//!
//! Only the first packet of a session comes here (nat hooks). It is looked up by address, protocol
//! and port, then by address and protocol, then by address; a chain for each entrance looks for a
//! binding, the group's chain picks a slot, and the packet mark holds the server's number meanwhile.
//! It then goes into the connection mark, and with the group's bits beside it tells the target.
//!
//! A session that finds no server is refused here, where no entry of it is kept: the same client
//! port works as soon as there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::build::{
    Builder, Rules, address_type, at_most, map_of, mark_bytes, names, set_of, verdicts_of,
};
use super::elements::address_bytes;
use super::matching::{anonymous_set, nets_of, word};
use super::servers::{self, room_for};
use crate::kstate::{
    Bytes, ElementData, Elements, FieldType, Object, Role, SetShape, Snapshot, Verdict, concatenate,
};
use crate::model::{Family, Name, PersistenceMode, PortRange, Protocol, Service};
use crate::plan::inbound::{Bound, DealtBy, Directory, ESP, Entrance, Keyed, Numbered};
use crate::plan::view::{Layout, View};

/// Fixed, so that the same client gets the same server after a reboot.
pub(in crate::plan) const CLIENT_SEED: u32 = 0x686f_6d67;
/// For the keys of connections that are counted.
pub(in crate::plan) const COUNTED_SEEDS: [u32; 2] = [0x686f_6d68, 0x686f_6d69];
/// How many bindings one map can learn.
const MOST_BINDINGS: u32 = 65_536;

pub(super) fn add_chains(table: &mut Builder, layout: &Layout, view: &View, seen: &Snapshot) {
    if layout.site.services.is_empty() {
        return;
    }
    let directory = Directory::new(layout, view);
    add_dispatch(table);
    add_refusal(table);
    add_serving(table, layout);
    add_hairpin(table, layout, seen);
    for family in Family::BOTH {
        add_claims(table, family, &directory);
        servers::add_sets(table, layout, family);
        let observed = seen.ours.nft.as_ref();
        let current = |name: &str| Some(&observed?.sets.get(name)?.elements);
        servers::add_steering(table, layout, &view.standings, family, current);
        let (picked, served): (Vec<_>, Vec<_>) =
            directory.entrances(family).iter().partition(|entrance| leaves_choice(entrance));
        let groups = |of: Vec<&Entrance<'_>>| -> BTreeSet<Name> {
            of.into_iter().map(|entrance| entrance.service.group.clone()).collect()
        };
        let (picked, served) = (groups(picked), groups(served));
        for group in layout.groups().filter(|group| group.serves(family)) {
            let name = &group.group.name;
            add_group(table, layout, &group, family, picked.contains(name), served.contains(name));
        }
        for entrance in directory.entrances(family).iter().filter(|entrance| !entrance.direct) {
            add_entrance(table, layout, entrance);
        }
    }
}

/// From outside and inside, and from the router itself.
fn add_dispatch(table: &mut Builder) {
    for (chain, hook) in [
        ("dispatch", "type nat hook prerouting priority dstnat; policy accept;"),
        ("dispatch-own", "type nat hook output priority -100; policy accept;"),
    ] {
        let mut rules = table.hook(chain, hook);
        for family in Family::BOTH {
            let daddr = format!("{} daddr", word(family));
            let (exact, protocols) = (names::services(family), names::protocols(family));
            rules
                .rule(format!("{daddr} . meta l4proto . th dport vmap @{exact}"), "services")
                .rule(format!("{daddr} . meta l4proto vmap @{protocols}"), "services")
                .rule(format!("{daddr} vmap @{}", names::virtuals(family)), "services");
        }
    }
}

fn add_refusal(table: &mut Builder) {
    table
        .chain(names::REFUSE)
        .rule("meta l4proto tcp reject with tcp reset", "services")
        .rule("reject with icmpx port-unreachable", "services");
}

/// One chain for each number that a server has, whatever its group.
fn add_serving(table: &mut Builder, layout: &Layout) {
    let mask = layout.site.marks.server;
    let mut elements = Elements::new();
    for id in servers::serving(layout) {
        let (chain, mark) = (names::server(id), mask.place(u32::from(id.0)));
        table.chain(chain.clone()).rule(
            format!("ct mark set ct mark & {:#x} | {mark} meta mark set 0", !mask.0),
            "groups",
        );
        elements.insert(mark_bytes(mark.0), ElementData::Verdict(Verdict::Jump(chain)));
    }
    // In one place: the kernel walks a map for each rule that uses it.
    table.chain(names::SERVER).rule(format!("meta mark vmap @{}", names::SERVING), "groups");
    let shape = verdicts_of(&[FieldType::Mark]);
    table.set(names::SERVING, Role::Fixed, shape, &at_most(512), elements);
}

/// A client in the network of the device that leads to its server: the server would answer it
/// directly. The device that it came in by says nothing where packets are seen on a bridge.
fn add_hairpin(table: &mut Builder, layout: &Layout, seen: &Snapshot) {
    let uplink = |device: &_| layout.site.uplinks.iter().any(|one| &one.interface == device);
    let inside = seen.facts.links.iter().filter(|(name, link)| !link.loopback && !uplink(name));
    let mut rules = table.chain(names::HAIRPIN);
    for (device, _) in inside {
        for family in Family::BOTH {
            let here = seen.facts.addresses_of(device, family).filter(|one| one.global);
            let nets: Vec<IpNet> = here.map(|one| one.net.trunc()).collect();
            let nets = nets_of(nets.iter(), family);
            if !nets.is_empty() {
                let (word, set) = (word(family), anonymous_set(&nets));
                rules.rule(format!("oifname \"{device}\" {word} saddr {set} masquerade"), "lans");
            }
        }
    }
}

/// What leads to which chain.
fn add_claims(table: &mut Builder, family: Family, directory: &Directory<'_>) {
    let entrances = directory.entrances(family);
    let keyed = directory.keyed(family);
    let goto = |number: &usize| {
        let chain = entrances.get(*number).map_or_else(String::new, |one| one.chain.clone());
        ElementData::Verdict(Verdict::Goto(chain))
    };
    let exact = keyed.exact.iter().map(|((address, protocol, port), number)| {
        let port = Bytes::from_slice(&port.to_be_bytes());
        (
            concatenate(&[address_bytes(*address), Bytes::from_slice(&[*protocol]), port]),
            goto(number),
        )
    });
    let exact: Elements = exact.collect();
    let mut protocols = add_ranges(table, family, entrances, keyed);
    for (address, number) in &keyed.esp {
        let Some(entrance) = entrances.get(*number) else { continue };
        let chain = names::esp(family, &entrance.service.name, entrance.at);
        protocols.insert(by_protocol(*address, ESP), ElementData::Verdict(Verdict::Goto(chain)));
    }
    let whole = keyed.whole.iter().map(|(address, number)| (address_bytes(*address), goto(number)));
    let address = address_type(family);
    for (name, key, elements) in [
        (names::services(family), vec![address, FieldType::Protocol, FieldType::Port], exact),
        (names::protocols(family), vec![address, FieldType::Protocol], protocols),
        (names::virtuals(family), vec![address], whole.collect()),
    ] {
        table.set(name, Role::Fixed, verdicts_of(&key), &room_for(elements.len()), elements);
    }
}

fn by_protocol(address: IpAddr, protocol: u8) -> Bytes {
    concatenate(&[address_bytes(address), Bytes::from_slice(&[protocol])])
}

/// Long ranges: one chain for those that an address and protocol have together.
fn add_ranges(
    table: &mut Builder,
    family: Family,
    entrances: &[Entrance<'_>],
    keyed: &Keyed,
) -> Elements {
    let mut chains: BTreeMap<Vec<(PortRange, usize)>, String> = BTreeMap::new();
    let mut elements = Elements::new();
    for ((address, protocol), ranges) in &keyed.ranges {
        let known = chains.len() + 1;
        let chain = chains
            .entry(ranges.clone())
            .or_insert_with(|| format!("ports{}-{protocol}-{known}", family.digit()));
        let verdict = Verdict::Jump(chain.clone());
        elements.insert(by_protocol(*address, *protocol), ElementData::Verdict(verdict));
    }
    for (ranges, chain) in chains {
        let mut rules = table.chain(chain);
        for (range, number) in ranges {
            let Some(entrance) = entrances.get(number) else { continue };
            let origin = format!("services.{}.ports", entrance.service.name);
            let (first, last) = (range.first, range.last);
            rules.rule(format!("th dport {first}-{last} goto {}", entrance.chain), &origin);
        }
    }
    elements
}

/// How a slot is found.
fn slot_of(group: &Numbered<'_>, dealt_by: DealtBy, key: &str) -> String {
    let (count, first) = (group.slots(dealt_by), group.first_slot(dealt_by));
    match dealt_by {
        DealtBy::Turn => format!("numgen inc mod {count} offset {first}"),
        DealtBy::Hash => format!("jhash {key} mod {count} seed {CLIENT_SEED:#x} offset {first}"),
    }
}

fn pick(group: &Numbered<'_>, family: Family, key: Option<&str>) -> String {
    let saddr = format!("{} saddr", word(family));
    let dealt_by = match key.is_some() || group.hashes() {
        true => DealtBy::Hash,
        false => DealtBy::Turn,
    };
    let slot = slot_of(group, dealt_by, key.unwrap_or(&saddr));
    format!("meta mark set {slot} map @{}", names::server_slots(family, group.part()))
}

/// The key of a server whose number stands in a mark.
fn key_of(layout: &Layout, group: &Numbered<'_>, mark: &str) -> String {
    format!("{mark} & {} | {}", layout.site.marks.server, group.bits())
}

/// Whether the group's own chain says to whom.
fn leaves_choice(entrance: &Entrance<'_>) -> bool {
    entrance.bound.is_none() && entrance.service.persistence.mode != PersistenceMode::Ip
}

/// The chain that picks a server of the group, if somebody leaves that to it; and that which goes to
/// the one that was picked, if others pick one too.
fn add_group(
    table: &mut Builder,
    layout: &Layout,
    group: &Numbered<'_>,
    family: Family,
    picked: bool,
    served: bool,
) {
    let name = &group.group.name;
    let origin = format!("groups.{name}");
    let serve = names::serve(family, group.id, name);
    let pick = pick(group, family, None);
    let limited = group.is_limited();
    if picked {
        let mut rules = table.chain(names::group(family, group.id, name));
        if served || limited {
            rules
                .rule(format!("{pick} goto {serve}"), &origin)
                .rule(format!("goto {}", names::REFUSE), &origin);
        } else {
            rules.rule(format!("{pick} jump {}", names::SERVER), &origin);
            add_target(&mut rules, layout, group, family);
        }
    }
    if served || (picked && limited) {
        let mut rules = table.chain(serve);
        if limited {
            let number = layout.site.marks.server;
            let spill = names::spill(family, group.id, name);
            let admit = names::admit(family, group.part());
            rules
                .rule(format!("{} vmap @{admit}", key_of(layout, group, "meta mark")), &origin)
                .rule(format!("ct mark & {number} == 0 jump {spill}"), &origin);
        } else {
            rules.rule(format!("jump {}", names::SERVER), &origin);
        }
        add_target(&mut rules, layout, group, family);
    }
    if limited {
        add_limits(table, layout, group, family);
    }
}

/// To the server whose number the connection mark holds.
fn add_target(rules: &mut Rules<'_>, layout: &Layout, group: &Numbered<'_>, family: Family) {
    let origin = format!("groups.{}", group.group.name);
    let key = key_of(layout, group, "ct mark");
    let dnat = format!("dnat {} to {key}", word(family));
    if group.servers(family).any(|(server, _)| server.port.is_some()) {
        // A rule each: a set without a name in every group would cost the kernel their number squared.
        for transport in transports(group) {
            let targets = names::targets(family, group.part());
            rules.rule(format!("meta l4proto {transport} {dnat} map @{targets}"), &origin);
        }
    }
    rules
        .rule(format!("{dnat} map @{}", names::hosts(family, group.part())), &origin)
        .rule(format!("goto {}", names::REFUSE), &origin);
}

/// The protocols with ports by which the group is reached.
fn transports(group: &Numbered<'_>) -> Vec<&'static str> {
    let takes = |protocol: Protocol| {
        let mut services = group.services();
        services.any(|one| one.protocols.is_empty() || one.protocols.contains(&protocol))
    };
    let both = [(Protocol::TCP, "tcp"), (Protocol::UDP, "udp")];
    both.into_iter().filter(|(protocol, _)| takes(*protocol)).map(|(_, word)| word).collect()
}

/// Whether the group is reached by protocols without ports.
fn takes_others(group: &Numbered<'_>) -> bool {
    let vpn = |one: &Service| one.persistence.mode == PersistenceMode::Vpn;
    group.services().any(|one| one.protocols.is_empty() || vpn(one))
}

/// The key of a connection that is counted: five parts, or for IPv6 two hashes of them.
fn counted_key(family: Family) -> String {
    let word = word(family);
    let parts = format!("meta l4proto . {word} saddr . th sport . {word} daddr . th dport");
    match family {
        Family::V4 => parts,
        Family::V6 => {
            let hash = |seed: u32| format!("jhash {parts} mod {} seed {seed:#x}", u32::MAX);
            COUNTED_SEEDS.map(hash).join(" . ")
        }
    }
}

/// The shape of the sets of counted connections.
pub(in crate::plan) fn counted_shape(family: Family) -> SetShape {
    use FieldType::{Hash, Ipv4, Port, Protocol};
    set_of(match family {
        Family::V4 => &[Protocol, Ipv4, Port, Ipv4, Port],
        Family::V6 => &[Hash, Hash],
    })
}

/// A server with a limit has a set with room for just so many connections. The kernel takes those
/// out that are closed (`ct count`), once a second; homing does so at once.
fn add_limits(table: &mut Builder, layout: &Layout, group: &Numbered<'_>, family: Family) {
    let mask = layout.site.marks.server;
    let mut spilling: Vec<(String, String)> = Vec::new();
    for (server, id) in group.servers(family) {
        let origin = format!("groups.{}.servers.{}", group.group.name, server.name);
        let way_in = match server.max_connections {
            None => names::server(id),
            Some(most) => {
                let (live, limit) =
                    (names::live(family, group.id, id), names::limit(family, group.id, id));
                let attributes = format!("size {most}; flags dynamic;");
                let shape = counted_shape(family);
                table.set(live.clone(), Role::Learned, shape, &attributes, Elements::new());
                let add = format!("add @{live} {{ {} ct count 65535 }}", counted_key(family));
                let mut rules = table.chain(limit.clone());
                if takes_others(group) {
                    // Without ports there are no connections to count.
                    let others = "meta l4proto != tcp meta l4proto != udp goto";
                    rules.rule(format!("{others} {}", names::server(id)), &origin);
                }
                rules.rule(format!("{add} goto {}", names::server(id)), &origin);
                limit
            }
        };
        let mark = mask.place(u32::from(id.0));
        let key = key_of(layout, group, "meta mark");
        let chosen = names::choosable_servers(family);
        spilling.push((format!("meta mark set {mark} {key} @{chosen} jump {way_in}"), origin));
    }
    let mut rules = table.chain(names::spill(family, group.id, &group.group.name));
    for (rule, origin) in spilling {
        rules.rule(rule, &origin).rule(format!("ct mark & {mask} != 0 return"), &origin);
    }
}

/// The client as a binding knows it.
fn client(family: Family, mask: u8) -> String {
    masked(&format!("{} saddr", word(family)), family, mask)
}

/// An address under a prefix of this length.
pub(super) fn masked(address: &str, family: Family, mask: u8) -> String {
    if mask == family.host_bits() {
        return address.to_owned();
    }
    let mask = match family {
        Family::V4 => {
            let bits = u32::MAX.checked_shl(32 - u32::from(mask)).unwrap_or(0);
            IpAddr::from(bits.to_be_bytes())
        }
        Family::V6 => {
            let bits = u128::MAX.checked_shl(128 - u32::from(mask)).unwrap_or(0);
            IpAddr::from(bits.to_be_bytes())
        }
    };
    format!("{address} & {mask}")
}

fn add_entrance(table: &mut Builder, layout: &Layout, entrance: &Entrance<'_>) {
    let service = entrance.service;
    let Some(group) = layout.group(&service.group) else { return };
    if let Some(bound) = &entrance.bound {
        let attributes = format!("size {MOST_BINDINGS}; flags dynamic,timeout;");
        let shape = map_of(&[address_type(entrance.family)], FieldType::Mark);
        table.set(bound.map.clone(), Role::Learned, shape, &attributes, Elements::new());
    }
    let family = entrance.family;
    if let Some(seconds) = entrance.udp_seconds() {
        table.object(Object::UdpTimeout { family, seconds });
    }
    if let Some(helper) = service.helper {
        table.object(Object::Helper(helper));
    }
    let mut rules = table.chain(entrance.chain.clone());
    add_conditions(&mut rules, entrance);
    let origin = format!("services.{}", service.name);
    match (&entrance.bound, service.persistence.mode) {
        (Some(bound), _) => add_binding(&mut rules, layout, &group, entrance, bound),
        (None, PersistenceMode::Ip) => {
            let serve = names::serve(family, group.id, &service.group);
            let key = format!("{} . {} daddr", client(family, mask_of(entrance)), word(family));
            let pick = pick(&group, family, Some(&key));
            rules
                .rule(format!("{pick} goto {serve}"), &origin)
                .rule(format!("goto {}", names::REFUSE), &origin);
        }
        (None, _) => {
            let chain = names::group(family, group.id, &service.group);
            rules.rule(format!("goto {chain}"), &origin);
        }
    }
    if let (Some(bound), PersistenceMode::Vpn) = (&entrance.bound, service.persistence.mode) {
        let mut rules = table.chain(names::esp(family, &service.name, entrance.at));
        add_conditions(&mut rules, entrance);
        add_esp(&mut rules, layout, &group, entrance, bound);
    }
}

fn mask_of(entrance: &Entrance<'_>) -> u8 {
    let persistence = &entrance.service.persistence;
    match entrance.family {
        Family::V4 => persistence.client_mask,
        Family::V6 => persistence.client_mask6,
    }
}

/// Who may connect, and how the kernel is to look at the session.
fn add_conditions(rules: &mut Rules<'_>, entrance: &Entrance<'_>) {
    let (service, family) = (entrance.service, entrance.family);
    let origin = format!("services.{}", service.name);
    if !service.allow.is_empty() {
        let origin = format!("{origin}.allow");
        let nets = nets_of(service.allow.iter(), family);
        match nets.as_slice() {
            [] => drop(rules.rule("drop", &origin)),
            nets if nets.iter().any(|net| net.prefix_len() == 0) => {}
            nets => {
                let set = anonymous_set(nets);
                rules.rule(format!("{} saddr != {set} drop", word(family)), &origin);
            }
        }
    }
    if let Some(seconds) = entrance.udp_seconds() {
        let object = Object::UdpTimeout { family, seconds };
        let rule = format!("meta l4proto udp ct timeout set \"{object}\"");
        rules.rule(rule, &format!("{origin}.persistence"));
    }
    if let Some(helper) = service.helper {
        let rule =
            format!("meta l4proto {} ct helper set \"{}\"", helper.transport(), helper.as_str());
        rules.rule(rule, &format!("{origin}.helper"));
    }
}

/// A client that is bound to a server that keeps its clients goes there. Any other binding is
/// forgotten, and a new one learned; one that cannot be learned, because the map is full, keeps
/// nobody out.
fn add_binding(
    rules: &mut Rules<'_>,
    layout: &Layout,
    group: &Numbered<'_>,
    entrance: &Entrance<'_>,
    bound: &Bound,
) {
    let family = entrance.family;
    let origin = format!("services.{}.persistence", entrance.service.name);
    let (client, map) = (client(family, bound.mask), &bound.map);
    let serve = names::serve(family, group.id, &group.group.name);
    let find = format!("meta mark set {client} map @{map}");
    let renew = renewal(bound, &client);
    let pick = pick(group, family, None);
    rules
        .rule(format!("{find} {} {renew} goto {serve}", kept(layout, group, family)), &origin)
        .rule(format!("{find} delete @{map} {{ {client} : meta mark }}"), &origin)
        .rule(format!("{pick} {renew} {find} goto {serve}"), &origin)
        .rule(format!("{pick} goto {serve}"), &origin)
        .rule(format!("goto {}", names::REFUSE), &origin);
}

/// Learns a binding, or gives it its whole time again.
fn renewal(bound: &Bound, client: &str) -> String {
    let (map, time) = (&bound.map, bound.timeout.as_millis());
    format!("update @{map} {{ {client} timeout {time}ms : meta mark }}")
}

/// ESP goes where the key exchange went; without one, where a hash says, and learns nothing.
fn add_esp(
    rules: &mut Rules<'_>,
    layout: &Layout,
    group: &Numbered<'_>,
    entrance: &Entrance<'_>,
    bound: &Bound,
) {
    let family = entrance.family;
    let origin = format!("services.{}.persistence", entrance.service.name);
    let (client, map) = (client(family, bound.mask), &bound.map);
    let serve = names::serve(family, group.id, &group.group.name);
    let renew = renewal(bound, &client);
    let kept = kept(layout, group, family);
    let key = format!("{client} . {} daddr", word(family));
    rules
        .rule(format!("meta mark set {client} map @{map} {kept} {renew} goto {serve}"), &origin)
        .rule(format!("{} goto {serve}", pick(group, family, Some(&key))), &origin)
        .rule(format!("goto {}", names::REFUSE), &origin);
}

fn kept(layout: &Layout, group: &Numbered<'_>, family: Family) -> String {
    format!("{} @{}", key_of(layout, group, "meta mark"), names::keepable_servers(family))
}
