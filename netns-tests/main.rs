//! Scenarios on a real kernel: a site in network namespaces, `homing run` in its router, and
//! assertions with the system's own tools and with what servers and ISPs saw.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so and stops"
)]
#![allow(unreachable_pub, reason = "nobody imports a test")]

mod harness;
mod stage;
