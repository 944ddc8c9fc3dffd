//! Whether systemd-networkd removes what others made.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Whether the services of this host work in the network namespace of this thread: that of the first
/// process. Each namespace has files of its own below `/proc/PID/net`, and everybody may look at them
/// (`ns/net` is for those who may trace the process). `proc` is `/proc`.
pub(super) fn shares_our_namespace(proc: &Path) -> bool {
    let file = |whose: &str| std::fs::metadata(proc.join(whose).join("net/dev"));
    match (file("1"), file("thread-self")) {
        (Ok(theirs), Ok(ours)) => theirs.ino() == ours.ino(),
        // Who cannot be asked is taken for near: better one warning too many.
        _ => true,
    }
}

/// Which settings of systemd-networkd, if it runs, let it remove what others made. `root` is `/`.
pub(super) fn settings(root: &Path) -> Vec<&'static str> {
    const SETTINGS: [&str; 2] = ["ManageForeignRoutingPolicyRules", "ManageForeignRoutes"];
    if !root.join("run/systemd/netif/state").exists() {
        return Vec::new();
    }
    let mut values: BTreeMap<&str, bool> = BTreeMap::new();
    for file in files(root) {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            if let Some(setting) = SETTINGS.iter().find(|setting| **setting == key.trim()) {
                let yes = ["yes", "true", "on", "1"].contains(&value.trim());
                values.insert(setting, yes);
            }
        }
    }
    SETTINGS.into_iter().filter(|setting| *values.get(setting).unwrap_or(&true)).collect()
}

/// The main file, then the parts by their names; of two parts with one name the first counts.
fn files(root: &Path) -> Vec<PathBuf> {
    let folders = ["etc", "run", "usr/local/lib", "usr/lib"].map(|f| root.join(f).join("systemd"));
    let main = folders.iter().map(|folder| folder.join("networkd.conf")).find(|f| f.exists());
    let mut parts: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for folder in folders.map(|folder| folder.join("networkd.conf.d")) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "conf") {
                parts.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    main.into_iter().chain(parts.into_values()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::fs;

    use super::{settings, shares_our_namespace};

    #[test]
    fn networkd_is_asked_only_where_it_runs_and_the_last_part_counts() {
        let root = std::env::temp_dir().join(format!("homing-doctor-{}", std::process::id()));
        let parts = root.join("etc/systemd/networkd.conf.d");
        fs::create_dir_all(&parts).unwrap();
        let file = root.join("etc/systemd/networkd.conf");
        fs::write(&file, "[Network]\nManageForeignRoutes=no\n").unwrap();
        assert!(settings(&root).is_empty());
        fs::create_dir_all(root.join("run/systemd/netif")).unwrap();
        fs::write(root.join("run/systemd/netif/state"), "").unwrap();
        assert_eq!(settings(&root), ["ManageForeignRoutingPolicyRules"]);
        fs::write(parts.join("20-b.conf"), "ManageForeignRoutingPolicyRules = no\n").unwrap();
        fs::write(parts.join("10-a.conf"), "ManageForeignRoutingPolicyRules=yes\n").unwrap();
        let found = settings(&root);
        fs::remove_dir_all(&root).unwrap();
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_namespace_of_its_own_is_not_the_services() {
        let proc = std::env::temp_dir().join(format!("homing-proc-{}", std::process::id()));
        let [theirs, ours] = ["1", "thread-self"].map(|who| proc.join(who).join("net"));
        for folder in [&theirs, &ours] {
            fs::create_dir_all(folder).unwrap();
        }
        let unknown = shares_our_namespace(&proc);
        fs::write(theirs.join("dev"), "").unwrap();
        fs::write(ours.join("dev"), "").unwrap();
        let other = shares_our_namespace(&proc);
        fs::remove_file(ours.join("dev")).unwrap();
        fs::hard_link(theirs.join("dev"), ours.join("dev")).unwrap();
        let same = shares_our_namespace(&proc);
        fs::remove_dir_all(&proc).unwrap();
        assert_eq!([unknown, other, same], [true, false, true]);
    }
}
