//! Rules about disks that are full or cannot be written to.

use std::fs;
use std::path::Path;

use super::super::memory::MemoryStore;
use super::super::{DocumentKind, JobStore, StoreError};
use super::Verdict;
use super::case::DiskCase;
use super::child::Role;
use super::files::{around, assert_names, refused, tree};
use super::jobs::{assert_same, assert_sound, commit, content, insert, job, put, update, with};
use super::namespace::{self, Disk};
use crate::Status;

/// More commits than there is room for.
const COMMITS: u32 = 200;
const BODY: usize = 256 << 10;

pub(super) fn a_full_disk_takes_the_whole_commit_back(case: &DiskCase) -> Verdict {
    namespace::run(case, Role::FullDisk)
}

pub(super) fn a_store_without_room_for_its_beginning_is_made_later(case: &DiskCase) -> Verdict {
    namespace::run(case, Role::FullFromTheBeginning)
}

pub(super) fn a_read_only_place_is_an_error(case: &DiskCase) -> Verdict {
    namespace::run(case, Role::ReadOnly)
}

/// The body of the process that has a small disk.
pub(super) fn fill_the_disk(case: &DiskCase, directory: &Path) {
    let disk = Disk::mount(directory);
    let place = disk.place("full");
    let mut store = case.open(&place);
    let model = MemoryStore::new();
    let begin = [with(insert("before", Status::Running), put(DocumentKind::Meta, "k", b"v"))];
    commit(&*store, &begin);
    commit(&model, &begin);
    for round in 0..3 {
        let ballast = disk.fill();
        let units_of = |number| {
            let name = format!("job-{round}-{number}");
            let body = vec![7; BODY];
            [
                insert(&name, Status::Queued),
                with(
                    insert(&format!("{name}-large"), Status::Queued),
                    put(DocumentKind::Input, &name, &body),
                ),
            ]
        };
        // An engine may have room inside for some.
        let refused = (0..COMMITS).map(units_of).find(|units| match store.commit(units) {
            Ok(_) => {
                commit(&model, units);
                false
            }
            Err(error) => {
                assert!(matches!(&error, StoreError::Full { path, .. } if *path == place), "{error:?}");
                true
            }
        });
        let refused = refused.expect("the disk is full at last");
        assert_same(&content(&*store), &content(&model), "on the full disk");
        assert!(job(&*store, "before").is_some());
        // Again and again, as somebody does who waits for room.
        for _ in 0..3 {
            let again = store.commit(&refused);
            assert!(matches!(&again, Err(StoreError::Full { .. })), "{again:?}");
        }
        let make_room = || fs::remove_file(ballast).expect("removed");
        store = match round {
            0 => {
                make_room();
                store
            }
            // Once opened again, without a commit between.
            1 => {
                drop(store);
                make_room();
                case.open(&place)
            }
            // An engine that writes while it is opened may want room for that, and then leaves everything as it is.
            _ => {
                drop(store);
                match case.subject.open(&place) {
                    Ok(store) => assert_same(&content(&*store), &content(&model), "opened on the full disk"),
                    Err(error) => {
                        assert!(
                            matches!(&error, StoreError::Full { path, .. } if *path == place),
                            "{error:?}"
                        );
                    }
                }
                make_room();
                case.open(&place)
            }
        };
        assert_same(&content(&*store), &content(&model), "with room again");
        assert_eq!(store.commit(&refused).expect("there is room"), model.commit(&refused).expect("memory"));
        assert_same(&content(&*store), &content(&model), "after a commit with room again");
        assert_sound(&*store);
    }
    drop(store);
    let store = case.open(&place);
    assert_same(&content(&*store), &content(&model), "opened again");
    assert_sound(&*store);
}

/// The body of the process whose disk is full when it makes a store.
pub(super) fn begin_on_a_full_disk(case: &DiskCase, directory: &Path) {
    let disk = Disk::mount(directory);
    let place = disk.place("new");
    let ballast = disk.fill();
    let error = case.subject.open(&place).err().expect("there is no room");
    assert!(matches!(&error, StoreError::Full { path, .. } if *path == place), "{error:?}");
    assert_names(&error, &place);
    fs::remove_file(ballast).expect("removed");
    let store = case.open(&place);
    commit(&*store, &[insert("a", Status::Queued)]);
    assert_sound(&*store);
    drop(store);
    // And nothing is left over of the first attempt.
    let names = |place: &Path| -> Vec<_> {
        let found = tree(around(place)).into_keys();
        found.map(|path| path.strip_prefix(around(place)).expect("below it").to_owned()).collect()
    };
    let other = disk.place("other");
    let store = case.open(&other);
    commit(&*store, &[insert("a", Status::Queued)]);
    drop(store);
    assert_eq!(names(&place), names(&other));
}

/// The body of the process whose disk becomes one that can only be read.
pub(super) fn open_read_only(case: &DiskCase, directory: &Path) {
    let disk = Disk::mount(directory);
    let (place, nowhere) = (disk.place("kept"), disk.place("nowhere"));
    let store = case.open(&place);
    commit(&*store, &[insert("a", Status::Running)]);
    let before = content(&*store);
    drop(store);
    disk.make_read_only(true);
    for place in [&place, &nowhere] {
        let error = refused(case, place, "a disk that can only be read");
        assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    }
    disk.make_read_only(false);
    let store = case.open(&place);
    assert_same(&content(&*store), &before, "with a disk that can be written to");
    commit(&*store, &[update("a", 1, Status::Finished)]);
    assert_sound(&*store);
    drop(case.open(&nowhere));
}
