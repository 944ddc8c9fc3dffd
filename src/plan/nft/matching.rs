//! Conditions of the profile in the nft language.

use std::fmt::{self, Display, Formatter};

use ipnet::IpNet;

use crate::model::{Dscp, Family, IfName, Match, PortRange, Protocol, Site};

/// `{ a, b }`; a single value stands alone.
pub(super) fn anonymous_set<T: Display>(values: &[T]) -> String {
    match values {
        [one] => one.to_string(),
        many => {
            let texts: Vec<String> = many.iter().map(T::to_string).collect();
            format!("{{ {} }}", texts.join(", "))
        }
    }
}

/// The networks of one family, without any that lies inside another (nft refuses overlaps).
pub(super) fn nets_of<'a>(nets: impl Iterator<Item = &'a IpNet>, family: Family) -> Vec<IpNet> {
    let mine: Vec<IpNet> = nets.filter(|net| Family::of_net(net) == family).copied().collect();
    IpNet::aggregate(&mine)
}

/// What a family's header is called.
pub(super) fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// The conditions of a match in one family, each a prefix of a rule. Empty when no packet of the
/// family can match; more than one when `from` mixes LANs and networks.
pub(super) fn conditions(matches: &Match, site: &Site, family: Family) -> Vec<String> {
    let Some(rest) = after_source(matches, family) else {
        return Vec::new();
    };
    let unrestricted = matches.from_lans.is_empty() && matches.from_nets.is_empty();
    if unrestricted {
        return vec![rest];
    }
    let sources = source_conditions(matches, site, family);
    sources.into_iter().map(|source| join([source, rest.clone()])).collect()
}

fn source_conditions(matches: &Match, site: &Site, family: Family) -> Vec<String> {
    let quoted = |device: &IfName| format!("\"{device}\"");
    let devices: Vec<String> = devices(matches, site).map(quoted).collect();
    let nets = nets_of(matches.from_nets.iter(), family);
    let mut sources = Vec::new();
    if !devices.is_empty() {
        sources.push(format!("iifname {}", anonymous_set(&devices)));
    }
    if !nets.is_empty() {
        sources.push(format!("{} saddr {}", word(family), anonymous_set(&nets)));
    }
    sources
}

fn devices<'a>(matches: &'a Match, site: &'a Site) -> impl Iterator<Item = &'a IfName> {
    matches.from_lans.iter().filter_map(|name| site.lan(name).map(|lan| &lan.interface))
}

/// Where a session of the family may come from, one by one: a device or a network, or (neither) from
/// anywhere. Empty when it cannot come at all.
pub(super) fn sources(
    matches: &Match,
    site: &Site,
    family: Family,
) -> Vec<(Option<IfName>, Option<IpNet>)> {
    if matches.from_lans.is_empty() && matches.from_nets.is_empty() {
        return vec![(None, None)];
    }
    let mut devices: Vec<&IfName> = devices(matches, site).collect();
    devices.sort_unstable();
    devices.dedup();
    let nets = nets_of(matches.from_nets.iter(), family);
    let devices = devices.into_iter().map(|device| (Some(device.clone()), None));
    devices.chain(nets.into_iter().map(|net| (None, narrower(net)))).collect()
}

/// Where a session of the family may go, one by one; `None` is anywhere.
pub(super) fn destinations(matches: &Match, family: Family) -> Vec<Option<IpNet>> {
    if matches.to.is_empty() {
        return vec![None];
    }
    nets_of(matches.to.iter(), family).into_iter().map(narrower).collect()
}

/// A network that is not simply everything.
fn narrower(net: IpNet) -> Option<IpNet> {
    (net.prefix_len() > 0).then_some(net)
}

/// Everything but the source; `None` when the destination is of the other family alone.
fn after_source(matches: &Match, family: Family) -> Option<String> {
    let nets = nets_of(matches.to.iter(), family);
    if nets.is_empty() && !matches.to.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    if !nets.is_empty() {
        parts.push(format!("{} daddr {}", word(family), anonymous_set(&nets)));
    }
    if !matches.dscp.is_empty() {
        let values: Vec<String> =
            matches.dscp.iter().map(|Dscp(value)| value.to_string()).collect();
        parts.push(format!("{} dscp {}", word(family), anonymous_set(&values)));
    }
    parts.push(protocols_and_ports(&matches.protocols, &matches.ports, family));
    Some(join(parts))
}

/// `meta l4proto … th dport …`, or nothing.
pub(super) fn protocols_and_ports(
    protocols: &[Protocol],
    ports: &[PortRange],
    family: Family,
) -> String {
    let numbers = numbers(protocols, family);
    let mut parts = Vec::new();
    if !numbers.is_empty() {
        parts.push(format!("meta l4proto {}", anonymous_set(&numbers)));
    }
    if !ports.is_empty() {
        parts.push(format!("th dport {}", anonymous_set(&ranges(ports))));
    }
    join(parts)
}

/// The protocols' numbers in order, each once.
pub(super) fn numbers(protocols: &[Protocol], family: Family) -> Vec<u8> {
    let number = |protocol: &Protocol| match (protocol, family) {
        (Protocol::Icmp, Family::V4) => 1,
        (Protocol::Icmp, Family::V6) => 58,
        (Protocol::Number(number), _) => *number,
    };
    let mut numbers: Vec<u8> = protocols.iter().map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Port ranges in order, without overlaps, as nft writes them.
pub(super) fn ranges(ports: &[PortRange]) -> Vec<Ports> {
    let mut sorted = ports.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<Ports> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(Ports(last)) if range.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(Ports(range)),
        }
    }
    merged
}

/// A port or a range of ports in the nft language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports(pub(super) PortRange);

impl Display for Ports {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            PortRange { first, last } if first == last => write!(f, "{first}"),
            PortRange { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// The parts that say something, with spaces between.
pub(super) fn join(parts: impl IntoIterator<Item = String>) -> String {
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}
