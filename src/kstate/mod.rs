//! Kernel state as plain values.
//!
//! [`KernelState`] is what is *ours*: the same type says what we want and what we saw, so that one
//! difference function serves both. [`Facts`] is what we only read: links, addresses, routes and
//! rules of others. Everything is normalised here, at the edge: counters, ages and handles are
//! left out, and order never matters unless the kernel looks at it.

mod address;
mod elements;
mod facts;
mod flowtable;
mod host;
mod jhash;
mod lookup;
mod nft;
mod object;
mod route;
mod rule;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use address::OwnAddress;
pub use elements::Elements;
pub use facts::{Address, Facts, Link};
pub use flowtable::{
    FLOWTABLE, Flowtable, OFFLOAD_CHAIN, OFFLOAD_GATE, OFFLOAD_RULE, Offload, Offloading,
    offload_rule,
};
pub use host::{ForeignChain, ForeignTable, Host, MarkChange, Missing};
pub use jhash::jhash;
pub use lookup::{Lookup, RouteInput, RouteQuery};
pub use nft::{
    Bytes, Chain, Declared, Digest, ElementData, FieldType, NftTable, Role, Set, SetData, SetShape,
    Verdict, concatenate, ifname_bytes, render_fields,
};
pub use object::Object;
pub use route::{Route, RouteKind};
pub use rule::{Rule, RuleAction};
pub use step::{NftOp, Step};

/// The protocol number that marks routes, rules and addresses as ours (`ip route`'s `proto 201`).
pub const OUR_PROTOCOL: u8 = 201;

/// The priority of packets that make a service's client speak: no other program uses it.
pub const KNOCKING: u32 = 0x686f_6d65;

/// The name of our nft table, in the family `inet`.
pub const TABLE_NAME: &str = "homing";

/// A kernel setting: its path below `/proc/sys`, such as `net/ipv4/ip_forward`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SysctlKey(pub String);

/// Everything in the kernel that is ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelState {
    /// Settings that routing needs. Desired: what they must be. Observed: what those are.
    pub sysctls: BTreeMap<SysctlKey, String>,
    /// Addresses of our protocol.
    pub addresses: BTreeSet<OwnAddress>,
    /// Routes of our protocol in our tables.
    pub routes: BTreeSet<Route>,
    /// Rules of our protocol in our range.
    pub rules: BTreeSet<Rule>,
    /// The nft table, if it is there.
    pub nft: Option<Arc<NftTable>>,
}

/// One look at the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// What is ours.
    pub ours: KernelState,
    /// What is not.
    pub facts: Facts,
}
