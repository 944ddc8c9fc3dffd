//! Scenarios on a real kernel: a site in network namespaces, `homing run` in its router, and
//! assertions with the system's own tools and with what servers and ISPs saw.
//!
//! Each scenario runs in IPv4 and in IPv6, has a site of its own, and ends with a look at what every
//! ISP received: never a packet with a source that is not ours to use there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on says so and stops"
)]
#![allow(unreachable_pub, reason = "nobody imports a test")]

mod harness;

mod advertised;
mod all_down;
mod api;
mod api_abuse;
mod balance;
mod bound;
mod changes;
mod crash;
mod demo;
mod doctor;
mod documents;
mod drift;
mod evacuation;
mod events;
mod explain;
mod fast_path;
mod firewall;
mod foreign;
mod health;
mod hostile;
mod ike;
mod inbound;
mod large;
mod leaks;
mod lifecycle;
mod lines;
mod matching;
mod measured;
mod metrics;
mod modes;
mod notices;
mod openapi;
mod own_traffic;
mod persistence;
mod places;
mod privilege;
mod probes;
mod programs;
mod random;
mod refusals;
mod reload;
mod servers;
mod service;
mod services;
mod sessions;
mod stage;
mod terminal;
mod unlucky;
