//! homing: a multi-ISP multihoming edge router in one process.

pub mod kstate;
pub mod model;
pub mod plan;
pub mod steering;
