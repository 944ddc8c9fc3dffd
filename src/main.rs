//! The `homing` command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Multi-ISP multihoming edge router.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check a profile
    Check {
        /// The profile
        profile: PathBuf,
        /// Print findings as JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of profiles
    Schema,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Check { profile, json } => homing::cli::check::run(&profile, json),
        Command::Schema => homing::cli::schema::run(),
    }
}
