//! `homing run`: puts the parts together and keeps them going.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::engine::{Action, Engine, Event, Level};
use super::exclusive::Exclusive;
use super::loading::{LoadError, load_profile};
use super::mending::Mended;
use super::reconciler::{Order, Reconciler};
use super::report::Measures;
use super::requests::{Refusal, Request};
use super::state::{StateDir, StateError};
use super::status::{Background, Sample, Status, build_status};
use super::sweeper::Sweeper;
use crate::clock;
use crate::kernel::{self, Kernel as _, KernelError, Linux, NetlinkError, Notices, Ranges};
use crate::kstate::{NftOp, Rule, Step};
use crate::model::Site;
use crate::plan::{Layout, Remembered};

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

/// Why the process cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The profile.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
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

/// How often rates are measured while nobody asks.
const SAMPLING: Duration = Duration::from_secs(10);

/// How long somebody who asks waits for the reconciler, which may be busy with a round.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT. The data plane stays in place. What `open` gives, once this process
/// has the namespace, is kept until the end.
///
/// # Errors
/// When it cannot start, or loses the kernel.
pub async fn run<Open>(
    options: Options,
    requests: mpsc::Receiver<Request>,
    open: impl FnOnce() -> io::Result<Open>,
) -> Result<(), RunError> {
    let (site, warnings) = load_profile(&options.profile)?;
    eprint!("{warnings}");
    kernel::probe_features().map_err(RunError::Host)?;
    let held = Exclusive::take().map_err(|e| RunError::System("take the lock", e))?;
    let _held = held.ok_or(RunError::Running)?;
    let mut state = StateDir::open(&options.state_dir)?;
    let notices = Notices::open()?;
    let routing = site.routing;
    let ranges =
        Ranges { first_priority: routing.first_priority, first_table: routing.first_table };
    let mut linux = Linux::open(ranges)?;
    let seen = linux.observe()?;
    let mut known = state.remembered().clone();
    if let Some(table) = &seen.ours.nft {
        // The kernel's word, which live sessions carry, goes before the file's.
        known.merge(Remembered::from_kernel(table));
    }
    claim_rules(&mut linux, seen.facts.rules);
    let layout = Arc::new(Layout::new(site, &known));
    let mut ids = state.remembered().clone();
    ids.learn(&layout.ids);
    if let Err(error) = state.keep(ids, routing) {
        tracing::warn!("ids are remembered by the kernel alone: {error}");
    }
    let (reconciler, reports) =
        Reconciler::start(linux, state).map_err(|e| RunError::System("start a thread", e))?;
    let (sweeper, mended) =
        Sweeper::start(ranges).map_err(|e| RunError::System("start a thread", e))?;
    sweeper.watch(layout.clone());
    let _open = open().map_err(|e| RunError::System("open the socket", e))?;
    let daemon = Daemon {
        engine: Engine::new(layout, clock::now()),
        options,
        reconciler,
        sweeper,
        linux: Linux::open(ranges)?,
        since: clock::wall(),
        waiting: Vec::new(),
        sample: None,
        last_steer: None,
    };
    daemon.live(notices, reports, mended, requests).await
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

/// The main task.
struct Daemon {
    engine: Engine,
    options: Options,
    reconciler: Reconciler,
    sweeper: Sweeper,
    /// For the short way.
    linux: Linux,
    since: SystemTime,
    waiting: Vec<(u64, oneshot::Sender<Result<u64, Refusal>>)>,
    sample: Option<Sample>,
    last_steer: Option<Duration>,
}

type Reports = mpsc::UnboundedReceiver<(super::report::Report, super::reconciler::InForce)>;

impl Daemon {
    async fn live(
        mut self,
        mut notices: Notices,
        mut reports: Reports,
        mut mended: mpsc::UnboundedReceiver<Mended>,
        mut requests: mpsc::Receiver<Request>,
    ) -> Result<(), RunError> {
        let on = |kind| signal(kind).map_err(|e| RunError::System("handle signals", e));
        let mut terminate = on(SignalKind::terminate())?;
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut hangup = on(SignalKind::hangup())?;
        let mut sampling = tokio::time::interval(SAMPLING);
        let mut watchdog = tokio::time::interval(watchdog_interval());
        self.handle(Event::Timer);
        loop {
            let due = self.engine.poll_timeout();
            // Every arm only waits for something to arrive: none loses anything when another wins.
            tokio::select! {
                notice = notices.next() => match notice {
                    Ok(notice) => self.handle(Event::Noticed(notice)),
                    Err(error) => {
                        tracing::warn!("kernel notices failed, opening them again: {error}");
                        notices = Notices::open()?;
                        self.handle(Event::Noticed(kernel::Notice::Overrun));
                    }
                },
                report = reports.recv() => {
                    let (report, in_force) = report.ok_or(RunError::Reconciler)?;
                    self.handle(Event::Reported(Box::new(report), in_force));
                }
                Some(mended) = mended.recv() => self.handle(Event::Mended(mended)),
                Some(request) = requests.recv() => self.answer(request).await,
                _ = hangup.recv() => {
                    if let Err(refusal) = self.reload(None).await {
                        tracing::error!("reload refused, the running profile stays in force:\n{refusal}");
                    }
                }
                _ = sampling.tick() => self.sample = Some(self.measure().await),
                _ = watchdog.tick() => {
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                }
                () = sleep_until(due) => self.handle(Event::Timer),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        tracing::info!("stopping; the data plane stays in place (remove it with `homing down`)");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        let now = clock::now();
        for action in self.engine.handle(event, now, clock::wall()) {
            match action {
                Action::Round(round) => self.reconciler.send(Order::Round(round)),
                Action::Steer(ops) => self.steer(ops, now),
                Action::Mend(layout, mender) => self.sweeper.mend(layout, mender),
                Action::Ready => {
                    tracing::info!("ready");
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
                }
                Action::Tell(Level::Info, text) => tracing::info!("{text}"),
                Action::Tell(Level::Warning, text) => tracing::warn!("{text}"),
                Action::Settled(generation, failure) => self.settle(generation, failure.as_ref()),
            }
        }
    }

    /// On this task, which costs less than to wake another: a batch takes a fraction of a
    /// millisecond. If it is refused, somebody changed our sets, and the round that follows repairs.
    fn steer(&mut self, ops: Vec<NftOp>, since: Instant) {
        let outcome = self.linux.apply(&Step::Nft(ops));
        match outcome {
            Ok(()) => self.last_steer = Some(since.elapsed()),
            Err(error) => tracing::debug!("not steered the short way: {error}"),
        }
    }

    /// Answers those who wait for a reload.
    fn settle(&mut self, generation: u64, failure: Option<&String>) {
        let (done, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|(wished, _)| *wished <= generation);
        self.waiting = waiting;
        for (_, reply) in done {
            let answer = match failure {
                None => Ok(generation),
                Some(reason) => Err(Refusal(format!("not everything is in force: {reason}"))),
            };
            let _ = reply.send(answer);
        }
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Status(reply) => {
                let status = self.status().await;
                let _ = reply.send(status);
            }
            Request::Bindings(reply) => {
                self.reconciler.send(Order::Bindings(self.engine.layout.clone(), reply));
            }
            Request::Reload(reply) => {
                if let Err(refusal) = self.reload(Some(reply)).await {
                    tracing::warn!(
                        "reload refused, the running profile stays in force:\n{refusal}"
                    );
                }
            }
        }
    }

    async fn reload(
        &mut self,
        reply: Option<oneshot::Sender<Result<u64, Refusal>>>,
    ) -> Result<(), Refusal> {
        match self.load_again().await {
            Ok(layout) => {
                self.reconciler.send(Order::Keep(layout.clone()));
                self.sweeper.watch(layout.clone());
                self.handle(Event::Wished(layout));
                self.waiting.extend(reply.map(|reply| (self.engine.generation, reply)));
                tracing::info!("profile read again: generation {}", self.engine.generation);
                Ok(())
            }
            Err(refusal) => {
                if let Some(reply) = reply {
                    let _ = reply.send(Err(refusal.clone()));
                }
                Err(refusal)
            }
        }
    }

    async fn load_again(&self) -> Result<Arc<Layout>, Refusal> {
        let (site, warnings) =
            load_profile(&self.options.profile).map_err(|error| Refusal(error.to_string()))?;
        if !warnings.is_empty() {
            tracing::warn!("{}", warnings.trim_end());
        }
        self.refuse_other_numbers(&site)?;
        let (reply, answer) = oneshot::channel();
        self.reconciler.send(Order::Remember(reply));
        let mut remembered = answer.await.unwrap_or_default();
        remembered.learn(&self.engine.layout.ids);
        Ok(Arc::new(Layout::new(site, &remembered)))
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

    async fn measure(&self) -> Sample {
        let (reply, answer) = oneshot::channel();
        self.reconciler.send(Order::Measure(self.engine.layout.clone(), reply));
        let measures = match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(measures)) => measures,
            Ok(Err(_)) | Err(_) => Measures::default(),
        };
        Sample { at: clock::now(), measures }
    }

    async fn status(&self) -> Status {
        let now = self.measure().await;
        let background = Background {
            ready: self.engine.ready,
            generation: self.engine.generation,
            since: self.since,
            applying: self.engine.is_applying(),
            last_apply_ms: self.engine.last_apply_ms,
            last_steer_ms: self.last_steer.map(|took| took.as_secs_f64() * 1000.0),
            drift_repairs: self.engine.drift_repairs,
            sessions_adopted: self.engine.sessions_adopted,
            sessions_ended: self.engine.sessions_ended,
            uplinks_since: self.engine.uplinks_since.clone(),
        };
        let report = self.engine.report.as_ref();
        build_status(&self.engine.layout, report, &background, self.sample.as_ref(), &now)
    }
}

fn watchdog_interval() -> Duration {
    let asked = sd_notify::watchdog_enabled().map(|limit| limit / 3);
    asked.unwrap_or(Duration::from_secs(3600)).max(Duration::from_millis(100))
}

async fn sleep_until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
