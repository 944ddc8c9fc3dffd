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

/// The number that a name asks for, from 1 to `max`: the same on every router, in every year.
///
/// FNV-1a over the name, then the finishing mix of MurmurHash3, so that names which differ in one
/// letter spread.
pub fn natural_id(name: &str, max: u32) -> u32 {
    let fnv = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let mut hash = name.bytes().fold(0x811c_9dc5, fnv);
    for (shift, factor) in [(16, 0x85eb_ca6b_u32), (13, 0xc2b2_ae35), (16, 1)] {
        hash = (hash ^ (hash >> shift)).wrapping_mul(factor);
    }
    hash % max.max(1) + 1
}
