//! Commands that ask the running process.

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::arguments::UplinkOrder;
use super::check::print;
use super::{FAILED, NOT_RUNNING, colour, show};
use crate::api::{Client, ClientError};
use crate::model::Name;

pub(super) fn status(runtime_dir: &Path, json: bool) -> ExitCode {
    get(runtime_dir, "/v1/status", json, show::status)
}

pub(super) fn uplinks(runtime_dir: &Path, json: bool) -> ExitCode {
    get(runtime_dir, "/v1/uplinks", json, show::uplinks)
}

pub(super) fn policies(runtime_dir: &Path, json: bool) -> ExitCode {
    get(runtime_dir, "/v1/policies", json, show::policies)
}

pub(super) fn services(runtime_dir: &Path, json: bool) -> ExitCode {
    get(runtime_dir, "/v1/services", json, show::services)
}

/// What is wanted, where something is.
pub(super) type Wanted<'a> = [(&'a str, Option<String>)];

/// Sessions that are asked for at once.
const PAGE: usize = 10_000;

pub(super) fn bindings(runtime_dir: &Path, wanted: &Wanted<'_>, json: bool) -> ExitCode {
    get(runtime_dir, &query("/v1/bindings", wanted), json, show::bindings)
}

pub(super) fn sessions(runtime_dir: &Path, wanted: &Wanted<'_>, json: bool) -> ExitCode {
    let sessions = ask(runtime_dir, async |client| all_pages(&client, wanted).await);
    match sessions {
        Ok(all) if json => print(&laid_out(&all.to_string())),
        Ok(all) => print(show::sessions(&all).trim_end()),
        Err(code) => return code,
    }
    ExitCode::SUCCESS
}

/// Page after page: there may be many.
async fn all_pages(client: &Client, wanted: &Wanted<'_>) -> Result<Value, ClientError> {
    let mut all = Vec::new();
    let mut wanted = wanted.to_vec();
    wanted.push(("limit", Some(PAGE.to_string())));
    loop {
        let mut page = client.get(&query("/v1/sessions", &wanted)).await?;
        if let Some(sessions) = page["sessions"].as_array_mut() {
            all.append(sessions);
        }
        let next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            page["total"] = all.len().into();
            page["sessions"] = all.into();
            return Ok(page);
        }
        wanted.retain(|(key, _)| *key != "after");
        wanted.push(("after", next));
    }
}

pub(super) fn query(path: &str, wanted: &Wanted<'_>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (key, value) in wanted {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    format!("{path}?{}", query.finish())
}

pub(super) fn reload(runtime_dir: &Path, json: bool) -> ExitCode {
    post(runtime_dir, "/v1/reload", json)
}

pub(super) fn uplink(runtime_dir: &Path, name: &str, order: UplinkOrder, json: bool) -> ExitCode {
    if Name::new(name).is_err() {
        eprintln!("homing: `{name}` is no name of an uplink");
        return ExitCode::from(FAILED);
    }
    post(runtime_dir, &format!("/v1/uplinks/{name}/{}", order.verb()), json)
}

/// `name` is GROUP/NAME, or the name alone.
pub(super) fn server(runtime_dir: &Path, name: &str, order: UplinkOrder, json: bool) -> ExitCode {
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 || parts.iter().any(|part| Name::new(part).is_err()) {
        eprintln!("homing: `{name}` is no name of a server: say GROUP/NAME");
        return ExitCode::from(FAILED);
    }
    post(runtime_dir, &format!("/v1/servers/{name}/{}", order.verb()), json)
}

impl UplinkOrder {
    fn verb(self) -> &'static str {
        match self {
            UplinkOrder::Drain => "drain",
            UplinkOrder::Disable => "disable",
            UplinkOrder::Enable => "enable",
        }
    }
}

/// Orders something; silence means that it is done.
fn post(runtime_dir: &Path, path: &str, json: bool) -> ExitCode {
    match ask(runtime_dir, async |client| client.post(path).await) {
        Ok(answer) => {
            if json {
                print(&format!("{answer:#}"));
            }
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

pub(super) fn get(
    runtime_dir: &Path,
    path: &str,
    json: bool,
    show: fn(&Value) -> String,
) -> ExitCode {
    let answer = match json {
        true => ask(runtime_dir, async |client| client.get_text(path).await).map(|a| laid_out(&a)),
        false => {
            let answer = ask(runtime_dir, async |client| client.get(path).await);
            answer.map(|answer| dressed(show(&answer).trim_end()))
        }
    };
    match answer {
        Ok(text) => print(&text),
        Err(code) => return code,
    }
    ExitCode::SUCCESS
}

/// The status, for somebody who goes on to look at it.
pub(super) fn first_status(runtime_dir: &Path) -> Result<Value, ExitCode> {
    ask(runtime_dir, async |client| client.get("/v1/status").await)
}

/// With colours, where they are wanted.
fn dressed(text: &str) -> String {
    match colour::wanted() {
        true => colour::colour(text).trim_end().to_owned(),
        false => text.to_owned(),
    }
}

/// JSON that is longer than this is for programs.
const READABLE: usize = 200_000;

/// For people to read, unless it is too long for that.
fn laid_out(answer: &str) -> String {
    let value = (answer.len() <= READABLE).then(|| serde_json::from_str::<Value>(answer).ok());
    value.flatten().map_or_else(|| answer.to_owned(), |value| format!("{value:#}"))
}

pub(super) fn ask<T>(
    runtime_dir: &Path,
    question: impl AsyncFnOnce(Client) -> Result<T, ClientError>,
) -> Result<T, ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| super::complain(&error.into()))?;
    runtime.block_on(question(Client::new(runtime_dir))).map_err(|error| {
        eprintln!("homing: {error}");
        ExitCode::from(match error {
            ClientError::NotRunning(_) | ClientError::Gone => NOT_RUNNING,
            _ => FAILED,
        })
    })
}
