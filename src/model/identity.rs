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
