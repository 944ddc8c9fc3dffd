//! Our own changes of nftables, made without being told of them.
//!
//! As long as anybody listens to nftables the kernel writes a message for each element and rule that
//! changes, which takes longer than the change. So our listener leaves the group while we work. What others
//! did meanwhile shows in the generation of the rule set, which each transaction raises by one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use netlink_sys::Socket;

use super::nft_read::generation;
use super::notices::NFTABLES_GROUP;
use super::socket::{Channel, NetlinkError};
use super::wire::Message;

/// Shared by the one who listens and those who change.
#[derive(Debug, Clone, Default)]
pub struct Hush(Arc<Mutex<Ears>>);

#[derive(Debug, Default)]
struct Ears {
    listener: Option<Arc<Socket>>,
    /// Who is at work.
    writers: u32,
    /// The generation when the first of them began, if it could be read.
    before: Option<u32>,
    /// Transactions of ours since.
    ours: u32,
    missed: bool,
    waker: Option<Waker>,
}

impl Hush {
    /// From now on this socket is the one that listens.
    pub(super) fn listen(&self, socket: Arc<Socket>) {
        let mut ears = self.ears();
        // One that was left while somebody is at work is joined again when he is done.
        ears.listener = Some(socket);
        ears.missed = false;
    }

    /// Whether others may have changed something meanwhile, once. Wakes the task when they have.
    pub(super) fn poll_missed(&self, cx: &Context<'_>) -> bool {
        let mut ears = self.ears();
        ears.waker = Some(cx.waker().clone());
        std::mem::take(&mut ears.missed)
    }

    /// Does one transaction unheard.
    pub(super) fn batch(
        &self,
        channel: &mut Channel,
        message: Message,
    ) -> Result<(), NetlinkError> {
        self.enter(channel);
        let outcome = channel.batch(message);
        self.leave(channel, outcome.is_ok());
        outcome
    }

    pub(super) fn enter(&self, channel: &mut Channel) {
        let mut ears = self.ears();
        ears.writers += 1;
        if ears.writers == 1
            && let Some(listener) = ears.listener.clone()
        {
            ears.ours = 0;
            // First the number: what happens before the group is left is heard, and counted.
            ears.before = generation(channel).ok();
            ears.missed |=
                ears.before.is_none() || listener.drop_membership(NFTABLES_GROUP).is_err();
        }
    }

    pub(super) fn leave(&self, channel: &mut Channel, done: bool) {
        let mut ears = self.ears();
        ears.writers -= 1;
        ears.ours += u32::from(done);
        if ears.writers == 0
            && let Some(listener) = ears.listener.clone()
        {
            let joined = listener.add_membership(NFTABLES_GROUP).is_ok();
            let expected = ears.before.map(|before| before.wrapping_add(ears.ours));
            let known = joined && expected.is_some() && generation(channel).ok() == expected;
            ears.missed |= !known;
        }
        if ears.missed
            && let Some(waker) = ears.waker.take()
        {
            waker.wake();
        }
    }

    fn ears(&self) -> MutexGuard<'_, Ears> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
