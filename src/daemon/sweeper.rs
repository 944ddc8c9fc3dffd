//! The thread that keeps bindings alive under their sessions.
//!
//! It has sockets of its own: a walk over hundreds of thousands of sessions takes part of a second,
//! which no round may wait for.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::kernel::{Conntrack, DumpedElement, KernelError, Linux, Ranges, Timeouts};
use crate::kstate::ElementData;
use crate::model::Mark;
use crate::plan::{Layout, Learned, LearnedMap, Live, Renewals};

/// Pauses are at least this many times as long as the sweep before: sweeping never takes more than
/// a tenth of one processor.
const REST: u32 = 9;

/// The engine's end of the thread.
#[derive(Debug)]
pub(super) struct Sweeper(Sender<Arc<Layout>>);

impl Sweeper {
    /// Starts the thread. It ends when this is dropped.
    pub(super) fn start(ranges: Ranges) -> std::io::Result<Sweeper> {
        let (layouts, inbox) = channel();
        let name = "sweeper".to_owned();
        thread::Builder::new().name(name).spawn(move || work(ranges, &inbox))?;
        Ok(Sweeper(layouts))
    }

    /// The bindings of this site are to be kept alive from now on.
    pub(super) fn watch(&self, layout: Arc<Layout>) {
        // If the thread is gone, it has said why.
        let _ = self.0.send(layout);
    }
}

fn work(ranges: Ranges, inbox: &Receiver<Arc<Layout>>) {
    let Ok(mut layout) = inbox.recv() else { return };
    let mut took = Duration::ZERO;
    let mut failing = false;
    loop {
        let next = match Renewals::new(&layout).period() {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(period) => inbox.recv_timeout(period.max(took * REST)),
        };
        match next {
            Ok(other) => layout = other,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let started = clock::now();
                let outcome = sweep(ranges, &layout);
                took = started.elapsed();
                // Told once, not at every turn.
                if let (Err(error), false) = (&outcome, failing) {
                    tracing::warn!("bindings are not renewed under live sessions: {error}");
                }
                failing = outcome.is_err();
            }
        }
    }
}

fn sweep(ranges: Ranges, layout: &Layout) -> Result<(), KernelError> {
    let mut kernel = Linux::open(ranges)?;
    let mut renewals = Renewals::new(layout);
    for map in renewals.maps_mut() {
        let elements = kernel.dump_elements(&map.name)?;
        map.fill(elements.into_iter().filter_map(learned));
    }
    if renewals.is_empty() {
        return Ok(());
    }
    let timeouts = Timeouts::read();
    Conntrack::open()?.walk(None, |session| {
        renewals.see(&Live {
            source: session.orig.src,
            destination: session.orig.dst,
            mark: session.mark,
            idle: timeouts.idle(session),
        });
    })?;
    for map in renewals.maps_mut() {
        let due: Vec<_> = map.due().into_iter().map(|due| element(map, due)).collect();
        kernel.renew_elements(&map.name, &due)?;
    }
    Ok(())
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
        data: ElementData::Value(renewed.uplink.0.to_ne_bytes().to_vec()),
        timeout_ms: milliseconds(map.timeout),
        expires_ms: milliseconds(renewed.left),
        packets: None,
    }
}
