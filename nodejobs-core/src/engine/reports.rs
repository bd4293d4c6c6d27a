//! What the engine does when the backend has found something out.

use crate::backend::{BackendEvent, BackendReport, StartFailureKind};
use crate::id::JobId;
use crate::job::WaitingOn;
use crate::spec::{Follows, parked};
use crate::status::{Reason, Status};
use crate::time::Moment;
use crate::units::show_duration;

use super::live::{Tree, list};
use super::{Ended, Engine, StopRequest, Turn};

impl Engine {
    pub(super) fn report(&mut self, report: BackendReport, now: Moment, turn: &mut Turn) {
        let BackendReport { attempt, event, receipt } = report;
        turn.receipts.extend(receipt);
        let id = &attempt.id;
        let Some(live) = self.live.get_mut(id) else { return };
        if live.state.attempt != attempt.attempt {
            // An earlier attempt's report, repeated by a keeper that had not heard that it is on disk.
            return;
        }
        if event.at().is_some_and(|at| at.boot < live.state.launch_asked) {
            // About a job of this id that was removed since.
            return;
        }
        let mut status = live.state.status;
        if matches!(status, Status::Queued | Status::Restarting) {
            // Nothing of this attempt is at the backend, so nothing it says can be about it.
            return;
        }
        let says_unexecuted = matches!(event, BackendEvent::NotStarted { .. } | BackendEvent::NeverLaunched);
        if says_unexecuted && live.state.ended.is_some() && live.state.process.is_none() {
            // It was taken for lost, and this report proves that no program was executed.
            live.state.ended = None;
            live.tree = Tree::Whole;
        }
        match event {
            BackendEvent::Started { process, log_start, at } => {
                if live.state.process.is_some() {
                    return;
                }
                live.state.process = Some(process);
                live.state.log_start = log_start;
                live.state.started = Some(at);
                if let Some(ended) = &mut live.state.ended {
                    *ended = at;
                }
                if status == Status::Starting && live.state.ended.is_none() {
                    turn.units.push(live.update(id, Status::Running, now));
                    self.timers.set_for(id, live, now);
                } else {
                    // It was stopped while it started, or taken for lost.
                    let request = live.stop_requested.unwrap_or_default();
                    turn.effects.push(live.end_tree(id, request, now));
                    turn.units.push(live.update(id, status, now));
                }
            }
            BackendEvent::NotStarted { failure, at } => match (status, failure.kind) {
                // Its main process has ended, so it was executed: about an earlier launch.
                _ if live.state.ended.is_some() => {}
                (Status::Starting, StartFailureKind::Permanent(reason)) => {
                    live.state.ended = Some(at);
                    self.end(id, Status::FailedStart, Some(reason), Some(failure.detail), now, turn);
                }
                (Status::Starting, StartFailureKind::NoRoom | StartFailureKind::CalledOff) => {
                    live.state.waiting_on = Some(WaitingOn::Resources);
                    live.state.detail = Some(failure.detail);
                    live.leave_place(&mut self.queue);
                    live.state.assigned.clear();
                    turn.units.push(live.update(id, Status::Queued, now));
                    self.timers.set(id, live, now.boot.plus_millis(Self::RETRY_MS));
                }
                // Its start may have been told, so that it could be killed on its way.
                (Status::Stopping | Status::FailedStop, _) => {
                    live.take_start_back(at);
                    self.end_unexecuted(id, now, turn);
                }
                // Its start was told by a journal alone, and then the program could not be executed.
                (Status::Running | Status::Paused, kind) => {
                    live.take_start_back(at);
                    let reason = match kind {
                        StartFailureKind::Permanent(reason) => reason,
                        StartFailureKind::NoRoom | StartFailureKind::CalledOff => Reason::Exec,
                    };
                    self.end(id, Status::FailedStart, Some(reason), Some(failure.detail), now, turn);
                }
                _ => {}
            },
            // It was taken for lost, and then told as started.
            BackendEvent::NeverLaunched if live.state.ended.is_some() => {}
            BackendEvent::NeverLaunched => match status {
                Status::Starting => self.launch_again(id, now, turn),
                Status::Stopping if live.state.process.is_none() => self.end_unexecuted(id, now, turn),
                _ => {}
            },
            BackendEvent::Exited { exit, usage, at, leftovers } => {
                if live.state.ended.is_some() {
                    return;
                }
                if status == Status::Starting {
                    // What ended was executed, even if its start was never reported.
                    status = Status::Running;
                    turn.units.push(live.update(id, status, now));
                }
                live.state.exit = Some(exit);
                live.state.usage = usage;
                live.state.ended = Some(at);
                self.timers.clear(id, live);
                let is_settled = match live.tree {
                    Tree::Whole if live.policy.keep_children && !live.is_being_ended() => {
                        let left = leftovers.filter(|left| !left.is_empty());
                        let detail = left.map(|left| format!("left running: {}", list(&left)));
                        let (status, reason) = live.verdict();
                        return self.end(id, status, reason, detail, now, turn);
                    }
                    Tree::Whole => leftovers.is_some_and(|left| left.is_empty()),
                    Tree::Ending | Tree::Ended { .. } => live.tree.is_gone(),
                };
                if is_settled {
                    return self.conclude(id, now, turn);
                }
                // The exit is on disk at once, so that nobody has to remember it; the last word waits for the tree.
                turn.units.push(live.update(id, status, now));
                if live.tree == Tree::Whole {
                    turn.effects.push(live.end_tree(id, StopRequest::default(), now));
                }
            }
            BackendEvent::TreeEnded { killed, ended, survivors, usage } => {
                if live.tree == Tree::Whole {
                    // About a job of this id that was removed since: nobody has asked for the end of this one.
                    return;
                }
                live.state.usage = usage.or(live.state.usage);
                let stopping = matches!(status, Status::Stopping | Status::FailedStop);
                live.tree = Tree::Ended { killed, ended, survivors };
                if stopping && !live.tree.is_gone() {
                    live.state.detail = live.tree.sentence();
                    turn.units.push(live.update(id, Status::FailedStop, now));
                    self.element_survives(id, now, turn);
                } else if live.state.ended.is_some() {
                    if !live.tree.is_gone() && live.policy.begins_attempts() {
                        // Two attempts never live at a time: the next one waits until the survivors are gone.
                        live.state.detail = live.tree.sentence();
                        return turn.units.push(live.update(id, status, now));
                    }
                    self.conclude(id, now, turn);
                }
            }
            BackendEvent::OverMemory { detail } => {
                let is_running = matches!(status, Status::Running | Status::Paused);
                if is_running && live.state.ended.is_none() && live.state.reason.is_none() {
                    live.state.detail = Some(detail);
                    // At once: with a grace it would go on to take memory from everybody else.
                    let kill = StopRequest { force: true, ..StopRequest::default() };
                    turn.effects.push(live.end_because(id, Reason::Memory, kill, now));
                    turn.units.push(live.update(id, status, now));
                    self.timers.clear(id, live);
                }
            }
            BackendEvent::Lost { reason, at } => {
                if live.state.ended.is_some() {
                    return;
                }
                live.state.ended = Some(at);
                self.timers.clear(id, live);
                // How it ended is unknown, but its leftovers are still ended, and before the next attempt: two attempts never
                // live at a time. Its process may be unknown: a damaged journal does not show it. After a reboot nothing is left.
                let is_left = reason != Reason::Reboot;
                // Only children may stay, and without its process the backend cannot tell them from the main process.
                let may_stay =
                    live.policy.keep_children && live.state.process.is_some() && !live.is_being_ended();
                if is_left && !may_stay && !live.tree.is_gone() {
                    // One that was stopped before its process was known was only called off.
                    if live.tree == Tree::Whole || live.state.process.is_none() {
                        let request = live.stop_requested.unwrap_or_default();
                        turn.effects.push(live.end_tree(id, request, now));
                    }
                    return turn.units.push(live.update(id, status, now));
                }
                self.end(id, Status::Lost, Some(reason), None, now, turn);
            }
        }
    }

    /// The main process has ended and its tree is settled: the attempt's last word.
    fn conclude(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get(id) else { return };
        // Who was over a limit has its own words.
        let why = live.state.detail.clone().filter(|_| live.state.reason == Some(Reason::Memory));
        let sentences: Vec<String> = why.into_iter().chain(live.tree.sentence()).collect();
        let detail = (!sentences.is_empty()).then(|| sentences.join("; "));
        let (status, reason) = live.verdict();
        self.end(id, status, reason, detail, now, turn);
    }

    fn end_unexecuted(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        let detail = "stopped before it was executed".to_owned();
        self.end(id, Status::Stopped, None, Some(detail), now, turn);
    }

    /// Gives an attempt its last status, and begins the next one if it is to follow.
    pub(super) fn end(
        &mut self,
        id: &JobId,
        status: Status,
        reason: Option<Reason>,
        detail: Option<String>,
        now: Moment,
        turn: &mut Turn,
    ) {
        let Some(mut live) = self.live.remove(id) else { return };
        self.timers.clear(id, &mut live);
        let had_place = live.leave_place(&mut self.queue);
        self.dependencies.leave(id, &mut live);
        self.keys.leave(id, &live);
        live.state.status = status;
        live.state.reason = reason;
        live.state.detail = detail;
        live.state.waiting_on = None;
        live.state.pending_restart = None;
        live.state.ended.get_or_insert(now);
        // Nothing follows in an array that is being ended.
        let is_last = self.is_in_ending_array(&live);
        let follows = if is_last { Follows::Nothing } else { live.follows(id) };
        if let Follows::Parked { same } = follows {
            let before = live.state.detail.take().map_or_else(String::new, |detail| format!("{detail}; "));
            live.state.detail = Some(format!("{before}{}", parked(same, live.state.exit)));
        }
        if follows == Follows::GivesUp {
            let detail = &mut live.state.detail;
            let before = detail.take().map_or_else(String::new, |detail| format!("{detail}; "));
            let healthy = show_duration(live.policy.backoff.healthy_after_ms);
            let failures = live.policy.backoff.give_up_after.unwrap_or_default();
            *detail = Some(format!(
                "{before}given up: {failures} failures in a row, none after a run of {healthy}"
            ));
        }
        turn.units.push(live.update(id, status, now));
        let ended = self.dependencies.is_awaited(id).then(|| Ended::new(&live.state));
        if live.next_attempt.is_none() && follows.start().is_none() {
            self.element_ended(&live, id, now, turn);
        }
        if let Some(next) = live.next_attempt.take() {
            let before = (live.state.attempt, live.revision, status);
            self.begin_next(id, next, before, had_place, now, turn);
        } else if let Some(start) = follows.start() {
            self.begin_restart(id, live, start, now, turn);
        }
        // Between two attempts it has not ended.
        if ended.is_some() && !self.live.contains_key(id) {
            self.dependencies.has_ended(id, ended);
        }
        self.occurrence_ended(id, now, turn);
    }
}
