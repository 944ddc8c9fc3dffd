//! The YAML document as a flat, located tree.
//!
//! All nodes stand in one vector in the order of the file (28 bytes each), so that a file of a
//! million nodes costs little and no walk recurses. A [`Node`] is a cheap view of one of them.

use std::fmt::Write as _;

use super::text::shortened;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text, a number, a boolean, or nothing.
    Scalar,
    /// A list.
    Sequence,
    /// Keys with values.
    Mapping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// Text as it stands in the source.
    Plain,
    /// Like `Plain`, but in [`Tree::decoded`].
    DecodedPlain,
    /// Text between quotes, or a block; in [`Tree::decoded`].
    Quoted,
    Sequence,
    Mapping,
    /// `from` is the entry that it stands for.
    Alias,
}

/// What an entry is, and its ordinal. In one number: there may be two million of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag(u32);

impl Tag {
    const KINDS: [EntryKind; 6] = [
        EntryKind::Plain,
        EntryKind::DecodedPlain,
        EntryKind::Quoted,
        EntryKind::Sequence,
        EntryKind::Mapping,
        EntryKind::Alias,
    ];

    pub(super) fn new(kind: EntryKind, ordinal: u32) -> Tag {
        Tag(ordinal << 3 | kind as u32)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) tag: Tag,
    /// The collection that holds it; the root is its own.
    pub(super) parent: u32,
    pub(super) line: u32,
    pub(super) column: u32,
    /// Text: its first byte.
    pub(super) from: u32,
    /// Text: the byte after its last. Collections: the entry after the last one inside.
    pub(super) until: u32,
}

impl Entry {
    fn kind(&self) -> EntryKind {
        Tag::KINDS.get((self.tag.0 & 7) as usize).copied().unwrap_or(EntryKind::Plain)
    }

    /// In a sequence: which item. In a mapping: the entry that is its key (a key is its own).
    fn ordinal(&self) -> u32 {
        self.tag.0 >> 3
    }
}

/// A parsed document; without entries when the text holds none.
#[derive(Debug)]
pub(super) struct Tree<'s> {
    pub(super) entries: Vec<Entry>,
    pub(super) source: &'s str,
    pub(super) decoded: String,
}

impl Tree<'_> {
    pub(super) fn root(&self) -> Node<'_> {
        Node { tree: self, index: 0 }
    }
}

/// One node of a tree.
#[derive(Clone, Copy)]
pub(super) struct Node<'t> {
    tree: &'t Tree<'t>,
    index: u32,
}

impl<'t> Node<'t> {
    fn at(tree: &'t Tree<'t>, index: u32) -> Node<'t> {
        let node = Node { tree, index };
        match node.entry() {
            Some(entry) if entry.kind() == EntryKind::Alias => Node { tree, index: entry.from },
            _ => node,
        }
    }

    fn entry(self) -> Option<&'t Entry> {
        self.tree.entries.get(self.index as usize)
    }

    pub(super) fn kind(self) -> Kind {
        match self.entry().map(Entry::kind) {
            Some(EntryKind::Sequence) => Kind::Sequence,
            Some(EntryKind::Mapping) => Kind::Mapping,
            _ => Kind::Scalar,
        }
    }

    /// The text of a scalar.
    pub(super) fn text(self) -> Option<&'t str> {
        let entry = self.entry()?;
        let range = entry.from as usize..entry.until as usize;
        match entry.kind() {
            EntryKind::Plain => self.tree.source.get(range),
            EntryKind::DecodedPlain | EntryKind::Quoted => self.tree.decoded.get(range),
            EntryKind::Sequence | EntryKind::Mapping | EntryKind::Alias => None,
        }
    }

    /// Whether it is a scalar without quotes.
    pub(super) fn is_plain(self) -> bool {
        matches!(self.entry().map(Entry::kind), Some(EntryKind::Plain | EntryKind::DecodedPlain))
    }

    /// Whether nothing was written (not even a document), or `~` or `null`.
    pub(super) fn is_null(self) -> bool {
        self.entry().is_none()
            || self.is_plain() && matches!(self.text(), Some("" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, in words for a message.
    pub(super) fn describe(self) -> String {
        match self.kind() {
            Kind::Sequence => "a list".to_owned(),
            Kind::Mapping => "a block of keys".to_owned(),
            Kind::Scalar if self.is_null() => "nothing".to_owned(),
            Kind::Scalar => format!("`{}`", shortened(self.text().unwrap_or_default())),
        }
    }

    /// The items of a sequence; none of anything else.
    pub(super) fn items(self) -> impl Iterator<Item = Node<'t>> {
        let inside = (self.kind() == Kind::Sequence).then(|| self.inside());
        inside.into_iter().flatten()
    }

    /// Keys and values of a mapping; none of anything else.
    pub(super) fn pairs(self) -> impl Iterator<Item = (Node<'t>, Node<'t>)> {
        let mut inside = (self.kind() == Kind::Mapping).then(|| self.inside());
        std::iter::from_fn(move || {
            let inside = inside.as_mut()?;
            Some((inside.next()?, inside.next()?))
        })
    }

    /// The key of a value in a mapping; the node itself elsewhere.
    pub(super) fn key(self) -> Node<'t> {
        match (self.entry(), self.parent().map(Node::kind)) {
            (Some(entry), Some(Kind::Mapping)) => Node::at(self.tree, entry.ordinal()),
            _ => self,
        }
    }

    /// Line and column, both from 1. A block of keys stands where its own key does.
    pub(super) fn place(self) -> (usize, usize) {
        let named = if self.kind() == Kind::Mapping || self.is_null() { self.key() } else { self };
        let place = |entry: &Entry| (entry.line as usize, entry.column as usize);
        named.entry().map_or((1, 1), place)
    }

    /// The key path from the root.
    pub(super) fn path(self) -> String {
        let mut steps = Vec::new();
        let mut node = self;
        while let (Some(entry), Some(parent)) = (node.entry(), node.parent()) {
            steps.push((parent.kind(), entry.ordinal()));
            node = parent;
        }
        let mut path = String::new();
        for (kind, ordinal) in steps.into_iter().rev() {
            if kind == Kind::Sequence {
                let _ = write!(path, "[{ordinal}]");
                continue;
            }
            if !path.is_empty() {
                path.push('.');
            }
            let key = Node::at(self.tree, ordinal).text().unwrap_or("?");
            path.push_str(&shortened(key));
        }
        path
    }

    fn parent(self) -> Option<Node<'t>> {
        let parent = self.entry()?.parent;
        (parent != self.index).then_some(Node { tree: self.tree, index: parent })
    }

    fn inside(self) -> impl Iterator<Item = Node<'t>> {
        let tree = self.tree;
        let until = self.entry().map_or(0, |entry| entry.until);
        let mut next = self.index + 1;
        std::iter::from_fn(move || {
            let entry = (next < until).then(|| tree.entries.get(next as usize))??;
            let node = Node::at(tree, next);
            next = match entry.kind() {
                EntryKind::Sequence | EntryKind::Mapping => entry.until,
                _ => next + 1,
            };
            Some(node)
        })
    }
}
