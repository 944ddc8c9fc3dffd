//! A kernel in memory.

use super::{Kernel, KernelError};
use crate::kstate::{Snapshot, Step};

/// Holds a state and does steps on it as [`crate::kstate::KernelState::apply`] says.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    /// What [`Kernel::observe`] shows.
    pub state: Snapshot,
    /// The step, counted from 0 since the fake was made, that fails, as do all that are tried
    /// after it, until this is changed.
    pub fail_at: Option<usize>,
    /// Whether [`Kernel::observe`] fails.
    pub blind: bool,
    /// Every step that was done, in order.
    pub done: Vec<Step>,
}

impl Fake {
    /// A kernel in this state.
    pub fn new(state: Snapshot) -> Fake {
        Fake { state, ..Fake::default() }
    }
}

impl Kernel for Fake {
    fn observe(&mut self) -> Result<Snapshot, KernelError> {
        if self.blind {
            return Err(KernelError::Fake(self.done.len()));
        }
        Ok(self.state.clone())
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        let number = self.done.len();
        if self.fail_at.is_some_and(|limit| number >= limit) {
            return Err(KernelError::Fake(number));
        }
        self.state.ours.apply(step);
        self.done.push(step.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Fake;
    use crate::kernel::Kernel;
    use crate::kstate::{Step, SysctlKey};

    #[test]
    fn it_stops_at_the_step_it_was_told_to() {
        let mut fake = Fake { fail_at: Some(1), ..Fake::default() };
        let step = Step::SetSysctl(SysctlKey("net/ipv4/ip_forward".into()), "1".into());
        assert!(fake.apply(&step).is_ok());
        assert!(fake.apply(&step).is_err());
        assert_eq!(fake.done.len(), 1);
        assert_eq!(fake.state.ours.sysctls.len(), 1);
    }
}
