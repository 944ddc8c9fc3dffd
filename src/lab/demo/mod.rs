//! The demo: a site, homing in its router, steady traffic, and a table of what goes where.

mod register;
mod site;
mod traffic;
mod view;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Fault, Isp, LabError, Namespace};

pub use register::Register;
use site::DemoSite;

/// How often the table is drawn.
const PERIOD: Duration = Duration::from_secs(1);

/// What to show.
#[derive(Debug, Clone)]
pub struct Demo {
    /// The lab's name, for a second terminal.
    pub name: String,
    /// The profile; the built-in one if none.
    pub profile: Option<PathBuf>,
    /// Whether to show the table.
    pub table: bool,
    /// How long; until Ctrl-C if none.
    pub time: Option<Duration>,
}

/// Builds the site and shows it until told to end; then nothing of it is left. Call it before any
/// thread exists: without root, the program starts anew in a user namespace.
///
/// # Errors
/// When the site cannot be built or homing does not become ready in it.
pub fn run(demo: &Demo) -> Result<(), LabError> {
    super::tools::check()?;
    super::become_root()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LabError::system("start the lab"))?;
    runtime.block_on(async {
        let mut end = End::listen(demo.time)?;
        let claim = Register::claim(&demo.name)?;
        super::remove_leftovers();
        let mut site = DemoSite::build(demo, claim)?;
        if !demo.table {
            print("the lab is ready; Ctrl-C ends it");
        }
        show(demo, &mut site, &mut end).await
    })
}

/// Draws until the end has come or homing has ended.
async fn show(demo: &Demo, site: &mut DemoSite, end: &mut End) -> Result<(), LabError> {
    let terminal = std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            // Both are cancel-safe: a tick or a signal that is not taken now is taken next time.
            () = end.come() => return Ok(()),
            _ = ticks.tick() => {}
        }
        site.check_homing()?;
        if demo.table {
            let clear = if terminal { "\x1b[H\x1b[J" } else { "" };
            print(&format!("{clear}{}", site.table()));
        }
    }
}

/// Like `println!`, but a reader that has gone away is no panic.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What ends the lab: Ctrl-C, SIGTERM, a terminal that goes, or its time.
struct End {
    signals: [Signal; 3],
    deadline: Option<Instant>,
}

impl End {
    fn listen(time: Option<Duration>) -> Result<End, LabError> {
        let listen = |kind| signal(kind).map_err(LabError::system("listen for signals"));
        Ok(End {
            signals: [
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
            ],
            deadline: time.map(|time| Instant::now() + time),
        })
    }

    async fn come(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // Each is cancel-safe: nothing is lost when another one wins.
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            () = deadline => {}
        }
    }
}

/// Breaks an uplink of the running lab.
///
/// # Errors
/// When no lab runs or the uplink is unknown.
pub fn fail(name: &str, uplink: &str, fault: Fault) -> Result<(), LabError> {
    let register = Register::find(name)?;
    let isp = Isp::of(register.layout(), uplink)?;
    isp.heal()?;
    isp.fail(fault)?;
    register.note_fault(uplink, Some(fault))
}

/// Mends an uplink of the running lab.
///
/// # Errors
/// When no lab runs or the uplink is unknown.
pub fn heal(name: &str, uplink: &str) -> Result<(), LabError> {
    let register = Register::find(name)?;
    Isp::of(register.layout(), uplink)?.heal()?;
    register.note_fault(uplink, None)
}

/// A place of the running lab.
///
/// # Errors
/// When no lab runs or the place is unknown.
pub fn place(name: &str, place: &str) -> Result<Namespace, LabError> {
    Register::find(name)?.layout().place(place)
}
