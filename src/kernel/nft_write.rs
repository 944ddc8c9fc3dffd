//! Changing nftables: structure by one script for `nft -f -`, elements alone by one netlink batch.
//!
//! Both are one transaction each: all of it is done, or nothing. But of a large table that is new the large
//! sets are filled when it stands, which takes a third of the time that `nft` takes for it: before, nothing of
//! all this was in force. At last come the maps that lead to services.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;

use super::hush::Hush;
use super::nfnl::{Batch, attr, kind};
use super::nft_element::{DumpedElement, encode, encode_timed};
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
/// Sets with so many elements are filled on their own, if together they have so many more.
const LARGE: (usize, usize) = (100, 10_000);
/// Elements of one transaction then, or a few more: what is sent at once has to fit into a socket's buffer.
const PORTION: usize = 20_000;

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
    fn script(&mut self, lines: &[String]) -> Result<(), KernelError> {
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

/// How a large table is made.
struct Stages<'a> {
    structure: Vec<&'a NftOp>,
    /// Large sets; those that lead to chains at the end.
    large: Vec<Change<'a>>,
}

impl<'a> Stages<'a> {
    /// Nothing where it has to be one transaction.
    fn of(ops: &'a [NftOp]) -> Option<Stages<'a>> {
        let is_large = |op: &&NftOp| match op {
            NftOp::AddElements { elements, .. } => elements.len() >= LARGE.0,
            _ => false,
        };
        let (large, structure): (Vec<_>, Vec<_>) = ops.iter().partition(is_large);
        let mut large: Vec<Change<'_>> = large.into_iter().filter_map(Change::of).collect();
        let leads = |(_, data): &(_, &ElementData)| matches!(data, ElementData::Verdict(_));
        large.sort_by_key(|change| change.elements.iter().any(leads));
        let new = ops.contains(&NftOp::AddTable) && !ops.contains(&NftOp::DeleteTable);
        let elements: usize = large.iter().map(|change| change.elements.len()).sum();
        (new && elements >= LARGE.1).then_some(Stages { structure, large })
    }

    fn apply(&self, writer: &mut Writer) -> Result<(), KernelError> {
        writer.script(&script(&self.structure))?;
        apply_portions(writer, &self.large)
    }
}

fn apply_portions(writer: &mut Writer, changes: &[Change<'_>]) -> Result<(), KernelError> {
    let mut rest = changes;
    while !rest.is_empty() {
        let mut elements = 0;
        let fits = |change: &&Change<'_>| {
            elements += change.elements.len();
            elements <= PORTION
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (portion, later) = rest.split_at(count);
        apply_elements(writer, portion)?;
        rest = later;
    }
    Ok(())
}

/// Elements to add to one set, or to delete from it.
struct Change<'a> {
    set: &'a str,
    add: bool,
    elements: Vec<(&'a [u8], &'a ElementData)>,
}

impl Change<'_> {
    fn of(op: &NftOp) -> Option<Change<'_>> {
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

fn apply_elements(writer: &mut Writer, changes: &[Change<'_>]) -> Result<(), KernelError> {
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
            elements.retain(|(key, _)| there.contains_key(*key));
        }
        present.push(Change { set: change.set, add: change.add, elements });
    }
    Ok(present)
}

/// The lines of a script for `nft -f -`.
fn script(ops: &[&NftOp]) -> Vec<String> {
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
    use super::{LARGE, Stages, refusal, script};
    use crate::kstate::{Bytes, ElementData, NftOp, SetShape, Verdict};

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

    fn fill(set: &str, count: usize, data: &ElementData) -> NftOp {
        let element = |n: usize| (Bytes::from_slice(&n.to_be_bytes()), data.clone());
        let (set, shape) = (set.to_owned(), SetShape::default());
        NftOp::AddElements { set, shape, elements: (0..count).map(element).collect() }
    }

    #[test]
    fn a_large_table_is_made_in_stages() {
        let (plain, leads) = (ElementData::Nothing, ElementData::Verdict(Verdict::Accept));
        let chain = NftOp::FlushChain("x".into());
        let (small, last) = (fill("small", LARGE.0 - 1, &plain), fill("last", LARGE.0, &leads));
        let ops = [NftOp::AddTable, chain, last, small, fill("first", LARGE.1, &plain)];
        let Some(stages) = Stages::of(&ops) else { panic!("it is large") };
        assert_eq!(stages.structure, [&ops[0], &ops[1], &ops[3]]);
        let sets = stages.large.iter().map(|change| change.set);
        assert_eq!(sets.collect::<Vec<_>>(), ["first", "last"]);
    }

    #[test]
    fn what_is_in_force_changes_at_once_and_so_does_what_is_small() {
        let fill = |count| fill("a", count, &ElementData::Nothing);
        assert!(Stages::of(&[fill(LARGE.1), NftOp::FlushChain("x".into())]).is_none());
        assert!(Stages::of(&[NftOp::DeleteTable, NftOp::AddTable, fill(LARGE.1)]).is_none());
        assert!(Stages::of(&[NftOp::AddTable, fill(LARGE.1 - 1)]).is_none());
        assert!(Stages::of(&[NftOp::AddTable, fill(LARGE.1)]).is_some());
    }
}
