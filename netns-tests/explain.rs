//! `homing explain`: what it says, and that it is so.

use homing::lab::Protocol;
use homing::model::Family;
use serde_json::Value;

use crate::harness::{Site, V4, both, one_policy, profile};

both!(it_names_the_uplink_that_a_session_then_takes, it_says_why_not_the_others,);

/// Asks as a user does.
fn explain(site: &Site, more: &[&str]) -> Value {
    let outcome = site.homing(&[&["explain", "--json"], more].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.json()
}

fn it_names_the_uplink_that_a_session_then_takes(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [cable]"));
    let (from, to) = (site.host(3).to_string(), site.server(0, 80));
    let asked = ["--from", &from, "--to", &to.ip().to_string(), "--port", "80"];
    let answer = explain(&site, &asked);
    let customer = site.stage.isp("cable").unwrap().layout().customer(family).to_string();
    assert_eq!(answer["outcome"], "uplink", "{answer:#}");
    assert_eq!(answer["uplink"], "cable", "{answer:#}");
    assert_eq!(answer["policy"], "default", "{answer:#}");
    assert_eq!(answer["source"], customer, "{answer:#}");
    assert_eq!(site.way(Protocol::Tcp, 3, to), "cable");
    let told = site.homing(&[&["explain"], &asked[..]].concat()).stdout;
    assert!(told.contains(&format!("leaves by cable (wan1) as {customer}, by policy default")));
    assert!(told.contains("policy default does not use it"), "{told}");
}

/// Who asks why a client sits on the wrong line is told which policy passed it by, and why; which
/// uplink is down; and that a binding holds it.
fn it_says_why_not_the_others(family: Family) {
    let policies = "policies:
  - { name: mail, match: { ports: [25] }, uplinks: [lte] }
  - { name: rest, uplinks: [[fiber], [cable]], persistence: { by: source } }
";
    let site = Site::start(family, &profile(policies));
    let (from, to) = (site.host(5).to_string(), site.server(0, 80));
    let asked = ["--from", &from, "--to", &to.ip().to_string(), "--port", "80"];
    let answer = explain(&site, &asked);
    assert_eq!(answer["policies"][0]["policy"], "mail", "{answer:#}");
    assert!(answer["policies"][0]["failed"][0].to_string().contains("80"), "{answer:#}");
    assert_eq!(answer["uplink"], "fiber", "{answer:#}");
    assert_eq!(site.way(Protocol::Tcp, 5, to), "fiber");
    assert_eq!(explain(&site, &asked)["binding"]["uplink"], "fiber");
    site.lose_carrier("fiber");
    site.wait_usable("fiber", false);
    let answer = explain(&site, &asked);
    assert_eq!(answer["uplink"], "cable", "{answer:#}");
    let fiber = answer["members"].as_array().unwrap().iter().find(|m| m["uplink"] == "fiber");
    assert!(fiber.unwrap()["reason"].to_string().contains("no carrier"), "{answer:#}");
    assert_eq!(site.way(Protocol::Tcp, 5, to), "cable");
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    let site = Site::start(V4, &one_policy("uplinks: [cable]"));
    for (wrong, word) in [
        (["--from", "10.1.0.1", "--to", "2001:db8::1"], "family"),
        (["--from", "10.1.0.1", "--to", "somewhere"], "somewhere"),
    ] {
        let outcome = site.homing(&[&["explain"], &wrong[..]].concat());
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(word), "{outcome:?}");
    }
    let unknown = ["explain", "--from", "10.1.0.1", "--to", "203.0.113.1", "--in", "ofice"];
    let outcome = site.homing(&unknown);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("ofice"), "{outcome:?}");
}
