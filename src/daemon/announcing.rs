//! Which addresses of services are to be announced now. Pure: what is in force, and the time, become
//! addresses to announce.
//!
//! ```text
//!              in force          third time
//!   unknown ─────────────► burst ──────────► steady ──┐ a minute: once more
//!      ▲                     ▲                 │ ▲────┘
//!      │ given up            └─────────────────┘
//!      └─ from anywhere         the carrier or the way out is back, or the device is another one
//! ```
//!
//! A burst is three times, a second apart, for a frame may be lost, and a switch that has just seen the
//! carrier may not pass anything yet. Without carrier nothing is sent, and nothing counts as sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::kstate::{OwnAddress, Snapshot};
use crate::plan::{Layout, View};

/// How often an address is announced when it is new, or when its link is back; and the pause between.
const BURST: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// The pause between all others.
const STEADY: Duration = Duration::from_secs(60);

/// The link by which an address is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// The index of the device.
    pub(super) index: u32,
    /// It has carrier.
    pub(super) carrier: bool,
    /// The uplink has a way out in the address's family.
    pub(super) way: bool,
}

impl Line {
    /// Whether neighbours may have forgotten, or never heard, what was announced before.
    fn is_new_since(self, before: Line) -> bool {
        self.index != before.index || (self.carrier && !before.carrier) || (self.way && !before.way)
    }
}

/// Every address of ours that is there, with its link.
pub(super) fn lines(layout: &Layout, view: &View, seen: &Snapshot) -> BTreeMap<OwnAddress, Line> {
    let line = |own: &OwnAddress| {
        let link = seen.facts.links.get(&own.device)?;
        let mut uplinks = layout.site.uplinks.iter().filter(|one| one.interface == own.device);
        let way = uplinks.any(|uplink| {
            let facts = view.uplinks.get(&uplink.name);
            facts.is_some_and(|facts| facts.ways.contains_key(&own.family()))
        });
        Some((own.clone(), Line { index: link.index, carrier: link.carrier, way }))
    };
    seen.ours.addresses.iter().filter_map(line).collect()
}

/// When each address is announced next.
#[derive(Debug, Default)]
pub(super) struct Announcing(BTreeMap<OwnAddress, Claim>);

#[derive(Debug)]
struct Claim {
    line: Line,
    /// How often it still is, in this burst.
    left: u32,
    next: Instant,
}

impl Announcing {
    /// These addresses are in force now; all others are not any more.
    pub(super) fn follow(&mut self, lines: BTreeMap<OwnAddress, Line>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for (own, line) in lines {
            let known = before.remove(&own).filter(|claim| !line.is_new_since(claim.line));
            let claim = match known {
                Some(claim) => Claim { line, ..claim },
                None => Claim { line, left: BURST, next: now },
            };
            self.0.insert(own, claim);
        }
    }

    /// When to ask for addresses that are due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.values().filter(|claim| claim.line.carrier).map(|claim| claim.next).min()
    }

    /// What to announce now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<OwnAddress> {
        let mut due = Vec::new();
        for (own, claim) in &mut self.0 {
            if !claim.line.carrier || claim.next > now {
                continue;
            }
            claim.left = claim.left.saturating_sub(1);
            claim.next = now + if claim.left > 0 { PAUSE } else { STEADY };
            due.push(own.clone());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test says what it expects

    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Announcing, Line, lines};
    use crate::kstate::{Link, OwnAddress, Snapshot};
    use crate::model::IfName;
    use crate::plan::{self, Layout, Remembered};
    use crate::profile;

    const GOOD: Line = Line { index: 2, carrier: true, way: true };
    const NO_CARRIER: Line = Line { carrier: false, ..GOOD };
    const NO_WAY: Line = Line { way: false, ..GOOD };

    fn own(address: &str) -> OwnAddress {
        let device = IfName::new("wan0").unwrap();
        OwnAddress { device, address: address.parse().unwrap() }
    }

    /// What is in force, and from which second on.
    type Played<'a> = &'a [(u64, &'a [(&'a str, Line)])];

    /// The seconds at which something is announced, and what.
    fn play(changes: Played<'_>, until: u64) -> Vec<(u64, String)> {
        let start = Instant::now();
        let mut announcing = Announcing::default();
        let mut told = Vec::new();
        for second in 0..=until {
            let now = start + Duration::from_secs(second);
            if let Some((_, lines)) = changes.iter().find(|(at, _)| *at == second) {
                let lines = lines.iter().map(|(address, line)| (own(address), *line));
                announcing.follow(lines.collect(), now);
            }
            let wanted = announcing.poll_timeout().is_some_and(|due| due <= now);
            let due = announcing.due(now);
            assert_eq!(wanted, !due.is_empty(), "at {second} s");
            told.extend(due.into_iter().map(|own| (second, own.address.to_string())));
        }
        told
    }

    fn seconds(changes: Played<'_>, until: u64) -> Vec<u64> {
        play(changes, until).into_iter().map(|(second, _)| second).collect()
    }

    const ONE: &str = "203.0.113.10";

    #[test]
    fn a_new_address_is_announced_three_times_and_then_every_minute() {
        let good: &[_] = &[(ONE, GOOD)];
        // Every round tells of it again, which changes nothing.
        let changes: Played<'_> = &[(5, good), (6, good), (30, good)];
        assert_eq!(seconds(changes, 130), [5, 6, 7, 67, 127]);
    }

    #[test]
    fn a_link_that_is_back_is_told_anew() {
        for bad in [NO_CARRIER, NO_WAY] {
            let changes: Played<'_> =
                &[(0, &[(ONE, GOOD)]), (10, &[(ONE, bad)]), (20, &[(ONE, GOOD)])];
            assert_eq!(seconds(changes, 30), [0, 1, 2, 20, 21, 22], "{bad:?}");
        }
        let other = Line { index: 9, ..GOOD };
        let changes: Played<'_> = &[(0, &[(ONE, GOOD)]), (20, &[(ONE, other)])];
        assert_eq!(seconds(changes, 30), [0, 1, 2, 20, 21, 22]);
    }

    #[test]
    fn nothing_is_sent_without_carrier() {
        let changes: Played<'_> = &[(0, &[(ONE, NO_CARRIER)]), (100, &[(ONE, GOOD)])];
        assert_eq!(seconds(changes, 103), [100, 101, 102]);
        let changes: Played<'_> = &[(0, &[(ONE, GOOD)]), (1, &[(ONE, NO_CARRIER)])];
        assert_eq!(seconds(changes, 200), [0]);
        // Without a way out there are still neighbours.
        let changes: Played<'_> = &[(0, &[(ONE, NO_WAY)])];
        assert_eq!(seconds(changes, 70), [0, 1, 2, 62]);
    }

    #[test]
    fn an_address_that_is_given_up_is_forgotten_and_the_others_go_on() {
        let two: &[_] = &[(ONE, GOOD), ("2001:db8:a::10", GOOD)];
        let told = play(&[(0, two), (1, &[(ONE, GOOD)]), (10, two)], 12);
        let of = |address: &str| -> Vec<u64> {
            told.iter().filter(|(_, one)| one == address).map(|(second, _)| *second).collect()
        };
        assert_eq!(of(ONE), [0, 1, 2]);
        assert_eq!(of("2001:db8:a::10"), [0, 10, 11, 12]);
    }

    #[test]
    fn an_address_has_the_link_of_its_device() {
        let text = "{ version: 1, site: x, uplinks: { fiber: { interface: wan0 } } }";
        let layout = Layout::new(profile::load(text).site.unwrap(), &Remembered::default());
        let mut seen = Snapshot::default();
        let link = Link {
            index: 7,
            up: true,
            carrier: true,
            mtu: 1500,
            loopback: false,
            point_to_point: false,
        };
        seen.ours.addresses.insert(own(ONE));
        let found =
            |seen: &Snapshot| lines(&layout, &plan::assess(&layout, seen, &Arc::default()), seen);
        assert_eq!(found(&seen), BTreeMap::new());
        seen.facts.links.insert(IfName::new("wan0").unwrap(), link);
        let line = Line { index: 7, carrier: true, way: false };
        assert_eq!(found(&seen), BTreeMap::from([(own(ONE), line)]));
    }
}
