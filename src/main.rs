//! The `homing` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    homing::cli::execute(homing::cli::parse())
}
