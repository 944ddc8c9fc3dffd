//! Names that users give, and names of the kernel's network devices.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A string that does not fit the grammar of the name it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(String);

/// The name of an uplink, LAN, policy, group, server, service or probe: `[a-z][a-z0-9-]{0,30}`. It
/// stands in many places, so a clone is the same text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Longest name, in bytes.
    pub const MAX: usize = 31;

    /// Checks the grammar.
    ///
    /// # Errors
    /// When the text is not `[a-z][a-z0-9-]{0,30}`.
    pub fn new(text: &str) -> Result<Name, InvalidName> {
        let mut bytes = text.bytes();
        let head = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
        let tail = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if head && tail && text.len() <= Name::MAX {
            return Ok(Name(text.into()));
        }
        Err(InvalidName(format!(
            "`{text}` is not a name: a lower-case letter, then up to 30 of a-z, 0-9 and `-`"
        )))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A network device's name, restricted to `[A-Za-z0-9_.@-]{1,15}` (`IFNAMSIZ` less the final NUL).
///
/// The kernel allows more (quotes, `;`, `*`), but such names would reach nft scripts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfName(String);

impl IfName {
    /// Checks the grammar.
    ///
    /// # Errors
    /// When the text is empty, longer than 15 bytes, `.`, `..`, or holds another character.
    pub fn new(text: &str) -> Result<IfName, InvalidName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.@-".contains(&b);
        let reserved = matches!(text, "." | ".." | "all" | "default");
        if (1..=15).contains(&text.len()) && text.bytes().all(allowed) && !reserved {
            return Ok(IfName(text.to_owned()));
        }
        Err(InvalidName(format!(
            "`{text}` is not an interface name: 1 to 15 of A-Z, a-z, 0-9, `_`, `.`, `@` and `-`"
        )))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Borrow<str> for IfName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{IfName, Name};

    #[test]
    fn names_follow_the_grammar() {
        for good in ["a", "fiber", "isp-2", "x123456789012345678901234567890"] {
            assert_eq!(Name::new(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "Fiber", "1a", "-a", "a_b", "a.b", "x1234567890123456789012345678901"] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interface_names_cannot_break_out_of_a_script() {
        for good in ["wan0", "eth0.100", "br-lan", "ppp@if3", "ABCDEFGHIJKLMNO"] {
            assert!(IfName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\"", "a;b", "wan*", "a/b", "ABCDEFGHIJKLMNOP", "é", "all", ".."] {
            assert!(IfName::new(bad).is_err(), "{bad}");
        }
    }
}
