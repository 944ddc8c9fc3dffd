//! `homing status --watch`: the status live, on a terminal.
//!
//! A thread asks the running process once a second ([`source`]); what it hears and what keys say
//! makes the next [`screen`], a plain value; [`draw`] shows it. Nothing is drawn while nothing
//! changes.

mod draw;
mod rows;
mod screen;
mod source;
#[cfg(test)]
mod tests_draw;

use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};

use super::{FAILED, USAGE, colour, complain};
use screen::{Outcome, Screen};
use source::{Ask, Source};

/// News wait so long at most until they are seen; keys do not wait.
const PAUSE: Duration = Duration::from_millis(200);

/// Shows the status until somebody ends it.
pub(super) fn run(runtime_dir: &Path) -> ExitCode {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        eprintln!("homing: --watch needs a terminal; `homing status` does not");
        return ExitCode::from(USAGE);
    }
    // Without a process there is nothing to look at.
    let first = match super::control::first_status(runtime_dir) {
        Ok(first) => first,
        Err(code) => return code,
    };
    // Before there are other threads, which would be ended by them.
    let signals = match Signals::hold() {
        Ok(signals) => signals,
        Err(error) => return complain(&anyhow::Error::new(error).context("cannot hold signals")),
    };
    let source = match Source::start(runtime_dir) {
        Ok(source) => source,
        Err(error) => return complain(&anyhow::Error::new(error).context("cannot start a thread")),
    };
    let mut screen = Screen::new(colour::wanted());
    screen.take_status(first);
    let ended = ratatui::try_init()
        .and_then(|mut terminal| watch(&mut terminal, screen, &source, &signals));
    // A terminal that is gone needs no cleaning.
    let restored = ratatui::try_restore();
    match ended.and_then(|by| restored.map(|()| by)) {
        Ok(None) => ExitCode::SUCCESS,
        // As the shell tells of whom a signal has ended.
        Ok(Some(signal)) => ExitCode::from(128_u8.saturating_add(signal)),
        Err(error) => {
            eprintln!("homing: the terminal: {error}");
            ExitCode::from(FAILED)
        }
    }
}

/// Signals that end the view, held back until the terminal can be put back.
struct Signals(SignalFd);

impl Signals {
    fn hold() -> io::Result<Signals> {
        let ending = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
        let ending: SigSet = ending.into_iter().collect();
        ending.thread_block()?;
        Ok(Signals(SignalFd::with_flags(&ending, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The number of one that has come.
    fn arrived(&self) -> io::Result<Option<u8>> {
        let signal = self.0.read_signal()?;
        Ok(signal.map(|signal| u8::try_from(signal.ssi_signo).unwrap_or_default()))
    }
}

/// The number of the signal that ended it, if one did.
fn watch(
    terminal: &mut DefaultTerminal,
    mut screen: Screen,
    source: &Source,
    signals: &Signals,
) -> io::Result<Option<u8>> {
    loop {
        terminal.draw(|frame| draw::draw(frame, &screen))?;
        // Until there is something new to draw.
        while !take_news(&mut screen, source) {
            let pressed = event::poll(PAUSE)?;
            if let Some(signal) = signals.arrived()? {
                return Ok(Some(signal));
            }
            if !pressed {
                continue;
            }
            if let Event::Key(key) = event::read()? {
                match screen.handle_key(key) {
                    Outcome::Stay => {}
                    Outcome::End => return Ok(None),
                    Outcome::Order(path) => source.ask(Ask::Order(path)),
                }
            }
            // What is no key may be a new size.
            break;
        }
    }
}

/// Whether there were any.
fn take_news(screen: &mut Screen, source: &Source) -> bool {
    let mut any = false;
    for news in source.news() {
        screen.take(news);
        any = true;
    }
    any
}
