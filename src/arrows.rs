//! Holds the picture of the house true: imports point one way, and the pure rooms stay pure.
#![allow(clippy::unwrap_used)] // a test says what it expects

use std::fs;
use std::path::{Path, PathBuf};

/// Room → the rooms it may import.
const ARROWS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("model", &[]),
    ("profile", &["model"]),
    ("steering", &["model", "health"]),
    ("kstate", &["model"]),
    ("health", &["model"]),
    ("probe", &["model"]),
    ("plan", &["model", "health", "steering", "kstate"]),
    ("kernel", &["model", "kstate"]),
    ("doctor", &["model", "profile", "kstate", "plan"]),
    (
        "daemon",
        &["model", "profile", "steering", "kstate", "health", "probe", "plan", "kernel", "clock"],
    ),
    ("api", &["model", "profile", "plan", "daemon"]),
    ("lab", &["model", "profile"]),
    ("hostile", &["model", "profile", "kstate", "plan", "kernel", "probe", "daemon", "api", "cli"]),
    (
        "cli",
        &[
            "model", "profile", "kstate", "plan", "kernel", "daemon", "api", "lab", "clock",
            "doctor",
        ],
    ),
];

/// Rooms without effects, and what they must not name (tests may read files).
const PURE: [&str; 7] = ["model", "profile", "steering", "kstate", "health", "plan", "doctor"];
const EFFECTS: [&str; 8] = [
    "tokio",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime",
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(sources(&path)),
            false => files.push(path),
        }
    }
    files
}

/// The code of a file: no comments, and nothing from the first test module on.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let until = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..until]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn each_source(mut look: impl FnMut(&str, &Path, &str)) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&src) {
        let inside = path.strip_prefix(&src).unwrap();
        let first = inside.components().next().unwrap();
        let room = Path::new(first.as_os_str()).file_stem().unwrap().to_string_lossy();
        let is_test = inside.to_string_lossy().contains("tests");
        if !is_test && !["main", "lib", "arrows"].contains(&&*room) {
            look(&room, inside, &code(&path));
        }
    }
}

#[test]
fn imports_point_one_way() {
    each_source(|room, file, code| {
        let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == room).unwrap();
        for rest in code.split("crate::").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            let other = &rest[..end];
            let fine = other == room || allowed.contains(&other) || other.is_empty();
            assert!(fine, "{}: {room} must not import {other}", file.display());
        }
    });
}

#[test]
fn pure_rooms_have_no_effects() {
    each_source(|room, file, code| {
        for effect in EFFECTS.iter().filter(|_| PURE.contains(&room)) {
            assert!(!code.contains(effect), "{}: {room} must not use {effect}", file.display());
        }
    });
}
