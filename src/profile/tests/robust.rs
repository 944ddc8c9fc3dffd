//! Whatever the text, `load` comes back with a site or with errors.

use proptest::prelude::*;

use crate::profile::{Loaded, Severity, load, load_bytes, render};

const FULL: &str = include_str!("../../../profiles/full.yaml");
const OFFICE: &str = include_str!("../../../profiles/office.yaml");

fn holds(text: &str, loaded: &Loaded) {
    let errors = loaded.findings.iter().any(|f| f.severity == Severity::Error);
    assert_eq!(loaded.site.is_none(), errors);
    let lines = crate::profile::text::lines(text).count();
    assert!(loaded.findings.iter().all(|f| f.line >= 1 && f.line <= lines && f.column >= 1));
    let shown = render(&loaded.findings, "x.yaml", text);
    assert_eq!(shown.is_empty(), loaded.findings.is_empty());
}

fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("version: 1\n".to_owned()),
        Just("uplinks:".to_owned()),
        Just("policies:".to_owned()),
        Just("services:".to_owned()),
        Just("interface: ".to_owned()),
        "[\\-\\[\\]{}:,&*!|>'\"%@`#?~ \t\n]{1,4}",
        "[a-z0-9./:]{1,8}",
        Just("\n  ".to_owned()),
        Just("\n    ".to_owned()),
        Just("&a ".to_owned()),
        Just("*a".to_owned()),
        Just("---\n".to_owned()),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// A good profile with some of its characters replaced, or pieces of it moved.
fn mutated() -> impl Strategy<Value = String> {
    let source = prop_oneof![Just(FULL), Just(OFFICE)];
    let edit = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), ".{0,3}");
    (source, proptest::collection::vec(edit, 1..6)).prop_map(|(source, edits)| {
        let mut text: Vec<char> = source.chars().collect();
        for (at, length, with) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + length.index(12)).min(text.len());
            text.splice(start..end, with.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_to_the_end(text in ".{0,300}") {
        holds(&text, &load(&text));
    }

    #[test]
    fn anything_like_yaml_is_read_to_the_end(text in yaml_like()) {
        holds(&text, &load(&text));
    }

    #[test]
    fn a_good_profile_with_mistakes_is_read_to_the_end(text in mutated()) {
        holds(&text, &load(&text));
    }

    #[test]
    fn any_bytes_are_read_to_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let loaded = load_bytes(&bytes);
        prop_assert!(loaded.site.is_none());
    }
}

#[test]
fn line_ends_of_every_kind_are_counted_alike() {
    for text in [" \r\r\0", "a:\r  b: 1\r\tc: 1\r", "a\r\r\n\r\nb: [", "version: 1\rfoo: 1"] {
        holds(text, &load(text));
    }
}

#[test]
fn every_beginning_of_a_good_profile_is_read_to_the_end() {
    for end in (0..FULL.len()).filter(|&end| FULL.is_char_boundary(end)).step_by(7) {
        let text = FULL.get(..end).unwrap_or_default();
        holds(text, &load(text));
    }
}
