//! An IPv6 line that is configured by router advertisements.

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

use homing::lab::{Namespace, Protocol};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::harness::{PATIENCE, Site, V6, one_policy, until};

/// Sends one advertisement (RFC 4861, section 4.2) by which hosts make themselves addresses in the
/// prefix, and a default route to the sender.
fn advertise(isp: &Namespace, prefix: Ipv6Addr) {
    let mut packet = vec![134, 0, 0, 0, 64, 0];
    packet.extend(1800_u16.to_be_bytes());
    packet.extend([0; 8]);
    // Prefix information (section 4.6.2): on-link and autonomous.
    packet.extend([3, 4, 64, 0xc0]);
    packet.extend(3600_u32.to_be_bytes());
    packet.extend(3600_u32.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(prefix.octets());
    let send = || -> std::io::Result<usize> {
        let index = std::fs::read_to_string("/proc/thread-self/net/if_inet6")?
            .lines()
            .find(|line| line.ends_with("cust"))
            .and_then(|line| u32::from_str_radix(line.split(' ').nth(1)?, 16).ok())
            .expect("the customer's side");
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(socket2::Protocol::ICMPV6))?;
        socket.set_multicast_hops_v6(255)?;
        let from: Ipv6Addr = "fe80::1".parse().expect("an address");
        socket.bind(&SocketAddrV6::new(from, 0, 0, index).into())?;
        let all_hosts: Ipv6Addr = "ff02::1".parse().expect("an address");
        socket.send_to(&packet, &SocketAddrV6::new(all_hosts, 0, 0, index).into())
    };
    isp.enter(send).expect("enter the ISP").expect("send");
}

fn advertised_defaults(site: &Site) -> Vec<Value> {
    let routes = site.router().ip_json(&["-6", "route", "show", "default", "proto", "ra"]).unwrap();
    routes.as_array().cloned().unwrap_or_default()
}

/// Forwarding deletes advertised defaults, unless the kernel was told first to accept them.
#[test]
fn an_advertised_default_survives_the_first_start_and_is_learned() {
    let mut site = Site::prepare(V6, |builder| builder.isp("fiber", |isp| isp.configured = false));
    let isp = site.stage.isp("fiber").unwrap();
    let prefix = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
    let look = || {
        advertise(isp.space(), prefix);
        advertised_defaults(&site)
    };
    until(PATIENCE, look, |found| found.len() == 1).expect("the kernel accepts advertisements");
    let own = || {
        let shown = site.router().ip_json(&["-6", "addr", "show", "dev", "wan0"]).unwrap();
        let addresses = shown[0]["addr_info"].as_array().cloned().unwrap_or_default();
        let settled = |a: &&Value| a["scope"] == "global" && a["tentative"] != true;
        let found = addresses.iter().find(settled).and_then(|a| a["local"].as_str()?.parse().ok());
        found as Option<IpAddr>
    };
    let address = until(PATIENCE, own, Option::is_some).expect("an address").unwrap();
    site.stage.allow_source("fiber", address.into());
    site.run(&one_policy("uplinks: [fiber]"));
    assert_eq!(advertised_defaults(&site).len(), 1, "the default is gone");
    let fiber = site.status()["uplinks"]["fiber"].clone();
    assert_eq!(fiber["gateway6"], "fe80::1", "{fiber}");
    let session = site.open(Protocol::Udp, 1, site.server(0, 53));
    assert_eq!(session.seen.ip(), address);
    site.assert_settled();
}
