//! From one store into another, in the same directory.
//!
//! At every instant `nodejobs.json` names a store that is complete: the old one until the new one has its own name, then
//! the new one. Whoever is killed in between leaves files behind that the next one removes or sets aside.

use std::path::Path;

use nodejobs_core::RawText;
use nodejobs_core::store::content::{Item, walk};
use nodejobs_core::store::export::Totals;
use serde::Serialize;

use super::Progress;
use super::access::Held;
use super::build::{NewStore, failed};
use crate::api::ProblemKind;
use crate::directory::DataDirectory;
use crate::error::Error;
use crate::log_files::path_text;
use crate::store_files;
use crate::stores::{DirectoryAge, StoreKind};

/// What a migration came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Migrated {
    /// The kind of store there was.
    pub from: StoreKind,
    /// The kind of store there is.
    pub to: StoreKind,
    /// Whether it was of that kind already, so that nothing was done.
    pub already: bool,
    /// How many jobs there are; `None` if nothing was done.
    pub jobs: Option<u64>,
    /// How many attempts they have.
    pub attempts: Option<u64>,
    /// How many events there are.
    pub events: Option<u64>,
    /// How many documents there are.
    pub documents: Option<u64>,
    /// Where the old store is kept; `None` if it was deleted, or nothing was done.
    pub old: Option<RawText>,
    /// What an interrupted migration had left, and where that is now.
    pub leftovers: Vec<RawText>,
}

/// Gives a directory a store of another kind, with everything that the old one holds. The old one is kept under another
/// name, or deleted if so wanted.
///
/// # Errors
/// [`ProblemKind::Usage`] for a store that is not in this build, [`ProblemKind::Conflict`] if the directory has an owner,
/// [`ProblemKind::Unavailable`] if a store cannot be read or written, [`ProblemKind::Failed`] if the new one is not what
/// the old one was. With any of these the directory is as it was.
pub fn migrate(
    data_dir: &Path,
    store: Option<StoreKind>,
    to: StoreKind,
    delete_old: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Migrated, Error> {
    to.as_str().parse::<StoreKind>()?;
    let mut held = Held::used(data_dir, store)?;
    let directory = held.directory.clone();
    let from = held.meta.store;
    let mut migrated = Migrated {
        from,
        to,
        already: true,
        jobs: None,
        attempts: None,
        events: None,
        documents: None,
        old: None,
        leftovers: Vec::new(),
    };
    store_files::remove_temporary(directory.path())
        .map_err(|error| failed(&directory, "be tidied", error))?;
    for other in StoreKind::all().filter(|kind| *kind != from) {
        let aside = store_files::set_aside(directory.path(), other)
            .map_err(|error| failed(&directory, "set aside what an earlier migration has left", error))?;
        migrated.leftovers.extend(aside.as_deref().map(path_text));
    }
    if from == to {
        return Ok(migrated);
    }
    let totals = copy(&directory, from, to, progress)?;
    held.meta.store = to;
    directory.keep_meta(&held.meta)?;
    // From here on the new one counts, whatever becomes of the old one.
    let aside = store_files::set_aside(directory.path(), from)
        .map_err(|error| failed(&directory, "set its old store aside (the new one is in use)", error))?;
    if let (Some(aside), true) = (&aside, delete_old) {
        store_files::remove_store(aside)
            .map_err(|error| failed(&directory, "delete its old store (the new one is in use)", error))?;
    }
    let Totals { jobs, attempts, events, documents } = totals;
    Ok(Migrated {
        already: false,
        jobs: Some(jobs),
        attempts: Some(attempts),
        events: Some(events),
        documents: Some(documents),
        old: aside.filter(|_| !delete_old).as_deref().map(path_text),
        ..migrated
    })
}

/// Makes the new store and gives it its name. The old one is closed when this returns.
fn copy(
    directory: &DataDirectory,
    from: StoreKind,
    to: StoreKind,
    progress: &mut dyn FnMut(Progress),
) -> Result<Totals, Error> {
    let old = from.open(directory.path(), DirectoryAge::Used)?;
    let mut new = NewStore::begin(directory, to, progress)?;
    walk(&*old, |item| {
        let bytes = if let Item::Document { body, .. } = &item { body.len() } else { 0 };
        new.push(item, bytes)
    })?;
    let totals = new.finish()?;
    let copy = new.store()?;
    if (copy.counts()?, copy.counters()?) != (old.counts()?, old.counters()?) {
        let message = format!("the new {to} store counts other jobs than the old one; nothing was changed");
        return Err(Error::new(ProblemKind::Failed, message));
    }
    new.put_in_place()?;
    Ok(totals)
}
