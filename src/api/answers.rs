//! What answers are made of.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::connections::Activity;
use super::places::{Place, Places};
use crate::daemon::{Refusal, Request};

/// The way to the engine.
pub(super) type Engine = mpsc::Sender<Request>;

/// What every handler has.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    engine: Engine,
    places: Places,
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
        Desk { engine, places: Places::default() }
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

    /// Waits for a place for a large answer on this connection.
    pub(super) async fn place(&self, connection: Arc<Activity>) -> Answer<Place> {
        self.places.take(connection).await.ok_or_else(|| {
            let reason = "too many large answers are on their way: try again later";
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, reason)
        })
    }
}

/// A large answer as JSON.
pub(super) async fn large<T: Serialize + Send + 'static>(place: Place, answer: T) -> Answer {
    held(json(move || answer).await?, place)
}

/// The place goes with the answer.
pub(super) fn held(mut response: Response, place: Place) -> Answer {
    response.extensions_mut().insert(place);
    Ok(response)
}

/// An answer as JSON, made and written on another thread: this one steers.
pub(super) async fn json<T: Serialize>(make: impl FnOnce() -> T + Send + 'static) -> Answer {
    let writing = tokio::task::spawn_blocking(move || serde_json::to_vec(&make()));
    match writing.await {
        Ok(Ok(text)) => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            Ok((json, Body::from(text)).into_response())
        }
        _ => {
            let reason = "the answer cannot be written";
            Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, reason))
        }
    }
}
