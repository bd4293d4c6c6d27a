//! What a journal says, whatever has become of its bytes.

use nodejobs_core::id::{AttemptId, JobId};
use nodejobs_core::job::{ExitStatus, ResourceUsage};
use nodejobs_core::logs::LogStart;
use nodejobs_core::time::{BootTime, Moment, Timestamp};
use proptest::prelude::*;

use super::*;

fn attempt(id: &str) -> AttemptId {
    AttemptId { id: JobId::new(id).expect("valid"), attempt: 3 }
}

fn moment() -> Moment {
    Moment { wall: Timestamp::from_millis(1_784_000_000_123), boot: BootTime(77) }
}

fn events() -> Vec<Event> {
    let usage = ResourceUsage { cpu_ms: 12, peak_memory_kib: 3456 };
    let exits = [
        ExitStatus::Code(7),
        ExitStatus::Signal { number: 9, core_dumped: false },
        ExitStatus::Signal { number: 11, core_dumped: true },
    ];
    let mut events: Vec<Event> = exits.map(|exit| Event::Exited { pid: 42, exit, usage }).into();
    for stage in (0..=u8::MAX).filter_map(Stage::of) {
        let failed = StartFailed::at(stage, 2);
        events.extend(
            [failed, StartFailed { which: Some(0), child: Some(42), ..failed }].map(Event::StartFailed),
        );
    }
    events.push(Event::Started {
        pid: 42,
        start_ticks: 99,
        pidfs: Some(123),
        log_start: LogStart { stdout: 7, stderr: u64::MAX },
    });
    events.push(Event::Started { pid: 42, start_ticks: 99, pidfs: None, log_start: LogStart::default() });
    events
}

#[test]
fn every_entry_is_read_as_it_was_written() {
    let longest = "x".repeat(JobId::MAX_LEN);
    for id in ["a", longest.as_str()] {
        for event in events() {
            let entry = Entry::Attempt { attempt: attempt(id), event, at: moment() };
            assert_eq!(Entry::decode(entry.encode().as_bytes()), Ok(entry));
        }
    }
    let entry = Entry::Acknowledged { position: 8 };
    assert_eq!(Entry::decode(entry.encode().as_bytes()), Ok(entry));
}

#[test]
fn a_failure_after_the_start_is_written_like_any_other() {
    let entry = Entry::Attempt {
        attempt: attempt("a"),
        event: Event::StartFailed(StartFailed { which: Some(7), ..StartFailed::at(Stage::Exec, 2) }),
        at: moment(),
    };
    let mut buffer = EntryBuffer::for_attempt(&attempt("a"));
    buffer.complete_started(42, 99, 123, 1, 2);
    let failure = StartFailed { which: Some(7), ..StartFailed::at(Stage::Exec, 2) };
    buffer.make_start_failure(failure, moment().wall.as_millis(), moment().boot.0);
    assert_eq!(buffer.as_bytes(), entry.encode().as_bytes());
}

#[test]
fn positions_go_on_over_a_rewrite_and_a_reopening() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("k.journal");
    let mut journal = Journal::create(&path, "boot", 0).expect("created");
    journal.lock().expect("locked");
    let entries: Vec<Entry> = events()
        .into_iter()
        .map(|event| Entry::Attempt { attempt: attempt("a"), event, at: moment() })
        .collect();
    let buffers: Vec<EntryBuffer> = entries.iter().map(Entry::encode).collect();
    for entry in &buffers {
        journal.append(entry).expect("appended");
    }
    let end = entries.len() as u64;
    journal.rewrite(buffers[..2].iter()).expect("rewritten");
    assert_eq!((journal.first(), journal.end()), (end, end + 2));
    let mut buffer = [0; 4096];
    let raw = journal.read_raw(end + 1, &mut buffer).expect("read").to_vec();
    assert_eq!(decode_all(end + 1, &raw).collect::<Vec<_>>(), [(end + 1, entries[1].clone())]);
    drop(journal);
    let reopened = Journal::open(&path).expect("opened");
    assert_eq!((reopened.boot_id(), reopened.first(), reopened.end()), ("boot", end, end + 2));
    let expected: Vec<_> = (end..).zip(entries[..2].iter().cloned()).collect();
    let read = read(&path).expect("read");
    assert_eq!(read, Contents { boot_id: "boot".to_owned(), entries: expected, is_damaged: false });
}

#[test]
fn the_lock_of_a_journal_is_seen_and_not_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("k.journal");
    assert!(!is_locked(&path), "it is not there");
    let journal = Journal::create(&path, "boot", 0).expect("created");
    assert!(!is_locked(&path));
    journal.lock().expect("locked");
    assert!(is_locked(&path));
    drop(journal);
    assert!(!is_locked(&path));
}

#[test]
fn a_start_goes_with_what_takes_it_back_wherever_that_is() {
    let entry = |id: &str, event| Entry::Attempt { attempt: attempt(id), event, at: moment() };
    let started = |id| {
        entry(id, Event::Started { pid: 42, start_ticks: 99, pidfs: None, log_start: LogStart::default() })
    };
    let failed = |id| entry(id, Event::StartFailed(StartFailed::at(Stage::Exec, 2)));
    let usage = ResourceUsage { cpu_ms: 1, peak_memory_kib: 1 };
    let exited = |id| entry(id, Event::Exited { pid: 42, exit: ExitStatus::Code(0), usage });
    let left = |entries: &[Entry]| {
        let mut entries: Vec<(u64, Entry)> = (0..).zip(entries.iter().cloned()).collect();
        without_void_starts(&mut entries);
        entries.into_iter().map(|(position, _)| position).collect::<Vec<_>>()
    };
    assert_eq!(left(&[started("a"), failed("a")]), [1]);
    assert_eq!(left(&[started("a"), started("b"), failed("c"), failed("a"), exited("b")]), [1, 2, 3, 4]);
    assert_eq!(left(&[started("a"), exited("a"), failed("a")]), [0, 1, 2], "another job of that id");
    assert_eq!(left(&[started("a"), exited("a"), started("a"), failed("a")]), [0, 1, 3]);
    assert_eq!(left(&[started("a"), started("b")]), [0, 1]);
}

#[test]
fn what_is_not_as_it_was_written_is_noticed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("k.journal");
    let entry = Entry::Acknowledged { position: 1 };
    {
        let mut journal = Journal::create(&path, "boot", 0).expect("created");
        for _ in 0..3 {
            journal.append(&entry.encode()).expect("appended");
        }
    }
    let whole = std::fs::read(&path).expect("read");
    let damaged_at = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        let contents = read(&path).expect("readable");
        (contents.entries.into_iter().map(|(position, _)| position).collect::<Vec<_>>(), contents.is_damaged)
    };
    assert_eq!(damaged_at(&whole), (vec![0, 1, 2], false));
    for position in 0..3 {
        let mut bytes = whole.clone();
        bytes[(position + 1) * ENTRY_LEN + 64] ^= 8;
        let left: Vec<u64> = (0..3).filter(|other| *other != position as u64).collect();
        assert_eq!(damaged_at(&bytes), (left, true), "entry {position}");
    }
    // Part of an entry, and room that was never written to.
    assert_eq!(damaged_at(&[&whole[..], &[1; 100]].concat()), (vec![0, 1, 2], false));
    assert_eq!(damaged_at(&[&whole[..], &[0; 2 * ENTRY_LEN]].concat()), (vec![0, 1, 2], false));
    // Appending goes on where an entry belongs.
    std::fs::write(&path, [&whole[..], &[1; 100]].concat()).expect("written");
    Journal::open(&path).expect("opened").append(&entry.encode()).expect("appended");
    assert_eq!(read(&path).expect("read").entries.len(), 4);

    assert_eq!(damaged_at(b""), (vec![], false), "killed while it was made");
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(read(&path).expect("nothing"), Contents::default());
    let of_header = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("written");
        read(&path).expect_err("unreadable")
    };
    for damaged in [&b"cut"[..], &[7; 2 * ENTRY_LEN], &[0; 2 * ENTRY_LEN], &whole[..ENTRY_LEN - 1]] {
        assert!(matches!(of_header(damaged), Unreadable::Damaged), "{damaged:?}");
    }
    let mut later = whole;
    later[16] = 2;
    let checksum = crc32fast::hash(&later[..CHECKSUM_AT]).to_le_bytes();
    later[CHECKSUM_AT..ENTRY_LEN].copy_from_slice(&checksum);
    assert!(matches!(of_header(&later), Unreadable::Version(2)));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), ENTRY_LEN), fix in any::<bool>()) {
        let mut array: [u8; ENTRY_LEN] = bytes.try_into().expect("that long");
        if fix {
            let checksum = crc32fast::hash(&array[..CHECKSUM_AT]).to_le_bytes();
            array[CHECKSUM_AT..].copy_from_slice(&checksum);
            array[0] %= 6;
        }
        let _ = Entry::decode(&array);
    }
}
