//! Ends sessions so that their ends notice, and not too many at a time.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use crate::kernel::{Conntrack, KernelError, Knocker, Session, Timeouts, release_flows};
use crate::model::{IfName, Mark, MarkLayout};
use crate::plan::{Exit, Leaver, dismissed};

/// How long a session is known whose client does not react. After that its next packet begins a
/// session anew, which the other end refuses.
const GRACE_S: u32 = 60;

/// Sessions a second, at most.
const RATE: u32 = 20_000;
/// After so many it is seen whether that is kept.
const PORTION: u32 = 100;

/// Ends sessions.
pub(super) struct Dismisser {
    writer: Conntrack,
    knocker: Option<Knocker>,
    /// Knock at clients behind uplinks, by the uplink's mark.
    outside: BTreeMap<Mark, Knocker>,
    marks: MarkLayout,
    pace: Pace,
    /// Marked, but a flowtable may still carry them past the rules.
    marked: Vec<Session>,
}

impl Dismisser {
    pub(super) fn open(marks: MarkLayout) -> Result<Dismisser, KernelError> {
        let knocker = Knocker::open(marks.reserved());
        if let Err(error) = &knocker {
            tracing::warn!("idle clients of ended connections will notice late: {error}");
        }
        Ok(Dismisser {
            writer: Conntrack::open()?,
            knocker: knocker.ok(),
            outside: BTreeMap::new(),
            marks,
            pace: Pace::default(),
            marked: Vec::new(),
        })
    }

    /// Clients behind these devices are reached too: those of services.
    pub(super) fn reaching(mut self, devices: &BTreeMap<Mark, IfName>) -> Dismisser {
        for (mark, device) in devices {
            match Knocker::outside(device) {
                Ok(knocker) => drop(self.outside.insert(*mark, knocker)),
                Err(error) => {
                    tracing::warn!("idle clients behind {device} will notice late: {error}");
                }
            }
        }
        self
    }

    /// Ends one. A TCP client is reset: its packets meet a rule that does so, and a few segments make
    /// it speak. Everything else is forgotten, and begins anew with its next packet. Sleeps when it is
    /// called too often.
    pub(super) fn end(&mut self, session: &Session) -> Result<Exit, KernelError> {
        self.pace.keep();
        let exit = leaver(session).exit();
        match exit {
            Exit::Release => self.writer.delete(session)?,
            Exit::Reset => {
                let mark = dismissed(session.mark, self.marks);
                let mask = self.marks.uplink.0 | self.marks.policy.0;
                self.writer.remark(session, mark, crate::model::MarkMask(mask), GRACE_S)?;
                self.marked.push(session.clone());
                if !session.is_offloaded() {
                    self.knock(session);
                }
            }
        }
        Ok(exit)
    }

    /// To be called when those who leave have been gone through: sessions that went past the rules meet
    /// them from now on. One that was forgotten is out of the flowtable by itself; one that was marked
    /// is not, and would go on as before. All sessions are let out of it at once: the marked ones do
    /// not get in again, others do soon. Newer kernels do not always
    /// tell of a session that it is in a flowtable: so that counts for all that were marked.
    pub(super) fn finish(&mut self) -> Result<(), KernelError> {
        let marked = std::mem::take(&mut self.marked);
        if marked.is_empty() || !release_flows()? {
            return Ok(());
        }
        for session in marked {
            self.pace.keep();
            self.knock(&session);
        }
        Ok(())
    }

    /// Makes a client speak. If that fails, its next packet is answered all the same.
    fn knock(&self, session: &Session) {
        let entered = Mark(session.mark.0 & self.marks.uplink.0);
        // The client of a service is at the far side of the uplink.
        let served = session.mark.0 & self.marks.server.0 != 0 && entered.0 != 0;
        let knocker = match served {
            true => self.outside.get(&entered),
            false => self.knocker.as_ref(),
        };
        if let Some(Err(error)) = knocker.map(|one| one.knock(session)) {
            tracing::debug!("not knocked at {}: {error}", session.orig.src);
        }
    }

    /// Takes a dismissal back: the session belongs to this uplink, as before.
    pub(super) fn take_back(
        &mut self,
        session: &Session,
        uplink: Mark,
        timeouts: &Timeouts,
    ) -> Result<(), KernelError> {
        let seconds = timeouts.established().unwrap_or(GRACE_S);
        self.writer.remark(session, uplink, self.marks.uplink, seconds)
    }
}

/// A session in the eyes of who decides.
pub(super) fn leaver(session: &Session) -> Leaver {
    Leaver {
        family: session.family,
        protocol: session.protocol,
        mark: session.mark,
        answered: session.has(Session::REPLY_SEEN),
        tcp_state: session.tcp_state,
    }
}

/// Keeps the rate.
#[derive(Default)]
struct Pace {
    started: Option<Instant>,
    done: u32,
}

impl Pace {
    fn keep(&mut self) {
        let started = *self.started.get_or_insert_with(clock::now);
        if self.done.is_multiple_of(PORTION) {
            let due = Duration::from_secs(1) * self.done / RATE;
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
        self.done = self.done.saturating_add(1);
    }
}
