//! The elements of an array that is forgotten: they go in batches after their parent, and its progress, a document, says
//! until then that they are to go. So an owner that is killed over it is followed by one that goes on.

use nodejobs_core::JobId;
use nodejobs_core::array::LABEL;
use nodejobs_core::filter::JobFilter;
use nodejobs_core::job::Job;
use nodejobs_core::store::{DocumentChange, DocumentKind, Order, PageRequest};

use crate::arrays::array_of;
use crate::error::Error;
use crate::owner::Owner;

/// How many elements are forgotten in one turn of the owner.
const BATCH: usize = 128;

impl Owner {
    /// Forgets the elements of an array that is gone.
    pub(crate) async fn forget_elements(&self, parent: &JobId) -> Result<(), Error> {
        let label = vec![(LABEL.to_owned(), Some(parent.to_string()))];
        let filter = JobFilter { label, is_element: Some(true), ..JobFilter::default() };
        let mut after = None;
        loop {
            let request =
                PageRequest { filter: filter.clone(), order: Order::OldestFirst, after, limit: BATCH };
            let page = self.blocking(move |store| Ok(store.jobs(&request)?)).await?;
            let elements: Vec<Job> =
                page.jobs.into_iter().filter(|job| array_of(job) == Some(parent)).collect();
            self.forget_batch(&elements, &mut Vec::new()).await?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let key = parent.to_string();
        self.keep(vec![DocumentChange::Remove { kind: DocumentKind::Progress, key }]).await
    }
}

/// Forgets what an earlier owner has left of arrays that are gone.
pub(crate) async fn finish_forgetting(owner: &Owner) {
    let left = owner.blocking(|store| {
        let (mut left, mut after): (Vec<JobId>, Option<String>) = (Vec::new(), None);
        loop {
            let batch = store.documents(DocumentKind::Progress, "", after.as_deref(), BATCH)?;
            let Some((last, _)) = batch.last() else { return Ok(left) };
            after = Some(last.clone());
            for (key, _) in batch {
                if let Ok(parent) = JobId::new(&key)
                    && store.job(&parent)?.is_none()
                {
                    left.push(parent);
                }
            }
        }
    });
    let done = async {
        for parent in left.await? {
            owner.forget_elements(&parent).await?;
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = done.await
        && !owner.hub.is_leaving()
    {
        log::warn!("elements of removed arrays could not be forgotten: {}", error.to_problem());
    }
}
