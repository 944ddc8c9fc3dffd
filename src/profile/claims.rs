//! Services that claim the same port of the same address.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{PortRange, Protocol, Service, Virtual};

use super::fields::Fields;
use super::finding::Findings;

/// Ports of one address and protocol, each with the service that claims it.
type Claims = Vec<(PortRange, usize)>;

/// Reports the later one of each such pair.
pub(super) fn check(services: &[(Service, Fields<'_>)], out: &mut Findings) {
    let mut pairs = BTreeSet::new();
    for mut claims in gather(services) {
        claims.sort_unstable();
        conflicts(&claims, &mut pairs);
    }
    for (later, earlier) in pairs {
        if let (Some((_, fields)), Some((other, _))) = (services.get(later), services.get(earlier))
        {
            let message =
                format!("service `{}` has the same address, protocol and port", other.name);
            out.error_with(fields.node(), message, "a port of an address belongs to one service");
        }
    }
}

fn gather(services: &[(Service, Fields<'_>)]) -> Vec<Claims> {
    let every = PortRange { first: 0, last: u16::MAX };
    let mut claims: BTreeMap<(&Virtual, Option<Protocol>), Claims> = BTreeMap::new();
    for (index, (service, _)) in services.iter().enumerate() {
        for address in &service.virtuals {
            if service.protocols.is_empty() {
                claims.entry((address, None)).or_default().push((every, index));
            }
            for &protocol in &service.protocols {
                let claim = claims.entry((address, Some(protocol))).or_default();
                claim.extend(service.ports.iter().map(|&range| (range, index)));
            }
        }
    }
    claims.into_values().collect()
}

/// Sorted, a range that overlaps any earlier one overlaps the one that reaches farthest.
fn conflicts(claims: &[(PortRange, usize)], pairs: &mut BTreeSet<(usize, usize)>) {
    let mut farthest: Option<(u16, usize)> = None;
    for &(range, index) in claims {
        if let Some((_, other)) = farthest.filter(|&(last, _)| range.first <= last)
            && other != index
        {
            pairs.insert((index.max(other), index.min(other)));
        }
        if farthest.is_none_or(|(last, _)| range.last > last) {
            farthest = Some((range.last, index));
        }
    }
}
