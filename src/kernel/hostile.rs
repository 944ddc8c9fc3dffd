//! The decoders on bytes that no kernel sent: for `fuzz/` and for the test of its kept inputs.
//!
//! Each function takes a datagram, cuts it into messages as a socket's reader does, and gives every
//! message to every decoder of its kind, whatever type the message claims to be of: so mutations reach
//! all of them soon. Nothing comes out; what counts is that it ends, soon and without a panic.

use super::{conntrack, nft_read, nft_write, notices, rtnl, socket, wire};

/// Links, addresses, routes, rules.
pub fn routing(datagram: &[u8]) {
    wire::messages(datagram).for_each(|message| rtnl::decode_any(message.body));
}

/// Tables, chains, rules, sets, elements, the generation.
pub fn nftables(datagram: &[u8]) {
    wire::messages(datagram).for_each(|message| nft_read::decode_any(message.body));
}

/// Sessions.
pub fn sessions(datagram: &[u8]) {
    wire::messages(datagram).for_each(|message| conntrack::decode_any(message.body));
}

/// Notices of routing and of nftables.
pub fn notices(datagram: &[u8]) {
    wire::messages(datagram).for_each(|message| notices::decode_any(&message));
}

/// Refusals: those of the kernel, and the complaints of `nft`.
pub fn refusals(datagram: &[u8]) {
    let lines = ["add table inet homing", "add chain inet homing x"].map(str::to_owned);
    for message in wire::messages(datagram) {
        let _ = socket::refusal(&message).map_err(|error| error.to_string());
        let said = String::from_utf8_lossy(message.body);
        let _ = nft_write::refusal(&lines, &said).to_string();
    }
}
