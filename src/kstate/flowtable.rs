//! Flowtables: sessions that are known go from device to device past all rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Declared;
use crate::model::IfName;

/// The name of our flowtable.
pub const FLOWTABLE: &str = "fast";

/// The chain that puts sessions into it.
pub const OFFLOAD_CHAIN: &str = "speed-up";

/// What a packet that asks for it must meet first. Of all packets only one in 24 does, by chance: so few
/// short connections get in, which are not worth it, and long ones soon; and those that stay with the
/// rules pay little for the others.
pub const OFFLOAD_GATE: &str = "ct state established numgen random mod 24 0";

/// Its only rule. It depends on nothing in the profile, so that the flowtable can be made anew without
/// one. Short sessions are not worth it: a UDP session is assured when packets have gone both ways for
/// two seconds. The kernel itself leaves out sessions with helpers, connections that are not established,
/// packets with IP options, and what goes through IPsec.
pub const OFFLOAD_RULE: &str = "meta l4proto { tcp, udp } ct state established ct status assured flow add \
     @fast";

/// The same as a piece of structure.
pub fn offload_rule() -> Declared {
    Declared::new(OFFLOAD_RULE, "fast-path")
}

/// A flowtable at ingress.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flowtable {
    /// Packets that come in by these are looked up in it.
    pub devices: BTreeSet<IfName>,
    /// The network cards do it.
    pub hardware: bool,
    /// What it carries is counted for connection tracking.
    pub counts: bool,
}

/// What to ask the kernel about flowtables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offloading {
    /// Whether it takes these devices,
    pub devices: BTreeSet<IfName>,
    /// and whether their network cards would help.
    pub hardware: bool,
}

/// What the kernel said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offload {
    /// Why there can be none at all.
    pub missing: Option<String>,
    /// Devices that it takes.
    pub accepted: BTreeSet<IfName>,
    /// Devices that it does not take, and why.
    pub refused: BTreeMap<IfName, String>,
    /// Why network cards do not help; `None` when they do, or nobody asked.
    pub software: Option<String>,
}

impl fmt::Display for Flowtable {
    /// What stands between the braces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |device: &IfName| format!("\"{device}\"");
        let devices: Vec<String> = self.devices.iter().map(quoted).collect();
        let hardware = if self.hardware { " flags offload;" } else { "" };
        let counts = if self.counts { " counter;" } else { "" };
        let devices = devices.join(", ");
        write!(f, "hook ingress priority filter; devices = {{ {devices} }};{hardware}{counts}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test says what it expects

    use super::Flowtable;
    use crate::model::IfName;

    #[test]
    fn it_is_written_as_nft_reads_it() {
        let devices = ["wan0", "lan0.7"].map(|name| IfName::new(name).unwrap()).into();
        let mut flowtable = Flowtable { devices, hardware: false, counts: false };
        let soft = "hook ingress priority filter; devices = { \"lan0.7\", \"wan0\" };";
        assert_eq!(flowtable.to_string(), soft);
        (flowtable.hardware, flowtable.counts) = (true, true);
        assert_eq!(flowtable.to_string(), format!("{soft} flags offload; counter;"));
    }
}
