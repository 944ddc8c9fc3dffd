//! An ISP as the tests and the lab handle it: what it saw, and how it fails.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::capture::{self, Sighting};
use super::{CUSTOMER_SIDE, IspLayout, LabError, Layout, Namespace, PORTAL, build, server};
use crate::model::Family;

/// Which server of the internet plays the captive portal.
const PORTAL_SERVER: usize = 2;

/// A way in which a line or a server fails; each has some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The cable is pulled: our interface loses its carrier.
    Carrier,
    /// It answers nothing at all; the carrier stays.
    Silent,
    /// This share of what we send to it is lost, in percent.
    Loss(u8),
    /// The gateway answers, and nothing behind it.
    GatewayOnly,
    /// The gateway answers, names are found, web pages turn out to be the ISP's login page, and
    /// everything else is lost.
    Captive,
    /// A server that answers pings alone: connections are reset, datagrams refused.
    Refuse,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let percent = |text: &str| {
            let number = text.trim_end_matches('%').parse::<u8>().ok();
            number.filter(|n| (1..=100).contains(n)).map(Fault::Loss)
        };
        match text {
            "carrier" => Some(Fault::Carrier),
            "silent" => Some(Fault::Silent),
            "gateway-only" => Some(Fault::GatewayOnly),
            "captive" => Some(Fault::Captive),
            "refuse" => Some(Fault::Refuse),
            other => other.strip_prefix("loss=").and_then(percent),
        }
        .ok_or_else(|| {
            format!(
                "`{text}` is none of: carrier, silent, loss=30% (1 to 100), gateway-only, \
                 captive; of a server: silent, loss=30%, refuse"
            )
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Carrier => f.write_str("carrier"),
            Fault::Silent => f.write_str("silent"),
            Fault::Loss(percent) => write!(f, "loss={percent}%"),
            Fault::GatewayOnly => f.write_str("gateway-only"),
            Fault::Captive => f.write_str("captive"),
            Fault::Refuse => f.write_str("refuse"),
        }
    }
}

/// One ISP of a site.
#[derive(Debug, Clone)]
pub struct Isp {
    layout: IspLayout,
    space: Namespace,
}

impl Isp {
    /// The ISP of that name in a site, also in one that another process built.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(layout: &Layout, name: &str) -> Result<Isp, LabError> {
        let isp = layout.find(name)?;
        Ok(Isp { layout: isp.clone(), space: layout.isp(isp) })
    }

    /// Addresses and names.
    pub fn layout(&self) -> &IspLayout {
        &self.layout
    }

    /// Its namespace.
    pub fn space(&self) -> &Namespace {
        &self.space
    }

    /// Everything that came from the customer.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn sightings(&self) -> Result<BTreeSet<Sighting>, LabError> {
        capture::sightings(&self.space)
    }

    /// The sources of everything that came from the customer.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn sources_seen(&self) -> Result<BTreeSet<IpAddr>, LabError> {
        Ok(self.sightings()?.into_iter().map(|s| s.source).collect())
    }

    /// The TCP segment sizes that came announced in SYNs.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn segment_sizes_seen(&self) -> Result<BTreeSet<u64>, LabError> {
        capture::segment_sizes(&self.space)
    }

    /// Empties the record.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn forget(&self) -> Result<(), LabError> {
        capture::forget(&self.space)
    }

    /// Breaks the line; a fault that was there before is replaced.
    ///
    /// # Errors
    /// When lines do not fail like this, or a tool refuses.
    pub fn fail(&self, fault: Fault) -> Result<(), LabError> {
        self.check(fault)?;
        match fault {
            Fault::Carrier => self.space.ip(&[format!("link set {CUSTOMER_SIDE} down")]),
            other => self.space.nft(&script(other)),
        }
    }

    /// That a line can fail like this.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check(&self, fault: Fault) -> Result<(), LabError> {
        match fault {
            Fault::Carrier
            | Fault::Silent
            | Fault::Loss(_)
            | Fault::GatewayOnly
            | Fault::Captive => Ok(()),
            Fault::Refuse => Err(LabError::Unsuitable {
                name: self.layout.name.clone(),
                kind: "an uplink",
                fault: fault.to_string(),
                known: "carrier, silent, loss=30%, gateway-only, captive",
            }),
        }
    }

    /// Mends the line, whatever was wrong.
    ///
    /// # Errors
    /// When a tool refuses.
    pub fn heal(&self) -> Result<(), LabError> {
        self.space.nft("add table inet fault\ndelete table inet fault\n")?;
        // The kernel forgets link-local addresses and routes of a link that went down.
        self.space.ip(&build::isp_line(&self.layout))
    }
}

fn script(fault: Fault) -> String {
    let rules = match fault {
        Fault::Carrier | Fault::Refuse => "",
        Fault::Silent => {
            r#"
    chain in {
        type filter hook prerouting priority -250
        iifname "cust" drop
    }
    chain out {
        type filter hook postrouting priority -250
        oifname "cust" icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        oifname "cust" drop
    }"#
        }
        Fault::Loss(percent) => &format!(
            r#"
    chain in {{
        type filter hook prerouting priority -250
        iifname "cust" numgen random mod 100 <= {} drop
    }}"#,
            percent.saturating_sub(1)
        ),
        Fault::GatewayOnly => {
            r#"
    chain through {
        type filter hook forward priority -250
        drop
    }"#
        }
        Fault::Captive => &captive(),
    };
    format!("add table inet fault\ndelete table inet fault\ntable inet fault {{{rules}\n}}\n")
}

/// The login page is a server of the internet, so that the ISP needs none of its own.
fn captive() -> String {
    let [portal4, portal6] = Family::BOTH.map(|family| server(family, PORTAL_SERVER));
    format!(
        r#"
    chain login {{
        type nat hook prerouting priority -100
        iifname "cust" fib daddr type local accept
        iifname "cust" meta nfproto ipv4 tcp dport 80 dnat ip to {portal4}:{PORTAL}
        iifname "cust" meta nfproto ipv6 tcp dport 80 dnat ip6 to [{portal6}]:{PORTAL}
    }}
    chain through {{
        type filter hook forward priority -250
        ct status dnat accept
        udp dport 53 accept
        udp sport 53 accept
        drop
    }}"#
    )
}

#[cfg(test)]
mod tests {
    use super::Fault;

    #[test]
    fn faults_are_read_as_they_are_written() {
        let plain = [Fault::Carrier, Fault::Silent, Fault::GatewayOnly, Fault::Captive];
        for fault in plain.into_iter().chain([Fault::Refuse, Fault::Loss(30)]) {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        for bad in ["", "loss", "loss=0%", "loss=101%", "loss=x", "cable"] {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }
}
