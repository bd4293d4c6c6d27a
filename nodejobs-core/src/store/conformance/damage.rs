//! The rule about records that cannot be understood.

use super::super::{JobStore, Order, StoreError};
use super::Verdict;
use super::case::DiskCase;
use super::jobs::{commit, id, insert, job, request, update};
use crate::Status;

fn assert_damaged<T: std::fmt::Debug>(result: Result<T, StoreError>, what: &str) {
    let error = result.expect_err(what);
    assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error:?}");
    assert!(std::error::Error::source(&error).is_some(), "{what}: {error:?} has no source");
    assert!(error.to_string().contains("second"), "{what}: '{error}' does not name the job");
}

pub(super) fn damaged_records_are_named_and_never_left_out(case: &DiskCase) -> Verdict {
    let place = case.place();
    let store = case.open(&place);
    for name in ["first", "second", "third"] {
        commit(&*store, &[insert(name, Status::Running)]);
    }
    drop(store);
    case.subject.damage_record(&place, &id("second"));
    let store = case.open(&place);
    let store: &dyn JobStore = &*store;
    for order in [Order::OldestFirst, Order::NewestFirst] {
        assert_damaged(store.jobs(&request(order, None, 9)), "a listing with it");
        // What is behind it in that direction can be read.
        assert_eq!(store.jobs(&request(order, Some(2), 9)).map(|page| page.jobs.len()).ok(), Some(1));
    }
    let mut by_status = request(Order::OldestFirst, None, 9);
    by_status.filter.status = vec![Status::Running];
    assert_damaged(store.jobs(&by_status), "a listing by status");
    assert_damaged(store.job(&id("second")), "the job");
    assert_damaged(store.attempts(&id("second")), "its attempts");
    let check = store.check(&mut |_| {}).expect("a check goes on");
    assert!(!check.is_sound());
    assert!(check.problems.iter().any(|problem| problem.contains("second")), "{:?}", check.problems);

    // The others can be read, and be changed.
    assert!(job(store, "first").is_some() && job(store, "third").is_some());
    assert_eq!(store.attempts(&id("third")).map(|attempts| attempts.len()).ok(), Some(1));
    commit(store, &[update("first", 1, Status::Finished), insert("fourth", Status::Queued)]);
    assert_eq!(job(store, "first").map(|job| job.revision), Some(2));
    assert_eq!(job(store, "fourth").map(|job| job.seq), Some(4));
    Verdict::Held
}

/// [`OnDisk::damage_record`](super::OnDisk::damage_record) of a store on a key-value engine.
///
/// # Panics
/// If there is no such job.
#[cfg(feature = "key-value")]
pub fn damage_state<E: super::super::kv::Engine>(path: &std::path::Path, id: &crate::JobId) {
    use std::ops::ControlFlow;

    use super::super::kv::Direction;

    let engine = E::open(path).expect("open");
    let damaged = engine.write(|changes| {
        let mut found = None;
        changes.scan(b"j", b"k", Direction::Forward, &mut |key, record| {
            if record.windows(id.as_str().len()).any(|part| part == id.as_str().as_bytes()) {
                found = Some((key.to_vec(), record.to_vec()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let (key, mut record) = found.expect("the job is there");
        if let Some(last) = record.last_mut() {
            *last ^= 1;
        }
        changes.put(&key, &record)
    });
    damaged.expect("written");
}
