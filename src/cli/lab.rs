//! `homing lab`: a whole site in network namespaces, to look at and to break.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::lab::{self, Fault, demo};

/// Arguments of `homing lab`.
#[derive(Debug, Args)]
pub(super) struct Lab {
    /// The lab's name, when there is more than one
    #[arg(long, global = true, default_value = "lab")]
    name: String,
    /// A profile of your own (uplinks by any interface, LANs on lan0 and dmz0)
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Do not show the table
    #[arg(long)]
    no_table: bool,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    time: Option<u64>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Break an uplink or a server of the running lab
    Fail {
        /// The uplink, or server-a, server-b, server-c
        #[arg(value_name = "NAME")]
        broken: String,
        /// An uplink: carrier (the default), silent, gateway-only, captive, loss=30%; a server:
        /// silent (the default), refuse, loss=30%
        #[arg(long, value_parser = str::parse::<Fault>)]
        how: Option<Fault>,
    },
    /// Mend an uplink or a server of the running lab
    Heal {
        /// The uplink or server
        #[arg(value_name = "NAME")]
        broken: String,
    },
    /// Run a command at a place of the running lab
    Exec {
        /// lan, dmz, router, internet, server-a (-b, -c), or an uplink's name (its ISP)
        place: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Show the status of homing in the running lab, and what is broken in it
    Status,
}

/// Does what the arguments say. To be called before any thread exists.
pub(super) fn run(lab: Lab) -> ExitCode {
    match execute(lab) {
        Ok(code) => code,
        Err(error) => super::complain(&error),
    }
}

fn execute(lab: Lab) -> anyhow::Result<ExitCode> {
    let name = lab.name.as_str();
    match lab.action {
        None => demo::run(&demo::Demo {
            name: lab.name,
            profile: lab.profile,
            table: !lab.no_table,
            time: lab.time.map(Duration::from_secs),
        })?,
        Some(Action::Fail { broken, how }) => demo::fail(name, &broken, how)?,
        Some(Action::Heal { broken }) => demo::heal(name, &broken)?,
        Some(Action::Exec { place, command }) => {
            let runtime_dir = demo::Register::find(name)?.runtime_dir().to_owned();
            return enter(&demo::place(name, &place)?, &command, &runtime_dir);
        }
        Some(Action::Status) => return status(name),
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes the command. There `homing` finds the lab's process.
fn enter(
    place: &lab::Namespace,
    command: &[String],
    runtime_dir: &Path,
) -> anyhow::Result<ExitCode> {
    let (program, args) = command.split_first().context("no command")?;
    place.join()?;
    let mut command = Command::new(program);
    let error = command.args(args).env("HOMING_RUNTIME_DIR", runtime_dir).exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}

fn status(name: &str) -> anyhow::Result<ExitCode> {
    let register = demo::Register::find(name)?;
    register.layout().router().join()?;
    let code = super::control::status(register.runtime_dir(), false);
    let faults: Vec<String> =
        register.faults().iter().map(|(name, fault)| format!("{name} ({fault})")).collect();
    if !faults.is_empty() {
        super::check::print(&format!("\nbroken in the lab: {}", faults.join(", ")));
    }
    Ok(code)
}
