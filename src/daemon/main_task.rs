//! The main task: hears everything, decides by the engine, hands work over, and waits for none of it.

mod figures;
mod orders;
mod reloading;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::checks::CheckAsk;
use super::engine::{Action, Engine, Event};
use super::evacuator::{Evacuated, Evacuator};
use super::events::{EventLog, Level, Told};
use super::judge::{Ask, Judge};
use super::loading::LoadError;
use super::loads::Loads;
use super::mending::Mended;
use super::notifier::Notifier;
use super::reader::{Asked, Reader};
use super::reconciler::{InForce, Order, Reconciler};
use super::report::Report;
use super::requests::{Census, Refusal, Request};
use super::run::RunError;
use super::status::{Reading, Sample, Status};
use super::sweeper::Sweeper;
use super::usher::Usher;
use super::walker::Walk;
use crate::clock;
use crate::health::Question;
use crate::kernel::{
    Announcer, Hush, Kernel as _, Linux, Neighbours, Notice, Notices, read_device_bytes,
};
use crate::kstate::{NftOp, OwnAddress, Step};
use crate::model::{Api, Family, Outcome, Site};
use crate::plan::{Layout, Limits, Remembered, Standings};
use crate::probe::Prober;
use orders::{find_server, unknown};

/// How often rates are measured while nobody asks.
const SAMPLING: Duration = Duration::from_secs(10);

/// How often rates are measured while a policy chooses by measure.
const TRAFFIC: Duration = Duration::from_secs(1);

/// Answers are waited for longer than they may take by so much.
const GRACE: Duration = Duration::from_millis(200);

/// How often named targets are looked up, and how soon again after that failed.
const LOOKUP: Duration = Duration::from_secs(600);
const LOOKUP_AGAIN: Duration = Duration::from_secs(5);

/// How long a stop waits for what is still to be written.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// How long somebody who asks for figures waits for them, before he gets the rest without them.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who works for the main task.
pub(super) struct Workers {
    pub(super) reconciler: Reconciler,
    pub(super) sweeper: Sweeper,
    pub(super) evacuator: Evacuator,
    pub(super) usher: Usher,
    pub(super) reader: Reader,
    /// For the short way, which this task goes itself.
    pub(super) linux: Linux,
    pub(super) hush: Hush,
}

/// Who waits for a profile to be in force.
type Reply = oneshot::Sender<Result<u64, Refusal>>;

/// Work that this task had begun elsewhere, and that is done.
enum Done {
    /// Figures were read.
    Measured(Box<Sample>, For),
    /// The profile was read, for these askers.
    Loaded(Box<Result<(Site, String), LoadError>>, Vec<Reply>),
    /// A named target was looked up.
    Resolved(String, Vec<IpAddr>),
    /// Live connections were counted, if they could be.
    Loads(Option<Loads>),
}

/// Whom figures are for.
enum For {
    /// This asker.
    Status(oneshot::Sender<Status>),
    /// The same, who wants to know more.
    Census(oneshot::Sender<Census>),
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
    /// What devices had carried a while ago: the rates are since then.
    reading: Option<Reading>,
    last_steer: Option<Duration>,
    prober: Prober,
    /// The ways on which answers come back: of targets, and of servers.
    answers: (UnboundedSender<Answer>, UnboundedReceiver<Answer>),
    checked: (UnboundedSender<Checked>, UnboundedReceiver<Checked>),
    /// When named targets are looked up again.
    lookup: Instant,
    log: EventLog,
    notifier: Notifier,
    /// How the API is to listen.
    api: watch::Sender<Api>,
    /// What it cannot do.
    troubles: Vec<String>,
}

/// What came of a question.
type Answer = (Family, Question, Outcome);
/// The same, of a server: by whose inquiry.
type Checked = (u64, Question, Outcome);

impl MainTask {
    pub(super) fn new(
        layout: Arc<Layout>,
        standings: &Standings,
        mut remembered: Remembered,
        profile: PathBuf,
        workers: Workers,
        api: watch::Sender<Api>,
    ) -> MainTask {
        remembered.learn(&layout.ids);
        MainTask {
            engine: Engine::new(layout, standings, fastrand::u64(..), clock::now()),
            profile,
            workers,
            remembered,
            since: clock::wall(),
            pending: JoinSet::new(),
            askers: Vec::new(),
            loading: false,
            again: false,
            waiting: Vec::new(),
            reading: None,
            last_steer: None,
            prober: Prober::default(),
            answers: mpsc::unbounded_channel(),
            checked: mpsc::unbounded_channel(),
            lookup: clock::now(),
            log: EventLog::new(),
            notifier: Notifier::new(),
            api,
            troubles: Vec::new(),
        }
    }

    /// Goes on until SIGTERM or SIGINT.
    pub(super) async fn live(
        mut self,
        mut notices: Notices,
        mut reports: mpsc::UnboundedReceiver<(Report, InForce)>,
        mut mended: mpsc::UnboundedReceiver<Mended>,
        mut evacuated: mpsc::UnboundedReceiver<Evacuated>,
        mut requests: mpsc::Receiver<Request>,
    ) -> Result<(), RunError> {
        let on = |kind| signal(kind).map_err(|e| RunError::System("handle signals", e));
        let mut terminate = on(SignalKind::terminate())?;
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut hangup = on(SignalKind::hangup())?;
        let mut neighbours = Neighbours::open()?;
        let mut sampling = tokio::time::interval(SAMPLING);
        let mut traffic = tokio::time::interval(TRAFFIC);
        traffic.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut loads = tokio::time::interval(TRAFFIC);
        loads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchdog = tokio::time::interval(watchdog_interval());
        self.adopt_listeners();
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
                neighbour = neighbours.next() => match neighbour {
                    Ok(neighbour) => self.handle(Event::Unreachable(neighbour)),
                    Err(error) => {
                        tracing::warn!("notices of neighbours failed, opening them again: {error}");
                        neighbours = Neighbours::open()?;
                    }
                },
                report = reports.recv() => {
                    let (report, in_force) = report.ok_or(RunError::Reconciler)?;
                    if let Some(view) = &report.view {
                        let carries = report.carries_sessions();
                        self.workers.sweeper.watch(report.layout.clone(), view.clone(), carries);
                    }
                    self.handle(Event::Reported(Box::new(report), in_force));
                }
                Some(answer) = self.answers.1.recv() => {
                    let mut all = vec![answer];
                    while let Ok(more) = self.answers.1.try_recv() {
                        all.push(more);
                    }
                    self.handle(Event::Answered(all));
                }
                Some(answer) = self.checked.1.recv() => {
                    let mut all = vec![answer];
                    while let Ok(more) = self.checked.1.try_recv() {
                        all.push(more);
                    }
                    self.handle(Event::Checked(all));
                }
                () = sleep_until(Some(self.lookup)) => self.look_up(),
                Some(done) = evacuated.recv() => self.handle(Event::Evacuated(done)),
                Some(mended) = mended.recv() => self.handle(Event::Mended(mended)),
                Some(request) = requests.recv() => self.answer(request),
                Some(done) = self.pending.join_next() => match done {
                    Ok(done) => self.finish(done),
                    Err(error) => tracing::error!("a task of ours ended: {error}"),
                },
                _ = hangup.recv() => self.reload(None),
                _ = sampling.tick() => self.sample(),
                _ = traffic.tick(), if self.engine.wants_traffic() => self.read_traffic(),
                _ = loads.tick(), if self.engine.wants_loads() => self.read_loads(),
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
        // The next process is to know what was learned last.
        self.workers.reconciler.flush(LAST_WRITES).await;
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        let now = clock::now();
        for action in self.engine.handle(event, now, clock::wall()) {
            match action {
                Action::Round(round) => self.workers.reconciler.send(Order::Round(round)),
                Action::Steer(ops) => self.steer(ops, now),
                Action::Announce(addresses) => announce(addresses),
                Action::Ask(ask) => self.ask(*ask),
                Action::Check(ask) => self.check(*ask),
                Action::Paths(paths) => {
                    self.prober.keep(&paths);
                    self.tell_ways();
                }
                Action::Keep(standings) => {
                    self.workers.reconciler.keep(standings);
                }
                Action::Evacuate(order) => self.workers.evacuator.send(order),
                Action::Mend(layout, mender) => self.workers.sweeper.mend(layout, mender),
                Action::Restore(layout, view) => {
                    self.workers.usher.watch(Limits::new(&layout));
                    self.workers.sweeper.restore(layout, *view);
                }
                Action::Ready => {
                    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
                }
                Action::Tell(told) => self.tell(told),
                Action::Settled(generation, failure) => self.settle(generation, failure.as_ref()),
            }
        }
    }

    /// A line in the journal, an event for those who follow.
    fn tell(&mut self, told: Told) {
        match told.level {
            Level::Info => tracing::info!("{}", told.text),
            Level::Warning => tracing::warn!("{}", told.text),
            Level::Error => tracing::error!("{}", told.text),
        }
        if told.uplink.is_some() {
            self.tell_ways();
        }
        self.log.record(told, clock::wall());
    }

    /// Who is told, and where the API listens, is as the site in force says.
    fn adopt_listeners(&mut self) {
        let site = &self.engine.layout.site;
        self.notifier.adopt(&site.name, &site.notify, &self.log);
        self.api.send_replace(site.api.clone());
        self.tell_ways();
    }

    /// Notices may go other ways now.
    fn tell_ways(&self) {
        if self.notifier.tells_somebody() {
            self.notifier.set_ways(self.engine.usable_paths());
        }
    }

    /// How many live connections servers have: a walk over all sessions, elsewhere.
    fn read_loads(&mut self) {
        let (ask, answer) = oneshot::channel();
        self.workers.reader.walk(Walk::Loads(self.engine.layout.clone(), ask));
        self.pending.spawn(async move { Done::Loads(answer.await.ok()) });
    }

    /// What devices have carried: a small file.
    fn read_traffic(&mut self) {
        match read_device_bytes() {
            Ok(bytes) => self.handle(Event::Traffic(bytes)),
            Err(error) => tracing::debug!("rates are not known: {error}"),
        }
    }

    fn ask(&mut self, ask: Ask) {
        let Ask { family, question, target, path, resolved } = ask;
        // The board's time counts; an answer that comes a little later is still heard, in case the
        // board itself was held up.
        let asking = self.prober.ask(&target, &path, resolved, question.timeout + GRACE);
        let answers = self.answers.0.clone();
        tokio::spawn(async move {
            // If this task has ended, nobody wants to know.
            let _ = answers.send((family, question, asking.await));
        });
    }

    fn check(&mut self, ask: CheckAsk) {
        let CheckAsk { inquiry, question, way } = ask;
        let timeout = question.timeout + GRACE;
        let asking = self.prober.check(way.server, &way.kind, way.port, timeout);
        let answers = self.checked.0.clone();
        tokio::spawn(async move {
            // If this task has ended, nobody wants to know.
            let _ = answers.send((inquiry, question, asking.await));
        });
    }

    /// Looks named targets up, the way the host does.
    fn look_up(&mut self) {
        self.lookup = clock::now() + LOOKUP;
        for name in Judge::named(&self.engine.layout) {
            self.pending.spawn(async move {
                let found = tokio::net::lookup_host((name.as_str(), 0)).await;
                let addresses = found.map(|all| all.map(|one| one.ip()).collect());
                Done::Resolved(name, addresses.unwrap_or_default())
            });
        }
    }

    /// On this task, which costs less than to wake another: a batch takes a fraction of a
    /// millisecond. If it is refused, somebody changed our sets, and the round that follows repairs.
    fn steer(&mut self, ops: Vec<NftOp>, since: Instant) {
        let outcome = self.workers.linux.apply(&Step::Nft(ops));
        match outcome {
            Ok(()) => {
                self.last_steer = Some(since.elapsed());
                self.handle(Event::Steered);
            }
            Err(error) => tracing::debug!("not steered the short way: {error}"),
        }
    }

    /// Answers those who wait for a reload.
    fn settle(&mut self, generation: u64, failure: Option<&String>) {
        self.workers.usher.watch(Limits::new(&self.engine.layout));
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
            Request::Status(reply) => self.measure(For::Status(reply)),
            Request::Census(reply) => self.measure(For::Census(reply)),
            // Whoever does not wait any more does not mind.
            Request::Events(reply) => drop(reply.send(self.log.list())),
            Request::Follow(reply) => drop(reply.send(self.log.follow())),
            Request::Trouble(troubles) => self.troubles = troubles,
            Request::Bindings(reply) => {
                self.workers.reader.walk(Walk::Bindings(self.engine.sight(), reply));
            }
            Request::Explain(question, reply) => {
                self.workers.reader.ask(Asked::Explain(
                    layout,
                    self.engine.standings.clone(),
                    question,
                    reply,
                ));
            }
            Request::Reload(reply) => self.reload(Some(reply)),
            Request::OrderServer(group, server, admin, reply) => {
                let answer = find_server(&layout, group.as_deref(), &server).map(|seat| {
                    let told = format!("{}/{}", seat.0, seat.1);
                    self.handle(Event::OrderedServer(seat, admin));
                    told
                });
                // Whoever does not wait any more does not mind.
                let _ = reply.send(answer);
            }
            Request::Sessions(query, reply) => {
                self.workers.reader.walk(Walk::Sessions(self.engine.sight(), query, reply));
            }
            Request::Order(uplink, admin, reply) => {
                let known = layout.site.uplinks.iter().find(|one| one.name.as_str() == uplink);
                let answer = match known {
                    Some(uplink) => {
                        self.handle(Event::Ordered(uplink.name.clone(), admin));
                        Ok(())
                    }
                    None => Err(unknown(&uplink, &layout)),
                };
                // Whoever does not wait any more does not mind.
                let _ = reply.send(answer);
            }
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            // Whoever does not wait any more does not mind.
            Done::Measured(sample, For::Status(reply)) => drop(reply.send(self.status(&sample))),
            Done::Measured(sample, For::Census(reply)) => drop(reply.send(self.census(*sample))),
            Done::Loads(loads) => {
                if let Some(loads) = loads {
                    self.handle(Event::Loads(loads));
                }
            }
            Done::Resolved(name, addresses) => {
                if addresses.is_empty() {
                    // What it was before is better than nothing.
                    self.lookup = self.lookup.min(clock::now() + LOOKUP_AGAIN);
                } else {
                    self.handle(Event::Resolved(name, addresses));
                }
            }
            Done::Loaded(loaded, replies) => {
                self.loading = false;
                self.wish(*loaded, replies);
                if std::mem::take(&mut self.again) {
                    self.load();
                }
            }
        }
    }
}

/// Elsewhere, for the devices have to be read. If this process ends meanwhile, the next one announces.
fn announce(addresses: Vec<OwnAddress>) {
    tokio::task::spawn_blocking(move || {
        let told = Announcer::open().and_then(|announcer| announcer.announce(&addresses));
        if let Err(error) = told {
            tracing::warn!("{error}");
        }
    });
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
