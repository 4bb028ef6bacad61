//! Remembers rules that were looked up.
//!
//! A file id stands for one file for good, so the rule of a place in it never changes: there is nothing to invalidate. Looking
//! into it is one access to memory, where a search in a table is half a dozen.

use super::{frame::Frame, table::Rule};

/// Entries; each place has one that it shares with others, and the last one looked up stays. Enough for the callers that a
/// busy host's samples have in common, in 256 KB.
pub const MEMO_ENTRIES: usize = 1 << MEMO_BITS;
const MEMO_BITS: u32 = 14;
/// Bytes of code that share an entry; fewer than most calls are apart.
const CALL_BITS: u32 = 3;
/// Bytes of code whose entries lie together.
const STRETCH_BITS: u32 = 12;

/// A place and its rule.
///
/// All CPUs share the entries without a lock: a reader may find one half by one writer and the other half by another. So the
/// place is kept mixed with the rule. Halves that do not belong together give another place than the one that is asked for, or
/// the right rule by chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Memo {
    mixed: u64,
    rule: u64,
}

impl Memo {
    /// The entry of a place.
    #[inline(always)]
    #[must_use]
    pub const fn index(frame: Frame) -> u32 {
        // Calls that lie together share pages and cache lines here, too: where a stack is seldom taken, finding those is the
        // most of its cost. Stretches of code are spread by Fibonacci hashing.
        let stretch = frame.0 >> STRETCH_BITS;
        let spread = (stretch.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - MEMO_BITS)) as u32;
        (spread ^ (frame.0 >> CALL_BITS) as u32) & (MEMO_ENTRIES as u32 - 1)
    }

    /// What the entry of a place in a file is to hold.
    #[inline(always)]
    #[must_use]
    pub const fn new(frame: Frame, rule: Rule) -> Self {
        let rule = rule.to_bits();
        Self { mixed: frame.0 ^ rule, rule }
    }

    /// The rule of a place in a file, if it is the one that the entry has.
    #[inline(always)]
    #[must_use]
    pub fn rule(self, frame: Frame) -> Option<Rule> {
        // A place in a file is never zero, as an entry that was not written is.
        (self.mixed ^ self.rule == frame.0).then_some(Rule::from_bits(self.rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_tells_only_of_its_own_place() {
        let (one, other) = (Frame::in_file(1, 0x1000), Frame::in_file(1, 0x1001));
        assert_eq!(Memo::default().rule(one), None);
        let memo = Memo::new(one, Rule::register(7, 24));
        assert_eq!(memo.rule(one), Some(Rule::register(7, 24)));
        assert_eq!(memo.rule(other), None);
    }

    #[test]
    fn halves_of_two_writers_are_not_taken_for_either() {
        let (one, other) = (Frame::in_file(1, 0x1000), Frame::in_file(2, 0x2000));
        let (first, second) =
            (Memo::new(one, Rule::register(7, 24)), Memo::new(other, Rule::register(7, 32)));
        let torn = Memo { mixed: first.mixed, rule: second.rule };
        assert_eq!((torn.rule(one), torn.rule(other)), (None, None));
    }

    #[test]
    fn places_that_lie_together_do_not_share_entries() {
        let places = (0..512).map(|call| Memo::index(Frame::in_file(3, 0x4000 + call * 8)));
        let mut indices: std::vec::Vec<_> = places.collect();
        indices.sort_unstable();
        indices.dedup();
        assert!(indices.len() > 500, "{}", indices.len());
        assert!(indices.iter().all(|index| (*index as usize) < MEMO_ENTRIES));
    }
}
