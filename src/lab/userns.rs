//! Being root, if need be in a user namespace of our own.

use std::env;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::unistd::geteuid;

use super::LabError;

/// Set in the process that we become: where its state is kept.
const INSIDE: &str = "HOMING_LAB_DIR";

/// Where the lab keeps its state: `/run/homing-lab`, or `$XDG_RUNTIME_DIR/homing-lab` (a directory
/// of one's own in `/tmp` without it) for those who are not root.
pub fn run_dir() -> PathBuf {
    if let Some(dir) = env::var_os(INSIDE) {
        return dir.into();
    }
    if geteuid().is_root() {
        return PathBuf::from("/run/homing-lab");
    }
    match env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) => Path::new(&dir).join("homing-lab"),
        None => env::temp_dir().join(format!("homing-lab-{}", geteuid())),
    }
}

/// Sees to it that this process may make namespaces. Without root, the program starts again in a
/// user namespace; threads of this process do not survive that, so call it first of all.
///
/// # Errors
/// When we are not root and user namespaces are not allowed.
pub fn become_root() -> Result<(), LabError> {
    if env::var_os(INSIDE).is_some() {
        return furnish();
    }
    if geteuid().is_root() {
        return Ok(());
    }
    let dir = run_dir();
    private_dir(&dir)?;
    let namespaces = ["--user", "--map-root-user", "--net", "--mount"];
    try_namespaces(&namespaces)?;
    let program = env::current_exe().map_err(LabError::system("find our own program"))?;
    let error = Command::new("unshare")
        .args(namespaces)
        .arg(program)
        .args(env::args_os().skip(1))
        .env(INSIDE, dir)
        .exec();
    Err(LabError::NeedsRoot {
        reason: error.to_string(),
    })
}

fn try_namespaces(namespaces: &[&str]) -> Result<(), LabError> {
    let attempt = Command::new("unshare")
        .args(namespaces)
        .arg("true")
        .stdin(Stdio::null())
        .output();
    let reason = match attempt {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    Err(LabError::NeedsRoot { reason })
}

/// Inside: a `/run` of our own, because `ip netns` keeps names there. Done once.
fn furnish() -> Result<(), LabError> {
    if fs::metadata("/run").is_ok_and(|dir| dir.uid() == 0) {
        return Ok(());
    }
    mount_run(&run_dir())
}

fn mount_run(state: &Path) -> Result<(), LabError> {
    let failed = || LabError::errno("mount /run inside the user namespace");
    let nothing: Option<&str> = None;
    let held = fs::File::open(state).map_err(LabError::system("open the state directory"))?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        nothing,
    )
    .map_err(failed())?;
    fs::create_dir_all("/run/netns").map_err(LabError::system("make /run/netns"))?;
    if state.starts_with("/run") {
        let source = format!("/proc/self/fd/{}", held.as_raw_fd());
        fs::create_dir_all(state).map_err(LabError::system("make the state directory"))?;
        let flags = MsFlags::MS_BIND;
        mount(Some(source.as_str()), state, nothing, flags, nothing).map_err(failed())?;
    }
    Ok(())
}

/// A directory of our own: made if need be, refused if it is somebody else's.
fn private_dir(dir: &Path) -> Result<(), LabError> {
    let what = || format!("use {}", dir.display());
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(LabError::system(what()))?;
    let found = fs::symlink_metadata(dir).map_err(LabError::system(what()))?;
    if found.is_dir() && found.uid() == geteuid().as_raw() {
        return Ok(());
    }
    Err(LabError::Running(format!(
        "{} belongs to somebody else: remove it or set XDG_RUNTIME_DIR",
        dir.display()
    )))
}
