//! Whether this host can do what we need: in plain sentences, each with its remedy.

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use super::conntrack::Conntrack;
use super::nfnl::Batch;
use super::rtnl::Rtnl;
use super::socket::Channel;
use super::{KernelError, nft_read, nft_write};
use crate::kstate::Missing;
use crate::model::{Family, Mark, MarkMask};

/// A session with this mark is not looked for, only the table is.
const NOBODY: (Mark, MarkMask) = (Mark(u32::MAX), MarkMask(u32::MAX));

/// Checks everything, harmlessly: it reads, and commits one empty nft transaction.
///
/// # Errors
/// What is missing, in the order in which to put it right.
pub fn probe() -> Result<(), Vec<Missing>> {
    // Without permission the checks that need it would only say so again, in other words.
    let checks: &[fn() -> Result<(), Missing>] = match permission() {
        Ok(()) => &[routing, nf_tables, nft_program, sessions],
        Err(_) => &[permission, routing, nft_program],
    };
    let missing: Vec<Missing> = checks.iter().filter_map(|check| check().err()).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(missing),
    }
}

fn missing(what: impl Into<String>, remedy: &str) -> Missing {
    Missing { what: what.into(), remedy: remedy.to_owned() }
}

/// An empty transaction needs the permission that a full one needs.
fn permission() -> Result<(), Missing> {
    let done = Channel::open(NETLINK_NETFILTER).and_then(|mut c| c.batch(Batch::new().finish()));
    match done {
        Err(error) if error.is(&[Errno::EPERM, Errno::EACCES]) => Err(missing(
            "changing the network is not permitted",
            "run as root, or with the capability CAP_NET_ADMIN",
        )),
        // Whatever else is wrong is found below.
        _ => Ok(()),
    }
}

fn routing() -> Result<(), Missing> {
    let read = |cause: String| {
        let remedy =
            "let this process use netlink sockets (a container or a sandbox may forbid it)";
        missing(format!("routing rules cannot be read ({cause})"), remedy)
    };
    let mut rtnl = Rtnl::open().map_err(|error| read(error.to_string()))?;
    let rules = rtnl.rules(Family::V4).map_err(|e| read(with_cause(&e)))?;
    match rules.is_empty() {
        true => {
            Err(missing("policy routing is missing", "use a kernel with CONFIG_IP_MULTIPLE_TABLES"))
        }
        false => Ok(()),
    }
}

fn nf_tables() -> Result<(), Missing> {
    let lacks = |cause: String| {
        let remedy = "load it with `modprobe nf_tables`, or use a kernel with CONFIG_NF_TABLES";
        missing(format!("nftables is missing in the kernel ({cause})"), remedy)
    };
    let open = Channel::open(NETLINK_NETFILTER);
    let mut channel = open.map_err(|error| lacks(error.to_string()))?;
    let generation = nft_read::generation(&mut channel);
    generation.map(|_| ()).map_err(|e| lacks(with_cause(&e)))
}

fn nft_program() -> Result<(), Missing> {
    match nft_write::find_nft() {
        Some(_) => Ok(()),
        None => Err(missing("nft is not installed", "apt-get install nftables")),
    }
}

fn sessions() -> Result<(), Missing> {
    let remedy = "load it with `modprobe nf_conntrack_netlink`";
    let walk = Conntrack::open().and_then(|mut c| c.walk(Some(NOBODY), |_| {}));
    walk.map_err(|e| missing(format!("sessions cannot be read ({})", with_cause(&e)), remedy))
}

fn with_cause(error: &KernelError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    cause.unwrap_or_else(|| error.to_string())
}
