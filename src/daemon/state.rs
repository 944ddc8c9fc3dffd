//! The state directory: what must outlive the process and the kernel's memory.
//!
//! One file, `state.json`, replaced atomically, and a second one with the same content: file systems
//! that reorder writes tear files when power is lost. A torn one is replaced with a warning. If both
//! are, ids are still in the kernel; only the former kernel settings are lost.
//!
//! A directory that cannot be written (a full disk, a read-only file system) is no reason not to
//! route: this process remembers, says once what is at stake, and tries again at every round
//! ([`StateDir::save`]).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use super::judge::REMEMBERED;
use crate::health::Health;
use crate::kernel::Ranges;
use crate::kstate::SysctlKey;
use crate::model::{Family, Name, Routing};
use crate::plan::{Admin, GroupStanding, Remembered, ServerStanding, Standing, Standings};

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    ids: Remembered,
    /// Kernel settings as they were before us; empty when nothing is changed.
    #[serde(default)]
    former_settings: BTreeMap<String, String>,
    #[serde(default)]
    first_priority: Option<u32>,
    #[serde(default)]
    first_table: Option<u32>,
    #[serde(default)]
    standings: KeptStandings,
}

/// How uplinks answered, and what people wanted of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct KeptStandings {
    /// When, in seconds since 1970.
    #[serde(default)]
    at: u64,
    /// Uplink → family (`4`, `6`) → health.
    #[serde(default)]
    health: BTreeMap<String, BTreeMap<String, String>>,
    /// Uplink → `draining` or `disabled`.
    #[serde(default)]
    admin: BTreeMap<String, String>,
    /// Group → server → the same of it.
    #[serde(default)]
    servers: BTreeMap<String, BTreeMap<String, KeptServer>>,
}

/// How a server answered, and what people wanted of it; what is not said is not known, or the usual.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct KeptServer {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
}

/// Of a site with more servers only those are kept that are not as they should be.
const MOST_SERVERS: usize = 1000;

fn kept_servers(
    groups: &BTreeMap<Name, Arc<GroupStanding>>,
) -> BTreeMap<String, BTreeMap<String, KeptServer>> {
    let all = groups.values().map(|servers| servers.len()).sum::<usize>() <= MOST_SERVERS;
    let kept = |standing: &ServerStanding| {
        let known = standing.health != Health::Unknown && (all || standing.health != Health::Up);
        let health = known.then(|| standing.health.as_str().to_owned());
        let ordered = standing.admin != Admin::Enabled;
        let admin = ordered.then(|| standing.admin.as_str().to_owned());
        (health.is_some() || admin.is_some()).then_some(KeptServer { health, admin })
    };
    let mut servers = BTreeMap::new();
    for (group, standings) in groups {
        let of: BTreeMap<String, KeptServer> =
            standings.iter().filter_map(|(name, s)| Some((name.to_string(), kept(s)?))).collect();
        if !of.is_empty() {
            servers.insert(group.to_string(), of);
        }
    }
    servers
}

/// Health counts when it is fresh, wishes for good.
fn read_servers(
    kept: &BTreeMap<String, BTreeMap<String, KeptServer>>,
    fresh: bool,
) -> BTreeMap<Name, Arc<GroupStanding>> {
    let standing = |kept: &KeptServer| {
        let health = kept.health.as_deref().filter(|_| fresh).and_then(Health::parse);
        let admin = kept.admin.as_deref().and_then(Admin::parse);
        ServerStanding {
            health: health.unwrap_or(Health::Unknown),
            admin: admin.unwrap_or_default(),
            ..ServerStanding::default()
        }
    };
    let mut groups = BTreeMap::new();
    for (group, servers) in kept {
        let Ok(group) = Name::new(group) else { continue };
        let known =
            |(name, kept): (&String, &KeptServer)| Some((Name::new(name).ok()?, standing(kept)));
        groups.insert(group, Arc::new(servers.iter().filter_map(known).collect()));
    }
    groups
}

impl KeptStandings {
    fn of(standings: &Standings, now: SystemTime) -> KeptStandings {
        let families = |answers: &BTreeMap<Family, Standing>| {
            let of = |(family, one): (&Family, &Standing)| {
                (family.digit().to_string(), one.health.as_str().to_owned())
            };
            answers.iter().map(of).collect()
        };
        let health = standings.answers.iter().map(|(name, a)| (name.to_string(), families(a)));
        let admin =
            standings.admin.iter().map(|(name, a)| (name.to_string(), a.as_str().to_owned()));
        KeptStandings {
            at: seconds(now),
            health: health.collect(),
            admin: admin.collect(),
            servers: kept_servers(&standings.groups),
        }
    }

    /// Health counts for ten minutes, and not if the clock was set back; wishes count for good.
    fn read(&self, now: SystemTime) -> Standings {
        let mut standings = Standings::default();
        let age = seconds(now).checked_sub(self.at);
        let fresh = age.is_some_and(|age| age <= REMEMBERED.as_secs());
        standings.groups = Arc::new(read_servers(&self.servers, fresh));
        if fresh {
            for (name, families) in &self.health {
                let Ok(name) = Name::new(name) else { continue };
                let of = |family: Family| {
                    let health = Health::parse(families.get(&family.digit().to_string())?)?;
                    let reason = "as it was before the restart".to_owned();
                    Some((family, Standing { health, reason }))
                };
                let known = Family::BOTH.into_iter().filter_map(of).collect();
                standings.answers.insert(name, known);
            }
        }
        let wish =
            |(name, wish): (&String, &String)| Some((Name::new(name).ok()?, Admin::parse(wish)?));
        standings.admin = self.admin.iter().filter_map(wish).collect();
        standings
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Kept {
    /// Adds what was found later: of settings the older record counts, of numbers the newer one.
    fn add(&mut self, found: Kept) {
        let mut ids = found.ids;
        ids.merge(std::mem::take(&mut self.ids));
        self.ids = ids;
        self.former_settings.extend(found.former_settings);
        self.first_priority = self.first_priority.or(found.first_priority);
        self.first_table = self.first_table.or(found.first_table);
        if self.standings.at < found.standings.at {
            self.standings = found.standings;
        }
    }
}

/// Both hold the same; the first that can be read counts.
const FILES: [&str; 2] = ["state.json", "state-copy.json"];

/// The state directory.
#[derive(Debug)]
pub struct StateDir {
    folder: PathBuf,
    kept: Kept,
    /// The files are not as they should be.
    stale: bool,
    /// They could not be read: what they hold is not in `kept`.
    unread: bool,
    /// What was said last of why they cannot be used.
    told: Option<String>,
}

/// What one file holds.
enum Found {
    Whole(Box<Kept>),
    Damaged,
    Nothing,
}

fn read(path: &Path) -> Result<Found, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(source) => {
            return Err(StateError { operation: "read", path: path.to_owned(), source });
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(kept) => Ok(Found::Whole(Box::new(kept))),
        Err(error) => {
            tracing::warn!("{} is damaged, and written anew: {error}", path.display());
            Ok(Found::Damaged)
        }
    }
}

/// What both hold together, and whether one of them is not as it should be.
fn read_both(folder: &Path) -> Result<(Kept, bool), StateError> {
    let [first, copy] = FILES.map(|file| read(&folder.join(file)));
    Ok(match (first?, copy?) {
        (Found::Whole(kept), Found::Whole(_)) => (*kept, false),
        (Found::Whole(kept), _) | (_, Found::Whole(kept)) => (*kept, true),
        (Found::Nothing, Found::Nothing) => (Kept::default(), false),
        (Found::Damaged, _) | (_, Found::Damaged) => {
            tracing::warn!(
                "kernel settings from before homing are forgotten: `down` cannot restore them"
            );
            (Kept::default(), true)
        }
    })
}

/// The numbers in what one file holds: for [`crate::hostile`].
pub fn decode_state(bytes: &[u8]) -> Option<Remembered> {
    let kept: Kept = serde_json::from_slice(bytes).ok()?;
    let state = StateDir::of(Path::new(""), kept);
    let _ = (state.ranges(), state.former_settings());
    serde_json::to_vec(&state.kept).ok()?;
    Some(state.kept.ids)
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}: {source}")]
pub struct StateError {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl StateDir {
    /// Opens the directory for a process that must go on whatever it is like. One that cannot be
    /// read is told of, and looked at again by [`StateDir::save`].
    pub fn open(folder: &Path) -> StateDir {
        StateDir::open_existing(folder).unwrap_or_else(|error| {
            let mut state = StateDir::of(folder, Kept::default());
            (state.stale, state.unread) = (true, true);
            state.tell(&error);
            state
        })
    }

    /// Opens the directory; one that does not exist is like an empty one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open_existing(folder: &Path) -> Result<StateDir, StateError> {
        let (kept, stale) = read_both(folder)?;
        Ok(StateDir { stale, ..StateDir::of(folder, kept) })
    }

    fn of(folder: &Path, kept: Kept) -> StateDir {
        StateDir { folder: folder.to_owned(), kept, stale: false, unread: false, told: None }
    }

    /// The numbers given so far.
    pub fn remembered(&self) -> &Remembered {
        &self.kept.ids
    }

    /// The ranges that were in force last.
    pub fn ranges(&self) -> Ranges {
        let usual = Routing::default();
        Ranges {
            first_priority: self.kept.first_priority.unwrap_or(usual.first_priority),
            first_table: self.kept.first_table.unwrap_or(usual.first_table),
        }
    }

    /// Keeps numbers and ranges.
    pub fn keep(&mut self, ids: Remembered, routing: Routing) {
        let first_priority = Some(routing.first_priority);
        let first_table = Some(routing.first_table);
        self.change(|kept| *kept = Kept { ids, first_priority, first_table, ..kept.clone() });
        self.save();
    }

    /// Keeps how uplinks answer.
    pub fn keep_standings(&mut self, standings: &Standings, now: SystemTime) {
        let standings = KeptStandings::of(standings, now);
        self.change(|kept| kept.standings = standings);
        self.save();
    }

    /// How uplinks answered, if that is not too long ago, and what people want of them.
    pub fn standings(&self, now: SystemTime) -> Standings {
        self.kept.standings.read(now)
    }

    /// Records settings as they are before we change them; what is recorded already stays.
    ///
    /// Forwarding of single devices is recorded the first time alone: a device that comes later
    /// has inherited our own value.
    pub fn record_settings(&mut self, now: &BTreeMap<SysctlKey, String>) {
        let first = self.kept.former_settings.is_empty();
        self.change(|kept| {
            for (SysctlKey(key), value) in now {
                if first || !key.ends_with("/forwarding") {
                    kept.former_settings.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
        });
        self.save();
    }

    /// The recorded settings. A key that leads out of `/proc/sys/net` is not one that we wrote.
    pub fn former_settings(&self) -> BTreeMap<SysctlKey, String> {
        let inside =
            |key: &str| key.starts_with("net/") && !key.split('/').any(|part| part == "..");
        let settings = self.kept.former_settings.iter().filter(|(key, _)| inside(key));
        settings.map(|(key, value)| (SysctlKey(key.clone()), value.clone())).collect()
    }

    /// Forgets the recorded settings, after they were restored.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn forget_settings(&mut self) -> Result<(), StateError> {
        self.change(|kept| kept.former_settings.clear());
        self.try_save()
    }

    /// Writes what is not written yet. That it cannot be is said when the reason is a new one.
    pub fn save(&mut self) {
        match self.try_save() {
            Err(error) => self.tell(&error),
            Ok(()) if self.told.take().is_some() => {
                tracing::info!("{} can be written again, and is", self.folder.display());
            }
            Ok(()) => {}
        }
    }

    /// Why the directory cannot be used, and what that means.
    pub fn trouble(&self) -> Option<&str> {
        self.told.as_deref()
    }

    fn tell(&mut self, error: &StateError) {
        let trouble = format!(
            "{error}; until that is mended, ids are remembered by the kernel alone, and kernel \
             settings from before homing by this process alone: `down` could not restore them"
        );
        if self.told.as_ref() != Some(&trouble) {
            tracing::warn!("{trouble}");
        }
        self.told = Some(trouble);
    }

    fn change(&mut self, change: impl FnOnce(&mut Kept)) {
        let before = self.kept.clone();
        change(&mut self.kept);
        self.stale |= before != self.kept;
    }

    fn try_save(&mut self) -> Result<(), StateError> {
        if self.unread {
            let (found, _) = read_both(&self.folder)?;
            self.kept.add(found);
            self.unread = false;
        }
        if !self.stale {
            return Ok(());
        }
        let error = |operation, path, source| StateError { operation, path, source };
        fs::create_dir_all(&self.folder).map_err(|e| error("make", self.folder.clone(), e))?;
        for file in FILES {
            let path = self.folder.join(file);
            self.write(&path).map_err(|source| error("write", path, source))?;
        }
        self.stale = false;
        Ok(())
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let scratch = path.with_extension("new");
        let written = self.fill(&scratch).and_then(|()| fs::rename(&scratch, path));
        if written.is_err() {
            // On a full disk half a file would only take the room of a whole one.
            let _ = fs::remove_file(&scratch);
        }
        written?;
        fs::File::open(&self.folder)?.sync_all()
    }

    fn fill(&self, scratch: &Path) -> io::Result<()> {
        let mut file = fs::File::create(scratch)?;
        if let (Ok(folder), true) = (fs::metadata(&self.folder), Uid::effective().is_root()) {
            // What root's `down` writes is for the service's user to read.
            let _ = fchown(&file, Some(folder.uid()), Some(folder.gid()));
        }
        let mut text = serde_json::to_vec_pretty(&self.kept)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test says what it expects

    use std::path::PathBuf;

    use super::*;

    /// A place of its own, gone afterwards.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let place = std::env::temp_dir().join(format!("homing-{name}-{}", std::process::id()));
            let _ = fs::remove_file(&place);
            let _ = fs::remove_dir_all(&place);
            Place(place)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn numbers(uplinks: &[(&str, u8)]) -> Remembered {
        let uplinks = uplinks.iter().map(|(name, id)| (Name::new(name).unwrap(), *id)).collect();
        Remembered { uplinks, ..Remembered::default() }
    }

    fn settings(value: &str) -> BTreeMap<SysctlKey, String> {
        [(SysctlKey("net/ipv4/ip_forward".to_owned()), value.to_owned())].into()
    }

    #[test]
    fn what_could_not_be_written_is_written_when_it_can_be() {
        let place = Place::new("full");
        // A file in the place of the directory: nothing can be read or written below it.
        fs::write(&place.0, "").unwrap();
        let mut state = StateDir::open(&place.0);
        assert!(state.trouble().is_some());
        state.keep(numbers(&[("fiber", 7)]), Routing::default());
        state.record_settings(&settings("0"));
        assert!(state.trouble().unwrap().contains("`down` could not restore"));
        fs::remove_file(&place.0).unwrap();
        state.save();
        assert_eq!(state.trouble(), None);
        let again = StateDir::open_existing(&place.0).unwrap();
        assert_eq!(*again.remembered(), numbers(&[("fiber", 7)]));
        assert_eq!(again.former_settings(), settings("0"));
    }

    #[test]
    fn what_could_not_be_read_is_not_overwritten() {
        let (place, aside) = (Place::new("away"), Place::new("aside"));
        let mut before = StateDir::open(&place.0);
        before.keep(numbers(&[("fiber", 7), ("gone", 9)]), Routing::default());
        before.record_settings(&settings("0"));
        fs::rename(&place.0, &aside.0).unwrap();
        fs::write(&place.0, "").unwrap();
        let mut state = StateDir::open(&place.0);
        state.keep(numbers(&[("fiber", 8)]), Routing::default());
        // By now it is our own value.
        state.record_settings(&settings("1"));
        fs::remove_file(&place.0).unwrap();
        fs::rename(&aside.0, &place.0).unwrap();
        state.save();
        let again = StateDir::open_existing(&place.0).unwrap();
        assert_eq!(*again.remembered(), numbers(&[("fiber", 8), ("gone", 9)]));
        assert_eq!(again.former_settings(), settings("0"));
    }

    #[test]
    fn settings_outside_the_network_are_not_restored() {
        let text = r#"{ "former_settings": { "kernel/core_pattern": "x", "net/../kernel/y": "x",
            "net/ipv4/ip_forward": "0" } }"#;
        let state = StateDir::of(Path::new(""), serde_json::from_str(text).unwrap());
        assert_eq!(state.former_settings(), settings("0"));
    }
}
