//! The programs that the stage is built with.

use std::env;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::LabError;

/// A program of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `ip` of iproute2.
    Ip,
    /// `nft`.
    Nft,
}

impl Tool {
    /// What to type.
    pub fn name(self) -> &'static str {
        match self {
            Tool::Ip => "ip",
            Tool::Nft => "nft",
        }
    }

    /// The Debian package.
    pub fn package(self) -> &'static str {
        match self {
            Tool::Ip => "iproute2",
            Tool::Nft => "nftables",
        }
    }
}

/// Checks that everything we need is on the PATH.
///
/// # Errors
/// With the first that is missing.
pub fn check() -> Result<(), LabError> {
    for tool in [Tool::Ip, Tool::Nft] {
        if !on_path(tool.name()) {
            return Err(missing(tool));
        }
    }
    Ok(())
}

/// Whether a program is on the PATH.
pub fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir: std::path::PathBuf| Path::new(&dir).join(program).is_file())
}

/// Runs a tool with `input` on its standard input, in the calling thread's namespace; what it
/// prints.
///
/// # Errors
/// When it cannot be started or fails.
pub(super) fn feed(tool: Tool, args: &[&str], input: &str) -> Result<String, LabError> {
    let output = run(tool, args, input).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => missing(tool),
        _ => LabError::system(format!("run {}", tool.name()))(error),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(LabError::Command {
        what: format!("{} {}", tool.name(), args.join(" ")),
        message: with_line(stderr.trim(), input),
    })
}

fn run(tool: Tool, args: &[&str], input: &str) -> std::io::Result<Output> {
    let mut child = Command::new(tool.name())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early closes the pipe; its exit status says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

/// `ip -batch` names a line by its number ("Command failed -:3"): the line itself says more.
fn with_line(stderr: &str, input: &str) -> String {
    let number = stderr
        .rsplit_once("Command failed -:")
        .and_then(|(_, tail)| tail.trim().parse::<usize>().ok());
    match number.and_then(|n| input.lines().nth(n.saturating_sub(1))) {
        Some(line) => format!("{stderr} ({line})"),
        None => stderr.to_owned(),
    }
}

fn missing(tool: Tool) -> LabError {
    LabError::MissingTool {
        tool: tool.name(),
        package: tool.package(),
    }
}
