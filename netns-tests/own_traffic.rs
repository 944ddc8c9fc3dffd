//! The router's own sessions.

use homing::lab::{Client, Fault, Protocol};
use homing::model::Family;

use crate::harness::{PATIENCE, Site, both, profile, until};

both!(
    unbound_it_takes_the_first_usable_uplink_and_follows_it,
    bound_to_a_device_it_takes_that_uplink,
    bound_to_an_address_it_takes_that_uplink,
    bound_sessions_work_over_an_uplink_that_no_policy_uses,
);

fn way(site: &Site, client: &Client, from: Option<std::net::IpAddr>) -> Result<String, String> {
    let session = client.open(Protocol::Tcp, from, site.server(0, 80));
    session
        .map(|session| site.uplink(&session))
        .map_err(|error| error.to_string())
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
        let server = site.server(1, 0).ip();
        client
            .ping(None, server)
            .unwrap_or_else(|e| panic!("ping by {device}: {e}"));
        let seen = site.stage.isp(uplink).unwrap().sightings().unwrap();
        assert!(
            seen.iter().any(|s| s.destination == server),
            "{uplink}: {seen:?}"
        );
    }
}

fn bound_to_an_address_it_takes_that_uplink(family: Family) {
    let site = Site::start(family, &profile(""));
    for uplink in ["fiber", "cable", "lte"] {
        let address = site.stage.isp(uplink).unwrap().layout().customer(family);
        assert_eq!(
            way(&site, &site.own(), Some(address)).as_deref(),
            Ok(uplink)
        );
    }
}

fn bound_sessions_work_over_an_uplink_that_no_policy_uses(family: Family) {
    let policies = "policies:\n  - { name: default, uplinks: [fiber] }\n";
    let site = Site::start(family, &profile(policies));
    assert_eq!(
        way(&site, &site.own().device("wan2"), None).as_deref(),
        Ok("lte")
    );
}
