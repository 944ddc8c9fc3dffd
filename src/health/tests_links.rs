//! Simulated links: how soon a break is noticed, who is blamed, and that nobody is without need.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Action, Board, Health, Member, Question, Terms};
use crate::model::{Degraded, Outcome, Pace};

const SECOND: Duration = Duration::from_secs(1);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// When an answer comes, of whom, by which target, and of which round.
type Answer = (Instant, usize, usize, Option<u64>);

/// A line and the targets behind it.
#[derive(Debug, Clone)]
struct Line {
    rtt: Duration,
    loss: f64,
    broken: bool,
}

struct Sim {
    board: Board,
    start: Instant,
    now: Instant,
    lines: Vec<Line>,
    dead_targets: Vec<usize>,
    answers: BinaryHeap<Reverse<Answer>>,
    flying: Vec<Question>,
    random: u64,
    /// Time, member, health.
    changes: Vec<(Duration, usize, Health)>,
    buried: Vec<usize>,
    asked: u64,
}

fn terms(pace: Pace) -> Arc<Terms> {
    Arc::new(Terms { pace, degraded: Some(Degraded::default()), hold_down: 10 * SECOND })
}

fn member(targets: &[usize], quorum: u32) -> Member {
    Member {
        targets: targets.to_vec(),
        quorum,
        terms: terms(Pace::PROBE),
        metered: false,
        remembered: None,
    }
}

impl Sim {
    fn new(seed: u64, members: Vec<Member>) -> Sim {
        let start = Instant::now();
        let line = Line { rtt: ms(8), loss: 0.0, broken: false };
        let count = members.len();
        let mut board = Board::new(members, BTreeSet::new(), seed, start);
        for member in 0..count {
            board.set_fault(member, None, start);
        }
        Sim {
            lines: vec![line; count],
            board,
            start,
            now: start,
            dead_targets: Vec::new(),
            answers: BinaryHeap::new(),
            flying: Vec::new(),
            random: seed,
            changes: Vec::new(),
            buried: Vec::new(),
            asked: 0,
        }
    }

    /// The usual site: two uplinks that ask three targets, one of which must answer.
    fn usual(seed: u64) -> Sim {
        Sim::new(seed, vec![member(&[0, 1, 2], 1), member(&[0, 1, 2], 1)])
    }

    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask(question) => {
                    self.asked += 1;
                    let line = self.lines[question.member].clone();
                    let lost = self.chance() < line.loss;
                    if lost || line.broken || self.dead_targets.contains(&question.target) {
                        continue;
                    }
                    let key = (question.asked + line.rtt, question.member, question.target);
                    self.answers.push(Reverse((key.0, key.1, key.2, question.round)));
                    self.flying.push(question);
                }
                Action::Changed(member) => {
                    let health = self.board.health(member);
                    let last = self.changes.iter().rev().find(|change| change.1 == member);
                    if last.is_none_or(|last| last.2 != health) {
                        self.changes.push((self.now - self.start, member, health));
                    }
                }
                Action::TargetDead(target) => self.buried.push(target),
                Action::TargetBack(target) => self.buried.retain(|one| *one != target),
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let timer = self.board.poll_timeout().unwrap_or(until);
            let answer = self.answers.peek().map_or(until, |Reverse((at, ..))| *at);
            let next = timer.min(answer).max(self.now);
            if next >= until {
                self.now = until;
                return;
            }
            self.now = next;
            let actions = if answer <= timer {
                let Reverse((_, member, target, round)) = self.answers.pop().unwrap();
                let is_it = |q: &Question| (q.member, q.target, q.round) == (member, target, round);
                let place = self.flying.iter().position(is_it).unwrap();
                let question = self.flying.swap_remove(place);
                let outcome = Outcome::Reply(self.now - question.asked);
                self.board.handle_outcome(question, &outcome, self.now)
            } else {
                self.board.handle_timer(self.now)
            };
            self.act(actions);
        }
    }

    /// Runs until a member has this health; how long that took.
    #[track_caller]
    fn until(&mut self, member: usize, health: Health, most: Duration) -> Duration {
        let begin = self.now;
        while self.board.health(member) != health {
            assert!(self.now - begin < most, "not {health:?} within {most:?}: {:?}", self.changes);
            self.run(ms(5));
        }
        self.now - begin
    }

    fn health(&self) -> Vec<Health> {
        (0..self.lines.len()).map(|member| self.board.health(member)).collect()
    }
}

use Health::{Degraded as Poor, Down, Up};

#[test]
fn a_silent_break_is_noticed_within_the_time_that_is_promised() {
    let mut times: Vec<Duration> = Vec::new();
    for seed in 1..=200 {
        let mut sim = Sim::usual(seed);
        sim.run(20 * SECOND + ms(seed * 37 % 1000));
        assert_eq!(sim.health(), [Up, Up]);
        sim.lines[0].broken = true;
        times.push(sim.until(0, Down, 3 * SECOND));
        sim.run(5 * SECOND);
        assert_eq!(sim.health(), [Down, Up]);
    }
    times.sort_unstable();
    assert!(times[100] <= ms(1300), "median {:?}", times[100]);
    assert!(times[199] <= ms(1900), "worst {:?}", times[199]);
}

#[test]
fn a_break_is_noticed_sooner_at_a_faster_pace() {
    let mut times = Vec::new();
    for seed in 1..=200 {
        let pace = Pace { interval: ms(100), timeout: ms(100), ..Pace::PROBE };
        let fast = Member { terms: terms(pace), ..member(&[0, 1, 2], 1) };
        let mut sim = Sim::new(seed, vec![fast.clone(), fast]);
        sim.run(5 * SECOND + ms(seed * 7 % 100));
        sim.lines[0].broken = true;
        times.push(sim.until(0, Down, SECOND));
    }
    times.sort_unstable();
    assert!(times[100] <= ms(300), "median {:?}", times[100]);
    assert!(times[199] <= ms(450), "worst {:?}", times[199]);
}

#[test]
fn a_link_comes_back_after_its_hold_down_and_at_once_when_it_is_alone() {
    let mut sim = Sim::usual(7);
    sim.run(10 * SECOND);
    sim.lines[0].broken = true;
    sim.until(0, Down, 3 * SECOND);
    sim.run(20 * SECOND);
    sim.lines[0].broken = false;
    let back = sim.until(0, Up, 30 * SECOND);
    assert!((10 * SECOND..17 * SECOND).contains(&back), "{back:?}");
    for line in &mut sim.lines {
        line.broken = true;
    }
    sim.until(0, Down, 3 * SECOND);
    sim.until(1, Down, 3 * SECOND);
    sim.lines[1].broken = false;
    let begin = sim.now;
    while sim.board.health(1) == Down {
        sim.run(ms(10));
        assert!(sim.now - begin < 4 * SECOND, "nobody else is there: it need not wait");
    }
}

#[test]
fn a_target_that_is_dead_everywhere_convicts_nobody() {
    // All three must answer, and one dies.
    let mut sim = Sim::new(3, vec![member(&[0, 1, 2], 3), member(&[0, 1, 2], 3)]);
    sim.run(10 * SECOND);
    sim.changes.clear();
    sim.dead_targets = vec![1];
    sim.run(60 * SECOND);
    assert_eq!(sim.changes, [], "nobody flickers");
    assert_eq!(sim.buried, [1]);
    sim.dead_targets.clear();
    sim.run(10 * SECOND);
    assert_eq!(sim.buried, [0; 0]);
    assert_eq!(sim.changes, []);
    // One target each, another for each: asked over the other as well.
    let mut sim = Sim::new(4, vec![member(&[0], 1), member(&[1], 1)]);
    sim.run(10 * SECOND);
    sim.changes.clear();
    sim.dead_targets = vec![0];
    sim.run(60 * SECOND);
    assert_eq!((sim.changes.clone(), sim.buried.clone()), (vec![], vec![0]));
    sim.dead_targets.clear();
    sim.run(5 * SECOND);
    sim.lines[0].broken = true;
    sim.until(0, Down, 3 * SECOND);
    assert_eq!(sim.buried, [0; 0]);
}

#[test]
fn a_dead_target_spoils_nobodys_figures() {
    // Lines come and go, so windows are short; one of two targets dies at any time.
    for seed in 1..=100 {
        let metered = Member { metered: seed % 3 == 0, ..member(&[0, 1], 1) };
        let mut sim = Sim::new(seed, vec![member(&[0, 1], 1), metered, member(&[0, 1], 1)]);
        sim.run(5 * SECOND + ms(seed * 41 % 3000));
        sim.dead_targets = vec![1];
        sim.run(ms(seed * 97 % 2500));
        let now = sim.now;
        let actions = sim.board.set_fault(0, Some("no carrier".to_owned()), now);
        sim.act(actions);
        sim.run(ms(300));
        let now = sim.now;
        let actions = sim.board.set_fault(0, None, now);
        sim.act(actions);
        sim.run(60 * SECOND);
        let poor = sim.changes.iter().filter(|(_, _, health)| *health == Poor).count();
        assert_eq!(poor, 0, "seed {seed}: {:?}", sim.changes);
        assert_eq!(sim.buried, [1], "seed {seed}");
        assert_eq!(sim.health(), [Up; 3], "seed {seed}");
    }
}

#[test]
fn when_nothing_answers_anywhere_all_are_down() {
    let mut sim = Sim::usual(5);
    sim.run(10 * SECOND);
    for line in &mut sim.lines {
        line.broken = true;
    }
    sim.run(3 * SECOND);
    assert_eq!(sim.health(), [Down, Down]);
    assert_eq!(sim.buried, [0; 0]);
}

#[test]
fn one_loss_in_fifty_brings_nobody_down_in_thirty_days() {
    let mut sim = Sim::new(11, vec![member(&[0, 1, 2], 1)]);
    sim.lines[0].loss = 0.02;
    sim.run(30 * 24 * 3600 * SECOND);
    assert!(sim.changes.iter().all(|(_, _, health)| *health != Down), "{:?}", sim.changes);
}

#[test]
fn one_loss_in_five_is_degraded_within_a_minute_and_not_down() {
    for seed in 1..=20 {
        let mut sim = Sim::usual(seed);
        sim.run(10 * SECOND);
        sim.lines[1].loss = 0.2;
        sim.until(1, Poor, 60 * SECOND);
        sim.run(600 * SECOND);
        assert!(sim.changes.iter().all(|(_, _, health)| *health != Down), "{:?}", sim.changes);
        assert_eq!(sim.board.health(0), Up);
    }
}

#[test]
fn a_quiet_link_is_asked_once_in_an_interval_and_a_metered_one_seldom() {
    let per_minute = |metered: bool| {
        let one = Member { metered, ..member(&[0, 1, 2], 1) };
        let mut sim = Sim::new(2, vec![one]);
        sim.run(20 * SECOND);
        sim.asked = 0;
        sim.run(600 * SECOND);
        sim.asked as f64 / 3.0 / 10.0
    };
    let (usual, metered) = (per_minute(false), per_minute(true));
    assert!((58.0..=62.0).contains(&usual), "{usual}");
    assert!((5.0..=7.0).contains(&metered), "{metered}");
}

#[test]
fn what_was_wrong_in_the_last_round_is_told_and_nothing_older() {
    let wrong = Outcome::Wrong("captive portal".to_owned());
    let good = Outcome::Reply(ms(8));
    // What two targets, which nobody else asks, answer in each round; and what is told then.
    let rounds = [
        ([good.clone(), wrong.clone()], None),
        ([wrong.clone(), good.clone()], None),
        ([Outcome::Lost, Outcome::Lost], None),
        ([Outcome::Lost, wrong.clone()], Some("captive portal")),
        ([wrong, Outcome::Lost], Some("captive portal")),
        ([Outcome::Lost, Outcome::Lost], None),
        ([Outcome::Lost, good], None),
    ];
    let mut now = Instant::now();
    let mut board = Board::new(vec![member(&[0, 1], 1)], BTreeSet::from([0, 1]), 1, now);
    board.set_fault(0, None, now);
    for (step, (outcomes, told)) in rounds.into_iter().enumerate() {
        now = board.poll_timeout().unwrap().max(now);
        let actions = board.handle_timer(now);
        let asked = |action: &Action| match action {
            Action::Ask(question) => Some(*question),
            _ => None,
        };
        let questions: Vec<Question> = actions.iter().filter_map(asked).collect();
        assert_eq!(questions.len(), 2, "round {step}: {actions:?}");
        for question in questions {
            board.handle_outcome(question, &outcomes[question.target], now);
        }
        assert_eq!(board.wrong(0), told, "round {step}");
    }
}
