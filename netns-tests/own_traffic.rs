//! The router's own sessions.

use std::time::Duration;

use homing::lab::{Client, Fault, Protocol, Session};
use homing::model::Family;

use crate::harness::{PATIENCE, Site, both, profile, until};

both!(
    unbound_it_takes_the_first_usable_uplink_and_follows_it,
    bound_to_a_device_it_takes_that_uplink,
    bound_to_an_address_it_takes_that_uplink,
    bound_sessions_work_over_an_uplink_that_no_policy_uses,
    a_long_lived_flow_leaves_a_dead_uplink_and_stays_away,
    a_long_lived_flow_comes_back_when_its_policy_says_so,
);

fn way(site: &Site, client: &Client, from: Option<std::net::IpAddr>) -> Result<String, String> {
    let session = client.open(Protocol::Tcp, from, site.server(0, 80));
    session.map(|session| site.uplink(&session)).map_err(|error| error.to_string())
}

fn unbound_it_takes_the_first_usable_uplink_and_follows_it(family: Family) {
    let site = Site::start(family, &profile(""));
    let quick = site.own().timeout(PATIENCE / 50);
    let first = way(&site, &quick, None).expect("a session of the router's own");
    let isp = site.stage.isp(&first).unwrap();
    isp.fail(Fault::Carrier).unwrap();
    let elsewhere = |seen: &Result<String, String>| seen.as_ref().is_ok_and(|way| *way != first);
    let _ = until(PATIENCE, || way(&site, &quick, None), elsewhere).expect("another uplink");
    isp.heal().unwrap();
    let back = |seen: &Result<String, String>| seen.as_ref() == Ok(&first);
    let _ = until(PATIENCE, || way(&site, &quick, None), back).expect("the first uplink again");
}

fn bound_to_a_device_it_takes_that_uplink(family: Family) {
    let site = Site::start(family, &profile(""));
    for (device, uplink) in [("wan0", "fiber"), ("wan1", "cable"), ("wan2", "lte")] {
        let client = site.own().device(device);
        assert_eq!(way(&site, &client, None).as_deref(), Ok(uplink));
        // Nobody else asks this one.
        let server = site.server(2, 0).ip();
        client.ping(None, server).unwrap_or_else(|e| panic!("ping by {device}: {e}"));
        let seen = site.stage.isp(uplink).unwrap().sightings().unwrap();
        assert!(seen.iter().any(|s| s.destination == server), "{uplink}: {seen:?}");
    }
}

fn bound_to_an_address_it_takes_that_uplink(family: Family) {
    let site = Site::start(family, &profile(""));
    for uplink in ["fiber", "cable", "lte"] {
        let address = site.stage.isp(uplink).unwrap().layout().customer(family);
        assert_eq!(way(&site, &site.own(), Some(address)).as_deref(), Ok(uplink));
    }
}

fn bound_sessions_work_over_an_uplink_that_no_policy_uses(family: Family) {
    let policies = "policies:\n  - { name: default, uplinks: [fiber] }\n";
    let site = Site::start(family, &profile(policies));
    assert_eq!(way(&site, &site.own().device("wan2"), None).as_deref(), Ok("lte"));
}

/// A flow of the router's own, as of a tunnel.
fn long_lived(site: &Site) -> Session {
    let flow = site.own().open(Protocol::Udp, None, site.server(0, 5060)).expect("a flow");
    assert_eq!(site.uplink(&flow), "fiber");
    flow
}

fn wait_flow(site: &Site, flow: &mut Session, uplink: &str) {
    let way = || flow.ask(Duration::from_millis(200)).map(|seen| site.uplink_with(seen.ip())).ok();
    let there = |way: &Option<String>| way.as_deref() == Some(uplink);
    let _ = until(PATIENCE, way, there).unwrap_or_else(|last| panic!("{uplink}: {last:?}"));
}

fn a_long_lived_flow_leaves_a_dead_uplink_and_stays_away(family: Family) {
    let site = Site::start(family, &profile(""));
    let mut flow = long_lived(&site);
    // Who is bound to the device, or to the address, keeps it.
    let mut bound =
        site.own().device("wan0").open(Protocol::Udp, None, site.server(1, 5060)).unwrap();
    site.fail(&["fiber"], Fault::Silent);
    wait_flow(&site, &mut flow, "cable");
    assert!(bound.ask(Duration::from_millis(200)).is_err(), "it asks over its own device");
    site.wait_settled();
    site.heal(&["fiber"]);
    site.wait_health("fiber", "up");
    for _ in 0..10 {
        flow.ask(PATIENCE).expect("an answer");
        assert_eq!(site.uplink(&flow), "cable", "what moved stays moved");
    }
    // A new flow from the same address goes its own way.
    let from = site.stage.isp("fiber").unwrap().layout().customer(family);
    let new = site.own().open(Protocol::Udp, Some(from), site.server(2, 53)).unwrap();
    assert_eq!(site.uplink(&new), "fiber");
    assert!(site.log().contains("UDP sessions of the router's own from fiber"), "{}", site.log());
}

fn a_long_lived_flow_comes_back_when_its_policy_says_so(family: Family) {
    let policies = "policies:
  - { name: tunnels, match: { protocol: udp, ports: [5060] }, release-on-return: true }
";
    let site = Site::start(family, &profile(policies));
    let mut flow = long_lived(&site);
    for _ in 0..2 {
        site.fail(&["fiber"], Fault::Silent);
        wait_flow(&site, &mut flow, "cable");
        site.heal(&["fiber"]);
        wait_flow(&site, &mut flow, "fiber");
    }
}
