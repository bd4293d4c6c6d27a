//! Who asks: submits that are sent again after an owner's death, stops, restarts, pauses and removals at any time.

use std::collections::BTreeMap;

use crate::array::{Content, Which, next_attempt};
use crate::engine::{
    Edit, Edits, Ended, EndedJobs, Restart as RestartInput, StopRequest, Submission, Ticket, Turn,
};
use crate::group::GroupChange;
use crate::id::JobId;
use crate::job::{Array, Definition, Job, Origin};
use crate::signal::Signal;
use crate::spec::{
    After, AfterRequest, Awaited, Command, Condition, Dependency, Elements, JobSpec, Limits, Range, Restart,
    Retry, Start, Unmet, Whom,
};
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
    Array { spec: Box<JobSpec>, array: Array, again: bool },
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
            Ask::Submit { spec, .. } if spec.after.is_some() => !turn.units.is_empty(),
            Ask::Submit { id: None, again, .. } | Ask::Array { again, .. } => {
                *again && !turn.units.is_empty()
            }
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
                let mut definition = Definition::new(&spec, "/logs".into(), now.wall);
                let (after, ended) = found(&spec, stored);
                definition.after = after;
                let is_it = |job: &Job| job.definition.submit_key == definition.submit_key;
                let existing = match &id {
                    Some(id) => stored(id),
                    None if again => all_jobs(store).into_iter().rev().find(is_it),
                    None => None,
                };
                let (context, input, unique) = (Vec::new(), None, None);
                Input::Submit(Box::new(Submission {
                    ticket,
                    id,
                    definition,
                    context,
                    input,
                    existing,
                    ended,
                    unique,
                    array: None,
                }))
            }
            Ask::Array { spec, array, again } => {
                let elements = Elements::Range(Range { first: 1, last: array.size.into(), step: 1 });
                let content = Content::new(elements, array.size);
                let definition =
                    Definition { array: Some(array), ..Definition::new(&spec, "/logs".into(), now.wall) };
                let is_it = |job: &Job| job.definition.submit_key == definition.submit_key;
                let existing = again.then(|| all_jobs(store).into_iter().rev().find(is_it)).flatten();
                let (id, context, input, array) = (None, Vec::new(), None, Some(Box::new(content)));
                let (ended, unique) = (EndedJobs::new(), None);
                Input::Submit(Box::new(Submission {
                    ticket,
                    id,
                    definition,
                    context,
                    input,
                    existing,
                    ended,
                    unique,
                    array,
                }))
            }
            Ask::Stop(id, request) => Input::Stop { ticket, id, request },
            Ask::Restart { id, key: submit_key, request } => {
                let job = stored(&id)?;
                let which = if submit_key.ends_with('3') { Which::All } else { Which::Unfinished };
                let is_array = job.definition.array.is_some() && job.state.status.is_terminal();
                let array = is_array.then(|| next_attempt(store, &job, which).expect("memory does not fail"));
                let array = array.map(Box::new);
                Input::Restart(Box::new(RestartInput { ticket, job, submit_key, request, array }))
            }
            Ask::Remove(id) => {
                let job = stored(&id)?;
                if let Some(Origin::Element { array, .. }) = &job.definition.origin
                    && stored(array).is_some()
                {
                    // It goes with its array.
                    return None;
                }
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
            if let Ask::Submit { again, .. } | Ask::Array { again, .. } = &mut ask {
                *again = true;
            }
            if matches!(ask, Ask::Submit { .. } | Ask::Array { .. } | Ask::Restart { .. })
                && random.below(4) > 0
            {
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
            let mut spec = Box::new(any_spec(key, now, random));
            if random.below(3) == 0 {
                let array = Array {
                    size: u32::try_from(1 + random.below(6)).unwrap_or(1),
                    fail_fast: random.below(3) == 0,
                    max_running: u32::try_from(random.below(4)).ok().filter(|most| *most > 0),
                    on_done: None,
                };
                return Ask::Array { spec, array, again: false };
            }
            spec.after = any_after(&jobs, random);
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

/// The jobs of these ids that there are, and how those stand.
fn found(spec: &JobSpec, stored: impl Fn(&JobId) -> Option<Job>) -> (Option<After>, EndedJobs) {
    let Some(request) = &spec.after else { return (None, EndedJobs::new()) };
    let jobs = request
        .on
        .iter()
        .filter_map(|awaited| Some((stored(&id(&awaited.whom.to_string()))?, awaited.condition)));
    let jobs: Vec<_> = jobs.collect();
    let on = jobs.iter().map(|(job, condition)| Dependency { id: job.id.clone(), condition: *condition });
    let after = After { on: on.collect(), unmet: request.unmet };
    (Some(after), jobs.iter().map(|(job, _)| (job.id.clone(), Ended::new(&job.state))).collect())
}

fn any_after(jobs: &[Job], random: &mut Random) -> Option<AfterRequest> {
    if random.below(3) > 0 {
        return None;
    }
    let mut on: Vec<Awaited> = Vec::new();
    for _ in 0..=random.below(2) {
        let whom = Whom::Job(pick(jobs, random)?.id.to_string());
        let condition = Condition::ALL[usize::try_from(random.below(3)).unwrap_or(0)];
        if on.iter().all(|known| known.whom != whom) {
            on.push(Awaited { whom, condition });
        }
    }
    let unmet = if random.below(3) == 0 { Unmet::Wait } else { Unmet::Cancel };
    Some(AfterRequest { on, unmet })
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
    } else if random.below(3) == 0 {
        policy.retry = Some(Box::new(Retry {
            retries: u32::try_from(random.below(4)).unwrap_or(0),
            delay_ms: random.below(3_000),
            delay_max_ms: random.below(5_000),
            on_reboot: random.below(2) == 0,
            park_after: u32::try_from(2 + random.below(3)).ok().filter(|most| *most < 4),
            park_codes: random.below(2) == 0,
        }));
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
