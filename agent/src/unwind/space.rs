//! Room in equal blocks, taken and given back in stretches that lie within one block.

use std::ops::Range;

/// A stretch of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Index of the block.
    pub block: u32,
    /// First unit in it.
    pub start: u32,
    /// Number of units.
    pub length: u32,
}

impl Extent {
    /// Its units within the block.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.start as usize..(self.start + self.length) as usize
    }
}

/// First fit: what is asked for is small beside a block, so holes are soon filled again.
#[derive(Debug)]
pub struct Space {
    block_units: u32,
    max_blocks: usize,
    /// Of each block, the free stretches as (start, length), by start.
    free: Vec<Vec<(u32, u32)>>,
    /// The block that had room last.
    last: usize,
}

impl Space {
    /// At most `max_blocks` blocks of `block_units` each, all free.
    #[must_use]
    pub fn new(max_blocks: usize, block_units: u32) -> Self {
        Self { block_units, max_blocks, free: Vec::new(), last: 0 }
    }

    /// A stretch of this length; `None` where no block has one left. A stretch of nothing is always to be had.
    pub fn take(&mut self, length: u32) -> Option<Extent> {
        if length == 0 {
            return Some(Extent { block: 0, start: 0, length: 0 });
        }
        let blocks = self.free.len();
        let found = (0..blocks).map(|step| (self.last + step) % blocks.max(1)).find_map(|block| {
            let hole = self.free[block].iter().position(|(_, free)| *free >= length)?;
            Some((block, hole))
        });
        let (block, hole) = match found {
            Some(found) => found,
            None if blocks < self.max_blocks && length <= self.block_units => {
                self.free.push(vec![(0, self.block_units)]);
                (blocks, 0)
            }
            None => return None,
        };
        self.last = block;
        let holes = &mut self.free[block];
        let (start, free) = holes[hole];
        if free == length {
            holes.remove(hole);
        } else {
            holes[hole] = (start + length, free - length);
        }
        Some(Extent { block: block as u32, start, length })
    }

    /// Takes a stretch back.
    pub fn give_back(&mut self, extent: Extent) {
        if extent.length == 0 {
            return;
        }
        let holes = &mut self.free[extent.block as usize];
        let mut at = holes.partition_point(|(start, _)| *start < extent.start);
        holes.insert(at, (extent.start, extent.length));
        if at > 0 && holes[at - 1].0 + holes[at - 1].1 == extent.start {
            holes[at - 1].1 += extent.length;
            holes.remove(at);
            at -= 1;
        }
        if at + 1 < holes.len() && holes[at].0 + holes[at].1 == holes[at + 1].0 {
            holes[at].1 += holes[at + 1].1;
            holes.remove(at + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_grows_together_again() {
        let mut space = Space::new(1, 10);
        let [a, b, c] = [3, 4, 3].map(|length| space.take(length).unwrap());
        assert_eq!(space.take(1), None);
        for extent in [a, c, b] {
            assert_eq!(space.take(10), None);
            space.give_back(extent);
        }
        assert_eq!(space.take(10), Some(Extent { block: 0, start: 0, length: 10 }));
    }

    #[test]
    fn blocks_are_opened_up_to_their_number() {
        let mut space = Space::new(2, 10);
        assert_eq!(space.take(11), None);
        let blocks: Vec<_> = [6, 6, 4, 4].map(|length| space.take(length).unwrap().block).into();
        assert_eq!(blocks[..2], [0, 1]);
        assert_eq!(space.take(1), None);
        assert_eq!(space.take(0).map(|extent| extent.length), Some(0));
    }

    #[test]
    fn a_hole_is_filled_before_a_block_is_opened() {
        let mut space = Space::new(2, 10);
        let first = space.take(5).unwrap();
        space.take(5).unwrap();
        space.give_back(first);
        assert_eq!(space.take(5), Some(first));
    }
}
