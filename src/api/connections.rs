//! Connections: how many there are, how long each may take, and which goes when there are too many.
//!
//! At the limit the connection that has been idle longest is closed, never the new one refused. One
//! that takes too long over a request, or over reading its answer, is closed too. A stream of events
//! may last; whoever does not read it holds a place here, and nothing else.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::gate::Gate;
use super::places::Place;
use super::reasoned::Reasoned;
use super::seldom::Seldom;

/// Connections of one listener.
pub(super) const MOST: usize = 256;

/// So long the head of a request may take.
const HEAD: Duration = Duration::from_secs(10);
/// So long a connection may lie idle.
const IDLE: Duration = Duration::from_secs(120);
/// So long a request may take, with its answer.
const ANSWER: Duration = Duration::from_secs(90);

/// So long a head of a request may be, in bytes.
const LONGEST_HEAD: usize = 32 * 1024;

/// Of requests that are none.
static NONSENSE: Seldom = Seldom::new();

/// Marks a response that does not end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endless;

/// What goes on on a connection.
#[derive(Debug)]
pub(super) struct Activity {
    began: Instant,
    /// When it last became idle or busy, in milliseconds since it began.
    turned: AtomicU64,
    /// Requests that are not wholly answered.
    busy: AtomicUsize,
    endless: AtomicBool,
    /// It is to be closed.
    expelled: Notify,
}

impl Activity {
    fn new() -> Activity {
        Activity {
            began: Instant::now(),
            turned: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            endless: AtomicBool::new(false),
            expelled: Notify::new(),
        }
    }

    fn turn(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned.store(now, Ordering::Relaxed);
    }

    fn since(&self) -> Instant {
        self.began + Duration::from_millis(self.turned.load(Ordering::Relaxed))
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Closes the connection.
    pub(super) fn expel(&self) {
        self.expelled.notify_one();
    }

    /// Returns when the connection has taken too long over something.
    async fn overstayed(&self) {
        loop {
            let limit = match (self.is_busy(), self.endless.load(Ordering::Relaxed)) {
                (true, true) => {
                    tokio::time::sleep(IDLE).await;
                    continue;
                }
                (true, false) => ANSWER,
                (false, _) => IDLE,
            };
            let due = self.since() + limit;
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// The connections of one listener; all end with it.
#[derive(Debug, Default)]
pub(super) struct Connections(Vec<(Arc<Activity>, AbortHandle)>);

impl Drop for Connections {
    fn drop(&mut self) {
        self.0.iter().for_each(|(_, task)| task.abort());
    }
}

impl Connections {
    /// Serves another one.
    pub(super) fn admit<S>(&mut self, stream: S, router: Router, gate: Gate)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.0.retain(|(_, task)| !task.is_finished());
        if self.0.len() >= MOST {
            self.close_one();
        }
        let activity = Arc::new(Activity::new());
        let answering = Answering::new(router, gate, activity.clone());
        let task = tokio::spawn(serve(stream, answering)).abort_handle();
        self.0.push((activity, task));
    }

    /// An idle one before a busy one; of these the one that has been so longest.
    fn close_one(&mut self) {
        let rank = |(_, (activity, _)): &(usize, &(Arc<Activity>, AbortHandle))| {
            (activity.is_busy(), activity.since())
        };
        if let Some((index, _)) = self.0.iter().enumerate().min_by_key(rank) {
            let (_, task) = self.0.swap_remove(index);
            task.abort();
        }
    }
}

/// Serves a connection to its end.
pub(super) async fn serve<S>(stream: S, answering: Answering)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = answering.activity.clone();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(Reasoned::new(stream)), answering);
    tokio::select! {
        outcome = connection => match outcome {
            Err(error) if error.is_parse() && NONSENSE.is_time() => {
                tracing::info!("the API was asked something that is no HTTP/1.1: {error}");
            }
            Err(error) => tracing::debug!("a connection to the API ended: {error}"),
            Ok(()) => {}
        },
        () = activity.overstayed() => tracing::debug!("a connection to the API took too long"),
        () = activity.expelled.notified() => {
            tracing::debug!("a connection to the API kept others waiting");
        }
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
pub(super) struct Answering {
    router: TowerToHyperService<Router>,
    gate: Gate,
    activity: Arc<Activity>,
}

impl Answering {
    /// For a connection that begins now.
    pub(super) fn begin(router: Router, gate: Gate) -> Answering {
        Answering::new(router, gate, Arc::new(Activity::new()))
    }

    fn new(router: Router, gate: Gate, activity: Arc<Activity>) -> Answering {
        Answering { router: TowerToHyperService::new(router), gate, activity }
    }
}

impl Service<Request<Incoming>> for Answering {
    type Response = hyper::Response<Guarded>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.activity.clone());
        let busy = Busy::begin(self.activity.clone());
        let (gate, router) = (self.gate.clone(), self.router.clone());
        Box::pin(async move {
            let response: Response =
                match gate.judge(request.method(), request.uri(), request.headers()).await {
                    Ok(()) => router.call(request).await.unwrap_or_else(|never| match never {}),
                    Err(refused) => refused.into_response(),
                };
            if response.extensions().get::<Endless>().is_some() {
                busy.0.endless.store(true, Ordering::Relaxed);
            }
            let place = response.extensions().get::<Place>().cloned();
            Ok(response.map(|body| Guarded {
                body,
                rest: Bytes::new(),
                _busy: busy,
                _place: place,
            }))
        })
    }
}

/// A request is being answered.
#[derive(Debug)]
struct Busy(Arc<Activity>);

impl Busy {
    fn begin(activity: Arc<Activity>) -> Busy {
        activity.busy.fetch_add(1, Ordering::Relaxed);
        activity.turn();
        Busy(activity)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
        self.0.turn();
    }
}

/// So many bytes are handed over at once.
const PIECE: usize = 16 * 1024;

/// The body of an answer: as long as it is there, its connection is busy. It is handed over piece by
/// piece, as it is read.
#[derive(Debug)]
pub(super) struct Guarded {
    body: Body,
    /// What was taken from the body, and not handed over.
    rest: Bytes,
    _busy: Busy,
    _place: Option<Place>,
}

impl hyper::body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return other,
            }
        }
        let piece = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(piece);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(body.lower() + rest);
        hint
    }
}
