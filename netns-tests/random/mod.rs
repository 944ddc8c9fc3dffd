//! What `explain` says against what happens: random packets through random profiles.
//!
//! The witnesses are the kernel's own table of sessions (`conntrack -E`) and captures at every place
//! that a packet may come to. `HOMING_SEED` and `HOMING_SHOTS` change what is tried.

mod compare;
mod dice;
mod shot;
mod witness;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use homing::api::{Asked, Client};
use homing::lab::Fault;
use ipnet::IpNet;
use serde_json::Value;

use crate::harness::{PATIENCE, Site, V4, until};
use compare::{Ids, Verdicts, mismatch};
use dice::Dice;
use shot::{Place, Shot};
use witness::{Captures, Events};
use world::{IN_PREFIXES, PREFIXES, ROUTES, UPLINKS};

const ROUNDS: u32 = 20;

/// What is tried usually. It meets every kind of answer; others may miss a rare one.
const SEED: u64 = 20_261;
const SHOTS: u32 = 1000;

fn number<T: std::str::FromStr>(variable: &str, usual: T) -> T {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn explain_agrees_with_the_kernel() {
    let seed = number("HOMING_SEED", SEED);
    let each = number("HOMING_SHOTS", SHOTS) / ROUNDS;
    println!("HOMING_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut site = prepare();
    let mut verdicts = Verdicts::default();
    let mut looked_up = 0;
    for round in 0..ROUNDS {
        let profile = world::profile(&mut dice);
        let (down, routes) = disturb(&site, &mut dice);
        match round {
            0 => site.run(&profile),
            _ => site.reload(&profile),
        }
        settle(&site, &down);
        looked_up += u32::from(looks_policies_up(&site));
        let shots = world::shots(&mut dice, &site, &down, round * each, each);
        let wrong = play(&site, &shots, &down, &mut verdicts);
        let about = format!("{profile}down: {down:?}\nroutes: {routes:#?}");
        assert!(
            wrong.is_empty(),
            "round {round}, HOMING_SEED={seed}:\n{}\n{about}",
            wrong.join("\n")
        );
        for name in &down {
            site.stage.isp(name).unwrap().heal().unwrap();
        }
    }
    println!("{verdicts:#?}");
    if (seed, each) == (SEED, SHOTS / ROUNDS) {
        verdicts.assert_all_kinds_were_seen();
        assert!(looked_up >= 3, "policies were looked up in {looked_up} rounds");
    }
}

/// Whether there are so many policies that they are no longer walked one by one.
fn looks_policies_up(site: &Site) -> bool {
    let rules = site.command("nft", &["list", "chain", "inet", "homing", "policies4"]).stdout;
    rules.contains(". ct mark map")
}

/// The usual site, and more addresses; every source may leave everywhere: each packet is looked at
/// one by one.
fn prepare() -> Site {
    let mut site = Site::prepare(V4, |builder| {
        let prefixes = PREFIXES.map(|net| net.parse::<IpNet>().unwrap());
        builder.isp("fiber", |isp| isp.prefixes.extend(prefixes)).isp("lte", |isp| isp.ipv6 = false)
    });
    for isp in UPLINKS {
        site.stage.allow_source(isp, "0.0.0.0/0".parse().unwrap());
        site.stage.allow_source(isp, "::/0".parse().unwrap());
    }
    let hosts = [
        format!("addr add {}/24 dev eth0", IN_PREFIXES[0]),
        format!("addr add {}/64 dev eth0 nodad", IN_PREFIXES[1]),
    ];
    site.stage.layout().lan().ip(&hosts).unwrap();
    let router = ["addr add 198.18.1.1/24 dev lan0", "addr add 2001:db8:f001::1/64 dev lan0 nodad"];
    site.router().ip(&router.map(str::to_owned)).unwrap();
    // Each refusal must be heard of.
    let unlimited = [("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0")];
    site.router().sysctl(&unlimited).unwrap();
    site
}

/// The ISP knows where our inside is, as no honest one would; a pulled cable makes it forget.
fn way_in(site: &Site, name: &str) {
    let isp = site.stage.isp(name).unwrap();
    let layout = isp.layout();
    let (v4, v6) = (layout.customer4.addr(), layout.customer6.addr());
    let mut lines =
        ["10.1.0.0/16", "10.2.0.0/24"].map(|net| format!("route replace {net} via {v4}")).to_vec();
    if layout.ipv6 {
        lines.extend(["fd00:1::/64", "fd00:2::/64"].map(|n| format!("route replace {n} via {v6}")));
    }
    isp.space().ip(&lines).unwrap();
}

/// Pulls cables, and makes routes of others.
fn disturb(site: &Site, dice: &mut Dice) -> (Vec<&'static str>, Vec<&'static str>) {
    let down: Vec<&str> = UPLINKS.into_iter().filter(|_| dice.percent(30)).collect();
    for name in UPLINKS {
        match down.contains(&name) {
            true => site.stage.isp(name).unwrap().fail(Fault::Carrier).unwrap(),
            false => way_in(site, name),
        }
    }
    let gone = ROUTES.map(|route| format!("route del {}", route.split(" via").next().unwrap()));
    site.router().try_ip(&gone).unwrap();
    let routes: Vec<&str> = ROUTES.into_iter().filter(|_| dice.percent(50)).collect();
    let lines: Vec<String> = routes.iter().map(|route| format!("route add {route}")).collect();
    site.router().try_ip(&lines).unwrap();
    (down, routes)
}

/// Nothing is left to be done, health will not change by itself, and no session is left over.
fn settle(site: &Site, down: &[&str]) {
    for name in UPLINKS.iter().filter(|name| !down.contains(name)) {
        site.wait_status("it is up wherever it has an address", |status| {
            let families = status["uplinks"][name]["families"].as_object().into_iter().flatten();
            families
                .map(|(_, of)| (&of["health"], of["reason"].as_str().unwrap_or_default()))
                .all(|(health, why)| health == "up" || why.contains("no usable"))
        });
    }
    site.wait_settled();
    for family in ["ipv4", "ipv6"] {
        assert_eq!(site.command("conntrack", &["-F", "-f", family]).code, Some(0));
    }
}

/// Asks, then sends, one after the other: a binding that one learns holds for the next.
fn play(site: &Site, shots: &[Shot], down: &[&str], verdicts: &mut Verdicts) -> Vec<String> {
    let layout = site.stage.layout();
    let mut places = vec![(Place::Lan, layout.lan()), (Place::Dmz, layout.dmz())];
    places.extend(layout.isps.iter().enumerate().map(|(n, isp)| (Place::Isp(n), layout.isp(isp))));
    let captures = Captures::start(&places);
    places.push((Place::Router, layout.router()));
    let spaces: BTreeMap<Place, _> = places.into_iter().collect();
    let events = Events::start(site);
    wait_for_witness(site, &events, &spaces[&Place::Lan]);
    let mut said = Vec::new();
    for shot in shots {
        said.push(ask(site, shot));
        shot.fire(&spaces[&shot.place]);
    }
    let ids = Ids::read(site);
    let last = sentinel(site, 2);
    last.fire(&spaces[&Place::Lan]);
    events.wait_for(&last);
    let wrong = || {
        let entries = events.all();
        let look = |(shot, said)| mismatch(shot, said, &ids, &entries, &captures, down);
        shots.iter().zip(&said).filter_map(look).collect::<Vec<_>>()
    };
    let wrong = until(Duration::from_secs(2), wrong, |wrong| wrong.is_empty()).err();
    said.iter().for_each(|said| verdicts.count(said));
    wrong.unwrap_or_default()
}

/// A datagram to the router, which changes nothing and is always told of.
fn sentinel(site: &Site, id: u16) -> Shot {
    Shot {
        serial: 0,
        place: Place::Lan,
        from: site.host(63),
        to: homing::lab::lan_router(V4),
        protocol: 17,
        ports: (id, 9),
        dscp: 0,
    }
}

/// Events are told from some moment on after the start.
fn wait_for_witness(site: &Site, events: &Events, lan: &homing::lab::Namespace) {
    let mut id = 1000;
    let fire = || {
        id += 1;
        sentinel(site, id).fire(lan);
        events.all().len()
    };
    until(PATIENCE, fire, |told| *told > 0).expect("conntrack tells of sessions");
}

fn ask(site: &Site, shot: &Shot) -> Value {
    let input = match shot.place {
        Place::Isp(number) => Some(UPLINKS[number].to_owned()),
        Place::Lan => Some("office".to_owned()),
        Place::Dmz | Place::Router => None,
    };
    let port = |port| shot.has_ports().then_some(port);
    let asked = Asked {
        from: shot.from,
        to: shot.to,
        protocol: Some(shot.protocol.to_string()),
        port: port(shot.ports.1),
        source_port: port(shot.ports.0),
        dscp: Some(shot.dscp),
        input,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::new(std::path::Path::new(&site.path("run")));
    let answer = runtime.block_on(client.get(&asked.path()));
    answer.unwrap_or_else(|error| panic!("{shot:?}: {error}"))
}
