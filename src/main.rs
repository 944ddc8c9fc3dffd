//! The `homing` command.

use std::process::ExitCode;

/// It gives back what is let go of: with ten thousand services half of what was used at most.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    homing::cli::execute(homing::cli::parse())
}
