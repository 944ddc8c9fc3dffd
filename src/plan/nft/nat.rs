//! Source translation: an address is data, never a literal in a rule (but for those of which a device
//! has several, in vpn.rs: chains bear their names anyway).

use super::build::{Builder, names};
use super::matching::{anonymous_set, nets_of};
use super::vpn;
use crate::model::{Family, NatMode};
use crate::plan::view::Layout;

const HOOK: &str = "type nat hook postrouting priority srcnat; policy accept;";

/// Ports that are seldom a service's.
const OTHER_PORTS: &str = "32768-65535";

/// Only the first packet of a session comes here.
pub(super) fn add_chains(table: &mut Builder, layout: &Layout) {
    let uplink = layout.site.marks.uplink;
    let mut rules = table.hook("postrouting", HOOK);
    if !layout.site.services.is_empty() {
        // The server would answer the client without us.
        let (server, hairpin) = (layout.site.marks.server, names::HAIRPIN);
        rules.rule(format!("ct mark & {server} != 0 ct status dnat jump {hairpin}"), "services");
    }
    rules
        .rule(format!("oifname != @{} accept", names::UPLINKS), "")
        .rule("rt ipsec exists accept", "")
        .rule(format!("ct mark & {uplink} == 0 oifname vmap @{}", names::ENTRY), "")
        .rule("ip6 saddr fe80::/10 accept", "");
    vpn::add_translation(&mut rules, layout);
    for (member, _) in layout.uplinks() {
        let origin = format!("uplinks.{}", member.name);
        if member.nat == NatMode::Never {
            rules
                .rule(format!("oifname \"{}\" accept", member.interface), &format!("{origin}.nat"));
        }
        for (family, word) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
            let nets = nets_of(member.prefixes.iter(), family);
            if member.nat == NatMode::Auto && !nets.is_empty() {
                let (device, set) = (&member.interface, anonymous_set(&nets));
                let rule = format!("oifname \"{device}\" {word} saddr {set} accept");
                rules.rule(rule, &format!("{origin}.prefixes"));
            }
        }
    }
    for (family, word) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        let (own, snat) = (names::own(family), names::snat(family));
        rules.rule(format!("oifname . {word} saddr @{own} accept"), "");
        if layout.groups().any(|group| group.serves(family)) {
            // From the port of its service it would take the client's next packets for itself.
            let other = format!("snat {word} to oifname map @{snat} : {OTHER_PORTS} random");
            let left = names::left(family);
            rules.rule(format!("meta l4proto udp {word} saddr @{left} {other}"), "services");
        }
        rules.rule(format!("snat {word} to oifname map @{snat}"), "");
    }
    rules.rule("drop", "");
}
