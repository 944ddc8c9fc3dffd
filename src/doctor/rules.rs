//! Rules and routes of others: what goes past us, what never gets its turn, whose numbers are ours.

use std::collections::BTreeSet;

use super::{Case, Finding, error, warning};
use crate::kstate::{Route, RouteKind, Rule, RuleAction};
use crate::model::{Family, TableId};

/// `RTPROT_KERNEL`: the kernel's own rules.
const KERNEL: u8 = 2;
/// How many rule priorities and routing tables are ours.
const PRIORITIES: u32 = 400;
const TABLES: u32 = 64;
/// `RT_TABLE_MAIN`, `RT_TABLE_DEFAULT`
pub(super) const MAIN: TableId = TableId(254);
pub(super) const DEFAULT: TableId = TableId(253);

pub(super) fn examine(case: Case<'_>, out: &mut Vec<Finding>) {
    let first = case.routing().first_priority;
    for rule in case.seen.facts.rules.iter().filter(|rule| rule.protocol != KERNEL) {
        let priority = rule.priority.0;
        out.extend(taken_mark(case, rule));
        if priority < first {
            out.extend(bypass(case, rule));
        } else if priority < first + PRIORITIES {
            let message = format!(
                "{} stands among homing's rules; one that comes while homing runs is removed",
                Shown(rule)
            );
            let remedy = format!(
                "give it a priority below {first}, or set `routing: {{ priority: … }}` in the profile"
            );
            out.push(warning("rule-among-ours", message, remedy));
        } else if takes_all(rule) && is_common(rule) {
            // What every host has behind ours, put back by somebody.
        } else if takes_all(rule) || rule.source.is_some() || rule.input.is_some() {
            let message = format!("{} is never reached: homing decides before it", Shown(rule));
            let remedy = format!(
                "give it a priority below {first} if its packets are not homing's to route; else remove it: `ip {}rule del pref {priority}`",
                family_option(rule)
            );
            out.push(warning("rule-never-reached", message, remedy));
        }
    }
    examine_tables(case, out);
}

fn examine_tables(case: Case<'_>, out: &mut Vec<Finding>) {
    let first = case.routing().first_table;
    let ours = |table: &TableId| table.0.checked_sub(first).is_some_and(|offset| offset < TABLES);
    let taken: BTreeSet<TableId> =
        case.seen.facts.routes.iter().map(|route| route.table).filter(ours).collect();
    for table in taken {
        out.push(warning(
            "table-taken",
            format!("routing table {table} is one of homing's, and holds routes of others"),
            "set `routing: { table: … }` in the profile to the first of 64 free tables",
        ));
    }
}

/// A look-up of the main or default table.
fn is_common(rule: &Rule) -> bool {
    [MAIN, DEFAULT].iter().any(|table| rule.action == RuleAction::Lookup(*table))
}

/// Whether a rule applies to packets of every kind, apart from a mark that hardly any has.
pub(super) fn takes_all(rule: &Rule) -> bool {
    let any_mark = match rule.mark {
        None => true,
        Some((mark, mask)) => rule.invert != (mark.0 & mask.0 == 0),
    };
    let free = |net: &ipnet::IpNet| net.prefix_len() == 0;
    any_mark
        && rule.source.as_ref().is_none_or(free)
        && rule.input.is_none()
        && rule.output.is_none()
        && !rule.has_more
}

/// The route by which a rule sends packets to the internet. Half of it counts, too: VPNs lay
/// `0.0.0.0/1` and `128.0.0.0/1`.
fn way_out<'a>(case: Case<'a>, rule: &Rule) -> Option<&'a Route> {
    let RuleAction::Lookup(table) = rule.action else { return None };
    let suppressed = rule.suppress_prefix_length.map_or(0, |length| length + 1);
    let leads = |route: &&Route| {
        let length = u32::from(route.destination.prefix_len());
        route.table == table
            && route.family() == rule.family
            && (suppressed..=1).contains(&length)
            && route.kind != RouteKind::Other(THROW)
    };
    case.seen.facts.routes.iter().find(leads)
}

/// `RTN_THROW`: the next rule is asked.
const THROW: u8 = 9;

fn bypass(case: Case<'_>, rule: &Rule) -> Option<Finding> {
    let way = way_out(case, rule);
    let first = case.routing().first_priority;
    let remedy = |what: &str| {
        let pref = rule.priority;
        format!(
            "{what}, or give the rule a priority above {} (`ip {}rule del pref {pref}`, and `add` again)",
            first + PRIORITIES - 1,
            family_option(rule)
        )
    };
    if takes_all(rule) {
        let by = match (way, rule.action) {
            (Some(Route { device: Some(device), .. }), _) => format!("by {device}"),
            (Some(_), _) => "to a route without a device".to_owned(),
            (None, RuleAction::Lookup(_)) => return None,
            (None, _) => "nowhere".to_owned(),
        };
        let message = format!(
            "{} sends everything {by} before homing is asked: no uplink gets any",
            Shown(rule)
        );
        let what = "make the other software route its own networks only (WireGuard: narrower \
                    `AllowedIPs`, or `Table = off`; Tailscale: no exit node)";
        return Some(error("bypass", message, remedy(what)));
    }
    if rule.source.is_none() && rule.input.is_none() {
        return None;
    }
    let by = way?.device.as_ref().map(|device| format!(" by {device}")).unwrap_or_default();
    let message = format!("{} sends what it matches{by} before homing is asked", Shown(rule));
    Some(warning("bypass-part", message, remedy("leave it if that is meant")))
}

/// A rule by marks that share bits with ours: each takes the other's packets for its own.
fn taken_mark(case: Case<'_>, rule: &Rule) -> Option<Finding> {
    let ours = case.marks().uplink;
    let (mark, mask) = rule.mark?;
    if mark.0 & mask.0 & ours.0 == 0 {
        return None;
    }
    if mask.0 & !ours.0 == 0 {
        let message = format!(
            "{} uses bits of the packet mark that are homing's ({ours}): another multi-WAN program?",
            Shown(rule)
        );
        let remedy =
            "stop the other program, or give homing other bits with `marks` in the profile";
        return Some(error("mark-taken", message, remedy));
    }
    let message = format!(
        "packets with the mark of {} look to homing like those of uplink number {}: they leave by it, or nowhere if there is none",
        Shown(rule),
        ours.number(mark)
    );
    let remedy = format!(
        "let the other software use a mark without the bits {ours} (WireGuard: `FwMark = {:#x}`)",
        free_mark(ours.0)
    );
    Some(warning("mark-shared", message, remedy))
}

/// A mark that has no bit of ours, nor of those that other programs are known to use.
fn free_mark(ours: u32) -> u32 {
    const OTHERS: u32 = 0x00ff_0000 | 0x4000 | 0x8000;
    (0..32).map(|bit| 1 << bit).rfind(|mark| mark & (ours | OTHERS) == 0).unwrap_or(0)
}

/// For `ip`.
pub(super) fn family_option(rule: &Rule) -> &'static str {
    match rule.family {
        Family::V4 => "",
        Family::V6 => "-6 ",
    }
}

/// A rule as `ip rule` shows it, as far as it helps to find it.
pub(super) struct Shown<'a>(pub(super) &'a Rule);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shown(rule) = self;
        let family = match rule.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        write!(f, "the {family} rule {}", rule.priority)?;
        f.write_str(" (")?;
        if rule.invert {
            f.write_str("not ")?;
        }
        if let Some(source) = &rule.source {
            write!(f, "from {source} ")?;
        }
        if let Some((mark, mask)) = &rule.mark {
            write!(f, "fwmark {:#x}/{:#x} ", mark.0, mask.0)?;
        }
        if let Some(input) = &rule.input {
            write!(f, "iif {input} ")?;
        }
        if let Some(output) = &rule.output {
            write!(f, "oif {output} ")?;
        }
        match rule.action {
            RuleAction::Lookup(table) => write!(f, "lookup {table})"),
            RuleAction::Unreachable => f.write_str("unreachable)"),
            RuleAction::Other(number) => write!(f, "action {number})"),
        }
    }
}
