//! Commands that ask the running process.

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::arguments::UplinkOrder;
use super::check::print;
use super::{FAILED, NOT_RUNNING, show};
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

pub(super) fn bindings(runtime_dir: &Path, json: bool) -> ExitCode {
    get(runtime_dir, "/v1/bindings", json, show::bindings)
}

pub(super) fn reload(runtime_dir: &Path, json: bool) -> ExitCode {
    post(runtime_dir, "/v1/reload", json)
}

pub(super) fn uplink(runtime_dir: &Path, name: &str, order: UplinkOrder, json: bool) -> ExitCode {
    if Name::new(name).is_err() {
        eprintln!("homing: `{name}` is no name of an uplink");
        return ExitCode::from(FAILED);
    }
    let order = match order {
        UplinkOrder::Drain => "drain",
        UplinkOrder::Disable => "disable",
        UplinkOrder::Enable => "enable",
    };
    post(runtime_dir, &format!("/v1/uplinks/{name}/{order}"), json)
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
    match ask(runtime_dir, async |client| client.get(path).await) {
        Ok(answer) if json => print(&format!("{answer:#}")),
        Ok(answer) => print(show(&answer).trim_end()),
        Err(code) => return code,
    }
    ExitCode::SUCCESS
}

fn ask(
    runtime_dir: &Path,
    question: impl AsyncFnOnce(Client) -> Result<Value, ClientError>,
) -> Result<Value, ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| super::complain(&error.into()))?;
    runtime.block_on(question(Client::new(runtime_dir))).map_err(|error| {
        eprintln!("homing: {error}");
        ExitCode::from(match error {
            ClientError::NotRunning(_) => NOT_RUNNING,
            _ => FAILED,
        })
    })
}
