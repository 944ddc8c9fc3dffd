//! Another profile while the process runs.

use std::sync::Arc;

use super::super::engine::Event;
use super::super::events::{Level, Told};
use super::super::loading::{LoadError, load_profile};
use super::super::reconciler::Order;
use super::super::requests::Refusal;
use super::{Done, MainTask, Reply};
use crate::clock;
use crate::model::{EventKind, Site};
use crate::plan::Layout;

impl MainTask {
    pub(super) fn reload(&mut self, reply: Option<Reply>) {
        self.askers.extend(reply);
        if self.loading {
            self.again = true;
        } else {
            self.load();
        }
    }

    /// Reads the profile elsewhere: that may take a while.
    pub(super) fn load(&mut self) {
        self.loading = true;
        let (file, replies) = (self.profile.clone(), std::mem::take(&mut self.askers));
        self.pending.spawn_blocking(move || Done::Loaded(Box::new(load_profile(&file)), replies));
    }

    pub(super) fn wish(&mut self, loaded: Result<(Site, String), LoadError>, replies: Vec<Reply>) {
        let loaded = loaded.map_err(|error| Refusal(error.to_string()));
        let allowed = loaded.and_then(|(site, warnings)| {
            if !warnings.is_empty() {
                tracing::warn!("{}", warnings.trim_end());
            }
            self.refuse_other_numbers(&site).map(|()| site)
        });
        match allowed {
            Ok(site) => {
                let layout = Arc::new(Layout::new(site, &self.remembered));
                self.remembered.learn(&layout.ids);
                self.workers.reconciler.send(Order::Keep(layout.clone()));
                self.handle(Event::Wished(layout));
                self.lookup = clock::now();
                let generation = self.engine.generation;
                self.waiting.extend(replies.into_iter().map(|reply| (generation, reply)));
                self.adopt_listeners();
                let text = format!("profile read again: generation {generation}");
                let told = Told::new(Level::Info, EventKind::ProfileReloaded, text);
                self.tell(told.with("generation", generation));
            }
            Err(refusal) => {
                let text =
                    format!("reload refused, the running profile stays in force:\n{refusal}");
                self.tell(Told::new(Level::Error, EventKind::ProfileRefused, text));
                for reply in replies {
                    let _ = reply.send(Err(refusal.clone()));
                }
            }
        }
    }

    /// Live sessions carry the numbers that `marks` and `routing` shape.
    fn refuse_other_numbers(&self, site: &Site) -> Result<(), Refusal> {
        let running = &self.engine.layout.site;
        if running.marks == site.marks && running.routing == site.routing {
            return Ok(());
        }
        Err(Refusal(
            "`marks` and `routing` cannot change while sessions carry them: stop homing, run \
             `homing down`, and start it again"
                .to_owned(),
        ))
    }
}
