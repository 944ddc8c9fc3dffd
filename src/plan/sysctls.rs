//! Kernel settings that routing needs, and nothing more.

use std::collections::BTreeMap;

use super::offload;
use super::view::Layout;
use crate::kstate::{Snapshot, SysctlKey};
use crate::model::IfName;

/// Forwarding of IPv4. Set last: before rules and translation stand, what passes through leaks.
const FORWARD4: &str = "net/ipv4/ip_forward";
/// Forwarding of IPv6. Without `accept_ra=2` on a device, setting it deletes what that device
/// learned by router advertisement.
const FORWARD6: &str = "net/ipv6/conf/all/forwarding";

/// Settings that the kernel changes along with forwarding.
const FOLLOWERS: [&str; 3] = [
    "net/ipv4/conf/all/accept_redirects",
    "net/ipv4/conf/default/forwarding",
    "net/ipv6/conf/default/forwarding",
];

/// How long a flowtable keeps a session without packets, in seconds.
const FLOWS: [&str; 2] =
    ["net/netfilter/nf_flowtable_tcp_timeout", "net/netfilter/nf_flowtable_udp_timeout"];

/// What a device of an uplink must have: loose reverse-path filter, and ARP that keeps two uplinks
/// in one subnet apart. (Not `arp_filter`: it asks the routing tables, where an address of the
/// second uplink in the subnet leads to the first.)
const UPLINK: [(&str, &str); 4] = [
    ("ipv4", "rp_filter=2"),
    ("ipv4", "arp_ignore=1"),
    ("ipv4", "arp_announce=2"),
    ("ipv6", "accept_ra=2"),
];

/// Every setting that we may change for these uplinks, or that changes along with one of those.
pub fn interesting_sysctls<'a>(
    uplinks: impl Iterator<Item = &'a IfName>,
    links: impl Iterator<Item = &'a IfName>,
) -> Vec<SysctlKey> {
    let mut keys: Vec<SysctlKey> = [&[FORWARD4, FORWARD6], &FOLLOWERS[..], &FLOWS]
        .concat()
        .iter()
        .map(|key| own(key))
        .collect();
    keys.push(offload::accounting());
    for device in uplinks {
        keys.extend(
            UPLINK.iter().map(|(family, setting)| device_key(device, family, name(setting))),
        );
    }
    for device in links {
        keys.push(device_key(device, "ipv4", "forwarding"));
        keys.push(device_key(device, "ipv6", "forwarding"));
    }
    keys
}

/// The settings as they must be, for devices that exist.
pub(super) fn build_sysctls(layout: &Layout, seen: &Snapshot) -> BTreeMap<SysctlKey, String> {
    let mut wanted = BTreeMap::new();
    for key in [FORWARD4, FORWARD6] {
        wanted.insert(SysctlKey(key.to_owned()), "1".to_owned());
    }
    for (uplink, _) in layout.uplinks() {
        for (family, setting) in UPLINK {
            let key = device_key(&uplink.interface, family, name(setting));
            let now = seen.ours.sysctls.get(&key).map(String::as_str);
            let value = setting.split_once('=').map_or("", |(_, value)| value);
            // Somebody who turned advertisements off (a DHCP client that reads them itself) is right.
            let kept = name(setting) == "accept_ra" && now == Some("0");
            if now.is_some() && !kept {
                wanted.insert(key, value.to_owned());
            }
        }
    }
    if offload::wanted(&layout.site, &seen.facts).reason.is_none() {
        let seconds = offload::flow_seconds(&layout.site).to_string();
        wanted.extend(FLOWS.iter().map(|key| (own(key), seconds.clone())));
    }
    wanted.retain(|key, _| seen.ours.sysctls.contains_key(key));
    wanted
}

/// Whether this setting may be changed by us, or along with one that is, so that it is restored later.
pub fn is_restored(key: &SysctlKey) -> bool {
    *key != offload::accounting()
}

/// Whether this setting lets packets pass through at all: it is set when all else stands.
pub(super) fn opens(key: &SysctlKey) -> bool {
    key.0 == FORWARD4 || key.0 == FORWARD6
}

/// Settings in the order in which they are restored: first forwarding, which takes others along,
/// then those others, and `accept_ra` after them.
pub fn restoring_order(key: &SysctlKey) -> (u8, &str) {
    let rank = match key.0.as_str() {
        FORWARD4 | FORWARD6 => 0,
        other if FOLLOWERS.contains(&other) => 1,
        _ => 2,
    };
    (rank, &key.0)
}

fn own(key: &str) -> SysctlKey {
    SysctlKey(key.to_owned())
}

fn name(setting: &str) -> &str {
    setting.split_once('=').map_or(setting, |(name, _)| name)
}

fn device_key(device: &IfName, family: &str, name: &str) -> SysctlKey {
    SysctlKey(format!("net/{family}/conf/{device}/{name}"))
}
