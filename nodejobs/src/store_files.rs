//! The files of stores in a data directory: what they are called while they are made, and once they are not used.
//!
//! A new store is built as `jobs.KIND.new` and gets its own name only when it is complete. One that is out of use is
//! kept as `jobs.KIND.old-TIME`. Neither name is ever opened as the directory's store.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nodejobs_proc::machine::now;

use crate::stores::StoreKind;

/// What `SQLite` has beside its file: its write-ahead log, and its memory of that.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Whether a file of this name is a store that is being made, or was when its maker was killed.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    is_called(name, ".new")
}

/// The stores that are out of use, by their names, without what is beside them.
pub(crate) fn put_aside(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_old = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        is_called(name, ".old-") && !BESIDE.iter().any(|end| name.to_string_lossy().ends_with(end))
    };
    let mut found: Vec<_> = entries.filter(is_old).collect();
    found.sort();
    found
}

fn is_called(name: &OsStr, ending: &str) -> bool {
    let name = name.to_string_lossy();
    StoreKind::all().any(|kind| name.starts_with(&(kind.file_name() + ending)))
}

/// Bytes of a file with what is beside it, or of a directory's files.
pub(crate) fn size_on_disk(path: &Path) -> u64 {
    let inside = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = std::iter::once(path.to_owned()).chain(BESIDE.map(|end| with(path, end))).chain(inside);
    files
        .filter_map(|file| fs::metadata(file).ok())
        .filter(fs::Metadata::is_file)
        .map(|found| found.len())
        .sum()
}

/// Where a store is made.
pub(crate) fn temporary(directory: &Path, kind: StoreKind) -> PathBuf {
    directory.join(kind.file_name() + ".new")
}

/// Removes what is left of stores that were never finished. Nobody else may be making one.
pub(crate) fn remove_temporary(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_temporary(&entry.file_name()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Gives a complete store that nobody has open its name, on disk when this returns.
pub(crate) fn put_in_place(directory: &Path, kind: StoreKind) -> io::Result<()> {
    let made = temporary(directory, kind);
    for end in BESIDE {
        let beside = with(&made, end);
        // Its engine has left something that belongs to it and would be lost.
        if end == "-wal" && fs::metadata(&beside).is_ok_and(|found| found.len() > 0) {
            return Err(io::Error::other(format!("'{}' was not folded into its file", beside.display())));
        }
        if fs::exists(&beside)? {
            fs::remove_file(beside)?;
        }
    }
    fs::rename(made, directory.join(kind.file_name()))?;
    sync(directory)
}

/// Keeps a store, or what is left of one, under another name; that name, or `None` if there is nothing of it.
pub(crate) fn set_aside(directory: &Path, kind: StoreKind) -> io::Result<Option<PathBuf>> {
    let path = directory.join(kind.file_name());
    let pieces = || std::iter::once("").chain(BESIDE).map(|end| (with(&path, end), end));
    if !pieces().any(|(piece, _)| fs::symlink_metadata(piece).is_ok()) {
        return Ok(None);
    }
    let time: String = now().wall.to_string().chars().filter(char::is_ascii_alphanumeric).collect();
    let kept = directory.join(format!("{}.old-{time}", kind.file_name()));
    for (piece, end) in pieces() {
        match fs::rename(piece, with(&kept, end)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync(directory)?;
    Ok(Some(kept))
}

/// Removes a store, with what is beside it.
pub(crate) fn remove_store(path: &Path) -> io::Result<()> {
    remove(path)?;
    BESIDE.iter().try_for_each(|end| remove(&with(path, end)))
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn with(path: &Path, end: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for name in ["jobs.sqlite.new", "jobs.sqlite.new-wal", "jobs.redb.new", "jobs.sled.new"] {
            assert!(is_temporary(OsStr::new(name)), "{name}");
        }
        for name in ["jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite.old-1", "nodejobs.json.new", "jobs.new"] {
            assert!(!is_temporary(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn a_store_is_set_aside_with_what_is_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let names = || {
            let entries = fs::read_dir(path).expect("a directory").flatten();
            let mut names: Vec<_> =
                entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
            names.sort();
            names
        };
        assert_eq!(set_aside(path, StoreKind::Sqlite).expect("nothing"), None);
        // A log without its file would be taken for that of the next one.
        fs::write(path.join("jobs.sqlite-wal"), "old").expect("written");
        let kept = set_aside(path, StoreKind::Sqlite).expect("moved").expect("something");
        assert!(!kept.exists() && names()[0].ends_with("-wal"), "{:?}", names());
        assert_eq!(put_aside(path), [""; 0].map(PathBuf::from));
        fs::create_dir(path.join("jobs.sled")).expect("made");
        fs::write(path.join("jobs.sled/db"), "old").expect("written");
        let kept = set_aside(path, StoreKind::Sled).expect("moved").expect("something");
        assert_eq!(put_aside(path), std::slice::from_ref(&kept));
        assert_eq!(size_on_disk(&kept), 3);
        remove_store(&kept).expect("removed");
        assert_eq!(names().len(), 1);
        fs::create_dir(path.join("jobs.sled.new")).expect("made");
        fs::write(path.join("jobs.sled.new/db"), "new").expect("written");
        put_in_place(path, StoreKind::Sled).expect("in place");
        assert_eq!(fs::read(path.join("jobs.sled/db")).expect("there"), b"new");
        fs::write(path.join("jobs.sqlite.new"), "new").expect("written");
        fs::write(path.join("jobs.sqlite.new-wal"), "new").expect("written");
        assert!(put_in_place(path, StoreKind::Sqlite).is_err(), "it is not whole");
        remove_temporary(path).expect("removed");
        assert_eq!(names().len(), 2, "{:?}", names());
    }
}
