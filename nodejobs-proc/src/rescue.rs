//! Ending jobs where there is no owner and can be none: the store is lost or cannot be read, and only the keepers know what
//! runs.

use std::io;
use std::rc::Rc;

use nodejobs_core::backend::{BackendEvent, EndPlan, TreeMember};
use nodejobs_core::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::backend::ending::{Ending, Progress, max_held};
use crate::cgroup::group::Group;
use crate::launch;
use crate::look::FoundJob;
use crate::machine::{Machine, now};
use crate::tree::View;

/// Ends the trees of jobs with the signal, and by SIGKILL whoever is there after the grace, in milliseconds. They share it.
/// Gives who could not be killed, for each of them.
///
/// The caller sees to it that nobody owns the directory whose id this is.
///
/// # Errors
/// When there is no room to look or to wait.
pub fn end_trees(
    jobs: &[FoundJob],
    directory_id: &str,
    signal: Signal,
    grace_ms: u64,
) -> io::Result<Vec<Vec<TreeMember>>> {
    let machine = Machine::read()?;
    let plan = EndPlan { signal, deadline: now().boot.plus_millis(grace_ms) };
    let ending = |job: &FoundJob| {
        let mark = launch::mark(directory_id, &job.attempt);
        let group = Group::around(job.pid, directory_id, &job.attempt);
        Ending::new(job.process.clone(), mark, group, plan)
    };
    let mut endings: Vec<(Ending, Option<Vec<TreeMember>>)> =
        jobs.iter().map(|job| (ending(job), None)).collect();
    loop {
        let at = now();
        let mut shared: Option<Rc<View>> = None;
        let mut view = || match &shared {
            Some(view) => Ok(Rc::clone(view)),
            None => Ok(Rc::clone(shared.insert(Rc::new(View::everywhere()?)))),
        };
        let held: usize = endings.iter().map(|(ending, _)| ending.held().count()).sum();
        let mut room = max_held().saturating_sub(held);
        for (ending, survivors) in endings.iter_mut().filter(|(_, survivors)| survivors.is_none()) {
            match ending.advance(&mut view, &mut room, &machine, at) {
                Progress::Waiting => {}
                Progress::Ended(event) | Progress::Survived(event) => *survivors = Some(survivors_of(event)),
            }
        }
        let waiting: Vec<usize> = (0..endings.len()).filter(|index| endings[*index].1.is_none()).collect();
        if waiting.is_empty() {
            return Ok(endings.into_iter().filter_map(|(_, survivors)| survivors).collect());
        }
        let gone: Vec<(usize, u32)> = {
            let held = |index: usize| endings[index].0.held().map(move |(pid, pidfd)| (index, pid, pidfd));
            let held: Vec<_> = waiting.iter().flat_map(|index| held(*index)).collect();
            let mut polled: Vec<_> =
                held.iter().map(|(_, _, pidfd)| PollFd::from_borrowed_fd(*pidfd, PollFlags::IN)).collect();
            let deadline = waiting.iter().map(|index| endings[*index].0.deadline()).min();
            // One more, so that the deadline has passed when this returns.
            let millis = deadline.map_or(0, |deadline| deadline.millis_since(now().boot) + 1);
            let nanos = (millis % 1000) * 1_000_000;
            let timeout = Timespec { tv_sec: (millis / 1000).cast_signed(), tv_nsec: nanos.cast_signed() };
            rustix::io::retry_on_intr(|| poll(&mut polled, Some(&timeout)))?;
            let ended = polled.iter().map(|one| !one.revents().is_empty());
            held.iter()
                .zip(ended)
                .filter(|(_, ended)| *ended)
                .map(|((index, pid, _), _)| (*index, *pid))
                .collect()
        };
        for (index, pid) in gone {
            endings[index].0.gone(pid);
        }
    }
}

fn survivors_of(event: BackendEvent) -> Vec<TreeMember> {
    match event {
        BackendEvent::TreeEnded { survivors, .. } => survivors,
        _ => Vec::new(),
    }
}
