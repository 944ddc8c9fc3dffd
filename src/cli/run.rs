//! `homing run`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tracing_subscriber::EnvFilter;

use super::arguments::{Runtime, State};
use crate::api;
use crate::daemon::{self, Options};
use crate::model::Api;

/// Threads for what takes a while: answers are written there, names looked up, profiles read.
const HELPERS: usize = 64;

/// How many requests may wait for the engine.
const WAITING: usize = 64;

pub(super) fn run(profile: PathBuf, runtime: Runtime, state: State) -> ExitCode {
    start_logging();
    let options = Options { profile, runtime_dir: runtime.runtime_dir, state_dir: state.state_dir };
    match block_on(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::complain(&error),
    }
}

fn block_on(options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(HELPERS)
        .build()
        .context("cannot start the runtime")?;
    let runtime_dir = options.runtime_dir.clone();
    let (engine, requests) = mpsc::channel(WAITING);
    let (wish, wished) = watch::channel(Api::default());
    let serve = move || api::serve(&runtime_dir, engine, wished);
    Ok(runtime.block_on(daemon::run(options, requests, wish, serve))?)
}

/// To stderr; under systemd, which adds the time itself, without it.
fn start_logging() {
    let filter = EnvFilter::try_from_env("HOMING_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(filter);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().init();
    } else {
        builder.init();
    }
}
