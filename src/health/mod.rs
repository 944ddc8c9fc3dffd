//! How well members do: outcomes of probes become `up`, `degraded` or `down`.
//!
//! Pure, and the same for uplinks and servers. A [`Machine`] judges one member by its rounds of
//! probes and by faults that count at once; its [`Window`] keeps the last outcomes, from which loss,
//! round-trip time and jitter follow.
//!
//! ```text
//!              rise good rounds                 a figure above its limit
//!   unknown ───────────────────────► up ◄──────────────────────────────► degraded
//!      │                              ▲       all below half of theirs        │
//!      │ fall bad rounds, or a fault  │ rise good rounds,                     │
//!      ▼                              │ and the hold-down is over             │
//!     down ───────────────────────────┘◄──────────────────────────────────────┘
//! ```

mod machine;
#[cfg(test)]
mod tests;
mod window;

pub use machine::{Health, Judgement, Machine, Terms};
pub use window::{Figures, Outcome, Window};
