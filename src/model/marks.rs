//! Numbers that the kernel carries for us: marks, routing tables, rule priorities.

use std::fmt;

/// A value of the packet mark or of the connection mark, already in its place under a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mark(pub u32);

/// Which bits of a mark one owner uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MarkMask(pub u32);

/// A routing table's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

/// The priority of an `ip rule`: lower is looked at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RulePriority(pub u32);

impl MarkMask {
    /// The mask's width in bits, if the bits are adjacent and there is at least one.
    pub fn width(self) -> Option<u32> {
        let shifted = self.0.checked_shr(self.0.trailing_zeros())?;
        let adjacent = shifted != 0 && shifted & shifted.wrapping_add(1) == 0;
        adjacent.then_some(shifted.count_ones())
    }

    /// The greatest number that fits under the mask; 0 when the bits are not adjacent.
    pub fn max(self) -> u32 {
        self.width().map_or(0, |_| self.0 >> self.0.trailing_zeros())
    }

    /// Puts a number in place under the mask.
    pub fn place(self, number: u32) -> Mark {
        Mark((number << self.0.trailing_zeros()) & self.0)
    }

    /// Reads the number back out of a mark.
    pub fn number(self, mark: Mark) -> u32 {
        (mark.0 & self.0) >> self.0.trailing_zeros()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for MarkMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for RulePriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where our numbers sit in the packet mark (uplink only) and in the connection mark (all three).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkLayout {
    /// Uplink bits, in both marks. The highest number is reserved (see [`MarkLayout::reserved`]).
    pub uplink: MarkMask,
    /// Server bits, in the connection mark.
    pub server: MarkMask,
    /// Policy bits, in the connection mark.
    pub policy: MarkMask,
}

impl Default for MarkLayout {
    fn default() -> Self {
        MarkLayout {
            uplink: MarkMask(0x3f00),
            server: MarkMask(0xff),
            policy: MarkMask(0xff00_0000),
        }
    }
}

impl MarkLayout {
    /// Most uplinks that any layout can hold.
    pub const MAX_UPLINKS: u32 = 62;

    /// The greatest uplink id of this layout: 62, or fewer under a narrow mask.
    pub fn max_uplink_id(&self) -> u32 {
        self.uplink.max().saturating_sub(1).min(Self::MAX_UPLINKS)
    }

    /// "R": all uplink bits set. Ours, but to be looked up in the main table only.
    pub fn reserved(&self) -> Mark {
        Mark(self.uplink.0)
    }

    /// Every bit of the connection mark that is ours.
    pub fn ours(&self) -> u32 {
        self.uplink.0 | self.server.0 | self.policy.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Mark, MarkLayout, MarkMask};

    #[test]
    fn numbers_go_in_and_out_of_a_mask() {
        let mask = MarkMask(0x3f00);
        assert_eq!(mask.width(), Some(6));
        assert_eq!(mask.place(17), Mark(0x1100));
        assert_eq!(mask.number(Mark(0xff00_1105)), 17);
        assert_eq!(MarkMask(0xff00_0000).place(254), Mark(0xfe00_0000));
        assert_eq!(MarkMask(0xffff_ffff).width(), Some(32));
    }

    #[test]
    fn a_mask_with_holes_has_no_width() {
        assert_eq!(MarkMask(0x5).width(), None);
        assert_eq!(MarkMask(0).width(), None);
        assert_eq!(MarkMask(0x5).max(), 0);
    }

    #[test]
    fn the_default_layout_is_the_documented_one() {
        let layout = MarkLayout::default();
        assert_eq!(layout.max_uplink_id(), 62);
        assert_eq!(layout.reserved(), Mark(0x3f00));
        assert_eq!(layout.ours(), 0xff00_3fff);
    }
}
