//! From a file to a site.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::model::Site;
use crate::profile;

/// Why a profile cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The profile has errors; the text lists them.
    #[error("{0}")]
    Findings(String),
}

/// Largest part of a file that is read: more is a finding of its own.
const MOST_BYTES: u64 = (4 << 20) + 1;

/// The text of a profile.
///
/// # Errors
/// When it cannot be read.
pub fn read_profile(file: &Path) -> io::Result<Vec<u8>> {
    let open = File::open(file)?;
    // At once as long as the file says it is, which a device or pipe does not.
    let length = open.metadata()?.len().min(MOST_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    open.take(MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads and validates a profile; warnings come back as text.
///
/// # Errors
/// When it cannot be read, or has errors.
pub fn load_profile(file: &Path) -> Result<(Site, String), LoadError> {
    let read = |source| LoadError::Read { file: file.to_owned(), source };
    let bytes = read_profile(file).map_err(read)?;
    let loaded = profile::load_bytes(&bytes);
    let text = String::from_utf8_lossy(&bytes);
    let findings = profile::render(&loaded.findings, &file.display().to_string(), &text);
    let site = loaded.site.ok_or_else(|| LoadError::Findings(findings.trim_end().to_owned()))?;
    Ok((site, findings))
}
