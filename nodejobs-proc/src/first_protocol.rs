//! The first version of the keeper's protocol and journal, byte by byte, as keepers of that time speak it: they may run for
//! as long as their jobs do, under owners of any later version.
//!
//! `first_protocol/bytes` is a line for each message and entry: its name and its bytes. It is never written again. Whoever
//! changes the protocol changes this side: what an old keeper says is still understood, and what is said to it begins with
//! what it understands.

use nodejobs_core::JobId;
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{ExitStatus, ResourceUsage};
use nodejobs_core::logs::LogStart;
use nodejobs_core::time::{BootTime, Moment, Timestamp};

use crate::journal::{Entry, Event, Stage, StartFailed, decode_all};
use crate::protocol::{KeeperMessage, LaunchHeader, LaunchLimits, OwnerMessage, RESOURCES, Welcome};

const BYTES: &str = include_str!("first_protocol/bytes");

fn attempt() -> AttemptId {
    AttemptId { id: JobId::new("nightly-1").expect("valid"), attempt: 3 }
}

/// What an owner says.
fn said_to_it() -> Vec<(&'static str, OwnerMessage)> {
    let mut soft_limits = [None; RESOURCES];
    soft_limits[7] = Some(1024);
    let header = LaunchHeader {
        attempt: attempt(),
        candidates: 2,
        arguments: 3,
        variables: 4,
        bytes: 567,
        umask: Some(0o027),
        soft_limits,
        limits: LaunchLimits::default(),
        held: None,
        trace: None,
        group: None,
        makes_directories: false,
    };
    vec![
        ("hello", OwnerMessage::Hello { version: 1, generation: 9, features: 8 }),
        ("launch", OwnerMessage::Launch(Box::new(header))),
        ("acknowledge", OwnerMessage::Acknowledge { position: 8 }),
    ]
}

/// What the journal holds, in this order, from position 5.
fn entries() -> Vec<(&'static str, Entry)> {
    let at = Moment { wall: Timestamp::from_millis(1_784_000_000_123), boot: BootTime(77) };
    let usage = ResourceUsage { cpu_ms: 12, peak_memory_kib: 3456 };
    let log_start = LogStart { stdout: 7, stderr: 8 };
    let about = |event| Entry::Attempt { attempt: attempt(), event, at };
    let exited = |exit| about(Event::Exited { pid: 42, exit, usage });
    vec![
        ("started", about(Event::Started { pid: 42, start_ticks: 99, pidfs: Some(123), log_start })),
        ("start-failed", about(Event::StartFailed(StartFailed::at(Stage::Exec, 2)))),
        ("exited-code", exited(ExitStatus::Code(7))),
        ("exited-signal", exited(ExitStatus::Signal { number: 9, core_dumped: false })),
        ("exited-core", exited(ExitStatus::Signal { number: 11, core_dumped: true })),
        ("acknowledged", Entry::Acknowledged { position: 8 }),
    ]
}

/// What a keeper says.
fn said_by_it() -> Vec<(&'static str, KeeperMessage)> {
    let welcome = Welcome {
        version: 1,
        guard: Some(1001),
        worker: Some(1002),
        draining: false,
        first: 5,
        end: 11,
        program_version: "0.1.0".to_owned(),
        features: 0,
        launching: 0,
        is_damaged: false,
        is_stuck: false,
    };
    let raw = entries().iter().flat_map(|(name, _)| bytes(name)).collect();
    vec![
        ("welcome", KeeperMessage::Welcome(welcome)),
        ("entries", KeeperMessage::Entries { position: 5, raw }),
        ("superseded", KeeperMessage::Superseded { generation: 10 }),
    ]
}

fn bytes(name: &str) -> Vec<u8> {
    let line = BYTES.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let hex = line.unwrap_or_else(|| panic!("no line {name}"));
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte");
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn what_an_old_keeper_says_is_understood() {
    for (name, message) in said_by_it() {
        assert_eq!(KeeperMessage::decode(&bytes(name)), Ok(message), "{name}");
    }
    let KeeperMessage::Entries { position, raw } = KeeperMessage::decode(&bytes("entries")).expect("entries")
    else {
        panic!("no entries")
    };
    let heard: Vec<Entry> = decode_all(position, &raw).map(|(_, entry)| entry).collect();
    let expected: Vec<Entry> = entries().into_iter().map(|(_, entry)| entry).collect();
    assert_eq!(heard, expected);
}

#[test]
fn what_is_said_to_an_old_keeper_begins_with_what_it_understands() {
    for (name, message) in said_to_it() {
        let said = message.encode();
        assert!(said.starts_with(&bytes(name)), "{name}: {said:02x?}");
    }
}

#[test]
fn the_journal_that_a_dead_old_keeper_left_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("00000009-1.journal");
    let all: Vec<u8> =
        ["header"].into_iter().chain(entries().iter().map(|(name, _)| *name)).flat_map(bytes).collect();
    std::fs::write(&path, all).expect("written");
    let journal = crate::journal::read(&path).expect("a journal");
    assert_eq!(journal.boot_id, "11111111-2222-3333-4444-555555555555");
    let expected: Vec<_> = (5..).zip(entries().into_iter().map(|(_, entry)| entry)).collect();
    assert_eq!(journal.entries, expected);
}
