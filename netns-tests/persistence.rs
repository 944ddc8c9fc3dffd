//! Bindings: by source, by source and destination, and their end.

use std::time::{Duration, Instant};

use homing::lab::{Fault, Protocol};
use homing::model::Family;

use crate::harness::{Site, both, one_policy};

both!(
    by_source_a_client_takes_one_uplink_everywhere,
    by_source_and_destination_each_pair_takes_its_own,
    a_binding_ends_when_it_was_idle_for_its_timeout,
    a_binding_does_not_end_under_a_live_session,
    a_binding_survives_changes_that_leave_its_uplink_in,
    a_binding_to_an_uplink_without_carrier_is_forgotten,
);

const EQUAL: &str = "balance: round-robin, persistence";

fn ways(site: &Site, hosts: u16, server: usize) -> Vec<String> {
    let to = site.server(server, 80);
    (0..hosts).map(|host| site.way(Protocol::Tcp, host, to)).collect()
}

fn distinct(ways: &[String]) -> usize {
    ways.iter().collect::<std::collections::BTreeSet<_>>().len()
}

fn by_source_a_client_takes_one_uplink_everywhere(family: Family) {
    let site = Site::start(family, &one_policy(&format!("{EQUAL}: {{ by: source }}")));
    let first = ways(&site, 20, 0);
    assert!(distinct(&first) == 3, "{first:?}");
    for server in 0..4 {
        assert_eq!(ways(&site, 20, server), first, "to server {server}");
    }
    for host in 0..20 {
        let udp = site.way(Protocol::Udp, host, site.server(2, 53));
        assert_eq!(udp, first[usize::from(host)], "udp of host {host}");
    }
    let bindings = site.status()["policies"]["default"]["bindings"].as_u64();
    assert_eq!(bindings, Some(20), "bindings in the status");
    site.assert_settled();
}

fn by_source_and_destination_each_pair_takes_its_own(family: Family) {
    let keys = format!("{EQUAL}: {{ by: source-destination }}");
    let site = Site::start(family, &one_policy(&keys));
    let first: Vec<_> = (0..4).map(|server| ways(&site, 11, server)).collect();
    let again: Vec<_> = (0..4).map(|server| ways(&site, 11, server)).collect();
    assert_eq!(first, again, "the same pairs again");
    assert!(
        (1..4).any(|server| first[server] != first[0]),
        "the destination makes no difference: {first:?}"
    );
    // IPv6 keys hold hashes: live sessions tell the addresses.
    let open = site.open_many(Protocol::Tcp, 0..3);
    let shown = site.homing(&["bindings", "--json"]).json();
    let shown = shown["bindings"].as_array().unwrap();
    let to = site.server(0, 80).ip().to_string();
    for (host, session) in (0..3).zip(&open) {
        let client = site.stage.layout().host(family, host).to_string();
        let right = |b: &&serde_json::Value| {
            (b["client"].as_str(), b["destination"].as_str()) == (Some(&client), Some(&to))
        };
        let uplink = shown.iter().find(right).map(|b| b["uplink"].as_str());
        assert_eq!(uplink, Some(Some(&*site.uplink(session))), "of {client} in {shown:?}");
    }
}

fn a_binding_ends_when_it_was_idle_for_its_timeout(family: Family) {
    let keys = format!("{EQUAL}: {{ by: source, timeout: 2s }}");
    let site = Site::start(family, &one_policy(&keys));
    let first = ways(&site, 16, 0);
    assert_eq!(ways(&site, 16, 0), first, "at once");
    site.wait_status("no bindings", |status| status["policies"]["default"]["bindings"] == 0);
    assert_ne!(ways(&site, 16, 0), first, "every host bound anew as before");
}

fn a_binding_does_not_end_under_a_live_session(family: Family) {
    let keys = format!("{EQUAL}: {{ by: source, timeout: 2s }}");
    let site = Site::start(family, &one_policy(&keys));
    let mut sessions = site.open_many(Protocol::Tcp, 0..16);
    sessions.extend(site.open_many(Protocol::Udp, 0..16));
    let first: Vec<_> = sessions.iter().map(|s| site.uplink(s)).take(16).collect();
    let begun = Instant::now();
    // Time must pass here: longer than twice the timeout.
    while begun.elapsed() < Duration::from_secs(5) {
        site.assert_stay(&mut sessions, "under way");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ways(&site, 16, 1), first, "bindings under live sessions");
}

fn a_binding_survives_changes_that_leave_its_uplink_in(family: Family) {
    let keys = |weights: &[&str; 3], members: &str| {
        let uplinks = crate::harness::with_uplinks(weights);
        format!(
            "{uplinks}policies:\n  - {{ name: default, uplinks: {members}, persistence: {{ by: source }} }}\n"
        )
    };
    let site = Site::start(family, &keys(&["weight: 1"; 3], "[fiber, cable]"));
    let first = ways(&site, 12, 0);
    assert_eq!(distinct(&first), 2, "{first:?}");
    for members in ["[fiber, cable, lte]", "[[lte], [fiber], [cable]]", "[cable, fiber]"] {
        site.reload(&keys(&["weight: 9", "weight: 1", "weight: 3"], members));
        assert_eq!(ways(&site, 12, 1), first, "members {members}");
    }
}

fn a_binding_to_an_uplink_without_carrier_is_forgotten(family: Family) {
    let site = Site::start(family, &one_policy(&format!("{EQUAL}: {{ by: source }}")));
    let first = ways(&site, 12, 0);
    site.stage.isp("fiber").unwrap().fail(Fault::Carrier).unwrap();
    site.wait_usable("fiber", false);
    let second = ways(&site, 12, 0);
    for (before, after) in first.iter().zip(&second) {
        assert_ne!(after, "fiber");
        assert!(before == "fiber" || before == after, "{first:?} {second:?}");
    }
    site.stage.isp("fiber").unwrap().heal().unwrap();
    site.wait_usable("fiber", true);
    assert_eq!(ways(&site, 12, 1), second, "what was bound anew stays");
}
