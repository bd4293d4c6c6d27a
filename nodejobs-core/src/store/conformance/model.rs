//! The store does what the in-memory store does: the same outcomes and the same answers, whatever is asked.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::memory::MemoryStore;
use super::super::{DocumentKind, JobChange, JobStore, PageRequest, Unit};
use super::Verdict;
use super::case::DiskCase;
use super::generators::{Attempted, IDS, Step, requests, steps};
use super::jobs::{assert_same, assert_sound, content};
use crate::{JobId, Status};

/// How many there are if `PROPTEST_CASES` does not say.
const CASES: u32 = 20;

/// Trees of generated jobs are deep and large, and unoptimized code has all of them on the stack.
const STACK: usize = 32 << 20;

pub(super) fn it_answers_as_the_in_memory_store_does(case: &DiskCase) -> Verdict {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK);
        let run = builder.spawn_scoped(scope, || answers_alike(case)).expect("a thread");
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    Verdict::Held
}

fn answers_alike(case: &DiskCase) {
    let commits = vec((vec(steps(), 0..8), prop::bool::weighted(0.2)), 1..10);
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let held = TestRunner::new(config).run(&(commits, vec(requests(), 100)), |(commits, requests)| {
        let place = case.place();
        let model = MemoryStore::new();
        let mut store = case.open(&place);
        for (steps, reopen) in commits {
            // Units are made for the state before the commit, so several of one job meet each other's changes.
            let units: Vec<Unit> = steps.into_iter().map(|step| unit_of(step, &model)).collect();
            prop_assert_eq!(store.commit(&units).expect("commit"), model.commit(&units).expect("commit"));
            if reopen {
                drop(store);
                store = case.open(&place);
            }
        }
        compare(&*store, &model, &requests);
        Ok(())
    });
    held.unwrap_or_else(|error| panic!("{error}"));
}

/// Fits the step to the jobs as they are, unless it is meant to be refused.
fn unit_of(step: Step, model: &MemoryStore) -> Unit {
    let job = step.job.map(|(attempted, id, definition, mut state)| {
        let stored = model.job(&id).expect("memory does not fail");
        let revision = stored.as_ref().map_or(1, |job| job.revision);
        let attempt = stored.as_ref().map_or(1, |job| job.state.attempt);
        let expected = if step.honest { revision } else { revision.wrapping_sub(1) };
        let definition = Box::new(definition);
        match attempted {
            Attempted::Insert => JobChange::Insert { id, definition, state },
            Attempted::NewAttempt => {
                state.attempt = attempt + 1;
                JobChange::NewAttempt { id, expected, definition, state }
            }
            Attempted::Update => {
                state.attempt = attempt;
                // Most random moves are illegal; most of these are not.
                let from = stored.map_or(Status::Queued, |job| job.state.status);
                if step.honest
                    && let Some(to) = Status::ALL.into_iter().rev().find(|to| from.may_become(*to))
                    && !from.may_become(state.status)
                {
                    state.status = to;
                }
                JobChange::Update { id, expected, state }
            }
            Attempted::Redefine => {
                state.attempt = attempt;
                if step.honest {
                    state.status = Status::Queued;
                }
                JobChange::Redefine { id, expected, definition, state }
            }
            Attempted::Forget(through) => JobChange::ForgetAttempts { id, through },
            Attempted::Remove => JobChange::Remove { id, expected },
        }
    });
    Unit { job, documents: step.documents }
}

fn compare(store: &dyn JobStore, model: &dyn JobStore, requests: &[PageRequest]) {
    for id in IDS {
        let id = JobId::new(id).expect("valid");
        assert_eq!(store.job(&id).expect("job"), model.job(&id).expect("job"));
        assert_eq!(store.attempts(&id).expect("attempts"), model.attempts(&id).expect("attempts"));
    }
    assert_eq!(store.counts().expect("counts"), model.counts().expect("counts"));
    assert_eq!(store.counters().expect("counters"), model.counters().expect("counters"));
    assert_same(&content(store), &content(model), "the content");
    assert_sound(store);
    for (after, limit) in [(0, usize::MAX), (3, 2), (u64::MAX, 1)] {
        assert_eq!(store.events(after, limit).expect("events"), model.events(after, limit).expect("events"));
    }
    for kind in DocumentKind::ALL {
        for text in ["", "x", "1", "a", "\u{10ffff}", "nothing"] {
            assert_eq!(store.document(kind, text).expect("body"), model.document(kind, text).expect("body"));
            for (after, limit) in [(None, 9), (None, 1), (Some("x"), 2)] {
                assert_eq!(
                    store.documents(kind, text, after, limit).expect("family"),
                    model.documents(kind, text, after, limit).expect("family")
                );
            }
        }
    }
    for request in requests {
        assert_eq!(store.jobs(request).expect("page"), model.jobs(request).expect("page"), "{request:?}");
    }
}
