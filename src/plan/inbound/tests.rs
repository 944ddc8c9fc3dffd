//! Groups of a site as they are numbered, and who of them takes new sessions.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test says what it expects

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{DealtBy, beside, choose};
use crate::health::Health;
use crate::kstate::Snapshot;
use crate::model::{Family, Name};
use crate::plan::nft::build_table;
use crate::plan::{Layout, Remembered, ServerStanding, Standings, View};
use crate::profile;

const UPLINKS: &str =
    "version: 1\nsite: s\nuplinks:\n  a: { interface: e0 }\n  b: { interface: e1 }\n";

fn layout(groups: &str, remembered: &Remembered) -> Layout {
    let services = "services:\n  s: { virtual: [a], protocol: udp, ports: [53], group: web }\n";
    let text = format!("{UPLINKS}groups:\n{groups}{services}");
    let loaded = profile::load(&text);
    Layout::new(loaded.site.unwrap_or_else(|| panic!("{:?}", loaded.findings)), remembered)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn servers_get_their_numbers_back_from_the_kernel() {
    let servers = |names: &[&str]| {
        let servers: Vec<String> = names
            .iter()
            .map(|name| format!("{name}: {{ address: 10.0.0.{} }}", 1 + name.as_bytes()[0] - b'a'))
            .collect();
        format!("  web: {{ servers: {{ {} }} }}\n", servers.join(", "))
    };
    let mut asked = Remembered::default();
    asked.servers.insert(name("web"), [(name("b"), 77)].into_iter().collect());
    let before = layout(&servers(&["a", "b", "c"]), &asked);
    assert_eq!(before.ids.servers[&name("web")][&name("b")].0, 77);
    let table = build_table(&before, &View::default(), &Snapshot::default());
    let after = layout(&servers(&["b", "c", "d"]), &Remembered::from_kernel(&table));
    let numbers = |layout: &Layout, server: &str| layout.ids.servers[&name("web")][&name(server)];
    for server in ["b", "c"] {
        assert_eq!(numbers(&after, server), numbers(&before, server), "{server}");
    }
    assert_ne!(numbers(&after, "d"), numbers(&before, "a"), "of who is gone");
}

#[test]
fn a_recovered_server_gets_its_share_little_by_little_also_where_it_is_measured() {
    let group = "  web: { balance: least-connections, servers: { a: { address: 10.0.0.1 }, \
                 b: { address: 10.0.0.2 }, c: { address: 10.0.0.3 } } }\n";
    let layout = layout(group, &Remembered::default());
    let share_of_a = |ramp: u16, slots: [u16; 3]| {
        let standing = |ramp, slots| ServerStanding {
            health: Health::Up,
            ramp,
            slots: Some(slots),
            ..ServerStanding::default()
        };
        let all = [("a", ramp, slots[0]), ("b", 1000, slots[1]), ("c", 1000, slots[2])];
        let servers = all.map(|(of, ramp, slots)| (name(of), standing(ramp, slots)));
        let groups =
            Arc::new(BTreeMap::from([(name("web"), Arc::new(servers.into_iter().collect()))]));
        let standings = Standings { groups, ..Standings::default() };
        let group = layout.group(&name("web")).unwrap();
        let owners = choose(&group, &standings, Family::V4, DealtBy::Turn).selection.owners;
        let a = owners[&layout.ids.servers[&name("web")][&name("a")].0];
        f64::from(a) / f64::from(owners.values().sum::<u32>())
    };
    // It has fewest connections, so that it would get nearly all.
    let emptiest = [240, 8, 8];
    assert!(share_of_a(1000, emptiest) > 0.9);
    let mut last = 0.0;
    for ramp in [1, 100, 500, 999] {
        let share = share_of_a(ramp, emptiest);
        assert!(share > last, "{share} at {ramp}");
        last = share;
    }
    assert!(share_of_a(1, [86, 85, 85]) < 0.02);
    assert!((share_of_a(1000, [86, 85, 85]) - 0.336).abs() < 0.01);
}

#[test]
fn numbers_stand_beside_a_mask() {
    assert_eq!(beside(0x1_2345, 0xff), 0x0123_4500);
    assert_eq!(beside(0x1_23ff, 0xff00), 0x0123_00ff);
    assert_eq!(beside(0b1011, 0b0110), 0b10_1001);
}
