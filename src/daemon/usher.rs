//! The thread that frees a place at a server with `max-connections` as soon as a connection is over.
//!
//! Without it the kernel does so within a second. Connections that the packet path did not count, as
//! they began before there was a limit or somebody took the rules away, are counted by this thread
//! alone; while there are more than places, those that have none wait for one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use super::reader::is_live;
use crate::clock;
use crate::kernel::{
    Closings, Conntrack, DumpedElement, Hush, KernelError, Linux, NetlinkError, Ranges, Session,
};
use crate::kstate::{Bytes, ElementData};
use crate::plan::Limits;

/// How long a change of the limits may wait.
const PAUSE: Duration = Duration::from_millis(200);
/// So often all connections are counted: notices may be lost.
const RECOUNT: Duration = Duration::from_secs(30);
/// And so often while there are some of whose end the kernel gives no notice, as nobody listened
/// when they began; but not more than one part in so many of the time.
const SOON: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;

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
                        // The limits may be others by now.
                        match inbox.recv_timeout(5 * PAUSE) {
                            Ok(next) => limits = next,
                            Err(RecvTimeoutError::Timeout) => {}
                            Err(RecvTimeoutError::Disconnected) => return,
                        }
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
        let mut conntrack = Conntrack::open()?;
        let mut closings = Closings::open().map_err(not_heard)?;
        self.failing = false;
        let mut unheard = Waiting::new();
        loop {
            let started = clock::now();
            let mut waiting = recount(&mut kernel, limits, &mut unheard)?;
            let pause = match unheard.values().all(BTreeSet::is_empty) {
                true => RECOUNT,
                false => (started.elapsed() * SHARE).clamp(SOON, RECOUNT),
            };
            while started.elapsed() < pause {
                match inbox.try_recv() {
                    Ok(next) => return Ok(Some(next)),
                    Err(TryRecvError::Disconnected) => return Ok(None),
                    Err(TryRecvError::Empty) => {}
                }
                let mut over = Vec::new();
                let heard = closings.wait(PAUSE, |session| {
                    over.extend(place(limits, session).map(|place| (place, session.clone())));
                });
                heard.map_err(|error| not_heard(error.into()))?;
                for ((set, key), session) in over {
                    // Another connection may have begun between the same ends since.
                    if !conntrack.get(&session)?.is_some_and(|now| is_live(&now)) {
                        free(&mut kernel, &mut waiting, set, key)?;
                    }
                }
            }
        }
    }
}

/// Connections, by set. Those that wait have no place: more were there when a limit came than it
/// allows.
type Waiting = BTreeMap<String, BTreeSet<Bytes>>;

fn not_heard(source: NetlinkError) -> KernelError {
    KernelError::Open { protocol: "conntrack notices", source }
}

/// In which set a connection stands, and under which key.
fn place<'a>(limits: &'a Limits, session: &Session) -> Option<(&'a str, Bytes)> {
    let (orig, reply) = (&session.orig, &session.reply);
    let (client, asked) = ((orig.src, orig.sport), (orig.dst, orig.dport));
    limits.place(session.protocol, client, asked, reply.src, session.mark)
}

/// A connection is over: its place is for one that waits, or for whoever comes next.
fn free(
    kernel: &mut Linux,
    waiting: &mut Waiting,
    set: &str,
    key: Bytes,
) -> Result<(), KernelError> {
    let others = waiting.entry(set.to_owned()).or_default();
    if others.remove(&key) {
        return Ok(());
    }
    let Some(next) = others.pop_first() else { return kernel.delete_elements(set, &[key]) };
    match kernel.replace_element(set, &key, &next) {
        // It was not counted, or is gone already.
        Err(error) if error.is_full() => drop(others.insert(next)),
        other => other?,
    }
    Ok(())
}

/// Gives places to those that wait, as far as there are any.
fn seat(kernel: &mut Linux, set: &str, waiting: &mut BTreeSet<Bytes>) -> Result<(), KernelError> {
    while let Some(key) = waiting.pop_first() {
        let element = DumpedElement {
            key: key.clone(),
            data: ElementData::Nothing,
            timeout_ms: None,
            expires_ms: None,
            packets: None,
        };
        match kernel.learn_elements(set, &[element]) {
            Ok(()) => {}
            // Nobody new comes in, which is as it should be.
            Err(error) if error.is_full() => {
                waiting.insert(key);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Counts the connections that there are, and no others. What is counted is read first: who comes
/// meanwhile is not taken for one that is over. Those that the packet path had not counted are
/// unheard from then on.
fn recount(
    kernel: &mut Linux,
    limits: &Limits,
    unheard: &mut Waiting,
) -> Result<Waiting, KernelError> {
    let mut live: BTreeMap<String, (BTreeSet<Bytes>, BTreeSet<Bytes>)> = BTreeMap::new();
    for set in limits.sets() {
        let counted = kernel.dump_elements(set)?.into_iter().map(|one| one.key).collect();
        live.insert(set.to_owned(), (counted, BTreeSet::new()));
    }
    Conntrack::open()?.walk(None, |session| {
        if let Some((set, key)) = place(limits, session).filter(|_| is_live(session))
            && let Some((_, there)) = live.get_mut(set)
        {
            there.insert(key);
        }
    })?;
    let mut waiting = Waiting::new();
    for (set, (counted, there)) in live {
        let over: Vec<Bytes> = counted.difference(&there).cloned().collect();
        kernel.delete_elements(&set, &over)?;
        let mut others: BTreeSet<Bytes> = there.difference(&counted).cloned().collect();
        let unheard = unheard.entry(set.clone()).or_default();
        unheard.retain(|key| there.contains(key));
        unheard.extend(others.iter().cloned());
        seat(kernel, &set, &mut others)?;
        waiting.insert(set, others);
    }
    Ok(waiting)
}
