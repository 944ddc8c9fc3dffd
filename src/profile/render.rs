//! Findings for people: place, severity, message, the line with a caret, the hint.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::finding::Finding;
use super::text::lines;

/// Most findings that are printed.
const MOST: usize = 100;
/// Widest piece of a line that is shown, in characters.
const WIDEST: usize = 100;

/// Writes findings as `homing check` prints them: the first 100, then how many more.
pub fn render(findings: &[Finding], file: &str, text: &str) -> String {
    let told = findings.get(..MOST).unwrap_or(findings);
    // Not all lines: four megabytes of line ends would take sixteen times that.
    let wanted: BTreeSet<usize> = told.iter().map(|finding| finding.line).collect();
    let numbered = (1..).zip(lines(text)).filter(|(number, _)| wanted.contains(number));
    let shown: BTreeMap<usize, &str> = numbered.collect();
    let mut out = String::new();
    for finding in told {
        // Writing to a string cannot fail.
        let _ = one(&mut out, finding, file, shown.get(&finding.line).copied());
    }
    if let Some(more @ 1..) = findings.len().checked_sub(MOST) {
        let _ = writeln!(out, "… and {more} more");
    }
    out
}

fn one(out: &mut String, finding: &Finding, file: &str, shown: Option<&str>) -> std::fmt::Result {
    let Finding { line, column, .. } = *finding;
    let severity = finding.severity.as_str();
    writeln!(out, "{file}:{line}:{column}: {severity}: {}", finding.message)?;
    if !finding.path.is_empty() {
        writeln!(out, "  at {}", finding.path)?;
    }
    if let Some(shown) = shown {
        let (piece, caret) = window(shown, column);
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(out, "  {number} | {piece}")?;
        writeln!(out, "  {margin} | {}^", " ".repeat(caret))?;
    }
    if let Some(hint) = &finding.hint {
        writeln!(out, "  hint: {hint}")?;
    }
    Ok(())
}

/// The part of a line around a column, and how many characters stand before the column in it.
fn window(line: &str, column: usize) -> (String, usize) {
    let at = column.saturating_sub(1);
    let first = if at < WIDEST - 20 { 0 } else { at - WIDEST / 2 };
    let visible = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => '?',
        c => c,
    };
    let piece: String = line.chars().skip(first).take(WIDEST).map(visible).collect();
    (piece, at - first)
}
