//! The tables of others, as `nft -j list ruleset` prints them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::super::nft_write::find_nft;
use crate::kstate::{ForeignChain, ForeignTable, MarkChange, TABLE_NAME};
use crate::model::IfName;

/// Longer than `nft` takes for the greatest rule set.
const PATIENCE: Duration = Duration::from_secs(15);

/// Every table but ours. Without elements: sets of others may hold a million.
pub(super) fn list() -> Result<Vec<ForeignTable>, String> {
    let nft = find_nft().ok_or("nft is not installed")?;
    let listing = run(&nft).map_err(|error| format!("nft cannot be run: {error}"))??;
    let listing = serde_json::from_slice(&listing);
    listing.map(|listing| tables(&listing)).map_err(|error| format!("nft's listing: {error}"))
}

fn run(nft: &Path) -> std::io::Result<Result<Vec<u8>, String>> {
    let mut child = Command::new(nft)
        .args(["-j", "-t", "list", "ruleset"])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (sender, receiver) = mpsc::channel();
    let outputs = child.stdout.take().zip(child.stderr.take());
    std::thread::spawn(move || {
        let (mut printed, mut said) = (Vec::new(), String::new());
        if let Some((mut stdout, mut stderr)) = outputs {
            let _ = stdout.read_to_end(&mut printed);
            let _ = stderr.read_to_string(&mut said);
        }
        let _ = sender.send((printed, said));
    });
    let Ok((printed, said)) = receiver.recv_timeout(PATIENCE) else {
        child.kill()?;
        child.wait()?;
        return Ok(Err(format!("nft did not end within {} s", PATIENCE.as_secs())));
    };
    let status = child.wait()?;
    Ok(match status.success() {
        true => Ok(printed),
        false => Err(format!("nft ended with {status}: {}", said.lines().next().unwrap_or("-"))),
    })
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
            "chain" => {
                let closes = body["hook"] == "forward" && body["policy"] == "drop";
                chain(table, &text(&body["name"])).closes_forward = closes;
            }
            "flowtable" => table.offloaded.extend(devices(&body["dev"])),
            "rule" => add_rule(table, &text(&body["chain"]), &body["expr"]),
            _ => {}
        }
    }
    tables.into_values().collect()
}

fn chain<'a>(table: &'a mut ForeignTable, name: &str) -> &'a mut ForeignChain {
    let known = table.chains.iter().position(|chain| chain.name == name);
    let index = known.unwrap_or_else(|| {
        table.chains.push(ForeignChain { name: name.to_owned(), ..ForeignChain::default() });
        table.chains.len() - 1
    });
    &mut table.chains[index]
}

fn add_rule(table: &mut ForeignTable, name: &str, expressions: &Value) {
    let expressions = expressions.as_array().map(Vec::as_slice).unwrap_or_default();
    let accepts = expressions.iter().any(|expression| expression.get("accept").is_some());
    chain(table, name).accepts |= accepts;
    table.marks.extend(expressions.iter().filter_map(|change| mark_change(change, name)));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use serde_json::{Value, json};

    use super::tables;

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
    fn what_remedies_a_closed_chain_is_seen() {
        let chain =
            json!({ "chain": { "family": "ip", "table": "filter", "name": "DOCKER-USER" } });
        let rule = |verdict: &str| json!({ "rule": { "family": "ip", "table": "filter", "chain": "DOCKER-USER", "expr": [{ verdict: null }] } });
        for (verdict, accepts) in [("accept", true), ("return", false)] {
            let listed = tables(&json!({ "nftables": [chain, rule(verdict)] }));
            assert_eq!(listed[0].chains.len(), 1);
            assert_eq!(listed[0].chains[0].accepts, accepts, "{verdict}");
        }
    }
}
