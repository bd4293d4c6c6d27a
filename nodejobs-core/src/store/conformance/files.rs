//! Rules about places and modes, and what other rules need to look at files.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::super::{DocumentKind, StoreError};
use super::Verdict;
use super::case::DiskCase;
use super::jobs::{all_jobs, commit, insert, put, with};
use crate::Status;

/// What a file or directory is: its mode, and its bytes if it is a file.
pub(super) type Entry = (u32, Option<Vec<u8>>);

/// Everything in and below a directory.
pub(super) fn tree(directory: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let bytes = metadata.is_file().then(|| fs::read(&path).expect("a file"));
            found.insert(path.clone(), (metadata.permissions().mode() & 0o7777, bytes));
            if metadata.is_dir() {
                directories.push(path);
            }
        }
    }
    found
}

/// The directory in which a store is alone.
pub(super) fn around(place: &Path) -> &Path {
    place.parent().expect("a place is in a directory")
}

pub(super) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode is set");
}

/// Copies a file or a directory with all that is in it.
pub(super) fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        return;
    }
    fs::create_dir_all(to).expect("a directory");
    set_mode(to, fs::metadata(from).expect("metadata").permissions().mode());
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        copy(&path, &to.join(path.file_name().expect("a name")));
    }
}

/// Asserts that an error and its sources name the path.
pub(super) fn assert_names(error: &StoreError, path: &Path) {
    let mut texts = vec![error.to_string()];
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        texts.push(source.to_string());
        next = source.source();
    }
    let said = texts.join(": ");
    assert!(said.contains(&path.display().to_string()), "'{said}' does not name {}", path.display());
}

/// Opens what has to be refused, and asserts that everything around it is left as it is.
pub(super) fn refused(case: &DiskCase, place: &Path, what: &str) -> StoreError {
    let before = tree(around(place));
    let error = case.subject.open(place).err().unwrap_or_else(|| panic!("{what}: this must be refused"));
    assert_names(&error, place);
    let after = tree(around(place));
    assert!(
        before == after,
        "{what}: something was written: {:?} instead of {:?}",
        after.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    error
}

pub(super) fn files_are_for_their_owner_alone(case: &DiskCase) -> Verdict {
    let place = case.place();
    let assert_private = |when: &str| {
        let found = tree(around(&place));
        assert!(!found.is_empty());
        for (path, (mode, bytes)) in found {
            let expected = if bytes.is_some() { 0o600 } else { 0o700 };
            assert_eq!(mode, expected, "{} {when} has {mode:o}", path.display());
        }
    };
    let store = case.open(&place);
    assert_private("when it is new");
    let large = vec![7; 1 << 20];
    commit(&*store, &[with(insert("a", Status::Queued), put(DocumentKind::Input, "a/1", &large))]);
    assert_private("when it is written to");
    drop(store);
    assert_private("when it is closed");
    let widened = if case.subject.is_directory() { 0o755 } else { 0o644 };
    set_mode(&place, widened);
    let store = case.open(&place);
    assert_private("when it is opened again");
    drop(store);
    Verdict::Held
}

pub(super) fn odd_names_are_places_all_the_same(case: &DiskCase) -> Verdict {
    let directory = case.place();
    fs::create_dir(&directory).expect("a directory");
    let long = [b'x'; 200];
    for name in [&b":memory:"[..], b"file:x?mode=memory", b"100%41 #?&.db", b"\xff\xfe", b" ", &long] {
        let place = directory.join(OsStr::from_bytes(name));
        let store = case.open(&place);
        commit(&*store, &[insert("a", Status::Queued)]);
        assert_eq!(store.info().path.as_deref(), Some(&*place));
        drop(store);
        assert_eq!(
            (place.is_dir(), place.is_file()),
            (case.subject.is_directory(), !case.subject.is_directory())
        );
        assert_eq!(all_jobs(&*case.open(&place)).len(), 1);
    }
    Verdict::Held
}

/// Tests may run as root, whom no permission stops; a path below a regular file is refused to everybody.
pub(super) fn places_that_cannot_be_used_are_named(case: &DiskCase) -> Verdict {
    let file = case.place();
    fs::write(&file, "a file").expect("written");
    let nowhere = case.place();
    let other_kind = if case.subject.is_directory() {
        file.clone()
    } else {
        let directory = case.place();
        fs::create_dir(&directory).expect("a directory");
        directory
    };
    for (what, place, around) in [
        ("a place below a file", file.join("store"), around(&file)),
        ("a place in nowhere", nowhere.join("no/such"), around(&nowhere)),
        ("a place of the other kind", other_kind.clone(), around(&other_kind)),
    ] {
        let before = tree(around);
        let error = case.subject.open(&place).err().unwrap_or_else(|| panic!("{what} must be refused"));
        assert!(matches!(error, StoreError::Failed { .. } | StoreError::Damaged { .. }), "{what}: {error:?}");
        assert!(std::error::Error::source(&error).is_some(), "{what}: {error:?} has no source");
        assert_names(&error, &place);
        assert!(tree(around) == before, "{what}: something was made there");
    }
    Verdict::Held
}
