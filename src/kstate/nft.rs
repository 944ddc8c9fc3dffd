//! The nft table as a value.
//!
//! Structure (declarations of sets and chains, rules) is compared by [`Digest`]: every object we
//! create carries one in its comment, made from the text that created it. nft prints objects
//! differently from release to release; a digest reads back the same everywhere, without starting
//! `nft`. Elements are compared as the bytes that the kernel holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

use super::{Elements, Flowtable, Object};
use crate::model::IfName;

/// The table `inet homing`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NftTable {
    /// Sets and maps, by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains, by name.
    pub chains: BTreeMap<String, Chain>,
    /// Objects that rules name.
    pub objects: BTreeSet<Object>,
    /// Flowtables, by name.
    pub flowtables: BTreeMap<String, Flowtable>,
}

/// A set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// `type …; flags …; …`, what stands between the braces, without elements.
    pub declaration: Declared,
    /// What its elements mean to us.
    pub role: Role,
    /// The types of key and data; equal declarations have equal shapes. Empty when observed.
    pub shape: SetShape,
    /// The elements; of a learned set: none.
    pub elements: Elements,
}

/// Whose the elements of a set are. A name starting with `bind` is learned; this is never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Follows from profile, addresses and links: a difference is drift.
    Fixed,
    /// Follows from health: set by steering; a difference is no drift.
    Steering,
    /// Learned by the kernel: never compared, never recreated while its declaration stays.
    Learned,
}

/// A key or a value, as the kernel holds it. Of those that there are many of hardly any is longer.
pub type Bytes = SmallVec<[u8; 16]>;

/// What a key leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ElementData {
    /// An element of a set.
    Nothing,
    /// A value, as the kernel holds it.
    Value(Bytes),
    /// A verdict.
    Verdict(Verdict),
}

/// A verdict in a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// `accept`
    Accept,
    /// `drop`
    Drop,
    /// `goto CHAIN`
    Goto(String),
    /// `jump CHAIN`
    Jump(String),
    /// Any other, by the kernel's number.
    Other(i32),
}

/// The types of a set's key and data, needed to write elements as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetShape {
    /// The parts of the key.
    pub key: Vec<FieldType>,
    /// What it maps to.
    pub data: SetData,
}

/// What a set maps its keys to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SetData {
    /// It is no map.
    #[default]
    Nothing,
    /// A value of these parts.
    Value(Vec<FieldType>),
    /// A verdict.
    Verdict,
}

/// One part of a key or a value. In a concatenation each part is padded to four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// `ifname`, 16 bytes
    IfName,
    /// The device of a route (`fib … oifname`), 16 bytes
    RouteDevice,
    /// `mark`, 4 bytes in host order
    Mark,
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// `inet_service`, 2 bytes in network order
    Port,
    /// `inet_proto`, 1 byte
    Protocol,
    /// A slot number (`numgen`, `jhash`), 4 bytes in host order
    Slot,
    /// What `jhash` makes of a part too long for nft to write, 4 bytes in host order
    Hash,
    /// An integer of 2 bytes in network order (`tcp option maxseg size`)
    Size,
}

/// A chain: its declaration (hook, priority, policy; empty text for a regular chain) and rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// `type … hook … priority …; policy …;`
    pub declaration: Declared,
    /// In order.
    pub rules: Vec<Declared>,
}

/// A piece of structure: the text that makes it, where it comes from, and the digest of the text.
///
/// Equal when the digests are: an observed value has no text.
#[derive(Debug, Clone, Eq)]
pub struct Declared {
    /// The nft language, without the comment. Empty when observed.
    pub text: String,
    /// The profile key it comes from, shown in the comment. Empty when there is none.
    pub origin: String,
    /// Identifies the text.
    pub digest: Digest,
}

/// 32 bits of a hash over an object's text. 0 stands for "not made by us".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u32);

impl Digest {
    /// An object without a digest of ours.
    pub const FOREIGN: Digest = Digest(0);

    /// FNV-1a over the text; never [`Digest::FOREIGN`].
    pub fn of(text: &str) -> Digest {
        let fnv = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        Digest(text.bytes().fold(0x811c_9dc5, fnv).max(1))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:08x}", self.0)
    }
}

impl PartialEq for Declared {
    fn eq(&self, other: &Declared) -> bool {
        self.digest == other.digest
    }
}

impl Declared {
    /// A piece of desired structure.
    pub fn new(text: impl Into<String>, origin: impl Into<String>) -> Declared {
        let text = text.into();
        Declared { digest: Digest::of(&text), text, origin: origin.into() }
    }

    /// A piece of observed structure, from its comment (`ORIGIN #DIGEST`).
    pub fn from_comment(comment: Option<&str>) -> Declared {
        let parse = |comment: &str| {
            let (origin, digest) = comment.rsplit_once('#')?;
            let digest = u32::from_str_radix(digest, 16).ok()?;
            Some((origin.trim_end().to_owned(), Digest(digest)))
        };
        let (origin, digest) = comment.and_then(parse).unwrap_or((String::new(), Digest::FOREIGN));
        Declared { text: String::new(), origin, digest }
    }

    /// The comment that carries the digest, at most 128 bytes (nft's limit).
    pub fn comment(&self) -> String {
        let origin: String =
            self.origin.chars().filter(|c| c.is_ascii_graphic()).take(100).collect();
        let space = if origin.is_empty() { "" } else { " " };
        format!("{origin}{space}{}", self.digest)
    }
}

/// Puts parts together as the kernel does: each padded to four bytes if there are several.
pub fn concatenate(parts: &[Bytes]) -> Bytes {
    let mut bytes = Bytes::new();
    for part in parts {
        bytes.extend_from_slice(part);
        if parts.len() > 1 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

impl SetShape {
    /// The part of a declaration that says the types, such as `type ifname : verdict;`.
    ///
    /// Types that have no name of their own are given by an expression of that type.
    pub fn declaration(&self) -> String {
        let unnamed = |field: &FieldType| {
            use FieldType::{Hash, RouteDevice, Size, Slot};
            matches!(field, Slot | Hash | Size | RouteDevice)
        };
        let data: &[FieldType] = match &self.data {
            SetData::Value(fields) => fields,
            SetData::Nothing | SetData::Verdict => &[],
        };
        let by_expression = self.key.iter().chain(data).any(unnamed);
        let name = |field: &FieldType| {
            if by_expression { field.expression() } else { field.name() }
        };
        let join = |fields: &[FieldType]| fields.iter().map(name).collect::<Vec<_>>().join(" . ");
        let keyword = if by_expression { "typeof" } else { "type" };
        let key = join(&self.key);
        match &self.data {
            SetData::Nothing => format!("{keyword} {key};"),
            SetData::Verdict => format!("{keyword} {key} : verdict;"),
            SetData::Value(fields) => format!("{keyword} {key} : {};", join(fields)),
        }
    }
}

impl FieldType {
    fn name(&self) -> &'static str {
        match self {
            FieldType::IfName => "ifname",
            FieldType::Mark => "mark",
            FieldType::Ipv4 => "ipv4_addr",
            FieldType::Ipv6 => "ipv6_addr",
            FieldType::Port => "inet_service",
            FieldType::Protocol => "inet_proto",
            FieldType::Slot | FieldType::Hash | FieldType::Size => "integer",
            FieldType::RouteDevice => "string",
        }
    }

    fn expression(&self) -> &'static str {
        match self {
            FieldType::IfName => "oifname",
            FieldType::RouteDevice => "fib daddr . mark oifname",
            FieldType::Mark => "meta mark",
            FieldType::Ipv4 => "ip daddr",
            FieldType::Ipv6 => "ip6 daddr",
            FieldType::Port => "th dport",
            FieldType::Protocol => "meta l4proto",
            FieldType::Slot => "numgen inc mod 256",
            // A type is given by jhash nowhere: nft 1.0.6 crashes listing it.
            FieldType::Hash => "numgen inc mod 4294967295",
            FieldType::Size => "tcp option maxseg size",
        }
    }

    /// Length in bytes, without padding.
    pub fn width(self) -> usize {
        match self {
            FieldType::IfName | FieldType::RouteDevice | FieldType::Ipv6 => 16,
            FieldType::Mark | FieldType::Ipv4 | FieldType::Slot | FieldType::Hash => 4,
            FieldType::Port | FieldType::Size => 2,
            FieldType::Protocol => 1,
        }
    }

    /// Writes one part as nft does.
    fn text(self, bytes: &[u8]) -> String {
        let number = || {
            let mut padded = [0; 4];
            let len = bytes.len().min(4);
            padded[..len].copy_from_slice(&bytes[..len]);
            padded
        };
        match self {
            FieldType::IfName | FieldType::RouteDevice => {
                let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
                format!("\"{}\"", String::from_utf8_lossy(&bytes[..end]))
            }
            FieldType::Mark => format!("{:#x}", u32::from_ne_bytes(number())),
            FieldType::Slot => u32::from_ne_bytes(number()).to_string(),
            FieldType::Hash => format!("{:#010x}", u32::from_ne_bytes(number())),
            FieldType::Ipv4 => Ipv4Addr::from(number()).to_string(),
            FieldType::Ipv6 => {
                let octets: [u8; 16] = bytes.try_into().unwrap_or([0; 16]);
                Ipv6Addr::from(octets).to_string()
            }
            FieldType::Port | FieldType::Size => {
                u16::from_be_bytes([number()[0], number()[1]]).to_string()
            }
            FieldType::Protocol => number()[0].to_string(),
        }
    }
}

/// Writes a key or a value as nft does: parts joined by ` . `.
pub fn render_fields(fields: &[FieldType], bytes: &[u8]) -> String {
    let mut rest = bytes;
    let mut texts = Vec::new();
    for field in fields {
        let len = field.width().min(rest.len());
        texts.push(field.text(&rest[..len]));
        let padded = if fields.len() > 1 { len.next_multiple_of(4) } else { len };
        rest = &rest[padded.min(rest.len())..];
    }
    texts.join(" . ")
}

/// An interface name as a key.
pub fn ifname_bytes(name: &IfName) -> Bytes {
    let mut bytes = Bytes::from_slice(name.as_str().as_bytes());
    bytes.resize(16, 0);
    bytes
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Other(code) => write!(f, "verdict {code}"),
        }
    }
}

impl SetShape {
    /// One element as nft writes it: `KEY` or `KEY : DATA`.
    pub fn render(&self, key: &[u8], data: &ElementData) -> String {
        let key = render_fields(&self.key, key);
        match (data, &self.data) {
            (ElementData::Value(bytes), SetData::Value(fields)) => {
                format!("{key} : {}", render_fields(fields, bytes))
            }
            (ElementData::Verdict(verdict), _) => format!("{key} : {verdict}"),
            _ => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Declared, Digest, ElementData, FieldType, SetData, SetShape, concatenate};
    use crate::kstate::nft::{Verdict, ifname_bytes};
    use crate::model::IfName;

    #[test]
    fn a_comment_carries_the_digest_there_and_back() {
        let desired = Declared::new("ct state invalid drop", "firewall");
        let observed = Declared::from_comment(Some(&desired.comment()));
        assert_eq!(observed, desired);
        assert_eq!(observed.origin, "firewall");
        assert_eq!(Declared::from_comment(None).digest, Digest::FOREIGN);
        assert_ne!(Declared::from_comment(Some("somebody's rule")), desired);
    }

    #[test]
    fn elements_are_written_as_nft_writes_them() {
        let Ok(wan0) = IfName::new("wan0") else { panic!("a good name") };
        let shape =
            SetShape { key: vec![FieldType::IfName, FieldType::Ipv4], data: SetData::Verdict };
        let key = concatenate(&[ifname_bytes(&wan0), Bytes::from_slice(&[192, 0, 2, 1])]);
        let data = ElementData::Verdict(Verdict::Goto("uplink-1".into()));
        assert_eq!(shape.render(&key, &data), "\"wan0\" . 192.0.2.1 : goto uplink-1");
        let shape =
            SetShape { key: vec![FieldType::Slot], data: SetData::Value(vec![FieldType::Mark]) };
        let data = ElementData::Value(Bytes::from_slice(&0x100_u32.to_ne_bytes()));
        assert_eq!(shape.render(&7_u32.to_ne_bytes(), &data), "7 : 0x100");
    }
}
