//! The API: HTTP/1.1 on the Unix socket `RUNTIME/api.sock`, and for readers on TCP.
//!
//! [`serve`] answers, by asking the engine; [`Client`] asks, for the commands.
//!
//! ```text
//!   connection ─► connections (how many, how long) ─► gate (who may) ─► server (what) ─► engine
//! ```
//!
//! The engine runs on the same thread, and waits for nobody here: large answers are written on other
//! threads, and nobody's slowness holds more than a place among the connections.

mod access;
mod answers;
mod client;
mod connections;
mod events;
mod explain;
mod gate;
#[doc(hidden)]
pub mod hostile;
mod listen;
mod metrics;
mod openapi;
mod places;
mod reasoned;
mod seldom;
mod server;

pub use client::{Client, ClientError};
pub use explain::Asked;
pub use listen::{SOCKET, serve};
