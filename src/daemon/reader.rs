//! The thread that reads for whoever asks: figures, bindings, reasons.
//!
//! It has sockets of its own: no question waits for a round, and no round for a question.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tokio::sync::oneshot;

use super::checks::Seat;
use super::explaining::explain;
use super::loads::Loads;
use super::report::Measures;
use super::requests::{Binding, Refusal};
use crate::kernel::{Conntrack, DumpedElement, KernelError, Linux, Session, read_device_bytes};
use crate::kstate::{ElementData, FieldType, SetShape, render_fields};
use crate::model::PersistenceKey::SourceDestination;
use crate::model::{Family, IfName, Mark, MarkMask, Persistence, Policy};
use crate::plan::explain::{Explanation, Question};
use crate::plan::{Layout, Standings, address_hash, binding_shape, names};

/// A question, with the way back.
pub(super) enum Asked {
    /// Read figures.
    Measures(Arc<Layout>, oneshot::Sender<Measures>),
    /// Count the live connections of servers.
    Loads(Arc<Layout>, oneshot::Sender<Loads>),
    /// Read bindings.
    Bindings(Arc<Layout>, oneshot::Sender<Result<Vec<Binding>, Refusal>>),
    /// Explain where a session goes.
    Explain(
        Arc<Layout>,
        Arc<Standings>,
        Box<Question>,
        oneshot::Sender<Result<Explanation, Refusal>>,
    ),
}

/// The engine's end of the thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Reader(Sender<Asked>);

impl Reader {
    /// Starts the thread.
    pub(super) fn start(kernel: Linux) -> std::io::Result<Reader> {
        let (questions, inbox) = channel();
        let worker = Worker { kernel, conntrack: None };
        thread::Builder::new().name("reader".to_owned()).spawn(move || worker.work(&inbox))?;
        Ok(Reader(questions))
    }

    /// Asks. If the thread is gone, the way back is closed, and who waits sees that.
    pub(super) fn ask(&self, question: Asked) {
        let _ = self.0.send(question);
    }
}

struct Worker {
    kernel: Linux,
    conntrack: Option<Conntrack>,
}

impl Worker {
    fn work(mut self, inbox: &Receiver<Asked>) {
        while let Ok(question) = inbox.recv() {
            // An answer that nobody waits for any more is dropped.
            match question {
                Asked::Measures(layout, reply) => drop(reply.send(self.measure(&layout))),
                Asked::Loads(layout, reply) => drop(reply.send(self.loads(&layout))),
                Asked::Bindings(layout, reply) => drop(reply.send(self.bindings(&layout))),
                Asked::Explain(layout, standings, question, reply) => {
                    let answer = explain(&mut self.kernel, &layout, &standings, &question);
                    drop(reply.send(answer));
                }
            }
        }
    }

    /// Figures; what cannot be read is left at nothing.
    fn measure(&mut self, layout: &Layout) -> Measures {
        let ours = MarkMask(layout.site.marks.ours());
        let sessions = self.sessions(ours).unwrap_or_default();
        let mut measures = Measures {
            sessions: sessions.into_iter().map(|(mark, count)| (mark.0, count)).collect(),
            bytes: read_device_bytes().unwrap_or_default(),
            ..Measures::default()
        };
        for element in self.kernel.dump_elements(names::TAKE).unwrap_or_default() {
            if let Ok(mark) = element.key.as_slice().try_into() {
                let count = element.packets.unwrap_or(0);
                measures.taken.insert(u32::from_ne_bytes(mark), count);
            }
        }
        for map in [names::ENTRY, names::ROUTED] {
            for element in self.kernel.dump_elements(map).unwrap_or_default() {
                if let Some(device) = device_of(&element.key) {
                    *measures.pinned.entry(device).or_insert(0) += element.packets.unwrap_or(0);
                }
            }
        }
        for (policy, _) in layout.policies().filter(|(p, _)| p.persistence != Persistence::None) {
            let count = Family::BOTH.map(|family| self.learned(policy, family).len() as u64);
            measures.bindings.insert(policy.name.to_string(), count.iter().sum());
        }
        measures
    }

    fn sessions(&mut self, mask: MarkMask) -> Result<BTreeMap<Mark, u64>, KernelError> {
        self.conntrack()?.count_by_mark(mask)
    }

    /// Live connections; none when they cannot be read.
    fn loads(&mut self, layout: &Layout) -> Loads {
        let seats = server_seats(layout);
        let mut loads: Loads = seats.values().map(|seat| (seat.clone(), 0)).collect();
        let mask = layout.site.marks.server;
        // What was seen until an error is true.
        let _ = self.conntrack().and_then(|conntrack| {
            conntrack.walk(None, |session| {
                let key = (session.reply.src, Mark(session.mark.0 & mask.0));
                if let Some(seat) = seats.get(&key).filter(|_| is_live(session)) {
                    *loads.entry(seat.clone()).or_insert(0) += 1;
                }
            })
        });
        loads
    }

    fn learned(&mut self, policy: &Policy, family: Family) -> Vec<DumpedElement> {
        self.kernel.dump_elements(&names::bindings(family, &policy.name)).unwrap_or_default()
    }

    fn bindings(&mut self, layout: &Layout) -> Result<Vec<Binding>, Refusal> {
        let mut bindings = Vec::new();
        let addresses = self.hashed_addresses(layout);
        for (policy, _) in layout.policies().filter(|(p, _)| p.persistence != Persistence::None) {
            for family in Family::BOTH {
                let shape = binding_shape(policy, family);
                for element in self.learned(policy, family) {
                    let known = |part: &str| addresses.get(part).cloned();
                    bindings.extend(binding(layout, policy, &shape, &element, known));
                }
            }
        }
        bindings.sort_unstable();
        Ok(bindings)
    }

    /// Hash → address, of the sessions there are, if some binding's key is made of hashes.
    fn hashed_addresses(&mut self, layout: &Layout) -> HashMap<String, String> {
        let mut addresses = HashMap::new();
        let pairs = |policy: &Policy| {
            matches!(policy.persistence, Persistence::By { key: SourceDestination, .. })
        };
        if !layout.policies().any(|(policy, _)| pairs(policy)) {
            return addresses;
        }
        // What was seen until an error is true, and a hash without its address is shown as it is.
        let _ = self.conntrack().and_then(|conntrack| {
            conntrack.walk(None, |session| {
                for address in [session.orig.src, session.orig.dst] {
                    if let IpAddr::V6(address) = address {
                        let hash = address_hash(address).to_ne_bytes();
                        let shown = render_fields(&[FieldType::Hash], &hash);
                        addresses.entry(shown).or_insert_with(|| address.to_string());
                    }
                }
            })
        });
        addresses
    }

    fn conntrack(&mut self) -> Result<&mut Conntrack, KernelError> {
        Ok(match &mut self.conntrack {
            Some(conntrack) => conntrack,
            none => none.insert(Conntrack::open()?),
        })
    }
}

/// Address and mark → server.
pub(super) fn server_seats(layout: &Layout) -> HashMap<(IpAddr, Mark), Seat> {
    let mut seats = HashMap::new();
    for group in layout.groups() {
        for family in Family::BOTH {
            for (server, id) in group.servers(family) {
                let seat = (group.group.name.clone(), server.name.clone());
                seats.insert((server.address, group.mark(id)), seat);
            }
        }
    }
    seats
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

/// One learned element in the user's words.
fn binding(
    layout: &Layout,
    policy: &Policy,
    shape: &SetShape,
    element: &DumpedElement,
    known: impl Fn(&str) -> Option<String>,
) -> Option<Binding> {
    let ElementData::Value(mark) = &element.data else { return None };
    let mark = Mark(u32::from_ne_bytes(mark.as_slice().try_into().ok()?));
    let uplink = layout.uplinks().find(|(_, id)| layout.mark(*id) == mark)?.0;
    let key = render_fields(&shape.key, &element.key);
    let shown = |part: &str| known(part).unwrap_or_else(|| part.to_owned());
    let (client, destination) = match key.split_once(" . ") {
        None => (key, None),
        Some((source, to)) => (shown(source), Some(shown(to))),
    };
    let left = element.expires_ms.unwrap_or(0);
    let given = element.timeout_ms.unwrap_or(left);
    Some(Binding {
        policy: policy.name.to_string(),
        client,
        destination,
        uplink: uplink.name.to_string(),
        idle_s: given.saturating_sub(left) / 1000,
        left_s: left / 1000,
    })
}
