//! Makes the kernel programs know files before a sample meets them.
//!
//! The kernel programs know a file by the kernel's own inode, which user space cannot name. So the agent maps the file, and
//! has a program of its own look at that mapping as the others look at those of sampled processes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun};

use super::programs::program;
use super::{LoadError, Programs};

/// The first page of a file, mapped like code. Nothing of it is ever executed or read.
pub struct MappedFile(NonNull<libc::c_void>);

/// One page is enough; the kernel rounds up to its own.
const MAPPED_BYTES: usize = 4096;

impl MappedFile {
    fn new(file: &File) -> io::Result<Self> {
        // SAFETY: a new private mapping, whose place the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAPPED_BYTES,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        NonNull::new(start)
            .filter(|_| start != libc::MAP_FAILED)
            .map(Self)
            .ok_or_else(io::Error::last_os_error)
    }

    /// Where it is mapped in this process.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, of which nothing borrows.
        unsafe { libc::munmap(self.0.as_ptr(), MAPPED_BYTES) };
    }
}

impl Programs {
    /// Has files announced to the drain that were not yet, each as mapped in this process where the result says; `None` where
    /// it may not be mapped (as from file systems mounted `noexec`).
    ///
    /// # Errors
    /// [`LoadError`] where the kernel refuses.
    pub fn introduce<'f>(
        &mut self,
        files: impl Iterator<Item = &'f File>,
    ) -> Result<Vec<Option<MappedFile>>, LoadError> {
        const NAME: &str = "introduce_file";
        let refused = |source| LoadError::Program { name: NAME, source };
        let introduce: &mut RawTracePoint = program(&mut self.ebpf, NAME)?;
        introduce.load().map_err(refused)?;
        let introduced = files
            .map(|file| {
                let Ok(mapped) = MappedFile::new(file) else { return Ok(None) };
                let mut options = RawTracePointRunOptions::new();
                options.args[0] = mapped.address();
                introduce.test_run(options).map_err(refused)?;
                Ok(Some(mapped))
            })
            .collect();
        introduce.unload().map_err(refused)?;
        introduced
    }
}
