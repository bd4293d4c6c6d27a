//! Who asks: submits that are sent again after an owner's death, stops, restarts, pauses and removals at any time.

use std::collections::BTreeMap;

use crate::engine::{Edit, Edits, Restart as RestartInput, StopRequest, Submission, Ticket, Turn};
use crate::group::GroupChange;
use crate::id::JobId;
use crate::job::{Definition, Job};
use crate::signal::Signal;
use crate::spec::{Command, JobSpec, Limits, Restart, Start};
use crate::store::JobStore;
use crate::store::conformance::random::Random;
use crate::store::memory::MemoryStore;
use crate::time::{Moment, Timestamp};

use super::super::super::{Input, Removal};
use super::world::pick;
use super::{all_jobs, id, places};

/// What somebody wants.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Submit { id: Option<JobId>, spec: Box<JobSpec>, again: bool },
    Stop(JobId, StopRequest),
    Restart { id: JobId, key: String, request: StopRequest },
    Remove(JobId),
    Pause(JobId),
    Resume(JobId),
    Group(String, GroupChange),
    Edit(JobId, Box<Edits>),
}

impl Ask {
    /// Whether it is decided on what the store says of something that the turn changes.
    pub(super) fn rests_on(&self, turn: &Turn) -> bool {
        if turn.concerns_groups()
            && !matches!(self, Ask::Stop(..) | Ask::Pause(_) | Ask::Resume(_) | Ask::Remove(_))
        {
            return true;
        }
        match self {
            Ask::Submit { id: None, again, .. } => *again && !turn.units.is_empty(),
            Ask::Submit { id: Some(id), .. }
            | Ask::Restart { id, .. }
            | Ask::Remove(id)
            | Ask::Edit(id, _) => turn.concerns(id),
            Ask::Stop(..) | Ask::Pause(_) | Ask::Resume(_) | Ask::Group(..) => false,
        }
    }

    /// The engine's input, with what it needs to know of the store; `None` if there is no such job.
    pub(super) fn input(self, ticket: Ticket, store: &MemoryStore, now: Moment) -> Option<Input> {
        let stored = |id: &JobId| store.job(id).ok().flatten();
        Some(match self {
            Ask::Submit { id, spec, again } => {
                let definition = Definition::new(&spec, "/logs".into(), now.wall);
                let is_it = |job: &Job| job.definition.submit_key == definition.submit_key;
                let existing = match &id {
                    Some(id) => stored(id),
                    None if again => all_jobs(store).into_iter().rev().find(is_it),
                    None => None,
                };
                let (context, input) = (Vec::new(), None);
                Input::Submit(Box::new(Submission { ticket, id, definition, context, input, existing }))
            }
            Ask::Stop(id, request) => Input::Stop { ticket, id, request },
            Ask::Restart { id, key: submit_key, request } => {
                let job = stored(&id)?;
                Input::Restart(Box::new(RestartInput { ticket, job, submit_key, request }))
            }
            Ask::Remove(id) => {
                let job = stored(&id)?;
                Input::Remove(Box::new(Removal { ticket, job, logs: Vec::new(), inputs: Vec::new() }))
            }
            Ask::Pause(id) => Input::Pause { ticket, id },
            Ask::Resume(id) => Input::Resume { ticket, id },
            Ask::Group(name, change) => Input::Group { ticket, name, change },
            Ask::Edit(id, edits) => Input::Edit(Box::new(Edit { ticket, job: stored(&id)?, edits: *edits })),
        })
    }
}

/// All who ask.
#[derive(Debug, Default)]
pub(super) struct Clients {
    last_ticket: Ticket,
    /// Asked of the present owner and not answered.
    pub(super) waiting: BTreeMap<Ticket, Ask>,
    /// Not answered by an owner that died.
    unanswered: Vec<Ask>,
}

impl Clients {
    pub(super) fn ask(&mut self, store: &MemoryStore, now: Moment, random: &mut Random) -> (Ticket, Ask) {
        self.last_ticket += 1;
        let ask = match self.unanswered.pop() {
            Some(ask) => ask,
            None => self.new_ask(store, now, random),
        };
        self.waiting.insert(self.last_ticket, ask.clone());
        (self.last_ticket, ask)
    }

    /// Asks this.
    pub(super) fn asks(&mut self, ask: Ask) -> (Ticket, Ask) {
        self.last_ticket += 1;
        self.waiting.insert(self.last_ticket, ask.clone());
        (self.last_ticket, ask)
    }

    /// The owner has died: submits and restarts are sent again, by whoever has not lost patience.
    pub(super) fn owner_died(&mut self, random: &mut Random) {
        for (_, mut ask) in std::mem::take(&mut self.waiting) {
            if let Ask::Submit { again, .. } = &mut ask {
                *again = true;
            }
            if matches!(ask, Ask::Submit { .. } | Ask::Restart { .. }) && random.below(4) > 0 {
                self.unanswered.push(ask);
            }
        }
    }

    fn new_ask(&self, store: &MemoryStore, now: Moment, random: &mut Random) -> Ask {
        let key = format!("key {}", self.last_ticket);
        let jobs = all_jobs(store);
        let live: Vec<_> = jobs.iter().filter(|job| !job.state.status.is_terminal()).collect();
        if jobs.is_empty() || (live.len() < 4 && random.below(3) == 0) {
            let name = ["a", "b", "c"].get(usize::try_from(random.below(6)).unwrap_or(0));
            let spec = Box::new(any_spec(key, now, random));
            return Ask::Submit { id: name.map(|name| id(name)), spec, again: false };
        }
        let any = pick(&jobs, random).map(|job| job.id.clone());
        let chosen = pick(&live, random).map(|job| job.id.clone()).filter(|_| random.below(4) > 0).or(any);
        let chosen = chosen.unwrap_or_else(|| id("a"));
        let request = match random.below(4) {
            0 => StopRequest { force: true, ..StopRequest::default() },
            1 => StopRequest { signal: Some(Signal::INT), grace_ms: Some(300), force: false },
            _ => StopRequest::default(),
        };
        match random.below(11) {
            9 => places::any_group(random),
            10 => Ask::Edit(chosen, Box::new(any_edits(random))),
            0..=2 => Ask::Stop(chosen, request),
            3 | 4 => Ask::Restart { id: chosen, key, request },
            5 => Ask::Pause(chosen),
            6 => Ask::Resume(chosen),
            _ => Ask::Remove(chosen),
        }
    }
}

fn any_spec(key: String, now: Moment, random: &mut Random) -> JobSpec {
    let mut spec = JobSpec::new(Command::argv(["true"]), "/");
    spec.submit_key = Some(key);
    spec.start = match random.below(6) {
        0 => Start::AfterMs(random.below(9_000)),
        1 => {
            let at = now.wall.as_millis() - 5_000 + random.below(20_000).cast_signed();
            Start::At(Timestamp::from_millis(at))
        }
        _ => Start::Now,
    };
    if random.below(3) == 0 {
        let memory = Some((1 + random.below(12)) << 20);
        spec.policy.limits = Some(Box::new(Limits { memory, ..Limits::default() }));
    }
    let policy = &mut spec.policy;
    policy.timeout_ms = (random.below(4) == 0).then(|| random.below(9_000));
    policy.grace_ms = random.below(3) * 2_500;
    policy.keep_children = random.below(5) == 0;
    if random.below(3) == 0 {
        policy.restart = if random.below(2) == 0 { Restart::Always } else { Restart::OnFailure };
        policy.max_restarts = u32::try_from(random.below(4)).ok();
        policy.restart_delay_ms = random.below(5_000);
        policy.backoff.delay_max_ms = random.below(9_000);
        policy.backoff.healthy_after_ms = random.below(3_000);
        policy.backoff.give_up_after = u32::try_from(1 + random.below(3)).ok().filter(|most| *most < 3);
    }
    places::any_place(spec, random)
}

fn any_edits(random: &mut Random) -> Edits {
    let of_group = |name: &str| Edits { group: Some(name.to_owned()), ..Edits::default() };
    match random.below(4) {
        0 => of_group("default"),
        1 => Edits { slots: Some(2), ..of_group("two") },
        2 => {
            Edits { needs: [("gpu".to_owned(), u32::from(random.below(2) == 0))].into(), ..Edits::default() }
        }
        _ => Edits { priority: i32::try_from(random.below(5)).ok(), ..Edits::default() },
    }
}
