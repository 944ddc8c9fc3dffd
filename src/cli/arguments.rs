//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    #[arg(env = "HOMING_RUNTIME_DIR", hide_env_values = true)]
    pub(super) runtime_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct State {
    /// Where ids and former kernel settings are kept
    #[arg(long, default_value = "/var/lib/homing", value_name = "DIR")]
    pub(super) state_dir: PathBuf,
}

/// The first packet of a session.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The source address
    #[arg(long, value_name = "ADDR")]
    pub(super) from: IpAddr,
    /// The destination address
    #[arg(long, value_name = "ADDR")]
    pub(super) to: IpAddr,
    /// tcp (the default), udp, icmp, or a number
    #[arg(long, value_name = "PROTOCOL")]
    pub(super) protocol: Option<String>,
    /// The destination port
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// The source port
    #[arg(long, value_name = "PORT")]
    pub(super) source_port: Option<u16>,
    /// The code point, 0 to 63
    #[arg(long)]
    pub(super) dscp: Option<u8>,
    /// In by which LAN or uplink; without it, the route back to the source tells
    #[arg(long = "in", value_name = "LAN|UPLINK")]
    pub(super) input: Option<String>,
    #[command(flatten)]
    pub(super) runtime: Runtime,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
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
    /// Say what an uplink may be used for; kept over restarts
    Uplink {
        /// Its name in the profile
        name: String,
        /// What it may be used for
        order: UplinkOrder,
        #[command(flatten)]
        runtime: Runtime,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what a server may be used for; kept over restarts
    Server {
        /// GROUP/NAME, or its name alone where no other group has one of that name
        name: String,
        /// What it may be used for
        order: UplinkOrder,
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
        /// Show it live: sort, filter, drain
        #[arg(long, conflicts_with = "json")]
        watch: bool,
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
    /// Show the services, and the servers behind them
    Services {
        #[command(flatten)]
        runtime: Runtime,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the sessions: which uplink, which service, which server
    Sessions {
        /// Only those that are pinned to this uplink
        #[arg(long, value_name = "UPLINK")]
        uplink: Option<String>,
        /// Only those of this service
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
        /// Only those with this server: GROUP/NAME, or its name alone
        #[arg(long, value_name = "SERVER")]
        server: Option<String>,
        #[command(flatten)]
        runtime: Runtime,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show which clients are bound to which uplinks and servers
    Bindings {
        /// Only those of this service
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
        /// Only those of this client
        #[arg(long, value_name = "ADDR")]
        client: Option<IpAddr>,
        #[command(flatten)]
        runtime: Runtime,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what has happened since homing started
    Events {
        /// Go on with what happens, until it is interrupted
        #[arg(long, short)]
        follow: bool,
        /// Only these kinds, with commas between them
        #[arg(long, value_name = "KIND,…")]
        kind: Option<String>,
        /// Only those about this uplink
        #[arg(long, value_name = "UPLINK")]
        uplink: Option<String>,
        /// Only those about this server
        #[arg(long, value_name = "GROUP/NAME")]
        server: Option<String>,
        #[command(flatten)]
        runtime: Runtime,
        /// Print JSON; with --follow, one event on each line
        #[arg(long)]
        json: bool,
    },
    /// Look for what comes in homing's way on this host, and say what to do about it
    Doctor {
        /// The profile; without it, networks and devices are not looked at
        profile: Option<PathBuf>,
        /// Print findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say where a new session would go, and why
    Explain(Explain),
    /// Show a whole site in network namespaces: what a newcomer runs first
    Lab(super::lab::Lab),
    /// Print the JSON Schema of profiles, for editors
    Schema,
}

/// What an uplink or a server may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum UplinkOrder {
    /// No new sessions but of clients that are bound to it; sessions go on
    Drain,
    /// No sessions at all: those that there are end, or move
    Disable,
    /// As the profile and its health say
    Enable,
}
