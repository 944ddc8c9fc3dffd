//! The local API: HTTP/1.1 on the Unix socket `RUNTIME/api.sock`.
//!
//! [`serve`] answers, by asking the engine; [`Client`] asks, for the commands.

mod access;
mod client;
mod explain;
#[doc(hidden)]
pub mod hostile;
mod rights;
mod server;

pub use client::{Client, ClientError};
pub use explain::Asked;
pub use server::{SOCKET, serve};
