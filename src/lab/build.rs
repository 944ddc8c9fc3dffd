//! What to type to build a site: pure, from its [`Layout`] to lines of `ip -batch`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::layout::{CUSTOMER_SIDE, Handover, ISP_LINK_LOCAL, SERVERS_V4, SERVERS_V6};
use super::layout::{
    caller_address, dmz_router, dmz_server, farm_address, host_address, lan_router,
};
use super::{IspLayout, Layout};
use crate::model::Family;

/// Settings of every namespace before its first interface: no waiting for duplicate addresses,
/// no router solicitations, addresses that survive a link going down.
pub(super) const SYSCTLS: [(&str, &str); 3] = [
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
];

/// Settings of those who carry other people's packets, and keep addresses over a lost link.
pub(super) const ROUTER_SYSCTLS: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/all/keep_addr_on_down", "1"),
    ("ipv6/conf/default/keep_addr_on_down", "1"),
];

/// The DMZ switch's port towards the router.
const ROUTER_PORT: &str = "router";

/// The DMZ switch's port towards a server.
fn farm_port(index: u8) -> String {
    format!("port{index}")
}

/// The namespaces and the wires between them, for the namespace that we are in: nothing of it
/// stays here.
pub(super) fn wires(layout: &Layout) -> (Vec<String>, Vec<String>) {
    let spaces = layout.all();
    let spaces = spaces.iter().map(|ns| format!("netns add {}", ns.name()));
    let router = layout.router();
    let mut links = Vec::new();
    for isp in &layout.isps {
        let (space, net) = (layout.isp(isp), layout.internet());
        links.push(line_wire(layout, isp));
        links.push(wire(space.name(), "core", net.name(), &internet_side(isp)));
    }
    links.push(wire(router.name(), "lan0", layout.lan().name(), "eth0"));
    let dmz = layout.dmz();
    // With servers beside it, the host is also the switch: its eth0 is a bridge, and this a port.
    let peer = if layout.farm == 0 { "eth0" } else { ROUTER_PORT };
    links.push(wire(router.name(), "dmz0", dmz.name(), peer));
    for index in 0..layout.farm {
        let server = layout.farm_space(index);
        links.push(wire(server.name(), "eth0", dmz.name(), &farm_port(index)));
    }
    (spaces.collect(), links)
}

/// The wire between router and ISP.
pub(super) fn line_wire(layout: &Layout, isp: &IspLayout) -> String {
    let (router, space) = (layout.router(), layout.isp(isp));
    wire(router.name(), &isp.interface, space.name(), CUSTOMER_SIDE)
}

fn wire(here: &str, name: &str, there: &str, peer: &str) -> String {
    format!("link add name {name} netns {here} type veth peer name {peer} netns {there}")
}

/// The internet's interface towards an ISP.
pub(super) fn internet_side(isp: &IspLayout) -> String {
    format!("isp{}", isp.number)
}

/// The addresses between an ISP and the internet: the internet's end, the ISP's end.
fn transit(isp: &IspLayout) -> ([Ipv4Addr; 2], [Ipv6Addr; 2]) {
    let k = isp.number;
    let v6 = |host| Ipv6Addr::new(0xfd00, 0xffff, u16::from(k), 0, 0, 0, 0, host);
    ([Ipv4Addr::new(10, 255, k, 1), Ipv4Addr::new(10, 255, k, 2)], [v6(1), v6(2)])
}

/// Everything in the internet's namespace.
pub(super) fn internet(layout: &Layout) -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned()];
    lines.extend(SERVERS_V4.iter().map(|a| format!("addr add {a}/32 dev lo")));
    lines.extend(SERVERS_V6.iter().map(|a| format!("addr add {a}/128 dev lo nodad")));
    for index in 0..layout.callers {
        lines.push(format!("addr add {}/32 dev lo", caller_address(Family::V4, index)));
        lines.push(format!("addr add {}/128 dev lo nodad", caller_address(Family::V6, index)));
    }
    for isp in &layout.isps {
        let (v4, v6) = transit(isp);
        let dev = internet_side(isp);
        lines.push(format!("addr add {}/30 dev {dev}", v4[0]));
        lines.push(format!("addr add {}/64 dev {dev} nodad", v6[0]));
        lines.push(format!("link set {dev} up"));
    }
    lines.extend(layout.isps.iter().flat_map(way_back));
    lines
}

/// The internet's routes to our addresses at one ISP, and to nothing else of ours.
pub(super) fn way_back(isp: &IspLayout) -> Vec<String> {
    let dev = internet_side(isp);
    let line: [IpNet; 2] = [isp.customer4.into(), isp.customer6.into()];
    // Who configures the line itself may have any address there.
    let ours = |net: IpNet| if isp.configured { net.addr().into() } else { net.trunc() };
    let mut nets: Vec<IpNet> = line.map(ours).into();
    nets.extend(isp.prefixes.iter().copied());
    let (v4, v6) = transit(isp);
    nets.iter()
        .map(|net| match net {
            IpNet::V4(_) => format!("route replace {net} via {} dev {dev}", v4[1]),
            IpNet::V6(_) => format!("route replace {net} via {} dev {dev}", v6[1]),
        })
        .collect()
}

/// An ISP's namespace, its customer's side apart.
pub(super) fn isp_core(isp: &IspLayout) -> Vec<String> {
    let (v4, v6) = transit(isp);
    vec![
        "link set lo up".to_owned(),
        format!("addr add {}/30 dev core", v4[1]),
        format!("addr add {}/64 dev core nodad", v6[1]),
        "link set core up".to_owned(),
        format!("route add default via {} dev core", v4[0]),
        format!("route add default via {} dev core", v6[0]),
    ]
}

/// The ISP's side of the line: link and addresses.
pub(super) fn isp_line(isp: &IspLayout) -> Vec<String> {
    let dev = CUSTOMER_SIDE;
    let mut lines = vec![line_link(dev, isp)];
    match isp.handover {
        Handover::Gateway => {
            let length = isp.customer4.prefix_len();
            lines.push(format!("addr replace {}/{length} dev {dev}", isp.gateway4));
        }
        Handover::PointToPoint => lines.push(format!(
            "addr replace {} peer {}/32 dev {dev}",
            isp.gateway4,
            isp.customer4.addr()
        )),
    }
    if isp.ipv6 {
        let length = isp.customer6.prefix_len();
        lines.push(format!("addr replace {}/{length} dev {dev} nodad", isp.gateway6));
        lines.push(format!("addr replace {ISP_LINK_LOCAL}/64 dev {dev} nodad"));
    }
    lines.extend(isp.pages.iter().map(|page| {
        let nodad = if page.addr().is_ipv6() { " nodad" } else { "" };
        format!("addr replace {page} dev {dev}{nodad}")
    }));
    lines.push(format!("link set {dev} up"));
    lines.extend(isp_routes(isp));
    lines
}

/// The ISP's routes to us; the kernel forgets them when the link goes down.
fn isp_routes(isp: &IspLayout) -> Vec<String> {
    let dev = CUSTOMER_SIDE;
    let prefixes = isp.prefixes.iter().map(|net| match (net, isp.handover) {
        (_, Handover::PointToPoint) => format!("route replace {net} dev {dev}"),
        (IpNet::V4(_), _) => format!("route replace {net} via {} dev {dev}", isp.customer4.addr()),
        (IpNet::V6(_), _) => format!("route replace {net} via {} dev {dev}", isp.customer6.addr()),
    });
    prefixes.collect()
}

/// A line without ARP works over a veth pair when both ends have the same hardware address.
fn line_link(dev: &str, isp: &IspLayout) -> String {
    let mtu = isp.mtu;
    match isp.handover {
        Handover::Gateway => format!("link set {dev} mtu {mtu}"),
        Handover::PointToPoint => format!(
            "link set {dev} mtu {mtu} arp off addrgenmode none address 02:00:5e:00:53:{:02x}",
            isp.number
        ),
    }
}

/// The router's side of the line: link, addresses, and the defaults that DHCP and RA would give.
pub(super) fn router_line(isp: &IspLayout) -> Vec<String> {
    let dev = &isp.interface;
    let mut lines = vec![line_link(dev, isp), format!("link set {dev} up")];
    if isp.configured {
        lines.extend(router_addresses(isp));
        lines.extend(router_defaults(isp));
    }
    lines
}

/// The router's addresses on the line.
pub(super) fn router_addresses(isp: &IspLayout) -> Vec<String> {
    let dev = &isp.interface;
    let mut lines = match isp.handover {
        Handover::Gateway => vec![format!("addr add {} dev {dev}", isp.customer4)],
        Handover::PointToPoint => {
            vec![format!("addr add {} peer {}/32 dev {dev}", isp.customer4.addr(), isp.gateway4)]
        }
    };
    if isp.ipv6 {
        lines.push(format!("addr add {} dev {dev} nodad", isp.customer6));
        if isp.handover == Handover::PointToPoint {
            lines.push(format!("addr add fe80::2/64 dev {dev} nodad"));
        }
    }
    lines
}

/// The router's defaults through the line.
pub(super) fn router_defaults(isp: &IspLayout) -> Vec<String> {
    let (dev, metric) = (&isp.interface, isp.metric());
    let point_to_point = isp.handover == Handover::PointToPoint;
    let mut lines = Vec::new();
    lines.push(match point_to_point {
        true => format!("route add default dev {dev} metric {metric}"),
        false => format!("route add default via {} dev {dev} metric {metric}", isp.gateway4),
    });
    if isp.ipv6 {
        lines.push(match point_to_point {
            true => format!("route add ::/0 dev {dev} metric {metric}"),
            false => {
                format!("route add ::/0 via {ISP_LINK_LOCAL} dev {dev} metric {metric}")
            }
        });
    }
    lines
}

/// The router's namespace: lines, LAN, DMZ.
pub(super) fn router(layout: &Layout) -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned()];
    for (dev, address, length) in
        [("lan0", lan_router as fn(Family) -> IpAddr, 16), ("dmz0", dmz_router, 24)]
    {
        lines.push(format!("link set {dev} up"));
        if layout.inside {
            lines.push(format!("addr add {}/{length} dev {dev}", address(Family::V4)));
            lines.push(format!("addr add {}/64 dev {dev} nodad", address(Family::V6)));
        }
    }
    lines.extend(layout.isps.iter().flat_map(router_line));
    lines
}

/// The LAN: every host an address of one interface.
pub(super) fn lan(layout: &Layout) -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
    for index in 0..layout.hosts {
        lines.push(format!("addr add {}/16 dev eth0", host_address(Family::V4, index)));
        lines.push(format!("addr add {}/64 dev eth0 nodad", host_address(Family::V6, index)));
    }
    lines.push(format!("route add default via {}", lan_router(Family::V4)));
    lines.push(format!("route add default via {}", lan_router(Family::V6)));
    lines
}

/// The DMZ: one host, and the switch if there are servers.
pub(super) fn dmz(layout: &Layout) -> Vec<String> {
    let mut lines = Vec::new();
    if layout.farm > 0 {
        lines.push("link add name eth0 type bridge forward_delay 0 mcast_snooping 0".to_owned());
        let ports = std::iter::once(ROUTER_PORT.to_owned()).chain((0..layout.farm).map(farm_port));
        for port in ports {
            lines.push(format!("link set {port} master eth0"));
            lines.push(format!("link set {port} up"));
        }
    }
    lines.extend(dmz_host([dmz_server(Family::V4), dmz_server(Family::V6)]));
    lines
}

/// A server of the DMZ.
pub(super) fn farm_server(index: u8) -> Vec<String> {
    dmz_host([farm_address(Family::V4, index), farm_address(Family::V6, index)])
}

/// One host of the DMZ, with these addresses.
fn dmz_host([v4, v6]: [IpAddr; 2]) -> Vec<String> {
    vec![
        "link set lo up".to_owned(),
        "link set eth0 up".to_owned(),
        format!("addr add {v4}/24 dev eth0"),
        format!("addr add {v6}/64 dev eth0 nodad"),
        format!("route add default via {}", dmz_router(Family::V4)),
        format!("route add default via {}", dmz_router(Family::V6)),
    ]
}
