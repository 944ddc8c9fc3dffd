//! Scenarios on a real kernel.
