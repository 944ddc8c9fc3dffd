//! Who takes new sessions: members with tier, weight and usability become the owners of 256 slots.
//!
//! Pure, and the same for policies (members are uplinks) and services (members are servers). A new
//! binding picks a slot in the kernel; whose it is decided here. [`select`] names the owners,
//! [`deal`] gives each its share of the slots, moving as few as possible from what was dealt before.

mod measured;
mod rendezvous;
mod select;
mod slots;

pub use measured::{Dealer, Measure, Offer};
pub use rendezvous::{deal_by_hash, deal_some_by_hash};
pub use select::{Candidate, Selection, select};
pub use slots::{SLOTS, SlotTable, deal};
