//! Kernel settings below `/proc/sys`, of the network namespace of the thread that asks.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::KernelError;
use crate::kstate::SysctlKey;

/// The values of the settings that exist.
pub(super) fn read_all(keys: &[SysctlKey]) -> Result<BTreeMap<SysctlKey, String>, KernelError> {
    let mut values = BTreeMap::new();
    for key in keys {
        match std::fs::read_to_string(path(key)) {
            Ok(value) => {
                values.insert(key.clone(), normalise(&value));
            }
            // Its device or module is not there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                let key = key.clone();
                return Err(KernelError::ReadSysctl { key, source });
            }
        }
    }
    Ok(values)
}

/// Sets one.
pub(super) fn write(key: &SysctlKey, value: &str) -> Result<(), KernelError> {
    std::fs::write(path(key), value).map_err(|source| KernelError::SetSysctl {
        key: key.clone(),
        value: value.to_owned(),
        source,
    })
}

fn path(key: &SysctlKey) -> PathBuf {
    Path::new("/proc/sys").join(&key.0)
}

/// Settings of several numbers are shown with tabs between them.
fn normalise(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}
