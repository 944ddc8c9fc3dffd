//! Everything that comes from outside, as functions on bytes: what `fuzz/` mutates, and what the
//! test below feeds the kept inputs of `fuzz/corpus/` to.
//!
//! A function ends, soon and without a panic, whatever the bytes; nothing comes out of it. One that
//! reads names or numbers uses them as homing would, for what is read well may still be wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

pub use crate::api::hostile::request as http;
pub use crate::cli::show_any as answer;
pub use crate::kernel::hostile::{nftables, notices, refusals, routing, sessions};
pub use crate::probe::hostile::dns;

use crate::daemon;
use crate::kstate::{Address, KernelState, Link, Route, RouteKind, Snapshot};
use crate::model::{Family, Site, TableId};
use crate::plan::{self, Layout, Remembered, Scope};
use crate::profile;

/// A function on bytes.
pub type Target = fn(&[u8]);

/// Each with its name, which is that of its folder of kept inputs.
pub const TARGETS: [(&str, Target); 10] = [
    ("profile", profile),
    ("state", state),
    ("routing", routing),
    ("nftables", nftables),
    ("sessions", sessions),
    ("notices", notices),
    ("refusals", refusals),
    ("http", http),
    ("answer", answer),
    ("dns", dns),
];

/// A profile: read, told of, and, if it is right, made into everything that the kernel must hold.
pub fn profile(bytes: &[u8]) {
    let loaded = profile::load_bytes(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = profile::render(&loaded.findings, "site.yaml", &text);
    let _ = profile::to_json(&loaded.findings);
    if let Some(site) = loaded.site {
        plan_for(site, &Remembered::default());
    }
}

/// A state file: read, and its numbers used.
pub fn state(bytes: &[u8]) {
    const OFFICE: &str = include_str!("../profiles/office.yaml");
    let remembered = daemon::decode_state(bytes);
    if let (Some(site), Some(remembered)) = (profile::load(OFFICE).site, remembered) {
        plan_for(site, &remembered);
    }
}

/// All that `run` would do at its start on a host where every uplink works.
fn plan_for(site: Site, remembered: &Remembered) {
    let seen = host(&site);
    let layout = Layout::new(site, remembered);
    let numbers: BTreeSet<u8> = layout.ids.uplinks.values().map(|id| id.0).collect();
    assert_eq!(numbers.len(), layout.site.uplinks.len(), "each uplink has a number of its own");
    let desired = plan::build(&layout, &plan::assess(&layout, &seen, &Arc::default()), &seen);
    let changes = plan::diff(&desired, &KernelState::default(), Scope::All);
    let _ = changes.commands();
    // What was done is not to be done again.
    let again = plan::diff(&desired, &desired, Scope::All);
    assert!(again.is_empty(), "there is no end to it: {:?}", again.commands());
}

fn host(site: &Site) -> Snapshot {
    let mut seen = Snapshot::default();
    for (number, uplink) in (2..).zip(&site.uplinks) {
        let device = uplink.interface.clone();
        let link = Link {
            index: number,
            up: true,
            carrier: true,
            mtu: 1500,
            loopback: false,
            point_to_point: false,
        };
        seen.facts.links.insert(device.clone(), link);
        let low = (number % 250) as u8;
        let ours = [
            IpAddr::from([203, 0, 113, low]),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, number as u16].into(),
        ];
        let hops = [IpAddr::from([203, 0, 113, 254]), [0xfe80, 0, 0, 0, 0, 0, 0, 1].into()];
        seen.facts.addresses.extend(ours.map(|ours| Address {
            device: device.clone(),
            net: ours.into(),
            peer: None,
            global: true,
            tentative: false,
            deprecated: false,
            temporary: false,
        }));
        seen.facts.routes.extend(hops.map(|hop| Route {
            table: TableId(254),
            destination: Family::of(hop).any(),
            kind: RouteKind::Unicast,
            gateway: Some(hop),
            device: Some(device.clone()),
            source: None,
            metric: number,
            mtu: None,
            onlink: false,
            protocol: 16,
        }));
    }
    seen
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test says what it expects

    use std::fs;
    use std::path::Path;

    use super::TARGETS;

    /// What a fuzzer once found, or needed to get everywhere.
    #[test]
    fn every_kept_input_is_read_to_its_end() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, target) in TARGETS {
            let mut files = 0;
            for file in fs::read_dir(corpus.join(name)).unwrap() {
                let bytes = fs::read(file.unwrap().path()).unwrap();
                for part in [&bytes[..], &bytes[..bytes.len() / 2], &bytes[bytes.len() / 3..]] {
                    target(part);
                }
                files += 1;
            }
            assert!(files > 0, "{name}: no inputs are kept");
        }
    }
}
