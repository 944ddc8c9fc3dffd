//! Notices on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::socket::Channel;
use super::stage::{linux, plug_wan, run, stage};
use super::{Hush, Kernel, Notice, Notices};
use crate::kstate::{
    Bytes, ElementData, Elements, FieldType, NftOp, OUR_PROTOCOL, Rule, RuleAction, SetData,
    SetShape, Step,
};
use crate::model::{Family, RulePriority, TableId};

/// A runtime on this thread, and so in its namespace.
fn block_on<T>(play: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap_or_else(|error| panic!("{error}")).block_on(play)
}

/// Waits until a notice fits; shows what came instead.
async fn wait_for(notices: &mut Notices, fits: impl Fn(&Notice) -> bool) -> Notice {
    let mut seen = Vec::new();
    for _ in 0..1000 {
        let next = tokio::time::timeout(Duration::from_secs(5), notices.next());
        match next.await {
            Ok(Ok(notice)) if fits(&notice) => return notice,
            Ok(Ok(notice)) => seen.push(notice),
            other => panic!("{other:?} after {seen:#?}"),
        }
    }
    panic!("not among {seen:#?}");
}

fn our_rule() -> Step {
    Step::AddRule(Rule {
        priority: RulePriority(10_000),
        family: Family::V4,
        invert: false,
        mark: None,
        source: None,
        input: None,
        output: None,
        action: RuleAction::Lookup(TableId(10_001)),
        suppress_prefix_length: None,
        protocol: OUR_PROTOCOL,
        has_more: false,
    })
}

#[test]
fn every_kind_of_change_is_told() {
    stage(|| {
        block_on(async {
            let mut notices = Notices::open(&Hush::default()).unwrap();
            plug_wan();
            wait_for(&mut notices, |n| matches!(n, Notice::Link { .. })).await;
            wait_for(&mut notices, |n| matches!(n, Notice::Address { .. })).await;
            wait_for(&mut notices, |n| matches!(n, Notice::Route { .. })).await;
            run("ip -6 rule add pref 5 lookup main");
            wait_for(&mut notices, |n| matches!(n, Notice::Rule { .. })).await;
            run("nft add table ip other");
            let nft = wait_for(&mut notices, |n| matches!(n, Notice::Nft { .. })).await;
            assert!(matches!(nft, Notice::Nft { name, .. } if name == "nft"));
        });
    });
}

#[test]
fn changes_of_our_own_are_recognised() {
    stage(|| {
        block_on(async {
            let mut notices = Notices::open(&Hush::default()).unwrap();
            let mut linux = linux();
            linux.apply(&our_rule()).unwrap();
            let notice = wait_for(&mut notices, |n| matches!(n, Notice::Rule { .. })).await;
            assert!(linux.ports().contains(&notice.port().unwrap()));
            run("ip rule add pref 5 lookup main");
            let notice = wait_for(&mut notices, |n| matches!(n, Notice::Rule { .. })).await;
            assert!(!linux.ports().contains(&notice.port().unwrap()));
            linux.apply(&Step::Nft(vec![NftOp::AddTable])).unwrap();
            linux.observe().unwrap();
            let notice = wait_for(&mut notices, |n| matches!(n, Notice::Nft { .. })).await;
            let seen = linux.nft_generation();
            assert!(
                matches!(notice, Notice::Nft { generation, .. } if generation == seen),
                "{notice:?} {seen}"
            );
        });
    });
}

/// One more slot in the map `slots`, which is made for it.
fn add_slot(number: u32, to: u32) -> Step {
    let bytes = |n: u32| Bytes::from_slice(&n.to_ne_bytes());
    let mark = SetData::Value(vec![FieldType::Mark]);
    Step::Nft(vec![NftOp::AddElements {
        set: "slots".to_owned(),
        shape: SetShape { key: vec![FieldType::Slot], data: mark },
        elements: Elements::from([(bytes(number), ElementData::Value(bytes(to)))]),
    }])
}

fn make_slots() {
    run("nft add table inet homing");
    run("nft add map inet homing slots { typeof numgen random mod 256 : meta mark ; }");
}

#[test]
fn nobody_is_told_of_what_is_hushed() {
    stage(|| {
        make_slots();
        block_on(async {
            let hush = Hush::default();
            let mut notices = Notices::open(&hush).unwrap();
            let (mut loud, mut quiet) = (linux(), linux().hushed(&hush));
            quiet.apply(&add_slot(1, 1)).unwrap();
            loud.apply(&add_slot(2, 1)).unwrap();
            quiet.apply(&add_slot(3, 1)).unwrap();
            run("nft add table ip other");
            let first = notices.next().await.unwrap();
            assert_eq!(first.port(), Some(loud.ports()[1]), "{first:?}");
            let second = notices.next().await.unwrap();
            assert!(matches!(&second, Notice::Nft { name, .. } if name == "nft"), "{second:?}");
            assert_eq!(notices.arrived().await, None);
        });
    });
}

#[test]
fn what_others_do_meanwhile_is_noticed() {
    stage(|| {
        make_slots();
        block_on(async {
            let hush = Hush::default();
            let mut notices = Notices::open(&hush).unwrap();
            let mut quiet = linux().hushed(&hush);
            let mut other = Channel::open(NETLINK_NETFILTER).unwrap();
            // Two work at once, and only then somebody else does.
            hush.enter(&mut other);
            quiet.apply(&add_slot(1, 1)).unwrap();
            hush.leave(&mut other, false);
            assert_eq!(notices.arrived().await, None);
            hush.enter(&mut other);
            run("nft add table ip other");
            quiet.apply(&add_slot(2, 1)).unwrap();
            hush.leave(&mut other, false);
            wait_for(&mut notices, |n| matches!(n, Notice::Missed)).await;
            // And a change that is refused counts for nothing.
            quiet.apply(&add_slot(2, 9)).unwrap_err();
            assert_eq!(notices.arrived().await, None);
        });
    });
}

#[test]
fn lost_notices_are_told() {
    stage(|| {
        block_on(async {
            let mut notices = Notices::open(&Hush::default()).unwrap();
            let mut batch = String::new();
            // Each rule is charged with about 1 KiB of the receive buffer, twice.
            for number in 0..40_000 {
                batch += &format!("rule add pref {number} lookup 10001\nrule del pref {number}\n");
            }
            let file = std::env::temp_dir().join(format!("rules-{}", std::process::id()));
            std::fs::write(&file, batch).unwrap();
            run(&format!("ip -batch {}", file.display()));
            std::fs::remove_file(&file).unwrap();
            let mut overrun = false;
            for _ in 0..200_000 {
                let next = tokio::time::timeout(Duration::from_secs(5), notices.next());
                if next.await.unwrap().unwrap() == Notice::Overrun {
                    overrun = true;
                    break;
                }
            }
            assert!(overrun);
            // And it goes on after that.
            run("nft add table ip other");
            wait_for(&mut notices, |n| matches!(n, Notice::Nft { .. })).await;
        });
    });
}
