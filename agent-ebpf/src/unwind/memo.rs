//! Remembers which rule holds at a place.
//!
//! A file id stands for one file for good, and a rule's number is the file's own: so nothing has to be invalidated. Looking into
//! it is one access to memory, where a search in a table is half a dozen.

use super::{frame::Frame, table::FILE_RULES};

/// Entries. Each place has one that it shares with others, and the last one looked up stays. Enough for the callers that a
/// busy host's samples have in common, in 256 KB.
pub const MEMO_ENTRIES: usize = 1 << MEMO_BITS;
const MEMO_BITS: u32 = 15;

/// Bytes of code that share an entry: seldom are two calls on a stack nearer to each other.
const CALL_BITS: u32 = 4;
/// Bytes of code whose entries lie together.
const STRETCH_BITS: u32 = 12;
/// Bits of the stretch: what a frame has besides its kind and the offset within the stretch.
const STRETCH_MASK: u64 = (1 << 48) - 1;
const RULE_BITS: u32 = FILE_RULES.ilog2();
const CALL_SHIFT: u32 = RULE_BITS + 1;
const STRETCH_SHIFT: u32 = CALL_SHIFT + CALL_BITS;

const _: () =
    assert!(STRETCH_SHIFT + 48 <= u64::BITS, "what the entry's index does not tell fits into a word");

/// A place and the number of its rule; zero for none.
///
/// From the upper bits on: the stretch of code, the lower bits of the offset, the rule, and a one. The entry's index tells the
/// bits between. It is one word, so that CPUs share entries without a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Memo(u64);

impl Memo {
    /// The entry of a place in a file.
    #[inline(always)]
    #[must_use]
    pub const fn index(frame: Frame) -> u32 {
        // Calls that lie together share pages and cache lines here, too: where a stack is seldom taken, finding those is the most
        // of its cost. Stretches are spread by Fibonacci hashing.
        let stretch = frame.0 >> STRETCH_BITS;
        let spread = (stretch.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - MEMO_BITS)) as u32;
        let call = (frame.0 as u32 & ((1 << STRETCH_BITS) - 1)) >> CALL_BITS;
        spread ^ call
    }

    /// What the entry of a place in a file is to hold: the number of a rule of the file, below [`FILE_RULES`].
    #[inline(always)]
    #[must_use]
    pub const fn new(frame: Frame, rule: u32) -> Self {
        Self(Self::tag(frame) | (rule as u64) << 1)
    }

    /// The number of the rule of a place in a file, if that is the place whose rule the entry has.
    #[inline(always)]
    #[must_use]
    pub const fn rule(self, frame: Frame) -> Option<u32> {
        let rule = self.0 & (FILE_RULES as u64 - 1) << 1;
        if self.0 ^ rule == Self::tag(frame) { Some((rule >> 1) as u32) } else { None }
    }

    #[inline(always)]
    const fn tag(frame: Frame) -> u64 {
        let stretch = frame.0 >> STRETCH_BITS & STRETCH_MASK;
        let within_call = frame.0 & ((1 << CALL_BITS) - 1);
        stretch << STRETCH_SHIFT | within_call << CALL_SHIFT | 1
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::unwind::frame::{MAX_FILE_ID, MAX_FILE_OFFSET};

    const RULE: u32 = FILE_RULES as u32 - 1;

    #[test]
    fn an_entry_tells_only_of_its_own_place() {
        let ids = [0, 1, 2, 1 << 12, MAX_FILE_ID];
        let offsets = [0, 1, 15, 16, 4095, 4096, 1 << 20, MAX_FILE_OFFSET];
        let places: Vec<_> =
            ids.iter().flat_map(|id| offsets.map(|offset| Frame::in_file(*id, offset))).collect();
        for one in &places {
            assert_eq!(Memo::default().rule(*one), None);
            for other in &places {
                let known = Memo::new(*other, RULE).rule(*one);
                if one == other {
                    assert_eq!(known, Some(RULE));
                } else if Memo::index(*one) == Memo::index(*other) {
                    assert_eq!(known, None, "{one:?} {other:?}");
                }
            }
        }
    }

    #[test]
    fn places_that_lie_together_do_not_share_entries() {
        let places = (0..512).map(|call| Memo::index(Frame::in_file(3, 0x4000 + (call << CALL_BITS))));
        let mut indices: Vec<_> = places.collect();
        assert!(indices.iter().all(|index| (*index as usize) < MEMO_ENTRIES));
        indices.sort_unstable();
        indices.dedup();
        assert_eq!(indices.len(), 512);
    }
}
