//! As much of everything as a profile may have: it stands within seconds, routes, and follows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use homing::lab::Protocol;
use homing::model::Family;

use crate::harness::{PATIENCE, PROBES, Site, both, profile, until};

both!(a_thousand_addresses_on_an_uplink, sixty_uplinks, two_hundred_and_fifty_four_policies,);

/// The program under test is not optimised, and other scenarios run beside it.
const STANDS: Duration = PATIENCE;

fn start(site: &mut Site, text: &str) {
    let begun = Instant::now();
    site.run(text);
    assert!(begun.elapsed() < STANDS, "ready after {:?}", begun.elapsed());
}

/// New sessions leave an uplink within a second of the kernel's word that its carrier is gone.
fn fails_over(site: &Site, uplink: &str) {
    let since = site.lose_carrier(uplink);
    let quick = site.lan().timeout(Duration::from_millis(100));
    let wanted: Vec<_> =
        (0..8).map(|i| (Protocol::Tcp, Some(site.host(i)), site.server(0, 80))).collect();
    let left = || {
        let opened = quick.open_all(&wanted);
        opened.iter().all(|s| s.as_ref().is_ok_and(|s| site.uplink(s) != uplink))
    };
    until(PATIENCE, left, |left| *left).expect("new sessions leave it");
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    site.stage.isp(uplink).unwrap().heal().unwrap();
    let back = || {
        let opened = quick.open_all(&wanted);
        opened.iter().flatten().any(|session| site.uplink(session) == uplink)
    };
    until(PATIENCE, back, |back| *back).expect("new sessions come back to it");
}

fn a_thousand_addresses_on_an_uplink(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let (option, nodad) = if family == Family::V4 { ("-4", "") } else { ("-6", " nodad") };
    let address = |number: u32| match family {
        Family::V4 => format!("192.0.{}.{}/32", 2 + (number >> 8), number & 255),
        Family::V6 => format!("2001:db8:aaaa::{number:x}/128"),
    };
    let lines = |verb: &str| -> Vec<String> {
        let tail = if verb == "add" { nodad } else { "" };
        (1..=1000).map(|n| format!("addr {verb} {} dev wan0{tail}", address(n))).collect()
    };
    site.router().ip(&lines("add")).unwrap();
    start(&mut site, &profile(""));
    let shown = site.status()["uplinks"]["fiber"]["addresses"].as_array().map(Vec::len);
    assert!(shown >= Some(1000), "{shown:?} addresses");
    let mut sessions = site.open_many(Protocol::Tcp, 0..40);
    assert!(site.shares(&sessions)["fiber"] > 0.0);
    // What has one of them as its source leaves by fiber, from the router too.
    let route =
        ["route", "get", site.server(0, 80).ip().to_string().as_str(), "from"].map(str::to_owned);
    let source = address(777);
    let source = source.split('/').next().unwrap();
    let args: Vec<&str> =
        std::iter::once(option).chain(route.iter().map(String::as_str)).chain([source]).collect();
    let found = site.command("ip", &args).stdout;
    assert!(found.contains("dev wan0"), "{found}");
    site.assert_settled();
    fails_over(&site, "fiber");
    // All go and come at once: a thousand notices each.
    for verb in ["del", "add"] {
        site.router().ip(&lines(verb)).unwrap();
        site.wait_settled();
    }
    site.assert_stay(&mut sessions, "addresses came and went");
}

fn name(number: usize) -> String {
    ["fiber", "cable", "lte"].get(number).map_or(format!("line{number}"), ToString::to_string)
}

/// Three of them lead to the internet; the others to a gateway that leads nowhere.
fn sixty_uplinks(family: Family) {
    const ALL: usize = 60;
    let mut site = Site::prepare(family, |b| b);
    let (mut lines, mut far) = (Vec::new(), Vec::new());
    let elsewhere = site.stage.layout().internet();
    for number in 3..ALL {
        let dev = format!("wan{number}");
        lines.extend([
            format!("link add {dev} type veth peer name far{number} netns {}", elsewhere.name()),
            format!("link set {dev} up"),
            format!("addr add 198.18.{number}.2/24 dev {dev}"),
            format!("addr add 2001:db8:f{number:03}::2/64 dev {dev} nodad"),
            format!("route add default via 198.18.{number}.1 dev {dev} metric {}", 500 + number),
            format!(
                "route add default via 2001:db8:f{number:03}::1 dev {dev} metric {}",
                500 + number
            ),
        ]);
        far.extend([
            format!("link set far{number} up"),
            format!("addr add 198.18.{number}.1/24 dev far{number}"),
            format!("addr add 2001:db8:f{number:03}::1/64 dev far{number} nodad"),
        ]);
    }
    site.router().ip(&lines).unwrap();
    elsewhere.ip(&far).unwrap();
    let mut text = "version: 1\nsite: test\nuplinks:\n".to_owned();
    for number in 0..ALL {
        let probe = if number < 3 { "default" } else { "wire" };
        text += &format!("  {}: {{ interface: wan{number}, probe: {probe} }}\n", name(number));
    }
    text += PROBES;
    text += "  wire: { targets: [gateway], hold-down: 0s }\n";
    text += "lans: { office: { interface: lan0 }, dmz: { interface: dmz0 } }\npolicies:\n";
    text += "  - { name: all, match: { ports: [8080] } }\n";
    text += "  - { name: default, uplinks: [[fiber, cable, lte]], balance: round-robin }\n";
    start(&mut site, &text);
    let status = site.wait_status("all uplinks answer", |status| {
        status["uplinks"].as_object().unwrap().values().all(|uplink| uplink["health"] == "up")
    });
    let usable = status["uplinks"].as_object().unwrap().values().filter(|u| u["usable"] == true);
    assert_eq!(usable.count(), ALL, "{status:#}");
    let shares = status["policies"]["all"]["members"].as_object().unwrap();
    assert_eq!(shares.len(), ALL);
    assert!(shares.values().all(|m| m["share"].as_f64() > Some(0.0)), "{shares:?}");
    // The status knows it a moment before the kernel does.
    let mut sessions = Vec::new();
    let shares = || {
        sessions = site.open_many(Protocol::Tcp, 0..30);
        site.shares(&sessions)
    };
    let spread = |shares: &BTreeMap<String, f64>| shares.values().all(|share| *share > 20.0);
    until(PATIENCE, shares, spread).unwrap_or_else(|last| panic!("{last:?}"));
    site.assert_settled();
    fails_over(&site, "fiber");
    // All but the three go at once.
    let down: Vec<String> = (3..ALL).map(|n| format!("link set far{n} down")).collect();
    elsewhere.ip(&down).unwrap();
    site.wait_status("57 uplinks are down", |status| {
        let uplinks = status["uplinks"].as_object().unwrap().values();
        uplinks.filter(|u| u["usable"] == true).count() == 3
    });
    site.wait_settled();
    let opened: Vec<_> =
        (0..20).map(|host| site.way(Protocol::Tcp, host, site.server(1, 8080))).collect();
    assert_eq!(opened.len(), 20);
    site.assert_stay(&mut sessions, "others went down");
}

fn two_hundred_and_fifty_four_policies(family: Family) {
    const ALL: usize = 254;
    let mut site = Site::prepare(family, |b| b);
    let policies = |last: &str| {
        let mut text = "policies:\n".to_owned();
        for number in 1..ALL {
            let port = 20_000 + number;
            let uplink = name(number % 3);
            text += &format!("  - {{ name: p{number}, match: {{ ports: [{port}] }}, ");
            text += &format!("uplinks: [[{uplink}]], persistence: {{ by: source }} }}\n");
        }
        profile(&format!("{text}  - {{ name: last, match: {{ ports: [80, 443] }}, {last} }}\n"))
    };
    start(&mut site, &policies("balance: round-robin"));
    assert_eq!(
        site.status()["policies"].as_object().map(|p| p.len()),
        Some(ALL + 1),
        "with the implied one"
    );
    let mut sessions = site.open_many(Protocol::Tcp, 0..12);
    for number in [1, 100, 253] {
        let port = (20_000 + number).to_string();
        let (from, to) = (site.host(3).to_string(), site.server(0, 80).ip().to_string());
        let asked = ["explain", "--json", "--from", &from, "--to", &to, "--port", &port];
        let answer = site.homing(&asked).json();
        assert_eq!(answer["policy"], format!("p{number}"), "{answer:#}");
        assert_eq!(answer["uplink"], name(number % 3), "{answer:#}");
    }
    fails_over(&site, "fiber");
    let begun = Instant::now();
    site.reload(&policies("uplinks: [cable]"));
    assert!(begun.elapsed() < STANDS, "reloaded after {:?}", begun.elapsed());
    assert_eq!(site.way_of(30), "cable");
    site.assert_stay(&mut sessions, "after a reload");
    site.assert_settled();
}
