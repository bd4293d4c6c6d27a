//! Launches in the worker: from what the owner sends to a program that is executed, or to the reason why not.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};

use nodejobs_core::id::AttemptId;
use nodejobs_core::time::BootTime;

use super::launchers::Returned;
use super::serve::{Keeper, Role, Running};
use super::telling::Held;
use crate::failpoint::{Failpoint, reached};
use crate::gates::closing::{has_executed, kill_unexecuted};
use crate::gates::{Gate, Passage, State};
use crate::holder;
use crate::journal::{EntryBuffer, Stage, StartFailed};
use crate::launch::Unpacked;
use crate::machine::now;
use crate::protocol::LaunchHeader;
use crate::sys::child::{ChildPlan, Progress, Settings};
use crate::trace;

/// A launch that takes longer does not hold up what follows it.
const MOMENT_MS: u64 = 20;
/// So long a launch may take before it counts as one that stands still.
const STUCK_MS: u64 = 2_000;
/// With so many that stand still, no more are taken: a fresh keeper has all its threads.
const STUCK: usize = 16;

/// A launch that has been read and waits for a thread.
pub(super) struct Waiting {
    pub(super) header: Box<LaunchHeader>,
    pub(super) memfd: OwnedFd,
    /// Of the owner that asked for it.
    pub(super) generation: u64,
}

/// A launch that has a thread, or whose worker died over it.
pub(super) struct InFlight {
    pub(super) attempt: AttemptId,
    since: BootTime,
    /// Where its start is in the journal, if it is.
    pub(super) start: Option<u64>,
    /// Where the journal says why it failed, with the entry; void if the child did not go through its gate.
    pub(super) failure: Option<(u64, EntryBuffer)>,
    /// Its start is told although it is not settled.
    is_told: bool,
    /// Its outcome is known without it: it was called off, or is nobody's any more.
    is_answered: bool,
}

impl InFlight {
    pub(super) fn new(attempt: AttemptId, since: BootTime) -> Self {
        Self { attempt, since, start: None, failure: None, is_told: false, is_answered: false }
    }

    /// Whether nothing that still happens to it is of consequence.
    pub(super) fn is_over(&self, gate: Gate<'_>) -> bool {
        self.is_answered || gate.is_shut()
    }
}

impl Keeper {
    fn gate(&self, index: usize) -> Gate<'static> {
        self.gates.gate(index)
    }

    /// Hands launches to threads, as far as there are any.
    pub(super) fn dispatch(&mut self) {
        // A journal is made shorter when no child can be about to write to it.
        while !self.is_to_rewrite() || self.is_anything_stuck() {
            if self.waiting.is_empty() {
                return;
            }
            let Some(index) = self.launchers.free(self.may_grow()) else { return };
            let Some(waiting) = self.waiting.pop_front() else { return };
            self.launch(index, waiting);
        }
    }

    /// Whether all threads have been busy for a while.
    fn may_grow(&self) -> bool {
        let at = now().boot;
        self.in_flight().all(|launch| at >= launch.since.plus_millis(MOMENT_MS))
    }

    fn in_flight(&self) -> impl Iterator<Item = &InFlight> {
        self.launches.iter().flatten()
    }

    pub(super) fn is_anything_stuck(&self) -> bool {
        let at = now().boot;
        self.in_flight().any(|launch| at >= launch.since.plus_millis(MOMENT_MS))
    }

    /// Whether so many launches stand still that this keeper takes no more.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck_at().is_some_and(|stuck_at| now().boot >= stuck_at)
    }

    fn stuck_at(&self) -> Option<BootTime> {
        let mut since: Vec<BootTime> = self.in_flight().map(|launch| launch.since).collect();
        since.sort_unstable();
        since.get(STUCK - 1).map(|since| since.plus_millis(STUCK_MS))
    }

    /// When to look at launches again, if nothing happens before.
    pub(super) fn launches_deadline(&self) -> Option<BootTime> {
        if matches!(self.role, Role::Guard) {
            return self.launches.iter().flatten().next().map(|_| self.look_again);
        }
        let waits = !self.waiting.is_empty() || self.waits_for_moment;
        let moments = self.in_flight().map(|launch| launch.since.plus_millis(MOMENT_MS));
        // Once over, it has been acted upon.
        let moment = moments.filter(|moment| waits && *moment > now().boot).min();
        moment.into_iter().chain(self.stuck_at().filter(|_| !self.draining)).min()
    }

    fn launch(&mut self, index: usize, waiting: Waiting) {
        let Waiting { header, memfd, generation } = waiting;
        let attempt = header.attempt.clone();
        if self.gates.fence() > generation {
            // Its owner has given it up, and it may have been asked of another keeper.
            return;
        }
        match self.plan(index, *header, memfd) {
            Ok(plan) => {
                let at = now().boot;
                self.gate(index).open(&attempt, generation, at);
                self.launches[index] = Some(InFlight::new(attempt, at));
                self.launchers.give(index, Box::new(plan));
            }
            Err(failure) => self.note_start_failure(&attempt, failure),
        }
    }

    fn plan(&self, index: usize, header: LaunchHeader, memfd: OwnedFd) -> Result<ChildPlan, StartFailed> {
        let at_message = |errno| StartFailed::at(Stage::Message, errno);
        let unpacked = Unpacked::read(&header, memfd)
            .map_err(|error| at_message(error.raw_os_error().unwrap_or(libc::EINVAL)))?;
        let group = header.group.map(CString::new).transpose().map_err(|_| at_message(libc::EINVAL))?;
        let log = holder::Log { path: unpacked.stdout(), makes_directory: header.makes_directories };
        let held = header.held.map(|held| {
            holder::start(held, &header.attempt, &self.files.directory, &log, header.limits.user.as_ref())
        });
        let held = held
            .transpose()
            .map_err(|(stage, error)| StartFailed::at(stage, error.raw_os_error().unwrap_or(libc::EIO)))?;
        let mut limits = header.soft_limits.map(|soft| soft.map(|soft| (soft, u64::MAX)));
        if let Some(hard) = header
            .trace
            .zip(self.own_limits[libc::RLIMIT_RSS as usize])
            .and_then(|(of_mark, (_, own))| trace::hard_limit(of_mark, own))
        {
            let place = &mut limits[libc::RLIMIT_RSS as usize];
            *place = Some((place.map_or(u64::MAX, |(soft, _)| soft), hard));
        }
        let rlimits = (0..)
            .zip(limits.into_iter().zip(self.own_limits))
            .filter(|(_, (limit, own))| !limit.zip(*own).is_some_and(|(limit, own)| is_inherited(limit, own)))
            .filter_map(|(number, (limit, _))| limit.map(|(soft, hard)| (number, soft, hard)))
            .collect();
        let settings = Settings {
            held,
            umask: header.umask,
            rlimits,
            limits: header.limits,
            group,
            makes_directories: header.makes_directories,
            journal: self.journal.for_children().as_raw_fd(),
            entry: EntryBuffer::for_attempt(&header.attempt),
            gate: self.gate(index),
        };
        Ok(ChildPlan::new(unpacked, settings))
    }

    /// Takes in what threads have returned.
    pub(super) fn settle(&mut self) {
        self.launchers.heard();
        for index in 0..self.launches.len() {
            if self.launches[index].is_some()
                && let Some(returned) = self.launchers.take(index)
            {
                self.settle_one(index, returned);
                reached(Failpoint::WorkerLaunched);
            }
        }
        if self.waiting.is_empty() {
            self.launchers.shrink();
        }
        // What ended meanwhile had to wait for this.
        self.collect();
    }

    fn settle_one(&mut self, index: usize, returned: Returned) {
        let Returned { plan, child } = returned;
        // The child has closed its side, or has never had it.
        self.take_in();
        reached(Failpoint::WorkerSettling);
        let Some(launch) = self.launches[index].take() else { return };
        let gate = self.gate(index);
        let InFlight { attempt, start, failure, .. } = launch;
        let progress = plan.progress();
        let is_noted = gate.state().is_ok_and(|state| state == State::Noted);
        // It has gone through: what it has noted is so, also if it was killed before it could say that it has.
        let failure = failure.filter(|_| is_noted);
        match (child, is_noted && failure.is_none()) {
            // Its note is the last that it did, or its program was executed.
            (Ok(pid), true) if matches!(progress, Progress::Noted | Progress::NotNoted) => {
                let start = start.unwrap_or_else(|| self.remember_start(plan.entry()));
                self.running.insert(pid, Running { attempt, start });
            }
            (child, _) => {
                start.into_iter().for_each(|at| self.remembered.take_back(at));
                let failed = match (child, progress) {
                    (Err(error), _) => {
                        StartFailed::at(Stage::Fork, error.raw_os_error().unwrap_or(libc::EAGAIN))
                    }
                    (Ok(_), Progress::FailureNotNoted(errno)) => StartFailed::at(Stage::Journal, errno),
                    (Ok(_), _) => StartFailed::at(Stage::Killed, 0),
                };
                match (progress, failure) {
                    (_, Some((at, entry))) => {
                        self.remembered.ended(at, entry, None);
                        self.tell_late(at);
                    }
                    // By this keeper: then it is answered. By somebody else: then it is theirs to answer.
                    (Progress::TurnedAway, _) => {}
                    _ if is_noted || claim(gate) => self.note_start_failure(&attempt, failed),
                    _ => {}
                }
            }
        }
        gate.free();
    }

    /// The note of a child that cannot be read back: told from memory, at its place in the journal.
    fn remember_start(&mut self, entry: &EntryBuffer) -> u64 {
        let position = self.unread.pop().unwrap_or_else(|| self.journal.end());
        self.remembered.started(position, entry.clone());
        self.tell_late(position);
        position
    }

    /// An owner does not want an attempt launched any more. If it is too late, its start is told at once.
    pub(super) fn call_off(&mut self, attempt: &AttemptId) {
        let called_off = StartFailed::at(Stage::CalledOff, 0);
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.header.attempt == *attempt) {
            self.waiting.remove(at);
            return self.note_start_failure(attempt, called_off);
        }
        let is_it = |(index, launch): &(usize, &InFlight)| {
            launch.attempt == *attempt && !launch.is_over(self.gate(*index))
        };
        // The newest: an earlier launch of the attempt has failed, and its child may still be on its way out.
        let newest = self.by_gates().filter(is_it).max_by_key(|(_, launch)| launch.since);
        let Some((index, _)) = newest else { return };
        let gate = self.gate(index);
        let state = gate.close();
        let Some(launch) = self.launches[index].as_mut() else { return };
        if matches!(state, Ok(State::Closed)) {
            launch.is_answered = true;
            if let Some(pid) = gate.pid() {
                kill_unexecuted(pid, &self.files);
            }
            return self.note_start_failure(attempt, called_off);
        }
        // It is executed, or about to be.
        launch.is_told = true;
        self.take_in();
    }

    /// What a new owner is told of: launches that have no outcome yet.
    pub(super) fn unsettled(&self) -> Vec<AttemptId> {
        let waiting = self.waiting.iter().filter(|waiting| waiting.generation >= self.gates.fence());
        let in_flight = self.by_gates().filter(|(index, launch)| !launch.is_over(self.gate(*index)));
        in_flight
            .map(|(_, launch)| launch.attempt.clone())
            .chain(waiting.map(|waiting| waiting.header.attempt.clone()))
            .collect()
    }

    /// Whether a start waits for its launch to be settled.
    pub(super) fn held(&self, position: u64) -> Held {
        let is_its = |launch: &&InFlight| launch.start == Some(position) && !launch.is_told;
        match self.in_flight().find(is_its) {
            None => Held::No,
            Some(launch) if now().boot < launch.since.plus_millis(MOMENT_MS) => Held::ForAMoment,
            Some(_) => Held::ForLonger,
        }
    }

    /// Whether a child that has ended is of a launch that is not settled: its thread is about to return.
    pub(super) fn is_of_launch(&self, pid: u32) -> bool {
        let has_it = |(index, launch): (usize, &Option<InFlight>)| {
            launch.is_some() && self.gate(index).pid().is_none_or(|child| child == pid)
        };
        matches!(self.role, Role::Worker { .. }) && self.launches.iter().enumerate().any(has_it)
    }

    /// Whether everything that could still happen to a launch is without consequence.
    pub(super) fn launches_are_over(&self) -> bool {
        self.waiting.is_empty() && self.by_gates().all(|(index, launch)| launch.is_over(self.gate(index)))
    }

    /// The guard: a program of which it is not known whether it is executed. Its start is told once it is.
    pub(super) fn leave_unsettled(&mut self, passage: Passage) {
        let Passage { gate, attempt, opened, .. } = passage;
        let mut launch = InFlight::new(attempt, opened);
        let its = self.running.values().find(|running| running.attempt == launch.attempt);
        launch.start = its.map(|running| running.start);
        self.launches[gate] = Some(launch);
        self.look_again = now().boot;
    }

    /// Looks whether programs are executed that were not when their worker died.
    pub(super) fn look_at_unsettled(&mut self) {
        let at = now().boot;
        if matches!(self.role, Role::Worker { .. }) || at < self.look_again {
            return;
        }
        for (index, place) in self.launches.iter_mut().enumerate().filter(|(_, place)| place.is_some()) {
            let pid = self.gates.gate(index).pid();
            // One that has ended is left to who collects it.
            if pid.is_none_or(|pid| has_executed(pid, &self.files).unwrap_or(false)) {
                *place = None;
            }
        }
        let oldest = self.in_flight().map(|launch| at.millis_since(launch.since)).min().unwrap_or_default();
        // The longer it takes, the longer it will take.
        self.look_again = at.plus_millis((oldest / 8).clamp(MOMENT_MS, STUCK_MS));
    }

    /// The guard: a child has ended that may have said why it did not execute its program.
    pub(super) fn ended_unsettled(&mut self, pid: u32) {
        if matches!(self.role, Role::Guard) {
            self.take_in();
            let gates = self.gates;
            let its = |(index, _): &(usize, &mut Option<InFlight>)| gates.gate(*index).pid() == Some(pid);
            self.launches.iter_mut().enumerate().filter(its).for_each(|(_, launch)| *launch = None);
        }
    }

    fn by_gates(&self) -> impl Iterator<Item = (usize, &InFlight)> {
        self.launches.iter().enumerate().filter_map(|(index, launch)| Some((index, launch.as_ref()?)))
    }
}

/// Whether the outcome of a launch whose child is gone is this keeper's to tell: nobody else has closed its gate.
fn claim(gate: Gate<'_>) -> bool {
    gate.arrive();
    gate.pass()
}

/// Whether a child has this soft limit, and this bound of the hard one, by inheriting its parent's own limits.
fn is_inherited((soft, bound): (u64, u64), (own_soft, own_hard): (u64, u64)) -> bool {
    bound >= own_hard && soft.min(own_hard) == own_soft
}
