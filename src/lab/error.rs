//! What can go wrong with a virtual site.

use std::io;

/// A failure of the lab or of its stage; the variant is the operation.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Neither root nor allowed to make a user namespace.
    #[error(
        "homing lab needs root: sudo homing lab (user namespaces are not allowed here: {reason})"
    )]
    NeedsRoot {
        /// What the attempt to make a user namespace said.
        reason: String,
    },
    /// A program that the stage is built with is not there.
    #[error("`{tool}` is not on the PATH: apt install {package}")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// A program ran and failed.
    #[error("{what} failed: {message}")]
    Command {
        /// The program and what it was to do.
        what: String,
        /// Its standard error, with the line of input that it names.
        message: String,
    },
    /// The system refused something.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A program or a file said something that cannot be understood.
    #[error("cannot understand {what}: {message}")]
    Answer {
        /// Whose answer.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// A name that the site does not have.
    #[error("there is no {kind} `{name}`: {known}")]
    Unknown {
        /// Uplink, place, …
        kind: &'static str,
        /// As given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A way to fail that this thing does not have.
    #[error("{name} is {kind} and cannot fail by {fault}: {known}")]
    Unsuitable {
        /// Its name.
        name: String,
        /// What it is, with its article.
        kind: &'static str,
        /// As asked for.
        fault: String,
        /// The ways it has.
        known: &'static str,
    },
    /// No lab is running, or another one is.
    #[error("{0}")]
    Running(String),
}

impl LabError {
    /// Wraps an error of the system.
    pub fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        let what = what.into();
        move |source| LabError::System { what, source }
    }

    /// Wraps an error number.
    pub fn errno(what: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> LabError {
        let what = what.into();
        move |errno| LabError::System { what, source: errno.into() }
    }
}
