//! `RTM_NEWROUTE`, there and back.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType, RouteVia,
};
use nix::libc;

use super::super::wire::Message;
use super::{Names, address_family};
use crate::kstate::{Route, RouteKind};
use crate::model::{Family, IfName, TableId};

/// A route through a device that does not exist, or an address on one.
#[derive(Debug, thiserror::Error)]
#[error("there is no interface {0}")]
pub struct NoSuchDevice(IfName);

/// The next hop of a route, or one of several.
#[derive(Default)]
struct Hop {
    gateway: Option<IpAddr>,
    device: Option<u32>,
    onlink: bool,
}

/// Asks for the routes of one family, of one table or of all.
pub(super) fn request(family: Family, table: Option<TableId>) -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    let table = table.map(|table| RouteAttribute::Table(table.0));
    message.attributes.extend(table);
    Message::new(libc::RTM_GETROUTE, 0).body(&message)
}

/// One value for each next hop; none for what we do not look at.
pub(super) fn decode(message: &RouteMessage, names: &Names) -> Vec<Route> {
    let header = &message.header;
    let Some(mut route) = without_hop(message) else {
        return Vec::new();
    };
    let mut single = Hop { onlink: header.flags.contains(RouteFlags::Onlink), ..Hop::default() };
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(value) => {
                let net = ip(value).map(|ip| IpNet::new(ip, header.destination_prefix_length));
                route.destination = net.and_then(Result::ok).unwrap_or(route.destination);
            }
            RouteAttribute::MultiPath(several) => hops = several.iter().map(hop).collect(),
            RouteAttribute::Table(value) => route.table = TableId(*value),
            RouteAttribute::Priority(value) => route.metric = *value,
            RouteAttribute::PrefSource(value) => route.source = ip(value),
            RouteAttribute::Metrics(values) => route.mtu = mtu(values),
            other => read_hop(other, &mut single),
        }
    }
    if route.table.0 == u32::from(libc::RT_TABLE_LOCAL) {
        return Vec::new();
    }
    if hops.is_empty() {
        hops.push(single);
    }
    hops.into_iter().map(|hop| with_hop(route.clone(), &hop, names)).collect()
}

/// What the header says; `None` for a cached route or one of another family.
fn without_hop(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let family = match header.address_family {
        netlink_packet_route::AddressFamily::Inet => Family::V4,
        netlink_packet_route::AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    (!header.flags.contains(RouteFlags::Cloned)).then(|| Route {
        table: TableId(u32::from(header.table)),
        destination: family.any(),
        kind: match header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::Unreachable => RouteKind::Unreachable,
            other => RouteKind::Other(other.into()),
        },
        gateway: None,
        device: None,
        source: None,
        metric: 0,
        mtu: None,
        onlink: false,
        protocol: header.protocol.into(),
    })
}

fn hop(message: &RouteNextHop) -> Hop {
    let mut hop = Hop {
        gateway: None,
        device: Some(message.interface_index),
        onlink: message.flags.contains(RouteNextHopFlags::Onlink),
    };
    for attribute in &message.attributes {
        read_hop(attribute, &mut hop);
    }
    hop
}

fn read_hop(attribute: &RouteAttribute, hop: &mut Hop) {
    match attribute {
        RouteAttribute::Gateway(value) => hop.gateway = ip(value),
        RouteAttribute::Via(RouteVia::Inet(value)) => hop.gateway = Some((*value).into()),
        RouteAttribute::Via(RouteVia::Inet6(value)) => hop.gateway = Some((*value).into()),
        RouteAttribute::Oif(value) => hop.device = Some(*value),
        _ => {}
    }
}

/// IPv6 shows an unreachable route with the device `lo`, IPv4 with none.
fn with_hop(route: Route, hop: &Hop, names: &Names) -> Route {
    let has_device = route.kind != RouteKind::Unreachable;
    Route {
        gateway: hop.gateway,
        device: hop.device.filter(|_| has_device).and_then(|index| names.get(&index).cloned()),
        onlink: hop.onlink,
        ..route
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn mtu(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(bytes) => Some(*bytes),
        _ => None,
    })
}

/// The message that adds or deletes a route.
pub(super) fn encode(route: &Route) -> Result<RouteMessage, NoSuchDevice> {
    let mut message = RouteMessage::default();
    message.header = header(route);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table.0));
    if !route.is_default() {
        let network = route.destination.network();
        attributes.push(RouteAttribute::Destination(network.into()));
    }
    if let Some(gateway) = route.gateway {
        attributes.push(gateway_attribute(route.family(), gateway));
    }
    if let Some(device) = &route.device {
        attributes.push(RouteAttribute::Oif(index_of(device)?));
    }
    if let Some(source) = route.source {
        attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    if route.metric != 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    if let Some(mtu) = route.mtu {
        attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    Ok(message)
}

/// Looked up each time: a device that was made again has another index.
pub(super) fn index_of(device: &IfName) -> Result<u32, NoSuchDevice> {
    nix::net::if_::if_nametoindex(device.as_str()).map_err(|_| NoSuchDevice(device.clone()))
}

fn header(route: &Route) -> RouteHeader {
    let on_link =
        route.kind == RouteKind::Unicast && route.gateway.is_none() && route.family() == Family::V4;
    RouteHeader {
        address_family: address_family(route.family()),
        destination_prefix_length: route.destination.prefix_len(),
        table: u8::try_from(route.table.0).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
        protocol: RouteProtocol::from(route.protocol),
        scope: match on_link {
            true => RouteScope::Link,
            false => RouteScope::Universe,
        },
        kind: match route.kind {
            RouteKind::Unicast => RouteType::Unicast,
            RouteKind::Unreachable => RouteType::Unreachable,
            RouteKind::Other(number) => RouteType::from(number),
        },
        flags: match route.onlink {
            true => RouteFlags::Onlink,
            false => RouteFlags::empty(),
        },
        ..RouteHeader::default()
    }
}

/// An IPv4 route may lead by an IPv6 gateway (RFC 5549), which is another attribute.
fn gateway_attribute(family: Family, gateway: IpAddr) -> RouteAttribute {
    match gateway {
        IpAddr::V6(v6) if family == Family::V4 => RouteAttribute::Via(RouteVia::Inet6(v6)),
        other => RouteAttribute::Gateway(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Parseable;
    use netlink_packet_route::route::RouteMessage;

    use super::super::Names;
    use crate::kernel::stage::captured;
    use crate::model::IfName;

    #[test]
    fn a_multipath_route_is_one_route_for_each_next_hop() {
        // Linux 6.18: ip route add 198.51.100.0/24 table 10001 proto 201 metric 7 src 192.0.2.2
        //             mtu lock 1400 nexthop via 192.0.2.1 weight 2
        //             nexthop via 203.0.113.1 dev wan0 onlink
        let body = captured(
            "02180000fcc900010000000008000f001127000008000100c6336400080006000700000014000800
             08000100040000000800020078050000 08000700c0000202 24000900
             100000010300000008000500c0000201 100004000300000008000500cb007101",
        );
        let names: Names = IfName::new("wan0").map(|name| (3, name)).into_iter().collect();
        let message = RouteMessage::parse(body.as_slice());
        let routes = message.map_or(Vec::new(), |m| super::decode(&m, &names));
        let shown: Vec<_> = routes.iter().map(ToString::to_string).collect();
        let rest = "dev wan0 table 10001 src 192.0.2.2 metric 7 mtu 1400";
        assert_eq!(
            shown,
            [
                format!("198.51.100.0/24 via 192.0.2.1 {rest} proto 201"),
                format!("198.51.100.0/24 via 203.0.113.1 {rest} onlink proto 201"),
            ]
        );
    }
}
