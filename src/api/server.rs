//! Answers.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::access;
use super::explain::Asked;
use super::rights::{self, Caller};
use crate::daemon::{Binding, Refusal, Request, SessionLine, Status};
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
    if let Err(error) = access::admit_admins(&path) {
        tracing::warn!("the group of administrators cannot use the socket: {error}");
    }
    let router = router(engine).into_make_service_with_connect_info::<Caller>();
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
        .route("/v1/services", get(services))
        .route("/v1/groups", get(groups))
        .route("/v1/bindings", get(bindings))
        .route("/v1/sessions", get(sessions))
        .route("/v1/explain", get(explain))
        .route("/v1/uplinks/{name}/{order}", post(order))
        .route("/v1/servers/{name}/{order}", post(order_server_alone))
        .route("/v1/servers/{group}/{name}/{order}", post(order_server))
        .route("/v1/reload", post(reload))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
        })
        .layer(middleware::from_fn(rights::guard))
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

async fn services(State(engine): State<Engine>) -> Response {
    let services =
        |s: Status| Json(json!({ "version": 1, "services": s.services, "groups": s.groups }));
    whole_status(&engine).await.map_or_else(|refusal| refusal, |s| services(s).into_response())
}

async fn groups(State(engine): State<Engine>) -> Response {
    let groups = |status: Status| Json(json!({ "version": 1, "groups": status.groups }));
    whole_status(&engine).await.map_or_else(|refusal| refusal, |s| groups(s).into_response())
}

/// Written as they are: there may be a hundred thousand.
#[derive(Debug, serde::Serialize)]
struct Bindings {
    version: u32,
    bindings: Vec<Binding>,
}

/// The same of sessions.
#[derive(Debug, serde::Serialize)]
struct Sessions {
    version: u32,
    sessions: Vec<SessionLine>,
}

/// Which bindings are wanted.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WantedBindings {
    service: Option<String>,
    client: Option<IpAddr>,
}

/// Which sessions are wanted.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WantedSessions {
    uplink: Option<String>,
    service: Option<String>,
    server: Option<String>,
}

async fn sessions(
    State(engine): State<Engine>,
    wanted: Result<Query<WantedSessions>, QueryRejection>,
) -> Response {
    let wanted = match wanted {
        Ok(Query(wanted)) => wanted,
        Err(bad) => return refuse(StatusCode::BAD_REQUEST, &bad.body_text()),
    };
    match ask(&engine, Request::Sessions).await {
        Some(Ok(mut sessions)) => {
            sessions.retain(|session| wanted.admits(session));
            Json(Sessions { version: 1, sessions }).into_response()
        }
        Some(Err(Refusal(reason))) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &reason),
        None => stopping(),
    }
}

impl WantedSessions {
    fn admits(&self, session: &SessionLine) -> bool {
        let is = |wanted: &Option<String>, has: &Option<String>| wanted.is_none() || wanted == has;
        // A server by its name alone, or with its group.
        let server = self.server.as_ref().is_none_or(|wanted| {
            session.server.as_ref().is_some_and(|has| {
                has == wanted || has.split_once('/').is_some_and(|(_, name)| name == wanted)
            })
        });
        is(&self.uplink, &session.uplink) && is(&self.service, &session.service) && server
    }
}

impl WantedBindings {
    fn admits(&self, binding: &Binding) -> bool {
        let service = self.service.as_ref().is_none_or(|name| binding.services.contains(name));
        let client = self.client.is_none_or(|client| match binding.client.parse::<IpNet>() {
            Ok(net) => net.contains(&client),
            Err(_) => binding.client.parse() == Ok(client),
        });
        service && client
    }
}

async fn bindings(
    State(engine): State<Engine>,
    wanted: Result<Query<WantedBindings>, QueryRejection>,
) -> Response {
    let wanted = match wanted {
        Ok(Query(wanted)) => wanted,
        Err(bad) => return refuse(StatusCode::BAD_REQUEST, &bad.body_text()),
    };
    match ask(&engine, Request::Bindings).await {
        Some(Ok(mut bindings)) => {
            bindings.retain(|binding| wanted.admits(binding));
            Json(Bindings { version: 1, bindings }).into_response()
        }
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

async fn order_server(
    State(engine): State<Engine>,
    Path((group, name, order)): Path<(String, String, String)>,
) -> Response {
    give_order(&engine, Some(group), name, &order).await
}

async fn order_server_alone(
    State(engine): State<Engine>,
    Path((name, order)): Path<(String, String)>,
) -> Response {
    give_order(&engine, None, name, &order).await
}

async fn give_order(engine: &Engine, group: Option<String>, name: String, order: &str) -> Response {
    let Some(admin) = Admin::ordered(order) else {
        return refuse(StatusCode::NOT_FOUND, "a server takes drain, disable and enable");
    };
    match ask(engine, |reply| Request::OrderServer(group, name, admin, reply)).await {
        Some(Ok(server)) => {
            Json(json!({ "server": server, "admin": admin.as_str() })).into_response()
        }
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
