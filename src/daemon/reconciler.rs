//! The thread that touches the kernel.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::reconcile::Round;
use super::report::{Measures, Report};
use super::requests::{Binding, Refusal};
use super::state::StateDir;
use crate::kernel::{Conntrack, DumpedElement, KernelError, Linux, read_device_bytes};
use crate::kstate::{ElementData, FieldType, KernelState, SetShape, Snapshot, render_fields};
use crate::model::PersistenceKey::SourceDestination;
use crate::model::{Family, IfName, Mark, MarkMask, Persistence, Policy};
use crate::plan::{Layout, Remembered, address_hash, binding_shape, names};

/// Work for the thread.
pub(super) enum Order {
    /// Do a round.
    Round(Round),
    /// Read figures.
    Measure(Arc<Layout>, oneshot::Sender<Measures>),
    /// Read bindings.
    Bindings(Arc<Layout>, oneshot::Sender<Result<Vec<Binding>, Refusal>>),
    /// What is remembered of ids, the kernel's word before the state directory's.
    Remember(oneshot::Sender<Remembered>),
    /// Keep these ids.
    Keep(Arc<Layout>),
}

/// What the round put in force.
pub(super) type InForce = Option<Arc<(KernelState, Snapshot)>>;

/// The engine's end of the thread.
#[derive(Debug, Clone)]
pub(super) struct Reconciler {
    orders: Sender<Order>,
}

impl Reconciler {
    /// Starts the thread. Reports of rounds come by the receiver; it ends with the sender.
    pub(super) fn start(
        kernel: Linux,
        state: StateDir,
    ) -> std::io::Result<(Reconciler, mpsc::UnboundedReceiver<(Report, InForce)>)> {
        let (orders, inbox) = channel();
        let (reports, outbox) = mpsc::unbounded_channel();
        let worker = Worker { kernel, state, conntrack: None };
        let name = "reconciler".to_owned();
        thread::Builder::new().name(name).spawn(move || worker.work(&inbox, &reports))?;
        Ok((Reconciler { orders }, outbox))
    }

    /// Hands work over. If the thread is gone, the reports' channel has closed and the engine ends.
    pub(super) fn send(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

struct Worker {
    kernel: Linux,
    state: StateDir,
    conntrack: Option<Conntrack>,
}

impl Worker {
    fn work(mut self, inbox: &Receiver<Order>, reports: &mpsc::UnboundedSender<(Report, InForce)>) {
        while let Ok(order) = inbox.recv() {
            match order {
                Order::Round(round) => {
                    let (report, in_force) = round.run(&mut self.kernel, &mut self.state);
                    if reports.send((report, in_force.map(Arc::new))).is_err() {
                        return;
                    }
                }
                // An answer that nobody waits for any more is dropped.
                Order::Measure(layout, reply) => drop(reply.send(self.measure(&layout))),
                Order::Bindings(layout, reply) => drop(reply.send(self.bindings(&layout))),
                Order::Remember(reply) => drop(reply.send(self.state.remembered().clone())),
                Order::Keep(layout) => self.keep(&layout),
            }
        }
    }

    fn keep(&mut self, layout: &Layout) {
        let mut ids = self.state.remembered().clone();
        ids.learn(&layout.ids);
        if let Err(error) = self.state.keep(ids, layout.site.routing) {
            tracing::warn!("ids are remembered by the kernel alone until this is mended: {error}");
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
