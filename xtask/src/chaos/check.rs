//! What has to be true after the turmoil. Pure: what was asked and said, what is recorded, what the jobs wrote and what
//! was done to them in, violations out.

mod attempts;
mod events;
mod evidence;
mod said;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::export::{Attempt, Event, Export};
use super::plan::{Kind, Plan, outer_id};
use super::scene::Said;
pub(crate) use evidence::Evidence;

/// A job that was submitted, or may have been, with everything that was asked about it.
#[derive(Clone, Debug)]
pub(crate) struct Submitted {
    pub(crate) id: String,
    pub(crate) plan: Plan,
    pub(crate) calls: Vec<Call>,
}

/// One command.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) said: Said,
    /// Processes of the job that lived after it had said that the job had ended.
    pub(crate) left: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Run,
    RunAndWait,
    RunAndFollow,
    /// `run` together with others of the same id.
    Contend,
    Restart,
    Stop,
    Pause,
    Resume,
    Wait,
    Follow,
}

impl Verb {
    /// Whether it prints the record of the ended job.
    pub(crate) fn shows_the_end(self) -> bool {
        matches!(self, Verb::Wait | Verb::RunAndWait)
    }
}

/// What was done to the jobs.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Processes that were killed: id, attempt, process.
    pub(crate) hits: BTreeSet<(String, u32, u32)>,
    /// When a keeper lost both halves, on the boot clock in milliseconds.
    pub(crate) orphaned: Vec<u64>,
    /// When somebody was killed between clone and execve.
    pub(crate) children: Vec<u64>,
}

/// Both log files of attempts.
pub(crate) type Logs = BTreeMap<(String, u32), [String; 2]>;

/// Everything that is known in the end.
pub(crate) struct Story {
    pub(crate) jobs: Vec<Submitted>,
    pub(crate) export: Export,
    /// What is in the directories of jobs within jobs.
    pub(crate) nested: Vec<Export>,
    pub(crate) heard: Vec<Event>,
    pub(crate) evidence: Evidence,
    pub(crate) logs: Logs,
    pub(crate) done: Done,
}

/// A broken promise about one job.
pub(crate) struct Violation {
    pub(crate) id: String,
    pub(crate) wrong: String,
    shown: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.id, self.wrong)?;
        self.shown.iter().try_for_each(|line| write!(formatter, "\n    {line}"))
    }
}

/// What was found.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    pub(crate) attempts: usize,
    /// Attempts whose outcome nobody knows because a keeper lost both halves: what promise 4 excepts.
    pub(crate) excepted: usize,
    /// Commands that gave up with good reason.
    pub(crate) gave_up: usize,
}

pub(crate) fn judge(story: &Story) -> Verdict {
    let mut verdict = Verdict::default();
    let nested: BTreeMap<&str, Plan> = story
        .jobs
        .iter()
        .filter(|job| job.plan.kind == Kind::Nested)
        .map(|job| (job.id.as_str(), job.plan))
        .collect();
    let inner = story.nested.iter().flat_map(|export| export.jobs.iter());
    let inner: Vec<_> = inner
        .map(|(id, attempts)| {
            let known = outer_id(id).is_some_and(|outer| nested.contains_key(outer));
            let calls = vec![Call { verb: Verb::Run, said: Said::Killed, left: Vec::new() }];
            (known.then(|| Submitted { id: id.clone(), plan: Plan::inner(), calls }), id, attempts)
        })
        .collect();
    let outer: BTreeMap<&str, &Submitted> = story.jobs.iter().map(|job| (job.id.as_str(), job)).collect();
    let recorded =
        story.export.jobs.iter().map(|(id, attempts)| (outer.get(id.as_str()).copied(), id, attempts));
    let recorded: Vec<_> =
        recorded.chain(inner.iter().map(|(job, id, attempts)| (job.as_ref(), *id, *attempts))).collect();

    for (job, id, attempts) in &recorded {
        verdict.attempts += attempts.len();
        let Some(job) = job else {
            verdict.add(id, "nobody submitted this job".to_owned(), attempts, story);
            continue;
        };
        let (wrong, excepted) = attempts::judge(job, attempts, story);
        verdict.excepted += excepted;
        wrong.into_iter().for_each(|wrong| verdict.add(id, wrong, attempts, story));
    }
    for job in &story.jobs {
        let attempts = story.export.jobs.get(&job.id).map_or(&[][..], Vec::as_slice);
        let said = said::judge(job, attempts, &story.logs);
        verdict.gave_up += said.gave_up;
        for wrong in said.wrong {
            verdict.add(&job.id, wrong, attempts, story);
        }
    }
    let ids: BTreeSet<&str> = recorded.iter().map(|(_, id, _)| id.as_str()).collect();
    for id in story.evidence.ids().filter(|id| !ids.contains(id)) {
        verdict.add(id, "it ran, and there is no such job".to_owned(), &[], story);
    }
    let mut wrong: Vec<String> = events::judge(&story.export).into_iter().collect();
    wrong.extend(story.nested.iter().flat_map(events::judge));
    wrong.extend(events::judge_heard(&story.heard, &story.export.events));
    wrong.into_iter().for_each(|wrong| verdict.add("events", wrong, &[], story));
    verdict
}

impl Verdict {
    fn add(&mut self, id: &str, wrong: String, attempts: &[Attempt], story: &Story) {
        let mut shown: Vec<String> = attempts.iter().map(|attempt| format!("{attempt:?}")).collect();
        shown.extend(story.evidence.lines_of(id));
        let job = story.jobs.iter().find(|job| job.id == id);
        shown.extend(job.iter().map(|job| format!("{:?}", job.plan)));
        shown.extend(job.iter().flat_map(|job| &job.calls).map(|call| format!("{call:?}")));
        let hits = story.done.hits.iter().filter(|hit| hit.0 == id);
        shown.extend(
            hits.map(|(_, attempt, pid)| format!("killed from outside: process {pid} of attempt {attempt}")),
        );
        let events = story.export.events.iter().chain(story.nested.iter().flat_map(|nested| &nested.events));
        let events: Vec<String> = events
            .filter(|event| event.id == id)
            .map(|event| format!("{}:{}", event.attempt, event.status))
            .collect();
        if !events.is_empty() {
            shown.push(format!("events: {}", events.join(" ")));
        }
        self.violations.push(Violation { id: id.to_owned(), wrong, shown });
    }
}
