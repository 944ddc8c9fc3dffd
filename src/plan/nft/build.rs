//! Putting a table together.

use std::fmt::Display;
use std::net::IpAddr;

use crate::kstate::{
    Bytes, Chain, Declared, ElementData, Elements, FieldType, Flowtable, NftTable, Object, Role,
    Set, SetData, SetShape,
};
use crate::model::{
    Family, GroupId, Name, PersistenceMode, PolicyId, PortRange, ServerId, UplinkId, Virtual,
};
use crate::plan::inbound::Place;

/// Names of chains, sets and maps. All are plain words with a number or a user's name behind.
pub mod names {
    use super::{
        Display, Family, GroupId, IpAddr, Name, PersistenceMode, Place, PolicyId, PortRange,
        ServerId, UplinkId, Virtual,
    };

    /// Devices of the uplinks.
    pub const UPLINKS: &str = "uplinks";
    /// Device → pin a session that came in by it, or left by it unasked.
    pub const ENTRY: &str = "entry";
    /// Device of a specific route → pin the session to that uplink.
    pub const ROUTED: &str = "routed";
    /// Policy and uplink → put the uplink's mark on the packet. Counts new sessions.
    pub const TAKE: &str = "take";
    /// Uplink → put its mark on a packet that carries another owner's bits.
    pub const RESTORE: &str = "restore";

    /// Policy → give the session its other owner's bits back.
    pub const CARRIED: &str = "carried";

    /// Gives a session of the policy its other owner's bits back.
    pub fn carried(id: PolicyId, name: &Name) -> String {
        format!("carried-{id}-{name}")
    }

    /// Device → see whether the session may go past the rules from now on.
    pub const FAST: &str = "fast-ways";

    /// Lets a session of this uplink, and no other's, into the flowtable.
    pub fn fast(id: UplinkId, name: &Name) -> String {
        format!("fast-{id}-{name}")
    }

    /// Puts the uplink's mark on the packet.
    pub fn uplink(id: UplinkId, name: &Name) -> String {
        format!("uplink-{id}-{name}")
    }

    /// Pins the session to the uplink, then marks the packet.
    pub fn pin(id: UplinkId, name: &Name) -> String {
        format!("pin-{id}-{name}")
    }

    /// Pins the session to the uplink, the packet goes on as it is.
    pub fn entry(id: UplinkId, name: &Name) -> String {
        format!("entry-{id}-{name}")
    }

    /// A policy's own chain.
    pub fn policy(family: Family, id: PolicyId, name: &Name) -> String {
        format!("policy{}-{id}-{name}", family.digit())
    }

    /// What a policy has learned: key → uplink mark.
    pub fn bindings(family: Family, name: &Name) -> String {
        format!("bind{}-{name}", family.digit())
    }

    /// Uplinks that keep their bindings.
    pub fn keepable(family: Family) -> String {
        format!("keepable{}", family.digit())
    }

    /// Slot → uplink mark, shared by policies that choose alike.
    pub fn slots(family: Family, digest: impl Display) -> String {
        format!("slots{}-{digest}", family.digit())
    }

    /// The router's own UDP from an uplink's address that leaves by another: flow → mark.
    pub fn detour(family: Family) -> String {
        format!("detour{}", family.digit())
    }

    /// Device → its source address.
    pub fn snat(family: Family) -> String {
        format!("snat{}", family.digit())
    }

    /// Device and address: sources that need no translation.
    pub fn own(family: Family) -> String {
        format!("own{}", family.digit())
    }

    /// Server → put its number into the connection mark.
    pub const SERVING: &str = "serving";
    /// Puts the number of the server that stands in the packet mark into the connection mark.
    pub const SERVER: &str = "server";
    /// Translates sessions whose client and server are in one LAN.
    pub const HAIRPIN: &str = "hairpin";
    /// Every connection that could not be served.
    pub const REFUSE: &str = "refuse";

    /// Address, protocol and port → the service's chain.
    pub fn services(family: Family) -> String {
        format!("services{}", family.digit())
    }

    /// Address and protocol → a chain: ranges of ports, and ESP.
    pub fn protocols(family: Family) -> String {
        format!("protocols{}", family.digit())
    }

    /// Address → the chain of the service that takes every protocol.
    pub fn virtuals(family: Family) -> String {
        format!("virtuals{}", family.digit())
    }

    /// Slot → server, of the groups of this part.
    pub fn server_slots(family: Family, part: u32) -> String {
        format!("slots{}-servers-{part}", family.digit())
    }

    /// Server keys that keep their bindings.
    pub fn keepable_servers(family: Family) -> String {
        format!("keepable{}-servers", family.digit())
    }

    /// Server keys that take new sessions, of groups with limits.
    pub fn choosable_servers(family: Family) -> String {
        format!("choosable{}-servers", family.digit())
    }

    /// Server key → address and port, of servers with a port of their own.
    pub fn targets(family: Family, part: u32) -> String {
        format!("targets{}-{part}", family.digit())
    }

    /// Server key → address. Counts new sessions.
    pub fn hosts(family: Family, part: u32) -> String {
        format!("hosts{}-{part}", family.digit())
    }

    /// Server key → let it in, if the server has room; of groups with limits.
    pub fn admit(family: Family, part: u32) -> String {
        format!("admit{}-{part}", family.digit())
    }

    /// Picks a server of the group.
    pub fn group(family: Family, id: GroupId, name: &Name) -> String {
        format!("group{}-{id}-{name}", family.digit())
    }

    /// Sends a session to the server that was picked.
    pub fn serve(family: Family, id: GroupId, name: &Name) -> String {
        format!("serve{}-{id}-{name}", family.digit())
    }

    /// Looks for another server when the one that was picked is full.
    pub fn spill(family: Family, id: GroupId, name: &Name) -> String {
        format!("spill{}-{id}-{name}", family.digit())
    }

    /// Lets a session in if the server has room.
    pub fn limit(family: Family, id: GroupId, server: ServerId) -> String {
        format!("limit{}-{id}-{server}", family.digit())
    }

    /// The live connections of a server that has a limit.
    pub fn live(family: Family, id: GroupId, server: ServerId) -> String {
        format!("live{}-{id}-{server}", family.digit())
    }

    /// Puts a server's number into the connection mark.
    pub fn server(id: ServerId) -> String {
        format!("server-{id}")
    }

    /// A service's own chain.
    pub fn service(
        family: Family,
        name: &Name,
        at: Option<Place<'_>>,
        ports: Option<PortRange>,
    ) -> String {
        format!("service{}-{name}{}", family.digit(), place(at, ports))
    }

    /// ESP of a service.
    pub fn esp(family: Family, name: &Name, at: Option<Place<'_>>) -> String {
        format!("esp{}-{name}{}", family.digit(), place(at, None))
    }

    /// What a service (`ssl`) or group (`sticky`, `vpn`) has learned: client → server.
    pub fn bound(
        family: Family,
        mode: PersistenceMode,
        owner: &Name,
        at: Place<'_>,
        ports: Option<PortRange>,
    ) -> String {
        let mode = match mode {
            PersistenceMode::Ssl => "ssl",
            PersistenceMode::Sticky => "sticky",
            PersistenceMode::Vpn => "vpn",
            PersistenceMode::Tcp => "tcp",
            PersistenceMode::Ip => "ip",
        };
        format!("bind{}-{mode}.{owner}{}", family.digit(), place(Some(at), ports))
    }

    /// Device and address → the uplink, and whether it is its own, or a further one.
    pub fn places(family: Family) -> String {
        format!("places{}", family.digit())
    }

    /// New sessions of servers that clients are bound to by `vpn`.
    pub fn calls_back(family: Family) -> String {
        format!("calls-back{}", family.digit())
    }

    /// The same, towards the clients that stand in this map.
    pub fn calls_back_by(family: Family, map: &str) -> String {
        format!("calls-back{}-{}", family.digit(), bound_at(map))
    }

    /// Device and server → the address that such a session comes from.
    pub fn calling_source(family: Family) -> String {
        format!("calling{}", family.digit())
    }

    /// Translates to the virtual address at which this map binds clients.
    pub fn calls_from_by(family: Family, map: &str) -> String {
        format!("calls-from{}-{}", family.digit(), bound_at(map))
    }

    /// Whose bindings a map has, and at which address.
    fn bound_at(map: &str) -> &str {
        map.split_once('-').map_or(map, |(_, of)| of)
    }

    /// Finds that address where a device has several that the server answers at.
    pub fn calls_from(family: Family) -> String {
        format!("calls-from{}", family.digit())
    }

    /// A dot stands in no user's name.
    fn place(at: Option<Place<'_>>, ports: Option<PortRange>) -> String {
        let word = |address: IpAddr| address.to_string().replace(':', "_");
        let at = at.map(|place| match (place.at, place.further) {
            (Virtual::Uplink(name), None) => format!(".{name}"),
            (Virtual::Uplink(name), Some(address)) => format!(".{name}.{}", word(address)),
            (Virtual::Address { address, .. }, _) => format!(".{}", word(*address)),
        });
        let ports = ports.map(|ports| match ports.first == ports.last {
            true => format!(".{}", ports.first),
            false => format!(".{}_{}", ports.first, ports.last),
        });
        format!("{}{}", at.unwrap_or_default(), ports.unwrap_or_default())
    }

    /// Whether a set of this name says where servers are.
    pub fn tells_hosts(set: &str) -> bool {
        ["hosts4-", "hosts6-"].iter().any(|kind| set.starts_with(kind))
    }

    /// Addresses of servers whose sessions have left: what they send from now on does not look like
    /// a service.
    pub fn left(family: Family) -> String {
        format!("left{}", family.digit())
    }

    /// Whether a set of this name says who takes new sessions, or with which address.
    pub fn steers(set: &str) -> bool {
        ["slots", "keepable", "choosable", "left", "snat", "own"]
            .iter()
            .any(|kind| set.starts_with(kind))
    }

    /// Device → greatest segment.
    pub fn segment(family: Family) -> String {
        format!("segment{}", family.digit())
    }
}

/// A table in the making.
#[derive(Default)]
pub(super) struct Builder {
    table: NftTable,
}

impl Builder {
    pub(super) fn finish(self) -> NftTable {
        self.table
    }

    /// A flowtable.
    pub(super) fn flowtable(&mut self, name: &str, flowtable: Flowtable) {
        self.table.flowtables.insert(name.to_owned(), flowtable);
    }

    /// A regular chain, which others jump to.
    pub(super) fn chain(&mut self, name: impl Into<String>) -> Rules<'_> {
        self.hook(name, "")
    }

    /// A chain at a hook.
    pub(super) fn hook(&mut self, name: impl Into<String>, declaration: &str) -> Rules<'_> {
        let chain = self.table.chains.entry(name.into()).or_insert_with(|| Chain {
            declaration: Declared::new(declaration, ""),
            rules: Vec::new(),
        });
        Rules { chain }
    }

    /// An object that rules name.
    pub(super) fn object(&mut self, object: Object) {
        self.table.objects.insert(object);
    }

    /// A set or map. `attributes` follow the type, such as `flags dynamic,timeout;`.
    pub(super) fn set(
        &mut self,
        name: impl Into<String>,
        role: Role,
        shape: SetShape,
        attributes: &str,
        elements: Elements,
    ) {
        let types = shape.declaration();
        let text = if attributes.is_empty() { types } else { format!("{types} {attributes}") };
        let declaration = Declared::new(text, "");
        self.table.sets.insert(name.into(), Set { declaration, role, shape, elements });
    }
}

/// The attribute of a set of at most so many elements. A set that says how many has as many buckets
/// from the start, and the kernel then finds an element with half the instructions.
pub(super) fn at_most(elements: u32) -> String {
    format!("size {elements};")
}

/// Elements of a set with one for each uplink; twice as many, as old ones may leave after new ones came.
pub(super) const ONE_EACH: u32 = 128;

/// Elements of a slot table, with the same room.
pub(super) const SLOT_ELEMENTS: u32 = 512;

/// The rules of one chain, to append to.
pub(super) struct Rules<'a> {
    chain: &'a mut Chain,
}

impl Rules<'_> {
    /// Whether there is none yet.
    pub(super) fn is_empty(&self) -> bool {
        self.chain.rules.is_empty()
    }

    /// Appends a rule, if there is one.
    pub(super) fn rules(&mut self, text: Option<String>, origin: &str) -> &mut Self {
        if let Some(text) = text {
            self.rule(text, origin);
        }
        self
    }

    /// Appends a rule that comes from a profile key (or from none).
    pub(super) fn rule(&mut self, text: impl Into<String>, origin: &str) -> &mut Self {
        self.chain.rules.push(Declared::new(text, origin));
        self
    }
}

/// The field type of an address.
pub(super) fn address_type(family: Family) -> FieldType {
    match family {
        Family::V4 => FieldType::Ipv4,
        Family::V6 => FieldType::Ipv6,
    }
}

/// The shape of a set.
pub(super) fn set_of(key: &[FieldType]) -> SetShape {
    SetShape { key: key.to_vec(), data: SetData::Nothing }
}

/// The shape of a map to a value of one part.
pub(super) fn map_of(key: &[FieldType], data: FieldType) -> SetShape {
    SetShape { key: key.to_vec(), data: SetData::Value(vec![data]) }
}

/// The shape of a verdict map.
pub(super) fn verdicts_of(key: &[FieldType]) -> SetShape {
    SetShape { key: key.to_vec(), data: SetData::Verdict }
}

/// A mark as an element's bytes.
pub(in crate::plan) fn mark_bytes(mark: u32) -> Bytes {
    Bytes::from_slice(&mark.to_ne_bytes())
}

/// A mark as an element's data.
pub(super) fn mark_data(mark: u32) -> ElementData {
    ElementData::Value(mark_bytes(mark))
}
