//! The API: who may ask what, and by which way.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;

use homing::lab::Protocol;
use homing::model::Family;
use serde_json::Value;

use crate::harness::http::Door;
use crate::harness::program::install;
use crate::harness::{PATIENCE, Site, V4, both, homing, profile, until};

both!(
    by_tcp_one_reads_and_changes_nothing,
    from_outside_one_needs_the_token,
    a_posted_profile_is_checked_and_changes_nothing,
    sessions_come_by_the_page,
    an_address_that_is_not_there_yet_is_listened_on_when_it_is,
);

fn local(family: Family) -> SocketAddr {
    if family == Family::V4 { "127.0.0.1:9480" } else { "[::1]:9480" }.parse().unwrap()
}

fn listening(at: &[SocketAddr], more: &str) -> String {
    let list: Vec<String> = at.iter().map(|at| format!("\"{at}\"")).collect();
    profile(&format!("api: {{ listen: [{}]{more} }}\n", list.join(", ")))
}

fn wait_listening(site: &Site, door: Door) {
    let open = || site.try_connect(door).is_ok();
    until(PATIENCE, open, |open| *open).unwrap_or_else(|_| panic!("{door:?}:\n{}", site.log()));
}

fn by_tcp_one_reads_and_changes_nothing(family: Family) {
    let site = Site::start(family, &listening(&[local(family)], ""));
    let door = Door::Tcp(local(family));
    wait_listening(&site, door);
    for path in
        ["status", "uplinks", "policies", "services", "groups", "bindings", "sessions", "events"]
    {
        let answer = site.get(door, &format!("/v1/{path}"));
        assert_eq!(
            (answer.status, &answer.json()["version"]),
            (200, &1.into()),
            "{path}: {answer:?}"
        );
    }
    assert_eq!(site.get(door, "/v1/status").json()["site"], "test");
    let question = format!("/v1/explain?from={}&to={}", site.host(0), site.server(0, 80).ip());
    assert_eq!(site.get(door, &question).json()["policy"], "default");
    for order in ["uplinks/fiber/drain", "servers/web/a/disable", "servers/a/enable", "reload"] {
        let answer = site.request(door, "POST", &format!("/v1/{order}"), "", "");
        assert_eq!(answer.status, 403, "{order}: {answer:?}");
        assert!(answer.error().contains("Unix socket"), "{answer:?}");
    }
    assert_eq!(site.status()["uplinks"]["fiber"]["admin"], "enabled");
    // As a browser asks for a page that was made to point here.
    for host in ["evil.example", "evil.example:9480", "127.0.0.1.evil.example"] {
        let answer = site.request(door, "GET", "/v1/status", &format!("Host: {host}\r\n"), "");
        assert_eq!(answer.status, 421, "{answer:?}");
        assert!(answer.error().contains("Host"), "{answer:?}");
    }
    for host in ["localhost", "localhost:9480", "127.0.0.1", "[::1]:9480"] {
        let answer = site.request(door, "GET", "/v1/status", &format!("Host: {host}\r\n"), "");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let bare = site.send(door, b"GET /v1/status HTTP/1.1\r\nConnection: close\r\n\r\n");
    assert_eq!(bare.status, 421, "without a Host header: {bare:?}");
    // By the socket all is as before, and the profile decides who listens.
    let order = site.request(Door::Socket, "POST", "/v1/uplinks/fiber/drain", "", "");
    assert_eq!((order.status, &order.json()["admin"]), (200, &"draining".into()), "{order:?}");
    site.reload(&profile(""));
    let closed = until(PATIENCE, || site.try_connect(door).is_err(), |closed| *closed);
    closed.expect("nobody listens any more");
}

fn from_outside_one_needs_the_token(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let inside = SocketAddr::new(homing::lab::lan_router(family), 9480);
    let file = site.path("token");
    site.run(&listening(&[inside], &format!(", token-file: \"{file}\"")));
    let door = Door::Tcp(inside);
    let warned = |status: &Value| status["warnings"].to_string().contains("token");
    site.wait_status("the missing file is told", warned);
    assert!(site.try_connect(door).is_err(), "without a token nobody is let in");
    fs::write(&file, " s3cret-t0ken \n").unwrap();
    wait_listening(&site, door);
    site.wait_status("all is well", |status| status["warnings"] == serde_json::json!([]));
    for (head, reason) in [
        ("", "send the token"),
        ("Authorization: Bearer wrong\r\n", "not the token"),
        ("Authorization: Bearer s3cret-t0ke\r\n", "not the token"),
        ("Authorization: Basic s3cret-t0ken\r\n", "send the token"),
    ] {
        let answer = site.request(door, "GET", "/v1/status", head, "");
        assert_eq!(answer.status, 401, "{answer:?}");
        assert!(answer.error().contains(reason), "{answer:?}");
    }
    assert_eq!(site.log().matches("asked with a wrong token").count(), 1, "{}", site.log());
    let right = "Authorization: Bearer s3cret-t0ken\r\n";
    assert_eq!(site.request(door, "GET", "/metrics", right, "").status, 200);
    let named = format!("Host: router.example\r\n{right}");
    assert_eq!(site.request(door, "GET", "/v1/status", &named, "").status, 200);
    let change = site.request(door, "POST", "/v1/reload", right, "");
    assert_eq!(change.status, 403, "{change:?}");
}

fn a_posted_profile_is_checked_and_changes_nothing(family: Family) {
    let site = Site::start(family, &listening(&[local(family)], ""));
    wait_listening(&site, Door::Tcp(local(family)));
    for door in [Door::Socket, Door::Tcp(local(family))] {
        let check = |text: &str| site.request(door, "POST", "/v1/check", "", text);
        let good = check(&profile(""));
        assert_eq!(good.json(), serde_json::json!({ "version": 1, "findings": [] }), "{good:?}");
        let bad = check("version: 1\nuplinks:\n  fiber: { interface: wan0, wieght: 5 }\n");
        assert_eq!(bad.status, 200, "{bad:?}");
        let findings = bad.json()["findings"].as_array().unwrap().clone();
        let of_key = |finding: &&Value| finding["path"] == "uplinks.fiber.wieght";
        let finding = findings.iter().find(of_key).unwrap_or_else(|| panic!("{findings:?}"));
        assert_eq!((&finding["line"], &finding["severity"]), (&3.into(), &"error".into()));
        let hint = finding["hint"].as_str().unwrap();
        assert!(hint.contains("weight"), "{finding}");
    }
    assert_eq!(site.status()["generation"], 1);
}

fn sessions_come_by_the_page(family: Family) {
    let site = Site::start(family, &profile(""));
    let held = site.open_many(Protocol::Tcp, 0..25);
    let mut seen = BTreeSet::new();
    let (mut path, mut pages) = ("/v1/sessions?limit=10&policy=default".to_owned(), 0);
    loop {
        let page = site.get(Door::Socket, &path).json();
        let lines = page["sessions"].as_array().unwrap();
        assert!(lines.len() <= 10, "{page}");
        assert!(page["total"].as_u64() >= Some(25), "{page}");
        seen.extend(lines.iter().map(|line| format!("{} {}", line["client"], line["client_port"])));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/sessions?limit=10&policy=default&after={next}");
    }
    for session in &held {
        let at = session.local;
        assert!(
            seen.contains(&format!("\"{}\" {}", at.ip(), at.port())),
            "{at} is on no page: {seen:?}"
        );
    }
    assert!(pages >= 3, "{pages}");
    let client = site.host(3);
    let of_one = site.get(Door::Socket, &format!("/v1/sessions?client={client}")).json();
    let clients = of_one["sessions"].as_array().unwrap().iter().map(|line| line["client"].clone());
    let clients: BTreeSet<String> = clients.map(|client| client.to_string()).collect();
    assert_eq!(clients, BTreeSet::from([format!("\"{client}\"")]));
    for bad in ["limit=0", "limit=10001", "limit=x", "after=x", "client=x", "colour=red"] {
        let answer = site.get(Door::Socket, &format!("/v1/sessions?{bad}"));
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
        assert!(!answer.error().is_empty());
    }
    let all = site.homing(&["sessions", "--json"]).json();
    assert!(all["sessions"].as_array().unwrap().len() >= 25);
}

fn an_address_that_is_not_there_yet_is_listened_on_when_it_is(family: Family) {
    let text = if family == Family::V4 { "10.1.9.9:9480" } else { "[fd00:1::9:9]:9480" };
    let at: SocketAddr = text.parse().unwrap();
    let mut site = Site::prepare(family, |b| b);
    fs::write(site.path("token"), "token").unwrap();
    let token = format!(", token-file: \"{}\"", site.path("token"));
    site.run(&listening(&[at], &token));
    let told = |status: &Value| status["warnings"].to_string().contains(&at.to_string());
    site.wait_status("the address is missing", told);
    assert_eq!(site.open_many(Protocol::Tcp, 0..5).len(), 5, "traffic does not care");
    let (bits, more) = if family == Family::V4 { (32, "") } else { (128, "nodad") };
    site.router().ip(&[format!("address add {}/{bits} dev lan0 {more}", at.ip())]).unwrap();
    wait_listening(&site, Door::Tcp(at));
    site.wait_status("no warning", |status| status["warnings"] == serde_json::json!([]));
}

/// Whether there are other users than this one: not in a user namespace of one.
fn others_exist() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2) != Some("1")
}

/// A copy of the program that every user may run.
fn public_program(site: &Site) -> String {
    let program = site.path("homing");
    install(homing(), &program);
    program
}

/// Runs a command as the user `nobody`.
fn as_nobody(site: &Site, program: &str, args: &[&str]) -> crate::harness::Outcome {
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let run = site.path("run");
    let words = [&user[..], &[program], args, &["--runtime-dir", &run]].concat();
    site.command("/usr/bin/setpriv", &words)
}

/// As the group of the socket lets him in; he is not in the group that may change things.
#[test]
fn an_ordinary_user_reads_and_changes_nothing() {
    if !others_exist() {
        return;
    }
    let site = Site::start(V4, &profile(""));
    let program = public_program(&site);
    let out = as_nobody(&site, &program, &["status"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    assert!(out.stderr.contains("no permission"), "{out:?}");
    chown(site.path("run/api.sock"), None, Some(65_534)).unwrap();
    assert_eq!(as_nobody(&site, &program, &["status"]).code, Some(0));
    for order in [&["uplink", "fiber", "drain"][..], &["reload"]] {
        let refused = as_nobody(&site, &program, order);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("homing-admin"), "{refused:?}");
    }
    assert_eq!(site.status()["uplinks"]["fiber"]["admin"], "enabled");
}

#[test]
fn a_member_of_the_group_of_admins_changes_things() {
    if !others_exist() {
        return;
    }
    let mut site = Site::prepare(V4, |b| b);
    let groups = fs::read_to_string("/etc/group").unwrap();
    let file = site.path("group");
    fs::write(&file, format!("{groups}homing-admin:x:64242:nobody\n")).unwrap();
    site.with_mounts("mount --bind \"$0\" /etc/group", &file);
    site.run(&profile(""));
    let program = public_program(&site);
    chown(site.path("run/api.sock"), None, Some(65_534)).unwrap();
    let done = as_nobody(&site, &program, &["uplink", "fiber", "drain"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(site.status()["uplinks"]["fiber"]["admin"], "draining");
}
