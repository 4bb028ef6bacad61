//! Fields of kernel structures that the verifier knows the type of, as arguments of BTF tracepoints are. They are read by
//! plain loads, which cost a tenth of a helper's call.

use aya_ebpf::Global;

use super::task::KernelPointer;

/// Pointer to a kernel structure that the verifier trusts.
#[derive(Clone, Copy)]
pub struct Trusted(*const u8);

impl Trusted {
    /// A pointer that the verifier knows: an argument of the program, or what was loaded through one.
    #[inline(always)]
    pub const fn new(pointer: *const u8) -> Self {
        Self(pointer)
    }

    /// The field at the offset that a global holds. The type must be as wide as the field, or narrower.
    #[inline(always)]
    pub fn field<T: Copy>(self, offset: &Global<u32>) -> T {
        // SAFETY: the verifier checks that a field of this structure is there.
        unsafe { self.0.add(offset.load() as usize).cast::<T>().read_volatile() }
    }

    /// The same of a field so many bytes further on.
    #[inline(always)]
    pub fn field_at<T: Copy>(self, offset: &Global<u32>, further: u32) -> T {
        // SAFETY: as above.
        unsafe { self.0.add((offset.load() + further) as usize).cast::<T>().read_volatile() }
    }

    /// The structure that the field points to; `None` where it is null.
    #[inline(always)]
    pub fn follow(self, offset: &Global<u32>) -> Option<Self> {
        Self(self.field(offset)).there()
    }

    /// The same of a field so many bytes further on.
    #[inline(always)]
    pub fn follow_at(self, offset: &Global<u32>, further: u32) -> Option<Self> {
        Self(self.field_at(offset, further)).there()
    }

    /// Nothing is loaded through a null pointer. The kernel means to mend a load that faults, but Linux 5.10 looks for how among all
    /// programs at an address: those with functions of their own are there twice, and it dies by the entry that knows nothing.
    #[inline(always)]
    fn there(self) -> Option<Self> {
        (!self.0.is_null()).then_some(self)
    }

    /// Its address, as a number.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// The same structure, to be read by helpers.
    #[inline(always)]
    pub fn untrusted(self) -> KernelPointer {
        KernelPointer::new(self.address())
    }

    /// The pointer itself, for helpers that ask for it.
    #[inline(always)]
    pub fn as_ptr<T>(self) -> *mut T {
        self.0.cast_mut().cast()
    }
}
