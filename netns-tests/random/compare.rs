//! What was said against what was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::shot::{Place, Shot};
use super::witness::{Captures, Entry, key};
use super::world::UPLINKS;
use crate::harness::Site;

/// Names by the numbers that stand for them in marks.
pub struct Ids {
    uplinks: BTreeMap<u32, String>,
    policies: BTreeMap<u32, String>,
}

impl Ids {
    pub fn read(site: &Site) -> Ids {
        let status = site.status();
        let uplinks = status["uplinks"].as_object().unwrap().iter();
        let uplinks = uplinks.map(|(name, u)| (u["id"].as_u64().unwrap() as u32, name.clone()));
        let listing = site.router().nft_json(&["list", "chains"]).unwrap();
        let chains = listing["nftables"].as_array().unwrap().iter();
        let policy = |chain: &Value| {
            let name = chain["chain"]["name"].as_str()?;
            let name = name.strip_prefix("policy4-").or(name.strip_prefix("policy6-"))?;
            let (id, name) = name.split_once('-')?;
            Some((id.parse().ok()?, name.to_owned()))
        };
        Ids { uplinks: uplinks.collect(), policies: chains.filter_map(policy).collect() }
    }
}

/// What was seen of a packet.
#[derive(Debug)]
struct Seen {
    uplink: Option<String>,
    policy: Option<String>,
    entry: Option<Entry>,
    places: BTreeMap<Place, BTreeSet<IpAddr>>,
    refused: bool,
}

/// What is wrong, if something is.
pub fn mismatch(
    shot: &Shot,
    said: &Value,
    ids: &Ids,
    entries: &BTreeMap<(u8, IpAddr, IpAddr, u16), Entry>,
    captures: &Captures,
    down: &[&str],
) -> Option<String> {
    let entry = entries.get(&key(shot)).cloned();
    let mark = entry.as_ref().map_or(0, |entry| entry.mark);
    let seen = Seen {
        uplink: ids.uplinks.get(&(mark >> 8 & 0x3f)).cloned(),
        policy: ids.policies.get(&(mark >> 24)).cloned(),
        entry,
        places: captures.of(shot),
        refused: captures.refused(shot),
    };
    let wrong = match said["outcome"].as_str().unwrap_or_default() {
        "uplink" => by_uplink(shot, said, &seen, down),
        "elsewhere" => elsewhere(shot, said, &seen, down),
        "router" | "untouched" => at_the_router(shot, &seen),
        // The errors of routing are counted out by the kernel, for all namespaces together.
        "refused" if !said["summary"].to_string().contains("at once") => gone(shot, &seen, None),
        "refused" => gone(shot, &seen, Some(true)),
        "dropped" => gone(shot, &seen, Some(false)),
        other => Err(format!("outcome `{other}`")),
    };
    wrong.err().map(|wrong| format!("{wrong}\n  {shot:?}\n  {seen:?}\n  {said}"))
}

fn check(right: bool, wrong: impl Into<String>) -> Result<(), String> {
    if right { Ok(()) } else { Err(wrong.into()) }
}

fn by_uplink(shot: &Shot, said: &Value, seen: &Seen, down: &[&str]) -> Result<(), String> {
    let entry = seen.entry.as_ref().ok_or("no session came about")?;
    let ways = said["ways"].as_array().unwrap();
    // A session that only passes through stays with the uplink by which it came.
    let leaves = |way: &&Value| match shot.place {
        Place::Isp(_) => true,
        _ => way["uplink"].as_str() == seen.uplink.as_deref(),
    };
    let way = ways.iter().find(leaves).ok_or("another uplink")?;
    check(said["uplink"].is_null() != (ways.len() == 1), "`uplink` and `ways` disagree")?;
    check(way["source"] == entry.source.to_string(), "another source")?;
    let by_policy = said["decided_by"] == "policy" && !reasons(said).contains("is main");
    let policy = said["policy"].as_str().filter(|_| by_policy);
    check(seen.policy.as_deref() == policy, "another policy")?;
    let name = way["uplink"].as_str().unwrap();
    let isp = UPLINKS.iter().position(|uplink| *uplink == name).unwrap();
    let mut expected = BTreeMap::new();
    // A line without carrier shows nothing.
    if !down.contains(&name) && Place::Isp(isp) != shot.place {
        expected.insert(Place::Isp(isp), BTreeSet::from([entry.source]));
    }
    check(seen.places == expected, "seen elsewhere, or with another source")
}

fn reasons(said: &Value) -> String {
    said["reasons"].to_string()
}

fn elsewhere(shot: &Shot, said: &Value, seen: &Seen, _down: &[&str]) -> Result<(), String> {
    let entry = seen.entry.as_ref().ok_or("no session came about")?;
    check(entry.source == shot.from, "it was translated")?;
    check(seen.policy.is_none(), "a policy took it")?;
    check(seen.uplink == entered_by(shot), "pinned to another uplink, or to one at all")?;
    let place = match said["interface"].as_str().unwrap_or_default() {
        "lan0" => Place::Lan,
        "dmz0" => Place::Dmz,
        other => return Err(format!("interface `{other}`")),
    };
    let mut expected = BTreeMap::from([(place, BTreeSet::from([shot.from]))]);
    expected.retain(|place, _| *place != shot.place);
    check(seen.places == expected, "seen elsewhere, or not at all")
}

fn entered_by(shot: &Shot) -> Option<String> {
    match shot.place {
        Place::Isp(number) => Some(UPLINKS[number].to_owned()),
        Place::Lan | Place::Dmz | Place::Router => None,
    }
}

fn at_the_router(shot: &Shot, seen: &Seen) -> Result<(), String> {
    check(seen.places.is_empty(), "it went on")?;
    match &seen.entry {
        Some(entry) => {
            check(entry.source == shot.from, "it was translated")?;
            check(seen.uplink == entered_by(shot), "pinned to another uplink, or to one at all")
        }
        // Nobody listens to that group.
        None => check(shot.to.is_multicast() || shot.to.to_string().ends_with(".255"), "dropped"),
    }
}

fn gone(shot: &Shot, seen: &Seen, told: Option<bool>) -> Result<(), String> {
    check(seen.entry.is_none() && seen.places.is_empty(), "it went on")?;
    let heard = [Place::Lan, Place::Dmz].contains(&shot.place);
    let right = !heard || told.is_none_or(|told| told == seen.refused);
    check(right, "the sender was told, or should have been")
}

/// How often each outcome was foretold.
#[derive(Debug, Default)]
pub struct Verdicts(BTreeMap<String, u32>);

impl Verdicts {
    pub fn count(&mut self, said: &Value) {
        let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        let mut kinds = vec![format!("{} by {}", text("outcome"), text("decided_by"))];
        if said["binding"]["holds"] == true {
            kinds.push("bound".to_owned());
        }
        if !said["slot"].is_null() {
            kinds.push("hashed".to_owned());
        }
        if said["ways"].as_array().is_some_and(|ways| ways.len() > 1) {
            kinds.push("in turn".to_owned());
        }
        for kind in kinds {
            *self.0.entry(kind).or_default() += 1;
        }
    }

    pub fn assert_all_kinds_were_seen(&self) {
        for kind in [
            "uplink by policy",
            "uplink by route",
            "uplink by prefix",
            "uplink by kernel",
            "elsewhere by kernel",
            "elsewhere by entry",
            "router by kernel",
            "router by entry",
            "refused by policy",
            "dropped by policy",
            "dropped by firewall",
            "bound",
            "hashed",
            "in turn",
        ] {
            assert!(self.0.contains_key(kind), "no `{kind}` among {self:?}");
        }
    }
}
