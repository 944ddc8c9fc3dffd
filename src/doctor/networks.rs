//! Devices, networks and sizes of the site.

use ipnet::IpNet;

use super::{Finding, error, warning};
use crate::kstate::Facts;
use crate::model::{Family, IfName, Site};

/// No IPv6 link may carry less.
const LEAST_MTU: u32 = 1280;

/// A network and who has it.
struct Owned<'a> {
    net: IpNet,
    device: &'a IfName,
    owner: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uplink,
    Lan,
    Other,
}

pub(super) fn examine(site: &Site, facts: &Facts, out: &mut Vec<Finding>) {
    let uplinks = site.uplinks.iter().map(|u| (format!("uplink {}", u.name), &u.interface));
    let lans = site.lans.iter().map(|lan| (format!("LAN {}", lan.name), &lan.interface));
    for (owner, device) in uplinks.chain(lans) {
        let Some(link) = facts.links.get(device) else {
            out.push(warning(
                "no-device",
                format!("{owner}: there is no device {device}"),
                "`ip link` shows what there is; a device that comes later is taken up then",
            ));
            continue;
        };
        let six = facts.addresses_of(device, Family::V6).next().is_some();
        if six && link.mtu < LEAST_MTU {
            out.push(warning(
                "mtu",
                format!("{owner}: {device} has an MTU of {}: IPv6 needs {LEAST_MTU}", link.mtu),
                format!("`ip link set {device} mtu 1280` or more, if the line carries it"),
            ));
        }
    }
    overlaps(&networks(site, facts), out);
}

fn networks<'a>(site: &'a Site, facts: &'a Facts) -> Vec<Owned<'a>> {
    let mut all = Vec::new();
    for address in facts.addresses.iter().filter(|address| address.global) {
        let device = &address.device;
        let uplink = site.uplinks.iter().find(|uplink| uplink.interface == *device);
        let lan = site.lans.iter().find(|lan| lan.interface == *device);
        let (owner, kind) = match (uplink, lan) {
            (Some(uplink), _) => (format!("uplink {} ({device})", uplink.name), Kind::Uplink),
            (_, Some(lan)) => (format!("LAN {} ({device})", lan.name), Kind::Lan),
            // Without `lans`, every other device is inside.
            _ if site.lans.is_empty() => (device.to_string(), Kind::Lan),
            _ => (device.to_string(), Kind::Other),
        };
        all.push(Owned { net: address.net.trunc(), device, owner, kind });
    }
    for lan in &site.lans {
        for net in &lan.networks {
            let owner = format!("LAN {} ({})", lan.name, lan.interface);
            all.push(Owned { net: net.trunc(), device: &lan.interface, owner, kind: Kind::Lan });
        }
    }
    // A single address is no network; what it stands for is behind its peer.
    all.retain(|owned| owned.net.prefix_len() < owned.net.max_prefix_len());
    all
}

fn overlaps(all: &[Owned<'_>], out: &mut Vec<Finding>) {
    let mut told: Vec<(&IfName, &IfName)> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        for other in &all[index + 1..] {
            let pair = (one.device.min(other.device), one.device.max(other.device));
            let overlap = one.net.contains(&other.net) || other.net.contains(&one.net);
            // Two uplinks may share a subnet.
            let may = one.kind == other.kind && one.kind != Kind::Lan;
            if !overlap || may || one.device == other.device || told.contains(&pair) {
                continue;
            }
            told.push(pair);
            let message = format!(
                "{} of {} overlaps {} of {}: the kernel knows one way for both",
                one.net, one.owner, other.net, other.owner
            );
            let remedy = "renumber one of them (a modem's LAN is the easiest)";
            out.push(error("overlap", message, remedy));
        }
    }
}
