//! One finding with its place in the file, and the collector of all of them.

use serde_json::{Value, json};

use super::tree::Node;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The profile cannot be used.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// `error`, `warning` or `note`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}

/// Something to say about one place in a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The key path, `policies[2].match.from[0]`; empty for the file as a whole.
    pub path: String,
    /// What is the matter.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Findings as `homing check --json` and the API give them.
pub fn to_json(findings: &[Finding]) -> Value {
    let one = |finding: &Finding| {
        json!({
            "severity": finding.severity.as_str(),
            "line": finding.line,
            "column": finding.column,
            "path": finding.path,
            "message": finding.message,
            "hint": finding.hint,
        })
    };
    json!({ "version": 1, "findings": findings.iter().map(one).collect::<Vec<_>>() })
}

/// Collects findings; keeps the first [`Findings::MOST`] and counts the rest.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    dropped: usize,
}

impl Findings {
    /// A file of nothing but mistakes must not fill the memory with what is said about it.
    pub(super) const MOST: usize = 10_000;

    /// After this many, names are no longer compared for likely misspellings.
    const MOST_SUGGESTIONS: usize = 200;

    pub(super) fn error(&mut self, node: Node<'_>, message: impl Into<String>) {
        self.at(Severity::Error, node, message.into(), None);
    }

    pub(super) fn error_with(
        &mut self,
        node: Node<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.at(Severity::Error, node, message.into(), Some(hint.into()));
    }

    pub(super) fn warning(
        &mut self,
        node: Node<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.at(Severity::Warning, node, message.into(), Some(hint.into()));
    }

    pub(super) fn note(
        &mut self,
        node: Node<'_>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.at(Severity::Note, node, message.into(), Some(hint.into()));
    }

    /// A finding about a place that is no node: a syntax error, a tab.
    pub(super) fn error_at(
        &mut self,
        (line, column): (usize, usize),
        message: impl Into<String>,
        hint: Option<&str>,
    ) {
        self.push(Finding {
            severity: Severity::Error,
            line,
            column,
            path: String::new(),
            message: message.into(),
            hint: hint.map(str::to_owned),
        });
    }

    pub(super) fn may_suggest(&self) -> bool {
        self.list.len() < Findings::MOST_SUGGESTIONS
    }

    /// All findings in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Finding> {
        self.list.sort_by_key(|f| (f.line, f.column, f.severity));
        if self.dropped > 0 {
            let (line, column) = self.list.last().map_or((1, 1), |f| (f.line, f.column));
            self.list.push(Finding {
                severity: Severity::Error,
                line,
                column,
                path: String::new(),
                message: format!("{} more findings are not listed", self.dropped),
                hint: Some("cure the first ones and check again".to_owned()),
            });
        }
        self.list
    }

    fn at(&mut self, severity: Severity, node: Node<'_>, message: String, hint: Option<String>) {
        if self.list.len() >= Findings::MOST {
            self.dropped += 1;
            return;
        }
        let (line, column) = node.place();
        self.push(Finding { severity, line, column, path: node.path(), message, hint });
    }

    fn push(&mut self, finding: Finding) {
        if self.list.len() < Findings::MOST {
            self.list.push(finding);
        } else {
            self.dropped += 1;
        }
    }
}
