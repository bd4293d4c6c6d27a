//! Building a new store beside the place where it will be: nothing of it counts before it is complete.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use nodejobs_core::store::JobStore;
use nodejobs_core::store::content::Item;
use nodejobs_core::store::export::Totals;

use super::{Progress, Step};
use crate::api::ProblemKind;
use crate::directory::DataDirectory;
use crate::error::Error;
use crate::store_files;
use crate::stores::StoreKind;

/// So many items are written with one flush,
const BATCH: usize = 1000;
/// or fewer, if they take so many bytes: some hold a job's input.
const BATCH_BYTES: usize = 8 << 20;

/// A store that is being filled. What is not [put in place](Self::put_in_place) is removed.
pub(super) struct NewStore<'a> {
    directory: &'a DataDirectory,
    kind: StoreKind,
    store: Option<Arc<dyn JobStore>>,
    waiting: Vec<Item>,
    waiting_bytes: usize,
    loaded: Totals,
    progress: &'a mut dyn FnMut(Progress),
}

impl<'a> NewStore<'a> {
    /// Begins one, in a directory that is held.
    pub(super) fn begin(
        directory: &'a DataDirectory,
        kind: StoreKind,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Result<Self, Error> {
        store_files::remove_temporary(directory.path())
            .map_err(|error| failed(directory, "be tidied", error))?;
        let mut new = Self {
            directory,
            kind,
            store: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
            loaded: Totals::default(),
            progress,
        };
        new.store = Some(kind.open_at(&store_files::temporary(directory.path(), kind))?);
        Ok(new)
    }

    /// Adds an item of about so many bytes.
    pub(super) fn push(&mut self, item: Item, bytes: usize) -> Result<(), Error> {
        match &item {
            Item::Counters(_) => {}
            Item::Document { .. } => self.loaded.documents += 1,
            Item::Event(_) => self.loaded.events += 1,
            Item::Job(attempts) => {
                self.loaded.jobs += 1;
                self.loaded.attempts += attempts.len() as u64;
            }
        }
        self.waiting.push(item);
        self.waiting_bytes += bytes;
        if self.waiting.len() >= BATCH || self.waiting_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.store()?.load(&self.waiting)?;
        self.waiting.clear();
        self.waiting_bytes = 0;
        let Totals { jobs, attempts: _, events, documents } = self.loaded;
        (self.progress)(Progress { step: Step::Writing, records: jobs + events + documents });
        Ok(())
    }

    /// Writes what waits, reads everything again, and says how much there is: as much as was added, and sound.
    pub(super) fn finish(&mut self) -> Result<Totals, Error> {
        self.flush()?;
        let store = Arc::clone(self.store()?);
        let progress = &mut *self.progress;
        let check = store.check(&mut |records| progress(Progress { step: Step::Checking, records }))?;
        let found = Totals {
            jobs: check.jobs,
            attempts: check.attempts,
            events: check.events,
            documents: check.documents,
        };
        let problem = check.problems.first().cloned().or_else(|| {
            (found != self.loaded).then(|| format!("{:?} was written, {found:?} is there", self.loaded))
        });
        match problem {
            None => Ok(found),
            Some(problem) => Err(Error::new(
                ProblemKind::Failed,
                format!("the new {} store is not what was written to it: {problem}", self.kind),
            )),
        }
    }

    /// The store, for ordinary changes.
    pub(super) fn store(&self) -> Result<&Arc<dyn JobStore>, Error> {
        self.store.as_ref().ok_or_else(|| Error::new(ProblemKind::Failed, "the new store was closed already"))
    }

    /// Closes it and gives it its name. What has that name already is set aside; where to is told.
    pub(super) fn put_in_place(mut self) -> Result<Option<PathBuf>, Error> {
        self.store = None;
        let place = || {
            let aside = store_files::set_aside(self.directory.path(), self.kind)?;
            store_files::put_in_place(self.directory.path(), self.kind)?;
            Ok(aside)
        };
        place().map_err(|error| failed(self.directory, "take the new store", error))
    }
}

impl Drop for NewStore<'_> {
    fn drop(&mut self) {
        self.store = None;
        // What cannot be removed now is removed by the next one.
        let _ = store_files::remove_temporary(self.directory.path());
    }
}

pub(super) fn failed(directory: &DataDirectory, what: &str, error: io::Error) -> Error {
    let message = format!("data directory '{}' cannot {what}", directory.path().display());
    Error::new(ProblemKind::Unavailable, message).with_source(error)
}
