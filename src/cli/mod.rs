//! The commands: each asks the room that knows, and shows the answer.

mod arguments;
pub mod check;
mod colour;
mod control;
mod doctor;
mod events;
mod examples;
mod explain;
mod kernel;
mod lab;
mod run;
pub mod schema;
mod show;
mod table;
#[cfg(test)]
mod tests_documents;
mod watch;

use std::process::ExitCode;

pub use arguments::Arguments;
pub use examples::{Example, command, examples};
#[doc(hidden)]
pub use show::show_any;

use arguments::Command;
use clap::FromArgMatches as _;

/// Not done: refused or failed.
const FAILED: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;
/// No running process.
const NOT_RUNNING: u8 = 3;

/// The arguments of this process; with wrong ones it ends.
pub fn parse() -> Arguments {
    let matches = command().get_matches();
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Does what the arguments say.
pub fn execute(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Check { profile, json } => check::run(&profile, json),
        Command::Schema => schema::run(),
        Command::Plan { profile, full, state } => kernel::plan(&profile, full, &state.state_dir),
        Command::Run { profile, runtime, state } => run::run(profile, runtime, state),
        Command::Down { state, .. } => kernel::down(&state.state_dir),
        Command::Reload { runtime, json } => control::reload(&runtime.runtime_dir, json),
        Command::Uplink { name, order, runtime, json } => {
            control::uplink(&runtime.runtime_dir, &name, order, json)
        }
        Command::Status { runtime, watch: true, .. } => watch::run(&runtime.runtime_dir),
        Command::Status { runtime, json, .. } => control::status(&runtime.runtime_dir, json),
        Command::Uplinks { runtime, json } => control::uplinks(&runtime.runtime_dir, json),
        Command::Policies { runtime, json } => control::policies(&runtime.runtime_dir, json),
        Command::Doctor { profile, json } => doctor::run(profile.as_deref(), json),
        Command::Explain(asked) => explain::run(asked),
        Command::Lab(lab) => lab::run(lab),
        Command::Server { name, order, runtime, json } => {
            control::server(&runtime.runtime_dir, &name, order, json)
        }
        Command::Services { runtime, json } => control::services(&runtime.runtime_dir, json),
        Command::Sessions { uplink, service, server, runtime, json } => {
            let wanted = [("uplink", uplink), ("service", service), ("server", server)];
            control::sessions(&runtime.runtime_dir, &wanted, json)
        }
        Command::Events { follow, kind, uplink, server, runtime, json } => {
            let wanted = [("kind", kind), ("uplink", uplink), ("server", server)];
            match follow {
                true => events::follow(&runtime.runtime_dir, &wanted, json),
                false => events::list(&runtime.runtime_dir, &wanted, json),
            }
        }
        Command::Bindings { service, client, runtime, json } => {
            let client = client.map(|client| client.to_string());
            let wanted = [("service", service), ("client", client)];
            control::bindings(&runtime.runtime_dir, &wanted, json)
        }
    }
}

/// Says on stderr why something was not done.
fn complain(error: &anyhow::Error) -> ExitCode {
    eprintln!("homing: {error:#}");
    ExitCode::from(FAILED)
}
