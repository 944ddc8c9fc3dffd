//! Changing nftables: structure by one script for `nft -f -`, elements alone by one netlink batch.
//!
//! Both are one transaction each: all of it is done, or nothing; but for a large table that is new, see
//! [`super::nft_stages`].

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;

use super::hush::Hush;
use super::nfnl::{Batch, attr, kind};
use super::nft_element::{DumpedElement, encode, encode_timed};
use super::nft_stages::Stages;
use super::socket::{Channel, NetlinkError};
use super::wire::{CREATE, Message};
use super::{KernelError, nft_read};
use crate::kstate::{Bytes, ElementData, NftOp, TABLE_NAME};

/// How long `nft` may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// And so much longer for so many lines.
const PATIENCE_EACH: (Duration, usize) = (Duration::from_secs(1), 2000);
/// A list of elements is one attribute, which must stay below 64 KiB.
const LIST_LIMIT: usize = 60_000;
/// Elements of one message.
const ELEMENTS_LIMIT: usize = 700;

/// The socket by which elements are changed.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) channel: Channel,
    pub(super) hush: Option<Hush>,
}

impl Writer {
    fn batch(&mut self, message: Message) -> Result<(), NetlinkError> {
        match &self.hush {
            Some(hush) => hush.batch(&mut self.channel, message),
            None => self.channel.batch(message),
        }
    }

    /// By `nft`, which does it in one transaction.
    pub(super) fn script(&mut self, lines: &[String]) -> Result<(), KernelError> {
        let Some(hush) = self.hush.clone() else { return run_script(lines) };
        hush.enter(&mut self.channel);
        let outcome = run_script(lines);
        hush.leave(&mut self.channel, outcome.is_ok());
        outcome
    }
}

/// Does one transaction.
pub(super) fn apply(writer: &mut Writer, ops: &[NftOp]) -> Result<(), KernelError> {
    if ops.is_empty() {
        return Ok(());
    }
    let changes: Option<Vec<Change<'_>>> = ops.iter().map(Change::of).collect();
    match changes {
        Some(changes) => apply_elements(writer, &changes),
        None => match Stages::of(ops) {
            Some(stages) => stages.apply(writer),
            None => writer.script(&script(&ops.iter().collect::<Vec<_>>())),
        },
    }
}

/// Elements to add to one set, or to delete from it.
pub(super) struct Change<'a> {
    pub(super) set: &'a str,
    pub(super) add: bool,
    pub(super) elements: Vec<(&'a [u8], &'a ElementData)>,
}

impl Change<'_> {
    pub(super) fn of(op: &NftOp) -> Option<Change<'_>> {
        let (set, elements, add) = match op {
            NftOp::AddElements { set, elements, .. } => (set, elements, true),
            NftOp::DeleteElements { set, elements, .. } => (set, elements, false),
            _ => return None,
        };
        Some(Change {
            set,
            add,
            elements: elements.iter().map(|(k, d)| (k.as_slice(), d)).collect(),
        })
    }
}

/// Deletes elements of one set; those that are gone already are fine.
pub(super) fn delete_elements(
    writer: &mut Writer,
    set: &str,
    keys: &[Bytes],
) -> Result<(), KernelError> {
    let change = Change {
        set,
        add: false,
        elements: keys.iter().map(|key| (key.as_slice(), &ElementData::Nothing)).collect(),
    };
    apply_elements(writer, &[change])
}

/// Puts an element of one set in the place of another, so that nobody else gets that place.
pub(super) fn replace_element(
    writer: &mut Writer,
    set: &str,
    old: &Bytes,
    new: &Bytes,
) -> Result<(), KernelError> {
    let change = |add, key| {
        let elements = vec![(Bytes::as_slice(key), &ElementData::Nothing)];
        Change { set, add, elements }
    };
    apply_elements(writer, &[change(false, old), change(true, new)])
}

/// Gives elements of one set new times. One that is gone meanwhile stays gone.
///
/// Each is deleted and added within one transaction, because kernels before 6.12 cannot change an
/// element's time; a packet sees the one or the other.
pub(super) fn renew_elements(
    writer: &mut Writer,
    set: &str,
    elements: &[DumpedElement],
) -> Result<(), KernelError> {
    for chunk in elements.chunks(ELEMENTS_LIMIT) {
        match writer.batch(renewal(set, chunk)) {
            // One of them is gone: find it by halves.
            Err(error) if error.is(&[Errno::ENOENT]) && chunk.len() > 1 => {
                let (left, right) = chunk.split_at(chunk.len() / 2);
                renew_elements(writer, set, left)?;
                renew_elements(writer, set, right)?;
            }
            Err(error) if error.is(&[Errno::ENOENT]) => {}
            other => other
                .map_err(|source| KernelError::ChangeElements { sets: set.to_owned(), source })?,
        }
    }
    Ok(())
}

/// Adds elements with their times.
pub(super) fn learn_elements(
    writer: &mut Writer,
    set: &str,
    elements: &[DumpedElement],
) -> Result<(), KernelError> {
    for chunk in elements.chunks(ELEMENTS_LIMIT) {
        let mut batch = Batch::new();
        let message = batch.begin(kind::NEW_ELEMENTS, CREATE);
        message.attribute_text(attr::LIST_TABLE, TABLE_NAME);
        message.attribute_text(attr::LIST_SET, set);
        message.nest(attr::LIST_ELEMENTS, |m| {
            chunk.iter().for_each(|element| encode_timed(m, element));
        });
        writer
            .batch(batch.finish())
            .map_err(|source| KernelError::ChangeElements { sets: set.to_owned(), source })?;
    }
    Ok(())
}

fn renewal(set: &str, elements: &[DumpedElement]) -> Message {
    let mut batch = Batch::new();
    for (kind, flags) in [(kind::DELETE_ELEMENTS, 0), (kind::NEW_ELEMENTS, CREATE)] {
        let message = batch.begin(kind, flags);
        message.attribute_text(attr::LIST_TABLE, TABLE_NAME);
        message.attribute_text(attr::LIST_SET, set);
        message.nest(attr::LIST_ELEMENTS, |m| {
            for element in elements {
                match kind == kind::NEW_ELEMENTS {
                    true => encode_timed(m, element),
                    false => encode(m, &element.key, None),
                }
            }
        });
    }
    batch.finish()
}

/// Does one transaction.
pub(super) fn apply_elements(
    writer: &mut Writer,
    changes: &[Change<'_>],
) -> Result<(), KernelError> {
    let outcome = match send(writer, changes) {
        Err(error) if error.is(&[Errno::ENOENT]) => {
            let present = without_the_gone(writer, changes)?;
            send(writer, &present)
        }
        other => other,
    };
    outcome.map_err(|source| KernelError::ChangeElements {
        sets: changes.iter().map(|c| c.set).collect::<Vec<_>>().join(", "),
        source,
    })
}

fn send(writer: &mut Writer, changes: &[Change<'_>]) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    let mut empty = true;
    for change in changes {
        for elements in change.elements.chunks(ELEMENTS_LIMIT) {
            let mut rest = elements;
            while !rest.is_empty() {
                let taken = write_list(&mut batch, change, rest);
                rest = &rest[taken..];
                empty = false;
            }
        }
    }
    if empty {
        return Ok(());
    }
    writer.batch(batch.finish())
}

/// Writes one message with as many elements as fit; says how many (at least one).
fn write_list(batch: &mut Batch, change: &Change<'_>, elements: &[(&[u8], &ElementData)]) -> usize {
    let (kind, flags) = match change.add {
        true => (kind::NEW_ELEMENTS, CREATE),
        false => (kind::DELETE_ELEMENTS, 0),
    };
    let message = batch.begin(kind, flags);
    message.attribute_text(attr::LIST_TABLE, TABLE_NAME);
    message.attribute_text(attr::LIST_SET, change.set);
    let mut taken = 0;
    message.nest(attr::LIST_ELEMENTS, |m| {
        let start = m.len();
        for (key, data) in elements {
            encode(m, key, change.add.then_some(*data));
            taken += 1;
            if m.len() - start > LIST_LIMIT {
                break;
            }
        }
    });
    taken
}

/// Leaves out the deletions of elements that are not there.
fn without_the_gone<'a>(
    writer: &mut Writer,
    changes: &'a [Change<'a>],
) -> Result<Vec<Change<'a>>, KernelError> {
    let mut present = Vec::new();
    for change in changes {
        let mut elements = change.elements.clone();
        if !change.add {
            let there = nft_read::elements(&mut writer.channel, change.set, None)?;
            elements.retain(|(key, _)| there.contains_key(key));
        }
        present.push(Change { set: change.set, add: change.add, elements });
    }
    Ok(present)
}

/// The lines of a script for `nft -f -`.
pub(super) fn script(ops: &[&NftOp]) -> Vec<String> {
    let mut lines = Vec::new();
    for op in ops {
        // `delete` of a missing table fails; after `add` it cannot be missing.
        if **op == NftOp::DeleteTable {
            lines.push(NftOp::AddTable.to_string());
        }
        lines.push(op.to_string());
    }
    lines
}

/// Whether the kernel would do it; nothing is changed.
pub(super) fn check_script(lines: &[String], patience: Duration) -> Result<(), KernelError> {
    run(&["--check", "-f", "-"], lines, patience)
}

fn run_script(lines: &[String]) -> Result<(), KernelError> {
    let more = u32::try_from(lines.len() / PATIENCE_EACH.1).unwrap_or(u32::MAX);
    run(&["-f", "-"], lines, PATIENCE + PATIENCE_EACH.0 * more)
}

fn run(arguments: &[&str], lines: &[String], patience: Duration) -> Result<(), KernelError> {
    let program = find_nft().ok_or(KernelError::NftMissing)?;
    let failed = |source| KernelError::RunNft { program: program.display().to_string(), source };
    let mut child = Command::new(&program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let said = converse(&mut child, lines.join("\n") + "\n", patience);
    let Some(said) = said else {
        // It may be gone already; then there is nothing to stop.
        let _ = child.kill();
        child.wait().map_err(failed)?;
        return Err(KernelError::NftTimeout {
            program: program.display().to_string(),
            seconds: patience.as_secs(),
        });
    };
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(());
    }
    Err(refusal(lines, &said))
}

/// Where nft is.
pub(super) fn find_nft() -> Option<PathBuf> {
    let fixed = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    fixed
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("nft"))
        .find(|file| Path::is_file(file))
}

/// Writes the script and reads the complaints, on threads of their own, so that neither side can
/// block the other. `None` when it does not end in time; both threads end with the process.
fn converse(child: &mut Child, script: String, patience: Duration) -> Option<String> {
    let (mut stdin, mut stderr) = (child.stdin.take()?, child.stderr.take()?);
    // A write fails only if nft ended early, and then it says why.
    std::thread::spawn(move || stdin.write_all(script.as_bytes()));
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = stderr.read_to_end(&mut said);
        let _ = sender.send(String::from_utf8_lossy(&said).into_owned());
    });
    receiver.recv_timeout(patience).ok()
}

/// nft begins a complaint with `/dev/stdin:LINE:COLUMN-COLUMN: Error: TEXT`.
pub(super) fn refusal(lines: &[String], said: &str) -> KernelError {
    let first = said.lines().next().unwrap_or_default().trim();
    let mut parts = first.splitn(4, ':');
    let number = parts.nth(1).and_then(|n| n.parse::<usize>().ok());
    let message = parts.nth(1).unwrap_or(first).trim();
    let line = number.and_then(|n| lines.get(n.checked_sub(1)?)).or(lines.first());
    KernelError::NftScript {
        line: shortened(line.map_or("", String::as_str)),
        message: message.to_owned(),
    }
}

/// A line with thousands of elements is of no use in a message.
fn shortened(line: &str) -> String {
    const LONGEST: usize = 300;
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{refusal, script};
    use crate::kstate::NftOp;

    #[test]
    fn a_complaint_names_the_line_of_the_script() {
        let lines = ["add table inet homing", "add rule inet homing x y"].map(String::from);
        let said = "/dev/stdin:2:22-22: Error: No such file or directory\nadd rule …\n";
        let shown = refusal(&lines, said).to_string();
        assert_eq!(
            shown,
            "nftables refused `add rule inet homing x y`: Error: No such file or directory"
        );
    }

    #[test]
    fn a_complaint_of_another_form_is_shown_whole() {
        let shown = refusal(&["add table inet homing".into()], "netlink: cannot open").to_string();
        assert!(shown.ends_with("netlink: cannot open"), "{shown}");
    }

    #[test]
    fn deleting_a_missing_table_is_no_error() {
        let lines = script(&[&NftOp::DeleteTable]);
        assert_eq!(lines, ["add table inet homing", "delete table inet homing"]);
    }
}
