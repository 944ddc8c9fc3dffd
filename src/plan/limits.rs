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

/// The IANA numbers of the protocols whose connections are counted: TCP and UDP.
const COUNTED: [u8; 2] = [6, 17];

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

    /// Where a connection stands: its protocol, the client, what it asked for, who answers, and the
    /// mark tell. What has no ports is not counted.
    pub fn place(
        &self,
        protocol: u8,
        client: End,
        asked: End,
        server: IpAddr,
        mark: Mark,
    ) -> Option<(&str, Bytes)> {
        let set = self.sets.get(&(server, Mark(mark.0 & MarkMask(self.mask).0)))?;
        COUNTED.contains(&protocol).then(|| (set.as_str(), key(protocol, client, asked)))
    }
}

/// The key of a connection as the kernel has it.
fn key(protocol: u8, client: End, asked: End) -> Bytes {
    let port = |port: u16| Bytes::from_slice(&port.to_be_bytes());
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => Bytes::from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::from_slice(&address.octets()),
    };
    let protocol = Bytes::from_slice(&[protocol]);
    let parts = [protocol, address(client.0), port(client.1), address(asked.0), port(asked.1)];
    let whole = concatenate(&parts);
    if client.0.is_ipv4() {
        return whole;
    }
    let hash = |seed| Bytes::from_slice(&jhash(&whole, u32::MAX, seed).to_ne_bytes());
    concatenate(&COUNTED_SEEDS.map(hash))
}

#[cfg(test)]
mod tests {
    use super::{COUNTED, key};
    use crate::kstate::SetShape;
    use crate::model::Family;
    use crate::plan::nft::counted_shape;

    fn width(shape: &SetShape) -> usize {
        shape.key.iter().map(|part| part.width().next_multiple_of(4)).sum()
    }

    #[test]
    fn a_key_has_the_shape_of_its_set_and_tells_protocols_apart() {
        for (family, client, asked) in [
            (Family::V4, "203.0.113.7:4000", "198.51.100.2:443"),
            (Family::V6, "[2001:db8::7]:4000", "[2001:db8:1::2]:443"),
        ] {
            let end = |text: &str| -> (std::net::IpAddr, u16) {
                let at: std::net::SocketAddr = text.parse().unwrap_or_else(|_| panic!("{text}"));
                (at.ip(), at.port())
            };
            let keys = COUNTED.map(|protocol| key(protocol, end(client), end(asked)));
            assert_ne!(keys[0], keys[1], "{family:?}");
            assert_eq!(keys[0].len(), width(&counted_shape(family)), "{family:?}");
        }
    }
}
