//! The state directory: what must outlive the process and the kernel's memory.
//!
//! One file, `state.json`, replaced atomically. A torn or unreadable one is replaced with a
//! warning: ids are also in the kernel, and everything else is found again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::kernel::Ranges;
use crate::kstate::SysctlKey;
use crate::model::Routing;
use crate::plan::Remembered;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    ids: Remembered,
    /// Kernel settings as they were before us; empty when nothing is changed.
    #[serde(default)]
    former_settings: BTreeMap<String, String>,
    #[serde(default)]
    first_priority: Option<u32>,
    #[serde(default)]
    first_table: Option<u32>,
}

/// The state directory.
#[derive(Debug)]
pub struct StateDir {
    folder: PathBuf,
    kept: Kept,
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}: {source}")]
pub struct StateError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl StateDir {
    /// Opens the directory, making it if need be.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(folder: &Path) -> Result<StateDir, StateError> {
        let error = |operation, source| StateError { operation, path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(|source| error("make", source))?;
        StateDir::open_existing(folder)
    }

    /// Opens the directory; one that does not exist is like an empty one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open_existing(folder: &Path) -> Result<StateDir, StateError> {
        let path = folder.join("state.json");
        let kept = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!("{} is damaged and starts anew: {error}", path.display());
                Kept::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(source) => return Err(StateError { operation: "read", path, source }),
        };
        Ok(StateDir { folder: folder.to_owned(), kept })
    }

    /// The numbers given so far.
    pub fn remembered(&self) -> &Remembered {
        &self.kept.ids
    }

    /// The ranges that were in force last.
    pub fn ranges(&self) -> Ranges {
        let usual = Routing::default();
        Ranges {
            first_priority: self.kept.first_priority.unwrap_or(usual.first_priority),
            first_table: self.kept.first_table.unwrap_or(usual.first_table),
        }
    }

    /// Keeps numbers and ranges.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep(&mut self, ids: Remembered, routing: Routing) -> Result<(), StateError> {
        let first_priority = Some(routing.first_priority);
        let first_table = Some(routing.first_table);
        self.update(|kept| *kept = Kept { ids, first_priority, first_table, ..kept.clone() })
    }

    /// Records settings as they are before we change them; what is recorded already stays.
    ///
    /// Forwarding of single devices is recorded the first time alone: a device that comes later
    /// has inherited our own value.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn record_settings(&mut self, now: &BTreeMap<SysctlKey, String>) -> Result<(), StateError> {
        let first = self.kept.former_settings.is_empty();
        self.update(|kept| {
            for (SysctlKey(key), value) in now {
                if first || !key.ends_with("/forwarding") {
                    kept.former_settings.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
        })
    }

    /// The recorded settings.
    pub fn former_settings(&self) -> BTreeMap<SysctlKey, String> {
        let settings = self.kept.former_settings.iter();
        settings.map(|(key, value)| (SysctlKey(key.clone()), value.clone())).collect()
    }

    /// Forgets the recorded settings, after they were restored.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn forget_settings(&mut self) -> Result<(), StateError> {
        self.update(|kept| kept.former_settings.clear())
    }

    fn update(&mut self, change: impl FnOnce(&mut Kept)) -> Result<(), StateError> {
        let before = self.kept.clone();
        change(&mut self.kept);
        if before == self.kept {
            return Ok(());
        }
        let path = self.folder.join("state.json");
        let written = self.write(&path);
        written.map_err(|source| StateError { operation: "write", path, source })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let scratch = self.folder.join("state.json.new");
        let mut file = fs::File::create(&scratch)?;
        serde_json::to_writer_pretty(&mut file, &self.kept)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&scratch, path)?;
        fs::File::open(&self.folder)?.sync_all()
    }
}
