//! The main task: hears everything, decides by the engine, hands work over, and waits for none of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::engine::{Action, Engine, Event, Level};
use super::loading::{LoadError, load_profile};
use super::mending::Mended;
use super::reader::{Asked, Reader};
use super::reconciler::{InForce, Order, Reconciler};
use super::report::Report;
use super::requests::{Refusal, Request};
use super::run::RunError;
use super::status::{Background, Sample, Status, build_status};
use super::sweeper::Sweeper;
use crate::clock;
use crate::kernel::{Hush, Kernel as _, Linux, Notice, Notices};
use crate::kstate::{NftOp, Step};
use crate::model::Site;
use crate::plan::{Layout, Remembered};

/// How often rates are measured while nobody asks.
const SAMPLING: Duration = Duration::from_secs(10);

/// How long somebody who asks for figures waits for them, before he gets the rest without them.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who works for the main task.
pub(super) struct Workers {
    pub(super) reconciler: Reconciler,
    pub(super) sweeper: Sweeper,
    pub(super) reader: Reader,
    /// For the short way, which this task goes itself.
    pub(super) linux: Linux,
    pub(super) hush: Hush,
}

/// Who waits for a profile to be in force.
type Reply = oneshot::Sender<Result<u64, Refusal>>;

/// Work that this task had begun elsewhere, and that is done.
enum Done {
    /// Figures were read: for this asker, or for the rates.
    Measured(Sample, Option<oneshot::Sender<Status>>),
    /// The profile was read, for these askers.
    Loaded(Box<Result<(Site, String), LoadError>>, Vec<Reply>),
}

/// All that the task knows.
pub(super) struct MainTask {
    engine: Engine,
    profile: PathBuf,
    workers: Workers,
    remembered: Remembered,
    since: SystemTime,
    pending: JoinSet<Done>,
    /// Who has asked for the profile to be read again, from now on.
    askers: Vec<Reply>,
    /// The profile is being read; and it is to be read again after that.
    loading: bool,
    again: bool,
    /// Who waits for which generation.
    waiting: Vec<(u64, Reply)>,
    sample: Option<Sample>,
    last_steer: Option<Duration>,
}

impl MainTask {
    pub(super) fn new(
        layout: Arc<Layout>,
        mut remembered: Remembered,
        profile: PathBuf,
        workers: Workers,
    ) -> MainTask {
        remembered.learn(&layout.ids);
        MainTask {
            engine: Engine::new(layout, clock::now()),
            profile,
            workers,
            remembered,
            since: clock::wall(),
            pending: JoinSet::new(),
            askers: Vec::new(),
            loading: false,
            again: false,
            waiting: Vec::new(),
            sample: None,
            last_steer: None,
        }
    }

    /// Goes on until SIGTERM or SIGINT.
    pub(super) async fn live(
        mut self,
        mut notices: Notices,
        mut reports: mpsc::UnboundedReceiver<(Report, InForce)>,
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
            // None waits for anything else: new sessions must leave a dead link meanwhile.
            tokio::select! {
                notice = notices.next() => match notice {
                    Ok(notice) => {
                        let heard = all_heard(notice, &mut notices).await;
                        self.handle(Event::Noticed(heard));
                    }
                    Err(error) => {
                        tracing::warn!("kernel notices failed, opening them again: {error}");
                        notices = Notices::open(&self.workers.hush)?;
                        self.handle(Event::Noticed(vec![Notice::Overrun]));
                    }
                },
                report = reports.recv() => {
                    let (report, in_force) = report.ok_or(RunError::Reconciler)?;
                    self.handle(Event::Reported(Box::new(report), in_force));
                }
                Some(mended) = mended.recv() => self.handle(Event::Mended(mended)),
                Some(request) = requests.recv() => self.answer(request),
                Some(done) = self.pending.join_next() => match done {
                    Ok(done) => self.finish(done),
                    Err(error) => tracing::error!("a task of ours ended: {error}"),
                },
                _ = hangup.recv() => self.reload(None),
                _ = sampling.tick() => self.measure(None),
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
                Action::Round(round) => self.workers.reconciler.send(Order::Round(round)),
                Action::Steer(ops) => self.steer(ops, now),
                Action::Mend(layout, mender) => self.workers.sweeper.mend(layout, mender),
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
        let outcome = self.workers.linux.apply(&Step::Nft(ops));
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

    fn answer(&mut self, request: Request) {
        let layout = self.engine.layout.clone();
        match request {
            Request::Status(reply) => self.measure(Some(reply)),
            Request::Bindings(reply) => self.workers.reader.ask(Asked::Bindings(layout, reply)),
            Request::Explain(question, reply) => {
                self.workers.reader.ask(Asked::Explain(layout, question, reply));
            }
            Request::Reload(reply) => self.reload(Some(reply)),
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Measured(sample, Some(reply)) => {
                // Whoever does not wait any more does not mind.
                let _ = reply.send(self.status(&sample));
            }
            Done::Measured(sample, None) => self.sample = Some(sample),
            Done::Loaded(loaded, replies) => {
                self.loading = false;
                self.wish(*loaded, replies);
                if std::mem::take(&mut self.again) {
                    self.load();
                }
            }
        }
    }

    fn reload(&mut self, reply: Option<Reply>) {
        self.askers.extend(reply);
        if self.loading {
            self.again = true;
        } else {
            self.load();
        }
    }

    /// Reads the profile elsewhere: that may take a while.
    fn load(&mut self) {
        self.loading = true;
        let (file, replies) = (self.profile.clone(), std::mem::take(&mut self.askers));
        self.pending.spawn_blocking(move || Done::Loaded(Box::new(load_profile(&file)), replies));
    }

    fn wish(&mut self, loaded: Result<(Site, String), LoadError>, replies: Vec<Reply>) {
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
                self.workers.sweeper.watch(layout.clone());
                self.handle(Event::Wished(layout));
                let generation = self.engine.generation;
                self.waiting.extend(replies.into_iter().map(|reply| (generation, reply)));
                tracing::info!("profile read again: generation {generation}");
            }
            Err(refusal) => {
                tracing::error!("reload refused, the running profile stays in force:\n{refusal}");
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

    /// Has figures read.
    fn measure(&mut self, reply: Option<oneshot::Sender<Status>>) {
        let (ask, answer) = oneshot::channel();
        self.workers.reader.ask(Asked::Measures(self.engine.layout.clone(), ask));
        self.pending.spawn(async move {
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            let measures = answer.ok().and_then(Result::ok).unwrap_or_default();
            Done::Measured(Sample { at: clock::now(), measures }, reply)
        });
    }

    fn status(&self, now: &Sample) -> Status {
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
        build_status(&self.engine.layout, report, &background, self.sample.as_ref(), now)
    }
}

fn watchdog_interval() -> Duration {
    let asked = sd_notify::watchdog_enabled().map(|limit| limit / 3);
    asked.unwrap_or(Duration::from_secs(3600)).max(Duration::from_millis(100))
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// This notice, and what else has arrived by now: many links may go at once, as of one modem.
async fn all_heard(first: Notice, notices: &mut Notices) -> Vec<Notice> {
    let mut heard = vec![first];
    while heard.len() < 1024 {
        match notices.arrived().await {
            Some(notice) => heard.push(notice),
            None => break,
        }
    }
    heard
}
