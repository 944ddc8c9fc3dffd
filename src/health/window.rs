//! The last outcomes of a member, and the figures that follow from them.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::model::Outcome;

/// How many outcomes count.
const SIZE: usize = 20;

/// The last 20 outcomes, over all targets. There may be thousands of windows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Window {
    outcomes: Vec<(u32, Option<Sample>)>,
    /// The last reply of each target.
    last: Box<[(u32, Micros)]>,
}

/// One reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    rtt: Micros,
    /// The difference to the reply before of the same target.
    change: Option<Micros>,
}

/// A time of at most an hour. Never zero, so that none takes no more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Micros(NonZeroU32);

impl Micros {
    fn of(time: Duration) -> Micros {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX - 1);
        Micros(NonZeroU32::MIN.saturating_add(micros))
    }

    fn time(self) -> Duration {
        Duration::from_micros(u64::from(self.0.get() - 1))
    }
}

/// What the window says. What was never measured is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Share of outcomes that are no reply, from 0 to 1.
    pub loss: Option<f64>,
    /// Mean round-trip time.
    pub rtt: Option<Duration>,
    /// Mean difference of successive round-trip times of one target.
    pub jitter: Option<Duration>,
}

impl Window {
    /// Takes in what came of asking a target.
    pub fn push(&mut self, target: usize, outcome: &Outcome) {
        let target = number(target);
        let sample = match outcome {
            Outcome::Reply(rtt) => {
                let rtt = Micros::of(*rtt);
                let change = match self.last.iter_mut().find(|(one, _)| *one == target) {
                    Some((_, last)) => Some(std::mem::replace(last, rtt)),
                    None => {
                        let last = std::mem::take(&mut self.last).into_iter();
                        self.last = last.chain([(target, rtt)]).collect();
                        None
                    }
                };
                let change = change.map(|last| Micros::of(last.time().abs_diff(rtt.time())));
                Some(Sample { rtt, change })
            }
            Outcome::Lost | Outcome::Wrong(_) => None,
        };
        if self.outcomes.len() == SIZE {
            self.outcomes.remove(0);
        }
        self.outcomes.push((target, sample));
    }

    /// What it says now.
    pub fn figures(&self) -> Figures {
        let replies = || self.outcomes.iter().filter_map(|(_, sample)| *sample);
        let count = self.outcomes.len();
        let lost = count - replies().count();
        Figures {
            loss: (count > 0).then(|| lost as f64 / count as f64),
            rtt: mean(replies().map(|sample| sample.rtt.time())),
            jitter: mean(replies().filter_map(|sample| Some(sample.change?.time()))),
        }
    }

    /// Losses of this target were its own fault.
    pub(super) fn forget_losses(&mut self, target: usize) {
        let target = number(target);
        self.outcomes.retain(|(from, sample)| *from != target || sample.is_some());
    }

    /// Lost outcomes as a share of a full window: one loss at the start is not all that there is.
    pub(super) fn loss_of_full(&self) -> f64 {
        self.outcomes.iter().filter(|(_, sample)| sample.is_none()).count() as f64 / SIZE as f64
    }
}

fn number(target: usize) -> u32 {
    u32::try_from(target).unwrap_or(u32::MAX)
}

fn mean(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    let (sum, count) =
        times.fold((Duration::ZERO, 0), |(sum, count), time| (sum + time, count + 1));
    (count > 0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Figures, Window};
    use crate::model::Outcome;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn nothing_is_known_of_a_member_that_was_never_asked() {
        assert_eq!(Window::default().figures(), Figures::default());
    }

    #[test]
    fn figures_are_of_the_last_twenty() {
        let mut window = Window::default();
        for _ in 0..30 {
            window.push(0, &Outcome::Lost);
        }
        assert_eq!(window.figures(), Figures { loss: Some(1.0), rtt: None, jitter: None });
        for _ in 0..15 {
            window.push(0, &Outcome::Reply(ms(10)));
        }
        let figures = window.figures();
        assert_eq!((figures.loss, figures.rtt), (Some(0.25), Some(ms(10))));
    }

    #[test]
    fn jitter_is_between_replies_of_one_target() {
        let mut window = Window::default();
        for (target, rtt) in [(0, 10), (1, 100), (0, 12), (1, 104)] {
            window.push(target, &Outcome::Reply(ms(rtt)));
        }
        assert_eq!(window.figures().jitter, Some(ms(3)));
    }
}
