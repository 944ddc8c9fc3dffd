//! Tells people elsewhere, as `notify` in the profile says: one task for each entry.
//!
//! Each task follows the log of events like any other follower: when its webhook never answers or its
//! command hangs, it falls behind and in the end misses some, and nobody waits for it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::AbortHandle;

use super::events::{EventLog, EventRecord};
use crate::clock;
use crate::model::{Family, Host, Messenger, Name, Notify, Url};
use crate::probe::{Path, Postman};

/// The first pause between two tries of a webhook, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Before the first try: the router's own traffic may just be leaving a dead uplink itself.
const SETTLE: Duration = Duration::from_millis(300);

/// What could not be delivered for so long is let go.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// What became of the notices of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NoticeCounts {
    /// Taken by the server, or by a program that ended well.
    pub delivered: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Given up, or missed because too many came.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Tally {
    delivered: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
}

/// One entry at work.
#[derive(Debug)]
struct Sink {
    notify: Notify,
    site: String,
    tally: Arc<Tally>,
    task: AbortHandle,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The main task's end of all of them.
#[derive(Debug)]
pub(super) struct Notifier {
    sinks: BTreeMap<Name, Sink>,
    /// The ways out that are usable now.
    ways: watch::Sender<Vec<Path>>,
}

impl Notifier {
    pub(super) fn new() -> Notifier {
        Notifier { sinks: BTreeMap::new(), ways: watch::channel(Vec::new()).0 }
    }

    /// These are told from now on; whose entry is as it was goes on with what it has.
    pub(super) fn adopt(&mut self, site: &str, wanted: &[Notify], log: &EventLog) {
        let mut before = std::mem::take(&mut self.sinks);
        for notify in wanted {
            let same = |sink: &Sink| sink.notify == *notify && sink.site == site;
            let sink = match before.remove(&notify.name).filter(same) {
                Some(sink) => sink,
                None => self.start(site, notify, log),
            };
            self.sinks.insert(notify.name.clone(), sink);
        }
    }

    fn start(&self, site: &str, notify: &Notify, log: &EventLog) -> Sink {
        let tally = Arc::new(Tally::default());
        let teller = Teller {
            site: site.to_owned(),
            notify: notify.clone(),
            tally: tally.clone(),
            ways: self.ways.subscribe(),
            postman: Postman::default(),
        };
        let (_, events) = log.follow();
        let task = tokio::spawn(teller.work(events)).abort_handle();
        Sink { notify: notify.clone(), site: site.to_owned(), tally, task }
    }

    pub(super) fn tells_somebody(&self) -> bool {
        !self.sinks.is_empty()
    }

    /// These ways out are usable now.
    pub(super) fn set_ways(&self, usable: Vec<Path>) {
        self.ways.send_if_modified(|ways| {
            let other = *ways != usable;
            *ways = usable;
            other
        });
    }

    pub(super) fn counts(&self) -> BTreeMap<String, NoticeCounts> {
        let counts = |(name, sink): (&Name, &Sink)| {
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let Tally { delivered, failed, lost } = &*sink.tally;
            let (delivered, failed, lost) = (read(delivered), read(failed), read(lost));
            (name.to_string(), NoticeCounts { delivered, failed, lost })
        };
        self.sinks.iter().map(counts).collect()
    }
}

struct Teller {
    site: String,
    notify: Notify,
    tally: Arc<Tally>,
    ways: watch::Receiver<Vec<Path>>,
    postman: Postman,
}

impl Teller {
    async fn work(mut self, mut events: broadcast::Receiver<Arc<EventRecord>>) {
        let wanted: Vec<&str> = self.notify.events.iter().map(|kind| kind.as_str()).collect();
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(lost)) => {
                    self.tally.lost.fetch_add(lost, Ordering::Relaxed);
                    tracing::warn!("notify {}: behind, missed {lost} events", self.notify.name);
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            if !wanted.contains(&event.kind) {
                continue;
            }
            let text = letter(&self.site, &event).to_string();
            let delivered = match &self.notify.by {
                Messenger::Webhook(url) => {
                    let url = url.clone();
                    self.post(&url, text).await
                }
                Messenger::Command(words) => {
                    let told = run(words, self.notify.timeout, &self.site, &event, text).await;
                    if let Err(why) = &told {
                        self.tally.failed.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!("notify {}: {} {why}", self.notify.name, words[0]);
                    }
                    told.is_ok()
                }
            };
            let count = if delivered { &self.tally.delivered } else { &self.tally.lost };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tries until it is delivered, or has become old; sooner than the pause says when other uplinks
    /// are usable.
    async fn post(&mut self, url: &Url, text: String) -> bool {
        let begun = clock::now();
        let (mut pause, mut tries) = (PAUSE.0, 0);
        tokio::time::sleep(SETTLE).await;
        loop {
            self.ways.borrow_and_update();
            tries += 1;
            let why = match self.post_by_any(url, &text).await {
                Ok(()) if tries == 1 => return true,
                Ok(()) => {
                    tracing::info!("notify {}: delivered at try {tries}", self.notify.name);
                    return true;
                }
                Err(why) => why,
            };
            let old = begun.elapsed() > GIVE_UP;
            if tries == 1 || old {
                let next = if old { "given up" } else { "trying again" };
                // Not the address: it may hold a secret.
                tracing::warn!("notify {}: {why}; {next}", self.notify.name);
            }
            if old {
                return false;
            }
            // A change that comes while nothing waits is seen at the next look.
            let until = clock::now() + pause;
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                Ok(()) = self.ways.changed() => tokio::time::sleep(PAUSE.0.min(pause)).await,
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// By the way that the router's own traffic takes; failing that, by each usable uplink.
    async fn post_by_any(&mut self, url: &Url, text: &str) -> Result<(), String> {
        let limit = self.notify.timeout;
        let addresses = match &url.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => look_up(name, limit).await?,
        };
        let ways = self.ways.borrow().clone();
        let mut why = "no address".to_owned();
        for address in addresses {
            let of_family = |way: &&Path| Family::of(way.source) == Family::of(address);
            for way in std::iter::once(None).chain(ways.iter().filter(of_family).map(Some)) {
                let posting = self.postman.post(url, address, way, text.to_owned());
                match tokio::time::timeout(limit, posting).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(error)) => why = error,
                    Err(_) => why = format!("no answer within {} s", limit.as_secs_f64()),
                }
                self.tally.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Err(why)
    }
}

async fn look_up(name: &str, limit: Duration) -> Result<Vec<IpAddr>, String> {
    let looking = tokio::time::timeout(limit, tokio::net::lookup_host((name, 0)));
    let found = looking.await.map_err(|_| format!("{name} is not resolved in time"))?;
    let found = found.map_err(|error| format!("{name} is not resolved: {error}"))?;
    Ok(found.map(|address| address.ip()).collect())
}

/// The event as it is sent; chat services show its `text`.
fn letter(site: &str, event: &EventRecord) -> Value {
    let mut letter = json!({ "version": 1, "site": site });
    if let (Some(all), Ok(Value::Object(event))) =
        (letter.as_object_mut(), serde_json::to_value(event))
    {
        all.extend(event);
    }
    letter
}

/// Runs a program with the event on its standard input. It is ended, with all that it began, when it
/// takes too long.
async fn run(
    words: &[String],
    limit: Duration,
    site: &str,
    event: &EventRecord,
    text: String,
) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("HOMING_SITE", site)
        .env("HOMING_EVENT", event.kind)
        .env("HOMING_LEVEL", event.level)
        .env("HOMING_TEXT", &event.text)
        .env("HOMING_UPLINK", event.uplink.as_deref().unwrap_or_default())
        .env("HOMING_SERVER", event.server.as_deref().unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true);
    let started = start_without_rights(command).await;
    let mut child = started.map_err(|error| format!("cannot be started: {error}"))?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let outcome = tokio::time::timeout(limit, feed(&mut child, text)).await;
    if outcome.is_ok() {
        // What it left behind when it ended by itself is its own affair.
        group.0 = None;
    }
    outcome.unwrap_or_else(|_| {
        Err(format!("was ended: it took longer than {} s", limit.as_secs_f64()))
    })
}

/// Starts a program without the capabilities that homing hands on to `nft` (ambient ones). They
/// belong to threads: so one of its own gives them up.
async fn start_without_rights(mut command: Command) -> io::Result<Child> {
    let runtime = Handle::current();
    let (sender, started) = oneshot::channel();
    let start = move || {
        let _within = runtime.enter();
        let child = rustix::thread::clear_ambient_capability_set()
            .map_err(io::Error::from)
            .and_then(|()| command.spawn());
        // Whoever has been aborted meanwhile has no use for it; it ends with this.
        let _ = sender.send(child);
    };
    thread::Builder::new().name("notify".to_owned()).spawn(start)?;
    started.await.map_err(|_| io::Error::other("its thread ended"))?
}

/// A program and all that it began: ended with this.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended this very moment.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

async fn feed(child: &mut Child, text: String) -> Result<(), String> {
    if let Some(mut input) = child.stdin.take() {
        // A program need not read what it does not want to know.
        let _ = input.write_all(text.as_bytes()).await;
        let _ = input.write_all(b"\n").await;
    }
    let status = child.wait().await.map_err(|error| format!("was lost: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("failed: {status}")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test says what it expects

    use std::time::{Duration, SystemTime};

    use super::{letter, run};
    use crate::daemon::events::{EventLog, Level, Told};
    use crate::model::EventKind;

    fn tell(script: &str, limit: Duration) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = Told::new(Level::Warning, EventKind::Failover, "it goes").of_uplink("fiber");
        let event = EventLog::new().record(told, SystemTime::UNIX_EPOCH);
        let words = ["/bin/sh", "-c", script].map(str::to_owned);
        let text = letter("office", &event).to_string();
        runtime.block_on(run(&words, limit, "office", &event, text))
    }

    #[test]
    fn a_program_gets_the_event_as_json_and_in_its_environment() {
        let check = "[ \"$HOMING_EVENT $HOMING_UPLINK $HOMING_TEXT\" = 'failover fiber it goes' ] \
                     && grep -q '\"site\":\"office\",.*\"text\":\"it goes\"'";
        assert_eq!(tell(check, Duration::from_secs(20)), Ok(()));
        assert!(tell("exit 3", Duration::from_secs(20)).unwrap_err().contains("exit status: 3"));
        assert_eq!(tell("exec <&-", Duration::from_secs(20)), Ok(()), "it need not read");
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let file = std::env::temp_dir().join(format!("homing-hook-{}", std::process::id()));
        let script = format!("sleep 600 & echo $! > {}; wait", file.display());
        let limit = Duration::from_secs(1);
        assert!(tell(&script, limit).unwrap_err().contains("longer than 1 s"));
        let child = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        let begun = std::time::Instant::now();
        while !gone() {
            assert!(begun.elapsed() < Duration::from_secs(10), "its child lives");
            std::thread::yield_now();
        }
    }
}
