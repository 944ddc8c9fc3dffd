//! `homing down`: removes everything that is ours, with or without a process having run.

use std::collections::BTreeSet;
use std::path::Path;

use super::exclusive::is_running;
use super::state::{StateDir, StateError};
use crate::kernel::{Conntrack, Kernel as _, KernelError, Linux};
use crate::kstate::{KernelState, Rule, Step, SysctlKey};
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

/// Restores the settings that were changed, then removes rules, routes, addresses and table, and ends the
/// sessions that cannot go on without them. How many steps that took comes back.
///
/// Settings come first: a router that forwarded nothing before us must not forward LAN addresses
/// untranslated meanwhile.
///
/// # Errors
/// When a process runs, or the kernel refuses a step.
pub fn take_down(state_dir: &Path) -> Result<usize, TakedownError> {
    if is_running() {
        return Err(TakedownError::Running);
    }
    let mut state = StateDir::open_existing(state_dir)?;
    let mut kernel = Linux::open(state.ranges())?;
    let restored = restore_settings(&state, &mut kernel)?;
    let ours = kernel.observe()?.ours;
    let changes = plan::removal(&ours);
    for step in &changes.steps {
        kernel.apply(step)?;
    }
    end_sessions(&ours)?;
    state.forget_settings()?;
    Ok(restored + changes.steps.len())
}

fn restore_settings(state: &StateDir, kernel: &mut Linux) -> Result<usize, KernelError> {
    let mut settings: Vec<(SysctlKey, String)> = state.former_settings().into_iter().collect();
    settings.sort_by(|(a, _), (b, _)| plan::restoring_order(a).cmp(&plan::restoring_order(b)));
    let mut done = 0;
    for (key, value) in settings {
        kernel.set_sysctl_interest(vec![key.clone()]);
        let now = kernel.read_settings()?;
        // Of a device that is gone nothing is left to restore.
        if now.get(&key).is_some_and(|now| *now != value) {
            kernel.apply(&Step::SetSysctl(key, value))?;
            done += 1;
        }
    }
    Ok(done)
}

/// Sessions pinned to an uplink would go on by the main table's default, with a wrong source.
fn end_sessions(ours: &KernelState) -> Result<(), KernelError> {
    let pins = |rule: &Rule| rule.mark.filter(|(mark, _)| mark.0 != 0 && !rule.invert);
    let marks: BTreeSet<_> = ours.rules.iter().filter_map(pins).collect();
    let mut conntrack = Conntrack::open()?;
    for (mark, mask) in marks {
        conntrack.delete_by_mark(mark, mask)?;
    }
    Ok(())
}
