//! nftables on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use super::stage::{linux, run, stage};
use super::{Kernel, KernelError, Linux};
use crate::kstate::{
    Bytes, Declared, ElementData, Elements, FieldType, KernelState, NftOp, Role, SetData, SetShape,
    Step, Verdict, concatenate, ifname_bytes,
};
use crate::model::IfName;

fn apply(linux: &mut Linux, ops: Vec<NftOp>) {
    linux.apply(&Step::Nft(ops)).unwrap_or_else(|error| panic!("{error}: {error:?}"));
}

/// What the kernel shows, with the shapes left out, as in what is observed.
fn modelled(ops: &[NftOp]) -> KernelState {
    let mut state = KernelState::default();
    state.apply(&Step::Nft(ops.to_vec()));
    if let Some(table) = state.nft.as_mut().map(std::sync::Arc::make_mut) {
        for set in table.sets.values_mut() {
            set.shape = SetShape::default();
            if set.role == Role::Learned {
                set.elements = Elements::new();
            }
        }
    }
    state
}

fn value(bytes: &[u8]) -> ElementData {
    ElementData::Value(Bytes::from_slice(bytes))
}

fn mark(number: u32) -> Bytes {
    Bytes::from_slice(&number.to_ne_bytes())
}

fn verdicts() -> SetShape {
    SetShape { key: vec![FieldType::Mark], data: SetData::Verdict }
}

fn slots() -> SetShape {
    SetShape { key: vec![FieldType::Slot], data: SetData::Value(vec![FieldType::Mark]) }
}

fn slot_elements(numbers: std::ops::Range<u32>, to: u32) -> Elements {
    numbers.map(|n| (mark(n), value(&mark(to)))).collect()
}

fn add_set(name: &str, shape: &SetShape, text: &str, role: Role) -> NftOp {
    NftOp::AddSet {
        name: name.into(),
        shape: shape.clone(),
        declaration: Declared::new(text, format!("uplinks.{name}")),
        role,
    }
}

fn add(set: &str, shape: &SetShape, elements: Elements) -> NftOp {
    NftOp::AddElements { set: set.into(), shape: shape.clone(), elements }
}

fn delete(set: &str, shape: &SetShape, elements: Elements) -> NftOp {
    NftOp::DeleteElements { set: set.into(), shape: shape.clone(), elements }
}

fn add_chain(name: &str, text: &str) -> NftOp {
    NftOp::AddChain { name: name.into(), declaration: Declared::new(text, "") }
}

fn add_rule(chain: &str, text: &str) -> NftOp {
    NftOp::AddRule { chain: chain.into(), rule: Declared::new(text, "policies.web") }
}

fn everything() -> Vec<NftOp> {
    let wan0 = IfName::new("wan0").map(|n| ifname_bytes(&n)).unwrap();
    let names = SetShape { key: vec![FieldType::IfName, FieldType::Ipv4], data: SetData::Nothing };
    let targets = SetShape {
        key: vec![FieldType::Mark],
        data: SetData::Value(vec![FieldType::Ipv4, FieldType::Port]),
    };
    let sizes =
        SetShape { key: vec![FieldType::IfName], data: SetData::Value(vec![FieldType::Size]) };
    let v6 = SetShape {
        key: vec![FieldType::Ipv6, FieldType::Protocol, FieldType::Port],
        data: SetData::Verdict,
    };
    let bindings =
        SetShape { key: vec![FieldType::Ipv4], data: SetData::Value(vec![FieldType::Mark]) };
    let six = concatenate(&[
        Bytes::from_elem(0x20, 16),
        Bytes::from_slice(&[6]),
        Bytes::from_slice(&[0, 80]),
    ]);
    let one = |key: Bytes, data| Elements::from([(key, data)]);
    let restore = Elements::from([
        (mark(0x100), ElementData::Verdict(Verdict::Goto("u_1".into()))),
        (mark(0x200), ElementData::Verdict(Verdict::Jump("u_1".into()))),
        (mark(0x300), ElementData::Verdict(Verdict::Accept)),
        (mark(0x400), ElementData::Verdict(Verdict::Drop)),
    ]);
    vec![
        NftOp::AddTable,
        add_chain("u_1", ""),
        add_chain("pre", "type filter hook prerouting priority mangle; policy accept;"),
        add_set("spoof", &names, "type ifname . ipv4_addr;", Role::Fixed),
        add_set("restore", &verdicts(), "type mark : verdict; counter;", Role::Fixed),
        add_set("dnat4", &targets, "type mark : ipv4_addr . inet_service;", Role::Fixed),
        add_set("mss4", &sizes, "typeof meta oifname : tcp option maxseg size;", Role::Fixed),
        add_set("vip6", &v6, "type ipv6_addr . inet_proto . inet_service : verdict;", Role::Fixed),
        add_set("slots4", &slots(), "typeof numgen inc mod 256 : meta mark;", Role::Steering),
        add_set(
            "bind4",
            &bindings,
            "type ipv4_addr : mark; flags dynamic,timeout; timeout 5m;",
            Role::Learned,
        ),
        add(
            "spoof",
            &names,
            one(
                concatenate(&[wan0.clone(), Bytes::from_slice(&[192, 0, 2, 1])]),
                ElementData::Nothing,
            ),
        ),
        add("restore", &verdicts(), restore),
        add(
            "dnat4",
            &targets,
            one(
                mark(1),
                value(&concatenate(&[
                    Bytes::from_slice(&[192, 0, 2, 7]),
                    Bytes::from_slice(&[0, 80]),
                ])),
            ),
        ),
        add("mss4", &sizes, one(wan0, value(&[5, 0xb4]))),
        add("vip6", &v6, one(six, ElementData::Verdict(Verdict::Goto("u_1".into())))),
        add("slots4", &slots(), slot_elements(0..256, 0x100)),
        add("bind4", &bindings, one(Bytes::from_slice(&[192, 0, 2, 9]), value(&mark(0x100)))),
        add_rule("u_1", "counter"),
        add_rule("pre", "ct state invalid drop"),
        add_rule("pre", "meta mark vmap @restore"),
        add_rule("pre", "ip saddr { 10.0.0.0/8, 192.168.0.0/16 } accept"),
        add_rule("pre", "meta mark set numgen inc mod 256 map @slots4"),
        add_rule("pre", "update @bind4 { ip saddr timeout 5m : meta mark }"),
    ]
}

#[test]
fn structure_and_elements_come_back_as_they_were_written() {
    stage(|| {
        run("nft add table inet fw4");
        let mut linux = linux();
        assert_eq!(linux.observe().unwrap().ours.nft, None);
        apply(&mut linux, everything());
        let seen = linux.observe().unwrap();
        assert_eq!(seen.ours.nft, modelled(&everything()).nft);
        let foreign: Vec<_> = seen.facts.foreign_tables.into_iter().collect();
        assert_eq!(foreign, ["inet fw4"]);
        let generation = linux.nft_generation();
        run("nft add table ip other");
        linux.observe().unwrap();
        assert!(linux.nft_generation() > generation);
        // Removing: the table, twice.
        apply(&mut linux, vec![NftOp::DeleteTable]);
        apply(&mut linux, vec![NftOp::DeleteTable]);
        assert_eq!(linux.observe().unwrap().ours.nft, None);
    });
}

#[test]
fn parts_of_the_structure_can_be_taken_away() {
    stage(|| {
        let mut linux = linux();
        apply(&mut linux, everything());
        let mut ops = everything();
        let vip6 = modelled(&ops).nft.unwrap().sets["vip6"].elements.clone();
        let v6 = SetShape {
            key: vec![FieldType::Ipv6, FieldType::Protocol, FieldType::Port],
            data: SetData::Verdict,
        };
        let fewer = vec![
            NftOp::FlushChain("pre".into()),
            delete("slots4", &slots(), slot_elements(0..9, 0x100)),
            add("slots4", &slots(), slot_elements(0..9, 0x200)),
            delete("vip6", &v6, vip6),
            add_rule("pre", "ct state invalid drop"),
            NftOp::DeleteSet("restore".into()),
            NftOp::DeleteSet("spoof".into()),
            NftOp::FlushChain("u_1".into()),
            NftOp::DeleteChain("u_1".into()),
        ];
        apply(&mut linux, fewer.clone());
        ops.extend(fewer);
        assert_eq!(linux.observe().unwrap().ours.nft, modelled(&ops).nft);
    });
}

#[test]
fn elements_are_swapped_in_one_transaction() {
    stage(|| {
        let mut linux = linux();
        apply(&mut linux, everything());
        linux.observe().unwrap();
        let before = linux.nft_generation();
        let swap = vec![
            delete("slots4", &slots(), slot_elements(0..128, 0x100)),
            add("slots4", &slots(), slot_elements(0..128, 0x200)),
        ];
        apply(&mut linux, swap.clone());
        let seen = linux.observe().unwrap();
        let mut ops = everything();
        ops.extend(swap);
        assert_eq!(seen.ours.nft, modelled(&ops).nft);
        assert_eq!(linux.nft_generation(), before + 1);
        let listed = run("nft list map inet homing slots4");
        assert!(listed.contains("127 : 0x00000200"), "{listed}");
        assert!(listed.contains("128 : 0x00000100"), "{listed}");
    });
}

#[test]
fn an_element_that_is_gone_already_does_not_stop_a_swap() {
    stage(|| {
        let mut linux = linux();
        apply(&mut linux, everything());
        run("nft delete element inet homing slots4 { 3, 5 }");
        let swap = vec![
            delete("slots4", &slots(), slot_elements(0..8, 0x100)),
            add("slots4", &slots(), slot_elements(0..8, 0x300)),
        ];
        apply(&mut linux, swap.clone());
        // And the refusals of the first attempt do not confuse the next request.
        let mut ops = everything();
        ops.extend(swap);
        assert_eq!(linux.observe().unwrap().ours.nft, modelled(&ops).nft);
        let gone = vec![delete("slots4", &slots(), slot_elements(900..902, 0))];
        apply(&mut linux, gone);
    });
}

#[test]
fn an_element_with_other_data_refuses_the_whole_transaction() {
    stage(|| {
        let mut linux = linux();
        apply(&mut linux, everything());
        let before = linux.observe().unwrap();
        let bad = vec![
            delete("slots4", &slots(), slot_elements(0..8, 0x100)),
            add("slots4", &slots(), slot_elements(9..10, 0x300)),
        ];
        let error = linux.apply(&Step::Nft(bad)).unwrap_err();
        assert!(matches!(error, KernelError::ChangeElements { .. }), "{error:?}");
        assert_eq!(linux.observe().unwrap(), before);
        // Equal data is "exists already".
        apply(&mut linux, vec![add("slots4", &slots(), slot_elements(0..9, 0x100))]);
        let lost = vec![add("nowhere", &slots(), slot_elements(0..1, 1))];
        let error = linux.apply(&Step::Nft(lost)).unwrap_err();
        assert_eq!(error.to_string(), "cannot change elements of nowhere");
    });
}

#[test]
fn thousands_of_elements_fit_in_one_transaction() {
    stage(|| {
        let mut linux = linux();
        apply(
            &mut linux,
            vec![NftOp::AddTable, add_set("big", &slots(), "type mark : mark;", Role::Fixed)],
        );
        let all = slot_elements(0..20_000, 7);
        apply(&mut linux, vec![add("big", &slots(), all.clone())]);
        let seen = linux.observe().unwrap().ours.nft.unwrap();
        // At once: the hash table may still be growing.
        assert!(seen.sets["big"].elements == all);
        let uncounted = super::nft_read::elements(&mut linux.netfilter.channel, "big", None);
        assert!(uncounted.unwrap() == all);
        apply(&mut linux, vec![delete("big", &slots(), all)]);
        let seen = linux.observe().unwrap().ours.nft.unwrap();
        assert!(seen.sets["big"].elements.is_empty());
    });
}

#[test]
fn a_refused_script_names_its_line() {
    stage(|| {
        let mut linux = linux();
        let ops = vec![NftOp::AddTable, add_chain("u_1", ""), add_rule("u_1", "jump nowhere")];
        let error = linux.apply(&Step::Nft(ops)).unwrap_err().to_string();
        assert!(
            error.starts_with("nftables refused `add rule inet homing u_1 jump nowhere"),
            "{error}"
        );
        assert_eq!(linux.observe().unwrap().ours.nft, None);
    });
}

#[test]
fn learned_bindings_show_what_is_left_of_their_time() {
    stage(|| {
        let mut linux = linux();
        apply(&mut linux, everything());
        let bindings = linux.dump_elements("bind4").unwrap();
        assert_eq!(bindings.len(), 1);
        assert_eq!(bindings[0].key.as_slice(), [192, 0, 2, 9]);
        assert_eq!(bindings[0].data, value(&mark(0x100)));
        let left = bindings[0].expires_ms.unwrap_or(0);
        assert!((290_000..=300_000).contains(&left), "{left}");
        let key = bindings[0].key.clone();
        linux.delete_elements("bind4", &[key, Bytes::from_elem(9, 4)]).unwrap();
        assert_eq!(linux.dump_elements("bind4").unwrap(), []);
        assert!(linux.dump_elements("nowhere").is_err());
    });
}

#[test]
fn counters_of_elements_count() {
    stage(|| {
        let mut linux = linux();
        let restore = Elements::from([(mark(0), ElementData::Verdict(Verdict::Accept))]);
        apply(
            &mut linux,
            vec![
                NftOp::AddTable,
                add_set("restore", &verdicts(), "type mark : verdict; counter;", Role::Fixed),
                add_chain("out", "type filter hook output priority 0;"),
                add_rule("out", "meta mark vmap @restore"),
            ],
        );
        // Added by netlink, an element gets the map's counter, too.
        apply(&mut linux, vec![add("restore", &verdicts(), restore)]);
        let packets = |linux: &mut Linux| linux.dump_elements("restore").unwrap()[0].packets;
        assert_eq!(packets(&mut linux), Some(0));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..3 {
            socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        }
        assert_eq!(packets(&mut linux), Some(3));
    });
}
