//! Other people's servers and clients, in the site's namespaces.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use homing::lab::Namespace;

use super::farm::name;
use super::{Outcome, Site};

/// A server that runs. It ends with the test.
pub struct Program {
    child: Child,
    what: String,
    log: PathBuf,
}

/// Puts a program where every user may run it. By another process: what this one has open for
/// writing, a child of another thread may hold on to, and then it cannot be run ("Text file busy").
pub fn install(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let paths = [from.as_ref(), to.as_ref()];
    let done = Command::new("/usr/bin/install").args(["-m", "755"]).args(paths).status();
    assert!(done.expect("start install").success(), "install {paths:?}");
}

impl Site {
    /// Starts a program in a namespace, in the foreground. What it says is told when it ends early.
    pub fn start_program(
        &self,
        space: &Namespace,
        what: &str,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Program {
        let number = fs::read_dir(&self.dir).map_or(0, Iterator::count);
        let log = self.dir.join(format!("program{number}.log"));
        let start = || {
            let told = fs::File::create(&log)?;
            Command::new(what)
                .args(args)
                .envs(environment.iter().copied())
                .current_dir(&self.dir)
                .stdin(Stdio::null())
                .stdout(told.try_clone()?)
                .stderr(told)
                .spawn()
        };
        let child = space.enter(start).expect("enter a namespace");
        let child = child.unwrap_or_else(|error| panic!("start {what}: {error}"));
        Program { child, what: what.to_owned(), log }
    }

    /// Runs a program on the internet, 20 seconds at most.
    pub fn out_there(&self, program: &str, args: &[&str]) -> Outcome {
        Site::run_in(&self.stage.layout().internet(), program, args)
    }

    /// Runs a program in the LAN, 20 seconds at most.
    pub fn in_lan(&self, program: &str, args: &[&str]) -> Outcome {
        Site::run_in(&self.stage.layout().lan(), program, args)
    }

    fn run_in(space: &Namespace, program: &str, args: &[&str]) -> Outcome {
        let all = [&["-k", "1", "20", program], args].concat();
        let output = space.output("/usr/bin/timeout", &all).expect("run a program");
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A directory of its own for each server, with a file in it that tells the server's name, and
    /// one of a few megabytes.
    pub fn directory_of(&self, index: usize) -> String {
        let directory = self.dir.join(format!("server-{}", name(index)));
        fs::create_dir_all(directory.join("empty")).expect("make a directory");
        fs::write(directory.join("name"), format!("{}\n", name(index))).expect("write a file");
        fs::write(directory.join("large"), vec![b'x'; LARGE]).expect("write a file");
        directory.display().to_string()
    }
}

/// Bytes of the large file.
pub const LARGE: usize = 4 << 20;

impl Program {
    /// It has to run still.
    pub fn assert_running(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            panic!("{} ended, {status}:\n{log}", self.what);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- {}\n{log:.6000}", self.what);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address as it stands in a URL.
pub fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}
