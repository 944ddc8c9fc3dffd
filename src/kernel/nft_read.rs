//! Reading nftables over netlink: no process is started, and nothing of ours is parsed from text.
//!
//! Structure is recognised by the digest in its comment; nft keeps comments in `USERDATA`, a list
//! of (type, length, value) whose types are libnftnl's.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use super::KernelError;
use super::nfnl::{FAMILY_INET, HEADER_LEN, attr, kind, nft_message};
use super::nft_element::{DumpedElement, decode_list, encode};
use super::socket::{Channel, NetlinkError};
use super::wire::{Message, attribute, attributes, text, u32_be};
use crate::kstate::{
    Chain, Declared, Elements, Flowtable, NftTable, Object, Role, Set, SetShape, TABLE_NAME,
};
use crate::model::IfName;

/// `NFTNL_UDATA_CHAIN_COMMENT`, `NFTNL_UDATA_RULE_COMMENT`
const COMMENT: u8 = 0;
/// `NFTNL_UDATA_SET_COMMENT`
const SET_COMMENT: u8 = 7;
/// `NFT_SET_ANONYMOUS`: part of a rule.
const SET_ANONYMOUS: u32 = 1;
/// `NFT_SET_INTERVAL`: its elements cannot be told as keys.
const SET_INTERVAL: u32 = 4;
/// `NFT_CHAIN_BINDING`: part of a rule.
const CHAIN_BINDING: u32 = 4;
/// `NFT_FLOWTABLE_HW_OFFLOAD`
const FLOWTABLE_HARDWARE: u32 = 1;
/// `NFT_FLOWTABLE_COUNTER`
const FLOWTABLE_COUNTER: u32 = 2;
/// How often reading is begun anew when a transaction comes between.
const ATTEMPTS: usize = 10;
/// A table with more sets than this is read by two sockets at once, which takes little more than half the time.
const MANY_SETS: usize = 64;

/// What was read in one generation of the rule set.
#[derive(Debug, Default)]
pub(super) struct NftView {
    /// Our table.
    pub(super) ours: Option<NftTable>,
    /// The names of all others.
    pub(super) foreign_tables: BTreeSet<String>,
    /// The generation.
    pub(super) generation: u32,
}

/// Reads the whole of it, in one generation.
pub(super) fn read(channel: &mut Channel) -> Result<NftView, KernelError> {
    for _ in 0..ATTEMPTS {
        let generation = generation(channel)?;
        let mut view = tables(channel)?;
        if view.ours.is_some() {
            view.ours = Some(table(channel)?);
        }
        view.generation = generation;
        if self::generation(channel)? == generation {
            return Ok(view);
        }
    }
    Err(KernelError::ReadNft { what: "rule set".into(), source: NetlinkError::Interrupted })
}

fn failed(what: impl Into<String>) -> impl FnOnce(NetlinkError) -> KernelError {
    let what = what.into();
    |source| KernelError::ReadNft { what, source }
}

/// The number of the last transaction.
pub(super) fn generation(channel: &mut Channel) -> Result<u32, KernelError> {
    channel
        .get(nft_message(kind::GET_GENERATION, 0), |r| decode_generation(r.body))
        .map(Option::unwrap_or_default)
        .map_err(failed("generation"))
}

fn decode_generation(body: &[u8]) -> Option<u32> {
    attribute(body.get(HEADER_LEN..)?, attr::GENERATION_ID).and_then(u32_be)
}

fn tables(channel: &mut Channel) -> Result<NftView, KernelError> {
    let request = nft_message(kind::GET_TABLE, 0);
    let tables = channel.dump(&request, decode_table).map_err(failed("tables"))?;
    let mut view = NftView::default();
    for (family, name) in tables {
        if family == FAMILY_INET && name == TABLE_NAME {
            view.ours = Some(NftTable::default());
        } else {
            view.foreign_tables.insert(format!("{} {name}", family_name(family)));
        }
    }
    Ok(view)
}

/// Family and name.
fn decode_table(body: &[u8]) -> Option<(u8, String)> {
    let name = attribute(body.get(HEADER_LEN..)?, attr::TABLE_NAME).map(text)?;
    Some((*body.first()?, name))
}

/// `NFPROTO_*`, as nft writes them.
fn family_name(family: u8) -> &'static str {
    match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

fn table(channel: &mut Channel) -> Result<NftTable, KernelError> {
    let headers = sets(channel)?;
    let (chains, sets) = match headers.len() > MANY_SETS {
        true => {
            let mut other = Channel::open(NETLINK_NETFILTER).map_err(failed("rule set"))?;
            std::thread::scope(|scope| {
                let read = || chains_with_rules(&mut other);
                let chains = std::thread::Builder::new().spawn_scoped(scope, read);
                let sets = filled(channel, headers);
                let chains = match chains {
                    Ok(chains) => chains.join().unwrap_or_else(|panic| resume_unwind(panic)),
                    // No thread to be had.
                    Err(_) => chains_with_rules(channel),
                };
                (chains, sets)
            })
        }
        false => (chains_with_rules(channel), filled(channel, headers)),
    };
    Ok(NftTable {
        chains: chains?,
        sets: sets?,
        objects: objects(channel)?,
        flowtables: flowtables(channel)?,
    })
}

fn chains_with_rules(channel: &mut Channel) -> Result<BTreeMap<String, Chain>, KernelError> {
    let mut chains = chains(channel)?;
    for (chain, rule) in rules(channel)? {
        if let Some(chain) = chains.get_mut(&chain) {
            chain.rules.push(rule);
        }
    }
    Ok(chains)
}

/// The sets with their elements.
fn filled(
    channel: &mut Channel,
    headers: Vec<SetHeader>,
) -> Result<BTreeMap<String, Set>, KernelError> {
    let mut sets = BTreeMap::new();
    for (name, flags, count, declaration) in headers {
        let role = role(&name);
        let readable = role != Role::Learned && flags & SET_INTERVAL == 0;
        let elements = match readable {
            true => elements(channel, &name, count)?,
            false => Elements::new(),
        };
        let shape = SetShape::default();
        sets.insert(name, Set { declaration, role, shape, elements });
    }
    Ok(sets)
}

/// What a set's elements are to us follows from its name.
fn role(name: &str) -> Role {
    let starts = |prefix: &&str| name.starts_with(*prefix);
    if ["bind", "live", "detour"].iter().any(starts) {
        Role::Learned
    } else if ["slots", "keepable", "choosable"].iter().any(starts) {
        Role::Steering
    } else {
        Role::Fixed
    }
}

fn of_our_table(kind: u16, table: u16) -> Message {
    let mut message = nft_message(kind, FAMILY_INET);
    message.attribute_text(table, TABLE_NAME);
    message
}

fn chains(channel: &mut Channel) -> Result<BTreeMap<String, Chain>, KernelError> {
    let request = of_our_table(kind::GET_CHAIN, attr::CHAIN_TABLE);
    let chains = channel.dump(&request, decode_chain).map_err(failed("chains"))?;
    Ok(chains.into_iter().collect())
}

fn decode_chain(body: &[u8]) -> Option<(String, Chain)> {
    let body = ours(body, attr::CHAIN_TABLE)?;
    let flags = attribute(body, attr::CHAIN_FLAGS).and_then(u32_be);
    let name = attribute(body, attr::CHAIN_NAME).map(text)?;
    let userdata = attribute(body, attr::CHAIN_USERDATA);
    let chain = Chain { declaration: declared(userdata, COMMENT), rules: Vec::new() };
    (flags.unwrap_or(0) & CHAIN_BINDING == 0).then_some((name, chain))
}

fn rules(channel: &mut Channel) -> Result<Vec<(String, Declared)>, KernelError> {
    let request = of_our_table(kind::GET_RULE, attr::RULE_TABLE);
    channel.dump(&request, decode_rule).map_err(failed("rules"))
}

/// Its chain, and what it was made from.
fn decode_rule(body: &[u8]) -> Option<(String, Declared)> {
    let body = ours(body, attr::RULE_TABLE)?;
    let chain = attribute(body, attr::RULE_CHAIN).map(text)?;
    Some((chain, declared(attribute(body, attr::RULE_USERDATA), COMMENT)))
}

/// Name, flags, number of elements (since Linux 6.16), declaration.
type SetHeader = (String, u32, Option<u32>, Declared);

fn sets(channel: &mut Channel) -> Result<Vec<SetHeader>, KernelError> {
    let request = of_our_table(kind::GET_SET, attr::SET_TABLE);
    channel.dump(&request, decode_set).map_err(failed("sets"))
}

fn decode_set(body: &[u8]) -> Option<SetHeader> {
    let body = ours(body, attr::SET_TABLE)?;
    let number = |wanted| attribute(body, wanted).and_then(u32_be);
    let flags = number(attr::SET_FLAGS).unwrap_or(0);
    let name = attribute(body, attr::SET_NAME).map(text)?;
    let declaration = declared(attribute(body, attr::SET_USERDATA), SET_COMMENT);
    let header = (name, flags, number(attr::SET_COUNT), declaration);
    (flags & SET_ANONYMOUS == 0).then_some(header)
}

fn objects(channel: &mut Channel) -> Result<BTreeSet<Object>, KernelError> {
    let request = of_our_table(kind::GET_OBJECT, attr::OBJECT_TABLE);
    let objects = channel.dump(&request, decode_object).map_err(failed("objects"))?;
    Ok(objects.into_iter().collect())
}

fn decode_object(body: &[u8]) -> Option<Object> {
    let body = ours(body, attr::OBJECT_TABLE)?;
    Object::named(&attribute(body, attr::OBJECT_NAME).map(text)?)
}

/// The flowtables of our table.
pub(super) fn flowtables(
    channel: &mut Channel,
) -> Result<BTreeMap<String, Flowtable>, KernelError> {
    let request = of_our_table(kind::GET_FLOWTABLE, attr::FLOWTABLE_TABLE);
    let found = channel.dump(&request, decode_flowtable).map_err(failed("flowtables"))?;
    Ok(found.into_iter().collect())
}

fn decode_flowtable(body: &[u8]) -> Option<(String, Flowtable)> {
    let body = ours(body, attr::FLOWTABLE_TABLE)?;
    let flags = attribute(body, attr::FLOWTABLE_FLAGS).and_then(u32_be).unwrap_or(0);
    let devices = attribute(attribute(body, attr::FLOWTABLE_HOOK)?, attr::HOOK_DEVICES)?;
    let device = |(kind, value): (u16, &[u8])| {
        (kind == attr::DEVICE_NAME).then(|| IfName::new(&text(value)).ok()).flatten()
    };
    let devices = attributes(devices).filter_map(device).collect();
    let name = attribute(body, attr::FLOWTABLE_NAME).map(text)?;
    Some((
        name,
        Flowtable {
            devices,
            hardware: flags & FLOWTABLE_HARDWARE != 0,
            counts: flags & FLOWTABLE_COUNTER != 0,
        },
    ))
}

/// Takes a message for each kind of object in turn: whatever the bytes, it comes back.
pub(super) fn decode_any(body: &[u8]) {
    let _ = (decode_generation(body), decode_table(body), decode_chain(body));
    let _ = (decode_rule(body), decode_set(body), decode_object(body), decode_flowtable(body));
    let _ = body.get(HEADER_LEN..).map(decode_list);
}

/// All elements of one set.
///
/// A set without a declared `size` is a hash table that grows in the background, and a dump that
/// takes several datagrams misses some of it then. So dumps are put together until there are as
/// many as the kernel says, or, where it does not say, until one brings nothing new. That they
/// are all of one generation is for the caller to see.
pub(super) fn elements(
    channel: &mut Channel,
    set: &str,
    count: Option<u32>,
) -> Result<Elements, KernelError> {
    let mut all = Elements::new();
    for attempt in 0..ATTEMPTS {
        let before = all.len();
        let dumped = dump_elements(channel, set)?;
        all.extend(dumped.into_iter().map(|e| (e.key, e.data)));
        let complete = match count {
            Some(count) => all.len() >= count as usize,
            None => attempt > 0 && all.len() == before,
        };
        if complete {
            break;
        }
    }
    Ok(all)
}

/// One element of a set of ours. A binding whose time is over is none.
pub(super) fn get_element(
    channel: &mut Channel,
    set: &str,
    key: &[u8],
) -> Result<Option<DumpedElement>, KernelError> {
    let mut request = of_our_table(kind::GET_ELEMENTS, attr::LIST_TABLE);
    request.attribute_text(attr::LIST_SET, set);
    request.nest(attr::LIST_ELEMENTS, |m| encode(m, key, None));
    let found = channel.get(request, |r| decode_list(r.body.get(HEADER_LEN..)?).pop());
    match found {
        Err(error) if error.is(&[Errno::ENOENT]) => Ok(None),
        other => other.map_err(failed(format!("element of {set}"))),
    }
}

/// The elements of one set of ours.
pub(super) fn dump_elements(
    channel: &mut Channel,
    set: &str,
) -> Result<Vec<DumpedElement>, KernelError> {
    let mut request = of_our_table(kind::GET_ELEMENTS, attr::LIST_TABLE);
    request.attribute_text(attr::LIST_SET, set);
    let lists = channel
        .dump(&request, |body| Some(decode_list(body.get(HEADER_LEN..)?)))
        .map_err(failed(format!("elements of {set}")))?;
    Ok(lists.into_iter().flatten().collect())
}

/// The attributes of an object in our table (some kernels ignore the filter of a dump).
fn ours(body: &[u8], table: u16) -> Option<&[u8]> {
    let attributes = body.get(HEADER_LEN..)?;
    let ours = attribute(attributes, table).map(text)? == TABLE_NAME;
    (ours && body.first() == Some(&FAMILY_INET)).then_some(attributes)
}

fn declared(userdata: Option<&[u8]>, wanted: u8) -> Declared {
    let comment = userdata.and_then(|bytes| comment(bytes, wanted));
    Declared::from_comment(comment.as_deref())
}

fn comment(userdata: &[u8], wanted: u8) -> Option<String> {
    let mut rest = userdata;
    loop {
        let [kind, len, tail @ ..] = rest else {
            return None;
        };
        let value = tail.get(..usize::from(*len))?;
        if *kind == wanted {
            return Some(text(value));
        }
        rest = &tail[value.len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::{
        COMMENT, FAMILY_INET, Flowtable, IfName, Message, SET_COMMENT, attr, comment,
        decode_flowtable,
    };

    #[test]
    fn a_flowtable_is_its_devices_and_flags() {
        let mut message = Message::new(0, 0);
        message.raw(&[FAMILY_INET, 0, 0, 0]);
        message.attribute_text(attr::FLOWTABLE_TABLE, "homing");
        message.attribute_text(attr::FLOWTABLE_NAME, "fast");
        message.nest(attr::FLOWTABLE_HOOK, |m| {
            m.nest(attr::HOOK_DEVICES, |m| {
                m.attribute_text(attr::DEVICE_NAME, "wan0");
                m.attribute_text(attr::DEVICE_NAME, "lan0");
            });
        });
        message.attribute_be32(attr::FLOWTABLE_FLAGS, 2);
        let bytes = message.finish(1);
        let devices = ["lan0", "wan0"].into_iter().filter_map(|name| IfName::new(name).ok());
        let flowtable = Flowtable { devices: devices.collect(), hardware: false, counts: true };
        assert_eq!(decode_flowtable(&bytes[16..]), Some(("fast".to_owned(), flowtable)));
    }

    #[test]
    fn a_comment_is_found_among_other_userdata() {
        let rule = b"\x00\x0cr #00000006\x00";
        assert_eq!(comment(rule, COMMENT).as_deref(), Some("r #00000006"));
        let set = b"\x00\x04\x02\x00\x00\x00\x07\x03ab\x00";
        assert_eq!(comment(set, SET_COMMENT).as_deref(), Some("ab"));
        assert_eq!(comment(set, 9), None);
        assert_eq!(comment(b"\x00\x09a", COMMENT), None, "torn");
    }
}
