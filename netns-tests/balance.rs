//! How new sessions are spread, and that old ones stay.

use homing::lab::{Fault, Protocol, Session};
use homing::model::Family;

use crate::harness::{Site, both, one_policy, profile};

both!(
    five_hundred_sessions_are_spread_five_to_four_to_one,
    round_robin_gives_equal_shares,
    a_source_keeps_its_uplink_by_its_hash_alone,
    sessions_stay_through_twenty_changes_that_leave_their_uplink_in,
    a_lower_tier_is_used_first_and_a_higher_one_only_without_it,
    the_weight_comes_from_the_bandwidth,
);

fn assert_shares(site: &Site, sessions: &[Session], expected: &[(&str, f64)]) {
    let shares = site.shares(sessions);
    for (uplink, share) in expected {
        let seen = shares[*uplink];
        assert!(
            (seen - share).abs() <= 5.0,
            "{uplink}: {share} % wanted, {shares:?}"
        );
    }
}

fn five_hundred_sessions_are_spread_five_to_four_to_one(family: Family) {
    let site = Site::start(family, &profile(""));
    let wanted = [("fiber", 50.0), ("cable", 40.0), ("lte", 10.0)];
    let mut tcp = site.open_many(Protocol::Tcp, 0..400);
    let mut udp = site.open_many(Protocol::Udp, 400..500);
    assert_shares(&site, &tcp, &wanted);
    site.assert_stay(&mut tcp, "at once");
    site.assert_stay(&mut udp, "at once");
    tcp.append(&mut udp);
    assert_shares(&site, &tcp, &wanted);
    site.assert_settled();
}

fn round_robin_gives_equal_shares(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let sessions = site.open_many(Protocol::Tcp, 0..150);
    let third = 100.0 / 3.0;
    assert_shares(
        &site,
        &sessions,
        &[("fiber", third), ("cable", third), ("lte", third)],
    );
}

fn a_source_keeps_its_uplink_by_its_hash_alone(family: Family) {
    let mut site = Site::start(family, &one_policy("balance: source-hash"));
    let first = ways(&site);
    assert_eq!(ways(&site), first, "a second session of the same source");
    let mut distinct = first.clone();
    distinct.sort();
    distinct.dedup();
    assert!(
        distinct.len() > 1,
        "every host went the same way: {first:?}"
    );
    site.stop(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(site.homing(&["down"]).code, Some(0));
    site.run_again();
    assert_eq!(ways(&site), first, "after a new beginning");
}

fn ways(site: &Site) -> Vec<String> {
    let sessions = site.open_many(Protocol::Tcp, 0..40);
    sessions
        .iter()
        .map(|session| site.uplink(session))
        .collect()
}

/// Weights and members of the twenty profiles; fiber and cable are always among them.
fn twenty() -> Vec<String> {
    let members = [
        "[fiber, cable, lte]",
        "[fiber, cable]",
        "[[fiber], [cable]]",
        "[[cable], [lte, fiber]]",
        "[[lte], [cable], [fiber]]",
    ];
    let weights = [[5, 4, 1], [1, 9, 1], [7, 1, 3], [1, 1, 60]];
    let profile = |index: usize| {
        let [fiber, cable, lte] = weights[index % weights.len()];
        let uplinks = crate::harness::with_uplinks(&[
            &format!("weight: {fiber}"),
            &format!("weight: {cable}"),
            &format!("weight: {lte}"),
        ]);
        let members = members[index % members.len()];
        format!("{uplinks}policies:\n  - {{ name: default, uplinks: {members} }}\n")
    };
    (0..20).map(profile).collect()
}

fn sessions_stay_through_twenty_changes_that_leave_their_uplink_in(family: Family) {
    let site = Site::start(
        family,
        &profile("policies:\n  - { name: default, uplinks: [fiber, cable] }\n"),
    );
    let mut sessions = site.open_many(Protocol::Tcp, 0..30);
    sessions.extend(site.open_many(Protocol::Udp, 30..50));
    let shares = site.shares(&sessions);
    assert!(shares["fiber"] > 0.0 && shares["cable"] > 0.0, "{shares:?}");
    for (index, profile) in twenty().iter().enumerate() {
        site.reload(profile);
        site.assert_stay(&mut sessions, &format!("after change {index}"));
    }
    site.assert_settled();
}

fn a_lower_tier_is_used_first_and_a_higher_one_only_without_it(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [[fiber], [cable, lte]]"));
    let fiber = site.stage.isp("fiber").unwrap();
    let all = |site: &Site, expected: &[&str]| {
        for session in site.open_many(Protocol::Tcp, 0..30) {
            let way = site.uplink(&session);
            assert!(
                expected.contains(&way.as_str()),
                "{way} is none of {expected:?}"
            );
        }
    };
    all(&site, &["fiber"]);
    fiber.fail(Fault::Carrier).unwrap();
    site.wait_usable("fiber", false);
    all(&site, &["cable", "lte"]);
    let mut later = site.open_many(Protocol::Tcp, 0..10);
    fiber.heal().unwrap();
    site.wait_usable("fiber", true);
    site.wait_way(1, "fiber");
    all(&site, &["fiber"]);
    site.assert_stay(&mut later, "the better tier is back");
}

fn the_weight_comes_from_the_bandwidth(family: Family) {
    let keys = [
        "bandwidth: { down: 500M, up: 100M }",
        "bandwidth: { down: 200M, up: 20M }",
        "bandwidth: { down: 100M, up: 20M }",
    ];
    let site = Site::start(family, &crate::harness::with_uplinks(&keys));
    let sessions = site.open_many(Protocol::Tcp, 0..200);
    assert_shares(
        &site,
        &sessions,
        &[("fiber", 62.5), ("cable", 25.0), ("lte", 12.5)],
    );
}
