//! What the benchmarks reach of what is private here. Behind the feature `bench`, which nothing that is delivered has.

use std::io;
use std::path::Path;

use nodejobs_core::backend::LaunchSpec;
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{ExitStatus, ResourceUsage};
use nodejobs_core::time::Moment;

use crate::journal::{ENTRY_LEN, Entry, Event, Journal as Entries, decode_all};
use crate::launch::{Unpacked, pack};

/// A keeper's journal, to append ends to.
pub struct Journal(Entries);

impl Journal {
    /// How long an entry is, in bytes.
    pub const ENTRY_LEN: usize = ENTRY_LEN;

    /// Makes an empty one.
    ///
    /// # Errors
    /// When it cannot be made, also because it is there.
    pub fn create(path: &Path) -> io::Result<Self> {
        Entries::create(path, "5c1e0a4f-0000-4000-8000-000000000000", 0).map(Self)
    }

    /// Notes that an attempt has ended, as the worker does.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append_end(&mut self, attempt: &AttemptId, at: Moment) -> io::Result<()> {
        let usage = ResourceUsage { cpu_ms: 1, peak_memory_kib: 2000 };
        let event = Event::Exited { pid: 42, exit: ExitStatus::Code(0), usage };
        self.0.append(&Entry::Attempt { attempt: attempt.clone(), event, at }.encode())
    }

    /// How many entries can be read again.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn readable_entries(&self) -> io::Result<usize> {
        let count = usize::try_from(self.0.end() - self.0.first()).unwrap_or_default();
        let mut bytes = vec![0; count * ENTRY_LEN];
        let raw = self.0.read_raw(self.0.first(), &mut bytes)?;
        Ok(decode_all(self.0.first(), raw).count())
    }
}

/// Packs a launch as the owner does and unpacks it as a keeper does; returns the number of arguments and variables.
///
/// # Errors
/// When it cannot be packed, or is not unpacked as it was.
pub fn pack_and_unpack(attempt: &AttemptId, spec: &LaunchSpec) -> io::Result<(usize, usize)> {
    let (header, memfd) = pack(attempt, spec, &"/dev/null".into(), None, "bench")?;
    let unpacked = Unpacked::read(&header, memfd)?;
    // Without the free place in front and the null pointers behind.
    Ok((unpacked.argv().len() - 2, unpacked.envp().len() - 1))
}
