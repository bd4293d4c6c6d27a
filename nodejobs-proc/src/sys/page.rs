//! A few pages of a file that several processes have in their memory at a time.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use super::check;

/// The first `WORDS` words of a file, as every process sees them that has mapped it.
#[derive(Debug)]
pub(crate) struct SharedWords<const WORDS: usize>(NonNull<[AtomicU64; WORDS]>);

// SAFETY: it is memory of this process until it is dropped, and its words are atomic.
unsafe impl<const WORDS: usize> Send for SharedWords<WORDS> {}
// SAFETY: as above.
unsafe impl<const WORDS: usize> Sync for SharedWords<WORDS> {}

impl<const WORDS: usize> SharedWords<WORDS> {
    /// Bytes of the file that are mapped.
    pub(crate) const BYTES: usize = WORDS * size_of::<u64>();

    /// Maps the file. It must be as long as that, and must not be cut while it is mapped: who touches what is gone is
    /// killed by SIGBUS.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() < Self::BYTES as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the kernel chooses a free place, so nothing of ours is there. The mapping is page-aligned, and so
        // aligned for words.
        let place = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        if place == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let words = NonNull::new(place.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self(words))
    }

    /// Keeps the pages in memory, so that no error of the disk can take them away. Without the right to, they are only
    /// likely to stay.
    pub(crate) fn hold_in_memory(&self) {
        // SAFETY: the mapping is there as long as `self`.
        let _ = check(unsafe { libc::mlock(self.0.as_ptr().cast(), Self::BYTES) });
    }

    pub(crate) fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: mapped, aligned and as long as the type says until `self` is dropped. Everybody uses it as atomic
        // words.
        unsafe { self.0.as_ref() }
    }
}

impl<const WORDS: usize> Drop for SharedWords<WORDS> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nobody has a reference any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), Self::BYTES) };
    }
}
