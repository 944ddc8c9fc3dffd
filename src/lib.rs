//! homing: a multi-ISP multihoming edge router in one process.

pub mod kernel;
pub mod kstate;
pub mod model;
