//! The rules about records that cannot be understood, and files that something has damaged.

use std::fs;
use std::path::Path;

use super::super::content::Item;
use super::super::{JobStore, Order, StoreError};
use super::Verdict;
use super::case::DiskCase;
use super::files::{around, copy, tree};
use super::jobs::{assert_same, commit, content, id, insert, job, request, try_content, update};
use super::random::Random;
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
    let kept = case.open(&place);
    let store: &dyn JobStore = &*kept;
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
    drop(kept);

    // One does not hide the other.
    case.subject.damage_record(&place, &id("third"));
    let check = case.open(&place).check(&mut |_| {}).expect("a check goes on");
    for name in ["second", "third"] {
        let named = check.problems.iter().filter(|problem| problem.contains(name)).count();
        assert!(named > 0, "{name} is not named: {:?}", check.problems);
    }
    Verdict::Held
}

/// How often a store is damaged.
const ROUNDS: u64 = 45;

pub(super) fn random_damage_is_noticed(case: &DiskCase) -> Verdict {
    let place = case.place();
    let store = case.open(&place);
    for batch in 0..8 {
        let jobs = (0..50).map(|number| insert(&format!("job-{batch}-{number}"), Status::Finished));
        commit(&*store, &jobs.collect::<Vec<_>>());
    }
    let expected = content(&*store);
    drop(store);
    let files = tree(around(&place)).into_iter();
    let files: Vec<_> = files.filter_map(|(path, (_, bytes))| Some((path, bytes?))).collect();
    let mut random = Random::new();
    let mut noticed = 0;
    for round in 0..ROUNDS {
        let copied = case.place();
        fs::remove_dir(around(&copied)).expect("an empty directory");
        copy(around(&place), around(&copied));
        // Larger files are more often hit, as in life.
        let mut at = below(&mut random, files.iter().map(|(_, bytes)| bytes.len()).sum());
        let hit = files.iter().find(|(_, bytes)| {
            let is_hit = at < bytes.len();
            at -= if is_hit { 0 } else { bytes.len() };
            is_hit
        });
        let (path, bytes) = hit.expect("one of them");
        let mut bytes = bytes.clone();
        let what = match round % 3 {
            0 => {
                bytes[at] ^= 1 << random.below(8);
                "a bit is another one"
            }
            1 => {
                let page = at / 4096 * 4096;
                let end = bytes.len().min(page + 4096);
                bytes[page..end].fill_with(|| u8::try_from(random.below(256)).unwrap_or(0));
                "a page is noise"
            }
            _ => {
                bytes.truncate(at);
                "the end is gone"
            }
        };
        let name = path.strip_prefix(around(&place)).expect("below it");
        fs::write(around(&copied).join(name), bytes).expect("written");
        noticed +=
            u64::from(is_noticed(case, &copied, &expected, &format!("{} at {at}: {what}", name.display())));
    }
    assert!(noticed > 0, "no damage did any harm");
    Verdict::Held
}

/// Whether something says that the store is damaged; if not, it has to be whole.
fn is_noticed(case: &DiskCase, place: &Path, expected: &[Item], what: &str) -> bool {
    let Ok(store) = case.subject.open(place) else { return true };
    let found = try_content(&*store);
    // Also where reading has failed, a check comes to an end, and agrees.
    let is_sound = store.check(&mut |_| {}).is_ok_and(|check| check.is_sound());
    let Ok(found) = found else {
        assert!(!is_sound, "{what}: it cannot be read, and a check finds nothing wrong");
        return true;
    };
    if !is_sound {
        return true;
    }
    if case.subject.has_checksums() {
        assert_same(&found, expected, what);
    } else {
        let names = |items: &[Item]| items.iter().map(Item::describe).collect::<Vec<_>>();
        assert_eq!(names(&found), names(expected), "{what}");
    }
    false
}

fn below(random: &mut Random, bound: usize) -> usize {
    usize::try_from(random.below(bound as u64)).unwrap_or(0)
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
