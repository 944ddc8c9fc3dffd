//! `when-all-down`: what becomes of a session whose policy has no usable uplink.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use homing::lab::{Fault, Protocol, Session};
use homing::model::Family;

use crate::harness::{Site, both, one_policy};

both!(
    try_without_any_line_refuses_at_once,
    unreachable_refuses_at_once,
    drop_is_silent,
    main_takes_the_router_s_own_way,
    the_session_finds_its_way_when_the_line_is_back,
);

/// A policy of fiber alone, and fiber's cable pulled.
fn without_fiber(family: Family, what: &str) -> Site {
    let site = Site::start(
        family,
        &one_policy(&format!("uplinks: [fiber], when-all-down: {what}")),
    );
    assert_eq!(site.way_of(0), "fiber");
    site.stage
        .isp("fiber")
        .unwrap()
        .fail(Fault::Carrier)
        .unwrap();
    site.wait_usable("fiber", false);
    site
}

fn attempt(site: &Site) -> (io::Result<Session>, Duration) {
    let begun = Instant::now();
    let patient = site.lan().timeout(Duration::from_secs(2));
    let session = patient.open(Protocol::Tcp, Some(site.host(1)), site.server(0, 80));
    (session, begun.elapsed())
}

fn assert_refused(site: &Site) {
    let (session, took) = attempt(site);
    let error = session.expect_err("no way out");
    assert!(
        error.kind() != ErrorKind::TimedOut,
        "refused only after {took:?}: {error}"
    );
    assert!(
        took < Duration::from_millis(900),
        "refused only after {took:?}"
    );
    for isp in ["cable", "lte"] {
        let seen = site.stage.isp(isp).unwrap().sightings().unwrap();
        let tcp = seen.iter().find(|s| s.protocol == "tcp");
        assert_eq!(tcp, None, "an uplink that the policy does not name");
    }
}

fn try_without_any_line_refuses_at_once(family: Family) {
    assert_refused(&without_fiber(family, "try"));
}

fn unreachable_refuses_at_once(family: Family) {
    assert_refused(&without_fiber(family, "unreachable"));
}

fn drop_is_silent(family: Family) {
    let site = without_fiber(family, "drop");
    let (session, _) = attempt(&site);
    assert_eq!(session.expect_err("no way out").kind(), ErrorKind::TimedOut);
}

fn main_takes_the_router_s_own_way(family: Family) {
    let site = without_fiber(family, "main");
    let (session, _) = attempt(&site);
    let way = site.uplink(&session.expect("by another uplink"));
    assert_ne!(way, "fiber");
}

fn the_session_finds_its_way_when_the_line_is_back(family: Family) {
    for what in ["unreachable", "main"] {
        let site = without_fiber(family, what);
        drop(attempt(&site));
        site.stage.isp("fiber").unwrap().heal().unwrap();
        site.wait_usable("fiber", true);
        site.wait_way(1, "fiber");
    }
}
