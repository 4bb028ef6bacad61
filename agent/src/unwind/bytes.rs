//! Numbers of variable length, as call-frame information and Go's tables have them.

use gimli::Register;

/// What is left of some bytes. Reading takes from their front; `None` past the end.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    #[inline]
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    /// ULEB128. Bits beyond 64 are dropped.
    #[inline]
    pub fn unsigned(&mut self) -> Option<u64> {
        let first = self.u8()?;
        if first < 0x80 { Some(first.into()) } else { self.longer(first).map(|(value, _)| value) }
    }

    /// SLEB128. Bits beyond 64 are dropped.
    #[inline]
    pub fn signed(&mut self) -> Option<i64> {
        let first = self.u8()?;
        let (value, bits) = if first < 0x80 { (first.into(), 7) } else { self.longer(first)? };
        let unused = 64_u32.saturating_sub(bits);
        Some((value << unused) as i64 >> unused)
    }

    /// The value that goes on behind its `first` byte, and how many bits it was given.
    fn longer(&mut self, first: u8) -> Option<(u64, u32)> {
        let (mut value, mut bits) = (u64::from(first & 0x7f), 7);
        loop {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f).checked_shl(bits).unwrap_or(0);
            bits = (bits + 7).min(u64::BITS);
            if byte < 0x80 {
                return Some((value, bits));
            }
        }
    }

    /// DWARF's number of a register.
    #[inline]
    pub fn register(&mut self) -> Option<Register> {
        self.unsigned()?.try_into().ok().map(Register)
    }

    /// Bytes behind their length.
    #[inline]
    pub fn block(&mut self) -> Option<&'a [u8]> {
        let len = self.unsigned()?;
        self.take(usize::try_from(len).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_dwarf_standard() {
        // Its figures 45 and 46.
        for (bytes, value) in [(&[2][..], 2), (&[127], 127), (&[0x80, 1], 128), (&[0xb9, 0x64], 12857)] {
            assert_eq!(Bytes(bytes).unsigned(), Some(value));
        }
        let signed: [(&[u8], i64); 6] = [
            (&[2], 2),
            (&[0x7e], -2),
            (&[0xff, 0], 127),
            (&[0x81, 0x7f], -127),
            (&[0x80, 1], 128),
            (&[0x80, 0x7f], -128),
        ];
        for (bytes, value) in signed {
            assert_eq!(Bytes(bytes).signed(), Some(value));
        }
        let longest = [[0xff; 9].as_slice(), &[1]].concat();
        assert_eq!(Bytes(&longest).unsigned(), Some(u64::MAX));
        assert_eq!(Bytes(&[0xff; 40]).unsigned(), None);
        assert_eq!(Bytes(&[[0xff; 40].as_slice(), &[0]].concat()).signed(), Some(-1));
        assert_eq!(Bytes(&[3, 1, 2]).block(), None);
    }
}
