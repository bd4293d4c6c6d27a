//! Rules about a store as a whole: readers beside writers, loading, checking.

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::super::content::{Counters, Item};
use super::super::memory::MemoryStore;
use super::super::{JobStore, PageRequest, StoreError};
use super::case::Case;
use super::fixture::fixture_content;
use super::jobs::{
    all_jobs, applied, assert_same, assert_sound, commit, content, documents, id, insert, new_attempt, put,
    remove, request, update,
};
use crate::Status;
use crate::store::{DocumentKind, Order as ListingOrder};

pub(super) fn readers_see_whole_commits(case: &Case) {
    const COMMITS: u64 = 60;
    let store = case.store();
    let (done, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let number = |body: Option<Vec<u8>>| -> u64 {
        body.map_or(0, |body| String::from_utf8(body).expect("text").parse().expect("a number"))
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut seen = 0;
                while !done.load(Ordering::Acquire) {
                    let before = acknowledged.load(Ordering::Acquire);
                    let jobs = all_jobs(&*store).len() as u64;
                    assert!(jobs.is_multiple_of(3), "a commit of three seen as {jobs}");
                    assert!(jobs >= before * 3 && jobs >= seen, "{jobs} after {before} commits and {seen}");
                    seen = jobs;
                    // Each read is of a state at least as new as the one before it.
                    let counted: u64 = store.counts().expect("counts").values().sum();
                    assert!(counted >= seen && counted.is_multiple_of(3), "{counted} after {seen}");
                    let told = number(store.document(DocumentKind::Meta, "n").expect("a document")) * 3;
                    assert!(told >= counted, "{told} after {counted}");
                    let events = store.events(0, usize::MAX).expect("events").len() as u64;
                    assert!(events >= told && events.is_multiple_of(3), "{events} after {told}");
                    let counters = store.counters().expect("counters");
                    assert!(counters.last_event >= events && counters.last_seq == counters.last_event);
                }
            });
        }
        for number in 0..COMMITS {
            let mut units: Vec<_> =
                ["a", "b", "c"].map(|name| insert(&format!("{name}{number}"), Status::Running)).into();
            let counter = (number + 1).to_string();
            units.push(documents([put(DocumentKind::Meta, "n", counter.as_bytes())]));
            commit(&*store, &units);
            acknowledged.store(number + 1, Ordering::Release);
        }
        done.store(true, Ordering::Release);
    });
}

pub(super) fn a_new_store_is_loaded_with_what_another_one_holds(case: &Case) {
    let source = case.store();
    let expected = fixture_content();
    source.load(&expected).expect("loaded");
    assert_same(&content(&*source), &expected, "not what was loaded");
    assert_sound(&*source);

    // In pieces, as somebody does who does not hold all of it at once.
    let other = case.store();
    for items in content(&*source).chunks(3) {
        other.load(items).expect("loaded");
    }
    other.load(&[]).expect("nothing to load");
    assert_same(&content(&*other), &expected, "not what was loaded in pieces");
    assert_sound(&*other);

    // Found by everything that leads to it, counted, and gone on with, as in the in-memory store.
    let model = MemoryStore::new();
    model.load(&expected).expect("loaded");
    for store in [&*source, &*other] {
        assert_eq!(store.counts().expect("counts"), model.counts().expect("counts"));
        let jobs = all_jobs(store);
        for job in &jobs {
            let by_label =
                job.definition.labels.iter().map(|(key, value)| ("label", format!("{key}={value}")));
            let by_name = job.definition.name.iter().map(|name| ("name", name.clone()));
            let by_group = job.definition.group.iter().map(|group| ("group", group.clone()));
            let by_status = [("status", job.state.status.to_string())];
            for (key, value) in by_label.chain(by_name).chain(by_group).chain(by_status) {
                let mut request: PageRequest = request(ListingOrder::NewestFirst, None, 99);
                request.filter.set(key, &value).expect("a filter");
                let found = store.jobs(&request).expect("a page");
                assert_eq!(found, model.jobs(&request).expect("a page"), "{key}={value}");
                assert!(found.jobs.contains(job), "{key}={value}");
            }
        }
        let counters = model.counters().expect("counters");
        let outcomes = store.commit(&[insert("next", Status::Queued)]).expect("committed");
        assert_eq!(outcomes, [applied(counters.last_seq + 1, counters.last_event + 1)]);
        for job in jobs {
            commit(store, &changes_of(&job));
        }
        assert_sound(store);
    }
}

/// Something that a job may do next.
fn changes_of(job: &crate::job::Job) -> Vec<crate::store::Unit> {
    let (name, revision) = (job.id.as_str(), job.revision);
    if job.state.status.is_terminal() {
        let attempt = job.state.attempt + 1;
        return vec![new_attempt(name, revision, attempt, Status::Failed), remove(name, revision + 1)];
    }
    vec![
        crate::store::JobChange::Update { id: job.id.clone(), expected: revision, state: job.state.clone() }
            .into(),
    ]
}

pub(super) fn what_is_there_already_is_not_loaded(case: &Case) {
    let store = case.store();
    let items = fixture_content();
    store.load(&items).expect("loaded");
    let refuse = |refused: &[Item], named: &Item| {
        let error = store.load(refused).expect_err("it is there already");
        assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
        let source = error.source().expect("a source").to_string();
        assert!(source.contains(&named.describe()), "'{source}' does not name {}", named.describe());
        assert_same(&content(&*store), &items, "something was added");
    };
    let document =
        |key: &str| Item::Document { kind: DocumentKind::Meta, key: key.to_owned(), body: vec![1] };
    let last = items.iter().find_map(|item| match item {
        Item::Job(attempts) => attempts.last().cloned(),
        _ => None,
    });
    let template = last.expect("a job");
    let new_job = |name: &str, seq: u64| {
        let mut job = template.clone();
        (job.id, job.seq, job.state.attempt) = (id(name), seq, 1);
        Item::Job(vec![job])
    };
    for item in items.iter().filter(|item| !matches!(item, Item::Counters(_))) {
        refuse(std::slice::from_ref(item), item);
        refuse(&[document("new"), new_job("new", 500), item.clone(), document("behind it")], item);
    }
    // Another job with the place of one that is there, and one that comes twice.
    let displaced = new_job("new", template.seq);
    refuse(std::slice::from_ref(&displaced), &displaced);
    let twice = new_job("new", 500);
    refuse(&[twice.clone(), new_job("new", 501)], &twice);
    refuse(&[document("new"), document("new")], &document("new"));
    // The counters are there always, and do not go back.
    let counters = store.counters().expect("counters");
    store.load(&[Item::Counters(Counters::default())]).expect("loaded");
    assert_eq!(store.counters().expect("counters"), counters);
    // The store can be used again.
    store.load(&[document("new"), new_job("new", 500)]).expect("loaded");
    assert_eq!(store.counters().expect("counters").last_seq, 500);
}

pub(super) fn a_check_of_a_filled_store_is_sound(case: &Case) {
    let store = case.store();
    assert_sound(&*store);
    let inserts: Vec<_> = (0..1200).map(|n| insert(&format!("job-{n}"), Status::Finished)).collect();
    commit(&*store, &inserts);
    commit(
        &*store,
        &[new_attempt("job-7", 1, 2, Status::Running), remove("job-8", 1), remove("job-1199", 1)],
    );
    commit(&*store, &[documents((0..40).map(|n| put(DocumentKind::Input, &format!("{n}"), &[0; 9])))]);
    store.commit(&[update("job-9", 7, Status::Lost)]).expect("refused");
    let mut heard = Vec::new();
    let check = store.check(&mut |read| heard.push(read)).expect("checked");
    assert_eq!(check.problems, [""; 0]);
    assert_eq!((check.jobs, check.attempts, check.events, check.documents), (1198, 1199, 1201, 40));
    assert!(heard.len() > 1 && heard.is_sorted(), "{heard:?}");
}
