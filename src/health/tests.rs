//! The machine's whole transition table.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Health, Judgement, Machine, Terms};
use crate::model::{Degraded, Outcome, Pace};

const HOLD: Duration = Duration::from_secs(10);

fn terms() -> Arc<Terms> {
    let pace = Pace { fall: 3, rise: 2, ..Pace::PROBE };
    Arc::new(Terms { pace, degraded: Some(Degraded::default()), hold_down: HOLD })
}

/// A machine and its clock: a step is a second.
struct Bench {
    machine: Machine,
    now: Instant,
}

impl Bench {
    fn new() -> Bench {
        Bench { machine: Machine::new(terms()), now: Instant::now() }
    }

    /// Rounds of one target: `.` answers, `x` does not; `F` and `f` are a fault that comes and goes;
    /// `_` is time alone.
    fn go(&mut self, steps: &str) -> &mut Bench {
        for step in steps.chars() {
            self.now += Duration::from_secs(1);
            self.machine.handle_timer(self.now);
            match step {
                '.' => {
                    self.machine.observe(0, &Outcome::Reply(Duration::from_millis(8)));
                    self.machine.round(true, self.now);
                }
                'x' => {
                    self.machine.observe(0, &Outcome::Lost);
                    self.machine.round(false, self.now);
                }
                'F' => self.machine.set_fault(Some("no carrier".into()), self.now),
                'f' => self.machine.set_fault(None, self.now),
                _ => {}
            }
        }
        self
    }

    fn health(&self) -> Health {
        self.machine.health()
    }
}

/// Where each sequence leads from the start.
#[test]
fn each_state_is_left_by_what_should_lead_out_of_it_and_by_nothing_else() {
    use Health::{Degraded, Down, Unknown, Up};
    let table = [
        // unknown
        ("", Unknown),
        (".", Unknown),
        ("..", Up),
        (".x.", Unknown),
        ("xx", Unknown),
        ("xxx", Down),
        ("F", Down),
        // up
        ("..x", Up),
        ("..xx", Up),
        ("..xx.", Up),
        ("..xxx", Down),
        ("..F", Down),
        ("..f", Up),
        // The first up after the start is not held down.
        ("xxx.", Down),
        ("xxx..", Degraded),
        ("F..", Down),
        ("Ff", Down),
        ("Ff.", Down),
        ("Ff..", Up),
        // What was answered before the fault went says nothing.
        ("F..f.", Down),
        // down again: held for ten seconds from its recovery
        ("..F____f..", Down),
        ("..Ff.._________", Down),
        ("..Ff..__________", Up),
        ("..Ff..x________", Down),
        // One bad round among good ones does not begin it anew.
        ("..Ff..x_________", Up),
        ("..Ff..xxx__________", Down),
        ("..Ff..xxx..__________", Degraded),
        ("..Ff..F__________", Down),
        // degraded: more than two of twenty
        ("..x.x.", Up),
        ("..x.x.x.", Degraded),
        ("..x.x.x.x.xx", Degraded),
        ("..x.x.x.x.xxx", Down),
        ("..x.x.x.F", Down),
        // left at one of twenty
        ("..x.x.x................", Degraded),
        ("..x.x.x..................", Up),
    ];
    for (steps, expected) in table {
        let mut bench = Bench::new();
        assert_eq!(bench.go(steps).health(), expected, "after `{steps}`");
    }
}

#[test]
fn hold_down_doubles_with_each_flap_up_to_ten_minutes_and_forgets() {
    let mut bench = Bench::new();
    bench.go("..");
    let mut held = Vec::new();
    for _ in 0..9 {
        bench.go("Ff..");
        let Judgement::Held(until) = *bench.machine.judgement() else { panic!("not held") };
        held.push((until - bench.now).as_secs());
        bench.machine.waive_hold();
        assert_eq!(bench.health(), Health::Up);
    }
    assert_eq!(held, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
    bench.now += Duration::from_secs(601);
    bench.go("Ff..");
    assert_eq!(*bench.machine.judgement(), Judgement::Held(bench.now + HOLD));
}

#[test]
fn a_slow_or_unsteady_member_is_degraded_until_it_is_well_below() {
    for (rtts, name) in [([200, 200], "round-trip time"), ([10, 90], "jitter")] {
        let mut machine = Machine::new(terms());
        let now = Instant::now();
        let answer = |machine: &mut Machine, rtt: u64| {
            machine.observe(0, &Outcome::Reply(Duration::from_millis(rtt)));
            machine.round(true, now);
        };
        for rtt in rtts.iter().cycle().take(20) {
            answer(&mut machine, *rtt);
        }
        assert_eq!(machine.health(), Health::Degraded);
        assert_eq!(*machine.judgement(), Judgement::Bad(name));
        for _ in 0..20 {
            answer(&mut machine, 10);
        }
        assert_eq!(machine.health(), Health::Up);
    }
}

#[test]
fn health_from_before_a_restart_stays_until_a_verdict() {
    for health in [Health::Up, Health::Degraded, Health::Down] {
        let now = Instant::now();
        let mut machine = Machine::remembered(terms(), health);
        assert_eq!(machine.health(), health);
        machine.round(false, now);
        machine.round(false, now);
        assert_eq!(machine.health(), health, "two bad rounds are no verdict");
        machine.round(false, now);
        assert_eq!(machine.health(), Health::Down);
    }
    let mut machine = Machine::remembered(terms(), Health::Down);
    machine.round(true, Instant::now());
    machine.round(true, Instant::now());
    assert_eq!(machine.health(), Health::Up, "the first up after the start is not held");
}
