//! Files that are large, deep, or made to hurt.

use std::fmt::Write as _;

use crate::profile::{load, load_bytes, render, to_json};

use super::line;

const BASE: &str = "version: 1\nuplinks: { a: { interface: w0 }, b: { interface: w1 } }\n";

fn only_finding(text: &str) -> String {
    let found = load(text).findings;
    assert_eq!(found.len(), 1, "{found:?}");
    line(&found[0])
}

#[test]
fn a_file_over_4_mb_is_one_error() {
    let comment = "#".repeat((4 << 20) - BASE.len());
    assert!(load(&format!("{BASE}{comment}")).site.is_some());
    let found = only_finding(&format!("{BASE}#{comment}"));
    assert_eq!(
        found,
        "1:1: error: : the file is larger than 4 MB (networks that border on each other can be written as one)"
    );
}

#[test]
fn nesting_without_end_is_one_error() {
    for text in ["[".repeat(20_000), "{a: ".repeat(20_000), "- ".repeat(20_000)] {
        assert!(only_finding(&text).contains("nested too deeply"));
    }
}

#[test]
fn aliases_that_multiply_are_one_error() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (last, next) in ('a'..'j').zip('b'..) {
        let many = format!("*{last}, ").repeat(10);
        let _ = writeln!(text, "{next}: &{next} [{many}]");
    }
    assert!(only_finding(&text).contains("more than two million values"));
}

#[test]
fn more_findings_than_anybody_reads_are_counted() {
    let text =
        format!("{BASE}policies: [{{ name: a, match: {{ to: [{}] }} }}]\n", "x, ".repeat(30_000));
    let found = load(&text).findings;
    assert_eq!(found.len(), 10_001);
    assert_eq!(found.last().unwrap().message, "20000 more findings are not listed");
    let shown = render(&found, "x.yaml", &text);
    assert!(shown.ends_with("… and 9901 more\n"), "{}", &shown[shown.len() - 200..]);
}

#[test]
fn long_text_is_repeated_in_part() {
    let long = "x".repeat(100_000);
    let found = load(&format!("{BASE}{long}: {long}\nsite: {{ {long}: 1 }}\n"));
    assert!(!found.findings.is_empty());
    assert!(found.findings.iter().all(|f| f.message.len() < 300 && f.path.len() < 300));
    let text = format!("{BASE}fast-path: {long}\n");
    let shown = render(&load(&text).findings, "x.yaml", &text);
    assert!(shown.lines().all(|line| line.chars().count() < 200), "{shown}");
}

#[test]
fn bytes_that_are_no_text_have_a_place() {
    let loaded = load_bytes(b"version: 1\nsite: \xc3\xa9\xff\n");
    let found: Vec<String> = loaded.findings.iter().map(line).collect();
    assert_eq!(found, ["2:8: error: : not UTF-8 text (byte 0xff) (save the file as UTF-8)"]);
    assert!(load_bytes(&[0; 64]).site.is_none());
    let cut = "é".repeat((4 << 20) / 2 + 1).into_bytes();
    assert!(load_bytes(&cut[..cut.len() - 1]).findings[0].message.contains("larger"));
    assert!(load_bytes(BASE.as_bytes()).site.is_some());
}

#[test]
fn a_finding_is_shown_with_its_line_and_a_caret() {
    let text =
        "version: 1\nuplinks:\n  a: { interface: w0, metered: yes }\n  b: { interface: w1 }\n";
    let shown = render(&load(text).findings, "site.yaml", text);
    let expected = [
        "site.yaml:3:32: error: expected `true` or `false`, not `yes`",
        "  at uplinks.a.metered",
        "  3 |   a: { interface: w0, metered: yes }",
        "    |                                ^",
        "  hint: say `true`",
        "",
    ];
    assert_eq!(shown, expected.join("\n"));
}

#[test]
fn json_has_every_field_of_a_finding() {
    let json = to_json(&load("version: 1\n").findings);
    let expected = serde_json::json!({ "version": 1, "findings": [{
        "severity": "error", "line": 1, "column": 1, "path": "",
        "message": "`uplinks` is missing",
        "hint": "name at least two: `uplinks: { fiber: { interface: wan0 }, … }`",
    }] });
    assert_eq!(json, expected);
}
