//! What only a walk over everything tells: how many sessions and bindings there are, and whose.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::checks::Seat;
use super::listing::{Ages, ServiceMap, count_live, server_seats, service_maps};
use super::report::Measures;
use super::walker::Sight;
use crate::clock;
use crate::kernel::{Conntrack, DumpedElement, KernelError, Linux};
use crate::kstate::ElementData;
use crate::model::{Family, Mark, MarkMask, Persistence};
use crate::plan::{Layout, names};

/// A map of bindings that holds so many holds no more.
pub const FULL: usize = 65_536;

/// Sockets to look with.
pub(super) struct Tools {
    pub(super) kernel: Linux,
    conntrack: Option<Conntrack>,
}

impl Tools {
    pub(super) fn new(kernel: Linux) -> Tools {
        Tools { kernel, conntrack: None }
    }

    pub(super) fn conntrack(&mut self) -> Result<&mut Conntrack, KernelError> {
        Ok(match &mut self.conntrack {
            Some(conntrack) => conntrack,
            none => none.insert(Conntrack::open()?),
        })
    }

    /// A learned map; empty when it cannot be read.
    pub(super) fn learned(&mut self, map: &str) -> Vec<DumpedElement> {
        self.kernel.dump_elements(map).unwrap_or_default()
    }
}

/// What was counted.
#[derive(Debug)]
pub(super) struct Counts {
    /// The site that it was about.
    pub(super) layout: Arc<Layout>,
    /// How many things were gone through.
    pub(super) entries: usize,
    pub(super) took: Duration,
    pub(super) at: Instant,
    wall: SystemTime,
    sessions: BTreeMap<u32, u64>,
    /// Sessions that take the fast path.
    offloaded: u64,
    bindings: BTreeMap<String, u64>,
    bindings_of_services: BTreeMap<String, u64>,
    full: BTreeMap<String, String>,
    /// Sessions and bindings.
    servers: BTreeMap<Seat, (u64, u64)>,
    maps: BTreeMap<String, u64>,
}

impl Counts {
    /// Counts. What cannot be read is left at nothing.
    pub(super) fn take(tools: &mut Tools, Sight { layout, view }: &Sight, ages: &Ages) -> Counts {
        let at = clock::now();
        let mut counts = Counts {
            layout: layout.clone(),
            entries: 0,
            took: Duration::ZERO,
            at,
            wall: clock::wall(),
            sessions: BTreeMap::new(),
            offloaded: 0,
            bindings: BTreeMap::new(),
            bindings_of_services: BTreeMap::new(),
            full: BTreeMap::new(),
            servers: BTreeMap::new(),
            maps: BTreeMap::new(),
        };
        counts.count_sessions(tools, layout);
        for (policy, _) in layout.policies().filter(|(p, _)| p.persistence != Persistence::None) {
            let mut count = 0;
            for family in Family::BOTH {
                let map = names::bindings(family, &policy.name);
                let learned = tools.learned(&map).len();
                counts.see_map(map, learned);
                count += learned as u64;
            }
            counts.bindings.insert(policy.name.to_string(), count);
        }
        for map in service_maps(layout, view) {
            let elements = tools.learned(&map.name);
            ages.see(&map.name, &elements);
            counts.see_map(map.name.clone(), elements.len());
            counts.count_bindings(layout, &map, &elements);
        }
        ages.keep(|map| counts.maps.contains_key(map));
        counts.took = at.elapsed();
        counts
    }

    /// One walk for both: by mark, and by server.
    fn count_sessions(&mut self, tools: &mut Tools, layout: &Layout) {
        let seats = server_seats(layout);
        let (ours, server) = (MarkMask(layout.site.marks.ours()), layout.site.marks.server);
        // What was seen until an error is true.
        let _ = tools.conntrack().and_then(|conntrack| {
            conntrack.walk(None, |session| {
                self.entries += 1;
                *self.sessions.entry(session.mark.0 & ours.0).or_insert(0) += 1;
                self.offloaded += u64::from(session.is_offloaded());
                if let Some(seat) = count_live(&seats, server, session) {
                    self.servers.entry(seat).or_default().0 += 1;
                }
            })
        });
    }

    fn see_map(&mut self, map: String, elements: usize) {
        self.entries += elements;
        self.maps.insert(map, elements as u64);
    }

    fn count_bindings(
        &mut self,
        layout: &Layout,
        map: &ServiceMap<'_>,
        elements: &[DumpedElement],
    ) {
        for entrance in &map.entrances {
            let name = entrance.service.name.to_string();
            if elements.len() >= FULL {
                self.full.insert(name.clone(), map.name.clone());
            }
            *self.bindings_of_services.entry(name).or_insert(0) += elements.len() as u64;
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
                self.servers.entry(seat.clone()).or_default().1 += 1;
            }
        }
    }

    /// Whether a map of bindings was full.
    pub(super) fn finds_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// Fills in what was counted.
    pub(super) fn fill(&self, measures: &mut Measures) {
        measures.counted = Some(self.wall);
        measures.sessions.clone_from(&self.sessions);
        measures.offloaded = self.offloaded;
        measures.bindings.clone_from(&self.bindings);
        measures.bindings_of_services.clone_from(&self.bindings_of_services);
        measures.full.clone_from(&self.full);
        measures.maps.clone_from(&self.maps);
        for (seat, (sessions, bindings)) in &self.servers {
            let server = measures.servers.entry(seat.clone()).or_default();
            (server.sessions, server.bindings) = (*sessions, *bindings);
        }
    }
}
