//! Asks the running process, in a thread of its own, so that a slow answer holds up no key.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use serde_json::Value;

use crate::api::{Client, ClientError};
use crate::clock;

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);
/// Where an answer takes long (ten thousand services), less often: asking takes one part of so many.
const PARTS: u32 = 100;
/// But no less often than this.
const SELDOM: Duration = Duration::from_secs(10);

/// More events than any terminal shows.
const EVENTS: &str = "/v1/events?limit=100";

/// What is wanted of the process.
#[derive(Debug)]
pub(super) enum Ask {
    /// To do something: a path of the API.
    Order(String),
}

/// What was heard.
#[derive(Debug)]
pub(super) enum News {
    /// How things are.
    Status(Value),
    /// What happened last; the oldest comes first.
    Events(Value),
    /// There is no answer.
    Silence(String),
    /// An order was refused.
    Refused(String),
    /// An order was carried out.
    Done,
}

/// The thread's other end; the thread ends with it.
#[derive(Debug)]
pub(super) struct Source {
    orders: Sender<Ask>,
    news: Receiver<News>,
}

impl Source {
    /// Starts to ask the process with this runtime directory.
    ///
    /// # Errors
    /// When there can be no other thread.
    pub(super) fn start(runtime_dir: &Path) -> io::Result<Source> {
        let client = Client::new(runtime_dir);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (orders, asked) = channel();
        let (tell, news) = channel();
        let work = move || {
            let mut pause = EVERY;
            while let Ok(heard) = next(&asked, pause, &runtime, &client) {
                pause = (heard.took * PARTS).clamp(EVERY, SELDOM);
                if heard.news.into_iter().try_for_each(|one| tell.send(one)).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("source".to_owned()).spawn(work)?;
        Ok(Source { orders, news })
    }

    /// What was heard since the last call.
    pub(super) fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter()
    }

    /// Asks for something.
    pub(super) fn ask(&self, ask: Ask) {
        // A thread that has ended has told why.
        let _ = self.orders.send(ask);
    }
}

/// What a look gave, and how long it took.
struct Heard {
    news: Vec<News>,
    took: Duration,
}

/// Waits for an order, or until it is time to look; an error when nobody listens any more.
fn next(
    asked: &Receiver<Ask>,
    pause: Duration,
    runtime: &tokio::runtime::Runtime,
    client: &Client,
) -> Result<Heard, RecvTimeoutError> {
    let mut news = match asked.recv_timeout(pause) {
        Ok(Ask::Order(path)) => match runtime.block_on(client.post(&path)) {
            Ok(_) => vec![News::Done],
            Err(error) => vec![News::Refused(error.to_string())],
        },
        Err(RecvTimeoutError::Timeout) => Vec::new(),
        Err(gone @ RecvTimeoutError::Disconnected) => return Err(gone),
    };
    let begun = clock::now();
    news.extend(runtime.block_on(look(client)));
    Ok(Heard { news, took: clock::now().duration_since(begun) })
}

async fn look(client: &Client) -> Vec<News> {
    match client.get("/v1/status").await {
        Ok(status) => {
            let events = client.get(EVENTS).await;
            let events = events.or_else(|error| match error {
                // A process that keeps none.
                ClientError::Refused(_) => Ok(Value::Null),
                other => Err(other),
            });
            let mut heard = vec![News::Status(status)];
            heard.extend(events.map(News::Events));
            heard
        }
        Err(error) => vec![News::Silence(error.to_string())],
    }
}
