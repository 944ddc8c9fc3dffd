//! `homing down`: removes everything that is ours, with or without a process having run.

use std::path::Path;

use super::exclusive::is_running;
use super::state::{StateDir, StateError};
use crate::kernel::{Kernel as _, KernelError, Linux};
use crate::kstate::{Step, SysctlKey};
use crate::plan;

/// Why not everything was removed.
#[derive(Debug, thiserror::Error)]
pub enum TakedownError {
    /// A process would put it all back.
    #[error("homing runs in this network namespace: stop it first")]
    Running,
    /// The kernel refused.
    #[error("cannot remove everything")]
    Kernel(#[from] KernelError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Removes rules, table and routes, and restores the settings that were changed. How many steps
/// that took comes back.
///
/// # Errors
/// When a process runs, or the kernel refuses a step.
pub fn take_down(state_dir: &Path) -> Result<usize, TakedownError> {
    if is_running() {
        return Err(TakedownError::Running);
    }
    let mut state = StateDir::open_existing(state_dir)?;
    let mut kernel = Linux::open(state.ranges())?;
    let seen = kernel.observe()?;
    let changes = plan::removal(&seen.ours);
    for step in &changes.steps {
        kernel.apply(step)?;
    }
    let former = state.former_settings();
    if former.is_empty() {
        return Ok(changes.steps.len());
    }
    let mut settings: Vec<(SysctlKey, String)> = former.into_iter().collect();
    settings.sort_by(|(a, _), (b, _)| plan::restoring_order(a).cmp(&plan::restoring_order(b)));
    let mut done = changes.steps.len();
    for (key, value) in settings {
        kernel.set_sysctl_interest(vec![key.clone()]);
        let now = kernel.read_settings()?;
        // Of a device that is gone nothing is left to restore.
        if now.get(&key).is_some_and(|now| *now != value) {
            kernel.apply(&Step::SetSysctl(key, value))?;
            done += 1;
        }
    }
    state.forget_settings()?;
    Ok(done)
}
