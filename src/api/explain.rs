//! `GET /v1/explain?from=ADDR&to=ADDR…`: the question in a URL, there and back.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Deserialize;

use crate::model::{Dscp, Family};
use crate::plan::explain::Question;

/// The question as users write it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The source address.
    pub from: IpAddr,
    /// The destination address.
    pub to: IpAddr,
    /// `tcp` (without one), `udp`, `icmp`, …, or a number.
    pub protocol: Option<String>,
    /// The destination port.
    pub port: Option<u16>,
    /// The source port.
    #[serde(rename = "source-port")]
    pub source_port: Option<u16>,
    /// The code point.
    pub dscp: Option<u8>,
    /// In by which LAN, uplink or device.
    #[serde(rename = "in")]
    pub input: Option<String>,
}

/// Protocols that have names, by the family that they are of.
const NAMES: [(&str, u8); 9] = [
    ("tcp", 6),
    ("udp", 17),
    ("igmp", 2),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("dccp", 33),
    ("sctp", 132),
    ("udplite", 136),
];

impl Asked {
    /// As a path for the API. Names are plain words, so nothing needs to be escaped.
    pub fn path(&self) -> String {
        let mut path = format!("/v1/explain?from={}&to={}", self.from, self.to);
        let protocol = self.protocol.as_ref().map(ToString::to_string);
        let numbers = [
            ("protocol", protocol),
            ("port", self.port.map(|n| n.to_string())),
            ("source-port", self.source_port.map(|n| n.to_string())),
            ("dscp", self.dscp.map(|n| n.to_string())),
            ("in", self.input.clone()),
        ];
        for (key, value) in numbers {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(path, "&{key}={value}");
            }
        }
        path
    }

    /// The question that it is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn question(&self) -> Result<Question, String> {
        let (from, to) = (self.from, self.to);
        if from.is_ipv4() != to.is_ipv4() {
            return Err(format!("{from} and {to} are not of one family"));
        }
        let protocol = number(self.protocol.as_deref().unwrap_or("tcp"), Family::of(to))?;
        let dscp = self.dscp.unwrap_or(0);
        if dscp > 63 {
            return Err(format!("dscp {dscp} is not between 0 and 63"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if let Some(name) = self.input.as_ref().filter(|name| !name.chars().all(plain)) {
            return Err(format!("`{name}` is no name of a LAN, an uplink or an interface"));
        }
        let with_ports = crate::model::Protocol::Number(protocol).has_ports();
        if !with_ports && (self.port.is_some() || self.source_port.is_some()) {
            return Err(format!("protocol {protocol} has no ports"));
        }
        Ok(Question {
            source: from,
            destination: to,
            protocol,
            port: self.port,
            source_port: self.source_port,
            dscp: Dscp(dscp),
            input: self.input.clone(),
        })
    }
}

fn number(text: &str, family: Family) -> Result<u8, String> {
    if ["icmp", "icmpv6", "ipv6-icmp"].contains(&text) {
        return Ok(if family == Family::V4 { 1 } else { 58 });
    }
    let named = NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok()).ok_or_else(|| {
        format!("`{text}` is not a protocol: say tcp, udp, icmp, or a number up to 255")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)] // a test says what it expects

    use super::Asked;

    fn asked(from: &str, to: &str) -> Asked {
        Asked {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            protocol: None,
            port: None,
            source_port: None,
            dscp: None,
            input: None,
        }
    }

    #[test]
    fn without_a_protocol_it_is_tcp_and_icmp_is_its_family_s() {
        let v4 = asked("192.0.2.1", "203.0.113.1");
        let v6 = asked("2001:db8::1", "2001:db8::2");
        assert_eq!(v4.question().map(|q| q.protocol), Ok(6));
        for (question, number) in [(v4, 1), (v6, 58)] {
            let icmp = Asked { protocol: Some("icmp".to_owned()), ..question };
            assert_eq!(icmp.question().map(|q| q.protocol), Ok(number));
            assert!(Asked { port: Some(1), ..icmp }.question().is_err(), "icmp has no ports");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(asked("192.0.2.1", "2001:db8::2").question().is_err());
        let good = asked("192.0.2.1", "203.0.113.1");
        for bad in ["tpc", "256", ""] {
            assert!(Asked { protocol: Some(bad.into()), ..good.clone() }.question().is_err());
        }
        assert!(Asked { dscp: Some(64), ..good }.question().is_err());
    }

    #[test]
    fn a_path_says_all() {
        let full = Asked { port: Some(443), input: Some("office".into()), ..asked("::1", "::2") };
        assert_eq!(full.path(), "/v1/explain?from=::1&to=::2&port=443&in=office");
    }
}
