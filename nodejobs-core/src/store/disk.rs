//! What stores on disk have in common: how one is created, recognised and kept private.
//!
//! A store appears at its path only when it is complete and on disk; whatever a creator that dies leaves behind has
//! another name. What is there is recognised before anything is written to it, by a [mark](Mark) in clear text, and
//! never replaced.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::StoreError;

/// What a store is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One file.
    File,
    /// A directory of files.
    Directory,
}

/// The error of a system call, by what the caller can do next.
pub fn failed(operation: &'static str, path: &Path, source: io::Error) -> StoreError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full { operation, path }
        }
        _ => StoreError::Failed { operation, path, source: source.into() },
    }
}

/// The error of a store that is not what it has to be.
pub fn damaged(path: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Damaged { what: path.display().to_string(), source: why.into() }
}

/// Whether there is something at the path; it is of that kind then.
///
/// # Errors
/// For something else, something empty, and what cannot be looked at.
pub fn is_there(path: &Path, kind: Kind) -> Result<bool, StoreError> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("open", path, error)),
        Ok(found) => found,
    };
    let wrong = match kind {
        Kind::File if !found.is_file() => Some("this is not a regular file"),
        Kind::Directory if !found.is_dir() => Some("this is not a directory"),
        // We never leave an empty file, so this is what is left of one.
        Kind::File if found.len() == 0 => return Err(damaged(path, "the file is empty")),
        _ => None,
    };
    match wrong {
        Some(wrong) => Err(failed("open", path, io::Error::other(wrong))),
        None => Ok(true),
    }
}

/// Makes a store appear at the path, if there is none: `make` writes it at another one. One that appears there meanwhile
/// is left alone.
///
/// # Errors
/// What `make` says, and what the system refuses. Nothing is left behind.
pub fn create(
    path: &Path,
    kind: Kind,
    make: impl FnOnce(&Path) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let failed = |source: io::Error| failed("create", path, source);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let new = beside(path, &format!(".new-{}-{number}", std::process::id()));
    // One of that name can only be left over from a process that died: this one has not used it yet.
    remove(&new, kind).map_err(failed)?;
    match kind {
        Kind::File => OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map(drop),
        Kind::Directory => DirBuilder::new().mode(0o700).create(&new),
    }
    .map_err(failed)?;
    let made = make(&new).and_then(|()| {
        let placed = match kind {
            Kind::File => fs::hard_link(&new, path),
            Kind::Directory => fs::rename(&new, path),
        };
        match placed {
            Err(error) if is_taken(&error) => Ok(()),
            placed => placed.map_err(failed),
        }
    });
    let removed = remove(&new, kind).map_err(failed);
    made.and(removed)?;
    sync_directory_of(path).map_err(failed)
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

fn remove(path: &Path, kind: Kind) -> io::Result<()> {
    let removed = match kind {
        Kind::File => fs::remove_file(path),
        Kind::Directory => fs::remove_dir_all(path),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Whether commits shall not be flushed: a fault that a test puts in, to see that it finds it. Never in a release build.
pub fn skips_sync() -> bool {
    cfg!(debug_assertions) && std::env::var_os("NODEJOBS_MUTANT").is_some_and(|fault| fault == "no-sync")
}

/// Has the names in the path's directory on disk.
///
/// # Errors
/// What the system refuses.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    // A path without a directory part is in the current one.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// Lets an engine work that panics on some kinds of damage instead of saying so.
///
/// # Errors
/// [`StoreError::Damaged`] with the words of the panic, and what `work` says.
pub fn without_panic<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // Whoever calls this gives the engine up after an error, so nobody sees what the panic has left half done.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = match panic.downcast_ref::<&str>() {
            Some(words) => (*words).to_owned(),
            None => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        Err(damaged(path, format!("the engine has given up: {words}")))
    })
}

/// What has to be free beside what is written, for the engine's own purposes.
const SPARE: u64 = 1 << 20;

/// Refuses to begin what the disk may have no room for. Engines do not go on after a write that failed; one that was not
/// begun does them no harm.
///
/// # Errors
/// [`StoreError::Full`] if less than `bytes` and a MiB are free.
pub fn has_room(operation: &'static str, path: &Path, bytes: u64) -> Result<(), StoreError> {
    let Ok(found) = rustix::fs::statvfs(path) else { return Ok(()) };
    // Where the file system does not count its blocks, the write itself has to tell.
    if found.f_blocks == 0 || found.f_bavail.saturating_mul(found.f_frsize) >= bytes.saturating_add(SPARE) {
        return Ok(());
    }
    Err(StoreError::Full { operation, path: path.to_owned() })
}

/// Takes a file or directory away from everybody but its owner, if it is there.
///
/// # Errors
/// What the system refuses.
pub fn keep_private(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            fs::set_permissions(path, Permissions::from_mode(found.permissions().mode() & 0o700))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The path with something behind its name.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    bytes.extend_from_slice(ending.as_bytes());
    OsString::from_vec(bytes).into()
}

/// The first line of a store whose engine has no place for one: `nodejobs redb store, format 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The engine's name.
    pub engine: &'static str,
    /// The version of the format that is written here.
    pub format: u32,
    /// The oldest version that is read as well.
    pub oldest: u32,
}

impl Mark {
    /// No mark is longer.
    const LENGTH: u64 = 64;

    /// The mark, with its end of line.
    pub fn line(self) -> String {
        self.line_of(self.format)
    }

    fn line_of(self, format: u32) -> String {
        format!("nodejobs {} store, format {format}\n", self.engine)
    }

    /// Writes the mark at the beginning of a file, and nothing else.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn write(self, file: &mut File) -> io::Result<()> {
        file.write_all(self.line().as_bytes())
    }

    /// Makes the mark of an older version at the beginning of a file the present one, on disk. Versions have one digit, so
    /// one byte changes.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn raise(self, file: &File) -> io::Result<()> {
        file.write_all_at(self.line().as_bytes(), 0)?;
        file.sync_data()
    }

    /// Looks for the mark in this file, which belongs to the store at `path`, and at nothing else. Says which version it
    /// has: an older one is to be [raised](Self::raise) once the store is open.
    ///
    /// # Errors
    /// [`StoreError::UnknownFormat`] for a mark with another version, [`StoreError::Damaged`] for anything else.
    pub fn expect(self, file: &Path, path: &Path) -> Result<u32, StoreError> {
        let mut begin = Vec::new();
        match File::open(file).and_then(|file| file.take(Self::LENGTH).read_to_end(&mut begin)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(path, format!("'{}' is missing", file.display())));
            }
            read => read.map_err(|error| failed("open", path, error))?,
        };
        let known = |format: &u32| begin.starts_with(self.line_of(*format).as_bytes());
        if let Some(format) = (self.oldest..=self.format).find(known) {
            return Ok(format);
        }
        let version = begin
            .strip_prefix(format!("nodejobs {} store, format ", self.engine).as_bytes())
            .and_then(|rest| rest.split(|byte| *byte == b'\n').next())
            .and_then(|version| std::str::from_utf8(version).ok()?.parse().ok());
        match version {
            Some(found) => {
                Err(StoreError::UnknownFormat { path: path.to_owned(), found, known: self.format })
            }
            None => Err(damaged(path, format!("it is not a {} store of nodejobs", self.engine))),
        }
    }
}
