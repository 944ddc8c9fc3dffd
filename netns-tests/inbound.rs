//! Sessions from the internet: their replies leave by the link they came in on.

use std::net::SocketAddr;

use homing::lab::{self, Protocol, Servers};
use homing::model::Family;

use crate::harness::{Site, both, one_policy};

both!(the_router_answers_by_the_entry_link, a_host_behind_a_port_forward_answers_by_the_entry_link,);

const UPLINKS: [&str; 3] = ["fiber", "cable", "lte"];

/// Everything that the LANs open goes by fiber: an answer that follows the policies is wrong.
fn fiber_only() -> String {
    one_policy("uplinks: [fiber]")
}

fn customer(site: &Site, uplink: &str) -> std::net::IpAddr {
    let isp = site.stage.isp(uplink).unwrap();
    isp.layout().customer(site.family)
}

fn the_router_answers_by_the_entry_link(family: Family) {
    let site = Site::start(family, &fiber_only());
    let own: Vec<_> = UPLINKS.iter().map(|uplink| customer(&site, uplink)).collect();
    let _servers = Servers::start(&site.router(), &own, &[8080], &[5060]).unwrap();
    for address in own {
        let caller = Some(site.server(1, 0).ip());
        let tcp = site.outside().open(Protocol::Tcp, caller, SocketAddr::new(address, 8080));
        assert_eq!(tcp.unwrap().seen.ip(), site.server(1, 0).ip(), "tcp to {address}");
        let udp = site.outside().open(Protocol::Udp, caller, SocketAddr::new(address, 5060));
        udp.unwrap_or_else(|error| panic!("udp to {address}: {error}"));
        let ping = site.outside().ping(caller, address);
        ping.unwrap_or_else(|error| panic!("ping to {address}: {error}"));
    }
}

/// A table of the administrator's own, loaded before homing.
fn port_forward(site: &Site) {
    let dmz = lab::dmz_server(site.family);
    let (word, literal, icmp) = match site.family {
        Family::V4 => ("ip", dmz.to_string(), "icmp type echo-request"),
        Family::V6 => ("ip6", format!("[{dmz}]"), "icmpv6 type echo-request"),
    };
    let script = format!(
        "table inet portfw {{
    chain pre {{
        type nat hook prerouting priority dstnat
        iifname \"wan*\" meta nfproto {family} tcp dport 8443 dnat {word} to {literal}:443
        iifname \"wan*\" meta nfproto {family} udp dport 5060 dnat {word} to {literal}:5060
        iifname \"wan*\" {icmp} dnat {word} to {dmz}
    }}
}}\n",
        family = if site.family == Family::V4 { "ipv4" } else { "ipv6" },
    );
    site.router().nft(&script).unwrap();
}

fn a_host_behind_a_port_forward_answers_by_the_entry_link(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    port_forward(&site);
    site.run(&fiber_only());
    let dmz = lab::dmz_server(family);
    let behind = Servers::start(&site.stage.layout().dmz(), &[dmz], &[443], &[5060]).unwrap();
    let caller = Some(site.server(1, 0).ip());
    let mut sessions = Vec::new();
    for uplink in UPLINKS {
        let address = customer(&site, uplink);
        for (protocol, port) in [(Protocol::Tcp, 8443), (Protocol::Udp, 5060)] {
            let session = site.outside().open(protocol, caller, SocketAddr::new(address, port));
            let session = session.unwrap_or_else(|e| panic!("{protocol:?} by {uplink}: {e}"));
            assert_eq!(Some(session.seen.ip()), caller, "the host sees who calls");
            sessions.push(session);
        }
        let ping = site.outside().ping(caller, address);
        ping.unwrap_or_else(|error| panic!("ping by {uplink}: {error}"));
    }
    assert_eq!(behind.sources().values().sum::<u64>(), 6);
    site.reload(&one_policy("uplinks: [cable]"));
    site.assert_stay(&mut sessions, "after a reload");
    site.assert_settled();
}
