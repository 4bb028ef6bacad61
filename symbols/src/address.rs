//! The address spaces an instruction is known by, one type each.
//!
//! A sample holds an [`AbsoluteAddress`]. Minus the start of its mapping, plus the mapping's offset, it is a
//! [`FileOffset`], which means the same in every process that maps the file. The file's program headers turn
//! that into a [`VirtualOffset`], the address its symbol tables and debug information speak of. For a
//! position-independent file the last two often differ by a page or so and look interchangeable; they are not.

use std::fmt;

/// An address in a process, or in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AbsoluteAddress(pub u64);

/// A position in a file, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileOffset(pub u64);

/// An address as an ELF file itself counts it, before it is loaded anywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualOffset(pub u64);

macro_rules! hexadecimal {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    )*};
}

hexadecimal!(AbsoluteAddress, FileOffset, VirtualOffset);
