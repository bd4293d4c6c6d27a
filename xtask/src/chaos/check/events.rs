//! Events have no gap, each move is legal, and whoever listened heard the same.

use std::collections::BTreeMap;

use super::super::export::{Event, Export};

/// Where an attempt may go from where it is; nothing before its first event.
fn may_become(from: Option<&str>, to: &str) -> bool {
    let next: &[&str] = match from {
        None => &["queued", "starting", "restarting"],
        Some("queued") => &["starting", "cancelled"],
        Some("starting") => &["running", "failed_start", "stopping", "lost", "queued"],
        // To `failed_start` only behind a start that had to be told early.
        Some("running") => &["paused", "stopping", "finished", "failed", "failed_start", "lost"],
        Some("paused") => &["running", "stopping", "finished", "failed", "failed_start", "lost"],
        Some("stopping") => &["stopped", "failed_stop", "lost"],
        Some("failed_stop") => &["stopped", "lost"],
        Some("restarting") => &["queued", "starting", "stopped"],
        Some(_) => &[],
    };
    // Staying is no move, and what changes is told all the same.
    next.contains(&to) || (from == Some(to) && !next.is_empty())
}

/// What is wrong with the events of one store.
pub(super) fn judge(export: &Export) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut statuses: BTreeMap<(&str, u32), &str> = BTreeMap::new();
    for (index, event) in export.events.iter().enumerate() {
        let Event { seq, id, attempt, status } = event;
        if *seq != index as u64 + 1 {
            wrong.push(format!("event {} has the number {seq}", index + 1));
            break;
        }
        let before = statuses.insert((id, *attempt), status);
        if !may_become(before, status) {
            wrong.push(format!("event {seq}: {id}.{attempt} goes from {before:?} to {status}"));
        }
    }
    for (id, attempts) in &export.jobs {
        for attempt in attempts {
            let last = statuses.remove(&(id.as_str(), attempt.number));
            if last != Some(&attempt.status) {
                wrong.push(format!(
                    "{id}.{} is {}, and its last event is {last:?}",
                    attempt.number, attempt.status
                ));
            }
        }
    }
    wrong.extend(
        statuses.keys().map(|(id, attempt)| format!("events tell of {id}.{attempt}, which there is not")),
    );
    wrong
}

/// Whether a listener heard what there is, each once, in order.
pub(super) fn judge_heard(heard: &[Event], there_are: &[Event]) -> Option<String> {
    if heard == there_are {
        return None;
    }
    let first = heard.iter().zip(there_are).position(|(heard, is)| heard != is);
    let first = first.unwrap_or(heard.len().min(there_are.len()));
    Some(format!(
        "the listener heard {} events of {}; the first difference: {:?} instead of {:?}",
        heard.len(),
        there_are.len(),
        heard.get(first),
        there_are.get(first)
    ))
}
