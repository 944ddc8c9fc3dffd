//! How servers answer: each is asked as its group says, once for each distinct way to ask. Pure.
//!
//! The machine is that of uplinks. A server's silence is always its own: nobody else could ask
//! "over" it. What follows from several groups that share a server is theirs to decide.

mod telling;
#[cfg(test)]
mod tests;
mod way;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

pub(super) use self::way::Way;
use self::way::{Shared, is_unchecked, way};
use super::events::{Level, Told};
use super::judge::describe;
use crate::health::{Action, Board, Figures, Health, Member, Question, Terms};
use crate::model::{Check, EventKind, Name, Outcome, Server, Service};
use crate::plan::{Admin, GroupStanding, Layout, ServerStanding, Standings};

/// So many questions are open at once: each is a socket, and there is only so much room for them.
const MOST_OPEN: usize = 1024;
/// A server that recovered gets a little more of its share so often.
const RAMP_STEP: Duration = Duration::from_secs(1);

/// Inquiries by address and port.
type Places = BTreeMap<(IpAddr, u16), SmallVec<[u64; 1]>>;

/// A server of a group.
pub(super) type Seat = (Name, Name);

/// Something to ask a server.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CheckAsk {
    pub(super) inquiry: u64,
    pub(super) question: Question,
    pub(super) way: Way,
}

/// One server, asked in one way.
#[derive(Debug)]
struct Inquiry {
    way: Way,
    board: Board,
    /// Whose health it is.
    users: SmallVec<[Seat; 1]>,
    due: Option<Instant>,
}

/// Everything that is known of servers.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Boxed: there may be thousands, and most nodes of a tree are half empty.
    inquiries: BTreeMap<u64, Box<Inquiry>>,
    seats: BTreeMap<Seat, (u64, bool)>,
    due: BTreeSet<(Instant, u64)>,
    /// Questions that were not answered yet.
    open: usize,
    /// Those whose turn it is as soon as fewer questions are open.
    waiting: VecDeque<u64>,
    groups: Arc<BTreeMap<Name, Arc<GroupStanding>>>,
    admin: BTreeMap<Seat, Admin>,
    /// Those that answer for the first time, while others of their group are still waited for: it
    /// would not do if the one whose answer came first took everything.
    first: BTreeSet<Seat>,
    /// Since when those that have recovered get more, and after how long they have all.
    ramps: BTreeMap<Seat, (Instant, Duration)>,
    stepped: Option<Instant>,
    last: u64,
    seed: u64,
    asks: Vec<CheckAsk>,
    told: Vec<Told>,
}

fn terms_of(check: &Check) -> Terms {
    Terms { pace: check.pace, degraded: check.degraded, hold_down: check.hold_down }
}

impl Checks {
    /// `before`: how servers answered a moment ago, before a restart.
    pub(super) fn new(layout: &Layout, before: &Standings, seed: u64, now: Instant) -> Checks {
        let mut checks = Checks { seed, ..Checks::default() };
        for (group, servers) in before.groups.iter() {
            for (server, standing) in servers.iter().filter(|(_, s)| s.admin != Admin::Enabled) {
                checks.admin.insert((group.clone(), server.clone()), standing.admin);
            }
        }
        checks.groups = before.groups.clone();
        checks.adopt(layout, now);
        checks
    }

    /// Another site: servers that are asked as before keep their health.
    pub(super) fn adopt(&mut self, layout: &Layout, now: Instant) {
        let before = std::mem::take(&mut self.groups);
        let mut seats = Vec::new();
        let mut places = Places::new();
        for (id, inquiry) in &self.inquiries {
            let place = (inquiry.way.server, inquiry.way.port);
            places.entry(place).or_default().push(*id);
        }
        let (mut kinds, mut terms) = (Shared::default(), Shared::default());
        for inquiry in self.inquiries.values_mut() {
            inquiry.users.clear();
        }
        for group in layout.site.groups.values() {
            let terms = terms.of(terms_of(&group.check));
            let services: Vec<&Service> = layout.uses.services(&layout.site, &group.name).collect();
            for server in &group.servers {
                let seat = (group.name.clone(), server.name.clone());
                let way = way(group, server, &services, &mut kinds);
                let remembered = before.get(&seat.0).and_then(|known| known.get(&seat.1));
                let unchecked = is_unchecked(&way.kind, &services);
                let id = self.inquire(way, &terms, remembered.map(|s| s.health), &mut places, now);
                if let Some(inquiry) = self.inquiries.get_mut(&id) {
                    inquiry.users.push(seat.clone());
                }
                seats.push((seat, (id, unchecked)));
            }
        }
        self.seats = seats.into_iter().collect();
        self.admin.retain(|seat, _| self.seats.contains_key(seat));
        self.ramps.retain(|seat, _| self.seats.contains_key(seat));
        self.inquiries.retain(|_, inquiry| !inquiry.users.is_empty());
        self.due.retain(|(_, id)| self.inquiries.contains_key(id));
        let mut groups: BTreeMap<Name, GroupStanding> = BTreeMap::new();
        for seat in self.seats.keys() {
            let mut standing = self.standing(seat, None);
            if let Some(was) = before.get(&seat.0).and_then(|known| known.get(&seat.1)) {
                standing.slots = was.slots;
                if self.ramps.contains_key(seat) {
                    standing.ramp = was.ramp;
                }
            }
            let servers = groups.entry(seat.0.clone()).or_default();
            servers.insert(seat.1.clone(), standing);
        }
        let kept = |(name, standing): (Name, GroupStanding)| match before.get(&name) {
            Some(was) if **was == standing => (name, was.clone()),
            _ => (name, Arc::new(standing)),
        };
        self.groups = Arc::new(groups.into_iter().map(kept).collect());
    }

    fn inquire(
        &mut self,
        way: Way,
        terms: &Arc<Terms>,
        remembered: Option<Health>,
        places: &mut Places,
        now: Instant,
    ) -> u64 {
        let place = (way.server, way.port);
        let same = |id: &u64| {
            let known = self.inquiries.get(id);
            known.is_some_and(|one| one.way == way && one.board.is_on(0, terms))
        };
        if let Some(id) = places.get(&place).and_then(|ids| ids.iter().copied().find(same)) {
            return id;
        }
        self.last += 1;
        let member = Member {
            targets: vec![0],
            quorum: 1,
            terms: terms.clone(),
            metered: false,
            remembered: remembered.filter(|health| *health != Health::Unknown),
        };
        let seed = self.seed.wrapping_add(self.last.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut board = Board::new(vec![member], BTreeSet::from([0]), seed, now).strict();
        board.set_fault(0, None, now);
        let due = board.poll_timeout();
        self.due.extend(due.map(|due| (due, self.last)));
        let inquiry = Inquiry { way, board, users: SmallVec::new(), due };
        self.inquiries.insert(self.last, Box::new(inquiry));
        places.entry(place).or_default().push(self.last);
        self.last
    }

    /// How all of them answer.
    pub(super) fn groups(&self) -> Arc<BTreeMap<Name, Arc<GroupStanding>>> {
        self.groups.clone()
    }

    /// Loss, round-trip time and jitter of a server.
    pub(super) fn figures(&self, seat: &Seat) -> Figures {
        let inquiry = self.seats.get(seat).and_then(|(id, _)| self.inquiries.get(id));
        inquiry.map(|inquiry| inquiry.board.figures(0)).unwrap_or_default()
    }

    /// When to call [`Checks::handle_timer`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let ramp = self.stepped.map(|stepped| stepped + RAMP_STEP);
        let check = self.due.first().map(|(due, _)| *due);
        check.into_iter().chain(ramp.filter(|_| !self.ramps.is_empty())).min()
    }

    /// Time has passed.
    pub(super) fn handle_timer(&mut self, layout: &Layout, now: Instant) {
        while let Some((due, id)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, id));
            let Some(inquiry) = self.inquiries.get_mut(&id) else { continue };
            let board = &mut inquiry.board;
            let full = self.open >= MOST_OPEN && !board.is_held();
            if full {
                board.hold(true);
            }
            let actions = board.handle_timer(now);
            if full && board.is_due(now) {
                self.waiting.push_back(id);
            } else if full {
                board.hold(false);
            }
            self.follow(layout, id, actions, now);
        }
        if self.stepped.is_some_and(|stepped| stepped + RAMP_STEP <= now) {
            self.step_ramps(now);
        }
    }

    /// Takes in what came of a question. Each one has to come to something.
    pub(super) fn handle_outcome(
        &mut self,
        layout: &Layout,
        id: u64,
        question: Question,
        outcome: &Outcome,
        now: Instant,
    ) {
        self.open = self.open.saturating_sub(1);
        if let Some(inquiry) = self.inquiries.get_mut(&id) {
            let actions = inquiry.board.handle_outcome(question, outcome, now);
            self.follow(layout, id, actions, now);
        }
        self.admit(layout, now);
    }

    /// Those that wait ask, as far as there is room.
    fn admit(&mut self, layout: &Layout, now: Instant) {
        while self.open < MOST_OPEN
            && let Some(id) = self.waiting.pop_front()
        {
            let Some(inquiry) = self.inquiries.get_mut(&id) else { continue };
            inquiry.board.hold(false);
            let actions = inquiry.board.handle_timer(now);
            self.follow(layout, id, actions, now);
        }
    }

    /// Somebody wants a server to be so.
    pub(super) fn order(&mut self, seat: &Seat, admin: Admin) {
        match admin {
            Admin::Enabled => drop(self.admin.remove(seat)),
            other => drop(self.admin.insert(seat.clone(), other)),
        }
        let name = format!("{}/{}", seat.0, seat.1);
        let text = format!("server {name} is {} by order", admin.as_str());
        let told = Told::new(Level::Info, EventKind::ServerOrder, text).of_server(name);
        self.told.push(told.with("admin", admin.as_str()));
        self.refresh(seat);
    }

    /// Slots of servers, as measured.
    pub(super) fn set_slots(&mut self, group: &Name, slots: &BTreeMap<Name, u16>) {
        let Some(standing) = self.groups.get(group) else { return };
        let same = standing.iter().all(|(name, one)| one.slots == slots.get(name).copied());
        if same {
            return;
        }
        let groups = Arc::make_mut(&mut self.groups);
        if let Some(standing) = groups.get_mut(group) {
            for (name, one) in Arc::make_mut(standing).iter_mut() {
                one.slots = slots.get(name).copied();
            }
        }
    }

    /// What is to be asked and told since the last time.
    pub(super) fn take(&mut self) -> (Vec<CheckAsk>, Vec<Told>) {
        (std::mem::take(&mut self.asks), std::mem::take(&mut self.told))
    }

    fn follow(&mut self, layout: &Layout, id: u64, actions: Vec<Action>, now: Instant) {
        let Some(inquiry) = self.inquiries.get_mut(&id) else { return };
        let due = inquiry.board.poll_timeout();
        if due != inquiry.due {
            let before = std::mem::replace(&mut inquiry.due, due);
            self.due.extend(due.map(|due| (due, id)));
            if let Some(before) = before {
                self.due.remove(&(before, id));
            }
        } else {
            self.due.extend(due.map(|due| (due, id)));
        }
        let mut changed = false;
        // Whoever waits for this one need not, once it has failed.
        changed |= !self.first.is_empty() && inquiry.board.doubts(0);
        for action in actions {
            match action {
                Action::Ask(question) => {
                    self.open += 1;
                    self.asks.push(CheckAsk { inquiry: id, question, way: inquiry.way.clone() });
                }
                Action::Changed(_) => changed = true,
                Action::TargetDead(_) | Action::TargetBack(_) => {}
            }
        }
        if changed {
            for seat in inquiry.users.clone() {
                self.turn(layout, &seat, now);
            }
        }
    }

    /// A server answers otherwise than before.
    fn turn(&mut self, layout: &Layout, seat: &Seat, now: Instant) {
        for other in self.settle(seat) {
            let before = self.known(&other);
            self.refresh(&other);
            self.tell(layout, &other, &before);
        }
        let before = self.known(seat);
        let health = self.standing(seat, None).health;
        let others = self.others_usable(seat);
        if before.health == Health::Down && health > Health::Down && others {
            let group = layout.site.groups.get(&seat.0);
            let time = group.map_or(Duration::ZERO, |group| group.slow_start);
            if !time.is_zero() {
                self.ramps.insert(seat.clone(), (now, time));
                self.stepped.get_or_insert(now);
            }
        }
        if health == Health::Down {
            self.ramps.remove(seat);
        }
        self.refresh_at(seat, Some(now));
        self.waive(layout, seat);
        self.tell(layout, seat, &before);
    }

    /// While nobody of a group is known, those that answer first wait for the others. Those who need
    /// not wait any longer.
    fn settle(&mut self, seat: &Seat) -> Vec<Seat> {
        let servers = self.groups.get(&seat.0).into_iter().flat_map(|group| group.keys());
        let seats: Vec<Seat> = servers.map(|server| (seat.0.clone(), server.clone())).collect();
        let board = |seat: &Seat| {
            let (id, _) = self.seats.get(seat)?;
            self.inquiries.get(id).map(|inquiry| &inquiry.board)
        };
        let open = |seat: &Seat| {
            board(seat).is_some_and(|one| one.health(0) == Health::Unknown && !one.doubts(0))
        };
        let settled = seats.iter().any(|one| self.known(one).health > Health::Unknown);
        if !settled && seats.iter().any(open) {
            if board(seat).is_some_and(|one| one.health(0) > Health::Unknown) {
                self.first.insert(seat.clone());
            }
            return Vec::new();
        }
        seats.into_iter().filter(|one| self.first.remove(one) && one != seat).collect()
    }

    /// Another server of the group takes new sessions.
    fn others_usable(&self, seat: &Seat) -> bool {
        let group = self.groups.get(&seat.0);
        let mut others = group.into_iter().flat_map(|group| group.iter());
        others.any(|(name, one)| *name != seat.1 && one.eligible() > Health::Down)
    }

    /// One that answers, and is held down, need not wait when there is no other.
    fn waive(&mut self, layout: &Layout, seat: &Seat) {
        let Some(group) = layout.site.groups.get(&seat.0) else { return };
        let usable = |server: &Server| {
            self.known(&(group.name.clone(), server.name.clone())).eligible() > Health::Down
        };
        if group.servers.iter().any(usable) {
            return;
        }
        for server in &group.servers {
            let seat = (group.name.clone(), server.name.clone());
            let Some((id, _)) = self.seats.get(&seat) else { continue };
            let waived = self.inquiries.get_mut(id).is_some_and(|one| one.board.waive(0));
            if waived {
                self.refresh(&seat);
            }
        }
    }

    fn step_ramps(&mut self, now: Instant) {
        self.stepped = Some(now);
        let over =
            |(since, time): &(Instant, Duration)| now.saturating_duration_since(*since) >= *time;
        let seats: Vec<Seat> = self.ramps.keys().cloned().collect();
        self.ramps.retain(|_, ramp| !over(ramp));
        for seat in seats {
            self.refresh_at(&seat, Some(now));
        }
        if self.ramps.is_empty() {
            self.stepped = None;
        }
    }

    fn known(&self, seat: &Seat) -> ServerStanding {
        let known = self.groups.get(&seat.0).and_then(|group| group.get(&seat.1));
        known.cloned().unwrap_or_default()
    }

    fn refresh(&mut self, seat: &Seat) {
        self.refresh_at(seat, None);
    }

    fn refresh_at(&mut self, seat: &Seat, now: Option<Instant>) {
        let mut standing = self.standing(seat, now);
        let known = self.known(seat);
        standing.slots = known.slots;
        if now.is_none() {
            standing.ramp = known.ramp;
        }
        if standing == known {
            return;
        }
        let groups = Arc::make_mut(&mut self.groups);
        let group = groups.entry(seat.0.clone()).or_default();
        Arc::make_mut(group).insert(seat.1.clone(), standing);
    }

    fn standing(&self, seat: &Seat, now: Option<Instant>) -> ServerStanding {
        let mut standing = ServerStanding {
            admin: self.admin.get(seat).copied().unwrap_or_default(),
            ..ServerStanding::default()
        };
        if let Some((id, unchecked)) = self.seats.get(seat)
            && let Some(inquiry) = self.inquiries.get(id)
        {
            standing.health = match inquiry.board.health(0) {
                _ if self.first.contains(seat) => Health::Unknown,
                health => health,
            };
            standing.unchecked = *unchecked && standing.health > Health::Unknown;
            standing.reason = describe(&inquiry.board, 0, true);
        }
        if let (Some((since, time)), Some(now)) = (self.ramps.get(seat), now) {
            let part = now.saturating_duration_since(*since).as_secs_f64() / time.as_secs_f64();
            let least = f64::from(ServerStanding::WHOLE) * 0.05;
            standing.ramp = (part * f64::from(ServerStanding::WHOLE)).max(least) as u16;
            standing.ramp = standing.ramp.min(ServerStanding::WHOLE);
        }
        standing
    }
}
