//! One frame of a user stack, in eight bytes.

/// A frame: where in which file its code lies, or at which address if it lies in none.
///
/// The top four bits are the kind. In a file, 22 bits of file id and 38 bits of file offset follow; otherwise an absolute
/// address. Of callers it is the place of the call's last byte, not of the instruction after it, which may belong to
/// another function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Frame(pub u64);

/// What a [`Frame`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In a file, at this file offset.
    File(u32, u64),
    /// In the vDSO, at this offset.
    Vdso(u64),
    /// In executable memory of no file, absolute: code that a runtime compiled.
    Anonymous(u64),
    /// In no executable mapping, absolute. Only what was executed is kept, never a caller.
    Unmapped(u64),
}

const KIND_SHIFT: u32 = 60;
const KIND_ANONYMOUS: u64 = 0;
const KIND_UNMAPPED: u64 = 1;
const KIND_FILE: u64 = 2;
/// Left for a stage that reads an interpreter's own frames.
const KIND_RESERVED: u64 = 3;

const ID_BITS: u32 = 22;
const OFFSET_BITS: u32 = 38;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
const ADDRESS_MASK: u64 = (1 << KIND_SHIFT) - 1;

/// The vDSO's file id.
pub const VDSO_ID: u32 = 0;
/// The largest file id.
pub const MAX_FILE_ID: u32 = (1 << ID_BITS) - 1;
/// No file is larger; what is mapped from beyond is taken as memory of no file.
pub const MAX_FILE_OFFSET: u64 = OFFSET_MASK;

const _: () = assert!(KIND_SHIFT == ID_BITS + OFFSET_BITS);
const _: () = assert!(KIND_RESERVED < 1 << (u64::BITS - KIND_SHIFT));

impl Frame {
    /// In a file, at this file offset.
    #[inline(always)]
    #[must_use]
    pub const fn in_file(id: u32, offset: u64) -> Self {
        Self(KIND_FILE << KIND_SHIFT | (id as u64) << OFFSET_BITS | offset & OFFSET_MASK)
    }

    /// In executable memory of no file.
    #[inline(always)]
    #[must_use]
    pub const fn anonymous(address: u64) -> Self {
        Self(KIND_ANONYMOUS << KIND_SHIFT | address & ADDRESS_MASK)
    }

    /// In no executable mapping.
    #[inline(always)]
    #[must_use]
    pub const fn unmapped(address: u64) -> Self {
        Self(KIND_UNMAPPED << KIND_SHIFT | address & ADDRESS_MASK)
    }

    /// What it says; `None` for a kind that this version does not know.
    #[must_use]
    pub const fn place(self) -> Option<Place> {
        let address = self.0 & ADDRESS_MASK;
        match self.0 >> KIND_SHIFT {
            KIND_ANONYMOUS => Some(Place::Anonymous(address)),
            KIND_UNMAPPED => Some(Place::Unmapped(address)),
            KIND_FILE => {
                let offset = self.0 & OFFSET_MASK;
                match (address >> OFFSET_BITS) as u32 {
                    VDSO_ID => Some(Place::Vdso(offset)),
                    id => Some(Place::File(id, offset)),
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_what_went_into_it() {
        let top_of_user_space = (1 << 56) - 1;
        let cases = [
            (Frame::in_file(MAX_FILE_ID, MAX_FILE_OFFSET), Place::File(MAX_FILE_ID, MAX_FILE_OFFSET)),
            (Frame::in_file(1, 0), Place::File(1, 0)),
            (Frame::in_file(VDSO_ID, 0x123), Place::Vdso(0x123)),
            (Frame::anonymous(top_of_user_space), Place::Anonymous(top_of_user_space)),
            (Frame::unmapped(0), Place::Unmapped(0)),
        ];
        for (frame, place) in cases {
            assert_eq!(frame.place(), Some(place), "{frame:?}");
        }
        assert_eq!(Frame(KIND_RESERVED << KIND_SHIFT).place(), None);
    }
}
