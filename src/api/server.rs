//! Answers: what is at which path.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{self, HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::answers::{Answer, Desk, Engine, Refused, held, json, large};
use super::connections::Activity;
use super::explain::Asked;
use super::{events, metrics, openapi};
use crate::daemon::{Binding, Cursor, Request, SessionQuery};
use crate::plan::Admin;
use crate::plan::explain::Explanation;
use crate::profile;

/// The largest profile, and a byte more: then it is refused for its size.
pub(super) const LARGEST_PROFILE: usize = (4 << 20) + 1;

/// So long the body of a request may take.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Sessions on a page, where nobody says how many, and at most.
const PAGE: (usize, usize) = (1000, 10_000);

/// Profiles that are checked at once: that may take a while, and memory.
static CHECKING: Semaphore = Semaphore::const_new(1);

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
        .route("/v1/events", get(events::list_or_stream))
        .route("/v1/events/stream", get(events::stream))
        .route("/v1/explain", get(explain))
        .route("/v1/uplinks/{name}/{order}", post(order))
        .route("/v1/servers/{name}/{order}", post(order_server_alone))
        .route("/v1/servers/{group}/{name}/{order}", post(order_server))
        .route("/v1/reload", post(reload))
        .route("/v1/check", post(check))
        .route("/v1/openapi.json", get(document))
        .route("/metrics", get(measure))
        .fallback(|| async { Refused::new(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Refused::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
        })
        .with_state(Desk::new(engine))
}

async fn status(State(desk): State<Desk>) -> Answer {
    let status = desk.ask(Request::Status).await?;
    json(|| status).await
}

async fn uplinks(State(desk): State<Desk>) -> Answer {
    let status = desk.ask(Request::Status).await?;
    json(move || json!({ "version": 1, "uplinks": status.uplinks })).await
}

async fn policies(State(desk): State<Desk>) -> Answer {
    let status = desk.ask(Request::Status).await?;
    json(move || json!({ "version": 1, "policies": status.policies })).await
}

async fn services(State(desk): State<Desk>) -> Answer {
    let s = desk.ask(Request::Status).await?;
    json(move || json!({ "version": 1, "services": s.services, "groups": s.groups })).await
}

async fn groups(State(desk): State<Desk>) -> Answer {
    let status = desk.ask(Request::Status).await?;
    json(move || json!({ "version": 1, "groups": status.groups })).await
}

/// Written as they are: there may be a hundred thousand.
#[derive(Debug, serde::Serialize, JsonSchema)]
pub(super) struct Bindings {
    version: u32,
    bindings: Vec<Binding>,
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
    policy: Option<String>,
    service: Option<String>,
    server: Option<String>,
    client: Option<IpAddr>,
    limit: Option<usize>,
    after: Option<String>,
}

async fn sessions(
    State(desk): State<Desk>,
    Extension(connection): Extension<Arc<Activity>>,
    wanted: Result<Query<WantedSessions>, QueryRejection>,
) -> Answer {
    let Query(wanted) = wanted.map_err(|wrong| bad(wrong.body_text()))?;
    let query = wanted.query().map_err(bad)?;
    let place = desk.place(connection).await?;
    let failed = StatusCode::INTERNAL_SERVER_ERROR;
    let page = desk.order(failed, |reply| Request::Sessions(query, reply)).await?;
    large(place, page).await
}

fn bad(reason: String) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, reason)
}

impl WantedSessions {
    fn query(self) -> Result<SessionQuery, String> {
        let limit = self.limit.unwrap_or(PAGE.0);
        if !(1..=PAGE.1).contains(&limit) {
            return Err(format!("limit: a number from 1 to {}", PAGE.1));
        }
        let after = self.after.map(|text| Cursor::parse(&text).ok_or(text)).transpose();
        let after = after.map_err(|text| {
            format!("after: `{text}` is not what `next` of a page before this one was")
        })?;
        Ok(SessionQuery {
            uplink: self.uplink,
            policy: self.policy,
            service: self.service,
            server: self.server,
            client: self.client,
            after,
            limit,
        })
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
    State(desk): State<Desk>,
    Extension(connection): Extension<Arc<Activity>>,
    wanted: Result<Query<WantedBindings>, QueryRejection>,
) -> Answer {
    let Query(wanted) = wanted.map_err(|wrong| bad(wrong.body_text()))?;
    let place = desk.place(connection).await?;
    let failed = StatusCode::INTERNAL_SERVER_ERROR;
    let mut bindings = desk.order(failed, Request::Bindings).await?;
    let admitted = move || {
        bindings.retain(|binding| wanted.admits(binding));
        Bindings { version: 1, bindings }
    };
    held(json(admitted).await?, place)
}

async fn explain(
    State(desk): State<Desk>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Answer<Json<Explanation>> {
    let Query(asked) = asked.map_err(|wrong| bad(wrong.body_text()))?;
    let question = Box::new(asked.question().map_err(bad)?);
    let failed = StatusCode::UNPROCESSABLE_ENTITY;
    Ok(Json(desk.order(failed, |reply| Request::Explain(question, reply)).await?))
}

async fn reload(State(desk): State<Desk>) -> Answer<Json<Value>> {
    let generation = desk.order(StatusCode::UNPROCESSABLE_ENTITY, Request::Reload).await?;
    Ok(Json(json!({ "generation": generation })))
}

/// Checks a profile, on another thread: it may be a hostile one.
async fn check(
    State(desk): State<Desk>,
    Extension(connection): Extension<Arc<Activity>>,
    request: http::Request<Body>,
) -> Answer {
    let place = desk.place(connection).await?;
    let reading = axum::body::to_bytes(request.into_body(), LARGEST_PROFILE);
    let bytes = tokio::time::timeout(BODY_TIME, reading)
        .await
        .map_err(|_| Refused::new(StatusCode::REQUEST_TIMEOUT, "the profile does not arrive"))?;
    let bytes = bytes.map_err(|_| {
        let reason = "a profile is no longer than 4 MB, and must arrive whole";
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
    })?;
    let Ok(Ok(_turn)) = tokio::time::timeout(BODY_TIME, CHECKING.acquire()).await else {
        let reason = "other profiles are being checked: try again later";
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, reason));
    };
    let checking = tokio::task::spawn_blocking(move || {
        let loaded = profile::load_bytes(&bytes);
        profile::to_json(&loaded.findings)
    });
    let findings = checking.await.map_err(|_| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the profile cannot be checked")
    })?;
    large(place, findings).await
}

async fn order(
    State(desk): State<Desk>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Answer<Json<Value>> {
    let Path((name, order)) = path.map_err(|wrong| bad(wrong.body_text()))?;
    let admin = ordered(&order, "an uplink")?;
    let request = |reply| Request::Order(name.clone(), admin, reply);
    desk.order(StatusCode::NOT_FOUND, request).await?;
    Ok(Json(json!({ "uplink": name, "admin": admin.as_str() })))
}

async fn order_server(
    State(desk): State<Desk>,
    path: Result<Path<(String, String, String)>, PathRejection>,
) -> Answer<Json<Value>> {
    let Path((group, name, order)) = path.map_err(|wrong| bad(wrong.body_text()))?;
    give_order(&desk, Some(group), name, &order).await
}

async fn order_server_alone(
    State(desk): State<Desk>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Answer<Json<Value>> {
    let Path((name, order)) = path.map_err(|wrong| bad(wrong.body_text()))?;
    give_order(&desk, None, name, &order).await
}

async fn give_order(
    desk: &Desk,
    group: Option<String>,
    name: String,
    order: &str,
) -> Answer<Json<Value>> {
    let admin = ordered(order, "a server")?;
    let request = |reply| Request::OrderServer(group, name, admin, reply);
    let server = desk.order(StatusCode::NOT_FOUND, request).await?;
    Ok(Json(json!({ "server": server, "admin": admin.as_str() })))
}

fn ordered(order: &str, whom: &str) -> Answer<Admin> {
    let unknown =
        || Refused::new(StatusCode::NOT_FOUND, format!("{whom} takes drain, disable and enable"));
    Admin::ordered(order).ok_or_else(unknown)
}

async fn document() -> Answer {
    json(openapi::document).await
}

async fn measure(State(desk): State<Desk>, headers: HeaderMap) -> Answer {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = metrics::Format::wanted(accept.unwrap_or_default());
    let census = desk.ask(Request::Census).await?;
    let writing = tokio::task::spawn_blocking(move || metrics::write(&census, format));
    let text = writing.await.map_err(|_| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "the figures cannot be written")
    })?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}
