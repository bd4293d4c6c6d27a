//! Rules about what stays: attempts, events, and numbers that were given out.

use super::super::content::Counters;
use super::super::{JobChange, JobStore, PageRequest, Rejection, Unit, UnitOutcome};
use super::case::Case;
use super::jobs::{
    all_jobs, applied, assert_sound, commit, definition, id, insert, insert_with, job, new_attempt, put,
    remove, request, state, update, update_attempt, with,
};
use crate::store::{DocumentKind, Order};
use crate::{Reason, Status, Timestamp};

pub(super) fn attempts_are_kept_in_order(case: &Case) {
    let store = case.store();
    assert_eq!(store.attempts(&id("a")).expect("attempts"), []);
    commit(&*store, &[insert("a", Status::Running), insert("b", Status::Running)]);
    let mut expected = Vec::new();
    // More than nine, so that an order by text shows.
    for attempt in 1..=12_u32 {
        let revision = u64::from(attempt) * 2;
        let mut ended = state(attempt, Status::Failed);
        ended.detail = Some(format!("end of attempt {attempt}"));
        ended.last_update = Timestamp::from_millis(i64::from(attempt));
        let end = JobChange::Update { id: id("a"), expected: revision - 1, state: ended };
        commit(&*store, &[end.into()]);
        expected.push(job(&*store, "a").expect("there"));
        commit(&*store, &[new_attempt("a", revision, attempt + 1, Status::Running)]);
    }
    let newest = job(&*store, "a").expect("there");
    assert_eq!((newest.seq, newest.revision, newest.state.attempt), (1, 25, 13));
    assert_eq!(newest.definition.command, definition("attempt 13 of a").command);
    expected.push(newest.clone());
    let numbers: Vec<_> = expected.iter().map(|job| (job.seq, job.state.attempt, job.revision)).collect();
    let last = |attempt: u32| if attempt == 13 { 25 } else { u64::from(attempt) * 2 };
    assert_eq!(numbers, (1..=13).map(|attempt| (1, attempt, last(attempt))).collect::<Vec<_>>());
    assert_eq!(store.attempts(&id("a")).expect("attempts"), expected);
    // Earlier attempts are in no listing, and the other job has none.
    assert_eq!(all_jobs(&*store).iter().filter(|job| job.id == id("a")).count(), 1);
    assert_eq!(store.attempts(&id("b")).expect("attempts").len(), 1);
    // A filter is about the newest attempt.
    let mut listed = request(Order::OldestFirst, None, 9);
    listed.filter.status = vec![Status::Failed];
    assert_eq!(store.jobs(&listed).expect("a page").jobs, []);
}

pub(super) fn old_attempts_are_forgotten(case: &Case) {
    let store = case.store();
    commit(&*store, &[insert("a", Status::Failed), insert("b", Status::Failed)]);
    for attempt in 2..=12_u32 {
        let next = |name| new_attempt(name, u64::from(attempt) - 1, attempt, Status::Failed);
        commit(&*store, &[next("a"), next("b")]);
    }
    let attempts = |name: &str| store.attempts(&id(name)).expect("attempts");
    let (before, other) = (attempts("a"), attempts("b"));
    let forget = |name: &str, through| -> Unit { JobChange::ForgetAttempts { id: id(name), through }.into() };
    let events = store.counters().expect("counters").last_event;
    assert_eq!(store.commit(&[forget("a", 9)]).expect("committed"), [applied(1, 0)]);
    assert_eq!(attempts("a"), before[9..]);
    assert_eq!(job(&*store, "a").as_ref(), before.last());
    assert_eq!(attempts("b"), other);
    assert_eq!(store.counters().expect("counters").last_event, events);
    // What is gone already is no mistake.
    assert_eq!(store.commit(&[forget("a", 3)]).expect("committed"), [applied(1, 0)]);
    assert_eq!(attempts("a"), before[9..]);
    for through in [12, 13, u32::MAX] {
        let illegal = Rejection::IllegalMove { from: Status::Failed, to: Status::Failed };
        assert_eq!(store.commit(&[forget("a", through)]).expect("refused"), [UnitOutcome::Rejected(illegal)]);
    }
    let missing = UnitOutcome::Rejected(Rejection::Missing);
    assert_eq!(store.commit(&[forget("nobody", 1)]).expect("refused"), [missing]);
    assert_sound(&*store);
    // It goes on, and goes away as a whole.
    commit(&*store, &[new_attempt("a", 12, 13, Status::Failed), forget("a", 12), remove("b", 12)]);
    let newest: Vec<u32> = attempts("a").iter().map(|job| job.state.attempt).collect();
    assert_eq!(newest, [13]);
    commit(&*store, &[remove("a", 13)]);
    assert_eq!(attempts("a"), []);
    assert_sound(&*store);
}

pub(super) fn events_have_no_gap_and_stay(case: &Case) {
    let store = case.store();
    let mut lost = state(1, Status::Lost);
    lost.reason = Some(Reason::Reboot);
    lost.last_update = Timestamp::from_millis(7);
    let lost = JobChange::Update { id: id("a"), expected: 2, state: lost };
    store
        .commit(&[
            insert("a", Status::Starting),
            insert("b", Status::Finished),
            insert("a", Status::Starting),
            update("a", 1, Status::Running),
            update("a", 1, Status::Running),
            lost.into(),
            new_attempt("a", 3, 2, Status::Queued),
            remove("b", 1),
        ])
        .expect("committed");
    let events = store.events(0, usize::MAX).expect("events");
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.seq, event.attempt.to_string(), event.status, event.reason))
        .collect();
    let told_of = |seq, attempt: &str, status, reason| (seq, attempt.to_owned(), status, reason);
    let expected = [
        told_of(1, "a (attempt 1)", Status::Starting, None),
        told_of(2, "b (attempt 1)", Status::Finished, None),
        told_of(3, "a (attempt 1)", Status::Running, None),
        told_of(4, "a (attempt 1)", Status::Lost, Some(Reason::Reboot)),
        told_of(5, "a (attempt 2)", Status::Queued, None),
    ];
    assert_eq!(told, expected);
    assert_eq!(events[3].at, Timestamp::from_millis(7));

    // A job of the same id is another one; the events of the first stay.
    commit(&*store, &[insert("b", Status::Finished), remove("b", 1)]);
    let later = store.events(5, 99).expect("events");
    assert_eq!(later.iter().map(|event| event.seq).collect::<Vec<_>>(), [6]);
    assert_eq!(store.events(0, 5).expect("events"), events);
    for (after, limit, expected) in
        [(0, 2, &[1, 2][..]), (2, 2, &[3, 4]), (4, 9, &[5, 6]), (6, 9, &[]), (u64::MAX, 9, &[]), (0, 0, &[])]
    {
        let found = store.events(after, limit).expect("events");
        assert_eq!(found.iter().map(|event| event.seq).collect::<Vec<_>>(), expected, "after {after}");
    }
}

pub(super) fn numbers_are_never_given_twice(case: &Case) {
    let store = case.store();
    assert_eq!(store.counters().expect("counters"), Counters::default());
    for seq in 1..=5 {
        let outcomes = store.commit(&[insert("a", Status::Finished), remove("a", 1)]).expect("committed");
        assert_eq!(outcomes, [applied(seq, seq), applied(seq, 0)]);
        assert_eq!(store.counters().expect("counters"), Counters { last_seq: seq, last_event: seq });
    }
    // Neither does a refused insert use one up.
    commit(&*store, &[insert("a", Status::Finished)]);
    store.commit(&[insert("a", Status::Finished)]).expect("refused");
    assert_eq!(store.commit(&[insert("b", Status::Finished)]).expect("committed"), [applied(7, 7)]);
}

pub(super) fn removed_jobs_leave_nothing_but_events(case: &Case) {
    let store = case.store();
    let mut labelled = definition("x");
    labelled.name = Some("name".to_owned());
    labelled.group = Some("group".to_owned());
    labelled.labels.insert("key".to_owned(), "value".to_owned());
    commit(
        &*store,
        &[
            with(insert_with("x", labelled.clone(), Status::Finished), put(DocumentKind::Input, "x/1", b"i")),
            JobChange::NewAttempt {
                id: id("x"),
                expected: 1,
                definition: Box::new(labelled),
                state: state(2, Status::Running),
            }
            .into(),
            update_attempt("x", 2, 2, Status::Lost),
            insert("other", Status::Finished),
        ],
    );
    let found_by = |store: &dyn JobStore| -> Vec<usize> {
        let conditions = [
            ("self_id", "x"),
            ("id_prefix", "x"),
            ("name", "name"),
            ("group", "group"),
            ("label", "key"),
            ("label", "key=value"),
            ("status", "lost"),
            ("status", "finished,running"),
        ];
        conditions
            .map(|(key, value)| {
                let mut request: PageRequest = request(Order::NewestFirst, None, 9);
                request.filter.set(key, value).expect("a filter");
                let jobs = store.jobs(&request).expect("a page").jobs;
                jobs.iter().filter(|job| job.id == id("x")).count()
            })
            .into()
    };
    assert_eq!(found_by(&*store), [1, 1, 1, 1, 1, 1, 1, 0]);
    commit(&*store, &[remove("x", 3)]);
    assert_eq!(found_by(&*store), [0; 8]);
    assert_eq!(job(&*store, "x"), None);
    assert_eq!(store.attempts(&id("x")).expect("attempts"), []);
    assert_eq!(store.counts().expect("counts"), [(Status::Finished, 1)].into());
    assert_eq!(store.events(0, 9).expect("events").len(), 4);
    // Whose the document was is not the store's business.
    assert!(store.document(DocumentKind::Input, "x/1").expect("a document").is_some());
    assert_sound(&*store);

    let again: &[Unit] = &[insert("x", Status::Finished)];
    assert_eq!(store.commit(again).expect("committed"), [applied(3, 5)]);
    let attempts = store.attempts(&id("x")).expect("attempts");
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    assert_eq!((attempts[0].revision, attempts[0].state.attempt), (1, 1));
    assert_eq!(found_by(&*store), [1, 1, 0, 0, 0, 0, 0, 1]);
    assert_sound(&*store);
}
