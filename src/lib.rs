//! homing: a multi-ISP multihoming edge router in one process.

pub mod kstate;
pub mod lab;
pub mod model;
