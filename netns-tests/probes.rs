//! Probes on the real kernel: every kind of target, well and badly answered; which way they go; and
//! whose fault it is.

use std::net::IpAddr;

use homing::lab::Fault;
use homing::model::Family;

use crate::harness::{
    Certificate, GOOD_TEXT, HOST, HTTP_PORT, HTTPS_PORT, Mood, PATIENCE, Site, TCP_PORT, Targets,
    both, one_policy, until, with_uplinks,
};

both!(
    a_gateway_is_judged_by_its_echoes,
    a_gateway_alone_says_nothing_of_what_lies_behind_it,
    a_host_is_judged_by_its_echoes,
    a_tcp_port_is_judged_by_its_connections,
    a_page_is_judged_by_status_and_text,
    a_page_by_tls_is_judged_by_its_certificate_too,
    a_resolver_is_judged_by_its_answers,
    probes_leave_by_their_uplink_whatever_its_state,
    a_device_that_is_made_again_is_asked_anew,
    a_new_address_is_asked_from_at_once,
    a_dead_target_convicts_nobody_and_counts_when_it_is_back,
    a_quorum_of_two_needs_two,
    a_captive_portal_is_told_as_one,
    the_gateway_tells_where_the_break_is,
);

/// An address of the internet that nothing else answers at.
fn target(family: Family) -> IpAddr {
    match family {
        Family::V4 => [203, 0, 113, 99].into(),
        Family::V6 => [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x99].into(),
    }
}

/// As in an URL.
fn host_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// A site that asks these; losses and slowness alone change no health, for they last too long here.
fn asking(targets: &[String], more: &str) -> String {
    let list: String = targets.iter().map(|target| format!("      - {target}\n")).collect();
    let probes = format!(
        "probes:\n  default:\n    targets:\n{list}    interval: 250ms\n    hold-down: 0s\n    \
         degraded: {{ loss: 100%, rtt: 1m, jitter: 1m }}\n{more}"
    );
    let usual = with_uplinks(&["weight: 1"; 3]);
    let (before, after) = usual.split_once("probes:").unwrap();
    let (_, after) = after.split_once("lans:").unwrap();
    format!("{before}{probes}lans:{after}")
}

/// A site whose uplinks ask one target of ours, and that target.
fn one_target(family: Family, ask: &str) -> (Site, Targets) {
    let mut site = Site::prepare(family, |b| b);
    let internet = site.stage.layout().internet();
    let (address, nodad) = (target(family), if family == Family::V6 { " nodad" } else { "" });
    internet.ip(&[format!("addr add {address} dev lo{nodad}")]).unwrap();
    let targets = Targets::start(&internet, address);
    std::fs::write(site.dir.join("trusted.pem"), &targets.trusted).unwrap();
    let trust = format!("SSL_CERT_FILE={}", site.path("trusted.pem"));
    site.run_by(&["/usr/bin/env", &trust]);
    site.run(&asking(&[ask.to_owned()], ""));
    (site, targets)
}

/// Fiber is answered in each of these ways, well in between; nobody else notices.
fn judge(site: &Site, targets: &Targets, bad: &[(Mood, &str)]) {
    let fiber = site.stage.isp("fiber").unwrap().layout().customer(site.family);
    site.wait_health("fiber", "up");
    for (mood, why) in bad {
        targets.treat(fiber, *mood);
        let reason = site.wait_health("fiber", "down");
        assert!(reason.starts_with(why), "{mood:?}: {reason}");
        assert_eq!(site.health("cable"), ("up".to_owned(), String::new()), "{mood:?}");
        targets.treat(fiber, Mood::Good);
        assert_eq!(site.wait_health("fiber", "up"), "", "after {mood:?}");
    }
}

fn a_gateway_is_judged_by_its_echoes(family: Family) {
    let site = Site::start(family, &asking(&["gateway".to_owned()], ""));
    let key = if family == Family::V4 { "gateway" } else { "gateway6" };
    let status = site.status();
    let gateway = status["uplinks"]["fiber"][key].as_str().unwrap().parse().unwrap();
    let targets = Targets::start(site.stage.isp("fiber").unwrap().space(), gateway);
    judge(&site, &targets, &[(Mood::Silent, "no answer"), (Mood::Late, "no answer")]);
}

fn a_gateway_alone_says_nothing_of_what_lies_behind_it(family: Family) {
    let site = Site::start(family, &asking(&["gateway".to_owned()], ""));
    site.fail(&["fiber"], Fault::GatewayOnly);
    site.fail(&["cable"], Fault::Silent);
    site.wait_health("cable", "down");
    assert_eq!(site.health("fiber").0, "up", "nobody asks further than the gateway");
    site.heal(&["cable"]);
    site.wait_health("cable", "up");
}

fn a_host_is_judged_by_its_echoes(family: Family) {
    let (site, targets) = one_target(family, &format!("icmp: \"{}\"", target(family)));
    judge(&site, &targets, &[(Mood::Silent, "no answer"), (Mood::Late, "no answer")]);
}

fn a_tcp_port_is_judged_by_its_connections(family: Family) {
    let to = format!("tcp: \"{}:{TCP_PORT}\"", host_of(target(family)));
    let (site, targets) = one_target(family, &to);
    judge(&site, &targets, &[(Mood::Silent, "no answer"), (Mood::Refused, "connection refused")]);
}

const LOGIN: &str = "HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n";
const MAD: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const OTHER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nplease log in";

fn a_page_is_judged_by_status_and_text(family: Family) {
    let url = format!("http://{}:{HTTP_PORT}/", host_of(target(family)));
    let ask = format!("http: {{ url: \"{url}\", status: 200, body: \"{GOOD_TEXT}\" }}");
    let (site, targets) = one_target(family, &ask);
    let bad = [
        (Mood::Silent, "no answer"),
        (Mood::Refused, "connection refused"),
        (Mood::Late, "no answer"),
        (Mood::Page(LOGIN), "captive portal: HTTP status 302 Found to http://login.example/"),
        (Mood::Page(MAD), "HTTP status 500 Internal Server Error"),
        (Mood::Page(EMPTY), "captive portal: HTTP status 204 No Content"),
        (Mood::Page(OTHER), "captive portal: another body than expected"),
        (Mood::Page("220 mail.example\r\n"), "HTTP: "),
    ];
    judge(&site, &targets, &bad);
}

fn a_page_by_tls_is_judged_by_its_certificate_too(family: Family) {
    let url = format!("https://{}:{HTTPS_PORT}/", host_of(target(family)));
    let ask = format!("http: {{ url: \"{url}\", host: {HOST} }}");
    let (site, targets) = one_target(family, &ask);
    let bad = [
        (Mood::Refused, "connection refused"),
        (Mood::Late, "no answer"),
        (Mood::Certificate(Certificate::OtherHost), "TLS: invalid peer certificate"),
        (Mood::Certificate(Certificate::Untrusted), "TLS: invalid peer certificate"),
        (Mood::Page(LOGIN), "captive portal: HTTP status 302 Found to http://login.example/"),
    ];
    judge(&site, &targets, &bad);
}

fn a_resolver_is_judged_by_its_answers(family: Family) {
    let ask = format!("dns: {{ server: \"{}\", query: example.com }}", target(family));
    let (site, targets) = one_target(family, &ask);
    let bad = [
        (Mood::Silent, "no answer"),
        (Mood::Refused, "connection refused"),
        (Mood::Late, "no answer"),
        (Mood::Code(2), "the resolver failed (SERVFAIL)"),
        (Mood::Code(3), "the name does not exist (NXDOMAIN)"),
        (Mood::Code(5), "the resolver refused (REFUSED)"),
        (Mood::OtherQuestion, "no answer"),
    ];
    judge(&site, &targets, &bad);
}

/// Waits until an ISP sees a probe of ours, from the address that we have there now.
fn wait_probed(site: &Site, uplink: &str) {
    let isp = site.stage.isp(uplink).unwrap();
    isp.forget().unwrap();
    let (own, to) = (isp.layout().customer(site.family), site.server(0, 0).ip());
    let seen = |all: &std::collections::BTreeSet<homing::lab::Sighting>| {
        let probe = |s: &&homing::lab::Sighting| {
            s.destination == to && s.protocol.contains("icmp") && s.source == own
        };
        all.iter().any(|s| probe(&s))
    };
    until(PATIENCE, || isp.sightings().unwrap(), seen).expect("a probe by its own uplink");
}

fn probes_leave_by_their_uplink_whatever_its_state(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [fiber, cable, lte]"));
    for uplink in ["fiber", "cable", "lte"] {
        wait_probed(&site, uplink);
    }
    for order in ["drain", "disable", "enable"] {
        assert_eq!(site.homing(&["uplink", "fiber", order]).code, Some(0));
        site.wait_settled();
        wait_probed(&site, "fiber");
        site.fail(&["fiber"], Fault::Silent);
        site.wait_health("fiber", "down");
        wait_probed(&site, "fiber");
        site.heal(&["fiber"]);
        // Losses are remembered for a while.
        site.wait_status("it is seen to recover", |status| {
            let of = &status["uplinks"]["fiber"]["families"][family.as_str()];
            of["health"] == "up" || of["health"] == "degraded"
        });
        wait_probed(&site, "fiber");
    }
}

/// Fiber is asked by the line that it has now: it falls, and comes back.
fn assert_followed(site: &Site) {
    site.wait_health("fiber", "up");
    wait_probed(site, "fiber");
    site.fail(&["fiber"], Fault::Silent);
    let reason = site.wait_health("fiber", "down");
    assert!(reason.contains("no answer"), "{reason}");
    site.heal(&["fiber"]);
    site.wait_health("fiber", "up");
}

fn usual() -> String {
    let targets = [
        "icmp: 203.0.113.10",
        "icmp: 203.0.113.20",
        "icmp: \"2001:db8:ffff::10\"",
        "icmp: \"2001:db8:ffff::20\"",
    ];
    asking(&targets.map(str::to_owned), "")
}

fn a_device_that_is_made_again_is_asked_anew(family: Family) {
    let site = Site::start(family, &usual());
    site.stage.delete_line("fiber").unwrap();
    assert!(!site.wait_health("fiber", "down").is_empty());
    site.stage.create_line("fiber", true).unwrap();
    assert_followed(&site);
}

fn a_new_address_is_asked_from_at_once(family: Family) {
    let mut site = Site::start(family, &usual());
    site.wait_health("fiber", "up");
    let change = |isp: &mut homing::lab::IspLayout| {
        isp.gateway4 = [192, 0, 2, 65].into();
        isp.customer4 = homing::lab::net4([192, 0, 2, 66], 26);
        isp.gateway6 = "2001:db8:beef::1".parse().unwrap();
        isp.customer6 = homing::lab::net_of6("2001:db8:beef::2".parse().unwrap(), 64);
    };
    site.stage.renumber("fiber", change).unwrap();
    wait_probed(&site, "fiber");
    site.wait_health("fiber", "up");
    site.stage.forget_old_addresses("fiber").unwrap();
    assert_followed(&site);
}

/// From now on this server of the internet answers no echoes: of nobody, or of one caller.
fn hush(site: &Site, server: usize, caller: Option<IpAddr>) {
    let (ip, icmp) = match site.family {
        Family::V4 => ("ip", "icmp"),
        Family::V6 => ("ip6", "icmpv6"),
    };
    let from = caller.map(|caller| format!("{ip} saddr {caller} ")).unwrap_or_default();
    let to = site.server(server, 0).ip();
    let rule = format!("{from}{ip} daddr {to} {icmp} type echo-request drop");
    let script = format!(
        "table inet hush {{\nchain in {{\ntype filter hook input priority 0\n{rule}\n}}\n}}\n"
    );
    site.stage.layout().internet().nft(&script).unwrap();
}

fn hush_no_more(site: &Site) {
    site.stage.layout().internet().nft("delete table inet hush\n").unwrap();
}

fn a_dead_target_convicts_nobody_and_counts_when_it_is_back(family: Family) {
    let site = Site::start(family, &(usual().replace("hold-down", "quorum: 2\n    hold-down")));
    let dead = format!("icmp {}", site.server(1, 0).ip());
    let named = format!("{} answers nowhere and does not count", site.server(1, 0).ip());
    hush(&site, 1, None);
    for uplink in ["fiber", "cable", "lte"] {
        site.wait_status("the dead target is named", |status| {
            let of = &status["uplinks"][uplink]["families"][family.as_str()];
            of["health"] == "up" && of["reason"].as_str().is_some_and(|r| r.contains(&named))
        });
    }
    let log = site.log();
    let told = |log: &str, what: &str| log.lines().any(|l| l.contains(&dead) && l.contains(what));
    assert!(told(&log, "answers over no uplink, while others do: it does not count"), "{log}");
    hush_no_more(&site);
    for uplink in ["fiber", "cable", "lte"] {
        site.wait_status("it is named no more", |status| {
            let of = &status["uplinks"][uplink]["families"][family.as_str()];
            of["health"] == "up" && of["reason"] == ""
        });
    }
    let log = site.log();
    assert!(told(&log, "answers again: it counts"), "{log}");
    assert!(!log.contains(" is down (was up)"), "{log}");
    // It counts: with a quorum of two, its silence towards one uplink is that one's fault.
    let fiber = site.stage.isp("fiber").unwrap().layout().customer(family);
    hush(&site, 1, Some(fiber));
    site.wait_health("fiber", "down");
    assert_eq!(site.health("cable").0, "up");
    hush_no_more(&site);
    site.wait_health("fiber", "up");
}

fn a_quorum_of_two_needs_two(family: Family) {
    let with =
        |quorum: u32| usual().replace("hold-down", &format!("quorum: {quorum}\n    hold-down"));
    let site = Site::start(family, &with(2));
    site.wait_health("fiber", "up");
    let fiber = site.stage.isp("fiber").unwrap().layout().customer(family);
    hush(&site, 1, Some(fiber));
    let reason = site.wait_health("fiber", "down");
    assert!(reason.starts_with("no answer"), "{reason}");
    assert_eq!(site.health("cable").0, "up");
    site.reload(&with(1));
    site.wait_health("fiber", "up");
    hush_no_more(&site);
}

/// What is asked in the lab: the gateway, a host and a page.
fn lab(family: Family) -> String {
    let shipped = include_str!("../profiles/lab.yaml");
    // This stage has none of the lab's servers.
    let text = shipped.split("\ngroups:").next().unwrap_or(shipped);
    let fast = text.replace("hold-down: 3s", "hold-down: 0s\n    interval: 250ms");
    assert!(fast != text && text.contains("- gateway"), "{family:?}: {text}");
    fast
}

fn a_captive_portal_is_told_as_one(family: Family) {
    let site = Site::start(family, &lab(family));
    site.fail(&["fiber"], Fault::Captive);
    let reason = site.wait_health("fiber", "down");
    let why = "captive portal: HTTP status 302 Found to http://portal.example/login";
    assert!(reason.starts_with(why), "{reason}");
    assert!((0..20).all(|host| site.way_of(host) != "fiber"), "nobody is sent to the portal");
    // What is wrong now counts, not what was wrong when it fell.
    site.fail(&["fiber"], Fault::Silent);
    site.wait_status("it is silent", |status| {
        let reason = &status["uplinks"]["fiber"]["families"][family.as_str()]["reason"];
        reason.as_str().is_some_and(|reason| reason.starts_with("no answer"))
    });
    site.heal(&["fiber"]);
    site.wait_health("fiber", "up");
    let log = site.log();
    let line = log.lines().find(|line| line.contains("uplink fiber is down (was up)"));
    assert!(line.is_some_and(|line| line.contains("captive portal")), "{log}");
}

fn the_gateway_tells_where_the_break_is(family: Family) {
    let site = Site::start(family, &lab(family));
    let wait = |uplink: &str, what: &str| {
        site.wait_status(&format!("{uplink}: {what}"), |status| {
            let of = &status["uplinks"][uplink]["families"][family.as_str()];
            of["health"] == "down" && of["reason"].as_str().is_some_and(|r| r.contains(what))
        });
    };
    site.fail(&["fiber"], Fault::GatewayOnly);
    wait("fiber", "no answer; its gateway answers, so the break lies behind it");
    site.fail(&["cable"], Fault::Silent);
    wait("cable", "its gateway does not answer");
    site.heal(&["fiber", "cable"]);
    site.wait_health("fiber", "up");
    site.wait_health("cable", "up");
}
