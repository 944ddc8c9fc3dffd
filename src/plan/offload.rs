//! Which devices take part in the fast path, and why others do not. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::inbound::udp_seconds;
use super::{Layout, renewal_period};
use crate::kstate::{Facts, Flowtable, Offloading, SysctlKey};
use crate::model::{FastPath, IfName, Persistence, PersistenceMode, Service, Site};

/// What the kernel does by itself, in seconds.
const LONGEST: u64 = 30;
/// Where places at servers wait for it.
const LIMITED: u64 = 5;

/// What comes of the profile's wish on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fast {
    /// Why no session takes the fast path; `None` when sessions do.
    pub reason: Option<String>,
    /// Devices whose packets may go past the rules.
    pub devices: BTreeSet<IfName>,
    /// Devices that take no part, and why.
    pub left_out: BTreeMap<IfName, String>,
    /// Network cards do it.
    pub hardware: bool,
    /// Why network cards do not, though the profile wishes it.
    pub software: Option<String>,
}

impl Fast {
    /// The flowtable to have. It counts for connection tracking where that counts: a look for each
    /// packet.
    pub fn flowtable(&self, settings: &BTreeMap<SysctlKey, String>) -> Option<Flowtable> {
        let counts = settings.get(&accounting()).is_some_and(|value| value != "0");
        let hardware = self.hardware;
        let one = || Flowtable { devices: self.devices.clone(), hardware, counts };
        self.reason.is_none().then(one)
    }
}

/// Whether connection tracking counts packets and bytes.
pub(super) fn accounting() -> SysctlKey {
    SysctlKey("net/netfilter/nf_conntrack_acct".to_owned())
}

/// What the kernel has to be asked: of uplinks and LANs, or, without LANs in the profile, of every
/// device with an address.
pub fn offloading(site: &Site, facts: &Facts) -> Option<Offloading> {
    if site.fast_path == FastPath::Off {
        return None;
    }
    let mut devices: BTreeSet<IfName> =
        site.uplinks.iter().map(|one| one.interface.clone()).collect();
    devices.extend(site.lans.iter().map(|lan| lan.interface.clone()));
    if site.lans.is_empty() {
        let real = |device: &IfName| facts.links.get(device).is_some_and(|link| !link.loopback);
        let addressed = facts.addresses.iter().map(|address| &address.device);
        devices.extend(addressed.filter(|device| real(device)).cloned());
    }
    Some(Offloading { devices, hardware: site.fast_path == FastPath::Hardware })
}

/// How long a session without packets stays in the flowtable, which is how exactly it is known when
/// its last packet was: the kernel's half a minute, or a third of the shortest time that depends on it.
/// So long a connection that is over may stay there, too, and hold its place at a server with a limit.
pub fn flow_seconds(site: &Site) -> u64 {
    let policies = site.policies.iter().filter_map(|policy| match policy.persistence {
        Persistence::By { timeout, .. } => Some(timeout.as_secs()),
        Persistence::None => None,
    });
    let bound = |service: &Service| match service.persistence.mode {
        PersistenceMode::Ip => None,
        PersistenceMode::Tcp => udp_seconds(service),
        _ => service.persistence.timeout.map(|time| time.as_secs()),
    };
    let shortest = policies.chain(site.services.iter().filter_map(bound)).min();
    let mut servers = site.groups.values().flat_map(|group| &group.servers);
    let limited = servers.any(|server| server.max_connections.is_some());
    let longest = if limited { LIMITED } else { LONGEST };
    shortest.map_or(longest, |seconds| (seconds / 3).clamp(1, longest))
}

/// How often to look at the sessions while a flowtable carries some, so that each is seen there before
/// it leaves; `None` when nothing depends on it.
pub fn sweep_period(layout: &Layout) -> Option<Duration> {
    let lasts = layout.site.services.iter().any(|service| udp_seconds(service).is_some());
    let depends = lasts || renewal_period(layout).is_some();
    let flow = Duration::from_secs(flow_seconds(&layout.site));
    depends.then(|| flow - (flow / 5).min(Duration::from_secs(2)))
}

/// What becomes of the time of a UDP session of a service that has left the flowtable: there the
/// kernel counts as for every UDP session, not as the service says.
///
/// `left` is what is left of its time, `stream` what the kernel gives to every UDP session, `lasts` what
/// the service says, `since` the time since it was last seen in the flowtable. `None` when the time is
/// right: a packet met the rules since.
pub fn mended_time(left: u64, stream: u64, lasts: u64, since: u64) -> Option<u64> {
    if left <= lasts && left + since + 2 >= lasts {
        return None;
    }
    let idle = stream.saturating_sub(left);
    Some(lasts.saturating_sub(idle).max(1)).filter(|time| *time != left)
}

/// What comes of it.
pub fn wanted(site: &Site, facts: &Facts) -> Fast {
    let none = |reason: &str| Fast { reason: Some(reason.to_owned()), ..Fast::default() };
    let Some(asked) = offloading(site, facts) else {
        return none("the profile says `fast-path: off`");
    };
    let Some(offload) = &facts.offload else { return none("the kernel was not asked") };
    if let Some(missing) = &offload.missing {
        return none(missing);
    }
    let there = |device: &IfName| facts.links.contains_key(device);
    let mut fast = Fast {
        devices: offload.accepted.iter().filter(|device| there(device)).cloned().collect(),
        left_out: offload.refused.clone(),
        hardware: asked.hardware && offload.software.is_none(),
        software: offload.software.clone(),
        reason: None,
    };
    let gone = asked.devices.iter().filter(|device| !there(device));
    fast.left_out.extend(gone.map(|device| (device.clone(), "there is no such device".to_owned())));
    let uplink = |device: &IfName| site.uplinks.iter().any(|one| &one.interface == device);
    if !fast.devices.iter().any(uplink) {
        fast.reason = Some("no uplink's device takes part".to_owned());
    }
    fast
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test says what it expects

    use std::collections::BTreeMap;

    use super::{accounting, flow_seconds, mended_time, offloading, wanted};
    use crate::kstate::{Address, Facts, Link, Offload};
    use crate::model::{IfName, Site};
    use crate::profile;

    const PROFILE: &str = "
version: 1
site: test
uplinks: { fiber: { interface: wan0 }, cable: { interface: wan1 } }
";

    fn site(more: &str) -> Site {
        profile::load(&format!("{PROFILE}{more}")).site.unwrap()
    }

    fn name(text: &str) -> IfName {
        IfName::new(text).unwrap()
    }

    fn facts(devices: &[&str]) -> Facts {
        let mut facts = Facts::default();
        for (index, device) in (1..).zip(devices) {
            let loopback = *device == "lo";
            let link =
                Link { index, up: true, carrier: true, mtu: 1500, loopback, point_to_point: false };
            facts.links.insert(name(device), link);
            facts.addresses.insert(Address {
                device: name(device),
                net: format!("10.0.{index}.1/24").parse().unwrap(),
                peer: None,
                global: true,
                tentative: false,
                deprecated: false,
                temporary: false,
            });
        }
        let accepted = devices.iter().map(|device| name(device)).collect();
        facts.offload = Some(Offload { accepted, ..Offload::default() });
        facts
    }

    #[test]
    fn without_lans_every_device_with_an_address_takes_part() {
        let facts = facts(&["lo", "wan0", "lan0"]);
        let asked = offloading(&site(""), &facts).unwrap();
        assert_eq!(asked.devices, ["lan0", "wan0", "wan1"].map(name).into());
        let named = site("lans: { office: { interface: lan1 } }\n");
        let asked = offloading(&named, &facts).unwrap();
        assert_eq!(asked.devices, ["lan1", "wan0", "wan1"].map(name).into());
        assert_eq!(offloading(&site("fast-path: off\n"), &facts), None);
    }

    #[test]
    fn what_is_not_used_has_a_reason() {
        let mut facts = facts(&["wan0", "lan0"]);
        let fast = wanted(&site(""), &facts);
        assert_eq!(fast.reason, None);
        assert_eq!(fast.left_out.keys().map(IfName::as_str).collect::<Vec<_>>(), ["wan1"]);
        assert!(wanted(&site("fast-path: off\n"), &facts).reason.unwrap().contains("off"));
        facts.offload = Some(Offload { software: Some("no".into()), ..facts.offload.unwrap() });
        let fast = wanted(&site("fast-path: hardware\n"), &facts);
        let flowtable = fast.flowtable(&BTreeMap::new()).unwrap();
        assert!(!flowtable.hardware && !flowtable.counts);
        let counted = BTreeMap::from([(accounting(), "1".to_owned())]);
        assert!(fast.flowtable(&counted).unwrap().counts);
        assert_eq!(fast.software.as_deref(), Some("no"));
        facts.offload = Some(Offload { missing: Some("none".into()), ..Offload::default() });
        let fast = wanted(&site(""), &facts);
        assert_eq!((fast.reason.as_deref(), fast.flowtable(&counted)), (Some("none"), None));
    }

    #[test]
    fn a_flow_is_let_go_of_within_a_third_of_the_shortest_time() {
        assert_eq!(flow_seconds(&site("")), 30);
        let policy = |time: &str| {
            let persistence = format!("persistence: {{ by: source, timeout: {time} }}");
            site(&format!("policies: [{{ name: all, {persistence} }}]\n"))
        };
        assert_eq!(flow_seconds(&policy("1h")), 30);
        assert_eq!(flow_seconds(&policy("60s")), 20);
        assert_eq!(flow_seconds(&policy("2s")), 1);
        let group = |more: &str| {
            site(&format!(
                "groups: {{ web: {{ servers: {{ a: {{ address: 10.0.0.9{more} }} }} }} }}\n"
            ))
        };
        assert_eq!(flow_seconds(&group("")), 30);
        assert_eq!(flow_seconds(&group(", max-connections: 9")), 5, "its place is waited for");
    }

    #[test]
    fn a_datagram_s_session_lasts_as_its_service_says() {
        // The kernel gives 120 s, the flowtable let go after 30 s, and that is 5 s ago.
        assert_eq!(mended_time(85, 120, 180, 24), Some(145));
        assert_eq!(mended_time(117, 120, 3, 1), Some(1), "its time is over");
        assert_eq!(mended_time(119, 120, 180, 24), Some(179), "let out with others");
        assert_eq!(mended_time(170, 120, 180, 24), None, "a packet met the rules");
        assert_eq!(mended_time(2, 120, 3, 1), None, "a packet met the rules");
        assert_eq!(mended_time(88, 120, 120, 24), None, "nothing to mend");
    }
}
