//! Places for large answers: they hold memory until they are read, so only a few are made or on their
//! way at once. When all places are taken for long, the connection that has held one longest is
//! closed: whoever does not read keeps nobody else from reading.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connections::Activity;

/// How many there are.
const PLACES: usize = 4;

/// So long a place is waited for before somebody is sent away,
const GRACE: Duration = Duration::from_secs(2);
/// and so often that is done for one who waits.
const ROUNDS: usize = 5;

/// All places.
#[derive(Debug, Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// Who has one, in the order in which they got it; some may be gone.
    held: Arc<Mutex<VecDeque<Weak<Holder>>>>,
}

/// One place. It goes with the answer, and is free when that was sent, or the connection is closed.
#[derive(Debug, Clone)]
pub(super) struct Place {
    _holder: Arc<Holder>,
}

#[derive(Debug)]
struct Holder {
    connection: Arc<Activity>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Places {
    fn default() -> Places {
        Places { free: Arc::new(Semaphore::new(PLACES)), held: Arc::default() }
    }
}

impl Places {
    /// Waits for a place; none if even those who should go do not go.
    pub(super) async fn take(&self, connection: Arc<Activity>) -> Option<Place> {
        // One and the same wait: who came first is served first.
        let mut waiting = pin!(self.free.clone().acquire_owned());
        let mut permit = None;
        for _ in 0..ROUNDS {
            if let Ok(free) = timeout(GRACE, &mut waiting).await {
                permit = free.ok();
                break;
            }
            self.expel_one();
        }
        let permit = permit?;
        let holder = Arc::new(Holder { connection, _permit: permit });
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|holder| holder.strong_count() > 0);
        held.push_back(Arc::downgrade(&holder));
        Some(Place { _holder: holder })
    }

    fn expel_one(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(holder) = held.pop_front() {
            if let Some(holder) = holder.upgrade() {
                holder.connection.expel();
                return;
            }
        }
    }
}
