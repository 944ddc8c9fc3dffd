//! One family's board, with the names of those who are judged.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::super::events::{Level, Told};
use super::{Ask, Ruling, describe};
use crate::health::{self, Board, Judgement, Member, Question, Terms};
use crate::model::{Family, Host, Name, Outcome, Probe, Target, Uplink};
use crate::plan::{Layout, Standing, Standings};
use crate::probe::Path;

/// One family's.
#[derive(Debug)]
pub(super) struct Court {
    pub(super) family: Family,
    pub(super) board: Board,
    /// The uplinks, in the order of the board's members.
    pub(super) uplinks: Vec<Seat>,
    pub(super) targets: Vec<Case>,
    /// By member that is silent: whether its gateway answers, as soon as that is known. It tells
    /// where the break is.
    pub(super) gateways: BTreeMap<usize, Option<bool>>,
}

/// The number of no target: where the break is, is asked outside the board.
pub(super) const GATEWAY: usize = usize::MAX;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seat {
    pub(super) name: Name,
    pub(super) device: String,
    pub(super) member: Member,
    /// Its gateway is one of the targets.
    pub(super) asks_gateway: bool,
}

/// A target; a gateway is that of one uplink.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Case {
    pub(super) target: Target,
    pub(super) of: Option<Name>,
}

impl Court {
    pub(super) fn new(
        layout: &Layout,
        family: Family,
        names: &BTreeMap<String, Vec<IpAddr>>,
        before: &Standings,
        seed: u64,
        now: Instant,
    ) -> Court {
        let mut targets: Vec<Case> = Vec::new();
        let mut uplinks = Vec::new();
        for (uplink, _) in layout.uplinks() {
            let probe = layout.site.probe_of(uplink);
            let mut numbers = Vec::new();
            for case in cases(uplink, &probe, family, names) {
                let known = targets.iter().position(|known| *known == case);
                numbers.push(known.unwrap_or(targets.len()));
                if known.is_none() {
                    targets.push(case);
                }
            }
            uplinks.push(Seat {
                name: uplink.name.clone(),
                device: uplink.interface.to_string(),
                member: member(uplink, &probe, numbers),
                asks_gateway: probe.targets.contains(&Target::Gateway),
            });
        }
        let private = (0..targets.len()).filter(|number| targets[*number].of.is_some()).collect();
        let remembered = |seat: &Seat| Member {
            remembered: before.of(&seat.name, family).map(|standing| standing.health),
            ..seat.member.clone()
        };
        let members = uplinks.iter().map(remembered).collect();
        let seed = seed ^ u64::from(family == Family::V6);
        let board = Board::new(members, private, seed, now);
        Court { family, board, uplinks, targets, gateways: BTreeMap::new() }
    }

    pub(super) fn rule(
        &mut self,
        actions: Vec<health::Action>,
        paths: &BTreeMap<(Name, Family), Path>,
        names: &BTreeMap<String, Vec<IpAddr>>,
        now: Instant,
    ) -> Vec<Ruling> {
        let rule = |action| match action {
            health::Action::Ask(question) => {
                let seat = self.uplinks.get(question.member)?;
                let path = paths.get(&(seat.name.clone(), self.family))?.clone();
                let target = self.targets.get(question.target)?.target.clone();
                let resolved = name_of(&target).and_then(|name| address(names, name, self.family));
                let ask = Ask { family: self.family, question, target, path, resolved };
                Some(Ruling::Ask(Box::new(ask)))
            }
            health::Action::Changed(member) => self.diagnose(member, paths, now),
            health::Action::TargetDead(target) => {
                let target = &self.targets.get(target)?.target;
                let text =
                    format!("{target} answers over no uplink, while others do: it does not count");
                Some(Ruling::Tell(Told::remark(Level::Warning, text)))
            }
            health::Action::TargetBack(target) => {
                let target = &self.targets.get(target)?.target;
                let text = format!("{target} answers again: it counts");
                Some(Ruling::Tell(Told::remark(Level::Info, text)))
            }
        };
        actions.into_iter().filter_map(rule).collect()
    }

    /// Where the break is, its gateway tells: it is asked when an uplink falls silent.
    pub(super) fn diagnose(
        &mut self,
        member: usize,
        paths: &BTreeMap<(Name, Family), Path>,
        now: Instant,
    ) -> Option<Ruling> {
        if !matches!(self.board.judgement(member), Judgement::Silent(_)) {
            self.gateways.remove(&member);
            return None;
        }
        let seat = self.uplinks.get(member)?;
        let only =
            seat.member.targets.iter().all(|t| self.targets.get(*t).is_none_or(|t| t.of.is_some()));
        if !seat.asks_gateway || only || self.gateways.contains_key(&member) {
            return None;
        }
        let path = paths.get(&(seat.name.clone(), self.family))?.clone();
        path.gateway?;
        self.gateways.insert(member, None);
        let timeout = seat.member.terms.pace.timeout;
        let question = Question { member, target: GATEWAY, asked: now, timeout, round: None };
        let target = Target::Gateway;
        Some(Ruling::Ask(Box::new(Ask {
            family: self.family,
            question,
            target,
            path,
            resolved: None,
        })))
    }

    /// The gateway of a silent uplink answers, or does not.
    pub(super) fn locate(&mut self, member: usize, outcome: &Outcome) -> Vec<Ruling> {
        let (Some(known), Some(seat)) = (self.gateways.get_mut(&member), self.uplinks.get(member))
        else {
            return Vec::new();
        };
        let answers = matches!(outcome, Outcome::Reply(_));
        *known = Some(answers);
        let text = format!("uplink {}: {}", seat.name, place(answers));
        vec![Ruling::Tell(Told::remark(Level::Info, text).of_uplink(&seat.name))]
    }

    pub(super) fn standing(&self, index: usize) -> Standing {
        let (health, judgement) = (self.board.health(index), self.board.judgement(index));
        let seat = &self.uplinks[index];
        let asked = &seat.member.targets;
        let mut reason = describe(&self.board, index, !asked.is_empty());
        if let (Judgement::Silent(_), Some(Some(answers))) = (judgement, self.gateways.get(&index))
        {
            reason += &format!("; {}", place(*answers));
        }
        let dead = asked.iter().filter(|target| self.board.is_dead(**target));
        for target in dead.filter_map(|target| self.targets.get(*target)) {
            let comma = if reason.is_empty() { "" } else { "; " };
            reason += &format!("{comma}{} answers nowhere and does not count", target.target);
        }
        Standing { health, reason }
    }
}

/// Where the break is.
fn place(gateway_answers: bool) -> &'static str {
    match gateway_answers {
        true => "its gateway answers, so the break lies behind it",
        false => "its gateway does not answer either",
    }
}

/// What an uplink asks in one family.
fn cases(
    uplink: &Uplink,
    probe: &Probe,
    family: Family,
    names: &BTreeMap<String, Vec<IpAddr>>,
) -> Vec<Case> {
    let in_family = |target: &Target, family: Family| match (target.address(), name_of(target)) {
        (Some(address), _) => Family::of(address) == family,
        (None, Some(name)) => address(names, name, family).is_some(),
        (None, None) => false,
    };
    let of = |family| probe.targets.iter().filter(move |target| in_family(target, family));
    let counted: Vec<Case> = of(family).map(|t| Case { target: t.clone(), of: None }).collect();
    let elsewhere = Family::BOTH.into_iter().any(|family| of(family).next().is_some());
    if counted.is_empty() && !elsewhere && probe.targets.contains(&Target::Gateway) {
        return vec![Case { target: Target::Gateway, of: Some(uplink.name.clone()) }];
    }
    counted
}

fn member(uplink: &Uplink, probe: &Probe, targets: Vec<usize>) -> Member {
    Member {
        targets,
        quorum: probe.quorum,
        terms: Arc::new(Terms {
            pace: probe.pace,
            degraded: Some(probe.degraded),
            hold_down: probe.hold_down,
        }),
        metered: uplink.metered,
        remembered: None,
    }
}

pub(super) fn name_of(target: &Target) -> Option<&str> {
    match target {
        Target::Http { url, .. } => match &url.host {
            Host::Name(name) => Some(name),
            Host::Address(_) => None,
        },
        _ => None,
    }
}

fn address(names: &BTreeMap<String, Vec<IpAddr>>, name: &str, family: Family) -> Option<IpAddr> {
    names.get(name)?.iter().copied().find(|address| Family::of(*address) == family)
}
