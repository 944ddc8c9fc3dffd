//! `homing lab`: what a newcomer runs first, and that nothing is left of it.

use std::cell::Cell;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use homing::lab::{Client, IspLayout, Namespace, Protocol, caller_address, dmz_server, run_dir};
use homing::model::Family;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{PATIENCE, homing, prepare, until};

/// A lab of a name of its own, so that it meets no other.
struct Demo {
    name: String,
    child: Child,
    /// How many callers there were.
    called: Cell<u16>,
}

impl Demo {
    fn start(name: &str, args: &[&str]) -> Demo {
        prepare();
        let name = format!("test-{name}-{}", std::process::id());
        let child = Command::new(homing())
            .args(["lab", "--name", &name])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the lab");
        let demo = Demo { name, child, called: Cell::new(0) };
        let status = || demo.second(&["status"]).status.code();
        if until(PATIENCE, status, |code| *code == Some(0)).is_err() {
            panic!("the lab does not answer: {}", demo.end());
        }
        demo
    }

    /// A second terminal.
    fn second(&self, args: &[&str]) -> Output {
        let all = ["lab", "--name", self.name.as_str()];
        let command = Command::new(homing()).args(all).args(args).stdin(Stdio::null()).output();
        command.expect("start homing lab")
    }

    fn output(&self, args: &[&str]) -> String {
        let output = self.second(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("send a signal");
    }

    /// Asks it to end; what it complained of.
    fn end(mut self) -> String {
        self.signal(Signal::SIGTERM);
        let code = self.wait();
        let mut text = String::new();
        let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut text));
        format!("{code:?}: {text}")
    }

    fn spaces(&self) -> Vec<Namespace> {
        Namespace::with_prefix(&format!("hl-{}-", self.child.id()))
    }

    /// The lab's internet, where its callers are.
    fn internet(&self) -> Namespace {
        let spaces = self.spaces();
        let found = spaces.into_iter().find(|space| space.name().ends_with("-net"));
        found.expect("the lab has an internet")
    }

    /// The servers that the next callers of the shop find, each by the next uplink when all have
    /// called there; who finds none is left out. Others each time, for a caller stays where it was.
    fn servers(&self, family: Family, callers: u16) -> Vec<String> {
        let client = Client::new(&self.internet()).timeout(Duration::from_millis(400));
        let first = self.called.replace(self.called.get() + callers);
        let call = |number: u16| {
            let isp = &uplinks()[usize::from(number / 100) % 3];
            let to = SocketAddr::new(isp.customer(family), 80);
            (Protocol::Tcp, Some(caller_address(family, number % 100)), to)
        };
        let wanted: Vec<_> = (first..first + callers).map(call).collect();
        let sessions = client.open_all(&wanted).into_iter().filter_map(Result::ok);
        sessions.filter_map(|session| session.server).collect()
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(run_dir()).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let ours = format!("hl-{}-", self.child.id());
        names.filter(|name| name.starts_with(&self.name) || name.starts_with(&ours)).collect()
    }

    fn wait(&mut self) -> Option<i32> {
        let ended = || self.child.try_wait().expect("wait").map(|status| status.code());
        until(PATIENCE, ended, Option::is_some).expect("the lab ends").flatten()
    }

    fn assert_gone(&self) {
        assert_eq!(self.spaces(), []);
        assert_eq!(self.files(), [""; 0]);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Asked to end, it cleans up after itself.
            self.signal(Signal::SIGTERM);
            let _ = until(PATIENCE, || self.child.try_wait(), |r| !matches!(r, Ok(None)));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_second_terminal_breaks_and_mends_an_uplink() {
    let mut demo = Demo::start("second", &["--no-table"]);
    assert!(demo.output(&["exec", "lan", "--", "ip", "route"]).contains("10.1.0.1"));
    assert!(demo.output(&["exec", "fiber", "--", "ip", "-br", "link"]).contains("cust"));
    // homing finds the lab's process.
    let services = demo.output(&["exec", "router", "--", homing(), "services"]);
    assert!(services.contains("shop"), "{services}");
    let profile = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/lab.yaml");
    let doctor = ["exec", "router", "--", homing(), "doctor", profile];
    let doctor = demo.output(&doctor);
    // A kernel without flowtables is told of.
    let sound = doctor == "nothing to complain of\n" || doctor.starts_with("note [fast-path]");
    assert!(sound && doctor.matches('[').count() <= 1, "{doctor}");
    let health = |demo: &Demo| {
        let text = demo.output(&["status"]);
        let line = text.lines().find(|line| line.starts_with("fiber ")).expect("fiber").to_owned();
        line.split_whitespace().nth(1).expect("its health").to_owned()
    };
    assert_ne!(health(&demo), "down");
    demo.output(&["fail", "fiber"]);
    until(PATIENCE, || health(&demo), |health| health == "down").expect("fiber is down");
    demo.output(&["heal", "fiber"]);
    // It is held down for a while.
    until(3 * PATIENCE, || health(&demo), |health| health != "down").expect("fiber is back");
    for wrong in [
        &["fail", "fibre"][..],
        &["exec", "moon", "--", "true"],
        &["fail", "lte", "--how", "loss=0%"],
    ] {
        let output = demo.second(wrong);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !text.is_empty(), "{output:?}");
    }
    let again = demo.second(&[]);
    assert_eq!(again.status.code(), Some(1), "a second lab of that name: {again:?}");
    demo.signal(Signal::SIGTERM);
    assert_eq!(demo.wait(), Some(0));
    demo.assert_gone();
    assert_eq!(demo.second(&["fail", "fiber"]).status.code(), Some(1), "no lab is running");
}

/// The shipped profile's uplinks.
fn uplinks() -> Vec<IspLayout> {
    (1..).zip(["fiber", "cable", "lte"]).map(|(k, name)| IspLayout::usual(name, k)).collect()
}

#[test]
fn callers_find_a_server_by_each_uplink() {
    let mut demo = Demo::start("services", &["--no-table"]);
    let client = Client::new(&demo.internet());
    for family in Family::BOTH {
        for isp in uplinks() {
            for (protocol, port) in
                [(Protocol::Tcp, 80), (Protocol::Tcp, 443), (Protocol::Udp, 5060)]
            {
                let caller = caller_address(family, 40);
                let to = SocketAddr::new(isp.customer(family), port);
                let session = client.open(protocol, Some(caller), to);
                let session = session.unwrap_or_else(|e| panic!("{protocol:?} to {to}: {e}"));
                assert_eq!(session.seen.ip(), caller, "the server sees who calls");
                let server = session.server.expect("its name");
                assert!(server.starts_with("server-"), "{server}");
            }
        }
        let to = SocketAddr::new(uplinks()[0].customer(family), 80);
        let page = demo.internet().enter(|| page(to)).expect("enter").expect("a page");
        assert!(page.starts_with("HTTP/1.1 200 OK"), "{page}");
        assert!(page.contains("\r\n\r\nserver-") && page.contains(" was called by "), "{page}");
    }
    let text = demo.output(&["status"]);
    assert!(text.contains("shop") && text.contains("web/a6"), "{text}");
    demo.signal(Signal::SIGTERM);
    assert_eq!(demo.wait(), Some(0));
    demo.assert_gone();
}

/// What a browser gets.
fn page(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn clients_leave_a_server_that_fails_and_come_back() {
    /// So many at a time.
    const CALLERS: u16 = 12;
    let mut demo = Demo::start("servers", &["--no-table"]);
    let has = |servers: &[String], name: &str| servers.iter().any(|server| server == name);
    let found = |what: &str, family, right: &dyn Fn(&[String]) -> bool| {
        let look = || demo.servers(family, CALLERS);
        until(2 * PATIENCE, look, |servers| right(servers.as_slice()))
            .unwrap_or_else(|last| panic!("{what}: {last:?}"));
    };
    let is_up = || {
        let text = demo.output(&["status"]);
        let up = |name| text.lines().any(|line| line.starts_with(name) && line.contains(" up "));
        up("web/a ") && up("web/a6 ")
    };
    for how in ["silent", "refuse"] {
        until(2 * PATIENCE, is_up, |up| *up).expect("server-a is up");
        for family in Family::BOTH {
            found("server-a serves", family, &|servers| has(servers, "server-a"));
        }
        demo.output(&["fail", "server-a", "--how", how]);
        let begun = std::time::Instant::now();
        for family in Family::BOTH {
            found("all are with another", family, &|servers| {
                servers.len() == usize::from(CALLERS) && !has(servers, "server-a")
            });
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(8), "{how}: {took:?}");
        println!("{how}: nobody was with server-a after {took:?}");
        let text = demo.output(&["status"]);
        assert!(text.contains(&format!("broken in the lab: server-a ({how})")), "{text}");
        demo.output(&["heal", "server-a"]);
        assert!(!demo.output(&["status"]).contains("broken in the lab"));
    }
    until(2 * PATIENCE, is_up, |up| *up).expect("server-a is up");
    for family in Family::BOTH {
        found("server-a is back", family, &|servers| has(servers, "server-a"));
    }
    let inside = demo.output(&["exec", "server-b", "--", "ip", "-br", "address", "show", "eth0"]);
    assert!(inside.contains("10.2.0.12/24") && inside.contains("fd00:2::12/64"), "{inside}");
    let dmz = dmz_server(Family::V4).to_string();
    assert!(demo.output(&["exec", "dmz", "--", "ip", "-br", "address"]).contains(&dmz));
    for (wrong, word) in [
        (&["fail", "server-d"][..], "fiber, cable, lte, server-a, server-b, server-c"),
        (&["exec", "server-d", "--", "true"], "server-c"),
        (&["fail", "server-a", "--how", "captive"], "silent, refuse, loss=30%"),
        (&["fail", "fiber", "--how", "refuse"], "gateway-only"),
    ] {
        let output = demo.second(wrong);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(word), "{wrong:?}: {output:?}");
    }
    demo.signal(Signal::SIGTERM);
    assert_eq!(demo.wait(), Some(0));
    demo.assert_gone();
}

#[test]
fn each_way_to_fail_is_shown_with_its_reason() {
    let mut demo = Demo::start("faults", &["--no-table"]);
    let shown = |health: &str, why: &str| {
        let status = || demo.output(&["status"]).split_whitespace().collect::<Vec<_>>().join(" ");
        let right = |text: &String| text.contains(health) && text.contains(why);
        until(2 * PATIENCE, status, right)
            .unwrap_or_else(|last| panic!("no {health:?} with {why:?} in {last}"));
    };
    for (uplink, how, health, why) in [
        (
            "fiber",
            "captive",
            "fiber down",
            "captive portal: HTTP status 302 Found to http://portal",
        ),
        ("cable", "gateway-only", "cable down", "its gateway answers, so the break lies behind it"),
        ("lte", "loss=30%", "lte degraded", "loss is above its limit"),
        ("lte", "silent", "lte down", "its gateway does not answer"),
        ("lte", "carrier", "lte down", "no carrier on wan2"),
    ] {
        demo.output(&["fail", uplink, "--how", how]);
        shown(health, why);
    }
    demo.signal(Signal::SIGTERM);
    assert_eq!(demo.wait(), Some(0));
    demo.assert_gone();
}

#[test]
fn the_table_is_plain_and_narrow_without_a_terminal() {
    let mut demo = Demo::start("table", &["--for", "4"]);
    assert_eq!(demo.wait(), Some(0));
    let mut text = String::new();
    let mut stdout = demo.child.stdout.take().expect("its output");
    stdout.read_to_string(&mut text).expect("read");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    for word in ["fiber", "cable", "lte", "voice", "banking", "default", "SHARE"] {
        assert!(text.matches(word).count() >= 3, "{word} in\n{text}");
    }
    assert!(text.contains(" 0 failed, 0 broken"), "{text}");
    let works = |line: &str| {
        let health = line.split_whitespace().nth(1);
        ["up", "degraded"].iter().any(|word| health == Some(word))
    };
    for server in ["server-a", "server-b", "server-c"] {
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(server)).collect();
        assert!(lines.len() >= 3 && lines.iter().any(|line| works(line)), "{text}");
    }
    demo.assert_gone();
}

#[test]
fn what_a_killed_lab_leaves_is_removed_by_the_next() {
    let mut dead = Demo::start("killed", &["--no-table"]);
    dead.signal(Signal::SIGKILL);
    dead.wait();
    assert!(!dead.spaces().is_empty(), "a killed lab cannot clean up");
    assert_eq!(dead.second(&["status"]).status.code(), Some(1), "no lab is running");
    let mut next = Command::new(homing());
    next.args(["lab", "--name", &dead.name, "--no-table", "--for", "1"]);
    let output = next.stdin(Stdio::null()).output().expect("start the next lab");
    assert!(output.status.success(), "{output:?}");
    let gone = || dead.spaces().is_empty();
    until(Duration::from_secs(5), gone, |gone| *gone).expect("the leftovers are gone");
    dead.assert_gone();
}
