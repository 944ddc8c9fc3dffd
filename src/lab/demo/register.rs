//! How a second terminal finds a running lab: a small file beside the lock that the lab holds.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::lab::{Fault, LabError, Layout, run_dir};
use crate::model::Name;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    path: PathBuf,
    pid: u32,
    layout: Layout,
    runtime_dir: PathBuf,
    faults: BTreeMap<String, String>,
}

/// The right to a lab's name.
#[derive(Debug)]
pub(super) struct Claim {
    dir: PathBuf,
    name: String,
    _lock: File,
}

impl Claim {
    /// Where the lab keeps its files.
    pub(super) fn dir(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Publishes the site.
    pub(super) fn publish(&self, layout: &Layout, runtime_dir: &Path) -> Result<(), LabError> {
        let register = Register {
            path: file(&self.dir, &self.name),
            pid: std::process::id(),
            layout: layout.clone(),
            runtime_dir: runtime_dir.to_owned(),
            faults: BTreeMap::new(),
        };
        register.write()
    }

    /// What is published now.
    pub(super) fn read(&self) -> Result<Register, LabError> {
        read(&file(&self.dir, &self.name))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.dir());
        let _ = fs::remove_file(file(&self.dir, &self.name));
        let _ = fs::remove_file(lock_file(&self.dir, &self.name));
        // Only an empty directory goes; another lab may be using it.
        let _ = fs::remove_dir(&self.dir);
    }
}

impl Register {
    /// Takes the name for a new lab; what a dead one left under it is removed.
    pub(super) fn claim(name: &str) -> Result<Claim, LabError> {
        let dir = checked(name)?;
        let failed = || LabError::system(format!("use {}", dir.display()));
        fs::create_dir_all(&dir).map_err(failed())?;
        let lock = File::create(lock_file(&dir, name)).map_err(failed())?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LabError::Running(format!(
                    "a lab is running already: end it, or give this one another name: \
                     homing lab --name {name}-2"
                )));
            }
            Err(TryLockError::Error(source)) => return Err(failed()(source)),
        }
        sweep(&dir);
        let claim = Claim { dir, name: name.to_owned(), _lock: lock };
        let _ = fs::remove_dir_all(claim.dir());
        fs::create_dir_all(claim.dir()).map_err(LabError::system("make the lab's directory"))?;
        Ok(claim)
    }

    /// The running lab of that name. Moves this process into the lab's user namespace, if it has
    /// one: call it before any thread exists.
    ///
    /// # Errors
    /// When none is running.
    pub fn find(name: &str) -> Result<Register, LabError> {
        let dir = checked(name)?;
        let none =
            || LabError::Running(format!("no lab `{name}` is running: start it with homing lab"));
        let lock = File::open(lock_file(&dir, name)).map_err(|_| none())?;
        if !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            return Err(none());
        }
        let register = read(&file(&dir, name))?;
        if !geteuid().is_root() {
            register.follow()?;
        }
        Ok(register)
    }

    /// The map of its site.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where homing's socket is.
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime_dir
    }

    /// The faults in force, by uplink or server.
    pub fn faults(&self) -> &BTreeMap<String, String> {
        &self.faults
    }

    /// Remembers a fault, so that the lab's table shows it.
    pub(super) fn note_fault(mut self, name: &str, fault: Option<Fault>) -> Result<(), LabError> {
        match fault {
            Some(fault) => self.faults.insert(name.to_owned(), fault.to_string()),
            None => self.faults.remove(name),
        };
        self.write()
    }

    /// Into the namespaces of a lab without root.
    fn follow(&self) -> Result<(), LabError> {
        for (kind, flag) in [("user", CloneFlags::CLONE_NEWUSER), ("mnt", CloneFlags::CLONE_NEWNS)]
        {
            let path = format!("/proc/{}/ns/{kind}", self.pid);
            let what = || format!("enter the lab's {kind} namespace");
            let space = File::open(path).map_err(LabError::system(what()))?;
            setns(&space, flag).map_err(LabError::errno(what()))?;
        }
        Ok(())
    }

    /// Whole or not at all, because the lab may be reading.
    fn write(&self) -> Result<(), LabError> {
        let new = self.path.with_extension("new");
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other);
        text.and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &self.path))
            .map_err(LabError::system(format!("write {}", self.path.display())))
    }
}

/// Removes the files of labs of other names that were killed: nobody holds their locks.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let dead = |lock: File| lock.try_lock().is_ok();
        let lock = path.with_extension("lock");
        let register = path.extension().is_some_and(|extension| extension == "json");
        if register && File::open(&lock).is_ok_and(dead) {
            let _ = fs::remove_dir_all(path.with_extension(""));
            let _ = fs::remove_file(&path);
            let _ = fs::remove_file(lock);
        }
    }
}

fn read(path: &Path) -> Result<Register, LabError> {
    let text = fs::read_to_string(path).map_err(|_| {
        LabError::Running("the lab is not ready yet: try again in a moment".to_owned())
    })?;
    serde_json::from_str(&text).map_err(|error| LabError::Answer {
        what: path.display().to_string(),
        message: error.to_string(),
    })
}

/// The lab's directory; its name becomes part of paths, so it must be a name.
fn checked(name: &str) -> Result<PathBuf, LabError> {
    match Name::new(name) {
        Ok(_) => Ok(run_dir()),
        Err(error) => Err(LabError::Running(error.to_string())),
    }
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.json"))
}

fn lock_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.lock"))
}
