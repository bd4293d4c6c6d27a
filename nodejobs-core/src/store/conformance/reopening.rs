//! Rules about stores that are closed and opened again.

use super::Verdict;
use super::case::DiskCase;
use super::fixture::fixture_content;
use super::jobs::{
    applied, assert_same, assert_sound, commit, content, insert, insert_with, new_attempt, put, remove,
    update, with,
};
use crate::Status;
use crate::store::DocumentKind;

pub(super) fn everything_survives_reopening(case: &DiskCase) -> Verdict {
    let place = case.place();
    let store = case.open(&place);
    store.load(&fixture_content()).expect("loaded");
    let mut labelled = super::jobs::definition("labelled");
    labelled.labels.insert("key".to_owned(), "value".to_owned());
    let large = vec![7; 1 << 20];
    commit(
        &*store,
        &[
            with(insert_with("a", labelled, Status::Starting), put(DocumentKind::Input, "a/1", &large)),
            insert("b", Status::Lost),
        ],
    );
    commit(&*store, &[update("a", 1, Status::Running), new_attempt("b", 1, 2, Status::Queued)]);
    let (before, counts, info) = (content(&*store), store.counts().expect("counts"), store.info());
    assert_eq!(info.engine, case.subject.name());
    assert_eq!(info.path.as_ref(), Some(&place));
    assert!(info.format > 0);
    let mut store = store;
    for _ in 0..3 {
        drop(store);
        assert_eq!(
            (place.is_dir(), place.is_file()),
            (case.subject.is_directory(), !case.subject.is_directory())
        );
        store = case.open(&place);
        assert_same(&content(&*store), &before, "opened again");
        assert_eq!(store.counts().expect("counts"), counts);
        assert_eq!(store.info(), info);
        assert_sound(&*store);
    }
    Verdict::Held
}

pub(super) fn numbers_go_on_after_reopening(case: &DiskCase) -> Verdict {
    let place = case.place();
    for round in 0..4 {
        // The last job is removed before each end, and in the first rounds it is the only one.
        let store = case.open(&place);
        let outcomes = store.commit(&[insert("a", Status::Finished), remove("a", 1)]).expect("committed");
        assert_eq!(outcomes, [applied(round + 1, round + 1), applied(round + 1, 0)]);
        drop(store);
        let counters = case.open(&place).counters().expect("counters");
        assert_eq!((counters.last_seq, counters.last_event), (round + 1, round + 1));
    }
    let store = case.open(&place);
    let events = store.events(0, 9).expect("events");
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    Verdict::Held
}

pub(super) fn the_last_handle_frees_the_store(case: &DiskCase) -> Verdict {
    let place = case.place();
    for round in 0..20 {
        let store = case.open(&place);
        assert_eq!(super::jobs::all_jobs(&*store).len(), round);
        commit(&*store, &[insert(&format!("job-{round}"), Status::Queued)]);
        // Also from another thread than the one that opened it.
        std::thread::scope(|scope| scope.spawn(move || drop(store)).join()).expect("no panic");
    }
    Verdict::Held
}
