//! What the engine does when time has passed: waiting jobs are started, and those whose time is up are ended.

use std::collections::{BTreeSet, HashMap};

use crate::id::JobId;
use crate::job::WaitingOn;
use crate::status::{Reason, Status};
use crate::time::{BootTime, Moment};

use super::live::Live;
use super::{Engine, StopRequest, Turn};

/// When which live job wants attention: at most one time each.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(BootTime, JobId)>);

impl Timers {
    pub(super) fn first(&self) -> Option<BootTime> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(super) fn set(&mut self, id: &JobId, live: &mut Live, at: BootTime) {
        self.clear(id, live);
        live.timer = Some(at);
        self.0.insert((at, id.clone()));
    }

    pub(super) fn clear(&mut self, id: &JobId, live: &mut Live) {
        if let Some(at) = live.timer.take() {
            self.0.remove(&(at, id.clone()));
        }
    }

    /// Sets the timer that the job's status asks for, if it asks for one.
    pub(super) fn set_for(&mut self, id: &JobId, live: &mut Live, now: Moment) {
        let at = match live.state.status {
            Status::Queued if live.state.waiting_on == Some(WaitingOn::Time) => {
                Some(now.boot.plus_millis(live.start.left_ms(live.created_at, now)))
            }
            Status::Restarting => Some(now.boot.plus_millis(live.start.left_ms(live.created_at, now))),
            Status::Queued if live.waits_for_place() => None,
            Status::Queued if live.state.waiting_on == Some(WaitingOn::Dependency) => None,
            Status::Queued => Some(now.boot),
            Status::Running | Status::Paused if live.state.ended.is_none() && live.state.reason.is_none() => {
                let started = live.state.started.map(|started| started.boot);
                started.zip(live.policy.timeout_ms).map(|(at, timeout)| at.plus_millis(timeout))
            }
            _ => None,
        };
        match at {
            Some(at) => self.set(id, live, at),
            None => self.clear(id, live),
        }
    }

    /// The wall clock was set, so what waits for a time on it is due earlier or later.
    pub(super) fn clock_set(&mut self, live: &mut HashMap<JobId, Live>, now: Moment) {
        for (id, live) in live.iter_mut().filter(|(_, live)| live.waits_for_wall_clock()) {
            self.set_for(id, live, now);
        }
    }
}

impl Engine {
    pub(super) fn tick(&mut self, now: Moment, turn: &mut Turn) {
        if self.retry_at.is_some_and(|at| at <= now.boot) {
            self.retry_at = None;
        }
        while let Some((_, id)) = self.timers.0.first().filter(|(at, _)| *at <= now.boot).cloned() {
            let Some(live) = self.live.get_mut(&id) else {
                self.timers.0.pop_first();
                continue;
            };
            self.timers.clear(&id, live);
            match live.state.status {
                // The wall clock was set back without a word.
                Status::Queued
                    if live.waits_for_wall_clock() && live.start.left_ms(live.created_at, now) > 0 =>
                {
                    self.timers.set_for(&id, live, now);
                }
                Status::Queued | Status::Restarting => self.pass_time(&id, now, turn),
                Status::Running | Status::Paused => {
                    turn.effects.push(live.end_because(&id, Reason::Timeout, StopRequest::default(), now));
                    let status = live.state.status;
                    turn.units.push(live.update(&id, status, now));
                }
                _ => {}
            }
        }
    }
}
