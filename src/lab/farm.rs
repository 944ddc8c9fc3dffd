//! A server of the DMZ as the lab handles it: how it fails.
//!
//! Its faults are rules in its own namespace. It can still call itself, and goes on answering for
//! its address on the wire: the router sees a host that is there and does not serve.

use super::{Fault, LabError, Layout, Namespace};

/// One server of the DMZ.
#[derive(Debug, Clone)]
pub struct FarmServer {
    name: String,
    space: Namespace,
}

impl FarmServer {
    /// The server of that name in a site, also in one that another process built.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(layout: &Layout, name: &str) -> Result<FarmServer, LabError> {
        let index = layout.find_farm(name)?;
        Ok(FarmServer { name: name.to_owned(), space: layout.farm_space(index) })
    }

    /// Its namespace.
    pub fn space(&self) -> &Namespace {
        &self.space
    }

    /// Breaks the server; a fault that was there before is replaced.
    ///
    /// # Errors
    /// When servers do not fail like this, or nft refuses.
    pub fn fail(&self, fault: Fault) -> Result<(), LabError> {
        let rules = match fault {
            Fault::Silent => SILENT.to_owned(),
            Fault::Refuse => REFUSE.to_owned(),
            Fault::Loss(percent) => loss(percent),
            Fault::Carrier | Fault::GatewayOnly | Fault::Captive => {
                return Err(LabError::Unsuitable {
                    name: self.name.clone(),
                    kind: "a server",
                    fault: fault.to_string(),
                    known: "silent, refuse, loss=30%",
                });
            }
        };
        self.space.nft(&format!("{HEAL}table inet fault {{{rules}\n}}\n"))
    }

    /// Mends the server, whatever was wrong.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn heal(&self) -> Result<(), LabError> {
        self.space.nft(HEAL)
    }
}

const HEAL: &str = "add table inet fault\ndelete table inet fault\n";

const SILENT: &str = r#"
    chain in {
        type filter hook prerouting priority -250
        iifname "lo" accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        drop
    }
    chain out {
        type filter hook postrouting priority -250
        oifname "lo" accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        drop
    }"#;

const REFUSE: &str = r#"
    chain in {
        type filter hook input priority 0
        iifname "lo" accept
        meta l4proto tcp reject with tcp reset
        meta l4proto udp reject
    }"#;

fn loss(percent: u8) -> String {
    let last = percent.saturating_sub(1);
    format!(
        r#"
    chain in {{
        type filter hook prerouting priority -250
        iifname "lo" accept
        numgen random mod 100 <= {last} drop
    }}"#
    )
}
