//! Rules about several openers of one store.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::super::StoreError;
use super::Verdict;
use super::case::DiskCase;
use super::child::{self, Role};
use super::files::{around, assert_names};
use super::jobs::{all_jobs, assert_sound, commit, insert};
use crate::Status;

/// A refusal that takes longer than this has waited for something.
const AT_ONCE: Duration = Duration::from_secs(1);
const RACERS: usize = 8;

/// The body of another process that opens a store.
pub(super) fn try_to_open(case: &DiskCase, place: &Path) {
    let begin = Instant::now();
    match case.subject.open(place) {
        Ok(store) => child::say(&format!("opened with {} jobs", all_jobs(&*store).len())),
        Err(StoreError::InUse { path }) if path == place && begin.elapsed() < AT_ONCE => child::say("in use"),
        Err(error) => panic!("{error:?} after {:?}", begin.elapsed()),
    }
}

pub(super) fn a_second_opener_is_refused_at_once_or_shares(case: &DiskCase) -> Verdict {
    let place = case.place();
    let store = case.open(&place);
    commit(&*store, &[insert("a", Status::Queued)]);
    let elsewhere = || child::succeed(&mut child::command(case, Role::Open, &place, &[]));
    if store.info().shareable {
        let second = case.open(&place);
        assert_eq!(all_jobs(&*second).len(), 1);
        commit(&*second, &[insert("b", Status::Queued)]);
        commit(&*store, &[insert("c", Status::Queued)]);
        assert_eq!(all_jobs(&*store), all_jobs(&*second));
        assert!(elsewhere().contains("\nopened with 3 jobs\n"));
    } else {
        let begin = Instant::now();
        let error = case.subject.open(&place).err().expect("it is in use");
        assert!(begin.elapsed() < AT_ONCE, "refused after {:?}", begin.elapsed());
        assert!(matches!(&error, StoreError::InUse { path } if *path == place), "{error:?}");
        assert_names(&error, &place);
        assert!(elsewhere().contains("\nin use\n"));
        // Whoever has it is not disturbed.
        commit(&*store, &[insert("b", Status::Queued), insert("c", Status::Queued)]);
    }
    drop(store);
    assert!(elsewhere().contains("\nopened with 3 jobs\n"));
    Verdict::Held
}

fn names_around(place: &Path) -> BTreeSet<OsString> {
    let entries = std::fs::read_dir(around(place)).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name()).collect()
}

pub(super) fn racing_openers_meet_one_store(case: &DiskCase) -> Verdict {
    let alone = case.place();
    drop(case.open(&alone));
    for _ in 0..5 {
        let place = case.place();
        let barrier = Barrier::new(RACERS);
        std::thread::scope(|scope| {
            for number in 0..RACERS {
                let (place, barrier, subject) = (&place, &barrier, case.subject);
                scope.spawn(move || {
                    barrier.wait();
                    let store = loop {
                        match subject.open(place) {
                            Ok(store) => break store,
                            // One after the other, where only one may have it.
                            Err(StoreError::InUse { .. }) => std::thread::yield_now(),
                            Err(error) => panic!("{error:?}"),
                        }
                    };
                    commit(&*store, &[insert(&format!("job-{number}"), Status::Queued)]);
                });
            }
        });
        let store = case.open(&place);
        assert_eq!(all_jobs(&*store).len(), RACERS);
        assert_sound(&*store);
        drop(store);
        assert_eq!(names_around(&place), names_around(&alone), "something was left over");
    }
    Verdict::Held
}
