//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Multi-ISP multihoming edge router: pins every session to a link, in the kernel
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 80)]
pub struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Runtime {
    /// Where the running process keeps its socket
    #[arg(long, default_value = "/run/homing", value_name = "DIR")]
    pub(super) runtime_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct State {
    /// Where ids and former kernel settings are kept
    #[arg(long, default_value = "/var/lib/homing", value_name = "DIR")]
    pub(super) state_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check a profile; needs no root and changes nothing
    Check {
        /// The profile
        profile: PathBuf,
        /// Print findings as JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// Show what `run` would change, as commands
    Plan {
        /// The profile
        profile: PathBuf,
        /// Show the whole desired state
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        state: State,
    },
    /// Apply a profile, then watch and steer, in the foreground
    Run {
        /// The profile
        profile: PathBuf,
        #[command(flatten)]
        runtime: Runtime,
        #[command(flatten)]
        state: State,
    },
    /// Remove everything that is ours and restore what was changed
    Down {
        #[command(flatten)]
        runtime: Runtime,
        #[command(flatten)]
        state: State,
    },
    /// Make the running process read its profile again
    Reload {
        #[command(flatten)]
        runtime: Runtime,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how everything is
    Status {
        #[command(flatten)]
        runtime: Runtime,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the uplinks
    Uplinks {
        #[command(flatten)]
        runtime: Runtime,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the policies and the shares of their uplinks
    Policies {
        #[command(flatten)]
        runtime: Runtime,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show which clients are bound to which uplinks
    Bindings {
        #[command(flatten)]
        runtime: Runtime,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a whole site in network namespaces: what a newcomer runs first
    Lab(super::lab::Lab),
    /// Print the JSON Schema of profiles, for editors
    Schema,
}
