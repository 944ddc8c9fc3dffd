//! What an ISP saw of us: an nft set at its customer's side records every packet's ends.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::{LabError, Namespace};

/// Records source, destination and protocol of everything that comes from the customer, before
/// any fault drops it.
pub(super) const SCRIPT: &str = r#"
table inet watch {
    set seen4 {
        type ipv4_addr . ipv4_addr . inet_proto
        flags dynamic
        size 65536
    }
    set seen6 {
        type ipv6_addr . ipv6_addr . inet_proto
        flags dynamic
        size 65536
    }
    set mss {
        typeof tcp option maxseg size
        flags dynamic
        size 1024
    }
    chain customer {
        type filter hook prerouting priority -310
        iifname "cust" add @seen4 { ip saddr . ip daddr . meta l4proto }
        iifname "cust" add @seen6 { ip6 saddr . ip6 daddr . meta l4proto }
        iifname "cust" tcp flags & syn == syn add @mss { tcp option maxseg size }
    }
}
"#;

/// Ends and protocol of packets that came from the customer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Where they claimed to come from.
    pub source: IpAddr,
    /// Where they wanted to go.
    pub destination: IpAddr,
    /// `tcp`, `udp`, …, or a number.
    pub protocol: String,
}

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sighting {
            source,
            destination,
            protocol,
        } = self;
        write!(f, "{protocol} {source} > {destination}")
    }
}

/// Packets at an ISP whose source was not ours to use there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// The ISP.
    pub isp: String,
    /// The packets.
    pub packets: Vec<Sighting>,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "foreign sources at ISP {}:", self.isp)?;
        self.packets.iter().try_for_each(|p| write!(f, " [{p}]"))
    }
}

/// Everything seen since the last [`forget`].
pub(super) fn sightings(isp: &Namespace) -> Result<BTreeSet<Sighting>, LabError> {
    let listing = isp.nft_json(&["list", "table", "inet", "watch"])?;
    Ok(elements(&listing, &["seen4", "seen6"])
        .iter()
        .filter_map(sighting)
        .collect())
}

/// The segment sizes that were announced in SYNs.
pub(super) fn segment_sizes(isp: &Namespace) -> Result<BTreeSet<u64>, LabError> {
    let listing = isp.nft_json(&["list", "table", "inet", "watch"])?;
    Ok(elements(&listing, &["mss"])
        .iter()
        .filter_map(Value::as_u64)
        .collect())
}

/// Empties the record.
pub(super) fn forget(isp: &Namespace) -> Result<(), LabError> {
    isp.nft("flush set inet watch seen4\nflush set inet watch seen6\nflush set inet watch mss\n")
}

fn elements(listing: &Value, sets: &[&str]) -> Vec<Value> {
    let objects = listing["nftables"].as_array().into_iter().flatten();
    objects
        .map(|object| &object["set"])
        .filter(|set| sets.iter().any(|name| set["name"] == *name))
        .flat_map(|set| set["elem"].as_array().cloned().unwrap_or_default())
        .map(|element| match element.get("elem") {
            Some(inner) => inner["val"].clone(),
            None => element,
        })
        .collect()
}

fn sighting(element: &Value) -> Option<Sighting> {
    let parts = element["concat"].as_array()?;
    let [source, destination, protocol] = parts.as_slice() else {
        return None;
    };
    Some(Sighting {
        source: source.as_str()?.parse().ok()?,
        destination: destination.as_str()?.parse().ok()?,
        protocol: match protocol.as_str() {
            Some(name) => name.to_owned(),
            None => protocol.to_string(),
        },
    })
}

/// Sources that anybody may use on a line: nobody's, link-local.
pub(super) fn harmless(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(v4) => v4 == Ipv4Addr::UNSPECIFIED || v4.is_link_local(),
        IpAddr::V6(v6) => v6 == Ipv6Addr::UNSPECIFIED || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{elements, sighting};

    #[test]
    fn elements_are_read_with_and_without_extras() {
        let plain = json!({"concat": ["198.51.101.2", "203.0.113.10", "tcp"]});
        let timed = json!({"elem": {"val": {"concat": ["10.1.0.9", "203.0.113.10", 47]}}});
        let listing = json!({"nftables": [{"metainfo": {}},
            {"set": {"name": "seen4", "elem": [plain, timed]}}, {"set": {"name": "seen6"}}]});
        let seen: Vec<String> = elements(&listing, &["seen4", "seen6"])
            .iter()
            .filter_map(sighting)
            .map(|s| s.to_string())
            .collect();
        assert_eq!(
            seen,
            [
                "tcp 198.51.101.2 > 203.0.113.10",
                "47 10.1.0.9 > 203.0.113.10"
            ]
        );
    }
}
