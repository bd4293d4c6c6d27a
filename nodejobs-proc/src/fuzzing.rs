//! What must hold for any bytes in a journal or on a keeper's socket: run by the fuzz targets, and over their corpora by
//! the tests.
//!
//! Each property takes the bytes that a fuzzer makes up, and panics where it does not hold.

use std::ops::Range;
use std::path::Path;

use nodejobs_core::Timestamp;
use nodejobs_core::job::ExitStatus;

use crate::journal::{
    Contents, ENTRY_LEN, Entry, Event, Journal, MAX_POSITION, Unreadable, decode_all, read,
    without_void_starts,
};
use crate::protocol::{KeeperMessage, OwnerMessage};

const CHECKED: usize = ENTRY_LEN - 4;
/// A file with more entries finds nothing that one with so many does not.
const MAX_ENTRIES: usize = 40;

/// A journal of arbitrary bytes is refused, or gives exactly its whole entries, keeps them through appending,
/// rewriting and reopening, and each of them survives being written.
///
/// The first byte says what is put right, because no fuzzer guesses a checksum: 1 the header, 2 the entries. With 4 the
/// journal is written to as well, which takes ten times as long.
/// `directory` is for one caller at a time.
pub fn journal(directory: &Path, bytes: &[u8]) {
    let Some((&mend, file)) = bytes.split_first() else { return };
    let mut file = file[..file.len().min(MAX_ENTRIES * ENTRY_LEN)].to_vec();
    let (blocks, _) = file.as_chunks_mut::<ENTRY_LEN>();
    for (index, block) in blocks.iter_mut().enumerate() {
        let flag = if index == 0 { 1 } else { 2 };
        if mend & flag == 0 {
            continue;
        }
        if index == 0 {
            block[..16].copy_from_slice(b"nodejobs journal");
            block[16..20].copy_from_slice(&1_u32.to_le_bytes());
        }
        let checksum = crc32fast::hash(&block[..CHECKED]);
        block[CHECKED..].copy_from_slice(&checksum.to_le_bytes());
    }
    let expected: Vec<(u64, Entry)> =
        (0..).zip(blocks.iter().skip(1)).filter_map(|(at, block)| Some((at, entry(block)?))).collect();
    let path = directory.join("fuzz.journal");
    std::fs::write(&path, &file).expect("a file");
    let contents = match (read(&path), Journal::open(&path)) {
        (Ok(contents), Ok(_)) => contents,
        (Ok(contents), Err(_)) if file.is_empty() => return assert_eq!(contents, Contents::default()),
        (Err(read), Err(opened)) => {
            let is_same = read.to_string() == opened.to_string() || matches!(opened, Unreadable::Io(_));
            return assert!(is_same, "{read}, {opened}");
        }
        (read, opened) => panic!("{read:?}, {opened:?}"),
    };
    let mut journal = Journal::open(&path).expect("opened again");
    let first = journal.first();
    assert_eq!(journal.end() - first, file.len() as u64 / ENTRY_LEN as u64 - 1);
    let at =
        |base: u64| expected.iter().map(|(index, entry)| (base + index, entry.clone())).collect::<Vec<_>>();
    assert_eq!(contents.entries, at(first));
    let is_zero = |block: &[u8; ENTRY_LEN]| block.iter().all(|byte| *byte == 0);
    let (blocks, _) = file.as_chunks::<ENTRY_LEN>();
    let unwritten = blocks[1..].iter().rev().take_while(|block| is_zero(block)).count();
    assert_eq!(contents.is_damaged, expected.len() + unwritten < blocks.len() - 1);
    let mut told = contents.entries.clone();
    without_void_starts(&mut told);
    assert!(told.iter().all(|entry| contents.entries.contains(entry)));
    // What a forged header lets begin at the last positions there are cannot go on for long.
    if mend & 4 == 0 || journal.end() >= MAX_POSITION {
        return;
    }
    let last = Entry::Acknowledged { position: first };
    journal.append(&last.encode()).expect("appended");
    let entries = read(&path).expect("read").entries;
    assert_eq!(entries.split_last().expect("not empty"), (&(journal.end() - 1, last), &at(first)[..]));
    let kept: Vec<Entry> = entries.into_iter().map(|(_, entry)| entry).collect();
    let (end, boot_id) = (journal.end(), journal.boot_id().to_owned());
    journal.rewrite(kept.iter().map(Entry::encode).collect::<Vec<_>>().iter()).expect("rewritten");
    drop(journal);
    let reopened = Journal::open(&path).expect("opened");
    assert_eq!((reopened.first(), reopened.boot_id()), (end, boot_id.as_str()));
    assert_eq!(read(&path).expect("read").entries, (end..).zip(kept).collect::<Vec<_>>());
}

/// The entry in these bytes, if there is one. Its checksum is right then, and what it says is what the bytes say.
fn entry(bytes: &[u8; ENTRY_LEN]) -> Option<Entry> {
    let entry = Entry::decode(bytes).ok()?;
    assert_eq!(bytes[CHECKED..], crc32fast::hash(&bytes[..CHECKED]).to_le_bytes(), "a wrong checksum");
    let buffer = entry.encode();
    let again = buffer.as_bytes();
    assert_eq!(Entry::decode(again), Ok(entry.clone()));
    for part in meaning(&entry) {
        assert_eq!(bytes[part.clone()], again[part.clone()], "bytes {part:?} of {entry:?}");
    }
    let number =
        |bytes: &[u8; ENTRY_LEN], at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    if let Entry::Attempt { event, .. } = &entry {
        // What RFC 3339 cannot write is brought to its bounds.
        let wall = Timestamp::from_millis(number(bytes, 32).cast_signed());
        assert_eq!(number(again, 32).cast_signed(), wall.as_millis());
        if let Event::Exited { exit: ExitStatus::Code(_) | ExitStatus::Signal { .. }, .. } = event {
            // Kept in milliseconds.
            assert_eq!(number(again, 48), number(bytes, 48) / 1000 * 1000);
        }
    }
    Some(entry)
}

/// Where the bytes stand that an entry of this kind is made of, byte for byte. A later version may use the others, so a
/// reader does not look at them.
fn meaning(entry: &Entry) -> Vec<Range<usize>> {
    let Entry::Attempt { attempt, event, .. } = entry else { return vec![0..1, 64..72] };
    let mut parts = vec![0..2, 4..8, 40..48, 80..80 + attempt.id.as_str().len()];
    parts.extend(match event {
        Event::Started { .. } => [8..12, 16..32],
        Event::StartFailed(_) => [2..3, 12..16],
        Event::Exited { .. } => [3..4, 8..16],
    });
    match event {
        Event::Started { .. } => parts.push(208..224),
        Event::StartFailed(_) => parts.push(24..28),
        Event::Exited { .. } => parts.push(56..64),
    }
    parts
}

/// A message that is understood survives being sent, and is not understood if its end is missing, unless what is left is a
/// whole message of an earlier version.
pub fn messages(bytes: &[u8]) {
    if let Ok(message) = OwnerMessage::decode(bytes) {
        let sent = message.encode();
        assert_eq!(OwnerMessage::decode(&sent), Ok(message));
        let is_whole = |cut: &[u8]| OwnerMessage::decode(cut).is_ok_and(|message| message.encode() == cut);
        let is_refused = |cut: &[u8]| OwnerMessage::decode(cut).is_err();
        assert!((0..sent.len()).all(|length| is_refused(&sent[..length]) || is_whole(&sent[..length])));
    }
    let Ok(message) = KeeperMessage::decode(bytes) else { return };
    let sent = message.encode();
    assert_eq!(KeeperMessage::decode(&sent), Ok(message.clone()));
    if let KeeperMessage::Entries { position, raw } = message {
        let end = position + (raw.len() / ENTRY_LEN) as u64;
        assert!(decode_all(position, &raw).all(|(at, _)| (position..end).contains(&at)));
    } else {
        let is_whole = |cut: &[u8]| KeeperMessage::decode(cut).is_ok_and(|message| message.encode() == cut);
        let is_refused = |cut: &[u8]| KeeperMessage::decode(cut).is_err();
        assert!((0..sent.len()).all(|length| is_refused(&sent[..length]) || is_whole(&sent[..length])));
    }
}

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_properties_hold_for_what_the_fuzzers_found() {
        let directory = tempfile::tempdir().expect("a directory");
        corpus::for_each("journal", |bytes| journal(directory.path(), bytes));
        corpus::for_each("messages", messages);
    }
}
