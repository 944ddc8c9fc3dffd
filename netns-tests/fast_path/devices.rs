//! Devices that are no plain cards: a VLAN and a bridge on the inside, a PPP line outside.

use homing::lab::{Protocol, Session};
use homing::model::Family;
use serde_json::Value;

use super::{assert_fast, wait_offloaded};
use crate::harness::{PATIENCE, Site, profile, until};

with_flowtables!(hosts_behind_a_vlan_and_a_bridge_take_it, sessions_over_a_ppp_line_take_it,);

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Addresses and a way out for a host of the LAN that stands on a device of its own, and the router's.
fn give_addresses(site: &Site, number: u8, device: &str, inside: &str) {
    site.router()
        .ip(&lines(&format!(
            "link set {device} up
             addr add 10.{number}.0.1/24 dev {device}
             addr add fd00:{number}::1/64 dev {device} nodad"
        )))
        .expect("the router's side");
    site.stage
        .layout()
        .lan()
        .ip(&lines(&format!(
            "link set {inside} up
             addr add 10.{number}.0.2/24 dev {inside}
             addr add fd00:{number}::2/64 dev {inside} nodad
             rule add from 10.{number}.0.2 lookup {number}
             route add default via 10.{number}.0.1 dev {inside} table {number}
             route add ::/0 via fd00:{number}::1 dev {inside} table {number}"
        )))
        .expect("the host's side");
    let (host, table) = (format!("fd00:{number}::2"), number.to_string());
    let ruled = site.in_lan("ip", &["-6", "rule", "add", "from", &host, "lookup", &table]);
    assert_eq!(ruled.code, Some(0), "{ruled:?}");
}

/// One of each kind from a host.
fn open(site: &Site, host: &str) -> Vec<Session> {
    let from = Some(host.parse().expect("an address"));
    [(Protocol::Tcp, 80), (Protocol::Udp, 53)]
        .into_iter()
        .map(|(kind, port)| {
            let to = site.server(0, port);
            let opened = || site.lan().open(kind, from, to);
            let last = until(PATIENCE, opened, Result::is_ok);
            last.unwrap_or_else(|error| panic!("{kind:?} from {host}: {error:?}")).expect("open")
        })
        .collect()
}

/// Kernels from 7 on (seen on 7.3) let a session in only by devices that are in the flowtable themselves, or whose
/// lower device is: neither a bridge nor a PPP line over a serial line.
fn takes_any_device() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let major = release.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.expect("a number") < 7
}

/// They go past the rules where the kernel has them do so, and work as ever where it does not.
fn assert_carried_or_served(site: &Site, sessions: &mut [Session]) {
    if takes_any_device() {
        wait_offloaded(site, sessions);
        assert_fast(site, sessions);
        return;
    }
    for _ in 0..100 {
        site.assert_stay(sessions, "along the rules");
    }
}

fn devices(site: &Site) -> Vec<Value> {
    site.status()["fast_path"]["devices"].as_array().cloned().unwrap_or_default()
}

fn hosts_behind_a_vlan_and_a_bridge_take_it(family: Family) {
    let mut site = Site::prepare(family, |builder| builder);
    let lan = site.stage.layout().lan();
    site.router()
        .ip(&lines(&format!(
            "link add link lan0 name lan0.9 type vlan id 9
             link add name br8 type bridge forward_delay 0
             link add name port8 type veth peer name eth8 netns {}
             link set port8 master br8
             link set port8 up",
            lan.name()
        )))
        .expect("devices of the router");
    lan.ip(&lines("link add link eth0 name eth0.9 type vlan id 9")).expect("a VLAN");
    give_addresses(&site, 9, "lan0.9", "eth0.9");
    give_addresses(&site, 8, "br8", "eth8");
    let lans = "  guests: { interface: lan0.9 }\n  printers: { interface: br8 }\n";
    site.run(&profile(&format!("{lans}policies: [{{ name: all, balance: round-robin }}]\n")));
    let [mut bridged, mut tagged] = [8, 9].map(|number| {
        let host = match family {
            Family::V4 => format!("10.{number}.0.2"),
            Family::V6 => format!("fd00:{number}::2"),
        };
        open(&site, &host)
    });
    wait_offloaded(&site, &mut tagged);
    assert_fast(&site, &mut tagged);
    assert_carried_or_served(&site, &mut bridged);
    let taken = devices(&site);
    assert!(["lan0.9", "br8"].iter().all(|device| taken.contains(&(*device).into())), "{taken:?}");

    // The bridge goes and comes back: what crossed it goes on.
    site.router().ip(&lines("link set port8 down")).expect("down");
    site.router().ip(&lines("link set port8 up")).expect("up");
    for session in &mut bridged {
        let speak = || session.ask(PATIENCE / 10).is_ok();
        until(PATIENCE, speak, |answered| *answered).expect("sessions go on");
    }
    assert_carried_or_served(&site, &mut bridged);
}

/// `pppd` at both ends of a pair of pseudo-terminals; the ISP is that of lte.
fn sessions_over_a_ppp_line_take_it(family: Family) {
    let mut site = Site::prepare(family, |builder| builder);
    let isp = site.stage.layout().find("lte").expect("an ISP").clone();
    let at_isp = site.stage.layout().isp(&isp);
    let (theirs, ours) = ("198.51.103.1", "198.51.103.66");
    let common = "nodetach noauth nodefaultroute noipv6 nolock noccp novj lcp-echo-interval 0";
    let other_end = format!(
        "/usr/sbin/ip netns exec {} /usr/sbin/pppd {common} notty {theirs}:{ours}",
        at_isp.name()
    );
    let mut args = common.split(' ').collect::<Vec<_>>();
    let ends = format!("{ours}:{theirs}");
    args.extend(["noipdefault", "ifname", "ppp0", &ends, "pty", &other_end]);
    let mut line = site.start_program(&site.router(), "/usr/sbin/pppd", &args, &[]);
    let up = || {
        line.assert_running();
        let shown = site.router().ip_json(&["address", "show", "dev", "ppp0"]);
        let shown = shown.map(|shown| shown.to_string()).unwrap_or_default();
        shown.contains(ours) && shown.contains("\"UP\"")
    };
    until(PATIENCE, up, |up| *up).expect("the line comes up");
    // Addresses and the ISP's way to us in IPv6, which others have from DHCP.
    site.router()
        .ip(&lines(
            "addr add 2001:db8:3::66/128 dev ppp0 nodad
             route add default dev ppp0 metric 105
             route add ::/0 dev ppp0 metric 105",
        ))
        .expect("our end");
    at_isp.ip(&lines("route replace 2001:db8:3::66/128 dev ppp0")).expect("the ISP's end");
    // The internet knows the way to both, as to the line's usual addresses.
    let internet = site.stage.layout().internet();
    let usual = [isp.customer(Family::V4).to_string(), isp.customer(Family::V6).to_string()];
    for (address, usual) in [ours, "2001:db8:3::66"].iter().zip(usual) {
        let route = internet.ip_json(&["route", "get", &usual]).expect("a route");
        let [gateway, device] = ["gateway", "dev"].map(|key| route[0][key].as_str().expect(key));
        internet
            .ip(&lines(&format!("route add {address} via {gateway} dev {device}")))
            .expect("a way");
    }
    let dsl = "uplinks:\n  dsl: { interface: ppp0, gateway: none, gateway6: none }\n";
    let policy = "policies: [{ name: all, uplinks: [dsl] }]\n";
    site.run(&profile(policy).replace("uplinks:\n", dsl));
    let mut sessions = open(&site, &site.host(1).to_string());
    let seen = sessions[0].seen.ip().to_string();
    assert!([ours, "2001:db8:3::66"].contains(&&*seen), "{seen}");
    assert_carried_or_served(&site, &mut sessions);
    assert!(devices(&site).contains(&"ppp0".into()), "{:?}", devices(&site));
}
