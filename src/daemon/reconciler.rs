//! The thread that changes the kernel.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::reconcile::Round;
use super::report::Report;
use super::state::StateDir;
use crate::clock;
use crate::kernel::Linux;
use crate::kstate::{KernelState, Snapshot};
use crate::plan::{Layout, Standings};

/// Work for the thread.
pub(super) enum Order {
    /// Do a round.
    Round(Round),
    /// Keep these ids.
    Keep(Arc<Layout>),
    /// Keep how uplinks and servers answer: what was handed over last.
    Standings,
    /// Say when everything before this is done.
    Flush(oneshot::Sender<()>),
}

/// What the round put in force.
pub(super) type InForce = Option<Arc<(KernelState, Snapshot)>>;

/// The engine's end of the thread.
#[derive(Debug)]
pub(super) struct Reconciler {
    orders: Sender<Order>,
    /// To be kept, if it was not taken yet: only the last word counts.
    standings: Arc<Mutex<Option<Arc<Standings>>>>,
}

impl Reconciler {
    /// Starts the thread. Reports of rounds come by the receiver; it ends with the sender.
    pub(super) fn start(
        kernel: Linux,
        state: StateDir,
    ) -> std::io::Result<(Reconciler, mpsc::UnboundedReceiver<(Report, InForce)>)> {
        let (orders, inbox) = channel();
        let (reports, outbox) = mpsc::unbounded_channel();
        let standings = Arc::default();
        let worker = Worker { kernel, state, standings: Arc::clone(&standings) };
        let name = "reconciler".to_owned();
        thread::Builder::new().name(name).spawn(move || worker.work(&inbox, &reports))?;
        Ok((Reconciler { orders, standings }, outbox))
    }

    /// Hands work over. If the thread is gone, the reports' channel has closed and the engine ends.
    pub(super) fn send(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Hands over how uplinks and servers answer.
    pub(super) fn keep(&self, standings: Arc<Standings>) {
        let mut last = self.standings.lock().unwrap_or_else(PoisonError::into_inner);
        if last.replace(standings).is_none() {
            self.send(Order::Standings);
        }
    }
}

impl Reconciler {
    /// Waits until all that was handed over is done: for so long at most.
    pub(super) async fn flush(&self, at_most: Duration) {
        let (done, all) = oneshot::channel();
        self.send(Order::Flush(done));
        let _ = tokio::time::timeout(at_most, all).await;
    }
}

struct Worker {
    kernel: Linux,
    state: StateDir,
    standings: Arc<Mutex<Option<Arc<Standings>>>>,
}

impl Worker {
    fn work(mut self, inbox: &Receiver<Order>, reports: &mpsc::UnboundedSender<(Report, InForce)>) {
        while let Ok(order) = inbox.recv() {
            match order {
                Order::Round(round) => {
                    let (report, in_force) = round.run(&mut self.kernel, &mut self.state);
                    if reports.send((report, in_force.map(Arc::new))).is_err() {
                        return;
                    }
                }
                Order::Keep(layout) => self.keep(&layout),
                Order::Standings => self.keep_standings(),
                Order::Flush(done) => drop(done.send(())),
            }
        }
    }

    fn keep_standings(&mut self) {
        let last = self.standings.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(standings) = last {
            self.state.keep_standings(&standings, clock::wall());
        }
    }

    fn keep(&mut self, layout: &Layout) {
        let mut ids = self.state.remembered().clone();
        ids.learn(&layout.ids);
        self.state.keep(ids, layout.site.routing);
    }
}
