//! What the API may ask of the engine.

use serde::Serialize;
use tokio::sync::oneshot;

use super::status::Status;
use crate::plan::Admin;
use crate::plan::explain::{Explanation, Question};

/// A question or an order, with the way back.
#[derive(Debug)]
pub enum Request {
    /// How are things?
    Status(oneshot::Sender<Status>),
    /// Which bindings are there?
    Bindings(oneshot::Sender<Result<Vec<Binding>, Refusal>>),
    /// Where does this session go, and why?
    Explain(Box<Question>, oneshot::Sender<Result<Explanation, Refusal>>),
    /// Read the profile again; answered when it is in force (with its generation), or refused.
    Reload(oneshot::Sender<Result<u64, Refusal>>),
    /// Somebody wants the uplink of this name to be so; answered when new sessions follow.
    Order(String, Admin, oneshot::Sender<Result<(), Refusal>>),
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// One binding, as the kernel has learned it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Binding {
    /// The policy.
    pub policy: String,
    /// What is bound: the client's address.
    pub client: String,
    /// The destination, if it is part of the key. Of IPv6 pairs only hashes are kept: a
    /// hash is shown when no session tells its address.
    pub destination: Option<String>,
    /// The uplink.
    pub uplink: String,
    /// Seconds since the last session renewed it.
    pub idle_s: u64,
    /// Seconds until it is forgotten.
    pub left_s: u64,
}
