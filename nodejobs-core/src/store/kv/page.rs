//! The listing: a filter becomes an index to go along, in the order of submission.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::super::{Order, Page, PageRequest, StoreError};
use super::{Direction, View, keys, record};
use crate::filter::JobFilter;
use crate::id::JobId;
use crate::status::Status;

/// Numbers that are taken from an index at once.
const CHUNK: usize = 64;

/// Where the jobs of a listing are looked for.
enum Route {
    /// In these indexes, whose keys end in a seq, merged.
    Indexes(Vec<Vec<u8>>),
    /// Among these, in order.
    Listed(VecDeque<u64>),
}

pub(super) fn jobs(view: &dyn View, request: &PageRequest) -> Result<Page, StoreError> {
    let PageRequest { filter, order, after, limit } = request;
    let mut candidates = match route(view, filter, *order, *after)? {
        Route::Listed(seqs) => Candidates::Listed(seqs),
        Route::Indexes(prefixes) => Candidates::Merged(
            prefixes.into_iter().map(|prefix| Cursor::new(prefix, *order, *after)).collect(),
        ),
    };
    let mut jobs = Vec::new();
    while let Some(seq) = candidates.next(view, *order)? {
        let stored = record::newest_state(view, seq)?;
        if !filter.matches_state(&stored.id, &stored.state) {
            continue;
        }
        let job = record::whole(view, seq, stored)?;
        if !filter.matches(&job) {
            continue;
        }
        if jobs.len() == *limit {
            // One more than wanted: this is not the last page.
            let next = jobs.last().map(|job: &crate::job::Job| job.seq);
            return Ok(Page { jobs, next });
        }
        jobs.push(job);
    }
    Ok(Page { jobs, next: None })
}

/// The index with the fewest expected visits.
fn route(view: &dyn View, filter: &JobFilter, order: Order, after: Option<u64>) -> Result<Route, StoreError> {
    let only_live = !filter.status.is_empty() && !filter.status.iter().any(|status| status.is_terminal());
    let label_value = filter.label.iter().find_map(|(key, value)| Some((key, value.as_ref()?)));
    let in_order = |seqs| in_order(seqs, order, after);
    if let Some(id) = &filter.self_id {
        // What is no id is no job's id.
        let found = JobId::new(id).ok().map(|id| record::seq_of(view, &id)).transpose()?;
        Ok(Route::Listed(in_order(found.flatten().into_iter().collect())))
    } else if only_live {
        // Live jobs are few, however many have ended.
        Ok(statuses(filter))
    } else if let Some(name) = &filter.name {
        Ok(Route::Indexes(vec![keys::name(name)]))
    } else if let Some((key, value)) = label_value {
        Ok(Route::Indexes(vec![keys::label(key, value)]))
    } else if let Some(prefix) = filter.id_prefix.as_ref().filter(|prefix| !prefix.is_empty()) {
        // No id is longer, nor any key of this index.
        let prefix = keys::id_prefix(prefix);
        let mut seqs = Vec::new();
        view.scan(&prefix, &keys::behind(&prefix), Direction::Forward, &mut |key, value| {
            let what = || format!("the number of job {}", String::from_utf8_lossy(&key[keys::IDS.len()..]));
            seqs.push(record::decode_seq(value).map_err(|why| record::damaged(what(), why))?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Route::Listed(in_order(seqs)))
    } else if let Some(group) = &filter.group {
        Ok(Route::Indexes(vec![keys::group(group)]))
    } else if let Some((key, _)) = filter.label.first() {
        Ok(Route::Indexes(vec![keys::any_label(key)]))
    } else if !filter.status.is_empty() {
        Ok(statuses(filter))
    } else if let Some(from) = filter.last_update.from {
        let end = match filter.last_update.until {
            Some(until) => keys::behind(&keys::last_update(until)),
            None => keys::behind(b"u"),
        };
        let mut seqs = Vec::new();
        view.scan(&keys::last_update(from), &end, Direction::Forward, &mut |key, _| {
            seqs.extend(keys::last_number(key));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Route::Listed(in_order(seqs)))
    } else {
        Ok(Route::Indexes(vec![keys::JOBS.to_vec()]))
    }
}

fn statuses(filter: &JobFilter) -> Route {
    let wanted = Status::ALL.into_iter().filter(|status| filter.status.contains(status));
    Route::Indexes(wanted.map(keys::status).collect())
}

/// Those behind the cursor, in the order of the listing.
fn in_order(mut seqs: Vec<u64>, order: Order, after: Option<u64>) -> VecDeque<u64> {
    seqs.retain(|seq| {
        after.is_none_or(|after| match order {
            Order::OldestFirst => *seq > after,
            Order::NewestFirst => *seq < after,
        })
    });
    seqs.sort_unstable();
    if order == Order::NewestFirst {
        seqs.reverse();
    }
    seqs.into()
}

enum Candidates {
    Listed(VecDeque<u64>),
    Merged(Vec<Cursor>),
}

impl Candidates {
    fn next(&mut self, view: &dyn View, order: Order) -> Result<Option<u64>, StoreError> {
        let cursors = match self {
            Candidates::Listed(seqs) => return Ok(seqs.pop_front()),
            Candidates::Merged(cursors) => cursors,
        };
        let mut best: Option<(u64, usize)> = None;
        for (index, cursor) in cursors.iter_mut().enumerate() {
            let Some(seq) = cursor.peek(view, order)? else { continue };
            let is_better = best.is_none_or(|(other, _)| match order {
                Order::OldestFirst => seq < other,
                Order::NewestFirst => seq > other,
            });
            if is_better {
                best = Some((seq, index));
            }
        }
        Ok(best.map(|(seq, index)| {
            cursors[index].taken.pop_front();
            seq
        }))
    }
}

/// Goes along one index.
struct Cursor {
    prefix: Vec<u8>,
    /// The span that was not read yet, `from <= seq <= to`; `None` once it is read.
    rest: Option<(u64, u64)>,
    taken: VecDeque<u64>,
}

impl Cursor {
    fn new(prefix: Vec<u8>, order: Order, after: Option<u64>) -> Self {
        let rest = match (order, after) {
            (_, None) => Some((0, u64::MAX)),
            (Order::OldestFirst, Some(after)) => after.checked_add(1).map(|from| (from, u64::MAX)),
            (Order::NewestFirst, Some(after)) => after.checked_sub(1).map(|to| (0, to)),
        };
        Self { prefix, rest, taken: VecDeque::new() }
    }

    fn peek(&mut self, view: &dyn View, order: Order) -> Result<Option<u64>, StoreError> {
        if self.taken.is_empty()
            && let Some((from, to)) = self.rest
        {
            let end = match to.checked_add(1) {
                Some(end) => keys::numbered(&self.prefix, end),
                None => keys::behind(&self.prefix),
            };
            let direction = match order {
                Order::OldestFirst => Direction::Forward,
                Order::NewestFirst => Direction::Backward,
            };
            let taken = &mut self.taken;
            view.scan(&keys::numbered(&self.prefix, from), &end, direction, &mut |key, _| {
                taken.extend(keys::last_number(key));
                Ok(if taken.len() < CHUNK { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            let full = self.taken.len() == CHUNK;
            self.rest = self.taken.back().filter(|_| full).and_then(|last| match order {
                Order::OldestFirst => last.checked_add(1).map(|from| (from, to)),
                Order::NewestFirst => last.checked_sub(1).map(|to| (from, to)),
            });
        }
        Ok(self.taken.front().copied())
    }
}
