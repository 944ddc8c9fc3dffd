//! What the reconciler tells the engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::mending::Mended;
use crate::kstate::Snapshot;
use crate::model::{IfName, Name};
use crate::plan::{Layout, View};

/// The outcome of one round.
#[derive(Debug, Clone)]
pub struct Report {
    /// Which site it was about.
    pub generation: u64,
    /// The site.
    pub layout: Arc<Layout>,
    /// What was seen at the end; `None` when the kernel could not be read.
    pub seen: Option<Arc<Snapshot>>,
    /// What follows from it.
    pub view: Option<View>,
    /// How many steps were done.
    pub steps: usize,
    /// What somebody else had changed of ours, as commands that put it right.
    pub drift: Vec<String>,
    /// Sessions that were dealt with before the first apply.
    pub mended: Mended,
    /// What did not work.
    pub failure: Option<Failure>,
    /// Why the state directory cannot be used; nothing of the kernel's state depends on it.
    pub state_dir: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Whether a flowtable of ours carries sessions.
    pub fn carries_sessions(&self) -> bool {
        let table = self.seen.as_ref().and_then(|seen| seen.ours.nft.as_ref());
        table.is_some_and(|table| !table.flowtables.is_empty())
    }
}

/// What of the desired state is not in force, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In plain words.
    pub reason: String,
    /// Commands that were not done, or did not last.
    pub missing: Vec<String>,
}

/// Figures that are read when somebody asks.
#[derive(Debug, Clone, Default)]
pub struct Measures {
    /// Connection mark (our bits) → live sessions.
    pub sessions: BTreeMap<u32, u64>,
    /// Sessions that a flowtable carries.
    pub offloaded: u64,
    /// Device → bytes received and sent.
    pub bytes: BTreeMap<IfName, (u64, u64)>,
    /// Policy and uplink mark → new sessions.
    pub taken: BTreeMap<u32, u64>,
    /// Device → sessions pinned by their way in or by a specific route.
    pub pinned: BTreeMap<IfName, u64>,
    /// Policy name → bindings, both families.
    pub bindings: BTreeMap<String, u64>,
    /// Service name → bindings, both families.
    pub bindings_of_services: BTreeMap<String, u64>,
    /// Service name → a map of its that holds no more.
    pub full: BTreeMap<String, String>,
    /// Group and server → what it carries.
    pub servers: BTreeMap<(Name, Name), ServerMeasures>,
    /// Map of bindings → how many it holds.
    pub maps: BTreeMap<String, u64>,
    /// When sessions and bindings were counted.
    pub counted: Option<SystemTime>,
    /// Entries of connection tracking, and how many there may be.
    pub conntrack: Option<(u64, u64)>,
}

/// What a server carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServerMeasures {
    /// Live sessions.
    pub sessions: u64,
    /// Clients that are bound to it.
    pub bindings: u64,
    /// New sessions since its table was made.
    pub taken: u64,
}
