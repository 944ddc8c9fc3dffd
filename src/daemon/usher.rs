//! The thread that frees a place at a server with `max-connections` as soon as a connection is over.
//!
//! Without it the kernel does so within a second. Connections that the packet path did not count, as
//! they began before there was a limit or somebody took the rules away, are counted by this thread
//! alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use super::reader::is_live;
use crate::kernel::{Closings, Conntrack, DumpedElement, Hush, KernelError, Linux, Ranges};
use crate::kstate::{Bytes, ElementData};
use crate::plan::Limits;

/// How long a change of the limits may wait.
const PAUSE: Duration = Duration::from_millis(200);

/// The engine's end of the thread.
#[derive(Debug)]
pub(super) struct Usher(Sender<Limits>);

impl Usher {
    /// Starts the thread. It ends when this is dropped.
    pub(super) fn start(ranges: Ranges, hush: Hush) -> std::io::Result<Usher> {
        let (orders, inbox) = channel();
        let work = move || Worker { ranges, hush, failing: false }.work(&inbox);
        thread::Builder::new().name("usher".to_owned()).spawn(work)?;
        Ok(Usher(orders))
    }

    /// These are the limits from now on.
    pub(super) fn watch(&self, limits: Limits) {
        // If the thread is gone, it has said why.
        let _ = self.0.send(limits);
    }
}

struct Worker {
    ranges: Ranges,
    hush: Hush,
    failing: bool,
}

impl Worker {
    /// Without limits it sleeps, and the kernel makes no notices.
    fn work(mut self, inbox: &Receiver<Limits>) {
        while let Ok(mut limits) = inbox.recv() {
            while !limits.is_empty() {
                match self.attend(inbox, &limits) {
                    Ok(Some(next)) => limits = next,
                    Ok(None) => return,
                    Err(error) => {
                        if !std::mem::replace(&mut self.failing, true) {
                            tracing::warn!("places at full servers are freed late: {error}");
                        }
                        thread::sleep(5 * PAUSE);
                    }
                }
            }
        }
    }

    /// Until there are other limits; `None` when the engine is gone.
    fn attend(
        &mut self,
        inbox: &Receiver<Limits>,
        limits: &Limits,
    ) -> Result<Option<Limits>, KernelError> {
        let mut kernel = Linux::open(self.ranges)?.hushed(&self.hush);
        let mut closings = Closings::open()
            .map_err(|source| KernelError::Open { protocol: "conntrack notices", source })?;
        self.failing = false;
        recount(&mut kernel, limits)?;
        loop {
            match inbox.try_recv() {
                Ok(next) => return Ok(Some(next)),
                Err(TryRecvError::Disconnected) => return Ok(None),
                Err(TryRecvError::Empty) => {}
            }
            let mut free: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
            let heard = closings.wait(PAUSE, |session| {
                let (orig, reply) = (&session.orig, &session.reply);
                let (client, asked) = ((orig.src, orig.sport), (orig.dst, orig.dport));
                if let Some((set, key)) = limits.place(client, asked, reply.src, session.mark) {
                    free.entry(set.to_owned()).or_default().push(key);
                }
            });
            heard.map_err(|error| KernelError::Open {
                protocol: "conntrack notices",
                source: error.into(),
            })?;
            for (set, keys) in free {
                if let Err(error) = kernel.delete_elements(&set, &keys) {
                    // The kernel frees them within a second.
                    tracing::debug!("{set}: {error}");
                }
            }
        }
    }
}

/// Counts the connections that there are, and no others. What is counted is read first: who comes
/// meanwhile is not taken for one that is over.
fn recount(kernel: &mut Linux, limits: &Limits) -> Result<(), KernelError> {
    let mut live: BTreeMap<String, (BTreeSet<Bytes>, BTreeSet<Bytes>)> = BTreeMap::new();
    for set in limits.sets() {
        let counted = kernel.dump_elements(set)?.into_iter().map(|one| one.key).collect();
        live.insert(set.to_owned(), (counted, BTreeSet::new()));
    }
    Conntrack::open()?.walk(None, |session| {
        let (orig, reply) = (&session.orig, &session.reply);
        let (client, asked) = ((orig.src, orig.sport), (orig.dst, orig.dport));
        let place = limits.place(client, asked, reply.src, session.mark);
        if let Some((set, key)) = place.filter(|_| is_live(session))
            && let Some((_, there)) = live.get_mut(set)
        {
            there.insert(key);
        }
    })?;
    for (set, (counted, there)) in live {
        let over: Vec<Bytes> = counted.difference(&there).cloned().collect();
        kernel.delete_elements(&set, &over)?;
        let missing: Vec<Bytes> = there.difference(&counted).cloned().collect();
        for key in missing {
            let element = DumpedElement {
                key,
                data: ElementData::Nothing,
                timeout_ms: None,
                expires_ms: None,
                packets: None,
            };
            if kernel.learn_elements(&set, &[element]).is_err() {
                // There is no more room: nobody new comes in, which is as it should be.
                break;
            }
        }
    }
    Ok(())
}
