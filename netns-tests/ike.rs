//! Real VPN gateways behind one address: strongSwan at both ends, IKEv2 over UDP 500 and 4500. Its
//! ESP is the one in user space, which travels in UDP 4500; bare ESP is sent packet by packet in
//! `modes.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::process::Command;

use homing::lab::{Namespace, dmz_router};
use homing::model::Family;

use crate::harness::callers::caller;
use crate::harness::program::Program;
use crate::harness::{Outcome, PATIENCE, Site, both, farm, until};

both!(tunnels_are_made_used_and_renewed_with_one_gateway_for_each_client,);

const GATEWAYS: usize = 2;
const CLIENTS: usize = 4;

const PLUGINS: &str = "random nonce gmp pem pkcs1 x509 pubkey kdf hmac sha2 sha1 aes \
                       kernel-libipsec kernel-netlink socket-default vici";
/// What the plugins can do; how strong it is does not matter here.
// A client that changes its address (MOBIKE) is another client to whoever sees addresses alone.
const PROPOSALS: &str = "proposals = aes128-sha256-modp2048\n    mobike = no\n";
const ESP_PROPOSALS: &str = "esp_proposals = aes128-sha256\n";

/// One strongSwan.
struct Ike {
    _program: Program,
    directory: String,
    space: Namespace,
}

fn tunnels_are_made_used_and_renewed_with_one_gateway_for_each_client(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    site.add_callers();
    let _gateways: Vec<Ike> = (0..GATEWAYS).map(|index| gateway(&site, index)).collect();
    let check = "check: { icmp: {}, interval: 200ms, timeout: 150ms, fall: 3, rise: 2 }";
    let service = "  tunnel: { virtual: [fiber, cable], group: web, persistence: { mode: vpn } }\n";
    site.run(&farm::profile(family, check, &[""; GATEWAYS], service));
    site.wait_status("both gateways are usable", |status| {
        let servers = status["groups"]["web"]["servers"].as_object();
        servers.is_some_and(|all| all.values().all(|server| server["usable"] == true))
    });
    let clients = Ike::start(&site, &site.stage.layout().internet(), "clients", &clients(&site));

    let mut gateways = BTreeMap::new();
    for index in 0..CLIENTS {
        clients.well(&["--initiate", "--child", &format!("net{index}")]);
        gateways.insert(index, clients.gateway_of(index));
        clients.assert_tunnel(&site, index);
    }
    assert_eq!(gateways.values().collect::<BTreeSet<_>>().len(), GATEWAYS, "{gateways:?}");

    for (index, gateway) in &gateways {
        let ike = format!("tunnel{index}");
        clients.well(&["--terminate", "--ike", &ike]);
        clients.well(&["--initiate", "--child", &format!("net{index}")]);
        assert_eq!(&clients.gateway_of(*index), gateway, "client {index} came again");
        clients.assert_tunnel(&site, *index);
    }
    for index in 0..CLIENTS {
        assert_eq!(one_server(&site, index), 1, "servers of client {index}");
    }
    site.assert_settled();
}

/// How many servers a client has sessions with, over both ports.
fn one_server(site: &Site, client: usize) -> usize {
    let family = if site.family == Family::V4 { "ipv4" } else { "ipv6" };
    let from = caller(site.family, client).to_string();
    let listed = site.command("conntrack", &["-L", "-f", family, "-p", "udp", "-s", &from]);
    let answering = |line: &str| Some(line.split(" src=").nth(2)?.split(' ').next()?.to_owned());
    let ports = |port: &str| listed.stdout.contains(&format!("dport={port} "));
    assert!(ports("500") && ports("4500"), "{listed:?}");
    listed.stdout.lines().filter_map(answering).collect::<BTreeSet<_>>().len()
}

/// A host of its own in the DMZ.
fn gateway(site: &Site, index: usize) -> Ike {
    let (name, address) = (farm::name(index), farm::address(site.family, index));
    let space = Namespace::named(format!("{}-g{name}", site.stage.layout().prefix));
    // Not by `ip -n`, which would make it in mounts of its own.
    let made = Command::new("ip").args(["netns", "add", space.name()]).status();
    assert!(made.is_ok_and(|status| status.success()), "make a namespace");
    let dmz = site.stage.layout().dmz();
    dmz.ip(&[
        format!("link add link eth0 name gate{name} type macvlan mode bridge"),
        format!("link set gate{name} netns {} name eth0", space.name()),
    ])
    .expect("make a host");
    let (bits, more) = if site.family == Family::V4 { (24, "") } else { (64, "nodad") };
    let mut lines = vec![
        "link set lo up".to_owned(),
        "link set eth0 up".to_owned(),
        format!("address add {address}/{bits} dev eth0 {more}"),
        format!("route add default via {}", dmz_router(site.family)),
    ];
    // What each client wants to reach: for each the gateway needs an address of its own.
    lines.extend((1..=CLIENTS).map(|number| format!("address add 10.98.0.{number}/32 dev lo")));
    space.ip(&lines).expect("furnish a host");
    let text = format!(
        "connections {{ tunnel {{
    {PROPOSALS} local_addrs = {address}
    pools = inner
    local {{ auth = psk
        id = gateway-{name} }}
    remote {{ auth = psk }}
    children {{ net {{ {ESP_PROPOSALS} local_ts = 10.98.0.0/24
        remote_ts = dynamic }} }}
}} }}
pools {{ inner {{ addrs = 10.97.{index}.0/24 }} }}
secrets {{ ike {{ secret = \"of a test\" }} }}
"
    );
    Ike::start(site, &space, &format!("gateway-{name}"), &text)
}

/// All clients in one process, each with an address of its own.
fn clients(site: &Site) -> String {
    let to = site.at("fiber", 500).ip();
    let connection = |index: usize| {
        let from: IpAddr = caller(site.family, index);
        format!(
            "tunnel{index} {{
    {PROPOSALS} local_addrs = {from}
    remote_addrs = {to}
    vips = 0.0.0.0
    local {{ auth = psk
        id = client-{index} }}
    remote {{ auth = psk
        id = %any }}
    children {{ net{index} {{ {ESP_PROPOSALS} remote_ts = 10.98.0.{}/32 }} }}
}}
",
            index + 1
        )
    };
    let connections: String = (0..CLIENTS).map(connection).collect();
    format!("connections {{ {connections} }}\nsecrets {{ ike {{ secret = \"of a test\" }} }}\n")
}

impl Ike {
    fn start(site: &Site, space: &Namespace, name: &str, connections: &str) -> Ike {
        let directory = site.path(name);
        fs::create_dir_all(&directory).expect("make a directory");
        let socket = format!("plugins {{ vici {{ socket = unix://{directory}/vici }} }}");
        let text = format!(
            "charon-systemd {{
    load = {PLUGINS}
    port = 500
    port_nat_t = 4500
    journal {{ default = -1 }}
    filelog {{ stderr {{ default = 1 }} }}
    {socket}
}}
swanctl {{ load = {PLUGINS} }}
"
        );
        fs::write(format!("{directory}/strongswan.conf"), text).expect("write a configuration");
        fs::write(format!("{directory}/swanctl.conf"), connections).expect("write connections");
        let configuration = format!("{directory}/strongswan.conf");
        let environment = [("STRONGSWAN_CONF", &*configuration)];
        let program = site.start_program(space, "charon-systemd", &[], &environment);
        let ike = Ike { _program: program, directory, space: space.clone() };
        let file = format!("{}/swanctl.conf", ike.directory);
        let load = || ike.swanctl(&["--load-all", "--file", &file]);
        until(2 * PATIENCE, load, |outcome| outcome.code == Some(0)).expect("load connections");
        ike
    }

    fn swanctl(&self, args: &[&str]) -> Outcome {
        let uri = format!("unix://{}/vici", self.directory);
        let configuration = format!("STRONGSWAN_CONF={}/strongswan.conf", self.directory);
        let always = [&*configuration, "timeout", "-k", "1", "20", "swanctl"];
        let all = [&always[..], args, &["--uri", &uri]].concat();
        let output = self.space.output("/usr/bin/env", &all).expect("run swanctl");
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn well(&self, args: &[&str]) -> String {
        let outcome = self.swanctl(args);
        assert_eq!(outcome.code, Some(0), "swanctl {args:?}: {outcome:?}");
        outcome.stdout
    }

    /// Who is at the other end of a client's tunnel.
    fn gateway_of(&self, client: usize) -> String {
        let listed = self.well(&["--list-sas", "--ike", &format!("tunnel{client}")]);
        let name = listed.split("remote '").nth(1).and_then(|rest| rest.split('\'').next());
        name.unwrap_or_else(|| panic!("no tunnel of client {client}: {listed}")).to_owned()
    }

    /// A client reaches what is behind its gateway.
    fn assert_tunnel(&self, site: &Site, client: usize) {
        let inner = format!("10.98.0.{}", client + 1);
        let echo = || site.out_there("ping", &["-c", "1", "-W", "2", &inner]);
        let outcome = until(PATIENCE, echo, |outcome| outcome.code == Some(0));
        outcome.unwrap_or_else(|last| panic!("client {client}: {last:?}"));
    }
}
