//! What somebody at a terminal sees: colours, and the live view, which also takes orders.

use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use homing::model::Family;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{PATIENCE, Site, both, one_policy, until};

both!(
    the_live_view_shows_everything_and_takes_orders,
    a_live_view_that_is_ended_leaves_the_terminal_as_it_was,
);

/// A command on a terminal of 80 by 24, made by `script` of util-linux.
struct Terminal {
    child: Child,
    seen: String,
}

impl Terminal {
    fn start(site: &Site, arguments: &str) -> Terminal {
        let seen = site.path("seen");
        let line = format!(
            "stty cols 80 rows 24; exec {} {arguments} --runtime-dir {}",
            site.program,
            site.path("run")
        );
        let work = || {
            Command::new("/usr/bin/script")
                .args(["--quiet", "--return", "--flush", "--command", &line, &seen])
                .env("TERM", "xterm-256color")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
        };
        let child = site.router().enter(work).unwrap().expect("start script");
        Terminal { child, seen }
    }

    fn press(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.seen).unwrap_or_default()).into_owned()
    }

    /// Waits for a text. Blanks do not count: what is blank already is not written.
    fn wait_seen(&self, text: &str) {
        let wanted = without_blanks(text);
        until(PATIENCE, || self.seen(), |seen| written(seen).contains(&wanted))
            .unwrap_or_else(|seen| panic!("{text} never came; there is {seen:?}"));
    }

    /// Its exit code, and all that was seen.
    fn end(mut self) -> (Option<i32>, String) {
        let ended = until(PATIENCE, || self.child.try_wait().unwrap(), Option::is_some);
        (ended.expect("it ends").and_then(|status| status.code()), self.seen())
    }
}

fn without_blanks(text: &str) -> String {
    text.split_whitespace().collect()
}

/// What was written, without what moves the cursor and colours it, and without blanks.
fn written(seen: &str) -> String {
    let mut parts = seen.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    let after = |part: &str| {
        let end = part.find(|letter: char| letter.is_ascii_alphabetic());
        end.map_or_else(String::new, |end| part[end + 1..].to_owned())
    };
    without_blanks(&(first + &parts.map(after).collect::<String>()))
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn the_live_view_shows_everything_and_takes_orders(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let plain = site.homing(&["status"]);
    assert!(!plain.stdout.contains('\u{1b}'), "{plain:?}");
    let (code, coloured) = Terminal::start(&site, "status").end();
    assert_eq!(code, Some(0), "{coloured}");
    assert!(coloured.contains("\u{1b}[32mup\u{1b}[0m"), "{coloured:?}");

    let mut watch = Terminal::start(&site, "status --watch");
    for text in ["3 of 3 uplinks usable", "> cable", "default cable 33.", "q end"] {
        watch.wait_seen(text);
    }
    // The first uplink by name is chosen, then the one below.
    watch.press("d");
    watch.wait_seen("drain cable?");
    assert_eq!(site.status()["uplinks"]["cable"]["admin"], "enabled");
    watch.press("y");
    site.wait_status("cable drains", |status| status["uplinks"]["cable"]["admin"] == "draining");
    watch.press("jdn");
    watch.wait_seen("nothing done");
    watch.press("q");
    let (code, seen) = watch.end();
    assert_eq!(code, Some(0), "{seen:?}");
    let (begun, ended) = (seen.find("\u{1b}[?1049h"), seen.rfind("\u{1b}[?1049l"));
    assert!(begun.is_some() && begun < ended, "the terminal is as before: {seen:?}");
    assert_eq!(site.status()["uplinks"]["fiber"]["admin"], "enabled");

    let nowhere = site.homing(&["status", "--watch"]);
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
    assert!(nowhere.stderr.contains("needs a terminal"), "{nowhere:?}");
}

fn a_live_view_that_is_ended_leaves_the_terminal_as_it_was(family: Family) {
    let site = Site::start(family, &one_policy("balance: round-robin"));
    let watch = Terminal::start(&site, "status --watch");
    watch.wait_seen("q end");
    // The view is the child of `script`, which passes its exit status on.
    let id = watch.child.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let view = children.split_whitespace().next().expect("a child").parse().unwrap();
    kill(Pid::from_raw(view), Signal::SIGTERM).unwrap();
    let (code, seen) = watch.end();
    assert_eq!(code, Some(128 + 15), "{seen:?}");
    let (begun, ended) = (seen.find("\u{1b}[?1049h"), seen.rfind("\u{1b}[?1049l"));
    assert!(begun.is_some() && begun < ended, "the terminal is as before: {seen:?}");
}
