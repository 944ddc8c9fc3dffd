//! A namespace as the system's own tools show it, to compare before and after.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use homing::lab::Namespace;
use serde_json::Value;

/// What an administrator would look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot(BTreeMap<String, Value>);

/// Sysctls that change by themselves, or cannot be read.
const VOLATILE: [&str; 4] = [
    "nf_conntrack_count",
    "stable_secret",
    "flush",
    "tcp_fastopen_key",
];

impl Snapshot {
    pub fn of(space: &Namespace) -> Snapshot {
        let mut all = BTreeMap::new();
        for family in ["-4", "-6"] {
            for args in [&["rule"][..], &["route", "show", "table", "all"], &["addr"]] {
                let full: Vec<&str> = [&[family], args].concat();
                let listing = space.ip_json(&full).expect("ip");
                all.insert(format!("ip {}", full.join(" ")), listing);
            }
        }
        let ruleset = space.nft_json(&["list", "ruleset"]).expect("nft");
        all.insert("nft list ruleset".to_owned(), ruleset);
        space
            .enter(|| sysctls(Path::new("/proc/sys/net"), &mut all))
            .expect("enter");
        Snapshot(all)
    }

    /// What differs, one item a line.
    pub fn differences(&self, later: &Snapshot) -> String {
        let keys = self.0.keys().chain(later.0.keys());
        let keys: std::collections::BTreeSet<_> = keys.collect();
        let differs = keys
            .into_iter()
            .filter(|key| self.0.get(*key) != later.0.get(*key));
        let line = |key: &String| {
            format!(
                "{key}:\n  before {:?}\n  after  {:?}\n",
                self.0.get(key),
                later.0.get(key)
            )
        };
        differs.map(line).collect()
    }
}

fn sysctls(dir: &Path, all: &mut BTreeMap<String, Value>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if VOLATILE.iter().any(|word| name.to_string_lossy() == *word) {
            continue;
        }
        if path.is_dir() {
            sysctls(&path, all);
        } else if let Ok(text) = fs::read_to_string(&path) {
            all.insert(path.display().to_string(), text.trim().into());
        }
    }
}

impl Snapshot {
    /// The part whose keys hold this word.
    pub fn only(&self, word: &str) -> Snapshot {
        let part = self.0.iter().filter(|(key, _)| key.contains(word));
        Snapshot(part.map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}
