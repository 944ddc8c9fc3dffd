//! `GET /metrics`: everything that is counted, for Prometheus. Names and units: `docs/metrics.md`.
//!
//! Every series of the site in force is there from the start, with 0; what was never measured is 0
//! as well.

mod process;
mod text;

use std::collections::BTreeMap;

pub(super) use text::Format;
use text::Kind::{Counter, Gauge, Histogram};
use text::{Document, Kind, Labels};

use crate::daemon::{BOUNDS, Census, MAP_SIZE, ServerStatus, Status, UplinkStatus};

/// Words of a state, of which one is true.
const HEALTH: [&str; 4] = ["up", "degraded", "down", "unknown"];
const SERVER_HEALTH: [&str; 5] = ["up", "degraded", "down", "unknown", "unchecked"];
const ADMIN: [&str; 3] = ["enabled", "draining", "disabled"];
const KERNEL: [&str; 3] = ["applied", "applying", "degraded"];
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

/// Writes everything down.
pub(super) fn write(census: &Census, format: Format) -> String {
    let mut out = Document::new(format);
    of_the_whole(&mut out, census);
    of_uplinks(&mut out, census);
    of_policies(&mut out, census);
    of_services(&mut out, &census.status);
    of_servers(&mut out, &census.status);
    of_notices(&mut out, census);
    process::write(&mut out);
    out.finish()
}

fn one(out: &mut Document, name: &str, kind: Kind, help: &str, value: f64) {
    out.family(name, kind, help);
    out.sample(&[], value);
}

/// One series for each word; that of the word that holds is 1.
fn states(out: &mut Document, labels: Labels<'_>, words: &[&str], holds: &str) {
    for word in words {
        let labels = [labels, &[("state", word)]].concat();
        out.sample(&labels, flag(*word == holds));
    }
}

fn flag(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

fn seconds(milliseconds: Option<f64>) -> f64 {
    milliseconds.unwrap_or(0.0) / 1000.0
}

fn of_the_whole(out: &mut Document, census: &Census) {
    let (status, kernel) = (&census.status, &census.status.kernel);
    out.family("homing_build_info", Gauge, "1, with the version of the program.");
    out.sample(&[("version", env!("CARGO_PKG_VERSION")), ("site", &status.site)], 1.0);
    one(out, "homing_ready", Gauge, "1 when the first apply was found right.", flag(status.ready));
    let generation = status.generation as f64;
    one(out, "homing_profile_generation", Gauge, "Counts profiles in force, from 1.", generation);
    out.family(
        "homing_kernel_state",
        Gauge,
        "How the kernel's state is: 1 for the state that holds.",
    );
    states(out, &[], &KERNEL, kernel.state);
    let warnings = status.warnings.len() as f64;
    one(out, "homing_warnings", Gauge, "Warnings in the status.", warnings);
    out.family(
        "homing_apply_duration_seconds",
        Histogram,
        "How long it took to put something in force and to read it back.",
    );
    let bounds: Vec<(f64, u64)> = BOUNDS.into_iter().zip(census.applies.within).collect();
    out.histogram(&bounds, census.applies.count, census.applies.sum);
    one(
        out,
        "homing_last_steer_duration_seconds",
        Gauge,
        "How long it last took until new sessions followed a change of an uplink.",
        seconds(kernel.last_steer_ms),
    );
    one(
        out,
        "homing_drift_repairs_total",
        Counter,
        "Rounds that put right what somebody else had changed of homing's state.",
        kernel.drift_repairs as f64,
    );
    one(
        out,
        "homing_adopted_sessions_total",
        Counter,
        "Sessions older than homing that got the uplink they belong to.",
        kernel.sessions_adopted as f64,
    );
    one(
        out,
        "homing_ended_sessions_total",
        Counter,
        "Sessions that were ended because they could only go on wrongly.",
        kernel.sessions_ended as f64,
    );
    one(out, "homing_sessions", Gauge, "Live sessions of homing.", census.sessions as f64);
    let (entries, most) = census.conntrack.unwrap_or_default();
    one(out, "homing_conntrack_entries", Gauge, "Entries of connection tracking.", entries as f64);
    one(out, "homing_conntrack_entries_limit", Gauge, "Entries that it may hold.", most as f64);
    one(
        out,
        "homing_conntrack_fill_ratio",
        Gauge,
        "How full connection tracking is, from 0 to 1.",
        ratio(entries, most),
    );
    out.family(
        "homing_binding_map_fill_ratio",
        Gauge,
        "How full a map of bindings is, from 0 to 1.",
    );
    for (map, count) in &census.maps {
        out.sample(&[("map", map)], ratio(*count, MAP_SIZE as u64));
    }
    out.family("homing_events_total", Counter, "Events, by kind.");
    for (kind, count) in &census.events {
        out.sample(&[("kind", kind)], *count as f64);
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn of_uplinks(out: &mut Document, census: &Census) {
    let uplinks = &census.status.uplinks;
    let mut each =
        |name: &str, kind: Kind, help: &str, value: &dyn Fn(&str, &UplinkStatus) -> f64| {
            out.family(name, kind, help);
            for (uplink, status) in uplinks {
                out.sample(&[("uplink", uplink)], value(uplink, status));
            }
        };
    each("homing_uplink_usable", Gauge, "Whether it may take new sessions.", &|_, up| {
        flag(up.usable)
    });
    each(
        "homing_uplink_rtt_seconds",
        Gauge,
        "Mean round-trip time of the last 20 answers.",
        &|_, up| seconds(up.rtt_ms),
    );
    each("homing_uplink_jitter_seconds", Gauge, "Mean difference of successive ones.", &|_, up| {
        seconds(up.jitter_ms)
    });
    let help = "Share of the last 20 questions that were not answered, from 0 to 1.";
    each("homing_uplink_loss_ratio", Gauge, help, &|_, up| up.loss.unwrap_or(0.0));
    let carried = |uplink: &str| census.bytes.get(uplink).copied().unwrap_or_default();
    each(
        "homing_uplink_receive_bytes_total",
        Counter,
        "Bytes that its device received.",
        &|name, _| carried(name).0 as f64,
    );
    each(
        "homing_uplink_transmit_bytes_total",
        Counter,
        "Bytes that its device sent.",
        &|name, _| carried(name).1 as f64,
    );
    each("homing_uplink_weight", Gauge, "The weight in force.", &|_, up| f64::from(up.weight));
    each("homing_uplink_sessions", Gauge, "Live sessions that are pinned to it.", &|_, up| {
        up.sessions as f64
    });
    let help = "Sessions that began over it, by any way, since its table was made.";
    each("homing_uplink_new_sessions_total", Counter, help, &|_, up| up.new_sessions_total as f64);
    let help = "Sessions that were moved or ended because it was dead.";
    each("homing_evacuated_sessions_total", Counter, help, &|_, up| {
        up.evacuated_sessions_total as f64
    });
    out.family("homing_uplink_health", Gauge, "How it answers: 1 for the state that holds.");
    for (uplink, status) in uplinks {
        states(out, &[("uplink", uplink)], &HEALTH, status.health);
    }
    out.family("homing_uplink_family_health", Gauge, "The same for each IP version alone.");
    for (uplink, status) in uplinks {
        for (family, of) in &status.families {
            states(out, &[("uplink", uplink), ("family", family)], &HEALTH, of.health);
        }
    }
    out.family("homing_uplink_admin", Gauge, "What people want of it: 1 for the state that holds.");
    for (uplink, status) in uplinks {
        states(out, &[("uplink", uplink)], &ADMIN, status.admin);
    }
    let help = "How often new sessions left it because it did not do well.";
    moves(out, uplinks, "homing_failovers_total", help, &census.failovers);
    let help = "How often new sessions took it again.";
    moves(out, uplinks, "homing_failbacks_total", help, &census.failbacks);
}

fn moves(
    out: &mut Document,
    uplinks: &BTreeMap<String, UplinkStatus>,
    name: &str,
    help: &str,
    counts: &BTreeMap<(String, &'static str), u64>,
) {
    out.family(name, Counter, help);
    for uplink in uplinks.keys() {
        for family in FAMILIES {
            let count = counts.get(&(uplink.clone(), family)).copied().unwrap_or(0);
            out.sample(&[("uplink", uplink), ("family", family)], count as f64);
        }
    }
}

fn of_policies(out: &mut Document, census: &Census) {
    let policies = &census.status.policies;
    out.family("homing_new_sessions_total", Counter, "Sessions that a policy gave to an uplink.");
    for (policy, status) in policies {
        for (uplink, member) in &status.members {
            let labels = [("policy", policy.as_str()), ("uplink", uplink)];
            out.sample(&labels, member.new_sessions_total as f64);
        }
    }
    out.family("homing_policy_share_ratio", Gauge, "Share of the next new sessions, from 0 to 1.");
    for (policy, status) in policies {
        for (uplink, member) in &status.members {
            out.sample(&[("policy", policy), ("uplink", uplink)], member.share);
        }
    }
    out.family("homing_policy_bindings", Gauge, "Clients that a policy has bound to an uplink.");
    for (policy, status) in policies {
        out.sample(&[("policy", policy)], status.bindings as f64);
    }
}

fn of_services(out: &mut Document, status: &Status) {
    out.family("homing_service_usable", Gauge, "Whether a new session finds a server.");
    for (service, of) in &status.services {
        out.sample(&[("service", service)], flag(of.usable));
    }
    out.family("homing_service_bindings", Gauge, "Bindings of a service to servers.");
    for (service, of) in &status.services {
        out.sample(&[("service", service)], of.bindings as f64);
    }
}

fn of_servers(out: &mut Document, status: &Status) {
    let servers = || {
        let of_group = |(group, status)| {
            let status: &crate::daemon::GroupStatus = status;
            status.servers.iter().map(move |(server, status)| (group, server, status))
        };
        status.groups.iter().flat_map(of_group)
    };
    let mut each = |name: &str, kind: Kind, help: &str, value: &dyn Fn(&ServerStatus) -> f64| {
        out.family(name, kind, help);
        for (group, server, status) in servers() {
            out.sample(&[("group", group), ("server", server)], value(status));
        }
    };
    each("homing_server_usable", Gauge, "Whether it may take new sessions.", &|one| {
        flag(one.usable)
    });
    let help = "Mean round-trip time of the last 20 checks.";
    each("homing_server_rtt_seconds", Gauge, help, &|one| seconds(one.rtt_ms));
    let help = "Share of the last 20 checks that were not answered, from 0 to 1.";
    each("homing_server_loss_ratio", Gauge, help, &|one| one.loss.unwrap_or(0.0));
    let help = "Share of the next new sessions of its family, from 0 to 1.";
    each("homing_server_share_ratio", Gauge, help, &|one| one.share);
    each("homing_server_sessions", Gauge, "Live sessions.", &|one| one.sessions as f64);
    each("homing_server_bindings", Gauge, "Clients bound to it.", &|one| one.bindings as f64);
    let help = "Sessions that it was given since its table was made.";
    each("homing_server_new_sessions_total", Counter, help, &|one| one.new_sessions_total as f64);
    let help = "Sessions that were moved or ended because it was down.";
    each("homing_server_evacuated_sessions_total", Counter, help, &|one| {
        one.evacuated_sessions_total as f64
    });
    out.family("homing_server_health", Gauge, "How it answers: 1 for the state that holds.");
    for (group, server, of) in servers() {
        states(out, &[("group", group), ("server", server)], &SERVER_HEALTH, of.health);
    }
    out.family("homing_server_admin", Gauge, "What people want of it: 1 for the state that holds.");
    for (group, server, of) in servers() {
        states(out, &[("group", group), ("server", server)], &ADMIN, of.admin);
    }
}

fn of_notices(out: &mut Document, census: &Census) {
    out.family("homing_notices_total", Counter, "Notices of `notify`, by what became of them.");
    for (name, counts) in &census.notices {
        for (outcome, count) in [("delivered", counts.delivered), ("lost", counts.lost)] {
            out.sample(&[("notify", name), ("outcome", outcome)], count as f64);
        }
    }
    out.family("homing_notice_failures_total", Counter, "Tries to deliver a notice that failed.");
    for (name, counts) in &census.notices {
        out.sample(&[("notify", name)], counts.failed as f64);
    }
}
