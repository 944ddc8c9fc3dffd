//! `notify`: webhooks and commands are told, and whatever they do, steering goes on.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use homing::lab::Fault;
use homing::model::Family;
use serde_json::Value;

use crate::harness::{
    Certificate, HOST, HTTPS_PORT, Mood, PATIENCE, PROBES, Site, Targets, both, profile, until,
};

both!(
    a_webhook_is_told_until_it_takes_it,
    a_webhook_is_reached_by_whatever_uplink_works,
    a_webhook_that_never_answers_and_a_command_that_hangs_disturb_nothing,
    a_command_gets_each_event,
    a_webhook_by_https_must_be_trusted,
);

/// The port of the webhook.
const PORT: u16 = 8088;

/// Fiber is first, for others' sessions and for the router's own.
const POLICY: &str = "policies: [{ name: default, uplinks: [[fiber], [cable], [lte]] }]\n";

/// A letter that arrived: from where, its head, its body.
type Letter = (SocketAddr, String, Value);

/// A webhook in the internet. The first so many letters are refused.
fn webhook(site: &Site, refuse: usize) -> (String, mpsc::Receiver<Letter>) {
    let at = site.server(0, PORT);
    let listen = || TcpListener::bind(at).expect("listen");
    let listener = site.stage.layout().internet().enter(listen).expect("enter the internet");
    let (letters, inbox) = mpsc::channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let Some(letter) = receive(stream, number < refuse) else { continue };
            if letters.send(letter).is_err() {
                return;
            }
        }
    });
    (format!("http://{at}/hook?x=1"), inbox)
}

fn receive(mut stream: TcpStream, refuse: bool) -> Option<Letter> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let from = stream.peer_addr().ok()?;
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        read.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&read).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.trim().parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    let status = if refuse { "503 Service Unavailable" } else { "204 No Content" };
    stream.write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    Some((from, head, serde_json::from_slice(&body).unwrap_or_default()))
}

fn next(inbox: &mpsc::Receiver<Letter>, site: &Site) -> Letter {
    inbox.recv_timeout(3 * PATIENCE).unwrap_or_else(|_| panic!("no letter\n{}", site.log()))
}

fn a_webhook_is_told_until_it_takes_it(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let (url, inbox) = webhook(&site, 5);
    let notify =
        format!("notify: {{ chat: {{ webhook: \"{url}\", events: [failover, failback] }} }}\n");
    site.run(&profile(&format!("{POLICY}{notify}")));
    site.fail(&["fiber"], Fault::Silent);
    let letters: Vec<Letter> = (0..6).map(|_| next(&inbox, &site)).collect();
    for (_, head, letter) in &letters {
        assert!(head.starts_with("post /hook?x=1 http/1.1"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        assert_eq!(
            (&letter["site"], &letter["kind"]),
            (&"test".into(), &"failover".into()),
            "{letter}"
        );
        assert_eq!(letter["uplink"], "fiber");
        assert!(
            letter["text"].as_str().is_some_and(|text| text.starts_with("failover: ")),
            "{letter}"
        );
    }
    let numbers: Vec<&Value> = letters.iter().map(|(_, _, letter)| &letter["number"]).collect();
    assert!(
        numbers.iter().all(|number| *number == numbers[0]),
        "the same until it was taken: {numbers:?}"
    );
    let counted = || {
        let text = site.get(crate::harness::http::Door::Socket, "/metrics").body;
        text.contains("homing_notices_total{notify=\"chat\",outcome=\"delivered\"} 1\n")
            || text.contains("homing_notices_total{notify=\"chat\",outcome=\"delivered\"} 2\n")
    };
    until(PATIENCE, counted, |counted| *counted).expect("it is counted");
}

fn a_webhook_is_reached_by_whatever_uplink_works(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let (url, inbox) = webhook(&site, 0);
    let notify = format!(
        "notify: {{ chat: {{ webhook: \"{url}\", events: uplink-order, timeout: 1s }} }}\n"
    );
    site.run(&profile(&format!("{POLICY}{notify}")));
    let address = |uplink: &str| site.stage.isp(uplink).unwrap().layout().customer(family);
    let tell = |verb: &str| assert_eq!(site.homing(&["uplink", "lte", verb]).code, Some(0));
    tell("drain");
    assert_eq!(next(&inbox, &site).0.ip(), address("fiber"), "the way of the router's own traffic");
    // Fiber still answers probes, but nobody gets to the webhook by it.
    let word = crate::harness::farm::word(family);
    let block = format!(
        "add table inet block\nadd chain inet block in {{ type filter hook prerouting priority -300; }}\n\
         add rule inet block in {word} saddr {} tcp dport {PORT} drop\n",
        address("fiber")
    );
    site.stage.layout().internet().nft(&block).unwrap();
    tell("enable");
    assert_eq!(next(&inbox, &site).0.ip(), address("cable"), "by the next that is usable");
    site.stage.layout().internet().nft("delete table inet block\n").unwrap();
}

fn a_webhook_that_never_answers_and_a_command_that_hangs_disturb_nothing(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let at = site.server(0, PORT);
    // It takes connections, and says nothing.
    let listen = || TcpListener::bind(at).expect("listen");
    let _deaf = site.stage.layout().internet().enter(listen).expect("enter the internet");
    let file = site.path("began");
    let script = format!("echo $$ >> {file}; sleep 600");
    let notify = format!(
        "notify:\n  deaf: {{ webhook: \"http://{at}/\", timeout: 2s }}\n  \
         stuck: {{ command: [/bin/sh, -c, \"{script}\"], timeout: 1s }}\n"
    );
    site.run(&profile(&format!("{POLICY}{notify}")));
    for _ in 0..3 {
        assert_eq!(site.way_of(1), "fiber");
        let told = site.lose_carrier("fiber");
        let took = site.time_until_way(2, "cable", told);
        assert!(took < Duration::from_millis(500), "{took:?} after the kernel's notice");
        site.heal(&["fiber"]);
        site.wait_way(3, "fiber");
    }
    let said = || {
        site.log().contains("notify deaf") && site.log().contains("notify stuck: /bin/sh was ended")
    };
    until(3 * PATIENCE, said, |said| *said).unwrap_or_else(|_| panic!("{}", site.log()));
    let first = fs::read_to_string(&file).unwrap();
    let first = first.lines().next().unwrap().to_owned();
    let gone = || !fs::exists(format!("/proc/{first}")).unwrap();
    until(PATIENCE, gone, |gone| *gone).expect("the first command was ended");
    // A reload lets both go.
    site.reload(&profile(POLICY));
    let running = || site.router().processes().len();
    until(3 * PATIENCE, running, |count| *count <= 1).expect("no command is left");
    assert_eq!(site.status()["ready"], true);
}

fn a_command_gets_each_event(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let file = site.path("told");
    let script =
        format!("cat >> {file}; echo \\\"$1 $HOMING_EVENT $HOMING_UPLINK\\\" >> {file}.words");
    let notify = format!(
        "notify: {{ log: {{ command: [/bin/sh, -c, \"{script}\", sh, hello], events: [uplink-order] }} }}\n"
    );
    site.run(&profile(&format!("{POLICY}{notify}")));
    for verb in ["drain", "enable"] {
        assert_eq!(site.homing(&["uplink", "lte", verb]).code, Some(0));
    }
    let words = || fs::read_to_string(format!("{file}.words")).unwrap_or_default();
    let line = "hello uplink-order lte\n";
    until(PATIENCE, words, |words| *words == line.repeat(2)).expect("told twice");
    let letters = fs::read_to_string(&file).unwrap();
    let letters: Vec<Value> =
        letters.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let admin: Vec<&Value> = letters.iter().map(|letter| &letter["details"]["admin"]).collect();
    assert_eq!(admin, ["draining", "enabled"]);
    assert_eq!(letters[0]["site"], "test");
}

fn a_webhook_by_https_must_be_trusted(family: Family) {
    let mut site = Site::prepare(family, |b| b);
    let internet = site.stage.layout().internet();
    let (address, nodad) = match family {
        Family::V4 => ("203.0.113.77", ""),
        Family::V6 => ("2001:db8:ffff::77", " nodad"),
    };
    internet.ip(&[format!("addr add {address} dev lo{nodad}")]).unwrap();
    let targets = Targets::start(&internet, address.parse().unwrap());
    fs::write(site.dir.join("trusted.pem"), &targets.trusted).unwrap();
    fs::write(site.dir.join("hosts"), format!("{address} {HOST}\n")).unwrap();
    let (trust, hosts) =
        (format!("SSL_CERT_FILE={}", site.path("trusted.pem")), site.path("hosts"));
    let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
    site.run_by(&[
        "/usr/bin/env",
        &trust,
        "/usr/bin/unshare",
        "--mount",
        "sh",
        "-c",
        script,
        &hosts,
    ]);
    let untrusted = Mood::Certificate(Certificate::Untrusted);
    let callers = ["fiber", "cable", "lte"]
        .map(|name| site.stage.isp(name).unwrap().layout().customer(family));
    callers.iter().for_each(|caller| targets.treat(*caller, untrusted));
    let url = format!("https://{HOST}:{HTTPS_PORT}/hook");
    let notify = format!("notify: {{ chat: {{ webhook: \"{url}\", events: uplink-order }} }}\n");
    // Echoes are answered by these targets alone.
    let asks = format!(
        "probes: {{ default: {{ targets: [icmp: \"{address}\"], interval: 250ms, hold-down: 0s }} }}\n"
    );
    let usual = profile(&format!("{POLICY}{notify}"));
    site.run(&usual.replace(PROBES, &asks));
    assert_eq!(site.homing(&["uplink", "lte", "drain"]).code, Some(0));
    let told = || site.log().contains("TLS: invalid peer certificate");
    until(PATIENCE, told, |told| *told).unwrap_or_else(|_| panic!("{}", site.log()));
    callers.iter().for_each(|caller| targets.treat(*caller, Mood::Good));
    let taken = "homing_notices_total{notify=\"chat\",outcome=\"delivered\"} 1\n";
    let metrics = || site.get(crate::harness::http::Door::Socket, "/metrics").body;
    until(3 * PATIENCE, metrics, |text| text.contains(taken)).expect("delivered at last");
}
