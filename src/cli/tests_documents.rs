//! The documents say what is true: their profiles are taken, their commands exist, and the list of a
//! profile's keys is that of the schema.
#![allow(clippy::unwrap_used)] // a test says what it expects

mod keys;
mod pages;

use std::fs;

use self::pages::{commands, documents, profiles, root, words};
use super::command;
use crate::profile;

#[test]
fn every_profile_in_the_documents_is_taken() {
    let mut count = 0;
    for (file, text) in documents() {
        for profile in profiles(&text) {
            let loaded = profile::load(&profile);
            assert!(loaded.site.is_some(), "{}: {:?}\n{profile}", file.display(), loaded.findings);
            count += 1;
        }
    }
    assert!(count >= 10, "{count} profiles");
}

#[test]
fn every_command_in_the_documents_exists() {
    let mut count = 0;
    for (file, text) in documents() {
        for line in commands(&text).iter().filter_map(|line| words(line)) {
            let refused = command().try_get_matches_from(&line).err();
            let kind = refused.as_ref().map(clap::Error::kind);
            let shown =
                [clap::error::ErrorKind::DisplayHelp, clap::error::ErrorKind::DisplayVersion];
            let taken = kind.is_none_or(|kind| shown.contains(&kind));
            assert!(taken, "{}: {line:?}: {refused:?}", file.display());
            count += 1;
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
    for (file, text) in documents() {
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
