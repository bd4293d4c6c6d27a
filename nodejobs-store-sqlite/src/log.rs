//! What damage to the write-ahead log has dropped: SQLite reads a log up to its first bad frame, and says nothing of the
//! commits behind that.
//!
//! A log is a header and frames; a frame is a header and a page. Each frame has the salt of its generation of the log, and a
//! checksum of itself that goes on from that of the frame before, as it is written there. So behind a bad frame those
//! that follow each other still prove that they were written one after the other. A commit was acknowledged for certain if
//! frames of the next one follow it: the next is written only when it is on disk.
//!
//! Not damage, and not mentioned: frames of an earlier generation, which stay behind the end; a last commit that a loss of
//! power or a full disk has left in part. Damage to the last commit looks the same, so it cannot be known.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::path::{Path, PathBuf};

use nodejobs_core::store::disk;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377f_0682;

/// A log that is bad before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Damage {
    /// Where the first bad frame begins, or 0 for the header of the log.
    at: u64,
    /// Commits before it.
    before: u64,
    /// Commits behind it that were acknowledged for certain.
    dropped: u64,
}

/// What SQLite will drop when it opens the store at this path, which no other process has open, in words.
pub(crate) fn damage(path: &Path) -> Option<String> {
    let log = disk::beside(path, "-wal");
    look(&log, path).map(|damage| describe(&damage, &log))
}

/// The same before SQLite is given the log, of which a copy is kept.
pub(crate) fn keep(path: &Path) -> Option<String> {
    let damage = damage(path)?;
    let copy = kept(path);
    Some(match fs::copy(disk::beside(path, "-wal"), &copy) {
        Ok(_) => format!("{damage}; a copy of it is '{}'", copy.display()),
        Err(error) => format!("{damage}; '{}' cannot be written: {error}", copy.display()),
    })
}

/// What was dropped when the store was opened before, in words: by the copy that was kept then.
pub(crate) fn earlier(path: &Path) -> Option<String> {
    let copy = kept(path);
    look(&copy, path)
        .map(|damage| format!("{}; this is the copy of an earlier log", describe(&damage, &copy)))
}

fn kept(path: &Path) -> PathBuf {
    disk::beside(path, "-wal.damaged")
}

fn describe(damage: &Damage, log: &Path) -> String {
    let Damage { at, before, dropped } = damage;
    let commits = if *dropped == 1 { "commit" } else { "commits" };
    format!(
        "the write-ahead log '{}' is damaged at byte {at}: SQLite drops at least {dropped} {commits} behind that, all of \
         them acknowledged, and reads {before} before it; whether the last commit had been acknowledged cannot be known",
        log.display()
    )
}

/// `None` for one that is whole, or not there, or cannot be read: SQLite will say that.
fn look(log: &Path, store: &Path) -> Option<Damage> {
    read(log, page_size(store)?).ok().flatten()
}

/// What the store itself says: the log may be wrong about it.
fn page_size(store: &Path) -> Option<usize> {
    let mut header = [0; 18];
    File::open(store).and_then(|mut file| file.read_exact(&mut header)).ok()?;
    match u16::from_be_bytes([header[16], header[17]]) {
        1 => Some(1 << 16),
        size if size >= 512 => Some(size.into()),
        _ => None,
    }
}

fn read(log: &Path, page_size: usize) -> io::Result<Option<Damage>> {
    let mut file = BufReader::with_capacity(1 << 18, File::open(log)?);
    let mut header = [0; HEADER];
    if !fill(&mut file, &mut header)? {
        return Ok(None);
    }
    let magic = number(&header, 0);
    let is_known = magic & !1 == MAGIC && number(&header, 4) == 3_007_000;
    let big_endian = if is_known { magic & 1 == 1 } else { cfg!(target_endian = "big") };
    let sum = checksum(big_endian, (0, 0), &header[..24]);
    let is_good = is_known && sum == (number(&header, 24), number(&header, 28));

    let mut frame = vec![0; FRAME_HEADER + page_size];
    let mut salt = is_good.then_some(&header[16..24]).map(<[u8]>::to_vec);
    // The checksum to go on from, as it is written in what comes before.
    let mut previous = (number(&header, 24), number(&header, 28));
    let mut damage = (!is_good).then_some(Damage { at: 0, before: 0, dropped: 0 });
    let (mut number_of_frames, mut before, mut is_linked_commit) = (0_u64, 0, false);
    while fill(&mut file, &mut frame)? {
        let salt = salt.get_or_insert_with(|| frame[8..16].to_vec());
        let written = (number(&frame, 16), number(&frame, 20));
        let is_linked = frame[8..16] == **salt && number(&frame, 0) != 0 && {
            let sum = checksum(big_endian, previous, &frame[..8]);
            checksum(big_endian, sum, &frame[FRAME_HEADER..]) == written
        };
        let is_commit = number(&frame, 4) != 0;
        match &mut damage {
            None if is_linked => before += u64::from(is_commit),
            None => {
                let at = HEADER as u64 + number_of_frames * frame.len() as u64;
                damage = Some(Damage { at, before, dropped: 0 });
            }
            Some(damage) => {
                damage.dropped += u64::from(is_linked && is_linked_commit);
                is_linked_commit = is_linked && is_commit;
            }
        }
        previous = written;
        number_of_frames += 1;
    }
    Ok(damage.filter(|damage| damage.dropped > 0))
}

/// Whether there was as much as that.
fn fill(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// SQLite's checksum of pairs of words, going on from an earlier one.
fn checksum(big_endian: bool, (mut first, mut second): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    let word = |bytes: &[u8]| {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    };
    for pair in bytes.chunks_exact(8) {
        first = first.wrapping_add(word(&pair[..4])).wrapping_add(second);
        second = second.wrapping_add(word(&pair[4..])).wrapping_add(first);
    }
    (first, second)
}
