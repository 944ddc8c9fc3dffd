//! The documents say what is true: their profiles are taken, their commands exist, and the list of a
//! profile's keys is that of the schema.
#![allow(clippy::unwrap_used)] // a test says what it expects

mod keys;

use std::fs;
use std::path::{Path, PathBuf};

use super::command;
use crate::profile;

/// What a piece of a profile is put into, unless it brings these keys itself.
const REST: [(&str, &str); 2] = [
    ("version", "version: 1\n"),
    ("uplinks", "uplinks: { fiber: { interface: eth0 }, cable: { interface: eth1 } }\n"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let read = |folder: &str| {
        let files = fs::read_dir(root().join(folder)).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|end| end == "md")).collect::<Vec<_>>()
    };
    let mut all = [read("."), read("docs"), read("docs/decisions"), read("packaging")].concat();
    all.sort();
    assert!(all.len() > 20, "{all:?}");
    all
}

/// The blocks of a document that are of a kind.
fn blocks(text: &str, kind: &str) -> Vec<String> {
    let parts = text.split("\n```").collect::<Vec<_>>();
    // Every second part is inside.
    let inside = parts.iter().skip(1).step_by(2);
    let ours = inside.filter_map(|part| part.strip_prefix(kind)?.strip_prefix('\n'));
    ours.map(str::to_owned).collect()
}

fn has_key(block: &str, key: &str) -> bool {
    block.lines().any(|line| line.starts_with(&format!("{key}:")))
}

#[test]
fn every_profile_in_the_documents_is_taken() {
    let mut count = 0;
    for file in documents() {
        for block in blocks(&fs::read_to_string(&file).unwrap(), "yaml") {
            // netplan's is another program's, scrape jobs and alerts are Prometheus's.
            if ["network", "scrape_configs", "groups_of_alerts"]
                .iter()
                .any(|key| has_key(&block, key))
            {
                continue;
            }
            let missing = REST.iter().filter(|(key, _)| !has_key(&block, key));
            let rest: String = missing.map(|(_, text)| *text).collect();
            let loaded = profile::load(&format!("{rest}{block}"));
            assert!(loaded.site.is_some(), "{}: {:?}\n{block}", file.display(), loaded.findings);
            count += 1;
        }
    }
    assert!(count >= 10, "{count} profiles");
}

/// The words of a command line, without what the shell deals with.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.split(" #").next().unwrap_or_default();
    let line = line.trim_start_matches(['#', '$', ' ']).trim();
    let program = line.split(' ').next()?;
    let ours = program == "homing" || program.ends_with("/homing");
    let plain = !line.contains(['|', '>', '…', '[']) && !line.ends_with('\\');
    (ours && plain).then(|| line.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn every_command_in_the_documents_exists() {
    let mut count = 0;
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        for block in ["console", "sh", "bash"].iter().flat_map(|kind| blocks(&text, kind)) {
            for line in block.lines().filter_map(words) {
                let refused = command().try_get_matches_from(&line).err();
                let kind = refused.as_ref().map(clap::Error::kind);
                let shown =
                    [clap::error::ErrorKind::DisplayHelp, clap::error::ErrorKind::DisplayVersion];
                let taken = kind.is_none_or(|kind| shown.contains(&kind));
                assert!(taken, "{}: {line:?}: {refused:?}", file.display());
                count += 1;
            }
        }
    }
    assert!(count >= 40, "{count} commands");
}

/// `UPDATE_DOCUMENTS=1 cargo test the_keys_of` writes it anew.
#[test]
fn the_keys_of_a_profile_are_those_of_the_schema() {
    let (file, wanted) = (root().join("docs/profile-keys.md"), keys::document(&profile::schema()));
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(&file, &wanted).unwrap();
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(there == wanted, "docs/profile-keys.md is not of this schema: UPDATE_DOCUMENTS=1");
}

#[test]
fn every_document_that_is_pointed_to_is_there() {
    for file in documents() {
        let text = fs::read_to_string(&file).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || target.contains("://") {
                continue;
            }
            let there = file.parent().unwrap().join(path);
            assert!(there.exists(), "{}: {target}", file.display());
        }
    }
}
