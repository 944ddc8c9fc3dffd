//! Reading mappings and lists: every reader reports what is wrong and goes on.

use std::collections::HashSet;

use crate::model::Name;

use super::finding::Findings;
use super::text::{all_of, nearest, shortened};
use super::tree::{Kind, Node};

/// A mapping whose keys are known words.
pub(super) struct Fields<'t> {
    node: Node<'t>,
    present: Vec<(&'static str, Node<'t>)>,
}

impl<'t> Fields<'t> {
    /// Reads a mapping; unknown keys and keys used twice are findings.
    pub(super) fn read(
        node: Node<'t>,
        known: &'static [&'static str],
        out: &mut Findings,
    ) -> Option<Fields<'t>> {
        if node.kind() != Kind::Mapping {
            let hint = format!("its keys are {}", all_of(known.iter().copied()));
            out.error_with(
                node,
                format!("expected a block of keys, not {}", node.describe()),
                hint,
            );
            return None;
        }
        let mut present: Vec<(&'static str, Node<'t>)> = Vec::new();
        for (key, value) in node.pairs() {
            let text = key.text().unwrap_or_default();
            let Some(&word) = known.iter().find(|&&word| word == text) else {
                unknown_key(key, known, out);
                continue;
            };
            if let Some((_, earlier)) = present.iter().find(|(seen, _)| *seen == word) {
                twice(key, *earlier, out);
            } else {
                present.push((word, value));
            }
        }
        Some(Fields { node, present })
    }

    /// The mapping itself.
    pub(super) fn node(&self) -> Node<'t> {
        self.node
    }

    /// A key's value, where the key is written; a key without a value is a finding.
    pub(super) fn get(&self, key: &str, out: &mut Findings) -> Option<Node<'t>> {
        let value = self.raw(key)?;
        if value.is_null() {
            let hint = "give it a value, or remove the key";
            out.error_with(value, format!("`{key}` has no value"), hint);
            return None;
        }
        Some(value)
    }

    /// A key's value, where the key is written, be it empty.
    pub(super) fn raw(&self, key: &str) -> Option<Node<'t>> {
        let found = self.present.iter().find(|(word, _)| *word == key);
        found.map(|&(_, value)| value)
    }

    /// A key that must be there.
    pub(super) fn required(&self, key: &str, hint: &str, out: &mut Findings) -> Option<Node<'t>> {
        if self.raw(key).is_none() {
            out.error_with(self.node, format!("`{key}` is missing"), hint);
        }
        self.get(key, out)
    }
}

fn unknown_key(key: Node<'_>, known: &'static [&'static str], out: &mut Findings) {
    let Some(text) = key.text().filter(|_| !key.is_null()) else {
        let message = format!("{} cannot be a key", key.describe());
        out.error_with(key, message, "keys are plain words");
        return;
    };
    let hint = if text == "<<" {
        "merge keys are not part of YAML 1.2: write the keys out".to_owned()
    } else {
        did_you_mean(text, known.iter().copied(), out)
            .unwrap_or_else(|| format!("the keys here are {}", all_of(known.iter().copied())))
    };
    out.error_with(key, format!("unknown key `{}`", shortened(text)), hint);
}

fn twice(key: Node<'_>, earlier: Node<'_>, out: &mut Findings) {
    let (line, _) = earlier.key().place();
    let message = format!("duplicate key `{}`", shortened(key.text().unwrap_or_default()));
    out.error_with(key, message, format!("the first is in line {line}: keep one of them"));
}

/// "did you mean `cable`?"
pub(super) fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
    out: &Findings,
) -> Option<String> {
    if !out.may_suggest() {
        return None;
    }
    let found = nearest(word, candidates.into_iter().take(1000))?;
    Some(format!("did you mean `{found}`?"))
}

/// A mapping whose keys are names that the user gives.
pub(super) fn named<'t>(node: Node<'t>, what: &str, out: &mut Findings) -> Vec<(Name, Node<'t>)> {
    if node.kind() != Kind::Mapping {
        let message = format!("expected a block of {what}s by name, not {}", node.describe());
        out.error_with(node, message, format!("write the {what}'s name, a colon, and its keys"));
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut list: Vec<(Name, Node<'t>)> = Vec::new();
    for (key, value) in node.pairs() {
        let Some(name) = name(key, out) else { continue };
        if seen.insert(name.clone()) {
            list.push((name, value));
        } else if let Some((_, earlier)) = list.iter().find(|(other, _)| *other == name) {
            twice(key, *earlier, out);
        }
    }
    list
}

/// A name that the user gives.
pub(super) fn name(node: Node<'_>, out: &mut Findings) -> Option<Name> {
    let found = node.text().filter(|_| !node.is_null()).and_then(|text| Name::new(text).ok());
    if found.is_none() {
        let hint = "a lower-case letter, then up to 30 of a-z, 0-9 and `-`";
        out.error_with(node, format!("{} is not a name", node.describe()), hint);
    }
    found
}

/// The items of a list, or the one value that stands for a list of one.
pub(super) fn list_or_none(node: Node<'_>) -> Vec<Node<'_>> {
    if node.kind() == Kind::Sequence { node.items().collect() } else { vec![node] }
}

/// The same where an empty list has no plain meaning: it is a finding.
pub(super) fn list<'t>(node: Node<'t>, out: &mut Findings) -> Vec<Node<'t>> {
    let items = list_or_none(node);
    if items.is_empty() {
        out.error_with(node, "an empty list", "give it an entry, or remove the key");
    }
    items
}
