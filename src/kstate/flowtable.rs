//! Flowtables: sessions that are known go from device to device past all rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Declared;
use crate::model::IfName;

/// The name of our flowtable.
pub const FLOWTABLE: &str = "fast";

/// The chain that puts sessions into it.
pub const OFFLOAD_CHAIN: &str = "speed-up";

/// Its only rule. It depends on nothing in the profile, so that the flowtable can be made anew without
/// one. A UDP session is assured when packets have gone both ways for two seconds: short ones are not
/// worth it. The kernel itself leaves out sessions with helpers, connections that are not established,
/// packets with IP options, and what goes through IPsec.
pub const OFFLOAD_RULE: &str =
    "meta l4proto { tcp, udp } ct state established ct status assured flow add @fast";

/// The same as a piece of structure.
pub fn offload_rule() -> Declared {
    Declared::new(OFFLOAD_RULE, "fast-path")
}

/// A flowtable at ingress, which counts what it carries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flowtable {
    /// Packets that come in by these are looked up in it.
    pub devices: BTreeSet<IfName>,
    /// The network cards do it.
    pub hardware: bool,
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
        write!(
            f,
            "hook ingress priority filter; devices = {{ {} }};{hardware} counter;",
            devices.join(", ")
        )
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
        let mut flowtable = Flowtable { devices, hardware: false };
        let soft = "hook ingress priority filter; devices = { \"lan0.7\", \"wan0\" }; counter;";
        assert_eq!(flowtable.to_string(), soft);
        flowtable.hardware = true;
        assert!(flowtable.to_string().ends_with("}; flags offload; counter;"));
    }
}
