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

mod board;
mod machine;
mod referee;
mod rounds;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_links;
mod window;

pub use board::{Action, Board, Member, Question};
pub use machine::{Health, Judgement, Machine, Terms};
pub use window::{Figures, Window};
