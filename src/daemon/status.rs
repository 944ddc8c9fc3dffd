//! `homing status --json`: the contract's shape, filled from report and measures.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use schemars::JsonSchema;
use serde::Serialize;

use super::checks::{Checks, Seat};
use super::dealing::Carried;
use super::judge::{Judge, overall};
use super::report::{Measures, Report};
use super::status_services::{self, GroupStatus, ServiceStatus};
use crate::clock;
use crate::kstate::Facts;
use crate::model::{Family, IfName, Mark, Name, Policy, PolicyId, Uplink, UplinkId};
use crate::plan::{Admin, Layout, Standing, UplinkFacts, View, offload};

/// The whole status, version 1.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Status {
    /// Always 1.
    pub version: u32,
    /// `site:`.
    pub site: String,
    /// The first apply was read back and found right.
    pub ready: bool,
    /// Counts reloads, from 1.
    pub generation: u64,
    /// When the process started, RFC 3339.
    pub since: String,
    /// How the kernel's state is.
    pub kernel: KernelStatus,
    /// When sessions and bindings were last counted, RFC 3339: where there are many, not for each
    /// who asks.
    pub counted: Option<String>,
    /// What is wrong but keeps no packet from its way, in plain words.
    pub warnings: Vec<String>,
    /// Whether established sessions go past the rules.
    pub fast_path: FastPathStatus,
    /// By name.
    pub uplinks: BTreeMap<String, UplinkStatus>,
    /// By name, the implied one too.
    pub policies: BTreeMap<String, PolicyStatus>,
    /// By name.
    pub services: BTreeMap<String, ServiceStatus>,
    /// By name.
    pub groups: BTreeMap<String, GroupStatus>,
}

/// How the kernel's state is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct KernelStatus {
    /// `applied`, `applying` or `degraded`.
    pub state: &'static str,
    /// Why it is degraded.
    pub reason: Option<String>,
    /// What is not in force, as commands.
    pub missing: Vec<String>,
    /// How long the last round that changed something took.
    pub last_apply_ms: Option<f64>,
    /// How long it last took until new sessions followed a change of an uplink, in milliseconds.
    pub last_steer_ms: Option<f64>,
    /// How often somebody else's change of our state was put right.
    pub drift_repairs: u64,
    /// Sessions that began without homing and got the uplink they belong to.
    pub sessions_adopted: u64,
    /// Sessions that homing ended, because they could only go on wrongly.
    pub sessions_ended: u64,
}

/// The fast path.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FastPathStatus {
    /// Whether sessions take it.
    pub used: bool,
    /// Why they do not.
    pub reason: Option<String>,
    /// Network cards do it.
    pub hardware: bool,
    /// Why network cards do not, though the profile wishes it.
    pub note: Option<String>,
    /// Devices that take part.
    pub devices: Vec<String>,
    /// Devices that do not, and why.
    pub left_out: BTreeMap<String, String>,
    /// Sessions that take it now.
    pub sessions: u64,
}

/// One uplink.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct UplinkStatus {
    /// Its id.
    pub id: u8,
    /// Its device.
    pub interface: String,
    /// `up`, `degraded`, `down` or `unknown`.
    pub health: &'static str,
    /// `enabled`, `draining` or `disabled`.
    pub admin: &'static str,
    /// Whether it may take new sessions of some family.
    pub usable: bool,
    /// Why it is so.
    pub reason: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// The same for each IP version alone, `ipv4` and `ipv6`.
    pub families: BTreeMap<&'static str, FamilyStatus>,
    /// Its global addresses.
    pub addresses: Vec<IpAddr>,
    /// The IPv4 gateway.
    pub gateway: Option<IpAddr>,
    /// The IPv6 gateway.
    pub gateway6: Option<IpAddr>,
    /// Mean round-trip time of the last 20 answers.
    pub rtt_ms: Option<f64>,
    /// Mean difference of successive ones.
    pub jitter_ms: Option<f64>,
    /// Share of the last 20 questions that were not answered.
    pub loss: Option<f64>,
    /// The weight in force.
    pub weight: u32,
    /// Live sessions.
    pub sessions: u64,
    /// New sessions since its table was made.
    pub new_sessions_total: u64,
    /// Sessions that were moved or ended because it was dead, since the process started.
    pub evacuated_sessions_total: u64,
    /// Bits per second from the internet; null until it was read twice.
    pub rx_bps: Option<f64>,
    /// Bits per second to the internet.
    pub tx_bps: Option<f64>,
}

/// One IP version of an uplink.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FamilyStatus {
    /// `up`, `degraded`, `down` or `unknown`.
    pub health: &'static str,
    /// Why it is so.
    pub reason: String,
    /// Mean round-trip time of the last 20 answers.
    pub rtt_ms: Option<f64>,
    /// Mean difference of successive ones.
    pub jitter_ms: Option<f64>,
    /// Share of the last 20 questions that were not answered.
    pub loss: Option<f64>,
}

/// One policy.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PolicyStatus {
    /// By uplink.
    pub members: BTreeMap<String, MemberStatus>,
    /// How many bindings it has learned.
    pub bindings: u64,
}

/// An uplink in a policy.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MemberStatus {
    /// From 1.
    pub tier: usize,
    /// Whether it may take new sessions.
    pub usable: bool,
    /// Its share of the next new sessions, from 0 to 1: of the family that has more takers.
    pub share: f64,
    /// New sessions since its table was made.
    pub new_sessions_total: u64,
}

/// What the engine knows besides the report.
#[derive(Debug, Clone)]
pub(super) struct Background<'a> {
    pub(super) ready: bool,
    pub(super) generation: u64,
    pub(super) since: SystemTime,
    pub(super) applying: bool,
    pub(super) last_apply_ms: Option<f64>,
    pub(super) last_steer_ms: Option<f64>,
    pub(super) drift_repairs: u64,
    pub(super) sessions_adopted: u64,
    pub(super) sessions_ended: u64,
    pub(super) uplinks_since: BTreeMap<Name, SystemTime>,
    pub(super) evacuated: BTreeMap<Name, u64>,
    pub(super) evacuated_servers: BTreeMap<Seat, u64>,
    pub(super) checks: &'a Checks,
    /// What the API and others cannot do.
    pub(super) troubles: &'a [String],
}

/// Measures and when they were read.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) measures: Measures,
}

/// What devices had carried at a time.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) bytes: Carried,
}

impl Sample {
    /// Bits per second received and sent by a device since an earlier reading.
    fn rates(&self, earlier: &Reading, uplink: &Uplink) -> Option<(f64, f64)> {
        let seconds = self.at.saturating_duration_since(earlier.at).as_secs_f64();
        let now = self.measures.bytes.get(&uplink.interface)?;
        let then = earlier.bytes.get(&uplink.interface)?;
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 * 8.0 / seconds;
        (seconds > 0.1).then(|| (rate(now.0, then.0), rate(now.1, then.1)))
    }
}

/// Puts the status together.
pub(super) fn build_status(
    layout: &Layout,
    report: Option<&Report>,
    view: Option<&View>,
    judge: &Judge,
    background: &Background<'_>,
    earlier: Option<&Reading>,
    now: &Sample,
) -> Status {
    let nothing = View::default();
    let view = view.unwrap_or(&nothing);
    let uplinks = layout.uplinks().map(|(uplink, id)| {
        let since = background.uplinks_since.get(&uplink.name).copied();
        let mut status = uplink_status(layout, view, uplink, id, since.unwrap_or(background.since));
        status.families = Family::BOTH
            .map(|family| (family.as_str(), family_status(view, judge, uplink, family)))
            .into();
        let measured =
            Family::BOTH.into_iter().filter(|f| status.families[f.as_str()].loss.is_some());
        if let Some(better) = measured.max_by_key(|family| view.health(&uplink.name, *family)) {
            let of = &status.families[better.as_str()];
            (status.rtt_ms, status.jitter_ms, status.loss) = (of.rtt_ms, of.jitter_ms, of.loss);
        }
        let evacuated = background.evacuated.get(&uplink.name);
        status.evacuated_sessions_total = evacuated.copied().unwrap_or(0);
        count_sessions(&mut status, layout, uplink, id, &now.measures);
        let rates = earlier.and_then(|earlier| now.rates(earlier, uplink));
        (status.rx_bps, status.tx_bps) = (rates.map(|r| r.0), rates.map(|r| r.1));
        (uplink.name.to_string(), status)
    });
    let policies = layout.policies().map(|(policy, id)| {
        (policy.name.to_string(), policy_status(layout, view, policy, id, &now.measures))
    });
    Status {
        version: 1,
        site: layout.site.name.clone(),
        ready: background.ready,
        generation: background.generation,
        since: clock::rfc3339(background.since),
        kernel: kernel_status(report, background),
        counted: now.measures.counted.map(clock::rfc3339_millis),
        warnings: warnings(report, background),
        fast_path: fast_path(layout, report, &now.measures),
        uplinks: uplinks.collect(),
        policies: policies.collect(),
        services: status_services::services(layout, view, &now.measures),
        groups: status_services::groups(
            layout,
            view,
            background.checks,
            &background.evacuated_servers,
            &now.measures,
        ),
    }
}

fn warnings(report: Option<&Report>, background: &Background<'_>) -> Vec<String> {
    let state_dir = report.and_then(|report| report.state_dir.clone());
    state_dir.into_iter().chain(background.troubles.iter().cloned()).collect()
}

fn kernel_status(report: Option<&Report>, background: &Background<'_>) -> KernelStatus {
    let failure = report.and_then(|report| report.failure.as_ref());
    let state = match failure {
        Some(_) => "degraded",
        None if background.applying || !background.ready => "applying",
        None => "applied",
    };
    KernelStatus {
        state,
        reason: failure.map(|failure| failure.reason.clone()),
        missing: failure.map(|failure| failure.missing.clone()).unwrap_or_default(),
        last_apply_ms: background.last_apply_ms,
        last_steer_ms: background.last_steer_ms,
        drift_repairs: background.drift_repairs,
        sessions_adopted: background.sessions_adopted,
        sessions_ended: background.sessions_ended,
    }
}

fn fast_path(layout: &Layout, report: Option<&Report>, measures: &Measures) -> FastPathStatus {
    let nothing = Facts::default();
    let seen = report.and_then(|report| report.seen.as_ref());
    let fast = offload::wanted(&layout.site, seen.map_or(&nothing, |seen| &seen.facts));
    let used = fast.reason.is_none();
    let shown = |(device, why): (&IfName, &String)| (device.to_string(), why.clone());
    FastPathStatus {
        used,
        hardware: used && fast.hardware,
        note: fast.software.filter(|_| used),
        devices: fast.devices.iter().filter(|_| used).map(ToString::to_string).collect(),
        left_out: fast.left_out.iter().map(shown).collect(),
        reason: fast.reason,
        sessions: measures.offloaded,
    }
}

fn uplink_status(
    layout: &Layout,
    view: &View,
    uplink: &Uplink,
    id: UplinkId,
    since: SystemTime,
) -> UplinkStatus {
    let nothing = UplinkFacts::default();
    let facts = view.uplinks.get(&uplink.name).unwrap_or(&nothing);
    let gateway = |family| facts.ways.get(&family).and_then(|way| way.gateway);
    let standing = overall(view, &uplink.name);
    UplinkStatus {
        id: id.0,
        interface: uplink.interface.to_string(),
        health: standing.health.as_str(),
        admin: view.standings.admin(&uplink.name).as_str(),
        usable: view.usable_at_all(&uplink.name),
        reason: reason(view, id, view.standings.admin(&uplink.name), standing),
        since: clock::rfc3339(since),
        families: BTreeMap::new(),
        addresses: facts.own_addresses().collect(),
        gateway: gateway(Family::V4),
        gateway6: gateway(Family::V6),
        rtt_ms: None,
        jitter_ms: None,
        loss: None,
        weight: layout.weights.get(&uplink.name).copied().unwrap_or(1),
        sessions: 0,
        new_sessions_total: 0,
        evacuated_sessions_total: 0,
        rx_bps: None,
        tx_bps: None,
    }
}

/// Why it is so, and what becomes of it.
fn reason(view: &View, id: UplinkId, admin: Admin, standing: Standing) -> String {
    let mut selections = view.selections.values().flat_map(BTreeMap::values);
    let tried = selections.any(|one| one.tried && one.owners.contains_key(&id.0));
    let ordered = match admin {
        Admin::Enabled => None,
        other => Some(format!("{} by order", other.as_str())),
    };
    let tried = tried.then(|| "tried, nothing else is up".to_owned());
    let parts = [ordered, Some(standing.reason).filter(|reason| !reason.is_empty()), tried];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn family_status(view: &View, judge: &Judge, uplink: &Uplink, family: Family) -> FamilyStatus {
    let figures = judge.figures(&uplink.name, family);
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    FamilyStatus {
        health: view.health(&uplink.name, family).as_str(),
        reason: view.standings.of(&uplink.name, family).map_or(String::new(), |s| s.reason.clone()),
        rtt_ms: figures.rtt.map(milliseconds),
        jitter_ms: figures.jitter.map(milliseconds),
        loss: figures.loss,
    }
}

fn count_sessions(
    status: &mut UplinkStatus,
    layout: &Layout,
    uplink: &Uplink,
    id: UplinkId,
    measures: &Measures,
) {
    let mask = layout.site.marks.uplink;
    let of_uplink = |(mark, count): (&u32, &u64)| {
        (mask.number(Mark(*mark)) == u32::from(id.0)).then_some(*count)
    };
    status.sessions = measures.sessions.iter().filter_map(of_uplink).sum();
    let taken: u64 = measures.taken.iter().filter_map(of_uplink).sum();
    status.new_sessions_total =
        taken + measures.pinned.get(&uplink.interface).copied().unwrap_or(0);
}

fn policy_status(
    layout: &Layout,
    view: &View,
    policy: &Policy,
    id: PolicyId,
    measures: &Measures,
) -> PolicyStatus {
    let mut members = BTreeMap::new();
    for (tier, names) in policy.tiers.iter().enumerate() {
        for name in names {
            let Some(uplink) = layout.ids.uplinks.get(name) else { continue };
            let key = layout.policy_mark(id).0 | layout.mark(*uplink).0;
            let shares = Family::BOTH.map(|family| {
                let selection = view.selections.get(&policy.name)?.get(&family)?;
                (!selection.owners.is_empty()).then(|| selection.share(uplink.0))
            });
            let member = MemberStatus {
                tier: tier + 1,
                usable: view.usable_at_all(name),
                share: shares.into_iter().flatten().fold(0.0, f64::max),
                new_sessions_total: measures.taken.get(&key).copied().unwrap_or(0),
            };
            members.insert(name.to_string(), member);
        }
    }
    let bindings = measures.bindings.get(policy.name.as_str()).copied().unwrap_or(0);
    PolicyStatus { members, bindings }
}
