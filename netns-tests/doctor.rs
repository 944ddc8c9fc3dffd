//! `homing doctor` on a real kernel: silent where all is well, and each collision by its name.

use homing::lab::Protocol;
use homing::model::Family;
use serde_json::Value;

use crate::harness::farm;
use crate::harness::{Site, V4, both, homing, one_policy, profile};

both!(
    a_sound_site_is_left_in_peace,
    each_collision_is_named_with_its_remedy,
    a_mesh_vpn_is_welcome_until_it_takes_what_is_ours,
    a_full_tunnel_from_before_homing_is_told,
    faults_of_the_site_itself_are_named,
    a_bridge_that_passes_rules_is_told_where_servers_are_behind_it,
);

/// Severity and code of each finding, and the exit code.
fn doctor(site: &Site) -> (Vec<String>, Option<i32>) {
    let outcome = site.homing(&["doctor", &site.path("site.yaml"), "--json"]);
    let answer: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let findings = answer["findings"].as_array().expect("a list").iter();
    let code = |finding: &Value| {
        assert!(finding["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
        let word = |key: &str| finding[key].as_str().expect("a word").to_owned();
        format!("{} {}", word("severity"), word("code"))
    };
    // That a kernel has no flowtables is told; here it is of no interest.
    let known = |code: &String| code == "note fast-path" && !site.has_flowtables();
    (findings.map(code).filter(|code| !known(code)).collect(), outcome.code)
}

/// What people read when there is nothing else.
fn assert_sound(site: &Site, said: &str) {
    match site.has_flowtables() {
        true => assert_eq!(said, "nothing to complain of\n"),
        false => assert!(
            said.starts_with("note [fast-path]") && said.matches('[').count() == 1,
            "{said}"
        ),
    }
}

fn a_sound_site_is_left_in_peace(family: Family) {
    let mut site = Site::start(family, &profile(""));
    assert_eq!(doctor(&site), (vec![], Some(0)), "while homing runs");
    let people = site.homing(&["doctor", &site.path("site.yaml")]);
    assert_sound(&site, &people.stdout);
    assert_eq!(site.homing(&["doctor"]).code, Some(0), "without a profile");
    site.stop(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(doctor(&site), (vec![], Some(0)), "after it ended");
    assert_eq!(site.homing(&["down"]).code, Some(0));
    assert_eq!(doctor(&site), (vec![], Some(0)), "before it is started again");
}

fn each_collision_is_named_with_its_remedy(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [cable]"));
    let router = site.router();
    let ip = |line: &str| ip(&site, line);
    for (lines, expected) in [
        // As wg-quick does it for a full tunnel, after homing has started.
        (
            &["route add default dev dmz0 table 51820", "rule add not fwmark 51820 lookup 51820"][..],
            &["error bypass", "warning mark-shared"][..],
        ),
        (&["rule add pref 32000 iif dmz0 lookup 77"], &["warning rule-never-reached"]),
        (&["rule add pref 2001 fwmark 0x100/0x3f00 lookup 77"], &["error mark-taken"]),
        (&["route add default dev dmz0 table 10060"], &["warning table-taken"]),
    ] {
        lines.iter().for_each(|line| ip(line));
        expect(&site, expected);
        lines.iter().for_each(|line| ip(&line.replacen("add", "del", 1)));
    }
    for (name, chains, expected) in [
        (
            "filter",
            "chain DOCKER-USER {\n}\nchain FORWARD {\ntype filter hook forward priority 0; policy drop\naccept\n}",
            "warning docker",
        ),
        (
            "vpn",
            "chain save {\ntype filter hook prerouting priority 0\nudp dport 9999 ct mark set meta mark\n}",
            "error session-mark-written",
        ),
    ] {
        router.nft(&format!("table inet {name} {{\n{chains}\n}}\n")).unwrap();
        expect(&site, &[expected]);
        router.nft(&format!("delete table inet {name}")).unwrap();
    }
    assert_eq!(doctor(&site), (vec![], Some(0)), "all is undone");
}

/// A line of `ip`, in the site's family.
#[track_caller]
fn ip(site: &Site, line: &str) {
    let option = if site.family == V4 { "-4" } else { "-6" };
    let words: Vec<&str> = [option].into_iter().chain(line.split(' ')).collect();
    let outcome = site.command("ip", &words);
    assert_eq!(outcome.code, Some(0), "{line}: {outcome:?}");
}

/// Rules and routes as Tailscale makes them.
fn a_mesh_vpn_is_welcome_until_it_takes_what_is_ours(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [cable]"));
    let ip = |line: &str| ip(&site, line);
    let (mesh, lan) = match family {
        Family::V4 => ("100.64.0.0/10", "10.1.0.0/16"),
        Family::V6 => ("fd7a:115c:a1e0::/48", "fd00:1::/64"),
    };
    ip("link add tailscale0 type veth peer name tailscale1");
    ip("link set tailscale0 up");
    ip("link set tailscale1 up");
    ip("rule add pref 5210 fwmark 0x80000/0xff0000 lookup main");
    ip("rule add pref 5230 fwmark 0x80000/0xff0000 lookup default");
    ip("rule add pref 5250 fwmark 0x80000/0xff0000 unreachable");
    ip("rule add pref 5270 lookup 52");
    ip(&format!("route add {mesh} dev tailscale0 table 52"));
    expect(&site, &[]);
    assert_eq!(site.way_of(1), "cable");
    // An exit node.
    ip("route add default dev tailscale0 table 52");
    expect(&site, &["error bypass"]);
    ip("route del default dev tailscale0 table 52");
    // Another router offers a way to our own LAN.
    ip(&format!("route add {lan} dev tailscale0 table 52"));
    expect(&site, &["error network-taken"]);
    ip("rule add pref 5269 lookup main suppress_prefixlength 0");
    expect(&site, &[]);
    assert_eq!(site.way_of(1), "cable", "the remedy remedies");
}

/// As wg-quick types it; without a priority the kernel takes one below 32766, behind homing's.
fn a_full_tunnel_from_before_homing_is_told(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let ip = |site: &Site, line: &str| ip(site, line);
    ip(&site, "route add default dev dmz0 table 51820");
    ip(&site, "rule add not fwmark 51820 table 51820");
    ip(&site, "rule add table main suppress_prefixlength 0");
    site.run(&one_policy("uplinks: [cable]"));
    expect(&site, &["warning mark-shared", "warning rule-never-reached"]);
    assert_eq!(site.way_of(1), "cable", "the tunnel gets nothing");
    // WireGuard's own packets, from the router itself: 51820 is 0xca6c, 0x3f00 of it number 10.
    let server = site.server(0, 80).ip().to_string();
    let option = if family == V4 { "-4" } else { "-6" };
    let leaves = |mark: &str| {
        let lookup = [option, "route", "get", server.as_str(), "mark", mark];
        site.command("ip", &lookup).code == Some(0)
    };
    assert!(!leaves("51820"), "it has no line of that number");
    let told = site.homing(&["doctor", &site.path("site.yaml")]).stdout;
    let free = told.split("FwMark = ").nth(1).and_then(|rest| rest.split('`').next());
    let free = u32::from_str_radix(free.unwrap().trim_start_matches("0x"), 16).unwrap();
    ip(&site, "rule del not fwmark 51820 table 51820");
    ip(&site, &format!("rule add pref 32765 not fwmark {free} table 51820"));
    expect(&site, &["warning rule-never-reached"]);
    assert!(leaves(&free.to_string()), "the remedy remedies");
}

fn faults_of_the_site_itself_are_named(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [cable]"));
    let ip = |line: &str| ip(&site, line);
    let isp = site.stage.isp("fiber").unwrap().layout().clone();
    let (inside, length) = match family {
        Family::V4 => ("10.1.77.1/24", 32),
        Family::V6 => ("fd00:1::7:1/112", 128),
    };
    let nodad = if family == V4 { "" } else { " nodad" };
    ip(&format!("addr add {inside} dev dmz0{nodad}"));
    expect(&site, &["error overlap"]);
    ip(&format!("addr del {inside} dev dmz0"));
    // Nobody is to ask by that address meanwhile: it is another ISP's.
    site.signal(nix::sys::signal::Signal::SIGSTOP);
    ip(&format!("addr add {}/{length} dev wan1{nodad}", isp.customer(family)));
    expect(&site, &["warning same-address"]);
    ip(&format!("addr del {}/{length} dev wan1", isp.customer(family)));
    site.signal(nix::sys::signal::Signal::SIGCONT);
    ip("route del default dev wan0");
    expect(&site, &["warning no-gateway"]);
    let (one, other) = (isp.gateway(family), isp.metric());
    ip(&format!("route add default via {one} dev wan0 metric {other}"));
    expect(&site, &[]);
    // The kernel takes IPv6 off it.
    ip("link set wan0 mtu 1200");
    expect(&site, &["warning mtu"]);
}

fn a_bridge_that_passes_rules_is_told_where_servers_are_behind_it(family: Family) {
    let services = "  shop: { virtual: [fiber], protocol: tcp, ports: [80], group: web }\n";
    let mut site = Site::prepare(family, |b| b);
    let router = site.router();
    let set = |value| {
        let all = ["iptables", "ip6tables"].map(|kind| format!("bridge/bridge-nf-call-{kind}"));
        router.sysctl(&all.each_ref().map(|key| (key.as_str(), value))).unwrap();
    };
    set("1");
    site.run(&farm::profile(family, farm::QUICK, &[""], services));
    expect(&site, &[]);
    let (inside, nodad) = match family {
        Family::V4 => ("10.2.0.9/28", ""),
        Family::V6 => ("fd00:2::9/124", " nodad"),
    };
    ip(&site, "link add br0 type bridge");
    ip(&site, &format!("addr add {inside} dev br0{nodad}"));
    let (found, _) = doctor(&site);
    assert!(found.contains(&"note bridge-filtered".to_owned()), "{found:?}");
    set("0");
    let (found, _) = doctor(&site);
    assert!(!found.contains(&"note bridge-filtered".to_owned()), "{found:?}");
}

/// Both as they come from other programs' start scripts; that forwarding is off hurts indeed.
#[test]
fn settings_of_single_devices_are_looked_at() {
    let site = Site::start(V4, &one_policy("uplinks: [cable]"));
    let set = |key: &str, value: &str| {
        site.router().sysctl(&[(&format!("ipv4/conf/{key}"), value)]).unwrap();
    };
    let quick = site.lan().timeout(std::time::Duration::from_millis(300));
    let opens = || {
        let session = quick.open(Protocol::Tcp, Some(site.host(1)), site.server(0, 80));
        session.is_ok()
    };
    assert!(opens());
    set("wan1/forwarding", "0");
    expect(&site, &["error forwarding-off"]);
    assert!(!opens(), "replies from the uplink go nowhere");
    set("wan1/forwarding", "1");
    assert!(opens());
    set("wan1/proxy_arp", "1");
    expect(&site, &["warning proxy-arp"]);
    set("wan1/proxy_arp", "0");
    // Strict on a LAN does no harm, and is no finding.
    set("lan0/rp_filter", "1");
    expect(&site, &[]);
    assert!(opens());
}

#[test]
fn dockers_remedy_is_one() {
    let site = Site::start(V4, &one_policy("uplinks: [cable]"));
    let closed = "table ip filter {
        chain DOCKER-USER {
        }
        chain FORWARD {
            type filter hook forward priority 0; policy drop
            jump DOCKER-USER
        }
    }
";
    site.router().nft(closed).unwrap();
    expect(&site, &["warning docker"]);
    for direction in ["iifname", "oifname"] {
        let rule = format!("add rule ip filter DOCKER-USER {direction} \"lan0\" accept\n");
        site.router().nft(&rule).unwrap();
    }
    expect(&site, &["note forward-closed"]);
    assert_eq!(site.way_of(1), "cable");
}

/// Other software may live in another namespace, or refuse to be looked at.
#[test]
fn what_is_not_here_or_cannot_be_seen_is_told_apart() {
    let site = Site::start(V4, &one_policy("uplinks: [cable]"));
    let path = site.path("site.yaml");
    let outcome = site.stage.layout().lan().output(homing(), &["doctor"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&outcome.stdout), "nothing to complain of\n");
    let inside = |script: &str| {
        let args = ["--mount", "sh", "-c", script, homing(), "doctor", path.as_str()];
        site.command("/usr/bin/unshare", &args)
    };
    let networkd = "mount -t tmpfs none /run && mkdir -p /run/systemd/netif &&
        touch /run/systemd/netif/state && exec \"$0\" \"$@\"";
    let outcome = inside(networkd);
    assert_sound(&site, &outcome.stdout);
    let broken = format!(
        "printf '#!/bin/sh\necho no memory >&2\nexit 3\n' > {0} && chmod +x {0} &&
        mount --bind {0} \"$(readlink -f /usr/sbin/nft)\" && exec \"$0\" \"$@\"",
        site.path("broken-nft")
    );
    let outcome = inside(&broken);
    assert!(outcome.stdout.contains("[not-judged]"), "{outcome:?}");
    assert!(outcome.stdout.contains("no memory"), "{outcome:?}");
    assert_eq!(outcome.code, Some(0));
}

#[track_caller]
fn expect(site: &Site, expected: &[&str]) {
    let (found, code) = doctor(site);
    assert_eq!(found, expected);
    let bad = expected.iter().any(|finding| finding.starts_with("error"));
    assert_eq!(code, Some(i32::from(bad)), "{expected:?}");
}
