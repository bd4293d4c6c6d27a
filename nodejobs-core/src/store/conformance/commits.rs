//! Rules about commits: what is applied, what is refused, and who wins.

use std::sync::Barrier;

use super::super::{DocumentKind, JobChange, JobStore, Order, Rejection, Unit, UnitOutcome};
use super::case::Case;
use super::jobs::{
    all_jobs, applied, assert_same, assert_sound, commit, content, definition, documents, id, insert,
    insert_with, job, new_attempt, put, remove, request, state, update, update_attempt, with,
};
use crate::Status;

const RACERS: usize = 8;
const RACES: usize = 10;

fn refused(rejection: Rejection) -> UnitOutcome {
    UnitOutcome::Rejected(rejection)
}

/// Commits a unit that has to be refused, and nothing of it may be seen.
fn refuse(store: &dyn JobStore, unit: &Unit, rejection: Rejection) {
    let before = content(store);
    let outcomes = store.commit(std::slice::from_ref(unit)).expect("a refusal is no error");
    assert_eq!(outcomes, [refused(rejection)], "{unit:?}");
    assert_same(&content(store), &before, "a refused unit has left something");
}

pub(super) fn inserts_are_create_only(case: &Case) {
    let store = case.store();
    assert_eq!(store.commit(&[insert("a", Status::Queued)]).expect("committed"), [applied(1, 1)]);
    let first = job(&*store, "a").expect("there");
    assert_eq!((first.seq, first.revision, first.state.attempt), (1, 1, 1));
    refuse(&*store, &insert("a", Status::Starting), Rejection::Exists);
    // Ids that look alike are other ids.
    for name in ["A", "a.", "a-", "aa"] {
        commit(&*store, &[insert(name, Status::Queued)]);
    }
    assert_eq!(job(&*store, "a"), Some(first));
    let ids: Vec<_> = all_jobs(&*store).into_iter().map(|job| String::from(job.id)).collect();
    assert_eq!(ids, ["a", "A", "a.", "a-", "aa"]);
    commit(&*store, &[insert("ended", Status::Finished)]);
    refuse(&*store, &insert("ended", Status::Queued), Rejection::Exists);
}

pub(super) fn changes_are_compare_and_set(case: &Case) {
    let store = case.store();
    commit(&*store, &[insert("a", Status::Queued), insert("ended", Status::Finished)]);
    commit(&*store, &[update("a", 1, Status::Starting), update("a", 2, Status::Running)]);
    for expected in [0, 1, 2, 4, u64::MAX >> 1] {
        let stale = Rejection::Stale { found: 3 };
        refuse(&*store, &update("a", expected, Status::Finished), stale);
        // The revision is looked at before the move.
        refuse(&*store, &remove("a", expected), stale);
        refuse(&*store, &new_attempt("a", expected, 2, Status::Queued), stale);
    }
    refuse(&*store, &remove("ended", 2), Rejection::Stale { found: 1 });
    refuse(&*store, &new_attempt("ended", 0, 2, Status::Queued), Rejection::Stale { found: 1 });
    for unit in [
        update("b", 1, Status::Running),
        remove("b", 1),
        new_attempt("b", 1, 2, Status::Queued),
        update("b", 0, Status::Running),
    ] {
        refuse(&*store, &unit, Rejection::Missing);
    }
    assert_eq!(
        store.commit(&[update("a", 3, Status::Finished)]).expect("committed"),
        [applied(1, 5)],
        "the right revision is taken"
    );
    assert_eq!(job(&*store, "a").map(|job| job.revision), Some(4));
}

pub(super) fn illegal_moves_are_refused(case: &Case) {
    let store = case.store();
    for from in Status::ALL {
        let name = |to: Status| format!("{from}-{to}");
        let inserts: Vec<Unit> = Status::ALL.map(|to| insert(&name(to), from)).into();
        commit(&*store, &inserts);
        let updates: Vec<Unit> = Status::ALL.map(|to| update(&name(to), 1, to)).into();
        let outcomes = store.commit(&updates).expect("committed");
        for (to, outcome) in Status::ALL.into_iter().zip(outcomes) {
            let stored = job(&*store, &name(to)).expect("there");
            if from.may_become(to) || (from == to && !from.is_terminal()) {
                assert!(matches!(outcome, UnitOutcome::Applied { .. }), "{from} to {to}: {outcome:?}");
                assert_eq!((stored.revision, stored.state.status), (2, to));
            } else {
                assert_eq!(outcome, refused(Rejection::IllegalMove { from, to }));
                assert_eq!((stored.revision, stored.state.status), (1, from));
            }
        }
    }
    commit(&*store, &[insert("living", Status::Running), insert("ended", Status::Failed)]);
    let illegal = |from, to| Rejection::IllegalMove { from, to };
    refuse(&*store, &remove("living", 1), illegal(Status::Running, Status::Running));
    refuse(&*store, &new_attempt("living", 1, 2, Status::Queued), illegal(Status::Running, Status::Queued));
    for number in [0, 1, 3, u32::MAX] {
        let unit = new_attempt("ended", 1, number, Status::Queued);
        refuse(&*store, &unit, illegal(Status::Failed, Status::Queued));
        let unit = update_attempt("living", 1, if number == 1 { 2 } else { number }, Status::Finished);
        refuse(&*store, &unit, illegal(Status::Running, Status::Finished));
    }
}

pub(super) fn a_queued_attempt_is_redefined(case: &Case) {
    let store = case.store();
    let mut before = definition("before");
    before.name = Some("old".to_owned());
    before.group = Some("old".to_owned());
    before.labels = [("old".to_owned(), "1".to_owned()), ("same".to_owned(), "1".to_owned())].into();
    commit(&*store, &[insert_with("a", before, Status::Failed)]);
    commit(&*store, &[new_attempt("a", 1, 2, Status::Queued), insert("b", Status::Queued)]);
    let mut after = definition("after");
    after.name = Some("new".to_owned());
    after.group = Some("new".to_owned());
    after.labels = [("new".to_owned(), "1".to_owned()), ("same".to_owned(), "2".to_owned())].into();
    let redefine = |name: &str, expected: u64, attempt: u32, status: Status| -> Unit {
        let definition = Box::new(after.clone());
        JobChange::Redefine { id: id(name), expected, definition, state: state(attempt, status) }.into()
    };
    let outcome = store.commit(&[redefine("a", 2, 2, Status::Queued)]).expect("committed");
    assert_eq!(outcome, [applied(1, 4)]);
    let changed = job(&*store, "a").expect("there");
    assert_eq!((changed.revision, changed.state.attempt, &changed.definition), (3, 2, &after));
    let attempts = store.attempts(&id("a")).expect("attempts");
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].definition.name.as_deref(), Some("old"), "the attempt before it is as it was");
    let found = |key: &str, value: &str| {
        let mut listed = request(Order::OldestFirst, None, 9);
        listed.filter.set(key, value).expect("a filter");
        store.jobs(&listed).expect("a page").jobs.len()
    };
    for key in ["name", "group", "label"] {
        assert_eq!((found(key, "old"), found(key, "new")), (0, 1), "{key}");
    }
    assert_eq!((found("label", "same=1"), found("label", "same=2")), (0, 1));
    assert_sound(&*store);

    let illegal = |from, to| Rejection::IllegalMove { from, to };
    refuse(&*store, &redefine("a", 2, 2, Status::Queued), Rejection::Stale { found: 3 });
    refuse(&*store, &redefine("nobody", 1, 1, Status::Queued), Rejection::Missing);
    refuse(&*store, &redefine("a", 3, 1, Status::Queued), illegal(Status::Queued, Status::Queued));
    refuse(&*store, &redefine("b", 1, 1, Status::Starting), illegal(Status::Queued, Status::Starting));
    for from in Status::ALL.into_iter().filter(|status| *status != Status::Queued) {
        commit(&*store, &[insert(from.as_str(), from)]);
        refuse(&*store, &redefine(from.as_str(), 1, 1, from), illegal(from, from));
        refuse(&*store, &redefine(from.as_str(), 1, 1, Status::Queued), illegal(from, Status::Queued));
    }
}

pub(super) fn rejected_units_leave_no_trace(case: &Case) {
    let store = case.store();
    let meta = |key: &str, body: &str| put(DocumentKind::Meta, key, body.as_bytes());
    commit(&*store, &[with(insert("a", Status::Running), meta("kept", "as it was"))]);
    let mut rejected = with(insert("a", Status::Queued), meta("kept", "changed"));
    rejected.documents.push(meta("new", "never"));
    rejected
        .documents
        .push(super::super::DocumentChange::Remove { kind: DocumentKind::Meta, key: "b".to_owned() });
    let outcomes = store
        .commit(&[
            with(insert("b", Status::Queued), meta("b", "of b")),
            rejected.clone(),
            with(update("a", 9, Status::Failed), meta("kept", "changed")),
            with(remove("a", 1), meta("new", "never")),
            with(update("nobody", 1, Status::Failed), meta("new", "never")),
            with(update("a", 1, Status::Finished), meta("a", "of a")),
        ])
        .expect("committed");
    let illegal = Rejection::IllegalMove { from: Status::Running, to: Status::Running };
    let expected = [
        applied(2, 2),
        refused(Rejection::Exists),
        refused(Rejection::Stale { found: 1 }),
        refused(illegal),
        refused(Rejection::Missing),
        applied(1, 3),
    ];
    assert_eq!(outcomes, expected);
    let found = store.documents(DocumentKind::Meta, "", None, 9).expect("documents");
    let expected = [("a", "of a"), ("b", "of b"), ("kept", "as it was")];
    assert_eq!(found, expected.map(|(key, body)| (key.to_owned(), body.as_bytes().to_vec())));
    assert_eq!(store.events(0, 99).expect("events").len(), 3);

    // A commit of nothing but rejected units is as if it had not been.
    let before = content(&*store);
    assert_eq!(store.commit(&[rejected]).expect("committed"), [refused(Rejection::Exists)]);
    assert_same(&content(&*store), &before, "a rejected unit has left something");
}

pub(super) fn later_units_see_what_earlier_ones_did(case: &Case) {
    let store = case.store();
    let key = |body: &str| put(DocumentKind::Context, "key", body.as_bytes());
    let outcomes = store
        .commit(&[
            with(insert("a", Status::Starting), key("first")),
            insert("a", Status::Queued),
            update("a", 1, Status::Running),
            update("a", 1, Status::Lost),
            with(update("a", 2, Status::Finished), key("second")),
            new_attempt("a", 3, 2, Status::Failed),
            remove("a", 4),
            update("a", 4, Status::Failed),
            insert("a", Status::Queued),
        ])
        .expect("committed");
    let expected = [
        applied(1, 1),
        refused(Rejection::Exists),
        applied(1, 2),
        refused(Rejection::Stale { found: 2 }),
        applied(1, 3),
        applied(1, 4),
        applied(1, 0),
        refused(Rejection::Missing),
        applied(2, 5),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(store.attempts(&id("a")).expect("attempts").len(), 1);
    let body = store.document(DocumentKind::Context, "key").expect("a document");
    assert_eq!(body.as_deref(), Some(&b"second"[..]));
}

pub(super) fn commits_without_a_job_are_commits(case: &Case) {
    let store = case.store();
    assert_eq!(store.commit(&[]).expect("nothing to do"), []);
    let unit = documents([put(DocumentKind::Meta, "k", b"v")]);
    assert_eq!(store.commit(&[unit, Unit::default()]).expect("committed"), [applied(0, 0), applied(0, 0)]);
    assert_eq!(store.counters().expect("counters"), Default::default());
    assert_eq!(store.events(0, 9).expect("events"), []);
    assert_eq!(store.commit(&[insert("a", Status::Queued)]).expect("committed"), [applied(1, 1)]);
}

/// What all racers heard about the same change.
fn race(store: &dyn JobStore, unit: &Unit) -> Vec<UnitOutcome> {
    let barrier = Barrier::new(RACERS);
    std::thread::scope(|scope| {
        let racers: Vec<_> = (0..RACERS)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    store.commit(std::slice::from_ref(unit)).expect("committed")[0]
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().expect("no panic")).collect()
    })
}

fn assert_one_winner(outcomes: &[UnitOutcome], rejection: Rejection) {
    let winners = outcomes.iter().filter(|outcome| matches!(outcome, UnitOutcome::Applied { .. })).count();
    let losers = outcomes.iter().filter(|outcome| **outcome == refused(rejection)).count();
    assert_eq!((winners, losers), (1, RACERS - 1), "{outcomes:?}");
}

pub(super) fn one_of_racing_inserts_wins(case: &Case) {
    let store = case.store();
    for number in 0..RACES {
        let outcomes = race(&*store, &insert(&format!("job-{number}"), Status::Queued));
        assert_one_winner(&outcomes, Rejection::Exists);
    }
    assert_eq!(all_jobs(&*store).len(), RACES);
    assert_eq!(store.events(0, usize::MAX).expect("events").len(), RACES);
}

pub(super) fn one_of_racing_updates_wins(case: &Case) {
    let store = case.store();
    commit(&*store, &[insert("a", Status::Running)]);
    for revision in (1..).take(RACES) {
        let to = if revision % 2 == 1 { Status::Paused } else { Status::Running };
        let outcomes = race(&*store, &update("a", revision, to));
        assert_one_winner(&outcomes, Rejection::Stale { found: revision + 1 });
    }
    commit(&*store, &[insert("ended", Status::Finished)]);
    assert_one_winner(&race(&*store, &remove("ended", 1)), Rejection::Missing);
    assert_eq!(store.events(0, usize::MAX).expect("events").len(), RACES + 2);
}
