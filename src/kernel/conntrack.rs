//! The table of sessions: walk it, count it, release sessions from it.
//!
//! A walk over 200,000 entries takes about 0.3 s and blocks; keep it off the steering path.

mod decode;
mod idle;

use std::collections::BTreeMap;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use super::KernelError;
use super::nfnl;
use super::socket::{Channel, NetlinkError};
use super::wire::Message;
use crate::model::{Mark, MarkMask};

use decode::attr;
pub(super) use decode::session as decode_session;
pub use decode::{Direction, Session, Tuple};
pub use idle::Timeouts;

/// `NFNL_SUBSYS_CTNETLINK`
const CONNTRACK: u16 = 1;
/// `IPCTNL_MSG_CT_NEW`, `_GET`, `_DELETE`
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `AF_UNSPEC`
const BOTH_FAMILIES: u8 = 0;

/// The sessions of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    channel: Channel,
}

impl Conntrack {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open() -> Result<Conntrack, KernelError> {
        let channel = Channel::open(NETLINK_NETFILTER)
            .map_err(|source| KernelError::Open { protocol: "conntrack", source })?;
        Ok(Conntrack { channel })
    }

    /// Shows every session of both families; with a filter, those whose mark is the given one
    /// under the mask (the kernel does the filtering).
    ///
    /// # Errors
    /// When the table cannot be read. What was shown until then is true.
    pub fn walk(
        &mut self,
        filter: Option<(Mark, MarkMask)>,
        mut each: impl FnMut(&Session),
    ) -> Result<(), KernelError> {
        let mut message = message(GET, BOTH_FAMILIES);
        if let Some((mark, mask)) = filter {
            select(&mut message, mark, mask);
        }
        // Kernels without the filter show all.
        let wanted = |s: &Session| filter.is_none_or(|(m, k)| s.mark.0 & k.0 == m.0);
        let show = |body: &[u8]| {
            if let Some(session) = decode::session(body).filter(wanted) {
                each(&session);
            }
        };
        self.channel.walk(message, show).map_err(failed("read the sessions"))
    }

    /// The session that has these addresses and ports now: this one, or a newer one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn get(&mut self, session: &Session) -> Result<Option<Session>, KernelError> {
        let mut message = message(GET, decode::family_number(session.family));
        decode::write_identity(&mut message, session);
        match self.channel.get(message, |received| decode::session(received.body)) {
            Err(error) if error.is(&[Errno::ENOENT]) => Ok(None),
            other => other.map_err(failed("look for a session")),
        }
    }

    /// How many sessions there are for each value of the mark under a mask.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn count_by_mark(&mut self, mask: MarkMask) -> Result<BTreeMap<Mark, u64>, KernelError> {
        let mut counts = BTreeMap::new();
        self.walk(None, |session| {
            *counts.entry(Mark(session.mark.0 & mask.0)).or_default() += 1;
        })?;
        Ok(counts)
    }

    /// Deletes, within the kernel, every session whose mark is the given one under the mask. An
    /// empty mask would delete all sessions, and is taken for a request to delete none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete_by_mark(&mut self, mark: Mark, mask: MarkMask) -> Result<(), KernelError> {
        if mask.0 == 0 {
            return Ok(());
        }
        let mut message = message(DELETE, BOTH_FAMILIES);
        select(&mut message, mark, mask);
        self.channel.request(message).map_err(failed("delete the sessions of a mark"))
    }

    /// Deletes one session: this one, not a newer one with the same addresses and ports. One that
    /// is gone already is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn delete(&mut self, session: &Session) -> Result<(), KernelError> {
        let mut message = message(DELETE, decode::family_number(session.family));
        decode::write_identity(&mut message, session);
        message.attribute_be32(attr::ID, session.id);
        unless_gone(self.channel.request(message)).map_err(failed("delete a session"))
    }

    /// Sets the bits of the mask in a session's mark, and leaves the others. One that is gone
    /// already is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mark(
        &mut self,
        session: &Session,
        mark: Mark,
        mask: MarkMask,
    ) -> Result<(), KernelError> {
        // With neither flag a missing session is ENOENT, and is not made.
        let mut message = message(NEW, decode::family_number(session.family));
        decode::write_identity(&mut message, session);
        select(&mut message, mark, mask);
        unless_gone(self.channel.request(message)).map_err(failed("mark a session"))
    }

    /// The same, and the session is forgotten after so many seconds without a packet that the kernel
    /// lets extend it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remark(
        &mut self,
        session: &Session,
        mark: Mark,
        mask: MarkMask,
        seconds: u32,
    ) -> Result<(), KernelError> {
        let mut message = message(NEW, decode::family_number(session.family));
        decode::write_identity(&mut message, session);
        select(&mut message, mark, mask);
        message.attribute_be32(attr::TIMEOUT, seconds);
        unless_gone(self.channel.request(message)).map_err(failed("mark a session"))
    }
}

impl Conntrack {
    /// A session is forgotten after so many seconds, unless a packet comes. One that is gone already
    /// is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_timeout(&mut self, session: &Session, seconds: u32) -> Result<(), KernelError> {
        let mut message = message(NEW, decode::family_number(session.family));
        decode::write_identity(&mut message, session);
        message.attribute_be32(attr::TIMEOUT, seconds);
        unless_gone(self.channel.request(message)).map_err(failed("give a session its time"))
    }
}

/// Takes a message for a session: whatever the bytes, it comes back. What can be read can be
/// written, too.
pub(super) fn decode_any(body: &[u8]) {
    if let Some(session) = decode::session(body) {
        decode::write_identity(&mut message(GET, 0), &session);
    }
}

fn message(kind: u16, family: u8) -> Message {
    let mut message = Message::new(CONNTRACK << 8 | kind, 0);
    message.raw(&nfnl::header(family, 0));
    message
}

fn select(message: &mut Message, mark: Mark, mask: MarkMask) {
    message.attribute_be32(attr::MARK, mark.0);
    message.attribute_be32(attr::MARK_MASK, mask.0);
}

fn unless_gone(outcome: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match outcome {
        Err(error) if error.is(&[Errno::ENOENT]) => Ok(()),
        other => other,
    }
}

fn failed(what: &'static str) -> impl FnOnce(NetlinkError) -> KernelError {
    move |source| KernelError::Conntrack { what, source }
}
