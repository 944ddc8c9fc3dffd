//! The thread that reads for whoever asks: figures, reasons. What takes a walk over everything it
//! leaves to the walker.
//!
//! It has sockets of its own: no question waits for a round, and no round for a question.
//!
//! Sessions and bindings are counted for each who asks while there are few. Where there are many, he
//! gets what was counted last, and the walker counts anew, but rests [`REST`] times as long as it
//! worked: so the figures of a large site are a little old, and cost next to nothing.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::counts::{Counts, Tools};
use super::explaining::explain;
use super::listing::{Ages, server_keys};
use super::report::Measures;
use super::requests::Refusal;
use super::walker::{Sight, Walk, Walker};
use crate::kernel::{Linux, Session, read_device_bytes, read_fill};
use crate::model::{Family, IfName, Mark};
use crate::plan::explain::{Explanation, Question};
use crate::plan::{Layout, Standings, names};

/// As many sessions and bindings as are counted for each who asks.
const FEW: usize = 5000;

/// So many times as long as a count takes, no other is begun; sooner when a map was full, for people
/// wait for that to end; and never longer than [`LONGEST_REST`].
const REST: u32 = 100;
const SHORT_REST: u32 = 5;
const LONGEST_REST: Duration = Duration::from_secs(15);

/// A question, with the way back.
pub(super) enum Asked {
    /// Read figures.
    Measures(Sight, oneshot::Sender<Measures>),
    /// Count the sessions, so that the count is at hand when somebody asks.
    Count(Sight),
    /// Explain where a session goes.
    Explain(
        Arc<Layout>,
        Arc<Standings>,
        Box<Question>,
        oneshot::Sender<Result<Explanation, Refusal>>,
    ),
}

/// The engine's end of the threads, which end when this is dropped.
#[derive(Debug)]
pub(super) struct Reader {
    questions: Sender<Asked>,
    walker: Walker,
}

impl Reader {
    /// Starts the threads, each with a kernel handle of its own.
    pub(super) fn start(kernel: Linux, for_walks: Linux) -> std::io::Result<Reader> {
        let (questions, inbox) = channel();
        let ages = Ages::default();
        let walker = Walker::start(for_walks, ages.clone())?;
        let worker = Worker {
            tools: Tools::new(kernel),
            ages,
            walker: walker.clone(),
            last: None,
            counted: channel(),
            counting: false,
        };
        thread::Builder::new().name("reader".to_owned()).spawn(move || worker.work(&inbox))?;
        Ok(Reader { questions, walker })
    }

    /// Asks. If the thread is gone, the way back is closed, and who waits sees that.
    pub(super) fn ask(&self, question: Asked) {
        let _ = self.questions.send(question);
    }

    /// Asks for a walk over everything.
    pub(super) fn walk(&self, walk: Walk) {
        self.walker.ask(walk);
    }
}

struct Worker {
    tools: Tools,
    ages: Ages,
    walker: Walker,
    last: Option<Arc<Counts>>,
    counted: (Sender<Counts>, Receiver<Counts>),
    /// The walker was asked to count.
    counting: bool,
}

impl Worker {
    fn work(mut self, inbox: &Receiver<Asked>) {
        while let Ok(question) = inbox.recv() {
            // An answer that nobody waits for any more is dropped.
            match question {
                Asked::Measures(site, reply) => drop(reply.send(self.measure(&site))),
                Asked::Count(site) => drop(self.counts(&site)),
                Asked::Explain(layout, standings, question, reply) => {
                    let answer = explain(&mut self.tools.kernel, &layout, &standings, &question);
                    drop(reply.send(answer));
                }
            }
        }
    }

    /// Figures; what cannot be read is left at nothing.
    fn measure(&mut self, site: &Sight) -> Measures {
        let mut measures = Measures {
            bytes: read_device_bytes().unwrap_or_default(),
            conntrack: read_fill().ok(),
            ..Measures::default()
        };
        self.counts(site).fill(&mut measures);
        for element in self.tools.learned(names::TAKE) {
            if let Ok(mark) = element.key.as_slice().try_into() {
                let count = element.packets.unwrap_or(0);
                measures.taken.insert(u32::from_ne_bytes(mark), count);
            }
        }
        for map in [names::ENTRY, names::ROUTED] {
            for element in self.tools.learned(map) {
                if let Some(device) = device_of(&element.key) {
                    *measures.pinned.entry(device).or_insert(0) += element.packets.unwrap_or(0);
                }
            }
        }
        self.measure_servers(&site.layout, &mut measures);
        measures
    }

    fn counts(&mut self, site: &Sight) -> Arc<Counts> {
        for counts in self.counted.1.try_iter() {
            self.last = Some(Arc::new(counts));
            self.counting = false;
        }
        let known = self.last.clone();
        let known =
            known.filter(|known| Arc::ptr_eq(&known.layout, &site.layout) && known.entries > FEW);
        let Some(known) = known else {
            let counts = Arc::new(Counts::take(&mut self.tools, site, &self.ages));
            return self.last.insert(counts).clone();
        };
        let rest = if known.finds_full() { SHORT_REST } else { REST };
        if !self.counting && known.at.elapsed() >= (known.took * rest).min(LONGEST_REST) {
            self.counting = true;
            self.walker.ask(Walk::Counts(site.clone(), self.counted.0.clone()));
        }
        known
    }

    /// New sessions of servers.
    fn measure_servers(&mut self, layout: &Layout, measures: &mut Measures) {
        if layout.site.services.is_empty() {
            return;
        }
        let keys = server_keys(layout);
        let of_part = |part| {
            let of_family = |family| [names::hosts(family, part), names::targets(family, part)];
            Family::BOTH.map(of_family).into_iter().flatten()
        };
        for set in layout.parts().into_iter().flat_map(of_part) {
            for element in self.tools.learned(&set) {
                let key = element.key.as_slice().try_into().map(u32::from_ne_bytes);
                let seat = key.ok().and_then(|key| keys.get(&Mark(key)));
                if let (Some(seat), Some(packets)) = (seat, element.packets) {
                    measures.servers.entry(seat.clone()).or_default().taken += packets;
                }
            }
        }
    }
}

/// `TCP_CONNTRACK_TIME_WAIT`: from here on a connection is over.
const OVER: u8 = 7;

/// Whether a session counts as a live connection.
pub(super) fn is_live(session: &Session) -> bool {
    session.tcp_state.is_none_or(|state| state < OVER)
}

fn device_of(key: &[u8]) -> Option<IfName> {
    let end = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
    IfName::new(std::str::from_utf8(&key[..end]).ok()?).ok()
}
