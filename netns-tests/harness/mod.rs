//! What every scenario needs.

mod answers;
pub mod callers;
pub mod farm;
pub mod http;
pub mod program;
mod site;
mod snapshot;
mod targets;
mod traffic;
mod wait;

pub use answers::Resolver;
pub use site::{Outcome, PATIENCE, PROBES, Site, homing, one_policy, profile, with_uplinks};
pub use snapshot::Snapshot;
pub use targets::{Certificate, GOOD_TEXT, HOST, HTTP_PORT, HTTPS_PORT, Mood, TCP_PORT, Targets};
pub use wait::until;

use std::sync::Once;

use homing::lab::{self, Builder, Stage};
use homing::model::Family;

/// Makes sure that namespaces can be made, and removes what a killed run left behind. Fails, never
/// skips: without the right to make namespaces nothing here means anything.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = lab::become_root() {
            panic!("the scenarios need root or user namespaces: {error}");
        }
        lab::remove_leftovers();
    });
}

/// A site without homing, ISPs by the usual names.
pub fn stage(change: impl FnOnce(Builder) -> Builder) -> Stage {
    prepare();
    change(Builder::new(&["fiber", "cable", "lte"])).build().expect("build the stage")
}

/// Each scenario in both families, as tests of their own: `both!(name)` calls `fn name(Family)`.
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod v4 {
            $(#[test] fn $name() { super::$name($crate::harness::V4) })*
        }
        mod v6 {
            $(#[test] fn $name() { super::$name($crate::harness::V6) })*
        }
    };
}
pub(crate) use both;

pub const V4: Family = Family::V4;
pub const V6: Family = Family::V6;
