//! When an attempt wrote what: the side index of its log files, entry by entry.
//!
//! An entry says how long the two files were at a time, and since when the bytes before that were written. What was
//! written while nobody looked has a long time between the two, and that is all that is known of it.

use crate::logs::LogStart;
use crate::time::Timestamp;

/// How long the log files were at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When the first of the bytes behind the last entry was written, at the earliest.
    pub after: Timestamp,
    /// When all of them were there.
    pub before: Timestamp,
    /// Length of the file of standard output, in bytes.
    pub stdout: u64,
    /// Length of the file of standard error; 0 if that is the same.
    pub stderr: u64,
}

/// Bytes of an entry in the file, and of the header before the first.
pub const ENTRY_BYTES: usize = 32;
/// So many entries are kept, 512 KiB of them; then the older half is made coarser.
pub const MAX_ENTRIES: usize = 16_384;
/// What is known as exactly as this is told as a time. Lengths are looked at ten times a second while something writes.
pub const EXACT_MS: i64 = 500;

const MAGIC: &[u8; 8] = b"nj-index";
const VERSION: u32 = 1;

/// The beginning of the file of a job's attempt; the job is known by its [`seq`](crate::job::Job::seq).
pub fn header(seq: u64) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&seq.to_le_bytes());
    bytes
}

/// The entries of a file, up to the first that makes no sense: nothing is synced, so the power may take the last ones
/// along. None, if it is not the file of this job.
pub fn read(bytes: &[u8], seq: u64) -> Vec<Entry> {
    let (chunks, _) = bytes.as_chunks::<ENTRY_BYTES>();
    let Some((_, rest)) = chunks.split_first().filter(|(first, _)| **first == header(seq)) else {
        return Vec::new();
    };
    let mut entries: Vec<Entry> = Vec::with_capacity(rest.len());
    for chunk in rest {
        let entry = Entry::from_bytes(chunk);
        let is_behind = |last: &Entry| entry.stdout >= last.stdout && entry.stderr >= last.stderr;
        if entry.before == Timestamp::default() || !entries.last().is_none_or(is_behind) {
            break;
        }
        entries.push(entry);
    }
    entries
}

/// Makes room: of the older half, each two entries become one.
pub fn thin(entries: &mut Vec<Entry>) {
    let newer = entries.split_off(entries.len() / 2);
    let merged = entries.chunks(2).map(|pair| match pair {
        [first, second] => Entry { after: first.after, ..*second },
        _ => pair[0],
    });
    *entries = merged.chain(newer).collect();
}

impl Entry {
    /// As it is in the file.
    pub fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.after.as_millis().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.before.as_millis().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.stdout.to_le_bytes());
        bytes[24..].copy_from_slice(&self.stderr.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let time = |at| Timestamp::from_millis(number(at).cast_signed());
        Self { after: time(0), before: time(8), stdout: number(16), stderr: number(24) }
    }

    /// The lengths.
    pub fn lengths(&self) -> LogStart {
        LogStart { stdout: self.stdout, stderr: self.stderr }
    }

    fn is_before(&self, time: Timestamp) -> bool {
        self.before < time
    }
}

/// Where in the files what was written since then begins: as early as it may, where that is not known exactly.
pub fn since(entries: &[Entry], start: LogStart, time: Timestamp) -> LogStart {
    let before = entries.iter().take_while(|entry| entry.is_before(time)).last();
    before.map_or(start, Entry::lengths)
}

/// Where in the files what was written until then ends: as late as it may, where that is not known exactly.
/// `None` if there is no end: everything that is there may have been written by then.
pub fn until(entries: &[Entry], start: LogStart, time: Timestamp) -> Option<LogStart> {
    let first_later = entries.iter().position(|entry| entry.after > time)?;
    Some(first_later.checked_sub(1).map_or(start, |last| entries[last].lengths()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn entry(after: i64, before: i64, stdout: u64, stderr: u64) -> Entry {
        Entry { after: at(after), before: at(before), stdout, stderr }
    }

    fn lengths(stdout: u64, stderr: u64) -> LogStart {
        LogStart { stdout, stderr }
    }

    fn file(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = header(7).to_vec();
        entries.iter().for_each(|entry| bytes.extend(entry.to_bytes()));
        bytes
    }

    #[test]
    fn what_was_written_is_read_up_to_what_makes_no_sense() {
        let entries = [entry(1, 2, 3, 4), entry(2, 9, 3, 5), entry(9, 10, 8, 5)];
        let whole = file(&entries);
        assert_eq!(read(&whole, 7), entries);
        for cut in 0..whole.len() {
            let expected = (cut / ENTRY_BYTES).saturating_sub(1);
            assert_eq!(read(&whole[..cut], 7), entries[..expected], "cut at {cut}");
        }
        assert_eq!(read(&whole, 8), [], "of an earlier job of that id");
        let mut zeros = whole.clone();
        zeros.extend([0; ENTRY_BYTES]);
        zeros.extend(entries[2].to_bytes());
        assert_eq!(read(&zeros, 7), entries);
        let shrunk = [entries[0], entries[2], entries[1]];
        assert_eq!(read(&file(&shrunk), 7), shrunk[..2]);
        assert_eq!(read(b"something else that is long enough to be a header, and more of it .....", 7), []);
    }

    #[test]
    fn thinning_keeps_ends_and_loses_only_exactness() {
        let mut entries: Vec<_> = (0..10).map(|n| entry(n * 10, n * 10 + 5, n.unsigned_abs(), 0)).collect();
        let last = entries[9];
        thin(&mut entries);
        assert_eq!(entries.len(), 8);
        assert_eq!(entries[0], entry(0, 15, 1, 0));
        assert_eq!(entries[2], entry(40, 45, 4, 0), "the odd one");
        assert_eq!(entries[7], last);
        let mut many: Vec<_> = (0..MAX_ENTRIES).map(|n| entry(1, 1, n as u64, 0)).collect();
        thin(&mut many);
        assert_eq!(many.len(), MAX_ENTRIES / 4 * 3);
    }

    #[test]
    fn times_lead_to_offsets_and_never_leave_out_what_may_belong() {
        // A second of silence, and at last a span in which nobody looked.
        let entries = [entry(100, 200, 10, 0), entry(1_200, 1_300, 20, 5), entry(1_300, 9_000, 50, 5)];
        let start = lengths(3, 0);
        let since = |time| since(&entries, start, at(time));
        assert_eq!(since(0), start);
        assert_eq!(since(200), start);
        assert_eq!(since(201), lengths(10, 0));
        assert_eq!(since(1_300), lengths(10, 0));
        assert_eq!(since(5_000), lengths(20, 5), "somewhere in it");
        assert_eq!(since(9_001), lengths(50, 5));
        let until = |time| until(&entries, start, at(time));
        assert_eq!(until(99), Some(start));
        assert_eq!(until(100), Some(lengths(10, 0)));
        assert_eq!(until(1_199), Some(lengths(10, 0)));
        assert_eq!(until(1_200), Some(lengths(20, 5)));
        assert_eq!(until(5_000), None);
        assert_eq!(super::since(&[], start, at(5)), start);
        assert_eq!(super::until(&[], start, at(5)), None);
    }
}
