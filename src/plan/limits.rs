//! Servers with `max-connections`: where their live connections stand, and under which key. Pure.
//!
//! Each has a set with room for just so many (`plan/nft/services.rs`). The kernel takes those that
//! are closed out once a second by itself; homing does so at once, as it hears of them.

use std::collections::HashMap;
use std::net::IpAddr;

use super::nft::{COUNTED_SEEDS, names};
use super::view::Layout;
use crate::kstate::{Bytes, concatenate, jhash};
use crate::model::{Family, Mark, MarkMask};

/// Sets of live connections, by the server's address and mark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    mask: u32,
    sets: HashMap<(IpAddr, Mark), String>,
}

/// One end of a connection.
type End = (IpAddr, u16);

impl Limits {
    /// Those of a site.
    pub fn new(layout: &Layout) -> Limits {
        let mut sets = HashMap::new();
        for group in layout.groups() {
            for family in Family::BOTH {
                for (server, id) in group.servers(family) {
                    if server.max_connections.is_some() {
                        let set = names::live(family, group.id, id);
                        sets.insert((server.address, group.mark(id)), set);
                    }
                }
            }
        }
        Limits { mask: layout.site.marks.server.0, sets }
    }

    /// Whether no server has a limit.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The sets.
    pub fn sets(&self) -> impl Iterator<Item = &str> {
        self.sets.values().map(String::as_str)
    }

    /// Where a connection stands: the client, what it asked for, who answers, and the mark tell.
    pub fn place(
        &self,
        client: End,
        asked: End,
        server: IpAddr,
        mark: Mark,
    ) -> Option<(&str, Bytes)> {
        let set = self.sets.get(&(server, Mark(mark.0 & MarkMask(self.mask).0)))?;
        Some((set, key(client, asked)))
    }
}

/// The key of a connection as the kernel has it.
fn key(client: End, asked: End) -> Bytes {
    let port = |port: u16| Bytes::from_slice(&port.to_be_bytes());
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => Bytes::from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::from_slice(&address.octets()),
    };
    let parts = [address(client.0), port(client.1), address(asked.0), port(asked.1)];
    let whole = concatenate(&parts);
    if client.0.is_ipv4() {
        return whole;
    }
    let hash = |seed| Bytes::from_slice(&jhash(&whole, u32::MAX, seed).to_ne_bytes());
    concatenate(&COUNTED_SEEDS.map(hash))
}
