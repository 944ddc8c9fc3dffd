//! The thread that walks the sessions: it keeps bindings alive under them, and mends those that
//! went wrong.
//!
//! It has sockets of its own: a walk over hundreds of thousands of sessions takes part of a second,
//! which no round may wait for.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::mending::{Extent, Mended, mend};

use crate::clock;
use crate::kernel::{Conntrack, DumpedElement, Hush, KernelError, Linux, Ranges, Timeouts};
use crate::kstate::{Bytes, ElementData};
use crate::model::Mark;
use crate::plan::{Layout, Learned, LearnedMap, Live, Mender, Renewals, View, renewal_period};

/// Pauses are at least this many times as long as the sweep before: sweeping never takes more than
/// a tenth of one processor.
const REST: u32 = 9;

/// Work for the thread.
enum Order {
    /// The bindings of this site, which looks like this, are to be kept alive from now on.
    Watch(Arc<Layout>, Box<View>),
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
        let worker =
            Worker { ranges, hush, told, site: None, took: Duration::ZERO, failing: false };
        let name = "sweeper".to_owned();
        thread::Builder::new().name(name).spawn(move || worker.work(&inbox))?;
        Ok((Sweeper(orders), mended))
    }

    /// The bindings of this site, which looks like this, are to be kept alive from now on.
    pub(super) fn watch(&self, layout: Arc<Layout>, view: View) {
        // If the thread is gone, it has said why.
        let _ = self.0.send(Order::Watch(layout, Box::new(view)));
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
}

impl Worker {
    fn work(mut self, inbox: &Receiver<Order>) {
        let mut last = clock::now();
        loop {
            match self.wait(inbox, last) {
                Ok(Order::Watch(layout, view)) => self.site = Some((layout, *view)),
                Ok(Order::Mend(layout, mender)) => self.mend(&layout, &mender),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    last = clock::now();
                    self.sweep();
                    self.took = last.elapsed();
                }
            }
        }
    }

    /// Waits for an order until the next sweep is due.
    fn wait(&self, inbox: &Receiver<Order>, last: Instant) -> Result<Order, RecvTimeoutError> {
        let period = self.site.as_ref().and_then(|(layout, _)| renewal_period(layout));
        match period {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(period) => {
                let pause = period.max(self.took * REST);
                inbox.recv_timeout(pause.saturating_sub(last.elapsed()))
            }
        }
    }

    fn sweep(&mut self) {
        let Some((layout, view)) = &self.site else { return };
        let outcome = Linux::open(self.ranges)
            .and_then(|kernel| sweep(kernel.hushed(&self.hush), layout, view));
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

fn sweep(mut kernel: Linux, layout: &Layout, view: &View) -> Result<(), KernelError> {
    let mut renewals = Renewals::new(layout, view);
    for map in renewals.maps_mut() {
        let elements = kernel.dump_elements(&map.name)?;
        map.fill(elements.into_iter().filter_map(learned));
    }
    if renewals.is_empty() {
        return Ok(());
    }
    let timeouts = Timeouts::read();
    let mut sessions = 0_u64;
    // One socket reads while the other changes.
    let (mut reader, mut writer) = (Conntrack::open()?, Conntrack::open()?);
    let mut strays = Ok(());
    reader.walk(None, |session| {
        sessions += 1;
        let stray = renewals.see(&Live {
            source: session.orig.src,
            destination: session.orig.dst,
            protocol: session.protocol,
            port: session.orig.dport,
            mark: session.mark,
            idle: timeouts.idle(session),
        });
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
    strays
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
