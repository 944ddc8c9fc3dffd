//! Objects of the nft table that rules name: how connection tracking is to treat a session.
//!
//! An object's name says all that it is, so names alone are compared.

use std::fmt;

use crate::model::{Family, Helper};

/// An object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// How long the kernel keeps an idle UDP session.
    UdpTimeout {
        /// Of this family.
        family: Family,
        /// That long.
        seconds: u64,
    },
    /// Follows what a protocol says of its second connections.
    Helper(Helper),
}

impl Object {
    /// Its name in rules.
    pub fn name(&self) -> String {
        match self {
            Object::UdpTimeout { family, seconds } => format!("udp{}-{seconds}", family.digit()),
            Object::Helper(helper) => helper.as_str().to_owned(),
        }
    }

    /// The object of that name.
    pub fn named(name: &str) -> Option<Object> {
        let helpers = [Helper::Ftp, Helper::Sip, Helper::Tftp];
        if let Some(helper) = helpers.into_iter().find(|helper| helper.as_str() == name) {
            return Some(Object::Helper(helper));
        }
        let (kind, seconds) = name.split_once('-')?;
        let families = Family::BOTH.into_iter();
        let family = families
            .into_iter()
            .find(|f| kind.strip_prefix("udp") == Some(f.digit().to_string().as_str()))?;
        Some(Object::UdpTimeout { family, seconds: seconds.parse().ok()? })
    }

    /// What nft calls its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Object::UdpTimeout { .. } => "ct timeout",
            Object::Helper(_) => "ct helper",
        }
    }

    /// What stands between the braces.
    pub fn declaration(&self) -> String {
        match self {
            Object::UdpTimeout { family, seconds } => {
                let protocol = match family {
                    Family::V4 => "ip",
                    Family::V6 => "ip6",
                };
                format!(
                    "protocol udp; l3proto {protocol}; policy = {{ unreplied : {seconds}, replied \
                     : {seconds} }};"
                )
            }
            Object::Helper(helper) => {
                format!("type \"{}\" protocol {};", helper.as_str(), helper.transport())
            }
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Object;
    use crate::model::{Family, Helper};

    #[test]
    fn a_name_says_all() {
        for object in
            [Object::UdpTimeout { family: Family::V6, seconds: 180 }, Object::Helper(Helper::Tftp)]
        {
            assert_eq!(Object::named(&object.name()), Some(object));
        }
        assert_eq!(Object::named("udp5-1"), None);
    }
}
