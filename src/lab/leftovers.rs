//! Who owns a site, and what to do with one whose owner is gone.
//!
//! Each site has a lock file, held for as long as its owner lives: the kernel lets go of it even
//! when the owner is killed, and process ids that come round again do not matter.

use std::fs::{self, File, TryLockError};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::tools::{self, Tool};
use super::{LabError, Namespace, run_dir};

/// What the names of all our namespaces begin with.
const PREFIX: &str = "hl-";

/// The right to the names that begin with one prefix.
#[derive(Debug)]
pub(super) struct Claim {
    prefix: String,
    path: PathBuf,
    _lock: File,
}

impl Claim {
    /// Takes it; what a dead owner of the same prefix left is removed.
    pub(super) fn take(prefix: &str) -> Result<Claim, LabError> {
        let path = lock_path(prefix);
        let failed = || LabError::system(format!("lock {}", path.display()));
        fs::create_dir_all(run_dir()).map_err(failed())?;
        let lock = File::create(&path).map_err(failed())?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LabError::Running(format!("the site {prefix} is in use")),
            TryLockError::Error(source) => failed()(source),
        })?;
        remove_namespaces(prefix);
        Ok(Claim {
            prefix: prefix.to_owned(),
            path,
            _lock: lock,
        })
    }

    /// Removes the namespaces, and the processes in them.
    pub(super) fn remove_site(&self) {
        remove_namespaces(&self.prefix);
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes every site whose owner is gone; how many there were.
pub fn remove_leftovers() -> usize {
    let sites: std::collections::BTreeSet<String> = Namespace::with_prefix(PREFIX)
        .iter()
        .filter_map(|ns| ns.name().rsplit_once('-').map(|(site, _)| site.to_owned()))
        .collect();
    sites
        .iter()
        .filter_map(|site| Claim::take(site).ok())
        .map(|claim| claim.remove_site())
        .count()
}

fn lock_path(prefix: &str) -> PathBuf {
    run_dir().join(format!("{prefix}.lock"))
}

/// A site's namespaces are ours alone, and so is every process in them.
fn remove_namespaces(prefix: &str) {
    let spaces = Namespace::with_prefix(&format!("{prefix}-"));
    if spaces.is_empty() {
        return;
    }
    end_processes(&spaces);
    let lines: Vec<String> = spaces
        .iter()
        .map(|ns| format!("netns del {}", ns.name()))
        .collect();
    // `-force` goes on after a name that is gone already.
    let _ = tools::feed(Tool::Ip, &["-force", "-batch", "-"], &lines.join("\n"));
}

fn end_processes(spaces: &[Namespace]) {
    let ours = i32::try_from(std::process::id()).unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let mut living: Vec<i32> = spaces.iter().flat_map(Namespace::processes).collect();
        living.retain(|&pid| pid != ours);
        if living.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in living {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(5));
    }
}
