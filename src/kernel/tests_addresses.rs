//! Addresses of our own, and announcing them, on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::stage::{linux, plug_wan, run, stage};
use super::{Announcer, Hush, Kernel, Linux, Notice, Notices};
use crate::kstate::{OwnAddress, Snapshot, Step};
use crate::model::{Family, IfName};

const FOUR: &str = "203.0.113.10";
const SIX: &str = "2001:db8:a::10";

fn own(address: &str) -> OwnAddress {
    on("wan0", address)
}

fn on(device: &str, address: &str) -> OwnAddress {
    OwnAddress { device: IfName::new(device).unwrap(), address: address.parse().unwrap() }
}

fn both() -> BTreeSet<OwnAddress> {
    [FOUR, SIX].map(own).into()
}

fn observe(linux: &mut Linux) -> Snapshot {
    linux.observe().unwrap_or_else(|error| panic!("{error:?}"))
}

fn apply(linux: &mut Linux, step: Step) {
    linux.apply(&step).unwrap_or_else(|error| panic!("{error}: {error:?}"));
}

fn add_both(linux: &mut Linux) {
    both().into_iter().for_each(|own| apply(linux, Step::AddAddress(own)));
}

fn delete_both(linux: &mut Linux) {
    both().into_iter().for_each(|own| apply(linux, Step::DeleteAddress(own)));
}

/// Waits until the kernel has brought both ends of the cable up, and changes nothing by itself any more.
fn wait_for_the_cable() {
    let begun = Instant::now();
    loop {
        let shown = run("ip -o link show") + &run("ip -o addr show");
        if shown.matches("state UP").count() == 2 && !shown.contains("tentative") {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{shown}");
        std::thread::yield_now();
    }
}

#[test]
fn addresses_come_back_as_they_were_written() {
    stage(|| {
        plug_wan();
        wait_for_the_cable();
        let mut linux = linux();
        let before = observe(&mut linux);
        for _ in 0..2 {
            add_both(&mut linux);
            let seen = observe(&mut linux);
            assert_eq!(seen.ours.addresses, both());
            // Neither an address of others nor a route comes with it.
            assert_eq!(seen.facts, before.facts);
        }
        let shown = run("ip addr show dev wan0");
        assert!(shown.contains("203.0.113.10/32 scope global noprefixroute"), "{shown}");
        assert!(shown.contains("2001:db8:a::10/128 scope global nodad noprefixroute"), "{shown}");
        assert!(!shown.contains("2001:db8:a::10/128 scope global tentative"), "{shown}");
        for address in [FOUR, SIX] {
            assert_local(address, "wan0");
        }
        for _ in 0..2 {
            delete_both(&mut linux);
            assert_eq!(observe(&mut linux), before);
        }
    });
}

#[test]
fn addresses_of_others_are_facts_and_stay() {
    stage(|| {
        plug_wan();
        run("ip addr add 203.0.113.10/32 dev wan0");
        run("ip addr add 2001:db8:a::10/128 dev wan0 nodad");
        let mut linux = linux();
        let before = observe(&mut linux);
        let has = |own: &OwnAddress| before.facts.is_local(own.address);
        assert!(both().iter().all(has) && before.ours.addresses.is_empty());
        add_both(&mut linux);
        delete_both(&mut linux);
        assert_eq!(observe(&mut linux), before);
    });
}

#[test]
fn an_address_moves_to_another_device_without_a_gap() {
    stage(|| {
        plug_wan();
        run("ip link add wan1 type veth peer name far1");
        run("ip link set wan1 up");
        run("ip link set far1 up");
        let mut linux = linux();
        add_both(&mut linux);
        for address in [FOUR, SIX] {
            apply(&mut linux, Step::AddAddress(on("wan1", address)));
            apply(&mut linux, Step::DeleteAddress(own(address)));
            assert_local(address, "wan1");
        }
        assert_eq!(observe(&mut linux).ours.addresses, [FOUR, SIX].map(|a| on("wan1", a)).into());
    });
}

#[test]
fn an_address_goes_with_its_device() {
    stage(|| {
        plug_wan();
        let mut linux = linux();
        add_both(&mut linux);
        run("ip link set wan0 down");
        let left = observe(&mut linux).ours.addresses;
        assert!(left.iter().all(|own| own.family() == Family::V4), "{left:?}");
        run("ip link set wan0 up");
        add_both(&mut linux);
        assert_eq!(observe(&mut linux).ours.addresses, both());
        run("ip link del wan0");
        assert!(observe(&mut linux).ours.addresses.is_empty());
        delete_both(&mut linux);
        let error = linux.apply(&Step::AddAddress(own(FOUR))).unwrap_err();
        assert_eq!(error.to_string(), "cannot add the address 203.0.113.10 to wan0");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("there is no interface wan0"));
    });
}

#[test]
fn changes_of_our_own_addresses_are_told_once() {
    stage(|| {
        plug_wan();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut linux = linux();
            let mut notices = Notices::open(&Hush::default()).unwrap();
            add_both(&mut linux);
            let mut told = 0;
            let quiet = Duration::from_millis(300);
            while let Ok(notice) = tokio::time::timeout(quiet, notices.next()).await {
                told += usize::from(matches!(notice.unwrap(), Notice::Address { .. }));
            }
            assert_eq!(told, 2);
            // What is there already changes nothing, and so wakes nobody.
            add_both(&mut linux);
            observe(&mut linux);
            assert_eq!(notices.arrived().await, None);
        });
    });
}

/// The Ethernet address that a device has.
fn mac(device: &str) -> String {
    let shown = run(&format!("ip -br link show dev {device}"));
    shown.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

/// Polls, 5 s at most.
fn soon(mut right: impl FnMut() -> bool, what: &str) {
    let started = Instant::now();
    while !right() {
        assert!(started.elapsed() < Duration::from_secs(5), "never came true: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An IPv6 address becomes one when its device is ready.
fn assert_local(address: &str, device: &str) {
    let option = if address.contains(':') { "-6" } else { "-4" };
    let shown = || run(&format!("ip {option} -o route show table local"));
    let wanted = format!("local {address} dev {device}");
    soon(|| shown().contains(&wanted), &wanted);
}

/// Announces, as often as a claim does, until the far end knows this address by the Ethernet address
/// of `wan0`: a device that has just come up may lose what is sent at once.
fn assert_told(announcer: &Announcer, address: &str) {
    let wanted = format!("lladdr {}", mac("wan0"));
    for _ in 0..3 {
        announcer.announce(&[own(address)]).unwrap();
        let known = || run(&format!("ip neigh show {address} dev far0")).contains(&wanted);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(1) {
            if known() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    panic!("{wanted} not in `{}`", run(&format!("ip neigh show {address} dev far0")));
}

#[test]
fn neighbours_that_knew_another_owner_learn_of_us() {
    stage(|| {
        plug_wan();
        let announcer = Announcer::open().unwrap();
        for address in [FOUR, SIX] {
            let old = format!("{address} lladdr 02:00:00:00:00:99 dev far0");
            run(&format!("ip neigh replace {old} nud reachable"));
            assert_told(&announcer, address);
        }
        // One that takes what it hears.
        run("ip neigh flush dev far0");
        std::fs::write("/proc/sys/net/ipv4/conf/far0/arp_accept", "1").unwrap();
        assert_told(&announcer, FOUR);
    });
}

#[test]
fn devices_without_neighbours_are_left_out() {
    stage(|| {
        plug_wan();
        run("ip tuntap add tun0 mode tun");
        run("ip link set tun0 up");
        run("ip link set wan0 down");
        let announcer = Announcer::open().unwrap();
        for device in ["tun0", "lo", "gone0", "wan0"] {
            announcer.announce(&[on(device, FOUR), on(device, SIX)]).unwrap();
        }
    });
}
