//! The thread that walks the sessions: it keeps bindings alive under them, puts those back that
//! somebody took away, and mends sessions that went wrong.
//!
//! It has sockets of its own: a walk over hundreds of thousands of sessions takes part of a second,
//! which no round may wait for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::mending::{Extent, Mended, mend};

use crate::clock;
use crate::kernel::{
    Conntrack, DumpedElement, Hush, KernelError, Linux, Ranges, Session, Timeouts,
};
use crate::kstate::{Bytes, ElementData};
use crate::model::Mark;
use crate::plan::{
    Layout, Learned, LearnedMap, Live, Mender, Renewals, View, offload, renewal_period,
};

/// Pauses are at least this many times as long as the sweep before: sweeping never takes more than
/// a tenth of one processor.
const REST: u32 = 9;

/// Bindings are taken down so often, in case that somebody takes them away.
const NOTING: Duration = Duration::from_secs(10);

/// How exactly the kernel tells times.
const SLACK: Duration = Duration::from_secs(3);

/// Work for the thread.
enum Order {
    /// The maps of bindings were made anew: what was in them is put back.
    Restore(Arc<Layout>, Box<View>),
    /// The bindings of this site, which looks like this, are to be kept alive from now on; and whether
    /// a flowtable carries sessions of it.
    Watch(Arc<Layout>, Box<View>, bool),
    /// Sessions may have gone wrong.
    Mend(Arc<Layout>, Box<Mender>),
}

/// The engine's end of the thread.
#[derive(Debug)]
pub(super) struct Sweeper(Sender<Order>);

impl Sweeper {
    /// Starts the thread. It ends when this is dropped. What was mended comes by the receiver.
    pub(super) fn start(
        ranges: Ranges,
        hush: Hush,
    ) -> std::io::Result<(Sweeper, mpsc::UnboundedReceiver<Mended>)> {
        let (orders, inbox) = channel();
        let (told, mended) = mpsc::unbounded_channel();
        let worker = Worker {
            ranges,
            hush,
            told,
            site: None,
            took: Duration::ZERO,
            failing: false,
            noted: HashMap::new(),
            carries: false,
            carried: Carried::default(),
        };
        let name = "sweeper".to_owned();
        thread::Builder::new().name(name).spawn(move || worker.work(&inbox))?;
        Ok((Sweeper(orders), mended))
    }

    /// The bindings of this site, which looks like this, are to be kept alive from now on.
    pub(super) fn watch(&self, layout: Arc<Layout>, view: View, carries: bool) {
        // If the thread is gone, it has said why.
        let _ = self.0.send(Order::Watch(layout, Box::new(view), carries));
    }

    /// The maps of bindings were made anew: what was in them is put back.
    pub(super) fn restore(&self, layout: Arc<Layout>, view: View) {
        let _ = self.0.send(Order::Restore(layout, Box::new(view)));
    }

    /// Goes through the sessions soon.
    pub(super) fn mend(&self, layout: Arc<Layout>, mender: Box<Mender>) {
        let _ = self.0.send(Order::Mend(layout, mender));
    }
}

struct Worker {
    ranges: Ranges,
    hush: Hush,
    told: mpsc::UnboundedSender<Mended>,
    site: Option<(Arc<Layout>, View)>,
    took: Duration,
    failing: bool,
    /// What bindings there were, by map, and when.
    noted: HashMap<String, (Instant, Vec<DumpedElement>)>,
    /// Whether a flowtable carries sessions.
    carries: bool,
    /// Which it carried at the last sweep.
    carried: Carried,
}

/// Sessions, by number, that a flowtable carried, and when.
#[derive(Debug, Default)]
struct Carried {
    seen: Option<Instant>,
    sessions: HashSet<u32>,
}

impl Worker {
    fn work(mut self, inbox: &Receiver<Order>) {
        let (mut last, mut noted) = (clock::now(), clock::now());
        loop {
            match self.wait(inbox, last, noted) {
                Ok(Order::Restore(layout, view)) => self.restore(&layout, &view),
                Ok(Order::Watch(layout, view, carries)) => {
                    self.site = Some((layout, *view));
                    self.carries = carries;
                }
                Ok(Order::Mend(layout, mender)) => self.mend(&layout, &mender),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if self.is_due(last) => {
                    (last, noted) = (clock::now(), clock::now());
                    self.sweep();
                    self.took = last.elapsed();
                }
                Err(RecvTimeoutError::Timeout) => {
                    noted = clock::now();
                    self.note();
                }
            }
        }
    }

    /// Waits for an order until the next sweep is due, or bindings are to be taken down.
    fn wait(
        &self,
        inbox: &Receiver<Order>,
        last: Instant,
        noted: Instant,
    ) -> Result<Order, RecvTimeoutError> {
        match self.pause() {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(pause) => {
                let sweep = pause.saturating_sub(last.elapsed());
                let note = NOTING.max(self.took * REST).saturating_sub(noted.elapsed());
                inbox.recv_timeout(sweep.min(note))
            }
        }
    }

    fn pause(&self) -> Option<Duration> {
        let (layout, _) = self.site.as_ref()?;
        let often = offload::sweep_period(layout).filter(|_| self.carries);
        let period = often.into_iter().chain(renewal_period(layout)).min()?;
        Some(period.max(self.took * REST))
    }

    fn is_due(&self, last: Instant) -> bool {
        self.pause().is_some_and(|pause| last.elapsed() >= pause)
    }

    /// Takes down what bindings there are.
    fn note(&mut self) {
        let Some((layout, view)) = &self.site else { return };
        let Ok(mut kernel) = Linux::open(self.ranges) else { return };
        let now = clock::now();
        let mut renewals = Renewals::new(layout, view);
        let maps = renewals.maps_mut().filter_map(|map| {
            let elements = kernel.dump_elements(&map.name).ok()?;
            Some((map.name.clone(), (now, elements)))
        });
        self.noted = maps.collect();
    }

    fn restore(&mut self, layout: &Layout, view: &View) {
        let noted = std::mem::take(&mut self.noted);
        let outcome = Linux::open(self.ranges)
            .and_then(|kernel| restore(kernel.hushed(&self.hush), layout, view, &noted));
        match outcome {
            Ok(0) => {}
            Ok(count) => tracing::info!("{count} bindings were put back"),
            Err(error) => {
                tracing::warn!("bindings are not put back: {error}");
                self.noted = noted;
            }
        }
    }

    fn sweep(&mut self) {
        let Some((layout, view)) = &self.site else { return };
        let outcome = Linux::open(self.ranges)
            .and_then(|kernel| sweep(kernel.hushed(&self.hush), layout, view, &mut self.carried));
        // Told once, not at every turn.
        if let (Err(error), false) = (&outcome, self.failing) {
            tracing::warn!("bindings are not renewed under live sessions: {error}");
        }
        self.failing = outcome.is_err();
    }

    fn mend(&self, layout: &Layout, mender: &Mender) {
        match mend(mender, Extent::All, layout.site.marks) {
            // If the engine is gone, nobody wants to know.
            Ok(mended) => drop(self.told.send(mended)),
            Err(error) => tracing::warn!("sessions that went wrong are not mended: {error}"),
        }
    }
}

fn sweep(
    mut kernel: Linux,
    layout: &Layout,
    view: &View,
    carried: &mut Carried,
) -> Result<(), KernelError> {
    let mut renewals = Renewals::new(layout, view);
    let (mut there, mut missing) = (false, None);
    for map in renewals.maps_mut() {
        let elements = match kernel.dump_elements(&map.name) {
            // One of an address that has just come, or gone.
            Err(error) if error.is_missing() => {
                missing = Some(error);
                continue;
            }
            elements => elements?,
        };
        there = true;
        map.fill(elements.into_iter().filter_map(learned));
    }
    // All of them: the whole table is gone.
    if let Some(missing) = missing.filter(|_| !there) {
        return Err(missing);
    }
    let before = std::mem::take(carried);
    if renewals.is_empty() && !renewals.any_lasts() {
        return Ok(());
    }
    let timeouts = Timeouts::read();
    let past = Past { before, flow: flow_time(layout), timeouts: &timeouts };
    carried.seen = Some(clock::now());
    let mut sessions = 0_u64;
    // One socket reads while the other changes.
    let (mut reader, mut writer) = (Conntrack::open()?, Conntrack::open()?);
    let (mut strays, mut mended) = (Ok(()), Ok(()));
    reader.walk(None, |session| {
        sessions += 1;
        let live = past.live(session);
        if session.is_offloaded() {
            carried.sessions.insert(session.id);
        } else if let Some(time) = past.mended_time(session, renewals.lasts(&live)) {
            let given = writer.set_timeout(session, time);
            if mended.is_ok() {
                mended = given;
            }
        }
        let stray = renewals.see(&live);
        if let (true, Ok(())) = (stray, &strays) {
            strays = writer.delete(session);
        }
    })?;
    let mut renewed = 0;
    for map in renewals.maps_mut() {
        let due: Vec<_> = map.due().into_iter().map(|due| element(map, due)).collect();
        kernel.renew_elements(&map.name, &due)?;
        renewed += due.len();
    }
    tracing::debug!(sessions, renewed, "bindings renewed under live sessions");
    strays.and(mended)
}

fn flow_time(layout: &Layout) -> Duration {
    Duration::from_secs(offload::flow_seconds(&layout.site))
}

/// What is known of sessions from the sweep before.
struct Past<'a> {
    before: Carried,
    flow: Duration,
    timeouts: &'a Timeouts,
}

impl Past<'_> {
    /// Since the last sweep, if a flowtable carried the session then.
    fn carried(&self, session: &Session) -> Option<Duration> {
        let seen = self.before.seen?;
        self.before.sessions.contains(&session.id).then(|| seen.elapsed())
    }

    /// On newer kernels (seen on 7.3) the time that is left of a TCP session that has left the flowtable
    /// does not tell when its last packet was. Then it was at least as long ago as the flowtable waits.
    fn live(&self, session: &Session) -> Live {
        let mut live = live(session, self.timeouts);
        if let Some(since) = self.carried(session).filter(|_| !live.carried)
            && live.idle > since + self.flow + SLACK
        {
            live.idle = self.flow;
        }
        live
    }

    /// The time that a UDP session of a service is to have, if that is another than it has.
    fn mended_time(&self, session: &Session, lasts: Option<Duration>) -> Option<u32> {
        let (lasts, since) = lasts.zip(self.carried(session))?;
        let (left, stream) = (session.timeout_s.into(), self.timeouts.udp_stream()?.into());
        let time = offload::mended_time(left, stream, lasts.as_secs(), since.as_secs() + 1)?;
        u32::try_from(time).ok()
    }
}

/// Puts back what was there when it was last taken down, and what sessions show.
fn restore(
    mut kernel: Linux,
    layout: &Layout,
    view: &View,
    noted: &HashMap<String, (Instant, Vec<DumpedElement>)>,
) -> Result<usize, KernelError> {
    let mut renewals = Renewals::new(layout, view);
    let mut wanted: BTreeMap<String, BTreeMap<Bytes, Learned>> = BTreeMap::new();
    let timeouts = Timeouts::read();
    Conntrack::open()?.walk(None, |session| {
        if let Some((map, shown)) = renewals.shown_by(&live(session, &timeouts)) {
            let of = wanted.entry(map.to_owned()).or_default();
            let known = of.get(&shown.key).map_or(Duration::ZERO, |known| known.left);
            if shown.left > known {
                of.insert(shown.key.clone(), shown);
            }
        }
    })?;
    for (map, (at, elements)) in noted {
        let of = wanted.entry(map.clone()).or_default();
        for mut old in elements.iter().cloned().filter_map(learned) {
            // What sessions show is newer.
            old.left = old.left.saturating_sub(at.elapsed());
            if !old.left.is_zero() {
                of.entry(old.key.clone()).or_insert(old);
            }
        }
    }
    let mut restored = 0;
    let (mut there, mut missing) = (false, None);
    for map in renewals.maps_mut() {
        let Some(mut of) = wanted.remove(&map.name) else { continue };
        match kernel.dump_elements(&map.name) {
            Err(error) if error.is_missing() => {
                missing = Some(error);
                continue;
            }
            there => there?.iter().for_each(|there| drop(of.remove(&there.key))),
        }
        there = true;
        let elements: Vec<_> = of.into_values().map(|learned| element(map, learned)).collect();
        kernel.learn_elements(&map.name, &elements)?;
        restored += elements.len();
    }
    missing.filter(|_| !there).map_or(Ok(restored), Err)
}

fn live(session: &Session, timeouts: &Timeouts) -> Live {
    Live {
        source: session.orig.src,
        destination: session.orig.dst,
        protocol: session.protocol,
        port: session.orig.dport,
        mark: session.mark,
        idle: timeouts.idle(session),
        carried: session.is_offloaded(),
    }
}

fn learned(element: DumpedElement) -> Option<Learned> {
    let ElementData::Value(mark) = &element.data else { return None };
    Some(Learned {
        uplink: Mark(u32::from_ne_bytes(mark.as_slice().try_into().ok()?)),
        left: Duration::from_millis(element.expires_ms?),
        key: element.key,
    })
}

fn element(map: &LearnedMap, renewed: Learned) -> DumpedElement {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).ok();
    DumpedElement {
        key: renewed.key,
        data: ElementData::Value(Bytes::from_slice(&renewed.uplink.0.to_ne_bytes())),
        timeout_ms: milliseconds(map.timeout),
        expires_ms: milliseconds(renewed.left),
        packets: None,
    }
}
