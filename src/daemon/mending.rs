//! Goes through the sessions and does what the [`Mender`] says.

use std::collections::BTreeMap;

use super::dismissal::Dismisser;
use crate::kernel::{Conntrack, KernelError, Session};
use crate::model::MarkLayout;
use crate::plan::{Entry, Flaw, Mend, Mender};

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mended {
    /// Sessions that got the uplink they belong to.
    pub adopted: u64,
    /// Sessions that were ended, by reason.
    pub ended: BTreeMap<Flaw, u64>,
}

/// Which sessions to deal with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Only adopt: what is not in force yet cannot have been done wrongly.
    Adopt,
    /// Adopt, and end what is wrong.
    All,
}

/// Goes through all sessions once. One that ends by itself meanwhile is fine.
pub(super) fn mend(
    mender: &Mender,
    extent: Extent,
    marks: MarkLayout,
) -> Result<Mended, KernelError> {
    // One socket reads while others change.
    let (mut reader, mut writer) = (Conntrack::open()?, Conntrack::open()?);
    let mut dismisser = Dismisser::open(marks)?;
    let mut done = Mended::default();
    let mut outcome = Ok(());
    reader.walk(None, |session| {
        let changed = match mender.judge(&entry(session)) {
            Some(Mend::Adopt(uplink)) => {
                done.adopted += 1;
                writer.set_mark(session, uplink, marks.uplink)
            }
            Some(Mend::End(flaw)) if extent == Extent::All => {
                *done.ended.entry(flaw).or_default() += 1;
                match flaw {
                    // Nobody knows the client by the address that it has on the way.
                    Flaw::Untranslated | Flaw::Unserved => writer.delete(session),
                    Flaw::AddressGone | Flaw::UplinkGone => dismisser.end(session).map(drop),
                }
            }
            _ => Ok(()),
        };
        if let (Err(error), Ok(())) = (changed, &outcome) {
            outcome = Err(error);
        }
    })?;
    outcome.and(dismisser.finish()).map(|()| done)
}

fn entry(session: &Session) -> Entry {
    Entry {
        source: session.orig.src,
        destination: session.orig.dst,
        protocol: session.protocol,
        port: session.orig.dport,
        answered_at: session.reply.dst,
        answered_by: session.reply.src,
        answered: session.has(Session::REPLY_SEEN),
        mark: session.mark,
    }
}

impl Mended {
    /// What people should know; nothing when nothing was done.
    pub(super) fn tell(&self) -> Vec<String> {
        let sessions = |count: u64| match count {
            1 => "1 session".to_owned(),
            more => format!("{more} sessions"),
        };
        let adopted = (self.adopted > 0).then(|| {
            format!("{} that began without homing now keep to their uplink", sessions(self.adopted))
        });
        let ended = self.ended.iter();
        let ended =
            ended.map(|(flaw, count)| format!("ended {} {}", sessions(*count), flaw.describe()));
        adopted.into_iter().chain(ended).collect()
    }
}
