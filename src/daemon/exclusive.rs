//! One process in each network namespace.
//!
//! Abstract Unix sockets belong to a network namespace, as our kernel state does, and vanish with
//! the process however it ends: just what a lock for that state needs.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

const NAME: &[u8] = b"homing/run";

/// Held by the process that owns this namespace's kernel state.
#[derive(Debug)]
pub struct Exclusive {
    _socket: UnixListener,
}

impl Exclusive {
    /// Takes the lock; `None` when another process has it.
    ///
    /// # Errors
    /// When the socket cannot be made for another reason.
    pub fn take() -> io::Result<Option<Exclusive>> {
        let address = SocketAddr::from_abstract_name(NAME)?;
        match UnixListener::bind_addr(&address) {
            Ok(socket) => Ok(Some(Exclusive { _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a process runs in this namespace.
pub fn is_running() -> bool {
    matches!(Exclusive::take(), Ok(None))
}
