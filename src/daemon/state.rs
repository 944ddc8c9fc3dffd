//! The state directory: what must outlive the process and the kernel's memory.
//!
//! One file, `state.json`, replaced atomically, and a second one with the same content: file systems
//! that reorder writes tear files when power is lost. A torn one is replaced with a warning. If both
//! are, ids are still in the kernel; only the former kernel settings are lost.

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

/// Both hold the same; the first that can be read counts.
const FILES: [&str; 2] = ["state.json", "state-copy.json"];

/// The state directory.
#[derive(Debug)]
pub struct StateDir {
    folder: PathBuf,
    kept: Kept,
    /// One of the files is not as it should be.
    damaged: bool,
}

/// What one file holds.
enum Found {
    Whole(Box<Kept>),
    Damaged,
    Nothing,
}

fn read(path: &Path) -> Result<Found, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(source) => {
            return Err(StateError { operation: "read", path: path.to_owned(), source });
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(kept) => Ok(Found::Whole(Box::new(kept))),
        Err(error) => {
            tracing::warn!("{} is damaged, and written anew: {error}", path.display());
            Ok(Found::Damaged)
        }
    }
}

/// The numbers in what one file holds: for [`crate::hostile`].
pub fn decode_state(bytes: &[u8]) -> Option<Remembered> {
    let kept: Kept = serde_json::from_slice(bytes).ok()?;
    let state = StateDir { folder: PathBuf::new(), kept, damaged: false };
    let _ = (state.ranges(), state.former_settings());
    serde_json::to_vec(&state.kept).ok()?;
    Some(state.kept.ids)
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
        let [first, copy] = FILES.map(|file| read(&folder.join(file)));
        let (kept, damaged) = match (first?, copy?) {
            (Found::Whole(kept), Found::Whole(_)) => (*kept, false),
            (Found::Whole(kept), _) | (_, Found::Whole(kept)) => (*kept, true),
            (Found::Nothing, Found::Nothing) => (Kept::default(), false),
            (Found::Damaged, _) | (_, Found::Damaged) => {
                tracing::warn!(
                    "kernel settings from before homing are forgotten: `down` cannot restore them"
                );
                (Kept::default(), true)
            }
        };
        Ok(StateDir { folder: folder.to_owned(), kept, damaged })
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
        if before == self.kept && !self.damaged {
            return Ok(());
        }
        self.damaged = false;
        for file in FILES {
            let path = self.folder.join(file);
            let written = self.write(&path);
            written.map_err(|source| StateError { operation: "write", path, source })?;
        }
        Ok(())
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let scratch = path.with_extension("new");
        let mut file = fs::File::create(&scratch)?;
        serde_json::to_writer_pretty(&mut file, &self.kept)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&scratch, path)?;
        fs::File::open(&self.folder)?.sync_all()
    }
}
