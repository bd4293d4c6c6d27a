//! What a store that is open says about itself: what it is, promises and holds.

use std::path::Path;

use nodejobs_core::store::{DocumentKind, JobStore, StoreError};

use crate::api::StoreStatus;
use crate::log_files::path_text;
use crate::store_files::size_on_disk;
use crate::stores::StoreKind;

/// What is said of a store that is open.
pub(crate) fn status_of(
    store: &dyn JobStore,
    kind: StoreKind,
    directory: &Path,
    owner_pid: Option<u32>,
) -> Result<StoreStatus, StoreError> {
    let info = store.info();
    let counters = store.counters()?;
    // Their numbers have no gap.
    let first_event = store.events(0, 1)?.first().map(|event| event.seq);
    let path = directory.join(kind.file_name());
    Ok(StoreStatus {
        store: kind.to_string(),
        format: info.format,
        path: path_text(&path),
        bytes: size_on_disk(&path),
        shareable: info.shareable,
        weaker: info.weaker,
        owner_pid,
        jobs: store.counts()?,
        events: first_event.map_or(0, |first| (counters.last_event + 1).saturating_sub(first)),
        documents: count_documents(store)?,
        last_seq: counters.last_seq,
        last_event: counters.last_event,
    })
}

fn count_documents(store: &dyn JobStore) -> Result<u64, StoreError> {
    let mut count = 0;
    for kind in DocumentKind::ALL {
        // Their bodies come along, and input may be large.
        let at_once = if kind == DocumentKind::Input { 4 } else { 100 };
        let mut after: Option<String> = None;
        loop {
            let found = store.documents(kind, "", after.as_deref(), at_once)?;
            count += found.len() as u64;
            let Some((last, _)) = found.into_iter().next_back() else { break };
            after = Some(last);
        }
    }
    Ok(count)
}
