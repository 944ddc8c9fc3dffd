//! `homing plan` and `homing down`: commands that talk to the kernel themselves.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use super::check::print;
use crate::daemon::{self, StateDir};
use crate::kernel::{Linux, Ranges};
use crate::kstate::{KernelState, Snapshot};
use crate::plan::{self, ChangeSet, Layout, Remembered, Scope};

pub(super) fn plan(profile: &Path, full: bool, state_dir: &Path) -> ExitCode {
    match changes(profile, full, state_dir) {
        Ok(changes) if changes.is_empty() => print("# nothing to change"),
        Ok(changes) => print(&changes.commands().join("\n")),
        Err(error) => return super::complain(&error),
    }
    ExitCode::SUCCESS
}

fn changes(profile: &Path, full: bool, state_dir: &Path) -> anyhow::Result<ChangeSet> {
    let (site, warnings) = daemon::load_profile(profile)?;
    eprint!("{warnings}");
    let (layout, seen) = look(site, state_dir).context("cannot read the kernel's state")?;
    // How uplinks answer only steers, which is no difference.
    let view = plan::assess(&layout, &seen, &Arc::default());
    let desired = plan::build(&layout, &view, &seen);
    Ok(match full {
        true => plan::diff(&desired, &KernelState::default(), Scope::Structure),
        false => plan::diff(&desired, &seen.ours, Scope::Structure),
    })
}

/// The kernel as it is, and the numbers that names have in it.
fn look(site: crate::model::Site, state_dir: &Path) -> anyhow::Result<(Layout, Snapshot)> {
    let routing = site.routing;
    let mut kernel = Linux::open(Ranges {
        first_priority: routing.first_priority,
        first_table: routing.first_table,
    })?;
    let state = StateDir::open_existing(state_dir).ok();
    let mut remembered = state.map(|state| state.remembered().clone()).unwrap_or_default();
    let first = Layout::new(site, &remembered);
    let seen = daemon::observe_for(&mut kernel, &first)?;
    if let Some(table) = &seen.ours.nft {
        remembered.merge(Remembered::from_kernel(table));
    }
    Ok((Layout::new(first.site, &remembered), seen))
}

pub(super) fn down(state_dir: &Path) -> ExitCode {
    match daemon::take_down(state_dir) {
        Ok(0) => print("# nothing of homing was there"),
        Ok(_) => {}
        Err(error) => return super::complain(&error.into()),
    }
    ExitCode::SUCCESS
}
