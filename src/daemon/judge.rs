//! Whom to ask, and what follows for each uplink: the boards of both families, with names. Pure.
//!
//! A family is judged by its own targets. An uplink that has none in one family follows the other;
//! its gateway is asked only where there is nothing else to ask.

mod court;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use self::court::{Court, GATEWAY, name_of};
use super::events::Told;
use crate::health::{Board, Figures, Judgement, Question};
use crate::kernel::Unreachable;
use crate::model::{Family, Name, Outcome, Target};
use crate::plan::{Layout, Standing, Standings, View};
use crate::probe::Path;

/// Something to ask.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ask {
    pub(super) family: Family,
    pub(super) question: Question,
    pub(super) target: Target,
    pub(super) path: Path,
    /// The address of a target that is named.
    pub(super) resolved: Option<IpAddr>,
}

/// What is to be done or told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ruling {
    Ask(Box<Ask>),
    Tell(Told),
}

/// Judges the uplinks of a site.
#[derive(Debug)]
pub(super) struct Judge {
    courts: [Court; 2],
    /// The ways that can be asked over.
    paths: BTreeMap<(Name, Family), Path>,
    /// Named targets, and where they are.
    names: BTreeMap<String, Vec<IpAddr>>,
    seed: u64,
}

impl Judge {
    /// Nobody is known yet, but by what is remembered from before a restart.
    pub(super) fn new(layout: &Layout, before: &Standings, seed: u64, now: Instant) -> Judge {
        let names = BTreeMap::new();
        let court = |family| Court::new(layout, family, &names, before, seed, now);
        Judge { courts: Family::BOTH.map(court), paths: BTreeMap::new(), names, seed }
    }

    /// Another site: uplinks that ask what they asked before keep their health.
    pub(super) fn adopt(&mut self, layout: &Layout, now: Instant) {
        let before = self.standings();
        for court in &mut self.courts {
            let next = Court::new(layout, court.family, &self.names, &before, self.seed, now);
            if next.uplinks != court.uplinks || next.targets != court.targets {
                *court = next;
            }
        }
    }

    /// A named target was looked up.
    pub(super) fn resolve(
        &mut self,
        layout: &Layout,
        name: String,
        addresses: Vec<IpAddr>,
        now: Instant,
    ) {
        self.names.insert(name, addresses);
        self.adopt(layout, now);
    }

    /// The ways out are these now; an uplink without one is at fault.
    pub(super) fn follow(
        &mut self,
        layout: &Layout,
        view: &View,
        indices: &BTreeMap<Name, u32>,
        now: Instant,
    ) -> Vec<Ruling> {
        self.paths.clear();
        for (uplink, _) in layout.uplinks() {
            let Some(facts) = view.uplinks.get(&uplink.name) else { continue };
            for (family, way) in &facts.ways {
                let Some(index) = indices.get(&uplink.name).filter(|_| facts.carrier) else {
                    continue;
                };
                let path = Path {
                    device: uplink.interface.clone(),
                    index: *index,
                    source: way.address,
                    gateway: way.gateway,
                };
                self.paths.insert((uplink.name.clone(), *family), path);
            }
        }
        let mut rulings = Vec::new();
        for court in &mut self.courts {
            for index in 0..court.uplinks.len() {
                let name = court.uplinks[index].name.clone();
                let there = self.paths.contains_key(&(name.clone(), court.family));
                let fault = view
                    .uplinks
                    .get(&name)
                    .filter(|_| !there)
                    .map(|facts| facts.why_not(court.family, &court.uplinks[index].device));
                let actions = court.board.set_fault(index, fault, now);
                rulings.extend(court.rule(actions, &self.paths, &self.names, now));
            }
        }
        rulings
    }

    /// Devices have lost their carrier (by their indices): that counts at once.
    pub(super) fn lose(&mut self, carriers: &BTreeMap<u32, bool>, now: Instant) -> Vec<Ruling> {
        let lost = |path: &Path| carriers.get(&path.index) == Some(&false);
        let gone: Vec<_> =
            self.paths.iter().filter(|(_, path)| lost(path)).map(|(key, _)| key.clone()).collect();
        let mut rulings = Vec::new();
        for (name, family) in gone {
            self.paths.remove(&(name.clone(), family));
            let court = &mut self.courts[usize::from(family == Family::V6)];
            if let Some(index) = court.uplinks.iter().position(|seat| seat.name == name) {
                let why = format!("no carrier on {}", court.uplinks[index].device);
                let actions = court.board.set_fault(index, Some(why), now);
                rulings.extend(court.rule(actions, &self.paths, &self.names, now));
            }
        }
        rulings
    }

    /// The kernel has given a neighbour up: if it is a gateway, its uplink is down.
    pub(super) fn give_up(&mut self, neighbour: Unreachable, now: Instant) -> Vec<Ruling> {
        let Unreachable { index, address } = neighbour;
        let behind = |path: &Path| path.index == index && path.gateway == Some(address);
        let lost = self.paths.iter().filter(|(_, path)| behind(path));
        let lost: Vec<_> = lost.map(|(key, _)| key.clone()).collect();
        let mut rulings = Vec::new();
        for (name, family) in lost {
            let court = &mut self.courts[usize::from(family == Family::V6)];
            if let Some(member) = court.uplinks.iter().position(|seat| seat.name == name) {
                let by = if family == Family::V4 { "ARP" } else { "neighbour discovery" };
                let why = format!("its gateway {address} does not answer {by}");
                let actions = court.board.convict(member, why, now);
                rulings.extend(court.rule(actions, &self.paths, &self.names, now));
            }
        }
        rulings
    }

    /// Takes in what came of a question.
    pub(super) fn handle_outcome(
        &mut self,
        family: Family,
        question: Question,
        outcome: &Outcome,
        now: Instant,
    ) -> Vec<Ruling> {
        let court = &mut self.courts[usize::from(family == Family::V6)];
        if question.target == GATEWAY {
            return court.locate(question.member, outcome);
        }
        let actions = court.board.handle_outcome(question, outcome, now);
        court.rule(actions, &self.paths, &self.names, now)
    }

    /// Time has passed.
    pub(super) fn handle_timer(&mut self, now: Instant) -> Vec<Ruling> {
        let mut rulings = Vec::new();
        for court in &mut self.courts {
            if court.board.poll_timeout().is_some_and(|due| due <= now) {
                let actions = court.board.handle_timer(now);
                rulings.extend(court.rule(actions, &self.paths, &self.names, now));
            }
        }
        rulings
    }

    /// When to call [`Judge::handle_timer`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.courts.iter().filter_map(|court| court.board.poll_timeout()).min()
    }

    /// The ways that can be asked over now, each with its uplink and family.
    pub(super) fn ways(&self) -> impl Iterator<Item = (&(Name, Family), &Path)> {
        self.paths.iter()
    }

    /// The ways that can be asked over now.
    pub(super) fn paths(&self) -> Vec<Path> {
        self.paths.values().cloned().collect()
    }

    /// Named targets, of which the addresses are to be found.
    pub(super) fn named(layout: &Layout) -> BTreeSet<String> {
        let targets = layout.uplinks().flat_map(|(u, _)| layout.site.probe_of(u).targets);
        targets.filter_map(|target| name_of(&target).map(str::to_owned)).collect()
    }

    /// How every uplink answers.
    pub(super) fn standings(&self) -> Standings {
        let mut standings = Standings::default();
        for court in &self.courts {
            for (index, seat) in court.uplinks.iter().enumerate() {
                let standing = court.standing(index);
                let families = standings.answers.entry(seat.name.clone()).or_default();
                families.insert(court.family, standing);
            }
        }
        for (court, other) in [(&self.courts[0], Family::V6), (&self.courts[1], Family::V4)] {
            for (index, seat) in court.uplinks.iter().enumerate() {
                let families = standings.answers.entry(seat.name.clone()).or_default();
                let able = !matches!(court.board.judgement(index), Judgement::Fault(_));
                if seat.member.targets.is_empty()
                    && able
                    && let Some(example) = families.get(&other).cloned()
                    && self.judges(&seat.name, other)
                {
                    families.insert(court.family, example);
                }
            }
        }
        standings
    }

    /// Loss, round-trip time and jitter of an uplink in one family.
    pub(super) fn figures(&self, uplink: &Name, family: Family) -> Figures {
        let court = &self.courts[usize::from(family == Family::V6)];
        let index = court.uplinks.iter().position(|seat| seat.name == *uplink);
        index.map(|index| court.board.figures(index)).unwrap_or_default()
    }

    /// Whether an uplink is asked something in a family, and can be.
    fn judges(&self, uplink: &Name, family: Family) -> bool {
        let court = &self.courts[usize::from(family == Family::V6)];
        let seat = court.uplinks.iter().position(|seat| seat.name == *uplink);
        seat.is_some_and(|index| {
            !court.uplinks[index].member.targets.is_empty()
                && !matches!(court.board.judgement(index), Judgement::Fault(_))
        })
    }
}

/// Why a member's health is what it is, in plain words; nothing when all is well.
pub(super) fn describe(board: &Board, index: usize, asked: bool) -> String {
    match board.judgement(index) {
        Judgement::Waiting if !asked => "not probed".to_owned(),
        Judgement::Waiting => "waiting for answers".to_owned(),
        Judgement::Good => String::new(),
        Judgement::Fault(why) => why.clone(),
        Judgement::Silent(_) => match board.wrong(index) {
            Some(wrong) => wrong.to_owned(),
            None => "no answer".to_owned(),
        },
        Judgement::Held(_) => "answers again, and is held down for a while".to_owned(),
        Judgement::Bad(figure) => format!("{figure} is above its limit"),
    }
}

/// A health for people: the better of both families, and what to say of it.
pub(super) fn overall(view: &View, uplink: &Name) -> Standing {
    let of = |family| Standing {
        health: view.health(uplink, family),
        reason: view.standings.of(uplink, family).map_or(String::new(), |s| s.reason.clone()),
    };
    let [four, six] = Family::BOTH.map(of);
    let (mut better, worse, digit) =
        if six.health > four.health { (six, four, 4) } else { (four, six, 6) };
    if worse.health != better.health && !worse.reason.is_empty() {
        let comma = if better.reason.is_empty() { "" } else { "; " };
        better.reason +=
            &format!("{comma}IPv{digit} is {}: {}", worse.health.as_str(), worse.reason);
    }
    better
}

/// How long what was known of health before a restart still counts.
pub(super) const REMEMBERED: Duration = Duration::from_secs(600);
