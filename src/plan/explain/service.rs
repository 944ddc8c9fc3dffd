//! Sessions to a virtual address: which server, and why. It follows `plan/nft/services.rs`.

use std::net::IpAddr;

use super::case::Case;
use super::{Bound, DecidedBy, Outcome, Question, Scene, ServerWay};
use crate::health::Health;
use crate::kstate::{Bytes, ElementData, jhash};
use crate::model::{Family, Mark, PersistenceMode, Server, ServerId};
use crate::plan::inbound::{
    Bound as Learned, DealtBy, Directory, ESP, Entrance, Numbered, choose, keeps,
};
use crate::plan::nft::{CLIENT_SEED, names};

/// The map and the key of the client's binding, if the session is a service's and that binds.
pub(super) fn binding_of(scene: Scene<'_>, question: &Question) -> Option<(String, Vec<u8>)> {
    let directory = Directory::new(scene.layout, scene.view);
    let entrance = find(&directory, question)?;
    let bound = entrance.bound.as_ref()?;
    Some((bound.map.clone(), masked(question.source, bound.mask)))
}

fn find<'a, 'd>(directory: &'d Directory<'a>, question: &Question) -> Option<&'d Entrance<'a>> {
    let port = question.port.unwrap_or(0);
    directory.find(question.destination, question.protocol, port)
}

/// A client's address under its mask, as the kernel has it.
fn masked(client: IpAddr, mask: u8) -> Vec<u8> {
    let net = ipnet::IpNet::new(client, mask).map_or(client, |net| net.network());
    octets(net)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Answers, if the session is a service's.
pub(super) fn served(case: &mut Case<'_>) -> bool {
    if case.scene.layout.site.services.is_empty() {
        return false;
    }
    let scene = case.scene;
    let directory = Directory::new(scene.layout, scene.view);
    let Some(entrance) = find(&directory, case.question) else { return false };
    let Some(group) = scene.layout.group(&entrance.service.group) else { return false };
    answer(case, entrance, &group);
    true
}

fn answer(case: &mut Case<'_>, entrance: &Entrance<'_>, group: &Numbered<'_>) {
    let (service, to) = (entrance.service, case.question.destination);
    let name = &service.name;
    case.answer.service = Some(name.to_string());
    case.because(format!(
        "{to} is a virtual address of service {name}, which group {} serves",
        service.group
    ));
    let source = case.question.source;
    let admits = |net: &ipnet::IpNet| net.contains(&source);
    if !service.allow.is_empty() && !service.allow.iter().any(admits) {
        case.because(format!("services.{name}.allow does not have {source}"));
        return case.ends(Outcome::Dropped, DecidedBy::Service, "dropped: not allowed");
    }
    if let Some(id) = bound(case, entrance, group) {
        return to_servers(case, group, &[(id, 1.0)]);
    }
    let family = entrance.family;
    let esp = case.question.protocol == ESP && service.persistence.mode == PersistenceMode::Vpn;
    let by_hash = service.persistence.mode == PersistenceMode::Ip || esp;
    let dealt_by = if by_hash || group.hashes() { DealtBy::Hash } else { DealtBy::Turn };
    let choice = choose(group, &case.scene.view.standings, family, dealt_by);
    if choice.selection.owners.is_empty() {
        return refused(case, group);
    }
    if choice.by_backup {
        case.because("no other server is usable: backups serve");
    }
    if dealt_by == DealtBy::Hash {
        let mask = match (by_hash, family) {
            (false, _) => family.host_bits(),
            (true, Family::V4) => service.persistence.client_mask,
            (true, Family::V6) => service.persistence.client_mask6,
        };
        let slot = slot(case, group, mask, by_hash);
        case.answer.slot = u8::try_from(slot.0).ok();
        if let Some(id) = slot.1 {
            case.because(format!("the client's hash gives slot {}", slot.0));
            return to_servers(case, group, &[(id, 1.0)]);
        }
    }
    let shares: Vec<(ServerId, f64)> = choice
        .selection
        .owners
        .keys()
        .map(|id| (ServerId(*id), choice.selection.share(*id)))
        .collect();
    if shares.len() > 1 {
        case.because("servers take turns, by their shares");
    }
    to_servers(case, group, &shares);
}

/// The server that the client is bound to, if that holds.
fn bound(case: &mut Case<'_>, entrance: &Entrance<'_>, group: &Numbered<'_>) -> Option<ServerId> {
    let Learned { mask, .. } = entrance.bound.as_ref()?;
    let Some((mark, left)) = case.found.binding else {
        case.because("the client is not bound to any server yet");
        return None;
    };
    let (server, id) = group.servers(entrance.family).find(|(_, id)| group.mark(*id) == mark)?;
    let standing = case.scene.view.standings.server(&group.group.name, &server.name);
    let holds = keeps(&standing);
    case.answer.binding = Some(Bound {
        uplink: None,
        server: Some(server.name.to_string()),
        left_s: left.as_secs(),
        holds,
    });
    let client = ipnet::IpNet::new(case.question.source, *mask)
        .map_or_else(|_| case.question.source.to_string(), |net| net.trunc().to_string());
    case.because(match holds {
        true => format!("{client} is bound to {} for {} s more", server.name, left.as_secs()),
        false => {
            format!("{client} was bound to {}, which takes no sessions: forgotten", server.name)
        }
    });
    holds.then_some(id)
}

/// The slot of the client's hash, and whose it is in the kernel.
fn slot(
    case: &Case<'_>,
    group: &Numbered<'_>,
    mask: u8,
    with_destination: bool,
) -> (u32, Option<ServerId>) {
    let mut key = masked(case.question.source, mask);
    if with_destination {
        key.extend(octets(case.question.destination));
    }
    let count = u32::try_from(group.slots(DealtBy::Hash)).unwrap_or(256);
    let slot = jhash(&key, count, CLIENT_SEED);
    let place = Bytes::from_slice(&(group.first_slot(DealtBy::Hash) + slot).to_ne_bytes());
    let set = names::server_slots(case.question.family(), group.part());
    let owner = || {
        let table = case.scene.seen.ours.nft.as_ref()?;
        let ElementData::Value(mark) = table.sets.get(&set)?.elements.get(&place)? else {
            return None;
        };
        let mark = Mark(u32::from_ne_bytes(mark.as_slice().try_into().ok()?));
        let mask = case.scene.layout.site.marks.server;
        u8::try_from(mask.number(mark)).ok().map(ServerId)
    };
    (slot, owner())
}

fn refused(case: &mut Case<'_>, group: &Numbered<'_>) {
    let name = &group.group.name;
    let family = case.question.family();
    for (server, _) in group.servers(family) {
        let standing = case.scene.view.standings.server(name, &server.name);
        case.because(why_not(server, standing.shown(), &standing.reason, standing.admin.as_str()));
    }
    let how = if case.question.protocol == 6 { "TCP RST" } else { "ICMP unreachable" };
    let text = format!("refused at once ({how}): no server of {name} is usable");
    case.ends(Outcome::Refused, DecidedBy::Service, text);
}

fn why_not(server: &Server, health: &str, reason: &str, admin: &str) -> String {
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let admin = if admin == "enabled" { String::new() } else { format!(", {admin} by order") };
    format!("server {} is {health}{admin}{reason}", server.name)
}

fn to_servers(case: &mut Case<'_>, group: &Numbered<'_>, shares: &[(ServerId, f64)]) {
    let family = case.question.family();
    let mut ways = Vec::new();
    for (server, id) in group.servers(family) {
        let share = shares.iter().find(|(other, _)| *other == id).map_or(0.0, |(_, share)| *share);
        let standing = case.scene.view.standings.server(&group.group.name, &server.name);
        if share > 0.0 {
            ways.push(ServerWay {
                server: server.name.to_string(),
                address: server.address,
                port: server.port.or(case.question.port),
                share,
            });
        } else if standing.eligible() == Health::Down {
            let (health, admin) = (standing.shown(), standing.admin.as_str());
            case.because(why_not(server, health, &standing.reason, admin));
        }
        if let Some(most) = server.max_connections.filter(|_| share > 0.0) {
            case.because(format!(
                "{} takes {most} connections at most; others get what is more",
                server.name
            ));
        }
    }
    let text = match ways.as_slice() {
        [one] => {
            let port = one.port.map(|port| format!(" port {port}")).unwrap_or_default();
            format!("to server {} ({}{port}) of {}", one.server, one.address, group.group.name)
        }
        several => {
            let all =
                several.iter().map(|way| format!("{} ({:.0} %)", way.server, way.share * 100.0));
            format!("to one of {}: {}", group.group.name, all.collect::<Vec<_>>().join(", "))
        }
    };
    case.answer.server = match ways.as_slice() {
        [one] => Some(one.server.clone()),
        _ => None,
    };
    case.answer.servers = ways;
    case.ends(Outcome::Server, DecidedBy::Service, text);
}
