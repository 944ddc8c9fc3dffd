//! Networks of different owners that overlap.

use ipnet::IpNet;

use crate::model::{Lan, Name};

use super::fields::Fields;
use super::finding::Findings;
use super::net::parse_prefix;
use super::tree::{Kind, Node};
use super::uplinks::Uplinks;

/// A network, whose it is, and where it is written.
struct Claim<'t> {
    net: IpNet,
    owner: &'t Name,
    node: Node<'t>,
}

/// LANs must be told apart by their addresses.
pub(super) fn lans(lans: &[(Lan, Fields<'_>)], out: &mut Findings) {
    let mut claims = Vec::new();
    for (lan, fields) in lans {
        collect(&lan.name, fields.raw("networks"), &mut claims);
    }
    report(claims, "LAN", "a network belongs to one LAN", out);
}

/// A source inside an uplink's prefixes leaves by that uplink, so only one can have it.
pub(super) fn prefixes(uplinks: &Uplinks<'_>, out: &mut Findings) {
    let mut claims = Vec::new();
    for (uplink, fields) in uplinks.uplinks.iter().zip(&uplinks.nodes) {
        collect(&uplink.name, fields.raw("prefixes"), &mut claims);
    }
    report(claims, "uplink", "a prefix belongs to the uplink whose ISP routes it here", out);
}

fn collect<'t>(owner: &'t Name, node: Option<Node<'t>>, claims: &mut Vec<Claim<'t>>) {
    let Some(node) = node else { return };
    let mut claim = |node: Node<'t>| {
        let net = node.text().and_then(parse_prefix);
        claims.extend(net.map(|net| Claim { net, owner, node }));
    };
    match node.kind() {
        Kind::Sequence => node.items().for_each(claim),
        _ => claim(node),
    }
}

/// Sorted, a network stands right after those that hold it.
fn report(mut claims: Vec<Claim<'_>>, what: &str, hint: &str, out: &mut Findings) {
    claims.sort_by_key(|claim| claim.net);
    let mut holders: Vec<&Claim<'_>> = Vec::new();
    for claim in &claims {
        while holders.pop_if(|holder| !holder.net.contains(&claim.net)).is_some() {}
        if let Some(other) = holders.iter().find(|holder| holder.owner != claim.owner) {
            let (later, earlier) = if claim.node.place() >= other.node.place() {
                (claim, *other)
            } else {
                (*other, claim)
            };
            let message =
                format!("`{}` overlaps `{}` of {what} `{}`", later.net, earlier.net, earlier.owner);
            out.error_with(later.node, message, hint);
        }
        holders.push(claim);
    }
}
