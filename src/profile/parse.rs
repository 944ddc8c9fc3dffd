//! YAML text → [`Tree`]: events of the parser, syntax errors, and what YAML allows but a profile does not.
//!
//! The parser is the one under `serde_yaml`, used by its events: deserialising with serde would end
//! at the first mistake and could not say which key it is about.

use std::collections::HashMap;

use serde_yaml::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, options};

use super::finding::Findings;
use super::text::lines;
use super::tree::{Entry, EntryKind, Tag, Tree};

/// Largest file, in bytes.
pub(super) const LARGEST: usize = 4 << 20;
/// Most nodes, each alias counted with all that it stands for.
const MOST_NODES: u64 = 2_000_000;
/// Deepest nesting; the deepest key of a profile stands at 9.
const DEEPEST: usize = 64;

/// Parses one document; every reason why there is none is a finding.
pub(super) fn parse<'s>(text: &'s str, out: &mut Findings) -> Option<Tree<'s>> {
    if text.len() > LARGEST {
        too_large(out);
        return None;
    }
    let mut builder = Builder::new(text);
    let result = builder.run(out);
    let tabs = tabs_in_indentation(text, &builder.blocks);
    for &place in &tabs {
        let hint = "indent with spaces, two for each level";
        out.error_at(place, "a tab in the indentation", Some(hint));
    }
    match result {
        Ok(()) => Some(builder.tree),
        Err(Stop { line, .. }) if tabs.first().is_some_and(|&(tab, _)| tab <= line + 1) => None,
        Err(stop) => {
            out.error_at((stop.line, stop.column), stop.message, stop.hint);
            None
        }
    }
}

/// Why parsing ended early.
struct Stop {
    line: usize,
    column: usize,
    message: String,
    hint: Option<&'static str>,
}

impl Stop {
    fn at(span: &Span, message: &str, hint: &'static str) -> Stop {
        Stop {
            line: span.start.line(),
            column: span.start.col() + 1,
            message: message.to_owned(),
            hint: Some(hint),
        }
    }
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Stop {
        use serde_yaml::granit_parser::ErrorKind;
        let (message, hint) = match error.kind() {
            ErrorKind::RecursionLimitExceeded => {
                ("nested too deeply".to_owned(), Some("a profile is at most 9 levels deep"))
            }
            ErrorKind::UnknownAnchor => (
                "an alias (`*…`) to an anchor (`&…`) that does not exist".to_owned(),
                Some("put text that begins with `*` in quotes"),
            ),
            kind => (format!("not YAML: {kind}"), hint_for(kind)),
        };
        Stop { line: error.marker().line().max(1), column: error.marker().col() + 1, message, hint }
    }
}

fn hint_for(kind: &serde_yaml::granit_parser::ErrorKind) -> Option<&'static str> {
    use serde_yaml::granit_parser::ErrorKind as Kind;
    match kind {
        Kind::MappingValueNotAllowed => {
            Some("put text that holds `: ` in quotes, and look at the indentation of this line")
        }
        Kind::SimpleKeyExpected | Kind::ExpectedBlockMappingKey => {
            Some("each line here is `key: value`: look for a missing `: ` and at the indentation")
        }
        Kind::UnclosedFlowCollection { .. } => Some("close the bracket"),
        Kind::UnclosedQuotedScalar => Some("close the quote"),
        Kind::InvalidIndentation => Some("keys of one block begin in the same column"),
        Kind::ExpectedFlowMappingSeparator | Kind::ExpectedFlowSequenceSeparator => {
            Some("entries between brackets are separated by commas")
        }
        _ => None,
    }
}

struct Open {
    index: u32,
    kind: EntryKind,
    anchor: usize,
    nodes_before: u64,
    children: u32,
    /// In a mapping, between a key and its value: the key.
    key: Option<u32>,
}

#[derive(Clone, Copy)]
struct Anchor {
    index: u32,
    /// With everything inside; `None` while it is still open.
    nodes: Option<u64>,
}

struct Builder<'s> {
    tree: Tree<'s>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchor>,
    nodes: u64,
    documents: u32,
    /// First and last line of scalars over several lines: their indentation is their own.
    blocks: Vec<(usize, usize)>,
}

impl<'s> Builder<'s> {
    fn new(source: &'s str) -> Builder<'s> {
        let tree = Tree { entries: Vec::new(), source, decoded: String::new() };
        Builder {
            tree,
            open: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            documents: 0,
            blocks: Vec::new(),
        }
    }

    fn run(&mut self, out: &mut Findings) -> Result<(), Stop> {
        let mut limits = options! { flow_nesting_limit: DEEPEST, block_nesting_limit: DEEPEST };
        limits.set_emit_comments(false);
        for event in Parser::new_from_str_with_options(self.tree.source, limits) {
            let (event, span) = event?;
            self.event(event, &span, out)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'s>, span: &Span, out: &mut Findings) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(..) => self.document(span),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.is_some(), span, out);
                self.scalar(&text, style, anchor, span)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.is_some(), span, out);
                self.begin(EntryKind::Sequence, anchor, span)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.is_some(), span, out);
                self.begin(EntryKind::Mapping, anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.end();
                Ok(())
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => Ok(()),
        }
    }

    fn document(&mut self, span: &Span) -> Result<(), Stop> {
        self.documents += 1;
        if self.documents > 1 {
            let hint = "remove the `---`: a file holds one profile";
            return Err(Stop::at(span, "a second document", hint));
        }
        Ok(())
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        anchor: usize,
        span: &Span,
    ) -> Result<(), Stop> {
        if span.end.line() > span.start.line() && style != ScalarStyle::Plain {
            self.blocks.push((span.start.line(), span.end.line()));
        }
        let plain = style == ScalarStyle::Plain;
        let found = span.byte_range().filter(|_| plain);
        let verbatim = found.filter(|range| self.tree.source.get(range.clone()) == Some(text));
        let (kind, range) = match verbatim {
            Some(range) => (EntryKind::Plain, range),
            None => {
                let start = self.tree.decoded.len();
                self.tree.decoded.push_str(text);
                let kind = if plain { EntryKind::DecodedPlain } else { EntryKind::Quoted };
                (kind, start..self.tree.decoded.len())
            }
        };
        let index = self.push(kind, span, (number(range.start), number(range.end)))?;
        self.anchor(anchor, index, Some(1));
        Ok(())
    }

    fn begin(&mut self, kind: EntryKind, anchor: usize, span: &Span) -> Result<(), Stop> {
        let nodes_before = self.nodes;
        let index = self.push(kind, span, (0, 0))?;
        self.anchor(anchor, index, None);
        self.open.push(Open { index, kind, anchor, nodes_before, children: 0, key: None });
        Ok(())
    }

    fn end(&mut self) {
        let until = number(self.tree.entries.len());
        let Some(open) = self.open.pop() else { return };
        if let Some(entry) = self.tree.entries.get_mut(open.index as usize) {
            entry.until = until;
        }
        self.anchor(open.anchor, open.index, Some(self.nodes - open.nodes_before));
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<(), Stop> {
        let Some(Anchor { index, nodes }) = self.anchors.get(&anchor).copied() else {
            return Err(Stop::at(span, "an alias without an anchor", "write the value out"));
        };
        let Some(nodes) = nodes else {
            let hint = "write the value out";
            return Err(Stop::at(span, "an alias inside what it stands for", hint));
        };
        self.nodes += nodes;
        self.push(EntryKind::Alias, span, (index, 0))?;
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, index: u32, nodes: Option<u64>) {
        if anchor != 0 {
            self.anchors.insert(anchor, Anchor { index, nodes });
        }
    }

    /// For as many entries as the text will have if it goes on as it began: what is moved about while
    /// the list grows would need as much memory again.
    fn make_room(&mut self, span: &Span) {
        let entries = &mut self.tree.entries;
        let known = entries.len() as u64;
        if known < entries.capacity() as u64 {
            return;
        }
        let (read, whole) = (span.start.index().max(1) as u64, self.tree.source.len() as u64);
        let (least, most) = (known / 4 + 64, MOST_NODES);
        let more = (known * whole / read).saturating_sub(known).clamp(least, most.max(least));
        entries.reserve_exact(more as usize);
    }

    fn push(&mut self, kind: EntryKind, span: &Span, text: (u32, u32)) -> Result<u32, Stop> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            let hint = "aliases count with everything that they stand for";
            return Err(Stop::at(span, "more than two million values", hint));
        }
        self.make_room(span);
        let index = number(self.tree.entries.len());
        let (parent, ordinal) = self.open.last_mut().map_or((index, 0), |o| o.adopt(index));
        self.tree.entries.push(Entry {
            tag: Tag::new(kind, ordinal),
            parent,
            line: number(span.start.line()),
            column: number(span.start.col() + 1),
            from: text.0,
            until: text.1,
        });
        Ok(index)
    }
}

impl Open {
    /// Parent and ordinal of the next child.
    fn adopt(&mut self, child: u32) -> (u32, u32) {
        let count = self.children;
        self.children += 1;
        if self.kind == EntryKind::Sequence {
            return (self.index, count);
        }
        match self.key.take() {
            Some(key) => (self.index, key),
            None => {
                self.key = Some(child);
                (self.index, child)
            }
        }
    }
}

fn refuse_tag(tagged: bool, span: &Span, out: &mut Findings) {
    if tagged {
        let place = (span.start.line(), span.start.col() + 1);
        let hint = "remove the word that begins with `!`, or put it in quotes";
        out.error_at(place, "a YAML tag (`!…`)", Some(hint));
    }
}

/// No file is larger than [`LARGEST`], so nothing is cut off here.
fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Line and column of the first tab of each line that is indented with one.
fn tabs_in_indentation(text: &str, blocks: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut blocks = blocks.iter().peekable();
    let mut found = Vec::new();
    for (number, line) in (1..).zip(lines(text)) {
        while blocks.next_if(|&&(_, last)| last < number).is_some() {}
        let in_block = blocks.peek().is_some_and(|&&(first, _)| first < number);
        let content = line.trim_start_matches([' ', '\t']);
        let blank = content.is_empty() || content.starts_with('#');
        let tab = line.find('\t').filter(|&at| at < line.len() - content.len());
        if let Some(at) = tab.filter(|_| !blank && !in_block) {
            found.push((number, at + 1));
        }
    }
    found
}

/// Reports a file over [`LARGEST`].
pub(super) fn too_large(out: &mut Findings) {
    let hint = "networks that border on each other can be written as one";
    out.error_at((1, 1), "the file is larger than 4 MB", Some(hint));
}

/// Reports bytes that are no text; `good` is how many before the first bad one are.
pub(super) fn not_text(bytes: &[u8], good: usize, out: &mut Findings) {
    let before = bytes.get(..good).unwrap_or_default();
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let last = before.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    let column = String::from_utf8_lossy(last).chars().count() + 1;
    let bad = bytes.get(good).copied().unwrap_or_default();
    let hint = "save the file as UTF-8";
    out.error_at((line, column), format!("not UTF-8 text (byte {bad:#04x})"), Some(hint));
}
