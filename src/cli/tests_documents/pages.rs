//! The documents, and what stands in them. Read by the unit tests and by the scenarios.

#![allow(unreachable_pub, reason = "two crates read it")]

use std::fs;
use std::path::{Path, PathBuf};

/// What a piece of a profile is put into, unless it brings these keys itself.
const REST: [(&str, &str); 2] = [
    ("version", "version: 1\n"),
    ("uplinks", "uplinks: { fiber: { interface: eth0 }, cable: { interface: eth1 } }\n"),
];

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document with its text.
pub fn documents() -> Vec<(PathBuf, String)> {
    let read = |folder: &str| {
        let files = fs::read_dir(root().join(folder)).unwrap().map(|file| file.unwrap().path());
        files.filter(|file| file.extension().is_some_and(|end| end == "md")).collect::<Vec<_>>()
    };
    let mut all = [read("."), read("docs"), read("docs/decisions"), read("packaging")].concat();
    all.sort();
    assert!(all.len() > 20, "{all:?}");
    all.into_iter().map(|file| (file.clone(), fs::read_to_string(&file).unwrap())).collect()
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

/// The profiles of a document; pieces are made whole.
pub fn profiles(text: &str) -> Vec<String> {
    // netplan's is another program's, scrape jobs and alerts are Prometheus's.
    let others = ["network", "scrape_configs", "groups_of_alerts"];
    let ours = blocks(text, "yaml")
        .into_iter()
        .filter(|block| !others.iter().any(|key| has_key(block, key)));
    let whole = ours.map(|block| {
        let missing = REST.iter().filter(|(key, _)| !has_key(&block, key));
        missing.map(|(_, text)| *text).chain([&*block]).collect()
    });
    whole.collect()
}

/// The command lines of a document, without prompts and what is said about them.
pub fn commands(text: &str) -> Vec<String> {
    let all = ["console", "sh", "bash"].iter().flat_map(|kind| blocks(text, kind));
    let lines = all.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>());
    let bare = lines.map(|line| {
        let line = line.split(" #").next().unwrap_or_default();
        line.trim_start_matches(['#', '$', ' ']).trim().to_owned()
    });
    bare.collect()
}

/// The words of a command line of ours, where it is one without what the shell deals with.
pub fn words(line: &str) -> Option<Vec<&str>> {
    let program = line.split(' ').next()?;
    let ours = program == "homing" || program.ends_with("/homing");
    let plain = !line.contains(['|', '>', '…', '[']) && !line.ends_with('\\');
    (ours && plain).then(|| line.split_whitespace().collect())
}
