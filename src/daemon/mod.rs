//! The process: watches the kernel and steers.
//!
//! Long-lived parts, and who owns what:
//!
//! - the **main task** hears kernel notices, signals, timers and API requests, and waits for nothing
//!   else; its **engine** owns the site in force, the last report and all counters, and decides what
//!   happens next;
//! - the **reconciler** (a thread, because netlink and `nft` block) owns the [`crate::kernel`]
//!   handle and the state directory; it does one round at a time and reports;
//! - the **reader** (a thread) reads figures for those who ask, and the **walker** (a thread) lists and
//!   counts sessions and bindings;
//! - the **sweeper** (a thread) walks the sessions: it keeps bindings alive under them, and mends
//!   sessions that went wrong;
//! - the **API** tasks own a connection each and ask the engine;
//! - the **notifier**'s tasks (one for each entry under `notify`) follow the event log.
//!
//! If the process is killed, traffic goes on as it was last steered: everything a packet needs is
//! in the kernel.

mod addresses;
mod airing;
mod announcing;
mod checks;
mod counts;
mod dealing;
mod dismissal;
mod durations;
mod engine;
mod evacuations;
mod evacuator;
mod events;
mod exclusive;
mod explaining;
mod failovers;
mod judge;
mod listing;
mod loading;
mod loads;
mod main_task;
mod mending;
mod notifier;
mod paging;
mod reader;
mod reconcile;
mod reconciler;
mod report;
mod requests;
mod run;
mod server_moves;
mod state;
mod status;
mod status_services;
mod sweeper;
mod takedown;
#[cfg(test)]
mod tests_crash;
mod usher;
mod walker;

pub use counts::FULL as MAP_SIZE;
pub use durations::{BOUNDS, Durations};
pub use events::{EventRecord, Following};
pub use exclusive::{Exclusive, is_running};
pub use loading::{LoadError, load_profile, read_profile};
pub use mending::Mended;
pub use notifier::NoticeCounts;
pub use paging::{Cursor, SessionPage, SessionQuery};
pub use reconcile::{Round, observe_for};
pub use report::{Failure, Measures, Report};
pub use requests::{Binding, Census, Refusal, Request, SessionLine};
pub use run::{Options, RunError, run};
#[doc(hidden)]
pub use state::decode_state;
pub use state::{StateDir, StateError};
pub use status::{PolicyStatus, Status, UplinkStatus};
pub use status_services::{GroupStatus, ServerStatus, ServiceStatus};
pub use takedown::{TakedownError, take_down};
