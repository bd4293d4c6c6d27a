//! Where the engine takes places from the queue and gives them back.

use std::cmp::Reverse;

use crate::id::JobId;
use crate::job::{JobState, WaitingOn};
use crate::status::Status;
use crate::time::Moment;

use super::live::Live;
use super::queue::{Lack, Queue, Standing};
use super::{Engine, Turn, WhenFull};

impl Live {
    /// Whether its status means that it has a place.
    fn wants_place(&self) -> bool {
        !matches!(self.state.status, Status::Queued | Status::Restarting) && !self.state.status.is_terminal()
    }

    pub(super) fn waits_for_place(&self) -> bool {
        self.state.status == Status::Queued && self.state.waiting_on == Some(WaitingOn::Slot)
    }

    /// Gives it a place, which its state is to say.
    pub(super) fn take_place(&mut self, queue: &mut Queue) {
        self.state.assigned = queue.take(&mut self.place);
    }

    /// Whether it had one. What it had of resources stays in its state, which may be its last one.
    pub(super) fn leave_place(&mut self, queue: &mut Queue) -> bool {
        queue.leave(&mut self.place, &self.state.assigned)
    }

    pub(super) fn admitted_by(&self, queue: &Queue) -> bool {
        queue.admits(self.place.want(), self.place.priority)
    }
}

/// Makes a state that was to be started one that waits for a place. What exactly it waits for changes all the time, so
/// whoever wants to know asks.
pub(super) fn queue_for_place(state: &mut JobState) {
    state.status = Status::Queued;
    state.waiting_on = Some(WaitingOn::Slot);
    state.detail = None;
    state.assigned.clear();
}

impl Engine {
    /// Gives a job that was just begun, or found, the place that its state says.
    pub(super) fn place(&mut self, id: &JobId, live: &mut Live) {
        if live.array.is_some() {
            self.place_array(id, live);
        } else if live.wants_place() {
            self.queue.take_with(&mut live.place, &live.state.assigned);
        } else if live.waits_for_place() {
            self.queue.wait(id, &mut live.place, 1);
        }
    }

    /// Why somebody new is not even queued, if it is not.
    pub(super) fn why_full(&self, live: &Live) -> Option<String> {
        if self.queue.capacity().when_full != WhenFull::Refuse {
            return None;
        }
        let lacks = self.queue.lacks(live.place.want(), live.place.priority);
        let of_machine = lacks.into_iter().find(|lack| matches!(lack, Lack::Processes | Lack::Memory))?;
        Some(self.shortage(live, &of_machine).to_string())
    }

    /// Starts a job that has waited for its time, or has it queued.
    pub(super) fn start_or_queue(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get_mut(id) else { return };
        if live.place.standing == Standing::Waits {
            return;
        }
        if live.array.is_none() && live.admitted_by(&self.queue) {
            live.take_place(&mut self.queue);
            return live.start_waiting(id, now, turn);
        }
        queue_for_place(&mut live.state);
        turn.units.push(live.update(id, Status::Queued, now));
        self.place_again(id);
    }

    /// Gives a live job the place that its state says by now.
    fn place_again(&mut self, id: &JobId) {
        if let Some(mut live) = self.live.remove(id) {
            self.place(id, &mut live);
            self.live.insert(id.clone(), live);
        }
    }

    /// Has one launched again that never was, or has it queued if that is one too many.
    pub(super) fn launch_again(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get_mut(id) else { return };
        if !self.queue.is_over(live.place.want(), &live.state.assigned) {
            turn.effects.push(live.launch(id, now));
            return turn.units.push(live.update(id, Status::Starting, now));
        }
        live.leave_place(&mut self.queue);
        queue_for_place(&mut live.state);
        turn.units.push(live.update(id, Status::Queued, now));
        self.queue.wait(id, &mut live.place, 1);
    }

    /// Starts those whose turn it is, for as many as there is room.
    pub(super) fn fill_places(&mut self, now: Moment, turn: &mut Turn) {
        if !self.queue.is_unsettled() {
            return;
        }
        for (id, starts) in self.queue.turns() {
            for _ in 0..starts {
                if turn.units.len() >= Self::TURN_UNITS {
                    // The next turn goes on.
                    return;
                }
                let Some(live) = self.live.get_mut(&id) else { continue };
                if live.array.is_some() {
                    self.begin_element(&id, now, turn);
                } else {
                    live.take_place(&mut self.queue);
                    live.start_waiting(&id, now, turn);
                }
            }
        }
        self.queue.settle();
    }
}

/// The order in which jobs that an earlier owner left have waited, as far as the store tells: by the times at which they
/// could have started, and then by submission.
pub(super) fn in_order_of_age(jobs: &mut [crate::job::Job]) {
    jobs.sort_by_key(|job| {
        let accepted = job.definition.created_at;
        let has_place = !matches!(job.state.status, Status::Queued | Status::Restarting);
        (Reverse(has_place), job.definition.start.due(accepted).map_or(accepted, |due| due.max(accepted)))
    });
}
