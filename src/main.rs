//! The `homing` command.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    homing::cli::execute(homing::cli::Arguments::parse())
}
