//! homing: a multi-ISP multihoming edge router in one process.

pub mod api;
#[cfg(test)]
mod arrows;
pub mod cli;
pub mod clock;
pub mod daemon;
pub mod doctor;
pub mod health;
#[doc(hidden)]
pub mod hostile;
pub mod kernel;
pub mod kstate;
pub mod lab;
pub mod model;
pub mod plan;
pub mod probe;
pub mod profile;
pub mod steering;
