//! `ip rule`s.

use ipnet::IpNet;

use crate::model::{Family, IfName, Mark, MarkMask, RulePriority, TableId};

/// One rule. Two rules may share a priority.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Lower is looked at first.
    pub priority: RulePriority,
    /// IPv4 and IPv6 have separate lists.
    pub family: Family,
    /// `not`: applies to packets that do *not* match.
    pub invert: bool,
    /// `fwmark MARK/MASK`; mark 0 with a mask is "no bit of the mask".
    pub mark: Option<(Mark, MarkMask)>,
    /// `from`.
    pub source: Option<IpNet>,
    /// `iif`.
    pub input: Option<IfName>,
    /// `oif`: sockets bound to this device.
    pub output: Option<IfName>,
    /// What it does.
    pub action: RuleAction,
    /// `suppress_prefixlength`: routes with a prefix this short or shorter are not taken.
    pub suppress_prefix_length: Option<u32>,
    /// Who made it (`FRA_PROTOCOL`); 0 is "unspecified", 2 the kernel itself.
    pub protocol: u8,
    /// It has selectors or attributes that this type does not hold. Never true of ours.
    pub has_more: bool,
}

/// What a rule does with a packet that it applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    /// `lookup TABLE`.
    Lookup(TableId),
    /// `unreachable`.
    Unreachable,
    /// Anything else, by the kernel's number (`FR_ACT_*`).
    Other(u8),
}
