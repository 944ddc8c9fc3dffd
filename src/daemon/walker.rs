//! The thread for questions that take a walk over all sessions or bindings: that may take a second,
//! so others do not wait behind them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tokio::sync::oneshot;

use super::counts::{Counts, Tools};
use super::listing::{Ages, Lister, count_live, of_policy, of_service, server_seats, service_maps};
use super::loads::Loads;
use super::paging::{Pager, SessionPage, SessionQuery};
use super::reconcile::describe;
use super::requests::{Binding, Refusal};
use crate::kernel::Linux;
use crate::kstate::{FieldType, render_fields};
use crate::model::PersistenceKey::SourceDestination;
use crate::model::{Family, Persistence, Policy};
use crate::plan::{Layout, View, address_hash, binding_shape, names};

/// A site, and how it looks now.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    pub(super) layout: Arc<Layout>,
    pub(super) view: Arc<View>,
}

/// A question, with the way back.
pub(super) enum Walk {
    /// Count everything.
    Counts(Sight, Sender<Counts>),
    /// Count the live connections of servers.
    Loads(Arc<Layout>, oneshot::Sender<Loads>),
    /// Read sessions.
    Sessions(Sight, SessionQuery, oneshot::Sender<Result<SessionPage, Refusal>>),
    /// Read bindings.
    Bindings(Sight, oneshot::Sender<Result<Vec<Binding>, Refusal>>),
}

/// The other end of the thread, which ends when this is dropped.
#[derive(Debug, Clone)]
pub(super) struct Walker(Sender<Walk>);

impl Walker {
    /// Starts the thread.
    pub(super) fn start(kernel: Linux, ages: Ages) -> std::io::Result<Walker> {
        let (questions, inbox) = channel();
        let worker = Worker { tools: Tools::new(kernel), ages };
        thread::Builder::new().name("walker".to_owned()).spawn(move || worker.work(&inbox))?;
        Ok(Walker(questions))
    }

    /// Asks. If the thread is gone, the way back is closed, and who waits sees that.
    pub(super) fn ask(&self, walk: Walk) {
        let _ = self.0.send(walk);
    }
}

struct Worker {
    tools: Tools,
    ages: Ages,
}

impl Worker {
    fn work(mut self, inbox: &Receiver<Walk>) {
        while let Ok(walk) = inbox.recv() {
            // An answer that nobody waits for any more is dropped, and a walk for it spared.
            match walk {
                Walk::Counts(site, reply) => {
                    drop(reply.send(Counts::take(&mut self.tools, &site, &self.ages)));
                }
                Walk::Loads(layout, reply) => drop(reply.send(self.loads(&layout))),
                Walk::Sessions(site, query, reply) if !reply.is_closed() => {
                    drop(reply.send(self.sessions(&site, &query)));
                }
                Walk::Bindings(site, reply) if !reply.is_closed() => {
                    drop(reply.send(self.bindings(&site)));
                }
                Walk::Sessions(..) | Walk::Bindings(..) => {}
            }
        }
    }

    /// Live connections; none when they cannot be read.
    fn loads(&mut self, layout: &Layout) -> Loads {
        let seats = server_seats(layout);
        let mut loads: Loads = seats.values().map(|seat| (seat.clone(), 0)).collect();
        let mask = layout.site.marks.server;
        // What was seen until an error is true.
        let _ = self.tools.conntrack().and_then(|conntrack| {
            conntrack.walk(None, |session| {
                if let Some(seat) = count_live(&seats, mask, session) {
                    *loads.entry(seat).or_insert(0) += 1;
                }
            })
        });
        loads
    }

    fn sessions(&mut self, site: &Sight, query: &SessionQuery) -> Result<SessionPage, Refusal> {
        let lister = Lister::new(&site.layout, &site.view);
        let mut pager = Pager::new(query);
        let walked = self.tools.conntrack().and_then(|conntrack| {
            conntrack.walk(None, |session| {
                if let Some(line) = lister.line(session) {
                    pager.add(line);
                }
            })
        });
        walked.map_err(|error| Refusal(describe(&error)))?;
        Ok(pager.finish())
    }

    fn bindings(&mut self, Sight { layout, view }: &Sight) -> Result<Vec<Binding>, Refusal> {
        let mut bindings = Vec::new();
        let addresses = self.hashed_addresses(layout);
        for (policy, _) in layout.policies().filter(|(p, _)| p.persistence != Persistence::None) {
            for family in Family::BOTH {
                let (map, shape) =
                    (names::bindings(family, &policy.name), binding_shape(policy, family));
                let elements = self.tools.learned(&map);
                self.ages.see(&map, &elements);
                for element in elements {
                    let known = |part: &str| addresses.get(part).cloned();
                    let of = (map.as_str(), &shape);
                    bindings.extend(of_policy(layout, policy, of, &element, &self.ages, known));
                }
            }
        }
        for map in service_maps(layout, view) {
            let elements = self.tools.learned(&map.name);
            self.ages.see(&map.name, &elements);
            let shown = |element| of_service(layout, &map, element, &self.ages);
            bindings.extend(elements.iter().filter_map(shown));
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
        let _ = self.tools.conntrack().and_then(|conntrack| {
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
}
