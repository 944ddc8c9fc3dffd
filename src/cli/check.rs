//! `homing check`: a profile alone, without the system.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::daemon;
use crate::model::Site;
use crate::profile::{self, Loaded};

/// Checks a profile. Findings go to standard error, or as JSON to standard output.
///
/// The exit code is 1 when the file cannot be read or a finding is an error, else 0.
pub fn run(profile: &Path, json: bool) -> ExitCode {
    let bytes = match daemon::read_profile(profile) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("homing: cannot read {}: {error}", profile.display());
            return ExitCode::FAILURE;
        }
    };
    let loaded = profile::load_bytes(&bytes);
    if json {
        print(&format!("{:#}", profile::to_json(&loaded.findings)));
    } else {
        let text = String::from_utf8_lossy(&bytes);
        let file = profile.display().to_string();
        eprint!("{}", profile::render(&loaded.findings, &file, &text));
    }
    match loaded {
        Loaded { site: None, .. } => ExitCode::FAILURE,
        Loaded { site: Some(_), .. } if json => ExitCode::SUCCESS,
        Loaded { site: Some(site), .. } => {
            print(&format!("{}: ok ({})", profile.display(), summary(&site)));
            ExitCode::SUCCESS
        }
    }
}

/// Like `println!`, but a reader that has gone away is no panic.
pub(super) fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn summary(site: &Site) -> String {
    let count = |number: usize, one: &str, many: &str| match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    };
    let mut parts = vec![
        count(site.uplinks.len(), "uplink", "uplinks"),
        count(site.policies.len(), "policy", "policies"),
    ];
    if !site.services.is_empty() {
        parts.push(count(site.services.len(), "service", "services"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::path::{Path, PathBuf};
    use std::process::ExitCode;

    use super::run;
    use crate::profile::load;

    /// A file that goes away with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn with(name: &str, text: &str) -> Scratch {
            let file = format!("homing-check-{}-{name}.yaml", std::process::id());
            let path = std::env::temp_dir().join(file);
            std::fs::write(&path, text).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    const TWO: &str = "uplinks: { a: { interface: w0 }, b: { interface: w1 } }\n";

    #[test]
    fn every_example_loads_and_runs_today() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let mut count = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let loaded = load(&std::fs::read_to_string(&path).unwrap());
            let shown = format!("{}: {:?}", path.display(), loaded.findings);
            let full = path.ends_with("full.yaml");
            assert!(loaded.site.is_some(), "{shown}");
            assert!(full || loaded.findings.is_empty(), "{shown}");
            count += 1;
        }
        assert!(count >= 7, "{count}");
    }

    #[test]
    fn only_errors_and_unreadable_files_fail() {
        let good = Scratch::with("good", &format!("version: 1\n{TWO}"));
        let warned = "policies: [{ name: p }, { name: q }]\n";
        let warned = Scratch::with("warned", &format!("version: 1\n{TWO}{warned}"));
        let bad = Scratch::with("bad", TWO);
        for json in [false, true] {
            assert_eq!(run(&good.0, json), ExitCode::SUCCESS);
            assert_eq!(run(&warned.0, json), ExitCode::SUCCESS);
            assert_eq!(run(&bad.0, json), ExitCode::FAILURE);
            assert_eq!(run(Path::new("/nonexistent/profile.yaml"), json), ExitCode::FAILURE);
        }
    }
}
