//! Having a data directory for oneself: the same locks and checks as an owner's.

use std::path::Path;

use nodejobs_proc::machine::Machine;

use crate::api::ProblemKind;
use crate::directory::{DataDirectory, Holder, Lock, Meta};
use crate::error::Error;
use crate::foreign::META;
use crate::reach::own_or_reach;
use crate::stores::{DirectoryAge, StoreKind};

/// A directory that nobody else owns, as long as this lives.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) directory: DataDirectory,
    pub(super) meta: Meta,
    pub(super) age: DirectoryAge,
    pub(super) machine: Machine,
    // Given up in this order: who waits for the second finds the first free.
    _owner: Lock,
    _start: Lock,
}

impl Held {
    /// A directory that was owned before. Nothing is made where there is none.
    pub(super) fn used(data_dir: &Path, wanted: Option<StoreKind>) -> Result<Self, Error> {
        if std::fs::symlink_metadata(data_dir.join(META)).is_err_and(|error| is_absent(&error)) {
            return Err(Error::new(
                ProblemKind::Unavailable,
                format!(
                    "there is no store in '{}', since it is no data directory; choose one with --data-dir",
                    data_dir.display()
                ),
            ));
        }
        Self::any(data_dir, wanted)
    }

    /// A directory that may be new.
    pub(super) fn any(data_dir: &Path, wanted: Option<StoreKind>) -> Result<Self, Error> {
        let directory = DataDirectory::prepare(data_dir)?;
        let start = directory.lock_start()?;
        let Some(mut owner) = own_or_reach(&directory)? else { return Err(is_owned(&directory)) };
        let machine = Machine::read().map_err(|error| {
            Error::new(ProblemKind::Unavailable, "this machine cannot be told from others").with_source(error)
        })?;
        let (meta, age) = directory.meta(wanted, &machine)?;
        owner.write_holder(&Holder { pid: std::process::id() }).map_err(|error| {
            Error::new(ProblemKind::Unavailable, "the owner's lock file cannot be written").with_source(error)
        })?;
        Ok(Self { directory, meta, age, machine, _owner: owner, _start: start })
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn is_owned(directory: &DataDirectory) -> Error {
    let who = match directory.lock_owner() {
        Ok(Err(Some(Holder { pid }))) => format!("process {pid}"),
        _ => "a process".to_owned(),
    };
    Error::new(
        ProblemKind::Conflict,
        format!(
            "{who} owns data directory '{}'; end it with `nodejobs daemon stop` (or end the program that embeds \
             nodejobs); jobs run on meanwhile",
            directory.path().display()
        ),
    )
}
