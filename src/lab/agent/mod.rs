//! Traffic: servers that tell a client which source address they saw, and clients that ask.
//!
//! Sockets belong to the namespace of the thread that made them, wherever they are used later, so
//! a client's sockets are made on a thread inside and handed out.

mod client;
mod server;
mod web;

use std::net::{IpAddr, SocketAddr};

pub use client::{Client, Session};
pub use server::Servers;
pub use web::{LOGIN, PORTAL};

/// What the agents speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// A line for each line.
    Tcp,
    /// A datagram for each datagram.
    Udp,
}

/// Who called which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// TCP connections are counted once, UDP datagrams each.
    pub protocol: Protocol,
    /// The source address that the server saw.
    pub source: IpAddr,
    /// The server.
    pub server: SocketAddr,
}
