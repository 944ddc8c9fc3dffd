//! `probes`, and the parts that `check` shares with them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Degraded, HttpExpect, Name, Pace, Probe, Target};

use super::fields::{Fields, named};
use super::finding::Findings;
use super::tree::{Kind, Node};
use super::url::{self, host_name};
use super::{net, scalar};

pub(super) const KEYS: &[&str] =
    &["targets", "quorum", "interval", "timeout", "fall", "rise", "degraded", "hold-down"];
const TARGET_KINDS: &[&str] = &["icmp", "tcp", "http", "https", "dns"];
const HTTP_KEYS: &[&str] = &["url", "status", "body", "host"];
const DEGRADED_KEYS: &[&str] = &["loss", "rtt", "jitter"];

/// Most targets of one block.
const MOST_TARGETS: usize = 64;
/// Longest time between rounds, and longest wait.
const LONGEST: Duration = Duration::from_secs(3600);
/// Shortest time between rounds, and shortest wait.
const SHORTEST: Duration = Duration::from_millis(10);

/// Reads the section.
pub(super) fn read(node: Node<'_>, out: &mut Findings) -> BTreeMap<Name, Probe> {
    let entries = named(node, "probe", out);
    if entries.is_empty() && node.kind() == Kind::Mapping {
        out.error_with(node, "no probes", "name one, or remove the key");
    }
    let mut all = BTreeMap::new();
    for (name, node) in entries {
        if let Some(probe) = probe(name.clone(), node, out) {
            all.insert(name, probe);
        }
    }
    all
}

/// One block.
pub(super) fn probe(name: Name, node: Node<'_>, out: &mut Findings) -> Option<Probe> {
    let fields = Fields::read(node, KEYS, out)?;
    let targets_node =
        fields.required("targets", "name what is asked: `targets: [{ icmp: 192.0.2.1 }]`", out);
    let targets = targets_node.map_or_else(Vec::new, |node| targets(node, out));
    let pace = pace(&fields, Pace::PROBE, out);
    let degraded = fields.get("degraded", out).and_then(|node| degraded(node, out));
    let hold_down = fields.get("hold-down", out);
    let hold_down = hold_down.and_then(|n| scalar::duration(n, Duration::ZERO..=LONGEST, out));
    let quorum = fields.get("quorum", out);
    let quorum = quorum.and_then(|node| quorum_of(node, &targets, out));
    Some(Probe {
        name,
        targets,
        quorum: quorum.unwrap_or(1),
        pace,
        degraded: degraded.unwrap_or_default(),
        hold_down: hold_down.unwrap_or(Probe::HOLD_DOWN),
    })
}

fn quorum_of(node: Node<'_>, targets: &[Target], out: &mut Findings) -> Option<u32> {
    let quorum = scalar::number(node, 1..=1000, out)?;
    let counted = targets.iter().filter(|target| **target != Target::Gateway).count().max(1);
    if usize::try_from(quorum).is_ok_and(|quorum| quorum > counted) && !targets.is_empty() {
        let message = format!("no round can be good: {quorum} of {counted} targets must answer");
        out.error_with(node, message, "`gateway` does not count while there are other targets");
    }
    Some(quorum)
}

fn targets(node: Node<'_>, out: &mut Findings) -> Vec<Target> {
    if node.kind() != Kind::Sequence {
        scalar::expected(node, "a list of targets", "each begins with a dash: `- gateway`", out);
        return Vec::new();
    }
    let items = super::fields::list(node, out);
    if items.len() > MOST_TARGETS {
        let message = format!("{} targets are more than {MOST_TARGETS}", items.len());
        out.error_with(node.key(), message, "two or three tell a broken link from a broken target");
        return Vec::new();
    }
    let mut all = Vec::new();
    for item in items {
        let Some(target) = target(item, out) else {
            continue;
        };
        if all.contains(&target) {
            out.error_with(item, "the same target a second time", "remove one of them");
        } else {
            all.push(target);
        }
    }
    all
}

fn target(node: Node<'_>, out: &mut Findings) -> Option<Target> {
    if node.kind() == Kind::Scalar {
        let hint = "say `gateway`, or a kind and its address: `icmp: 192.0.2.1`";
        if node.text() != Some("gateway") {
            scalar::expected(node, "a target", hint, out);
            return None;
        }
        return Some(Target::Gateway);
    }
    let fields = Fields::read(node, TARGET_KINDS, out)?;
    let kind = one_kind(&fields, TARGET_KINDS, out)?;
    let value = fields.get(kind, out)?;
    match kind {
        "icmp" => net::host(value, out).map(Target::Icmp),
        "tcp" => net::socket(value, out).map(Target::Tcp),
        "dns" => dns(value, out),
        _ => http(value, kind == "https", out),
    }
}

/// The one key that says what is asked.
pub(super) fn one_kind(
    fields: &Fields<'_>,
    kinds: &[&'static str],
    out: &mut Findings,
) -> Option<&'static str> {
    let mut found = kinds.iter().filter(|kind| fields.raw(kind).is_some());
    let first = found.next().copied();
    if let (Some(first), Some(second)) = (first, found.next()) {
        let hint = "one kind in each entry";
        out.error_with(fields.node(), format!("`{first}` and `{second}` in one entry"), hint);
        return None;
    }
    first
}

fn dns(node: Node<'_>, out: &mut Findings) -> Option<Target> {
    let fields = Fields::read(node, &["server", "query"], out)?;
    let server = fields.required("server", "the resolver's address", out);
    let query = fields.required("query", "the name to ask for: `query: example.com`", out);
    let server = server.and_then(|node| net::host(node, out));
    let query = query.and_then(|node| host_name(node, out));
    Some(Target::Dns { server: server?, query: query? })
}

fn http(node: Node<'_>, tls: bool, out: &mut Findings) -> Option<Target> {
    let fields = Fields::read(node, HTTP_KEYS, out)?;
    let url = fields.required("url", "where to: `url: \"http://192.0.2.3/\"`", out);
    let expect = http_expect(&fields, out);
    let node = url?;
    let url = url::read(node, out)?;
    if tls && !url.tls {
        out.error_with(node, "`https` with an `http://` address", "say `http`, or `https://`");
    }
    Some(Target::Http { url, expect })
}

/// `status`, `body` and `host`.
pub(super) fn http_expect(fields: &Fields<'_>, out: &mut Findings) -> HttpExpect {
    let status = fields.get("status", out);
    let body = fields.get("body", out);
    let host = fields.get("host", out);
    HttpExpect {
        status: status
            .and_then(|node| scalar::number(node, 100..=599, out))
            .and_then(|status| u16::try_from(status).ok()),
        body: body.and_then(|node| scalar::text(node, "text", out)).map(str::to_owned),
        host: host.and_then(|node| host_name(node, out)),
    }
}

/// `interval`, `timeout`, `fall` and `rise`.
pub(super) fn pace(fields: &Fields<'_>, default: Pace, out: &mut Findings) -> Pace {
    let mut time = |key: &str, default: Duration| {
        let node = fields.get(key, out);
        let found = node.and_then(|node| scalar::duration(node, SHORTEST..=LONGEST, out));
        found.unwrap_or(default)
    };
    let interval = time("interval", default.interval);
    let timeout = time("timeout", default.timeout);
    let mut rounds = |key: &str, default: u32| {
        let node = fields.get(key, out);
        node.and_then(|node| scalar::number(node, 1..=100, out)).unwrap_or(default)
    };
    Pace {
        interval,
        timeout,
        fall: rounds("fall", default.fall),
        rise: rounds("rise", default.rise),
    }
}

/// `degraded`; what is left out has its default.
pub(super) fn degraded(node: Node<'_>, out: &mut Findings) -> Option<Degraded> {
    let fields = Fields::read(node, DEGRADED_KEYS, out)?;
    let default = Degraded::default();
    let loss = fields.get("loss", out).and_then(|node| scalar::share(node, out));
    let mut time = |key: &str, default: Duration| {
        let node = fields.get(key, out);
        let found =
            node.and_then(|node| scalar::duration(node, Duration::from_millis(1)..=LONGEST, out));
        found.unwrap_or(default)
    };
    Some(Degraded {
        loss: loss.unwrap_or(default.loss),
        rtt: time("rtt", default.rtt),
        jitter: time("jitter", default.jitter),
    })
}
