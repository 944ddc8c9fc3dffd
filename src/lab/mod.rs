//! A virtual site in network namespaces: the demo `homing lab`, and the stage of `netns-tests`.
//!
//! ```text
//!   lan (many hosts) ──lan0─┐            ┌─wan0── ISP 1 ──┐
//!                           │  router r  ├─wan1── ISP 2 ──┤ internet (servers)
//!   dmz (a host, and ──dmz0─┘            └─wan2── ISP 3 ──┘
//!   servers, if asked for)
//! ```
//!
//! Everything has a name that begins with `hl-PID-N`, so many sites live side by side. ISPs route
//! only what belongs to their customer: a packet that leaves by an ISP with somebody else's source
//! is recorded there ([`Isp::sources_seen`], [`Stage::check_leaks`]) and never answered.
//! Nothing here touches the namespace that we come from, and no packet leaves the site.
//!
//! A [`Layout`] is plain data, so that a second process can find its way in a running lab; only a
//! [`Stage`] owns the site, and removes it when dropped, also while a panic unwinds.

mod agent;
mod build;
mod capture;
pub mod demo;
mod error;
mod farm;
mod fault;
mod layout;
mod leftovers;
mod netns;
mod stage;
pub mod tools;
mod userns;

pub use agent::{Arrival, Client, LOGIN, PORTAL, Protocol, Servers, Session};
pub use capture::{Leak, Sighting};
pub use error::LabError;
pub use farm::FarmServer;
pub use fault::{Fault, Isp};
pub use layout::{
    CUSTOMER_SIDE, Handover, ISP_LINK_LOCAL, IspLayout, Layout, SERVERS_V4, SERVERS_V6,
    caller_address, dmz_router, dmz_server, farm_address, farm_name, host_address, lan_router,
    net_of6, net4, server,
};
pub use leftovers::remove_leftovers;
pub use netns::Namespace;
pub use stage::{Builder, Stage};
pub use userns::{become_root, run_dir};
