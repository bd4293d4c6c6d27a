//! From a store into a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nodejobs_core::store::content::walk;
use nodejobs_core::store::export::{Header, Totals, WriteError, Writer};
use nodejobs_proc::machine::now;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::access::Held;
use super::{Progress, Step, guarded};
use crate::api::ProblemKind;
use crate::error::Error;
use crate::stores::{DirectoryAge, StoreKind};

/// Writes everything that a directory's store holds, as `docs/export.md` describes it. It contains environments and
/// input of jobs, so it is as secret as these are.
///
/// # Errors
/// [`ProblemKind::Unavailable`] if there is no store, or it cannot be read; [`ProblemKind::Failed`] if `output` takes no
/// more (the [source](std::error::Error::source) is its error), or the store contradicts itself. What was written by
/// then has no last line, so nobody takes it for whole.
pub fn export(
    data_dir: &Path,
    store: Option<StoreKind>,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Totals, Error> {
    let held = Held::used(data_dir, store)?;
    guarded(|| export_held(&held, output, progress))
}

fn export_held(
    held: &Held,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Totals, Error> {
    let store = held.meta.store.open(held.directory.path(), DirectoryAge::Used)?;
    let mut header =
        Header::new(held.meta.store.as_str(), &held.meta.directory_id, now().wall, env!("CARGO_PKG_VERSION"));
    header.machine_id.clone_from(&held.machine.machine_id);
    header.boot_id = Some(held.machine.boot_id.clone());
    let mut records = 0;
    let write = || {
        let mut writer = Writer::new(BufWriter::with_capacity(1 << 20, output), &header)?;
        walk(&*store, |item| {
            records += 1;
            if records % 1000 == 0 {
                progress(Progress { step: Step::Exporting, records });
            }
            writer.item(&item)
        })?;
        writer.finish().map(|(_, totals)| totals)
    };
    write().map_err(|error| match error {
        WriteError::Store(error) => error.into(),
        WriteError::Output(error) => cannot_write(error),
        WriteError::Rule(_) | WriteError::TooLong(_) => {
            let message =
                format!("the store cannot be exported: {error}; `nodejobs store check` lists what is wrong");
            Error::new(ProblemKind::Failed, message)
        }
    })
}

/// The same into a file that only its owner can read. It is complete and on disk when it appears.
///
/// # Errors
/// As [`export`]; [`ProblemKind::Conflict`] if there is such a file and it is not to be replaced, and
/// [`ProblemKind::Usage`] if something else is there.
pub fn export_to_file(
    data_dir: &Path,
    store: Option<StoreKind>,
    path: &Path,
    replace: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Totals, Error> {
    let exists = || {
        let message = format!("'{}' is there already; --force replaces it", path.display());
        Error::new(ProblemKind::Conflict, message)
    };
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let message = format!("'{}' is no file; name one with --to, or leave it out", path.display());
            return Err(Error::new(ProblemKind::Usage, message));
        }
        Ok(_) if !replace => return Err(exists()),
        _ => {}
    }
    let (temporary, mut file) = temporary_beside(path).map_err(|error| cannot_write_to(path, error))?;
    let mut write = || {
        let totals = export(data_dir, store, &mut file, progress)?;
        let finish = || {
            file.sync_all()?;
            if replace { fs::rename(&temporary, path) } else { rename_to_new(&temporary, path) }?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        match finish() {
            Ok(()) => Ok(totals),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists()),
            Err(error) => Err(cannot_write_to(path, error)),
        }
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Somebody may have made such a file meanwhile.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can say it in one.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !fs::exists(to)? => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

/// A new file in the same directory.
fn temporary_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let temporary = PathBuf::from(name);
    // One of that name is left over from a process that had our number.
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    Ok((temporary, file))
}

fn cannot_write(error: io::Error) -> Error {
    Error::new(ProblemKind::Failed, "the export cannot be written").with_source(error)
}

fn cannot_write_to(path: &Path, error: io::Error) -> Error {
    let message = format!("the export cannot be written to '{}'", path.display());
    Error::new(ProblemKind::Failed, message).with_source(error)
}
