//! The thread that reads for whoever asks: figures, bindings, reasons.
//!
//! It has sockets of its own: no question waits for a round, and no round for a question.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tokio::sync::oneshot;

use super::checks::Seat;
use super::explaining::explain;
use super::listing::{
    Ages, Lister, ServiceMap, count_live, of_policy, of_service, server_keys, server_seats,
    service_maps,
};
use super::loads::Loads;
use super::reconcile::describe;
use super::report::Measures;
use super::requests::{Binding, Refusal, SessionLine};
use crate::kernel::{Conntrack, DumpedElement, KernelError, Linux, Session, read_device_bytes};
use crate::kstate::{ElementData, FieldType, render_fields};
use crate::model::PersistenceKey::SourceDestination;
use crate::model::{Family, IfName, Mark, MarkMask, Persistence, Policy};
use crate::plan::explain::{Explanation, Question};
use crate::plan::{Layout, Standings, View, address_hash, binding_shape, names};

/// A question, with the way back.
pub(super) enum Asked {
    /// Read figures.
    Measures(Arc<Layout>, oneshot::Sender<Measures>),
    /// Count the live connections of servers.
    Loads(Arc<Layout>, oneshot::Sender<Loads>),
    /// Read sessions.
    Sessions(Arc<Layout>, Box<View>, oneshot::Sender<Result<Vec<SessionLine>, Refusal>>),
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
        let worker = Worker { kernel, conntrack: None, ages: Ages::default() };
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
    ages: Ages,
}

impl Worker {
    fn work(mut self, inbox: &Receiver<Asked>) {
        while let Ok(question) = inbox.recv() {
            // An answer that nobody waits for any more is dropped.
            match question {
                Asked::Measures(layout, reply) => drop(reply.send(self.measure(&layout))),
                Asked::Loads(layout, reply) => drop(reply.send(self.loads(&layout))),
                Asked::Sessions(layout, view, reply) => {
                    drop(reply.send(self.list_sessions(&layout, &view)));
                }
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
        let mut measures =
            Measures { bytes: read_device_bytes().unwrap_or_default(), ..Measures::default() };
        self.count_sessions(layout, ours, &mut measures);
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
        self.measure_servers(layout, &mut measures);
        measures
    }

    /// One walk for both: by mark, and by server.
    fn count_sessions(&mut self, layout: &Layout, ours: MarkMask, measures: &mut Measures) {
        let seats = server_seats(layout);
        let server = layout.site.marks.server;
        // What was seen until an error is true.
        let _ = self.conntrack().and_then(|conntrack| {
            conntrack.walk(None, |session| {
                *measures.sessions.entry(session.mark.0 & ours.0).or_insert(0) += 1;
                measures.offloaded += u64::from(session.is_offloaded());
                if let Some(seat) = count_live(&seats, server, session) {
                    measures.servers.entry(seat).or_default().sessions += 1;
                }
            })
        });
    }

    /// New sessions and bindings of servers.
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
            for element in self.kernel.dump_elements(&set).unwrap_or_default() {
                let key = element.key.as_slice().try_into().map(u32::from_ne_bytes);
                let seat = key.ok().and_then(|key| keys.get(&Mark(key)));
                if let (Some(seat), Some(packets)) = (seat, element.packets) {
                    measures.servers.entry(seat.clone()).or_default().taken += packets;
                }
            }
        }
        for map in service_maps(layout) {
            let elements = self.kernel.dump_elements(&map.name).unwrap_or_default();
            self.ages.see(&map.name, &elements);
            count_bindings(layout, &map, &elements, measures);
        }
    }

    /// Live connections; none when they cannot be read.
    fn loads(&mut self, layout: &Layout) -> Loads {
        let seats = server_seats(layout);
        let mut loads: Loads = seats.values().map(|seat| (seat.clone(), 0)).collect();
        let mask = layout.site.marks.server;
        // What was seen until an error is true.
        let _ = self.conntrack().and_then(|conntrack| {
            conntrack.walk(None, |session| {
                if let Some(seat) = count_live(&seats, mask, session) {
                    *loads.entry(seat).or_insert(0) += 1;
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
                let (map, shape) =
                    (names::bindings(family, &policy.name), binding_shape(policy, family));
                let elements = self.learned(policy, family);
                self.ages.see(&map, &elements);
                for element in elements {
                    let known = |part: &str| addresses.get(part).cloned();
                    let of = (map.as_str(), &shape);
                    bindings.extend(of_policy(layout, policy, of, &element, &self.ages, known));
                }
            }
        }
        for map in service_maps(layout) {
            let elements = self.kernel.dump_elements(&map.name).unwrap_or_default();
            self.ages.see(&map.name, &elements);
            let shown = |element| of_service(layout, &map, element, &self.ages);
            bindings.extend(elements.iter().filter_map(shown));
        }
        bindings.sort_unstable();
        Ok(bindings)
    }

    fn list_sessions(&mut self, layout: &Layout, view: &View) -> Result<Vec<SessionLine>, Refusal> {
        let lister = Lister::new(layout, view);
        let mut lines = Vec::new();
        let walked = self.conntrack().and_then(|conntrack| {
            conntrack.walk(None, |session| lines.extend(lister.line(session)))
        });
        walked.map_err(|error| Refusal(describe(&error)))?;
        lines.sort_unstable();
        Ok(lines)
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

/// `TCP_CONNTRACK_TIME_WAIT`: from here on a connection is over.
const OVER: u8 = 7;

/// Whether a session counts as a live connection.
pub(super) fn is_live(session: &Session) -> bool {
    session.tcp_state.is_none_or(|state| state < OVER)
}

/// A map that holds so many holds no more.
const FULL: usize = 65_536;

fn count_bindings(
    layout: &Layout,
    map: &ServiceMap<'_>,
    elements: &[DumpedElement],
    measures: &mut Measures,
) {
    for entrance in &map.entrances {
        let name = entrance.service.name.to_string();
        if elements.len() >= FULL {
            measures.full.insert(name.clone(), map.name.clone());
        }
        *measures.bindings_of_services.entry(name).or_insert(0) += elements.len() as u64;
    }
    let group = map.entrances.first().and_then(|one| layout.group(&one.service.group));
    let Some(group) = group else { return };
    let marks: HashMap<Mark, Seat> = group
        .servers(map.family)
        .map(|(server, id)| (group.mark(id), (group.group.name.clone(), server.name.clone())))
        .collect();
    for element in elements {
        let ElementData::Value(mark) = &element.data else { continue };
        let mark = mark.as_slice().try_into().map(u32::from_ne_bytes);
        if let Some(seat) = mark.ok().and_then(|mark| marks.get(&Mark(mark))) {
            measures.servers.entry(seat.clone()).or_default().bindings += 1;
        }
    }
}

fn device_of(key: &[u8]) -> Option<IfName> {
    let end = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
    IfName::new(std::str::from_utf8(&key[..end]).ok()?).ok()
}
