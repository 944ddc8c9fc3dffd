//! Whether conditions of the profile hold for a packet, in the words of the profile.

use std::fmt::Display;

use ipnet::IpNet;

use super::case::protocol_name;
use super::question::Question;
use crate::model::{Dscp, Family, IfName, Match, PortRange, Protocol, Site};

/// Every condition of a match that fails; none when it matches.
pub(super) fn failures(
    matches: &Match,
    site: &Site,
    question: &Question,
    device: &IfName,
) -> Vec<String> {
    let mut failed = Vec::new();
    failed.extend(source_failure(matches, site, question, device));
    if !matches.to.is_empty() && !contains(&matches.to, question.destination) {
        let nets = list(&matches.to);
        failed.push(format!("it goes to {}, not to {nets}", question.destination));
    }
    if !matches.dscp.is_empty() && !matches.dscp.contains(&question.dscp) {
        let wanted: Vec<u8> = matches.dscp.iter().map(|Dscp(value)| *value).collect();
        failed.push(format!("its dscp is {}, not {}", question.dscp.0, list(&wanted)));
    }
    failed.extend(transport_failures(&matches.protocols, &matches.ports, question));
    failed
}

fn source_failure(
    matches: &Match,
    site: &Site,
    question: &Question,
    device: &IfName,
) -> Option<String> {
    let lans: Vec<_> = matches.from_lans.iter().filter_map(|name| site.lan(name)).collect();
    let anywhere = matches.from_lans.is_empty() && matches.from_nets.is_empty();
    let by_lan = lans.iter().any(|lan| &lan.interface == device);
    if anywhere || by_lan || contains(&matches.from_nets, question.source) {
        return None;
    }
    let names = matches.from_lans.iter().map(ToString::to_string);
    let all: Vec<String> = names.chain(matches.from_nets.iter().map(IpNet::to_string)).collect();
    let all = list(&all);
    Some(format!("it comes from {} by {device}, not from {all}", question.source))
}

/// What of protocols and ports fails.
pub(super) fn transport_failures(
    protocols: &[Protocol],
    ports: &[PortRange],
    question: &Question,
) -> Vec<String> {
    let mut failed = Vec::new();
    let numbers: Vec<u8> = protocols.iter().map(|p| number(*p, question.family())).collect();
    if !numbers.is_empty() && !numbers.contains(&question.protocol) {
        let names: Vec<String> = numbers.iter().map(|number| protocol_name(*number)).collect();
        let (is, wanted) = (protocol_name(question.protocol), list(&names));
        failed.push(format!("its protocol is {is}, not {wanted}"));
    }
    if ports.is_empty() {
        return failed;
    }
    let wanted: Vec<String> = ports.iter().map(range).collect();
    let wanted = list(&wanted);
    match question.port {
        Some(port) if ports.iter().any(|r| (r.first..=r.last).contains(&port)) => {}
        Some(port) => failed.push(format!("its port is {port}, not {wanted}")),
        None => failed.push(format!("it has no port, and needs {wanted}")),
    }
    failed
}

fn number(protocol: Protocol, family: Family) -> u8 {
    match (protocol, family) {
        (Protocol::Icmp, Family::V4) => 1,
        (Protocol::Icmp, Family::V6) => 58,
        (Protocol::Number(number), _) => number,
    }
}

fn contains(nets: &[IpNet], address: std::net::IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

fn range(range: &PortRange) -> String {
    match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{}-{}", range.first, range.last),
    }
}

/// `a`, `a or b`, `a, b or c`; of many, the first few.
fn list<T: Display>(values: &[T]) -> String {
    const MOST: usize = 6;
    let mut texts: Vec<String> = values.iter().take(MOST).map(T::to_string).collect();
    if values.len() > MOST {
        texts.push(format!("{} more", values.len() - MOST));
    }
    match texts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}
