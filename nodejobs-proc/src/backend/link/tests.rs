//! The connection to a keeper, and what is left of one.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nodejobs_core::JobId;
use nodejobs_core::id::AttemptId;
use nodejobs_core::logs::LogStart;

use super::*;
use crate::journal::{Stage, StartFailed};
use crate::machine::now;

#[test]
fn a_start_is_acknowledged_along_with_the_next_outcome() {
    let entry = |position: u64, event| {
        let attempt = AttemptId { id: JobId::new(&format!("j{position}")).expect("valid"), attempt: 1 };
        (position, Entry::Attempt { attempt, event, at: now() })
    };
    let log_start = LogStart::default();
    let started = Event::Started { pid: 1, start_ticks: 1, pidfs: None, log_start };
    let failed = Event::StartFailed(StartFailed::at(Stage::Exec, 2));
    let mut told = Told::default();
    told.note(&[entry(0, started), entry(1, started), entry(2, failed), entry(3, started)]);
    assert!(!told.wants(2), "nobody waits for it");
    assert!(told.wants(3) && !told.wants(3) && !told.wants(4));
    told.note(&[entry(4, failed)]);
    assert!(told.wants(5));
}

#[test]
fn a_keeper_that_would_leave_limits_out_gets_no_launches() {
    let welcome = Welcome { version: PROTOCOL_VERSION, features: FEATURES | 1 << 31, ..unknown() };
    assert!(takes_launches(&welcome), "it may know more");
    for other in [
        Welcome { features: 0, ..welcome.clone() },
        Welcome { draining: true, ..welcome.clone() },
        Welcome { version: PROTOCOL_VERSION + 1, ..welcome },
    ] {
        assert!(!takes_launches(&other), "{other:?}");
    }
}

#[test]
fn a_guard_answers_for_its_worker_that_was_killed_over_the_hello() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = KeeperFiles { directory: directory.path().to_owned(), name: "1-1".to_owned() };
    let listener = socket::listen(&files.directory, &files.socket_name()).expect("a listener");
    let deadline = Instant::now() + Duration::from_secs(20);
    let accept = || loop {
        if let Some(socket) = socket::accept(listener.as_fd()).expect("accepted") {
            break socket;
        }
        assert!(Instant::now() < deadline, "nobody connects");
        std::thread::yield_now();
    };
    let keeper = || {
        // The worker, which does not live to answer; the guard, which does.
        drop(accept());
        let welcome = Welcome { version: PROTOCOL_VERSION, guard: Some(7), draining: true, ..unknown() };
        let guard = accept();
        socket::send(&guard, &KeeperMessage::Welcome(welcome).encode(), None, false).expect("sent");
        guard
    };
    let (link, past) = std::thread::scope(|scope| {
        // What it returns stays open until the scope has heard all.
        let _guard = scope.spawn(keeper);
        let mut link = Link::connect(&files, 1, now().boot).expect("the worker is there");
        loop {
            assert!(Instant::now() < deadline, "the guard does not answer");
            if let Heard::Past(past) = link.receive(false, now().boot).expect("the guard is there") {
                break (link, past);
            }
            std::thread::yield_now();
        }
    });
    assert_eq!((link.collector(), past.entries.len(), past.launching.len()), (Some(7), 0, 0));
    drop(listener);
    assert!(matches!(Link::connect(&files, 1, now().boot), Err(LinkError::Dead)), "nobody listens");
}

#[test]
fn the_journal_of_a_dead_keeper_stays_as_long_as_only_it_tells_something() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = KeeperFiles { directory: directory.path().to_owned(), name: "1-1".to_owned() };
    let attempt = |id: &str| AttemptId { id: JobId::new(id).expect("valid"), attempt: 1 };
    let entry = |id: &str, event| Entry::Attempt { attempt: attempt(id), event, at: now() };
    let log_start = LogStart::default();
    let started = |id| entry(id, Event::Started { pid: 1, start_ticks: 1, pidfs: None, log_start });
    let failed = |id| entry(id, Event::StartFailed(StartFailed::at(Stage::Exec, 2)));
    let acknowledged = |position| Entry::Acknowledged { position };
    let needed = |entries: &[Entry]| {
        let entries: Vec<(u64, Entry)> = (0..).zip(entries.iter().cloned()).collect();
        let mut buried = Buried::new(files.clone(), &entries, BuriedFate::Removed);
        // What this owner has written down is all that counts.
        (0..10).find(|position| {
            buried.acknowledge(&Receipt { source: "1-1".to_owned(), position: *position });
            buried.is_settled()
        })
    };
    assert_eq!(needed(&[]), Some(0));
    assert_eq!(needed(&[failed("a"), acknowledged(1)]), Some(0));
    assert_eq!(needed(&[failed("a"), failed("b"), acknowledged(1)]), Some(2));
    // A start was told later than an end behind it, which was acknowledged.
    assert_eq!(needed(&[started("a"), failed("b"), acknowledged(2)]), Some(1));
    assert_eq!(needed(&[started("a"), failed("a"), acknowledged(2)]), Some(0));

    // What is told late is not covered by the receipt of what follows it.
    let entries: Vec<(u64, Entry)> = (0..).zip([started("a"), failed("b")]).collect();
    let mut buried = Buried::new(files.clone(), &entries, BuriedFate::Removed);
    buried.hold(&attempt("a"), 0);
    let receipt = |position| Receipt { source: "1-1".to_owned(), position };
    buried.acknowledge(&receipt(2));
    assert!(!buried.is_settled());
    buried.acknowledge(&receipt(1));
    assert!(buried.is_settled());

    // A damaged one answers for no launch of later.
    let mut buried = Buried::new(files.clone(), &entries, BuriedFate::SetAside);
    buried.hold(&attempt("a"), 0);
    buried.acknowledge(&receipt(2));
    assert!(!files.answered().exists(), "nothing says yet that all of it is in the store");
    buried.recovery_is_written();
    assert!(files.answered().exists() && !buried.is_settled());
    std::fs::write(files.journal(), "damaged").expect("written");
    buried.acknowledge(&receipt(1));
    assert!(buried.is_settled());
    let _ = buried.remove();
    let left = std::fs::read_dir(directory.path()).expect("read").flatten().map(|entry| entry.file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["1-1.journal.damaged"]);
}
