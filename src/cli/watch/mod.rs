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
    let source = match Source::start(runtime_dir) {
        Ok(source) => source,
        Err(error) => return complain(&anyhow::Error::new(error).context("cannot start a thread")),
    };
    let mut screen = Screen::new(colour::wanted());
    screen.take_status(first);
    let ended = ratatui::try_init().and_then(|mut terminal| watch(&mut terminal, screen, &source));
    // A terminal that is gone needs no cleaning.
    let restored = ratatui::try_restore();
    match ended.and(restored) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("homing: the terminal: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn watch(terminal: &mut DefaultTerminal, mut screen: Screen, source: &Source) -> io::Result<()> {
    loop {
        terminal.draw(|frame| draw::draw(frame, &screen))?;
        // Until there is something new to draw.
        while !take_news(&mut screen, source) {
            if !event::poll(PAUSE)? {
                continue;
            }
            if let Event::Key(key) = event::read()? {
                match screen.handle_key(key) {
                    Outcome::Stay => {}
                    Outcome::End => return Ok(()),
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
