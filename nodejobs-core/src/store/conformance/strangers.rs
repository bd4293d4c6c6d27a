//! Rules about what is not, or no longer, a store of a known format.

use std::fs;
use std::path::Path;

use super::super::StoreError;
use super::Verdict;
use super::case::DiskCase;
use super::files::{around, copy, refused, set_mode, tree};
use super::fixture::fixture_content;
use super::jobs::{assert_sound, commit, content, insert, try_content};
use crate::Status;

/// A closed store with something in it.
fn filled(case: &DiskCase, place: &Path) {
    let store = case.open(place);
    store.load(&fixture_content()).expect("loaded");
    let inserts: Vec<_> = (0..200).map(|n| insert(&format!("job-{n}"), Status::Finished)).collect();
    for inserts in inserts.chunks(20) {
        commit(&*store, inserts);
    }
}

pub(super) fn unknown_formats_are_refused_unread(case: &DiskCase) -> Verdict {
    let present = case.store().info().format;
    for format in [present + 1, present + 1000, 0] {
        let place = case.place();
        filled(case, &place);
        case.subject.set_format(&place, format);
        // So wide a mode would be narrowed if it were ours.
        set_mode(&place, if case.subject.is_directory() { 0o755 } else { 0o644 });
        let error = refused(case, &place, "an unknown format");
        let StoreError::UnknownFormat { path, found, known } = error else { panic!("{error:?}") };
        assert_eq!((path, found, known), (place.clone(), i64::from(format), present));
        // Nothing else was changed: with the known format it is the store that it was.
        case.subject.set_format(&place, present);
        assert_sound(&*case.open(&place));
    }
    Verdict::Held
}

fn assert_no_store(error: &StoreError, what: &str) {
    let is_typed = matches!(
        error,
        StoreError::Damaged { .. } | StoreError::UnknownFormat { .. } | StoreError::Failed { .. }
    );
    assert!(is_typed, "{what}: {error:?}");
}

pub(super) fn what_is_no_store_is_refused(case: &DiskCase) -> Verdict {
    let program = fs::read(std::env::current_exe().expect("this program")).expect("a file");
    let long_text = "id,status\n".repeat(10_000);
    let contents: [(&str, &[u8]); 8] = [
        ("nothing", b""),
        ("one byte", b"x"),
        ("a text", b"id,status\n"),
        ("a long text", long_text.as_bytes()),
        ("zeros", &[0; 8192]),
        ("ones", &[0xff; 100_000]),
        ("a program", &program[..program.len().min(1 << 20)]),
        ("a header and nothing", b"SQLite format 3\0redb\x1a\x0a\xa9\x0d\x0a"),
    ];
    for (what, bytes) in contents {
        let place = case.place();
        if case.subject.is_directory() {
            fs::create_dir(&place).expect("a directory");
            set_mode(&place, 0o700);
            fs::write(place.join("something"), bytes).expect("written");
        } else {
            fs::write(&place, bytes).expect("written");
        }
        assert_no_store(&refused(case, &place, what), what);
    }
    if case.subject.is_directory() {
        let place = case.place();
        fs::create_dir(&place).expect("a directory");
        assert_no_store(&refused(case, &place, "an empty directory"), "an empty directory");
    }

    // The first bytes of each of its files, and a file of a directory that is gone.
    let whole = case.place();
    filled(case, &whole);
    let expected = content(&*case.open(&whole));
    let files = tree(around(&whole)).into_iter().filter_map(|(path, (_, bytes))| Some((path, bytes?)));
    for (path, bytes) in files {
        let relative = path.strip_prefix(around(&whole)).expect("below it").to_owned();
        let what = relative.display().to_string();
        for length in [16, 4096, bytes.len()] {
            let mut bytes = bytes.clone();
            let length = length.min(bytes.len());
            bytes[..length].fill(0xa5);
            let place = case.place();
            copy_around(&whole, &place);
            fs::write(around(&place).join(&relative), &bytes).expect("written");
            assert_never_less(case, &place, &expected, &format!("{what} with {length} bytes of garbage"));
        }
        if case.subject.is_directory() {
            let place = case.place();
            copy_around(&whole, &place);
            fs::remove_file(around(&place).join(&relative)).expect("removed");
            assert_never_less(case, &place, &expected, &format!("{what} gone"));
        }
    }
    Verdict::Held
}

fn copy_around(whole: &Path, place: &Path) {
    fs::remove_dir(around(place)).expect("an empty directory");
    copy(around(whole), around(place));
}

/// What was harmed is refused and, where the engine can, left as it is, or its reads say so, or it does not matter and all is there.
fn assert_never_less(case: &DiskCase, place: &Path, expected: &[super::super::content::Item], what: &str) {
    let before = tree(around(place));
    let read = match case.subject.open(place) {
        Err(error) => {
            let is_as_it_was = !case.subject.leaves_damage_alone() || tree(around(place)) == before;
            assert!(is_as_it_was, "{what}: something was written");
            super::files::assert_names(&error, place);
            Err(error)
        }
        Ok(store) => try_content(&*store),
    };
    match read {
        Err(error) => assert_no_store(&error, what),
        Ok(found) => super::jobs::assert_same(&found, expected, what),
    }
}

pub(super) fn cut_stores_are_never_smaller_ones(case: &DiskCase) -> Verdict {
    let whole = case.place();
    filled(case, &whole);
    let expected = content(&*case.open(&whole));
    let files = tree(around(&whole)).into_iter().filter_map(|(path, (_, bytes))| Some((path, bytes?)));
    for (path, bytes) in files {
        let relative = path.strip_prefix(around(&whole)).expect("below it").to_owned();
        let length = bytes.len();
        let mut lengths = vec![0, 1, 100, 512, 4096, length / 4, length / 2, length / 4 * 3];
        lengths.extend([length.saturating_sub(4096), length.saturating_sub(1)]);
        lengths.sort_unstable();
        lengths.dedup();
        for cut in lengths.into_iter().filter(|cut| *cut < length) {
            let place = case.place();
            copy_around(&whole, &place);
            fs::write(around(&place).join(&relative), &bytes[..cut]).expect("written");
            let what = format!("{} cut from {length} to {cut}", relative.display());
            assert_never_less(case, &place, &expected, &what);
        }
    }
    Verdict::Held
}
