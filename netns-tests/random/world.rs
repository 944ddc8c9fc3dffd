//! Random valid profiles, random states of the router's surroundings, random packets.

use std::net::IpAddr;

use homing::lab::{self, Layout};
use homing::model::Family;

use super::dice::Dice;
use super::shot::{MAGIC, Place, Shot};
use crate::harness::{PROBES, Site};

pub const UPLINKS: [&str; 3] = ["fiber", "cable", "lte"];

/// Networks that fiber's ISP routes to the site; hosts of the LAN have addresses there.
pub const PREFIXES: [&str; 2] = ["198.18.1.0/24", "2001:db8:f001::/64"];
pub const IN_PREFIXES: [&str; 2] = ["198.18.1.5", "2001:db8:f001::5"];

const NETS: [&str; 10] = [
    "10.1.0.0/27",
    "10.1.0.16/28",
    "10.2.0.0/24",
    "198.18.1.0/24",
    "0.0.0.0/0",
    "fd00:1::/123",
    "fd00:1::/64",
    "fd00:2::/64",
    "2001:db8:f001::/64",
    "\"::/0\"",
];

const TARGETS: [&str; 8] = [
    "203.0.113.0/24",
    "203.0.113.10",
    "198.51.100.0/24",
    "192.0.2.0/24",
    "2001:db8:ffff::/48",
    "2001:db8:100::/48",
    "\"2001:db8:ffff::20\"",
    "10.2.0.0/24",
];

const PORTS: [u16; 5] = [53, 80, 443, 5060, 8080];

fn quote(net: &str) -> String {
    format!("\"{}\"", net.trim_matches('"'))
}

/// A profile. Weights and translation change from one to the next as well.
pub fn profile(dice: &mut Dice) -> String {
    let mut text = "version: 1\nsite: random\nuplinks:\n".to_owned();
    for (index, name) in UPLINKS.iter().enumerate() {
        let weight = if name == &"lte" { dice.below(4) } else { 1 + dice.below(5) };
        let nat = *dice.pick(&["auto", "auto", "auto", "always", "never"]);
        let prefixes = match index == 0 && dice.percent(60) {
            true => format!(", prefixes: [{}, {}]", quote(PREFIXES[0]), quote(PREFIXES[1])),
            false => String::new(),
        };
        text += &format!(
            "  {name}: {{ interface: wan{index}, weight: {weight}, nat: {nat}{prefixes} }}\n"
        );
    }
    text += PROBES;
    text += "lans:\n  office: { interface: lan0 }\n  dmz: { interface: dmz0 }\n";
    let policies: Vec<String> = match dice.percent(30) {
        true => crowd(dice),
        false => (0..dice.below(7)).map(|n| policy(dice, n)).collect(),
    };
    if !policies.is_empty() {
        text += &format!("policies:\n{}", policies.concat());
    }
    text + &firewall(dice)
}

/// So many policies that they are looked up; a few of them as usual.
fn crowd(dice: &mut Dice) -> Vec<String> {
    let numbers: Vec<usize> = (0..160).collect();
    let mut matched: Vec<String> =
        dice.shuffle(&numbers).into_iter().map(|number| narrow(dice, number)).collect();
    for _ in 0..3 {
        let place = dice.below(matched.len());
        matched.insert(place, matches(dice));
    }
    matched.iter().enumerate().map(|(n, matches)| policy_of(dice, n, matches)).collect()
}

/// A match that few packets have, and that overlaps few others of its kind.
fn narrow(dice: &mut Dice, number: usize) -> String {
    let host = 10 + number % 20;
    let from = format!("from: [10.1.0.{host}, \"fd00:1::{host:x}\"]");
    let to = *dice.pick(&[
        "to: [203.0.113.10, \"2001:db8:ffff::10\"]",
        "to: [203.0.113.16/28, \"2001:db8:ffff::20/124\"]",
        "to: [203.0.113.53, \"2001:db8:ffff::53\"]",
        "to: [198.51.100.0/24, \"2001:db8:100::/64\"]",
    ]);
    let (port, last) = (*dice.pick(&PORTS), 9000 + number);
    let protocol = *dice.pick(&["tcp", "udp", "[tcp, udp]", "icmp", "47"]);
    match number / 20 {
        0 if number < 8 => from,
        0 => format!("ports: [{last}]"),
        1 if number < 30 => format!("{to}, ports: [{port}]"),
        1 => format!("from: [10.1.0.{host}, dmz, \"fd00:1::{host:x}\"], {to}, ports: [{last}]"),
        2 => format!("{from}, protocol: {protocol}"),
        3 | 4 => format!("{from}, ports: [{port}, \"8000-{last}\"]"),
        5 => format!("{from}, {to}, protocol: {protocol}"),
        _ => format!("{from}, {to}, ports: [{port}]"),
    }
}

fn policy(dice: &mut Dice, number: usize) -> String {
    let matches = if dice.percent(85) { matches(dice) } else { String::new() };
    policy_of(dice, number, &matches)
}

fn policy_of(dice: &mut Dice, number: usize, matches: &str) -> String {
    let mut text = format!("  - {{ name: p{number}");
    if !matches.is_empty() {
        text += &format!(", match: {{ {matches} }}");
    }
    if dice.percent(80) {
        let members = dice.some(&UPLINKS);
        let members = dice.shuffle(&members);
        // It may have the weight 0, and then not be alone.
        let alone = members == ["lte"];
        let members = if alone { vec!["lte", "cable"] } else { members };
        let split = 1 + dice.below(members.len());
        let (first, rest) = members.split_at(split);
        text += &match rest {
            [] => format!(", uplinks: [{}]", first.join(", ")),
            rest => format!(", uplinks: [[{}], [{}]]", first.join(", "), rest.join(", ")),
        };
    }
    let balance = *dice.pick(&["weighted", "round-robin", "source-hash", "source-hash"]);
    let by = *dice.pick(&["none", "source", "source-destination"]);
    let down = *dice.pick(&["try", "unreachable", "drop", "main"]);
    text += &format!(", balance: {balance}, persistence: {}", persistence(by));
    text + &format!(", when-all-down: {down} }}\n")
}

fn persistence(by: &str) -> String {
    match by {
        "none" => "none".to_owned(),
        by => format!("{{ by: {by}, timeout: 10m }}"),
    }
}

fn matches(dice: &mut Dice) -> String {
    let mut keys = Vec::new();
    if dice.percent(45) {
        let mut from: Vec<String> = Vec::new();
        if dice.percent(50) {
            from.push((*dice.pick(&["office", "dmz"])).to_owned());
        }
        if from.is_empty() || dice.percent(40) {
            from.push(quote(NETS[dice.below(NETS.len())]));
        }
        keys.push(format!("from: [{}]", from.join(", ")));
    }
    if dice.percent(40) {
        let to: Vec<String> = dice.some(&TARGETS[..]).iter().take(3).map(|n| quote(n)).collect();
        keys.push(format!("to: [{}]", to.join(", ")));
    }
    if dice.percent(35) {
        let protocols = ["[tcp]", "[udp]", "[icmp]", "[tcp, udp]", "[47, 253]", "[udp, icmp, 50]"];
        keys.push(format!("protocol: {}", dice.pick(&protocols)));
    } else if dice.percent(35) {
        let ports = ["[80]", "[443, 53]", "[\"5000-6000\"]", "[80, \"400-500\"]", "[\"1-65535\"]"];
        keys.push(format!("ports: {}", dice.pick(&ports)));
    }
    if keys.is_empty() || dice.percent(20) {
        keys.push(format!("dscp: {}", dice.pick(&["[46]", "[0, 10]", "[34, 46]"])));
    }
    keys.join(", ")
}

fn firewall(dice: &mut Dice) -> String {
    let forward = *dice.pick(&["closed", "open"]);
    let input = *dice.pick(&["closed", "open"]);
    let entries = [
        "{ in: fiber, to: router, protocol: tcp, ports: [80, 443] }",
        "{ to: 10.1.0.0/24, protocol: udp }",
        "{ in: cable, ports: [53] }",
        "{ to: \"fd00:2::/64\" }",
        "{ in: lte, protocol: icmp }",
    ];
    let allow = match dice.percent(60) {
        true => format!(", allow: [{}]", dice.some(&entries).join(", ")),
        false => String::new(),
    };
    format!("firewall: {{ forward: {forward}, input: {input}{allow} }}\n")
}

/// Routes that somebody else may have made: through an uplink, elsewhere, forbidding.
pub const ROUTES: [&str; 7] = [
    "203.0.113.53/32 via 198.51.102.1 dev wan1",
    "2001:db8:ffff::53/128 via fe80::1 dev wan1",
    "198.51.100.0/24 via 10.2.0.10 dev dmz0",
    "2001:db8:100::/48 via fd00:2::10 dev dmz0",
    "unreachable 203.0.113.20/32",
    "unreachable 2001:db8:ffff::20/128",
    "blackhole 192.0.2.128/25",
];

fn parse(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// The packets of one round, each a session of its own.
pub fn shots(dice: &mut Dice, site: &Site, down: &[&str], first: u32, count: u32) -> Vec<Shot> {
    let layout = site.stage.layout();
    let mut shots: Vec<Shot> = Vec::new();
    while shots.len() < count as usize {
        let number = shots.len() as u32;
        let shot = shot(dice, layout, first + number, 20_000 + number as u16);
        let dead = match shot.place {
            Place::Isp(isp) => {
                let works = shot.from.is_ipv4() || layout.isps[isp].ipv6;
                down.contains(&UPLINKS[isp]) || !works
            }
            Place::Lan | Place::Dmz | Place::Router => false,
        };
        if !dead && !shots.iter().any(|other| clash(other, &shot) || clash(&shot, other)) {
            shots.push(shot);
        }
    }
    shots
}

/// Whether one may belong to the other's session, or be taken for it after translation.
fn clash(one: &Shot, other: &Shot) -> bool {
    let ends = [other.from, other.to];
    let far = match one.place {
        Place::Isp(_) => one.from,
        Place::Lan | Place::Dmz | Place::Router => one.to,
    };
    let told_apart = one.has_ports() || one.is_icmp();
    one.protocol == other.protocol && !told_apart && (ends.contains(&far) || ends.contains(&one.to))
}

fn shot(dice: &mut Dice, layout: &Layout, number: u32, id: u16) -> Shot {
    let family = *dice.pick(&Family::BOTH);
    let place = match dice.below(20) {
        0..12 => Place::Lan,
        12..14 => Place::Dmz,
        14 => Place::Router,
        _ => Place::Isp(dice.below(3)),
    };
    let from = source(dice, layout, family, place);
    let to = match place {
        Place::Isp(number) => inward(dice, layout, family, number),
        Place::Lan | Place::Dmz | Place::Router => outward(dice, layout, family, place),
    };
    let icmp = if family == Family::V4 { 1 } else { 58 };
    Shot {
        serial: MAGIC | number,
        place,
        from,
        to,
        protocol: *dice.pick(&[6, 6, 6, 6, 17, 17, 17, 17, icmp, icmp, 47, 50, 253]),
        ports: (id, *dice.pick(&PORTS)),
        dscp: *dice.pick(&[0, 0, 10, 34, 46]),
    }
}

fn source(dice: &mut Dice, layout: &Layout, family: Family, place: Place) -> IpAddr {
    let v6 = usize::from(family == Family::V6);
    let host = layout.host(family, dice.below(20) as u16);
    match place {
        Place::Lan if dice.percent(15) => parse(&IN_PREFIXES)[v6],
        Place::Lan => host,
        Place::Dmz => lab::dmz_server(family),
        Place::Router => {
            let isps = layout.isps.iter().filter(|isp| family == Family::V4 || isp.ipv6);
            let own: Vec<IpAddr> = isps.map(|isp| isp.customer(family)).collect();
            *dice.pick(&[&own[..], &[lab::lan_router(family)]].concat())
        }
        Place::Isp(_) if dice.percent(25) => host,
        Place::Isp(number) if dice.percent(30) => layout.isps[number].gateway(family),
        Place::Isp(_) => lab::server(family, dice.below(4)),
    }
}

/// To the internet mostly; also what is near, and what is nobody's.
fn outward(dice: &mut Dice, layout: &Layout, family: Family, place: Place) -> IpAddr {
    let isp = dice.pick(&layout.isps);
    let v6 = usize::from(family == Family::V6);
    let group = parse(&["224.0.0.251", "ff05::fb"])[v6];
    let everybody = parse(&["10.1.255.255", "ff02::1"])[v6];
    let nowhere = parse(&["192.0.2.9", "2001:db8:ffff::9"])[v6];
    let forbidden = parse(&["192.0.2.200", "2001:db8:ffff::20"])[v6];
    let near = match place {
        Place::Dmz => layout.host(family, 1),
        Place::Lan | Place::Router | Place::Isp(_) => lab::dmz_server(family),
    };
    match dice.below(24) {
        0..15 => lab::server(family, dice.below(4)),
        15 => nowhere,
        16 => forbidden,
        17 => near,
        18 if isp.ipv6 || family == Family::V4 => isp.gateway(family),
        19 if place != Place::Router => lab::lan_router(family),
        20 if place != Place::Router && (isp.ipv6 || family == Family::V4) => isp.customer(family),
        21 if place == Place::Lan => group,
        22 if place == Place::Lan => everybody,
        _ => lab::server(family, 2),
    }
}

fn inward(dice: &mut Dice, layout: &Layout, family: Family, number: usize) -> IpAddr {
    match dice.below(10) {
        0..5 => layout.isps[number].customer(family),
        5..8 => layout.host(family, dice.below(20) as u16),
        _ => lab::dmz_server(family),
    }
}
