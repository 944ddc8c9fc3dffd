//! Answers.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::explain::Asked;
use crate::daemon::{Refusal, Request, Status};
use crate::plan::Admin;

/// The socket's name in the runtime directory.
pub const SOCKET: &str = "api.sock";

type Engine = mpsc::Sender<Request>;

/// The socket's file; it is removed with this.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // One that stays is no obstacle to anybody.
        let _ = fs::remove_file(&self.0);
    }
}

/// Opens the socket (a stale one is no obstacle) and answers from then on.
///
/// # Errors
/// When the directory or the socket cannot be made.
pub fn serve(runtime_dir: &std::path::Path, engine: Engine) -> io::Result<SocketFile> {
    fs::create_dir_all(runtime_dir)?;
    let path = runtime_dir.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
    let router = router(engine);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("the API ended: {error}");
        }
    });
    Ok(SocketFile(path))
}

/// What is at which path.
pub(super) fn router(engine: Engine) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/uplinks", get(uplinks))
        .route("/v1/policies", get(policies))
        .route("/v1/bindings", get(bindings))
        .route("/v1/explain", get(explain))
        .route("/v1/uplinks/{name}/{order}", post(order))
        .route("/v1/reload", post(reload))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
        })
        .with_state(engine)
}

/// Asks the engine; its end is the caller's.
async fn ask<T>(engine: &Engine, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    engine.send(request(reply)).await.ok()?;
    answer.await.ok()
}

async fn whole_status(engine: &Engine) -> Result<Status, Response> {
    ask(engine, Request::Status).await.ok_or_else(stopping)
}

async fn status(State(engine): State<Engine>) -> Response {
    whole_status(&engine).await.map_or_else(|refusal| refusal, |s| Json(s).into_response())
}

async fn uplinks(State(engine): State<Engine>) -> Response {
    let uplinks = |status: Status| Json(json!({ "version": 1, "uplinks": status.uplinks }));
    whole_status(&engine).await.map_or_else(|refusal| refusal, |s| uplinks(s).into_response())
}

async fn policies(State(engine): State<Engine>) -> Response {
    let policies = |status: Status| Json(json!({ "version": 1, "policies": status.policies }));
    whole_status(&engine).await.map_or_else(|refusal| refusal, |s| policies(s).into_response())
}

async fn bindings(State(engine): State<Engine>) -> Response {
    match ask(&engine, Request::Bindings).await {
        Some(Ok(bindings)) => Json(json!({ "version": 1, "bindings": bindings })).into_response(),
        Some(Err(Refusal(reason))) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &reason),
        None => stopping(),
    }
}

async fn explain(
    State(engine): State<Engine>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let question = asked.map_err(|bad| bad.body_text()).and_then(|Query(asked)| asked.question());
    let question = match question {
        Ok(question) => Box::new(question),
        Err(reason) => return refuse(StatusCode::BAD_REQUEST, &reason),
    };
    match ask(&engine, |reply| Request::Explain(question, reply)).await {
        Some(Ok(explanation)) => Json(explanation).into_response(),
        Some(Err(Refusal(reason))) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &reason),
        None => stopping(),
    }
}

async fn reload(State(engine): State<Engine>) -> Response {
    match ask(&engine, Request::Reload).await {
        Some(Ok(generation)) => Json(json!({ "generation": generation })).into_response(),
        Some(Err(Refusal(reason))) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &reason),
        None => stopping(),
    }
}

async fn order(
    State(engine): State<Engine>,
    Path((name, order)): Path<(String, String)>,
) -> Response {
    let Some(admin) = Admin::ordered(&order) else {
        return refuse(StatusCode::NOT_FOUND, "an uplink takes drain, disable and enable");
    };
    match ask(&engine, |reply| Request::Order(name.clone(), admin, reply)).await {
        Some(Ok(())) => Json(json!({ "uplink": name, "admin": admin.as_str() })).into_response(),
        Some(Err(Refusal(reason))) => refuse(StatusCode::NOT_FOUND, &reason),
        None => stopping(),
    }
}

fn stopping() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "homing is stopping")
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    let body: Value = json!({ "error": reason });
    (status, Json(body)).into_response()
}
