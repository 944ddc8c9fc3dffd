//! What happens to interfaces, addresses and gateways while homing runs.

use std::net::IpAddr;

use homing::lab::{self, Fault, Protocol};
use homing::model::Family;

use crate::harness::{PATIENCE, Site, both, one_policy, profile, until};

both!(
    carrier_lost_and_back,
    a_gateway_that_changes_is_followed,
    a_gateway_that_goes_takes_the_uplink_out,
    renumbering_is_followed,
    an_interface_deleted_and_made_again,
    an_interface_that_does_not_exist_yet_is_waited_for,
    an_interface_taken_down_and_up_by_hand,
    many_changes_at_once_settle,
);

fn carrier_lost_and_back(family: Family) {
    let site = Site::start(family, &profile(""));
    let mut sessions = site.open_many(Protocol::Tcp, 0..20);
    sessions.extend(site.open_many(Protocol::Udp, 20..40));
    let fiber = site.stage.isp("fiber").unwrap();
    fiber.fail(Fault::Carrier).unwrap();
    let status = site.wait_status("fiber down", |s| s["uplinks"]["fiber"]["health"] == "down");
    let reason = status["uplinks"]["fiber"]["reason"].as_str().unwrap_or_default();
    assert!(!reason.is_empty(), "why fiber is down: {status:#}");
    let others = site.open_many(Protocol::Tcp, 0..30);
    assert_eq!(site.shares(&others)["fiber"], 0.0, "new sessions on a dead link");
    let (on_fiber, mut rest): (Vec<_>, Vec<_>) =
        sessions.into_iter().partition(|s| site.uplink(s) == "fiber");
    site.assert_stay(&mut rest, "another link is down");
    fiber.heal().unwrap();
    site.wait_usable("fiber", true);
    let mut again = on_fiber;
    site.assert_stay(&mut again, "the link is back");
    site.wait_way(0, "fiber");
    site.assert_settled();
}

fn defaults(site: &Site, family: Family) -> serde_json::Value {
    let option = if family == Family::V4 { "-4" } else { "-6" };
    site.router().ip_json(&[option, "route", "show", "default"]).unwrap()
}

/// The ISP's gateway moves; our address stays.
fn a_gateway_that_changes_is_followed(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [fiber]"));
    let mut sessions = site.open_many(Protocol::Tcp, 0..5);
    let (isp_old, isp_new, route) = match family {
        Family::V4 => ("198.51.101.1/24", "198.51.101.254/24", "default via 198.51.101.254"),
        Family::V6 => ("fe80::1/64", "fe80::fe/64", "::/0 via fe80::fe"),
    };
    let nodad = if family == Family::V6 { " nodad" } else { "" };
    let space = site.stage.layout().place("fiber").unwrap();
    let old = match family {
        Family::V4 => "default",
        Family::V6 => "::/0",
    };
    space
        .ip(&[
            format!("addr del {isp_old} dev cust"),
            format!("addr add {isp_new} dev cust{nodad}"),
        ])
        .unwrap();
    let lines = [
        format!("route del {old} dev wan0 metric 101"),
        format!("route add {route} dev wan0 metric 101"),
    ];
    site.router().ip(&lines).unwrap();
    let gateway = match family {
        Family::V4 => ("gateway", "198.51.101.254"),
        Family::V6 => ("gateway6", "fe80::fe"),
    };
    site.wait_status("the new gateway", |s| s["uplinks"]["fiber"][gateway.0] == gateway.1);
    site.wait_way(0, "fiber");
    site.assert_stay(&mut sessions, "by the new gateway");
    site.assert_settled();
}

/// The DHCP client takes the default route away: the uplink cannot take sessions of that family.
fn a_gateway_that_goes_takes_the_uplink_out(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [[fiber], [cable]]"));
    assert_eq!(site.way_of(0), "fiber");
    let route = if family == Family::V4 { "default" } else { "::/0" };
    site.router().ip(&[format!("route del {route} dev wan0 metric 101")]).unwrap();
    site.wait_way(0, "cable");
    let key = if family == Family::V4 { "gateway" } else { "gateway6" };
    site.wait_status("no gateway", |s| s["uplinks"]["fiber"][key].is_null());
    assert!(defaults(&site, family).as_array().is_some_and(|routes| routes.len() == 2));
    site.assert_settled();
}

fn renumbering_is_followed(family: Family) {
    let mut site = Site::start(family, &one_policy("uplinks: [fiber]"));
    assert_eq!(site.way_of(0), "fiber");
    let change = |isp: &mut lab::IspLayout| {
        isp.gateway4 = [192, 0, 2, 65].into();
        isp.customer4 = lab::net4([192, 0, 2, 66], 26);
        isp.gateway6 = [0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, 1].into();
        isp.customer6 = lab::net_of6([0x2001, 0xdb8, 0xbeef, 0, 0, 0, 0, 2].into(), 64);
    };
    site.stage.renumber("fiber", change).unwrap();
    let new: IpAddr = site.stage.isp("fiber").unwrap().layout().customer(family);
    site.wait_status("the new address", |s| {
        let addresses = s["uplinks"]["fiber"]["addresses"].as_array().cloned();
        addresses.unwrap_or_default().iter().any(|a| *a == new.to_string())
    });
    site.wait_way(0, "fiber");
    site.stage.forget_old_addresses("fiber").unwrap();
    let sessions = site.open_many(Protocol::Tcp, 0..10);
    assert!(sessions.iter().all(|s| s.seen.ip() == new), "translated to the new address");
    let bound = site.own().open(Protocol::Tcp, Some(new), site.server(0, 80));
    bound.expect("the router's own, from the new address");
    site.assert_settled();
}

fn an_interface_deleted_and_made_again(family: Family) {
    let site = Site::start(family, &profile(""));
    let mut sessions = site.open_many(Protocol::Tcp, 0..30);
    sessions.retain(|session| site.uplink(session) != "fiber");
    site.stage.delete_line("fiber").unwrap();
    site.wait_usable("fiber", false);
    let others = site.open_many(Protocol::Tcp, 0..30);
    assert_eq!(site.shares(&others)["fiber"], 0.0);
    site.stage.create_line("fiber", true).unwrap();
    site.wait_usable("fiber", true);
    site.wait_way(0, "fiber");
    site.assert_stay(&mut sessions, "another link was made again");
    site.assert_settled();
    site.stage.recreate_line("fiber", true).unwrap();
    site.wait_usable("fiber", true);
    site.wait_way(0, "fiber");
    site.assert_settled();
}

fn an_interface_that_does_not_exist_yet_is_waited_for(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    site.stage.delete_line("fiber").unwrap();
    site.run(&profile(""));
    let status = site.status();
    assert_eq!(status["uplinks"]["fiber"]["usable"], false, "{status:#}");
    let told = site.log().contains("wan0")
        || status["uplinks"]["fiber"]["reason"].to_string().contains("wan0");
    assert!(told, "nobody says that wan0 is missing: {status:#}");
    let sessions = site.open_many(Protocol::Tcp, 0..30);
    assert_eq!(site.shares(&sessions)["fiber"], 0.0);
    site.stage.create_line("fiber", true).unwrap();
    site.wait_usable("fiber", true);
    site.wait_way(0, "fiber");
    site.assert_settled();
}

/// Admin down removes the routes of the link, and they do not come back by themselves.
fn an_interface_taken_down_and_up_by_hand(family: Family) {
    let site = Site::start(family, &one_policy("uplinks: [[fiber], [cable]]"));
    site.router().ip(&["link set wan0 down".to_owned()]).unwrap();
    site.wait_usable("fiber", false);
    site.wait_way(0, "cable");
    let layout = site.stage.isp("fiber").unwrap().layout().clone();
    let lines = [
        "link set wan0 up".to_owned(),
        format!("addr replace {} dev wan0", layout.customer4),
        format!("addr replace {} dev wan0 nodad", layout.customer6),
        format!("route replace default via {} dev wan0 metric 101", layout.gateway4),
        "route replace ::/0 via fe80::1 dev wan0 metric 101".to_owned(),
    ];
    site.router().ip(&lines).unwrap();
    site.wait_way(0, "fiber");
    site.wait_usable("fiber", true);
    site.assert_settled();
}

fn many_changes_at_once_settle(family: Family) {
    let site = Site::start(family, &profile(""));
    let lines: Vec<String> = (0..300)
        .flat_map(|i| {
            let dummy = format!("192.0.2.{}/32", i % 250);
            [format!("route add {dummy} dev lan0"), format!("route del {dummy} dev lan0")]
        })
        .collect();
    site.router().try_ip(&lines).unwrap();
    for uplink in ["fiber", "cable", "fiber", "lte"] {
        let isp = site.stage.isp(uplink).unwrap();
        isp.fail(Fault::Carrier).unwrap();
        isp.heal().unwrap();
    }
    let usable = |s: &serde_json::Value| {
        ["fiber", "cable", "lte"].iter().all(|name| s["uplinks"][*name]["usable"] == true)
    };
    site.wait_status("every uplink usable", usable);
    let plan = || site.homing(&["plan", &site.path("site.yaml")]).stdout;
    until(PATIENCE, plan, |plan| plan == "# nothing to change\n").expect("it settles");
    let sessions = until(
        PATIENCE,
        || {
            site.try_open(Protocol::Tcp, 0, site.server(0, 80))
                .map(|_| ())
                .map_err(|e| e.to_string())
        },
        Result::is_ok,
    );
    sessions.expect("traffic flows").unwrap();
}
