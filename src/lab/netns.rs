//! One network namespace, by its name under `/run/netns`.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

use super::LabError;
use super::tools::{self, Tool};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// A handle on a namespace; it owns nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace of that name, whether or not it exists.
    pub fn named(name: impl Into<String>) -> Namespace {
        Namespace { name: name.into() }
    }

    /// Every namespace whose name starts so.
    pub fn with_prefix(prefix: &str) -> Vec<Namespace> {
        let entries = fs::read_dir(NAMES).into_iter().flatten().flatten();
        let mut found: Vec<Namespace> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .map(Namespace::named)
            .collect();
        found.sort();
        found
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }

    /// Moves the calling thread into it, for good.
    ///
    /// # Errors
    /// When it does not exist or we may not.
    pub fn join(&self) -> Result<(), LabError> {
        let file = File::open(self.path())
            .map_err(LabError::system(format!("open namespace {}", self.name)))?;
        setns(&file, CloneFlags::CLONE_NEWNET)
            .map_err(LabError::errno(format!("enter namespace {}", self.name)))
    }

    /// Does some work inside, on a thread of its own. What the work makes there (sockets, child
    /// processes) stays there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| self.join().map(|()| work()));
            worker.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Runs a program inside and waits for it.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the program not be started; not when it fails.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<Output, LabError> {
        self.enter(|| Command::new(program).args(args).output())?
            .map_err(LabError::system(format!("run {program}")))
    }

    /// Carries out lines of `ip -batch`.
    ///
    /// # Errors
    /// With the line that was refused.
    pub fn ip(&self, lines: &[String]) -> Result<(), LabError> {
        if lines.is_empty() {
            return Ok(());
        }
        let args = ["-n", &self.name, "-batch", "-"];
        tools::feed(Tool::Ip, &args, &lines.join("\n")).map(drop)
    }

    /// Carries out lines of `ip -batch`, going on after one that is refused.
    ///
    /// # Errors
    /// When `ip` cannot be started.
    pub fn try_ip(&self, lines: &[String]) -> Result<(), LabError> {
        let args = ["-force", "-n", &self.name, "-batch", "-"];
        match tools::feed(Tool::Ip, &args, &lines.join("\n")) {
            Err(LabError::Command { .. }) | Ok(_) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Loads an nft script inside.
    ///
    /// # Errors
    /// When nft refuses it.
    pub fn nft(&self, script: &str) -> Result<(), LabError> {
        self.enter(|| tools::feed(Tool::Nft, &["-f", "-"], script))?
            .map(drop)
    }

    /// What `nft -j` says.
    ///
    /// # Errors
    /// When nft fails or its answer is no JSON.
    pub fn nft_json(&self, args: &[&str]) -> Result<serde_json::Value, LabError> {
        let args: Vec<&str> = std::iter::once("-j").chain(args.iter().copied()).collect();
        let text = self.enter(|| tools::feed(Tool::Nft, &args, ""))??;
        parse_json("nft", &text)
    }

    /// What `ip -j` says; an empty answer is an empty list.
    ///
    /// # Errors
    /// When ip fails or its answer is no JSON.
    pub fn ip_json(&self, args: &[&str]) -> Result<serde_json::Value, LabError> {
        let head = ["-n", self.name.as_str(), "-j"];
        let args: Vec<&str> = head.into_iter().chain(args.iter().copied()).collect();
        let text = tools::feed(Tool::Ip, &args, "")?;
        if text.trim().is_empty() {
            return Ok(serde_json::Value::Array(Vec::new()));
        }
        parse_json("ip", &text)
    }

    /// Writes sysctls, as paths below `/proc/sys/net`. One that this kernel lacks is an error.
    ///
    /// # Errors
    /// With the one that was refused.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<(), LabError> {
        self.enter(|| {
            settings.iter().try_for_each(|(key, value)| {
                fs::write(Path::new("/proc/sys/net").join(key), value)
                    .map_err(LabError::system(format!("write sysctl net/{key}")))
            })
        })?
    }

    /// The processes that live in it.
    pub fn processes(&self) -> Vec<i32> {
        let Ok(here) = fs::metadata(self.path()) else {
            return Vec::new();
        };
        let inside = |pid: &i32| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|there| there.ino() == here.ino() && there.dev() == here.dev())
        };
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(inside)
            .collect()
    }
}

fn parse_json(what: &str, text: &str) -> Result<serde_json::Value, LabError> {
    serde_json::from_str(text).map_err(|error| LabError::Answer {
        what: format!("the answer of {what}"),
        message: error.to_string(),
    })
}
