//! The demo: a site, homing in its router, steady traffic, and a table of what goes where.

mod doors;
mod register;
mod site;
mod traffic;
mod view;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{FarmServer, Fault, Isp, LabError, Layout, Namespace};

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

/// Breaks an uplink or a server of the running lab. Unless told how, the uplink's cable is pulled,
/// the server falls silent.
///
/// # Errors
/// When no lab runs, there is nothing of that name, or it cannot fail like this.
pub fn fail(lab: &str, name: &str, how: Option<Fault>) -> Result<(), LabError> {
    let register = Register::find(lab)?;
    let fault = match Breakable::find(register.layout(), name)? {
        Breakable::Uplink(isp) => {
            let fault = how.unwrap_or(Fault::Carrier);
            isp.check(fault)?;
            isp.heal()?;
            isp.fail(fault)?;
            fault
        }
        Breakable::Server(server) => {
            let fault = how.unwrap_or(Fault::Silent);
            server.fail(fault)?;
            fault
        }
    };
    register.note_fault(name, Some(fault))
}

/// Mends an uplink or a server of the running lab.
///
/// # Errors
/// When no lab runs or there is nothing of that name.
pub fn heal(lab: &str, name: &str) -> Result<(), LabError> {
    let register = Register::find(lab)?;
    match Breakable::find(register.layout(), name)? {
        Breakable::Uplink(isp) => isp.heal()?,
        Breakable::Server(server) => server.heal()?,
    }
    register.note_fault(name, None)
}

/// What has a name and can be broken.
enum Breakable {
    Uplink(Isp),
    Server(FarmServer),
}

impl Breakable {
    fn find(layout: &Layout, name: &str) -> Result<Breakable, LabError> {
        let server = |_| FarmServer::of(layout, name).map(Breakable::Server);
        let found = Isp::of(layout, name).map(Breakable::Uplink).or_else(server);
        found.map_err(|_| LabError::Unknown {
            kind: "uplink or server",
            name: name.to_owned(),
            known: layout.known(),
        })
    }
}

/// A place of the running lab.
///
/// # Errors
/// When no lab runs or the place is unknown.
pub fn place(name: &str, place: &str) -> Result<Namespace, LabError> {
    Register::find(name)?.layout().place(place)
}
