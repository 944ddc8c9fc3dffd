//! What answers are made of.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::daemon::{Refusal, Request};

/// The way to the engine.
pub(super) type Engine = mpsc::Sender<Request>;

/// So many large answers are made or on their way at once: they hold memory until they are read.
const LARGE_AT_ONCE: usize = 4;

/// So long a place among them is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What every handler has.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    engine: Engine,
    large: Arc<Semaphore>,
}

/// A place for a large answer. It goes with the answer, and is free when that was sent.
#[derive(Debug, Clone)]
pub(super) struct Place {
    _held: Arc<OwnedSemaphorePermit>,
}

/// No answer but the reason why.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    reason: String,
    /// What the client is to know besides.
    header: Option<(HeaderName, &'static str)>,
}

/// An answer, or the reason why there is none.
pub(super) type Answer<T = Response> = Result<T, Refused>;

impl Refused {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Refused {
        Refused { status, reason: reason.into(), header: None }
    }

    pub(super) fn with(self, name: HeaderName, value: &'static str) -> Refused {
        Refused { header: Some((name, value)), ..self }
    }

    fn stopping() -> Refused {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "homing is stopping")
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.reason }));
        let mut response = (self.status, body).into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl Desk {
    pub(super) fn new(engine: Engine) -> Desk {
        Desk { engine, large: Arc::new(Semaphore::new(LARGE_AT_ONCE)) }
    }

    /// Asks the engine.
    pub(super) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.engine.send(request(reply)).await.map_err(|_| Refused::stopping())?;
        answer.await.map_err(|_| Refused::stopping())
    }

    /// The same, where the engine may refuse.
    pub(super) async fn order<T>(
        &self,
        refused: StatusCode,
        request: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Request,
    ) -> Answer<T> {
        let outcome = self.ask(request).await?;
        outcome.map_err(|Refusal(reason)| Refused::new(refused, reason))
    }

    /// Waits for a place for a large answer.
    pub(super) async fn place(&self) -> Answer<Place> {
        let permit = tokio::time::timeout(PATIENCE, self.large.clone().acquire_owned()).await;
        match permit {
            Ok(Ok(permit)) => Ok(Place { _held: Arc::new(permit) }),
            _ => {
                let reason = "too many large answers are on their way: try again later";
                Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, reason))
            }
        }
    }
}

/// A large answer as JSON, written on another thread: this one steers.
pub(super) async fn large<T: Serialize + Send + 'static>(place: Place, answer: T) -> Answer {
    let writing = tokio::task::spawn_blocking(move || serde_json::to_vec(&answer));
    match writing.await {
        Ok(Ok(text)) => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            let mut response = (json, Body::from(text)).into_response();
            response.extensions_mut().insert(place);
            Ok(response)
        }
        _ => {
            let reason = "the answer cannot be written";
            Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, reason))
        }
    }
}
