//! Servers that are asked, without a kernel.
#![allow(clippy::unwrap_used)] // a test says what it expects

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::{CheckAsk, Checks, MOST_OPEN};
use crate::health::Health;
use crate::model::Outcome;
use crate::plan::{Layout, Remembered, Standings};
use crate::profile;

const MORE: usize = 3;

/// So many servers that at most a third of them can be asked at once.
fn site() -> Layout {
    let mut groups = String::new();
    for number in 0..MOST_OPEN * MORE {
        let (group, server) = (number / 128, number % 128 + 1);
        if server == 1 {
            write!(groups, "  g{group}: {{ check: {{ tcp: {{ port: 80 }} }}, servers: {{").unwrap();
        }
        let end = if server == 128 { "} }\n" } else { ", " };
        write!(groups, "s{server}: {{ address: 10.0.{group}.{server} }}{end}").unwrap();
    }
    let text =
        format!("version: 1\nsite: s\nuplinks: {{ a: {{ interface: e0 }} }}\ngroups:\n{groups}");
    let loaded = profile::load(&text);
    Layout::new(
        loaded.site.unwrap_or_else(|| panic!("{:?}", loaded.findings)),
        &Remembered::default(),
    )
}

/// Asks and answers until `until`, a question taking so long: the most that were open at once, and of
/// how many servers' health people were told.
fn live(
    checks: &mut Checks,
    layout: &Layout,
    from: Instant,
    until: Duration,
    answer: (Duration, Outcome),
) -> (usize, usize) {
    let (took, outcome) = answer;
    let mut open: VecDeque<(Instant, CheckAsk)> = VecDeque::new();
    let (mut most, mut told) = (0, 0);
    let mut now = from;
    while now < from + until {
        checks.handle_timer(layout, now);
        while let Some((_, ask)) = open.pop_front_if(|(over, _)| *over <= now) {
            checks.handle_outcome(layout, ask.inquiry, ask.question, &outcome, now);
        }
        let (asks, news) = checks.take();
        open.extend(asks.into_iter().map(|ask| (now + took, ask)));
        told += news.len();
        most = most.max(open.len());
        let next = open.front().map(|(over, _)| *over);
        now = next.into_iter().chain(checks.poll_timeout()).min().unwrap().max(now);
    }
    (most, told)
}

fn healths(checks: &Checks, health: Health) -> usize {
    let groups = checks.groups();
    groups.values().flat_map(|group| group.values()).filter(|one| one.health == health).count()
}

#[test]
fn only_so_many_are_asked_at_once_and_all_of_them_in_turn() {
    let (layout, now) = (site(), Instant::now());
    let mut checks = Checks::new(&layout, &Standings::default(), 1, now);
    let answer = (Duration::from_millis(20), Outcome::Reply(Duration::from_millis(20)));
    let (most, told) = live(&mut checks, &layout, now, Duration::from_secs(1), answer);
    assert_eq!((most, healths(&checks, Health::Up)), (MOST_OPEN, MOST_OPEN * MORE));
    assert_eq!(told, MOST_OPEN * MORE, "each is told of, also who waited for others of its group");
    // In fewer turns than would be needed if each of them had to wait for one who does not answer.
    let now = now + Duration::from_secs(1);
    let silence = (Duration::from_secs(1), Outcome::Lost);
    let (most, _) = live(&mut checks, &layout, now, Duration::from_secs(30), silence);
    assert_eq!((most, healths(&checks, Health::Down)), (MOST_OPEN, MOST_OPEN * MORE));
}
