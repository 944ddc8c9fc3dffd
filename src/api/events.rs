//! `GET /v1/events`: what has happened, as a list or as a stream (server-sent events, as in the HTML
//! standard): each with its number, so a reader who comes back gets what he missed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use schemars::JsonSchema;
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::answers::{Answer, Desk, Refused, json};
use super::connections::Endless;
use crate::daemon::{EventRecord, Request};
use crate::model::EventKind;

/// A comment so often, when nothing happens: so both ends see whether the other is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which events are wanted.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    /// Of these kinds, with commas between them.
    kind: Option<String>,
    uplink: Option<String>,
    server: Option<String>,
    /// After the event of this number.
    since: Option<u64>,
    /// The last of them, at most so many; of lists alone.
    limit: Option<usize>,
}

/// The list.
#[derive(Debug, serde::Serialize, JsonSchema)]
pub(super) struct Events {
    /// Always 1.
    version: u32,
    /// Oldest first.
    events: Vec<EventRecord>,
}

impl Wanted {
    fn read(asked: Result<Query<Wanted>, QueryRejection>) -> Answer<Wanted> {
        let bad = |reason| Refused::new(StatusCode::BAD_REQUEST, reason);
        let Query(wanted) = asked.map_err(|rejection| bad(rejection.body_text()))?;
        let kinds = wanted.kind.iter().flat_map(|kinds| kinds.split(','));
        for kind in kinds {
            if EventKind::parse(kind).is_none() {
                let all = EventKind::ALL.map(EventKind::as_str).join(", ");
                return Err(bad(format!("`{kind}` is no kind of event: there are {all}")));
            }
        }
        Ok(wanted)
    }

    fn select(&self, events: &[Arc<EventRecord>]) -> Events {
        let since = self.since.unwrap_or(0);
        let fit = |event: &&Arc<EventRecord>| event.number > since && self.admits(event);
        let mut events: Vec<EventRecord> =
            events.iter().filter(fit).map(|event| (**event).clone()).collect();
        let surplus = events.len().saturating_sub(self.limit.unwrap_or(usize::MAX));
        events.drain(..surplus);
        Events { version: 1, events }
    }

    fn admits(&self, event: &EventRecord) -> bool {
        let is = |wanted: &Option<String>, has: &Option<String>| wanted.is_none() || wanted == has;
        let kind = |kinds: &String| kinds.split(',').any(|kind| kind == event.kind);
        self.kind.as_ref().is_none_or(kind)
            && is(&self.uplink, &event.uplink)
            && is(&self.server, &event.server)
    }
}

/// A list, unless a stream is asked for.
pub(super) async fn list_or_stream(
    state: State<Desk>,
    headers: HeaderMap,
    asked: Result<Query<Wanted>, QueryRejection>,
) -> Answer {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    match accept.is_some_and(|accept| accept.contains("text/event-stream")) {
        true => stream(state, headers, asked).await,
        false => list(state, asked).await,
    }
}

async fn list(State(desk): State<Desk>, asked: Result<Query<Wanted>, QueryRejection>) -> Answer {
    let wanted = Wanted::read(asked)?;
    let events = desk.ask(Request::Events).await?;
    json(move || wanted.select(&events)).await
}

/// What comes, and before it what came since a number, if one is given.
pub(super) async fn stream(
    State(desk): State<Desk>,
    headers: HeaderMap,
    asked: Result<Query<Wanted>, QueryRejection>,
) -> Answer {
    let wanted = Wanted::read(asked)?;
    let (kept, live) = desk.ask(Request::Follow).await?;
    let last = headers.get("last-event-id").and_then(|last| last.to_str().ok()?.parse().ok());
    let newest = kept.last().map_or(0, |event| event.number);
    let since = match last.or(wanted.since) {
        None => newest,
        // It counts another process's events.
        Some(since) if since > newest => 0,
        Some(since) => since,
    };
    let waiting = kept.into_iter().filter(|event| event.number > since).collect();
    let stream = follow(Reader { wanted, waiting, live });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(stream).keep_alive(keep_alive).into_response();
    response.extensions_mut().insert(Endless);
    Ok(response)
}

struct Reader {
    wanted: Wanted,
    waiting: VecDeque<Arc<EventRecord>>,
    live: broadcast::Receiver<Arc<EventRecord>>,
}

fn follow(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(reader, |mut reader| async move {
        let item = reader.next().await?;
        Some((Ok(item), reader))
    })
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        loop {
            let event = match self.waiting.pop_front() {
                Some(event) => event,
                None => match self.live.recv().await {
                    Ok(event) => event,
                    // He did not keep up, and nobody waited for him.
                    Err(RecvError::Lagged(lost)) => {
                        let text = json!({ "lost": lost }).to_string();
                        return Some(Event::default().event("lost").data(text));
                    }
                    Err(RecvError::Closed) => return None,
                },
            };
            if self.wanted.admits(&event) {
                let text = serde_json::to_string(&*event).ok()?;
                return Some(Event::default().id(event.number.to_string()).data(text));
            }
        }
    }
}
