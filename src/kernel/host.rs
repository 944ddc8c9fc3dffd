//! Reading what other software has set up, for `doctor`: at leisure, and by `nft`'s own listing.
//!
//! Nothing here is an error: what cannot be read is left out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::nft_write::find_nft;
use crate::kstate::{ForeignChain, ForeignTable, Host, MarkChange, TABLE_NAME};
use crate::model::IfName;

/// Reads everything.
pub fn read_host() -> Host {
    Host {
        tables: list_tables().unwrap_or_default(),
        networkd_removes: networkd(Path::new("/")),
        listening: listening(),
        sessions: sessions(),
    }
}

fn list_tables() -> Option<Vec<ForeignTable>> {
    let listing = Command::new(find_nft()?).args(["-j", "list", "ruleset"]).output().ok()?;
    Some(tables(&serde_json::from_slice(&listing.stdout).ok()?))
}

/// Every table but ours in what `nft -j list ruleset` printed.
pub(super) fn tables(listing: &Value) -> Vec<ForeignTable> {
    let mut tables: BTreeMap<String, ForeignTable> = BTreeMap::new();
    let ours = format!("inet {TABLE_NAME}");
    for object in listing["nftables"].as_array().into_iter().flatten() {
        let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        let part = if kind == "table" { "name" } else { "table" };
        let (Some(family), Some(table)) = (body["family"].as_str(), body[part].as_str()) else {
            continue;
        };
        let name = format!("{family} {table}");
        if name == ours {
            continue;
        }
        let table = tables
            .entry(name.clone())
            .or_insert_with(|| ForeignTable { name, ..ForeignTable::default() });
        match kind.as_str() {
            "chain" => table.chains.push(ForeignChain {
                name: text(&body["name"]),
                closes_forward: body["hook"] == "forward" && body["policy"] == "drop",
            }),
            "flowtable" => table.offloaded.extend(devices(&body["dev"])),
            "rule" => {
                let changes = body["expr"].as_array().into_iter().flatten();
                let chain = text(&body["chain"]);
                table.marks.extend(changes.filter_map(|change| mark_change(change, &chain)));
            }
            _ => {}
        }
    }
    tables.into_values().collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// One name, or a list of them.
fn devices(value: &Value) -> Vec<IfName> {
    let one = value.as_str().into_iter();
    let several = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    one.chain(several).filter_map(|name| IfName::new(name).ok()).collect()
}

/// `meta mark set …` or `ct mark set …`, when it can change something.
fn mark_change(expression: &Value, chain: &str) -> Option<MarkChange> {
    let change = expression.get("mangle")?;
    let connection = match &change["key"] {
        key if key["meta"]["key"] == "mark" => false,
        key if key["ct"]["key"] == "mark" => true,
        _ => return None,
    };
    let bits = changed_bits(&change["value"], &change["key"]);
    (bits != 0).then(|| MarkChange { chain: chain.to_owned(), connection, bits })
}

/// Which bits of `key` may differ from `value`.
fn changed_bits(value: &Value, key: &Value) -> u32 {
    if value == key {
        return 0;
    }
    let operands = |name: &str| {
        let pair = value.get(name)?.as_array()?;
        let number = u32::try_from(pair.get(1)?.as_u64()?).ok()?;
        Some((changed_bits(pair.first()?, key), number))
    };
    if let Some((changed, number)) = operands("|").or_else(|| operands("^")) {
        return changed | number;
    }
    operands("&").map_or(u32::MAX, |(changed, number)| changed | !number)
}

/// Which settings of systemd-networkd, if it runs, let it remove what others made. `root` is `/`.
fn networkd(root: &Path) -> Vec<&'static str> {
    const SETTINGS: [&str; 2] = ["ManageForeignRoutingPolicyRules", "ManageForeignRoutes"];
    if !root.join("run/systemd/netif/state").exists() {
        return Vec::new();
    }
    let mut values: BTreeMap<&str, bool> = BTreeMap::new();
    for file in networkd_files(root) {
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
fn networkd_files(root: &Path) -> Vec<PathBuf> {
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

fn number(setting: &str) -> Option<u64> {
    let path = Path::new("/proc/sys").join(setting);
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn sessions() -> Option<(u64, u64)> {
    let sysctl = |name: &str| number(&format!("net/netfilter/nf_conntrack_{name}"));
    Some((sysctl("count")?, sysctl("max")?))
}

/// Of this thread's network namespace.
fn listening() -> Vec<(&'static str, SocketAddr)> {
    /// `TCP_LISTEN`, and `TCP_CLOSE`, which UDP sockets are in until they are connected.
    const KINDS: [(&str, &str); 2] = [("tcp", "0A"), ("udp", "07")];
    let mut all = Vec::new();
    for (protocol, state) in KINDS {
        for suffix in ["", "6"] {
            let file = format!("/proc/thread-self/net/{protocol}{suffix}");
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let sockets = text.lines().skip(1).filter_map(|line| socket(line, state));
            all.extend(sockets.map(|socket| (protocol, socket)));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// A line of `/proc/net/tcp` and its like: `0: 0100007F:0016 00000000:0000 0A …`
fn socket(line: &str, wanted: &str) -> Option<SocketAddr> {
    let mut words = line.split_whitespace();
    let (address, port) = words.nth(1)?.split_once(':')?;
    (words.nth(1)? == wanted).then_some(())?;
    let word = |index: usize| {
        let part = address.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(part, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        _ => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).into()
        }
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::fs;

    use serde_json::{Value, json};

    use super::{networkd, socket, tables};

    fn changed(connection: bool, value: &Value) -> Option<u32> {
        let key = match connection {
            true => json!({ "ct": { "key": "mark" } }),
            false => json!({ "meta": { "key": "mark" } }),
        };
        let rule = json!({ "rule": { "family": "ip", "table": "t", "chain": "c",
            "expr": [{ "mangle": { "key": key, "value": value } }] } });
        let listed = tables(&json!({ "nftables": [{ "metainfo": {} }, rule] }));
        let change = listed[0].marks.first()?;
        assert_eq!((change.connection, change.chain.as_str()), (connection, "c"));
        Some(change.bits)
    }

    #[test]
    fn a_rule_that_writes_a_mark_tells_which_bits() {
        let (packet, session) = (json!({"meta": {"key": "mark"}}), json!({"ct": {"key": "mark"}}));
        let all = Some(u32::MAX);
        let cases = [
            (false, json!(1), all),
            (false, json!({ "|": [packet, 0x4000] }), Some(0x4000)),
            (true, json!({ "|": [{ "&": [session, 0xffff_00ff_u32] }, 0x100] }), Some(0xff00)),
            (true, json!({ "^": [session, 0x80] }), Some(0x80)),
            (true, json!({ "&": [packet, 0xff] }), all),
            (false, session.clone(), all),
            (true, session.clone(), None),
        ];
        for (connection, value, bits) in cases {
            assert_eq!(changed(connection, &value), bits, "{value}");
        }
    }

    #[test]
    fn tables_but_ours_are_listed_with_what_closes_and_what_offloads() {
        let chain = |table: &str, name: &str, hook: &str, policy: &str| json!({ "chain": { "family": "ip", "table": table, "name": name, "hook": hook, "policy": policy } });
        let listed = tables(&json!({ "nftables": [
            { "table": { "family": "inet", "name": "homing" } },
            { "chain": { "family": "inet", "table": "homing", "name": "forward", "hook": "forward", "policy": "drop" } },
            chain("filter", "FORWARD", "forward", "drop"),
            chain("filter", "INPUT", "input", "drop"),
            { "flowtable": { "family": "ip", "table": "filter", "name": "f", "dev": ["eth0", "eth1"] } },
        ] }));
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].name, "ip filter");
        let closes: Vec<bool> = listed[0].chains.iter().map(|c| c.closes_forward).collect();
        assert_eq!(closes, [true, false]);
        assert_eq!(listed[0].offloaded.len(), 2);
    }

    #[test]
    fn networkd_is_asked_only_where_it_runs_and_the_last_part_counts() {
        let root = std::env::temp_dir().join(format!("homing-doctor-{}", std::process::id()));
        let parts = root.join("etc/systemd/networkd.conf.d");
        fs::create_dir_all(&parts).unwrap();
        let file = root.join("etc/systemd/networkd.conf");
        fs::write(&file, "[Network]\nManageForeignRoutes=no\n").unwrap();
        assert!(networkd(&root).is_empty());
        fs::create_dir_all(root.join("run/systemd/netif")).unwrap();
        fs::write(root.join("run/systemd/netif/state"), "").unwrap();
        assert_eq!(networkd(&root), ["ManageForeignRoutingPolicyRules"]);
        fs::write(parts.join("20-b.conf"), "ManageForeignRoutingPolicyRules = no\n").unwrap();
        fs::write(parts.join("10-a.conf"), "ManageForeignRoutingPolicyRules=yes\n").unwrap();
        let found = networkd(&root);
        fs::remove_dir_all(&root).unwrap();
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn sockets_are_read_with_address_port_and_state() {
        let line = "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000";
        assert_eq!(socket(line, "0A"), "127.0.0.1:22".parse().ok());
        assert_eq!(socket(line, "07"), None);
        let six =
            "   1: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 0A";
        assert_eq!(socket(six, "0A"), "[::]:53".parse().ok());
    }
}
