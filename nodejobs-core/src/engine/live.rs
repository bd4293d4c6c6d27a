//! A live job as the engine holds it: small, without its command and environment.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::array::Running;
use crate::backend::{EndPlan, TreeMember};
use crate::id::{AttemptId, JobId};
use crate::job::{Definition, ExitStatus, Job, JobState, Origin, WaitingOn};
use crate::signal::Signal;
use crate::spec::{Follows, Policy, Restart, Start};
use crate::status::{Reason, Status};
use crate::store::{JobChange, Unit};
use crate::time::{BootTime, Moment, Timestamp};

use super::dependencies::Waits;
use super::queue::Place;
use super::unique::key_of;
use super::{Effect, StopRequest, Ticket, Turn};

/// What is known of the processes of a job beside its main one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tree {
    /// Nobody has asked for its end.
    Whole,
    /// The backend is at it.
    Ending,
    /// The backend has reported.
    Ended { killed: bool, ended: Vec<TreeMember>, survivors: Vec<TreeMember> },
}

impl Tree {
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Tree::Ended { survivors, .. } if survivors.is_empty())
    }

    /// What the record says about it.
    pub(super) fn sentence(&self) -> Option<String> {
        let Tree::Ended { killed, ended, survivors } = self else { return None };
        if !survivors.is_empty() {
            return Some(format!("could not be killed: {}", list(survivors)));
        }
        match (killed, ended.is_empty()) {
            (false, true) => None,
            (true, true) => Some("killed".to_owned()),
            (false, false) => Some(format!("also ended: {}", list(ended))),
            (true, false) => Some(format!("killed; also ended: {}", list(ended))),
        }
    }
}

/// At most so many processes are named in a record.
const LISTED: usize = 10;

/// Processes by number and name.
pub(super) fn list(members: &[TreeMember]) -> String {
    let named = members.iter().take(LISTED).map(|member| format!("{} ({})", member.pid, member.name));
    let mut text = named.collect::<Vec<_>>().join(", ");
    if members.len() > LISTED {
        text.push_str(&format!(" and {} more", members.len() - LISTED));
    }
    text
}

/// A job that has not ended.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) revision: u64,
    pub(super) state: JobState,
    pub(super) submit_key: Option<String>,
    pub(super) stop_requested: Option<StopRequest>,
    pub(super) tree: Tree,
    pub(super) policy: Policy,
    pub(super) start: Start,
    pub(super) created_at: Timestamp,
    pub(super) place: Place,
    /// When it wants attention; set through [`Timers`](super::timers::Timers) only.
    pub(super) timer: Option<BootTime>,
    /// What is begun as soon as this attempt was stopped.
    pub(super) next_attempt: Option<NextAttempt>,
    /// What its policy begins when it has ended by itself; held for jobs with such a policy only.
    pub(super) again: Option<Box<Definition>>,
    /// Whom it waits for; changed through [`Dependencies`](super::dependencies::Dependencies) only.
    pub(super) waits: Option<Box<Waits>>,
    /// How the attempt before has ended, if there was one.
    pub(super) before: Option<Status>,
    /// What it is the only one of.
    pub(super) key: Option<Box<str>>,
    /// What makes it an array, which has no process.
    pub(super) array: Option<Box<Running>>,
    /// The array that has begun it, and its number there.
    pub(super) element_of: Option<Box<(JobId, u32)>>,
}

/// The attempt after the present one, which somebody has asked for.
#[derive(Debug)]
pub(super) struct NextAttempt {
    pub(super) definition: Box<Definition>,
    pub(super) submit_key: String,
    /// Who waits for it.
    pub(super) tickets: Vec<Ticket>,
}

impl NextAttempt {
    pub(super) fn new(definition: Definition, submit_key: String, tickets: Vec<Ticket>) -> Self {
        Self { definition: Box::new(definition), submit_key, tickets }
    }
}

impl Live {
    pub(super) fn new(definition: &Definition, state: JobState) -> Self {
        let mut policy = definition.policy.clone();
        if definition.array.is_some() {
            // These are for its elements.
            (policy.restart, policy.retry, policy.timeout_ms) = (Restart::No, None, None);
        }
        let element_of = match &definition.origin {
            Some(Origin::Element { array, index, .. }) => Some(Box::new((array.clone(), *index))),
            Some(Origin::Schedule { .. }) | None => None,
        };
        Self {
            revision: 0,
            state,
            submit_key: definition.submit_key.clone(),
            stop_requested: None,
            tree: Tree::Whole,
            again: policy.begins_attempts().then(|| Box::new(definition.clone())),
            policy,
            start: definition.start,
            created_at: definition.created_at,
            place: Place::of(definition),
            timer: None,
            next_attempt: None,
            waits: None,
            before: None,
            key: key_of(definition),
            array: None,
            element_of,
        }
    }

    pub(super) fn restored(job: Job) -> Self {
        let live = Self { revision: job.revision, ..Self::new(&job.definition, job.state) };
        let key = live.state.pending_restart.clone();
        let next_attempt = key.map(|key| NextAttempt::new(job.definition, key, Vec::new()));
        Self { next_attempt, ..live }
    }

    /// Whether it is due at a time on the wall clock.
    pub(super) fn waits_for_wall_clock(&self) -> bool {
        self.state.waiting_on == Some(WaitingOn::Time) && matches!(self.start, Start::At(_))
    }

    /// Whether its whole tree is to end, also if the owner that has asked for it is gone.
    pub(super) fn is_being_ended(&self) -> bool {
        let is_stopping = matches!(self.state.status, Status::Stopping | Status::FailedStop);
        is_stopping || self.state.reason.is_some() || self.tree != Tree::Whole
    }

    /// Has the tree ended for a reason that is the job's own failure.
    pub(super) fn end_because(
        &mut self,
        id: &JobId,
        reason: Reason,
        request: StopRequest,
        now: Moment,
    ) -> Effect {
        self.state.reason = Some(reason);
        self.end_tree(id, request, now)
    }

    pub(super) fn attempt_id(&self, id: &JobId) -> AttemptId {
        AttemptId { id: id.clone(), attempt: self.state.attempt }
    }

    /// The unit that writes the state down with this status.
    pub(super) fn update(&mut self, id: &JobId, status: Status, now: Moment) -> Unit {
        self.state.status = status;
        self.state.last_update = now.wall;
        let expected = self.revision;
        self.revision += 1;
        JobChange::Update { id: id.clone(), expected, state: self.state.clone() }.into()
    }

    /// Has the attempt launched; what is to be written is still to be made of the state.
    pub(super) fn launch(&mut self, id: &JobId, now: Moment) -> Effect {
        self.state.launch_asked = now.boot;
        Effect::Launch(self.attempt_id(id))
    }

    /// What was told as its start was none: no program was executed, and its child is gone.
    pub(super) fn take_start_back(&mut self, at: Moment) {
        self.state.process = None;
        self.state.started = None;
        self.state.ended = Some(at);
    }

    /// Starts what has waited for long enough.
    pub(super) fn start_waiting(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        self.state.waiting_on = None;
        self.state.detail = None;
        if self.state.status == Status::Restarting {
            turn.units.push(self.update(id, Status::Queued, now));
        }
        turn.effects.push(self.launch(id, now));
        turn.units.push(self.update(id, Status::Starting, now));
    }

    /// Has the tree ended by the job's own rules, as far as the request does not say otherwise.
    pub(super) fn end_tree(&mut self, id: &JobId, request: StopRequest, now: Moment) -> Effect {
        self.tree = Tree::Ending;
        let (signal, grace_ms) = if request.force {
            (Signal::KILL, 0)
        } else {
            (
                request.signal.unwrap_or(self.policy.stop_signal),
                request.grace_ms.unwrap_or(self.policy.grace_ms),
            )
        };
        Effect::EndTree {
            attempt: self.attempt_id(id),
            process: self.state.process.clone(),
            plan: EndPlan { signal, deadline: now.boot.plus_millis(grace_ms) },
        }
    }

    /// What follows its end, which its state tells already.
    pub(super) fn follows(&self, id: &JobId) -> Follows {
        let failures_before = match self.start {
            Start::Again { failures, .. } => failures,
            _ => 0,
        };
        let mut spread = DefaultHasher::new();
        (id, self.state.attempt).hash(&mut spread);
        match &self.policy.retry {
            Some(retry) => retry.follows(&self.state, self.start, spread.finish()),
            None => self.policy.follows(&self.state, failures_before, spread.finish()),
        }
    }

    /// The last status of an attempt whose main process has ended.
    pub(super) fn verdict(&self) -> (Status, Option<Reason>) {
        match (self.state.status, self.state.exit) {
            // Nobody saw the end, also if it was asked for.
            (_, None) => (Status::Lost, Some(Reason::Unknown)),
            (Status::Stopping | Status::FailedStop, _) => (Status::Stopped, None),
            _ if self.state.reason.is_some() => (Status::Failed, self.state.reason),
            (_, Some(ExitStatus::Code(code))) if self.policy.success_codes.contains(&code) => {
                (Status::Finished, None)
            }
            (_, Some(ExitStatus::Code(_))) => (Status::Failed, Some(Reason::Exit)),
            (_, Some(ExitStatus::Signal { .. })) => (Status::Failed, Some(Reason::Signal)),
        }
    }
}
