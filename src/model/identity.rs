//! The small numbers that stand for names in the kernel.

use std::fmt;

/// A number that stands for a member or a balancer in marks; 0 means "none".
pub trait MemberId: Copy + Ord + fmt::Debug {
    /// Wraps a number.
    fn from_number(number: u8) -> Self;
    /// The number.
    fn number(self) -> u8;
}

macro_rules! member_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u8);

        impl MemberId for $name {
            fn from_number(number: u8) -> Self {
                $name(number)
            }

            fn number(self) -> u8 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

member_id!(
    /// 1 to 62: an uplink's mark, table and rule priorities derive from it.
    UplinkId
);
member_id!(
    /// 1 to 255: a policy, in the connection mark.
    PolicyId
);
member_id!(
    /// 1 to 255: a server within its group, in the connection mark.
    ServerId
);

/// A group of servers, from 1 on; with a [`ServerId`] it names one server of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number from 1 to `max` that a name asks for, before anybody else has it.
///
/// FNV-1a of 32 bits, its result mixed once more so that names that differ in the last letter
/// alone (`isp1`, `isp2`) fall far apart. The same in every version: live sessions carry the number.
pub fn natural_id(name: &str, max: u32) -> u32 {
    let fnv = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let mut hash = name.bytes().fold(0x811c_9dc5, fnv);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x7feb_352d);
    hash = (hash ^ (hash >> 15)).wrapping_mul(0x846c_a68b);
    hash ^= hash >> 16;
    hash % max.max(1) + 1
}

#[cfg(test)]
mod tests {
    use super::natural_id;

    #[test]
    fn a_natural_id_is_in_range_and_never_changes() {
        for max in [0, 1, 2, 62, 255] {
            for name in ["", "fiber", "cable", "lte", "isp1", "isp2"] {
                assert!((1..=max.max(1)).contains(&natural_id(name, max)), "{name} {max}");
            }
        }
        let known = ["fiber", "cable", "lte"].map(|name| natural_id(name, 62));
        assert_eq!(known, [28, 37, 5]);
    }
}
