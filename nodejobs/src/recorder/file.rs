//! The file of a side index: read, appended to, and rewritten shorter.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nodejobs_core::log_index::{ENTRY_BYTES, Entry, MAX_ENTRIES, header, read, thin};

/// The index of an attempt. No descriptor is kept: there may be more jobs than descriptors.
#[derive(Debug)]
pub(super) struct IndexFile {
    path: PathBuf,
    seq: u64,
    entries: usize,
}

/// The entries of an index, none if there is none.
pub(crate) fn entries_of(path: &Path, seq: u64) -> io::Result<Vec<Entry>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(read(&bytes, seq)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl IndexFile {
    /// With the last entry there is.
    pub(super) fn find(path: PathBuf, seq: u64) -> io::Result<(Self, Option<Entry>)> {
        let entries = entries_of(&path, seq)?;
        Ok((Self { path, seq, entries: entries.len() }, entries.last().copied()))
    }

    /// Adds an entry. The file is made for the first one: what never wrote, or not for long, has none.
    pub(super) fn append(&mut self, entry: Entry) -> io::Result<()> {
        if self.entries == 0 {
            return self.write(&[entry]);
        }
        if self.entries >= MAX_ENTRIES {
            let mut entries = entries_of(&self.path, self.seq)?;
            thin(&mut entries);
            entries.push(entry);
            return self.write(&entries);
        }
        let file = OpenOptions::new().write(true).open(&self.path)?;
        // At its place and not at the end, so that what the power has left there does not stay.
        file.write_all_at(&entry.to_bytes(), ((self.entries + 1) * ENTRY_BYTES) as u64)?;
        self.entries += 1;
        Ok(())
    }

    /// What was noted is no longer so.
    pub(super) fn clear(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        self.entries = 0;
    }

    /// Replaces the file.
    fn write(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut bytes = header(self.seq).to_vec();
        entries.iter().for_each(|entry| bytes.extend(entry.to_bytes()));
        let new = self.path.with_extension("idx.new");
        let write = || {
            let mut options = OpenOptions::new();
            let mut file: File = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&bytes)?;
            std::fs::rename(&new, &self.path)
        };
        match write() {
            // The log files are elsewhere, so nobody has made the directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut builder = std::fs::DirBuilder::new();
                std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
                builder.create(self.path.parent().unwrap_or(Path::new("/")))?;
                write()?;
            }
            written => written?,
        }
        self.entries = entries.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nodejobs_core::Timestamp;

    use super::*;

    fn entry(n: u64) -> Entry {
        let at = Timestamp::from_millis(n.cast_signed() + 1);
        Entry { after: at, before: at, stdout: n, stderr: 0 }
    }

    #[test]
    fn entries_are_there_again_and_the_file_stays_below_its_bound() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("00/a.1.idx");
        let (mut index, last) = IndexFile::find(path.clone(), 7).expect("none");
        assert_eq!(last, None);
        for n in 0..2 * MAX_ENTRIES as u64 {
            index.append(entry(n)).expect("written");
        }
        let length = std::fs::metadata(&path).expect("a file").len();
        assert!(length <= ((MAX_ENTRIES + 1) * ENTRY_BYTES) as u64, "{length}");
        let (mut again, last) = IndexFile::find(path.clone(), 7).expect("read");
        assert_eq!(last, Some(entry(2 * MAX_ENTRIES as u64 - 1)));
        again.append(entry(u64::from(u32::MAX))).expect("written");
        let entries = entries_of(&path, 7).expect("read");
        assert_eq!(entries.last(), Some(&entry(u64::from(u32::MAX))));
        assert_eq!(entries[0].after, entry(0).after, "coarser, and from the beginning");
        assert_eq!(std::fs::read_dir(path.parent().expect("a parent")).expect("read").count(), 1);
        // Of another job: nothing of it is taken over.
        let (mut other, last) = IndexFile::find(path.clone(), 8).expect("read");
        assert_eq!(last, None);
        other.append(entry(3)).expect("written");
        assert_eq!(entries_of(&path, 8).expect("read"), [entry(3)]);
    }
}
