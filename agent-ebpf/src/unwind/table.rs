//! Rows, rules and pages: a file's call-frame information as the kernel programs search it.
//!
//! A file's offsets are cut into pages of [`PAGE_BYTES`]. A page's [`Page`] says where its rows are: a stretch of one
//! chunk, sorted by offset, beginning with a row for the page's first byte. A row is three bytes ([`PackedRow`]): an offset
//! within the page, and the number of one of the file's rules. Compilers use a few hundred rules in a file, again and again.

/// Bits of an offset within a page.
pub const PAGE_BITS: u32 = 13;
/// Bytes of code in a page. Small enough that a search touches few cache lines and an offset leaves room for a rule, large
/// enough that the page's own eight bytes and its first row cost little: real code has 70 to 250 rows in a page.
pub const PAGE_BYTES: u64 = 1 << PAGE_BITS;
/// Rows of one chunk.
pub const CHUNK_ROWS: usize = 1 << 16;
/// Bytes of one chunk, the unit in which table memory is taken.
pub const CHUNK_BYTES: usize = CHUNK_ROWS * size_of::<PackedRow>();
/// Chunks at most: 128 MB of rows, more than any budget allows.
pub const MAX_CHUNKS: usize = 680;
/// Pages of all files together: 1 GiB of code.
pub const MAX_PAGES: usize = 1 << 17;
/// Rules of all files together: those of a hundred large files.
pub const MAX_RULES: usize = 1 << 15;
/// Rules of one file. A library of 1.7 million rows has 1,100; what is beyond becomes [`Rule::UNSUPPORTED`].
pub const FILE_RULES: usize = 1 << (24 - PAGE_BITS);

/// From here on, until the next row, this rule holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Row {
    /// Offset within the page.
    pub offset: u16,
    /// Index of the rule among the file's.
    pub rule: u16,
}

/// A [`Row`] in three bytes: the offset in the lower bits, the rule in the upper ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PackedRow([u8; 3]);

impl PackedRow {
    /// Packs a row whose offset is within a page and whose rule is below [`FILE_RULES`].
    #[must_use]
    pub const fn new(row: Row) -> Self {
        let bits = row.offset as u32 & (PAGE_BYTES as u32 - 1) | (row.rule as u32) << PAGE_BITS;
        Self([bits as u8, (bits >> 8) as u8, (bits >> 16) as u8])
    }

    /// Offset within the page.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self) -> u64 {
        (self.0[0] as u64 | (self.0[1] as u64) << 8) & (PAGE_BYTES - 1)
    }

    /// Index of the rule among the file's.
    #[inline(always)]
    #[must_use]
    pub const fn rule(self) -> u32 {
        (self.0[1] as u32) >> (PAGE_BITS - 8) | (self.0[2] as u32) << (16 - PAGE_BITS)
    }
}

const _: () = assert!(8 < PAGE_BITS && PAGE_BITS <= 16, "the offset ends within the second byte");

/// Where the rows of one page of a file are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Page {
    /// Index of the chunk.
    pub chunk: u16,
    /// Number of rows, at least one; 0 where the page has none.
    pub count: u16,
    /// Index in the chunk of the page's first row.
    pub first: u32,
}

/// How to get from a frame to its caller.
///
/// The meaning of the last three fields is the processor's: [`super::x86_64`], [`super::aarch64`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Rule {
    /// What is added to the register that the canonical frame address (CFA) is counted from.
    pub cfa_offset: i32,
    /// Where the caller's frame pointer is: a [`Saved`] packed with its offset.
    pub frame_pointer: SavedAt,
    /// [`Cfa`] in the upper four bits; in the lower four the register, as the processor's module numbers it.
    pub cfa: u8,
    /// Where one more register is, in words from the CFA; 0 where it still holds the caller's value.
    pub other: i8,
}

const _: () = assert!(size_of::<Rule>() == 8);

/// How the CFA is found; the upper four bits of [`Rule::cfa`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cfa {
    /// No call-frame information here. The frame pointer is tried.
    None = 0,
    /// Register plus offset.
    Register = 1,
    /// What memory holds at register plus offset.
    Deref = 2,
    /// An entry of a procedure linkage table: stack pointer plus one word, plus another from `cfa_offset` bytes into the
    /// entry on. Entries are 16 bytes.
    Plt = 3,
    /// The kernel's signal frame, at the stack pointer: all registers are in it.
    Signal = 4,
    /// The thread starts here.
    End = 5,
    /// By frame pointer, because the code is known to keep one.
    FramePointer = 6,
    /// There is call-frame information, in a form that a rule cannot say.
    Unsupported = 7,
    /// The return address is in the register, and the CFA is the stack pointer plus `cfa_offset`: what system calls like
    /// `vfork` do, whose caller's stack is not to be touched.
    ReturnInRegister = 8,
}

impl Cfa {
    /// The kind in the upper four bits of [`Rule::cfa`].
    #[inline(always)]
    #[must_use]
    pub const fn of(cfa: u8) -> Self {
        match cfa >> 4 {
            0 => Self::None,
            1 => Self::Register,
            2 => Self::Deref,
            3 => Self::Plt,
            4 => Self::Signal,
            5 => Self::End,
            6 => Self::FramePointer,
            8 => Self::ReturnInRegister,
            _ => Self::Unsupported,
        }
    }
}

/// Where a register of the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Saved {
    /// In the register still.
    Same = 0,
    /// In memory, at the CFA plus an offset.
    AtCfa = 1,
    /// In memory, at this frame's frame pointer plus an offset (realigned stacks).
    AtFramePointer = 2,
    /// Lost.
    Undefined = 3,
}

/// A [`Saved`] in the lower three bits, and a byte offset that is a multiple of eight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct SavedAt(i16);

impl SavedAt {
    /// Packs both; `None` where the offset is no multiple of eight or too large.
    #[must_use]
    pub fn new(saved: Saved, offset: i64) -> Option<Self> {
        let offset = i16::try_from(offset).ok().filter(|offset| offset & 7 == 0)?;
        Some(Self(offset | saved as i16))
    }

    /// In the register still.
    pub const SAME: Self = Self(Saved::Same as i16);
    /// Lost.
    pub const UNDEFINED: Self = Self(Saved::Undefined as i16);

    /// How it is saved.
    #[inline(always)]
    #[must_use]
    pub const fn saved(self) -> Saved {
        match self.0 & 7 {
            0 => Saved::Same,
            1 => Saved::AtCfa,
            2 => Saved::AtFramePointer,
            _ => Saved::Undefined,
        }
    }

    /// The offset, bytes.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self) -> i64 {
        (self.0 & !7) as i64
    }
}

/// [`Rule::other`] where the register's value is lost or out of reach.
pub const OTHER_LOST: i8 = i8::MAX;

impl Rule {
    /// A rule of this kind with nothing else in it.
    #[must_use]
    pub const fn bare(cfa: Cfa) -> Self {
        Self { cfa_offset: 0, frame_pointer: SavedAt::SAME, cfa: (cfa as u8) << 4, other: 0 }
    }

    /// No call-frame information.
    pub const NONE: Self = Self::bare(Cfa::None);
    /// The thread starts here.
    pub const END: Self = Self::bare(Cfa::End);
    /// A signal frame.
    pub const SIGNAL: Self = Self::bare(Cfa::Signal);
    /// By frame pointer.
    pub const FRAME_POINTER: Self = Self::bare(Cfa::FramePointer);
    /// Beyond what a rule can say.
    pub const UNSUPPORTED: Self = Self::bare(Cfa::Unsupported);

    /// CFA = register + offset.
    #[must_use]
    pub const fn register(register: u8, offset: i32) -> Self {
        Self {
            cfa_offset: offset,
            frame_pointer: SavedAt::SAME,
            cfa: (Cfa::Register as u8) << 4 | register & 15,
            other: 0,
        }
    }

    /// The register that the CFA is counted from.
    #[inline(always)]
    #[must_use]
    pub const fn cfa_register(self) -> u8 {
        self.cfa & 15
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_its_packing() {
        for offset in [0, 1, 255, 256, PAGE_BYTES as u16 - 1] {
            for rule in [0, 1, 7, 8, 255, FILE_RULES as u16 - 1] {
                let packed = PackedRow::new(Row { offset, rule });
                assert_eq!((packed.offset(), packed.rule()), (u64::from(offset), u32::from(rule)));
            }
        }
    }

    #[test]
    fn every_kind_survives_its_packing() {
        for kind in [
            Cfa::None,
            Cfa::Register,
            Cfa::Deref,
            Cfa::Plt,
            Cfa::Signal,
            Cfa::End,
            Cfa::FramePointer,
            Cfa::Unsupported,
            Cfa::ReturnInRegister,
        ] {
            assert_eq!(Cfa::of(Rule::bare(kind).cfa), kind);
        }
        for saved in [Saved::Same, Saved::AtCfa, Saved::AtFramePointer, Saved::Undefined] {
            for offset in [0, -8, -32768, 32760] {
                let at = SavedAt::new(saved, offset).unwrap();
                assert_eq!((at.saved(), at.offset()), (saved, offset));
            }
        }
        for offset in [4, 32768, -32776] {
            assert_eq!(SavedAt::new(Saved::AtCfa, offset), None);
        }
    }
}
