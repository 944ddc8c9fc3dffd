//! The thread that evacuates sessions: what it does may take a second, and nothing waits for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::checks::Seat;
use super::dismissal::{Dismisser, leaver};
use super::events::{Level, Told};
use super::server_moves::ServerEvacuation;
use crate::clock;
use crate::kernel::{
    Conntrack, Hush, Kernel as _, KernelError, Linux, Ranges, Session, Timeouts, release_flows,
};
use crate::kstate::{Bytes, ElementData, Elements, NftOp, Step};
use crate::model::{EventKind, Family, Mark, MarkLayout, MarkMask, Match, Name, Protocol};
use crate::plan::{Evacuation, Exit, detour_key, detour_shape, is_dismissed, names};

/// So often the sessions are gone through: some are missed when the table is made larger meanwhile,
/// and some packets were on their way when new sessions were steered away.
const PASSES: u32 = 3;
/// Between two of which the first failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Work for the thread.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Move {
    /// These sessions leave.
    Out(Evacuation),
    /// The uplink is back: those that have not left yet may stay.
    Back(Return),
    /// The router's own long-lived UDP leaves an uplink.
    Own(OwnLeave),
    /// The router's own UDP may use the addresses of this uplink again.
    Home(Return, Vec<Homesick>),
    /// Sessions of dead servers leave.
    Servers(ServerEvacuation),
    /// All leave the flowtable, and stay where they are otherwise.
    Air,
}

/// The router's own UDP from the addresses of one uplink is to leave by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnLeave {
    pub(super) from: Return,
    pub(super) to: Mark,
}

/// Whether the router's own flows that a policy matches go back to an uplink that returns. The first
/// that matches decides.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Homesick {
    pub(super) matches: Match,
    pub(super) returns: bool,
}

/// An uplink that is back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Return {
    pub(super) uplink: Name,
    pub(super) mark: Mark,
    pub(super) marks: MarkLayout,
    pub(super) family: Family,
    /// Its addresses: whose replies come there belongs to it.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Those of all uplinks.
    pub(super) all: BTreeSet<IpAddr>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Evacuated {
    pub(super) from: Left,
    /// By policy: how many clients were reset, and how many sessions released.
    pub(super) counts: BTreeMap<Name, (u64, u64)>,
    /// Connections that nobody had answered yet.
    pub(super) unanswered: u64,
    pub(super) took: Duration,
}

/// What sessions have left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Left {
    Uplink(Name),
    /// A server; the only policy counted is its group.
    Server(Seat),
}

/// The engine's end of the thread.
#[derive(Debug)]
pub(super) struct Evacuator(Sender<Move>);

impl Evacuator {
    /// Starts the thread. It ends when this is dropped. What was done comes by the receiver.
    pub(super) fn start(
        ranges: Ranges,
        hush: Hush,
    ) -> std::io::Result<(Evacuator, mpsc::UnboundedReceiver<Evacuated>)> {
        let (orders, inbox) = channel();
        let (told, done) = mpsc::unbounded_channel();
        let name = "evacuator".to_owned();
        thread::Builder::new().name(name).spawn(move || work((ranges, &hush), &inbox, &told))?;
        Ok((Evacuator(orders), done))
    }

    /// Hands work over; it is done in the order in which it comes.
    pub(super) fn send(&self, order: Move) {
        // If the thread is gone, it has said why.
        let _ = self.0.send(order);
    }
}

fn work(access: Access<'_>, inbox: &Receiver<Move>, told: &mpsc::UnboundedSender<Evacuated>) {
    while let Ok(order) = inbox.recv() {
        let mut orders = VecDeque::from([order]);
        while let Some(order) = orders.pop_front() {
            orders.extend(inbox.try_iter());
            let outcome = match order {
                Move::Out(first) => {
                    let mut all = vec![first];
                    while let Some(Move::Out(next)) = orders.front() {
                        all.push(next.clone());
                        orders.pop_front();
                    }
                    evacuate(&all).map(|done| {
                        // If the engine is gone, nobody wants to know.
                        done.into_iter().for_each(|one| drop(told.send(one)));
                    })
                }
                Move::Servers(servers) => leave_servers(access, &servers).map(|done| {
                    done.into_iter().for_each(|one| drop(told.send(one)));
                }),
                Move::Back(uplink) => take_back(&uplink),
                Move::Own(leave) => own_leave(access, &leave),
                Move::Home(uplink, policies) => come_home(access, &uplink, &policies),
                Move::Air => release_flows().map(|_| ()),
            };
            if let Err(error) = outcome {
                tracing::warn!("sessions are not evacuated: {error}");
            }
        }
    }
}

/// Goes through the sessions until nobody is left who leaves. To look through a large, empty table
/// takes 10 ms: uplinks and families that go at once go together.
fn evacuate(all: &[Evacuation]) -> Result<Vec<Evacuated>, KernelError> {
    let Some(first) = all.first() else { return Ok(Vec::new()) };
    let mut dismisser = Dismisser::open(first.marks)?;
    let alike = all.iter().all(|one| one.mark == first.mark);
    let filter = alike.then_some((first.mark, first.marks.uplink));
    let mut done: Vec<_> =
        all.iter().map(|one| Evacuated::nobody(Left::Uplink(one.uplink.clone()))).collect();
    let started = clock::now();
    for _ in 0..PASSES {
        let before: u64 = done.iter().map(Evacuated::all).sum();
        let outcome = pass(all, filter, &mut dismisser, &mut done, started);
        let outcome = outcome.and(dismisser.finish());
        if let Err(error) = outcome {
            let names: Vec<&str> = all.iter().map(|one| one.uplink.as_str()).collect();
            tracing::warn!("some sessions of {} may not have left: {error}", names.join(", "));
            thread::sleep(PAUSE);
        } else if done.iter().map(Evacuated::all).sum::<u64>() == before {
            break;
        }
    }
    Ok(done)
}

/// A session that ends by itself meanwhile is fine.
fn pass(
    all: &[Evacuation],
    filter: Option<(Mark, MarkMask)>,
    dismisser: &mut Dismisser,
    done: &mut [Evacuated],
    started: Instant,
) -> Result<(), KernelError> {
    let mut outcome = Ok(());
    Conntrack::open()?.walk(filter, |session| {
        let leaver = leaver(session);
        let leaves =
            |(one, done)| Evacuation::judge(one, &leaver).map(|(policy, _)| (policy, done));
        let Some((policy, done)) = all.iter().zip(done.iter_mut()).find_map(leaves) else { return };
        match dismisser.end(session) {
            Ok(exit) => done.count(policy, exit, started.elapsed()),
            Err(error) => outcome = Err(error),
        }
    })?;
    outcome
}

/// Sessions are ended until nobody is left, and bindings to the servers forgotten.
fn leave_servers(
    access: Access<'_>,
    leaving: &ServerEvacuation,
) -> Result<Vec<Evacuated>, KernelError> {
    let mut dismisser = Dismisser::open(leaving.marks)?.reaching(&leaving.devices);
    let mut done: BTreeMap<Seat, Evacuated> = BTreeMap::new();
    let started = clock::now();
    let mut bound = true;
    for _ in 0..PASSES {
        let before: u64 = done.values().map(Evacuated::all).sum();
        let mut outcome = Ok(());
        let walked = Conntrack::open()?.walk(None, |session| {
            let mark = Mark(session.mark.0 & leaving.marks.server.0);
            if leaving.claims(session) {
                if let Err(error) = dismisser.end(session) {
                    outcome = Err(error);
                }
                return;
            }
            if mark.0 == 0 || is_dismissed(session.mark, leaving.marks) {
                return;
            }
            let Some(seat) = leaving.servers.get(&(session.reply.src, mark)) else { return };
            match dismisser.end(session) {
                Ok(exit) => {
                    let nobody = || Evacuated::nobody(Left::Server(seat.clone()));
                    let done = done.entry(seat.clone()).or_insert_with(nobody);
                    done.count(Some(&seat.0), exit, started.elapsed());
                }
                Err(error) => outcome = Err(error),
            }
        });
        let finished = dismisser.finish();
        // Clients wait for their sessions; bindings to the dead are passed by already.
        let forgotten = if bound { forget_bindings(access, leaving) } else { Ok(()) };
        bound = forgotten.is_err();
        if let Err(error) = walked.and(outcome).and(finished).and(forgotten) {
            tracing::warn!("some sessions of dead servers may not have left: {error}");
            thread::sleep(PAUSE);
            continue;
        }
        if done.values().map(Evacuated::all).sum::<u64>() == before {
            break;
        }
    }
    Ok(done.into_values().collect())
}

fn forget_bindings(access: Access<'_>, leaving: &ServerEvacuation) -> Result<(), KernelError> {
    let mut kernel = open(access)?;
    let mut outcome = Ok(());
    for (map, mark) in &leaving.bindings {
        // A map that is not there has nothing in it.
        let elements = kernel.dump_elements(map).unwrap_or_default().into_iter();
        let mark = mark.0.to_ne_bytes();
        let bound = |data: &ElementData| matches!(data, ElementData::Value(v) if v[..] == mark);
        let stale: Vec<Bytes> = elements.filter(|e| bound(&e.data)).map(|e| e.key).collect();
        if !stale.is_empty()
            && let Err(error) = kernel.delete_elements(map, &stale)
        {
            outcome = Err(error);
        }
    }
    outcome
}

fn take_back(uplink: &Return) -> Result<(), KernelError> {
    let mut dismisser = Dismisser::open(uplink.marks)?;
    let timeouts = Timeouts::read();
    let (mut kept, mut outcome) = (0_u64, Ok(()));
    Conntrack::open()?.walk(Some((Mark(0), uplink.marks.uplink)), |session| {
        let waits = is_dismissed(session.mark, uplink.marks)
            && session.family == uplink.family
            && uplink.addresses.contains(&session.reply.dst)
            && leaver(session).exit() == Exit::Reset;
        if waits {
            kept += 1;
            if let Err(error) = dismisser.take_back(session, uplink.mark, &timeouts) {
                outcome = Err(error);
            }
        }
    })?;
    if kept > 0 {
        tracing::info!("uplink {} is back: {kept} sessions that had not left stay", uplink.uplink);
    }
    outcome
}

/// What it takes to change elements unheard.
type Access<'a> = (Ranges, &'a Hush);

fn open((ranges, hush): Access<'_>) -> Result<Linux, KernelError> {
    Ok(Linux::open(ranges)?.hushed(hush))
}

/// `IPPROTO_UDP`
const UDP: u8 = 17;
/// Of DHCP, in both families: it belongs to its link.
const DHCP: [u16; 4] = [67, 68, 546, 547];

/// Questions to a resolver are over soon, and those of probes belong to their link.
const DNS: u16 = 53;

/// Whether a session is the router's own, of UDP, and may last.
fn is_own_flow(session: &Session, marks: MarkLayout) -> bool {
    session.protocol == UDP
        && (session.has(Session::ASSURED) || session.orig.dport != DNS)
        && session.mark.0 & marks.policy.0 == 0
        && !DHCP.contains(&session.orig.dport)
        && !DHCP.contains(&session.orig.sport)
}

/// The next packet of a flow leaves by this uplink: its socket may go on using an address of another,
/// which is then translated.
fn detour(
    kernel: &mut Linux,
    conntrack: &mut Conntrack,
    session: &Session,
    to: Mark,
) -> Result<(), KernelError> {
    let source = SocketAddr::new(session.orig.src, session.orig.sport);
    let destination = SocketAddr::new(session.orig.dst, session.orig.dport);
    let key = detour_key(source, destination);
    let mark = Bytes::from_slice(&to.0.to_ne_bytes());
    let set = names::detour(session.family);
    // Another way that it was sent before is replaced.
    kernel.delete_elements(&set, std::slice::from_ref(&key))?;
    let elements = Elements::from([(key, ElementData::Value(mark))]);
    let shape = detour_shape(session.family);
    kernel.apply(&Step::Nft(vec![NftOp::AddElements { set, shape, elements }]))?;
    conntrack.delete(session)
}

fn own_leave(access: Access<'_>, leave: &OwnLeave) -> Result<(), KernelError> {
    let OwnLeave { from, to } = leave;
    let mut flows = Vec::new();
    Conntrack::open()?.walk(Some((from.mark, from.marks.uplink)), |session| {
        let own = from.addresses.contains(&session.orig.src) && session.family == from.family;
        if own && is_own_flow(session, from.marks) {
            flows.push(session.clone());
        }
    })?;
    let (mut kernel, mut conntrack) = (open(access)?, Conntrack::open()?);
    for flow in &flows {
        detour(&mut kernel, &mut conntrack, flow, *to)?;
    }
    if !flows.is_empty() {
        tracing::info!(
            "released {} UDP sessions of the router's own from {}",
            flows.len(),
            from.uplink
        );
    }
    Ok(())
}

fn come_home(
    access: Access<'_>,
    uplink: &Return,
    policies: &[Homesick],
) -> Result<(), KernelError> {
    let (mut kernel, mut conntrack) = (open(access)?, Conntrack::open()?);
    let set = names::detour(uplink.family);
    let length = if uplink.family == Family::V4 { 4 } else { 16 };
    let from_here = |key: &[u8]| {
        uplink.addresses.iter().any(|address| match address {
            IpAddr::V4(address) => key.get(..length) == Some(&address.octets()),
            IpAddr::V6(address) => key.get(..length) == Some(&address.octets()),
        })
    };
    let elements = kernel.dump_elements(&set)?.into_iter().map(|element| element.key);
    let stale: Vec<Bytes> = elements.filter(|key| from_here(key)).collect();
    if !stale.is_empty() {
        kernel.delete_elements(&set, &stale)?;
    }
    let mut flows = Vec::new();
    if policies.iter().any(|policy| policy.returns) {
        Conntrack::open()?.walk(None, |session| {
            let port = session.orig.dport;
            let takes =
                |one: &&Homesick| one.matches.takes_own(session.orig.dst, Protocol::UDP, port);
            let elsewhere = session.mark.0 & uplink.marks.uplink.0;
            if elsewhere != 0
                && elsewhere != uplink.mark.0
                && session.family == uplink.family
                && is_own_flow(session, uplink.marks)
                && policies.iter().find(takes).is_some_and(|one| one.returns)
            {
                flows.push(session.clone());
            }
        })?;
    }
    let local = |session: &&Session| uplink.all.contains(&session.orig.src);
    for flow in flows.iter().filter(local) {
        detour(&mut kernel, &mut conntrack, flow, uplink.mark)?;
    }
    Ok(())
}

impl Evacuated {
    fn nobody(from: Left) -> Evacuated {
        Evacuated { from, counts: BTreeMap::new(), unanswered: 0, took: Duration::ZERO }
    }

    /// Adds it up.
    pub(super) fn add_to(
        &self,
        uplinks: &mut BTreeMap<Name, u64>,
        servers: &mut BTreeMap<Seat, u64>,
    ) {
        match &self.from {
            Left::Uplink(name) => *uplinks.entry(name.clone()).or_default() += self.total(),
            Left::Server(seat) => *servers.entry(seat.clone()).or_default() += self.total(),
        }
    }

    fn count(&mut self, policy: Option<&Name>, exit: Exit, took: Duration) {
        self.took = took;
        let Some(policy) = policy else {
            self.unanswered += 1;
            return;
        };
        let (reset, released) = self.counts.entry(policy.clone()).or_default();
        *(if exit == Exit::Reset { reset } else { released }) += 1;
    }

    /// Those that nobody answered, too.
    fn all(&self) -> u64 {
        self.total() + self.unanswered
    }

    /// What people should know.
    pub(super) fn tell(&self) -> Vec<Told> {
        let about = |text| {
            let told = Told::new(Level::Info, EventKind::SessionsEvacuated, text);
            match &self.from {
                Left::Uplink(uplink) => told.of_uplink(uplink),
                Left::Server((group, server)) => told.of_server(format!("{group}/{server}")),
            }
        };
        let line = |(policy, (reset, released)): (&Name, &(u64, u64))| {
            let from = match &self.from {
                Left::Uplink(uplink) => format!("{uplink} (policy {policy})"),
                Left::Server((group, server)) => format!("server {group}/{server}"),
            };
            let text = format!(
                "evacuated {} sessions of {from}: {reset} clients reset, {released} sessions \
                 released, within {:.1} ms",
                reset + released,
                self.took.as_secs_f64() * 1000.0
            );
            about(text).with("reset", *reset).with("released", *released)
        };
        let anew = || {
            let over = match &self.from {
                Left::Uplink(uplink) => uplink.to_string(),
                Left::Server((group, server)) => format!("{group}/{server}"),
            };
            let text = format!(
                "{} connections over {over} that nobody had answered yet begin anew",
                self.unanswered
            );
            about(text).with("unanswered", self.unanswered)
        };
        self.counts.iter().map(line).chain((self.unanswered > 0).then(anew)).collect()
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
        self.counts.values().map(|(reset, released)| reset + released).sum()
    }
}
