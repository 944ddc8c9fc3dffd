//! The section `notify`: who is told of events.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::{EventKind, Messenger, Name, Notify};

use super::fields::{Fields, did_you_mean, list, named};
use super::finding::Findings;
use super::scalar;
use super::text::choices;
use super::tree::Node;
use super::url;

pub(super) const KEYS: &[&str] = &["webhook", "command", "events", "timeout"];

/// Entries that can be told at the same time.
const MOST: usize = 32;

/// Reads `notify`.
pub(super) fn read(node: Node<'_>, out: &mut Findings) -> Vec<Notify> {
    let entries = named(node, "notice", out);
    if entries.len() > MOST {
        out.error(node, format!("{} entries: at most {MOST}", entries.len()));
    }
    entries.into_iter().filter_map(|(name, node)| entry(name, node, out)).collect()
}

fn entry(name: Name, node: Node<'_>, out: &mut Findings) -> Option<Notify> {
    let fields = Fields::read(node, KEYS, out)?;
    let webhook = fields.get("webhook", out);
    let command = fields.get("command", out);
    let events = fields.get("events", out).map(|node| kinds(node, out));
    let limits = Duration::from_millis(100)..=Duration::from_secs(300);
    let timeout = fields.get("timeout", out);
    let timeout = timeout.and_then(|node| scalar::duration(node, limits, out));
    let by = match (webhook, command) {
        (Some(node), None) => url::read(node, out).map(Messenger::Webhook),
        (None, Some(node)) => words(node, out).map(Messenger::Command),
        (Some(_), Some(node)) => {
            let hint = "make two entries of it";
            out.error_with(node, "`webhook` and `command` in one entry", hint);
            None
        }
        (None, None) if fields.raw("webhook").or(fields.raw("command")).is_none() => {
            let hint = "add `webhook: \"https://…\"` or `command: [/path/to/program]`";
            out.error_with(node, "nothing says how to tell", hint);
            None
        }
        (None, None) => None,
    };
    Some(Notify {
        name,
        by: by?,
        events: events.unwrap_or_else(Notify::news),
        timeout: timeout.unwrap_or(Notify::TIMEOUT),
    })
}

fn kinds(node: Node<'_>, out: &mut Findings) -> BTreeSet<EventKind> {
    let items = list(node, out);
    items.into_iter().filter_map(|item| kind(item, out)).collect()
}

fn kind(node: Node<'_>, out: &mut Findings) -> Option<EventKind> {
    let text = node.text().unwrap_or_default();
    let found = EventKind::parse(text);
    if found.is_none() {
        let words = || EventKind::ALL.map(EventKind::as_str);
        let hint = did_you_mean(text, words(), out)
            .unwrap_or_else(|| format!("say {}", choices(words().into_iter())));
        scalar::expected(node, "a kind of event", &hint, out);
    }
    found
}

/// A program and its arguments.
fn words(node: Node<'_>, out: &mut Findings) -> Option<Vec<String>> {
    let items = list(node, out);
    let program = *items.first()?;
    let mut words = Vec::new();
    for item in items {
        words.push(scalar::text(item, "text", out)?.to_owned());
    }
    if !words[0].starts_with('/') {
        let message = format!("{} is not an absolute path", program.describe());
        out.error_with(program, message, "begin it with `/`; arguments are further items");
        return None;
    }
    if let Some(bad) = words.iter().find(|word| word.contains('\0')) {
        out.error(program, format!("`{}` holds a zero byte", bad.escape_default()));
        return None;
    }
    Some(words)
}
