//! `homing schema`: what editors need to complete and check a profile.

use std::process::ExitCode;

use crate::profile;

/// Prints the JSON Schema of profiles.
pub fn run() -> ExitCode {
    super::check::print(&format!("{:#}", profile::schema()));
    ExitCode::SUCCESS
}
