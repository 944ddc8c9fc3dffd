//! `homing run`: puts the parts together.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{mpsc, watch};

use super::evacuator::Evacuator;
use super::exclusive::Exclusive;
use super::loading::{LoadError, load_profile};
use super::main_task::{MainTask, Workers};
use super::reader::Reader;
use super::reconciler::Reconciler;
use super::requests::Request;
use super::state::StateDir;
use super::sweeper::Sweeper;
use super::usher::Usher;
use crate::clock;
use crate::kernel::{self, Hush, Kernel as _, KernelError, Linux, NetlinkError, Notices, Ranges};
use crate::kstate::{Missing, Rule, Step};
use crate::model::Api;
use crate::plan::{Layout, Remembered, View};

/// Where things are.
#[derive(Debug, Clone)]
pub struct Options {
    /// The profile.
    pub profile: PathBuf,
    /// For the socket.
    pub runtime_dir: PathBuf,
    /// For what must outlive a reboot.
    pub state_dir: PathBuf,
}

/// Checks of servers, probes of uplinks and people who look have room with so many open files.
const OPEN_FILES: u64 = 8192;

/// Why the process cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The profile.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The host cannot do what we need.
    #[error("{}", .0.join("\n"))]
    Host(Vec<String>),
    /// Another process has this namespace.
    #[error("another homing runs in this network namespace: stop it first, or use `homing reload`")]
    Running,
    /// A netlink socket.
    #[error("cannot talk to the kernel")]
    Kernel(#[from] KernelError),
    /// The kernel's notices.
    #[error("cannot hear the kernel's notices")]
    Notices(#[from] NetlinkError),
    /// Anything else of the system.
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
    /// The reconciler ended.
    #[error("the reconciler ended unexpectedly")]
    Reconciler,
}

/// Runs until SIGTERM or SIGINT. The data plane stays in place. What `open` gives, once this process
/// has the namespace, is kept until the end. How the API is to listen is told by `api`.
///
/// # Errors
/// When it cannot start, or loses the kernel.
pub async fn run<Open>(
    options: Options,
    requests: mpsc::Receiver<Request>,
    api: watch::Sender<Api>,
    open: impl FnOnce() -> io::Result<Open>,
) -> Result<(), RunError> {
    let (site, warnings) = load_profile(&options.profile)?;
    eprint!("{warnings}");
    let told = |missing: Vec<Missing>| missing.iter().map(Missing::to_string).collect();
    kernel::probe_features().map_err(|missing| RunError::Host(told(missing)))?;
    let held = Exclusive::take().map_err(|e| RunError::System("take the lock", e))?;
    let _held = held.ok_or(RunError::Running)?;
    allow_open_files();
    let mut state = StateDir::open(&options.state_dir);
    let hush = Hush::default();
    let notices = Notices::open(&hush)?;
    let routing = site.routing;
    let ranges =
        Ranges { first_priority: routing.first_priority, first_table: routing.first_table };
    let mut linux = Linux::open(ranges)?.hushed(&hush);
    let seen = linux.observe()?;
    let mut known = state.remembered().clone();
    if let Some(table) = &seen.ours.nft {
        // The kernel's word, which live sessions carry, goes before the file's.
        known.merge(Remembered::from_kernel(table));
    }
    claim_rules(&mut linux, seen.facts.rules);
    let layout = Arc::new(Layout::new(site, &known));
    let standings = state.standings(clock::wall());
    let mut ids = state.remembered().clone();
    ids.learn(&layout.ids);
    state.keep(ids, routing);
    let (reconciler, reports) =
        Reconciler::start(linux, state).map_err(|e| RunError::System("start a thread", e))?;
    let (sweeper, mended) =
        Sweeper::start(ranges, hush.clone()).map_err(|e| RunError::System("start a thread", e))?;
    let (evacuator, evacuated) = Evacuator::start(ranges, hush.clone())
        .map_err(|e| RunError::System("start a thread", e))?;
    sweeper.watch(layout.clone(), View::default(), false);
    let _open = open().map_err(|e| RunError::System("open the socket", e))?;
    let reader = Reader::start(Linux::open(ranges)?, Linux::open(ranges)?);
    let usher =
        Usher::start(ranges, hush.clone()).map_err(|e| RunError::System("start a thread", e))?;
    let workers = Workers {
        usher,
        reconciler,
        sweeper,
        evacuator,
        reader: reader.map_err(|e| RunError::System("start a thread", e))?,
        linux: Linux::open(ranges)?.hushed(&hush),
        hush,
    };
    let main = MainTask::new(layout, &standings, known, options.profile, workers, api);
    main.live(notices, reports, mended, evacuated, requests).await
}

/// As many as we want, if the limit that only root may pass is not below.
fn allow_open_files() {
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = OPEN_FILES.min(hard);
        if soft < wanted {
            setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
        }
        Ok(soft.max(wanted))
    });
    match allowed {
        Ok(allowed) if allowed >= OPEN_FILES => {}
        Ok(allowed) => tracing::warn!(
            "only {allowed} files may be open at once: with many servers or sessions of people who \
             look, probes may fail; allow {OPEN_FILES} (`LimitNOFILE=`, `ulimit -Hn`)"
        ),
        Err(error) => tracing::warn!("how many files may be open is not known: {error}"),
    }
}

/// Rules of others that stand among ours already are left alone, but not in silence.
fn claim_rules(linux: &mut Linux, foreign: BTreeSet<Rule>) {
    let among: BTreeSet<Rule> =
        foreign.into_iter().filter(|rule| linux.ranges().holds_rule(rule)).collect();
    for rule in &among {
        let command = Step::AddRule(rule.clone()).commands().join(" ");
        tracing::warn!(
            "somebody else's rule stands among ours, left alone: `{command}`; give us other \
             numbers with `routing.priority`"
        );
    }
    linux.claim_rules(among);
}
