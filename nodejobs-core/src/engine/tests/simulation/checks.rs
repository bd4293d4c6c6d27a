//! What must be true after each commit, of what is stored and of what was said.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::Answer;
use crate::id::{AttemptId, JobId};
use crate::job::{Job, JobState};
use crate::spec::Start;
use crate::status::{Reason, Status};
use crate::store::memory::MemoryStore;
use crate::store::{JobChange, JobStore, Unit, UnitOutcome};
use crate::time::BootTime;

use super::awaiting::Awaiting;
use super::world::{Entry, Noted, Run, World};
use super::{Checked, ensure};

type Key = (u64, u32);
pub(super) type Reached = (Status, Option<Reason>);

/// What was seen before.
#[derive(Debug, Default)]
pub(super) struct Checks {
    last_words: BTreeMap<Key, JobState>,
    last_event: u64,
    /// What some attempt came to.
    pub(super) reached: BTreeSet<Reached>,
    statuses: BTreeMap<JobId, (u32, Status)>,
    seen: BTreeSet<Key>,
    /// Which attempt a submit has made.
    made_by: BTreeMap<String, Key>,
    /// The newest attempt of each job, and its submit key.
    keys: BTreeMap<u64, (u32, Option<String>)>,
    /// What was accepted and not removed.
    accepted: BTreeSet<(JobId, Key)>,
    /// Which restarts attempts wait for.
    pending: BTreeMap<Key, String>,
    /// Whose further attempts could not be stored.
    refused: BTreeSet<JobId>,
    /// What the last commit has removed.
    removed: BTreeSet<JobId>,
    /// Who waits for whom.
    pub(super) awaiting: Awaiting,
    /// When each attempt was last asked to be launched, and which boot was settled then: an owner that dies before it has
    /// settled its own is as one of the boot before.
    asked: BTreeMap<Key, (BootTime, u64)>,
    /// Attempts of which somebody was told that they are being stopped.
    stopped: BTreeSet<Key>,
}

/// What a policy begins is wanted, counted, and not begun too often.
fn restarted(ended: &Job, next: &Job) -> Checked {
    let policy = &next.definition.policy;
    if let (Start::Retry { same, .. }, Some(retry)) = (next.definition.start, &policy.retry) {
        let was_same = match ended.definition.start {
            Start::Retry { same, .. } => same,
            _ => 0,
        };
        let is_counted = next.state.restarts == ended.state.restarts + 1 && same <= was_same + 1;
        let is_within =
            next.state.restarts <= retry.retries && retry.park_after.is_none_or(|most| same < most);
        let is_lost = ended.state.reason == Some(Reason::Reboot) && retry.on_reboot;
        let is_wanted =
            ended.state.status == Status::Failed || (ended.state.status == Status::Lost && is_lost);
        return ensure(is_counted && is_within && is_wanted, || {
            format!("{:?} was followed by {next:?}", ended.state)
        });
    }
    let Start::Again { failures, .. } = next.definition.start else { return Ok(()) };
    let before = match ended.definition.start {
        Start::Again { failures, .. } => failures,
        _ => 0,
    };
    let is_counted = next.state.restarts == ended.state.restarts + 1 && failures <= before + 1;
    let is_within = policy.max_restarts.is_none_or(|max| next.state.restarts <= max)
        && policy.backoff.give_up_after.is_none_or(|most| failures < most);
    let is_wanted = policy.restart.follows(ended.state.status);
    ensure(is_counted && is_within && is_wanted, || format!("{:?} was followed by {next:?}", ended.state))
}

impl Checks {
    /// After a commit of these units.
    pub(super) fn committed(
        &mut self,
        units: &[Unit],
        outcomes: &[UnitOutcome],
        store: &MemoryStore,
        world: &mut World,
    ) -> Checked {
        self.events(store)?;
        self.awaiting.committed(units, outcomes)?;
        self.removed.clear();
        for (unit, outcome) in units.iter().zip(outcomes) {
            if let (Some(JobChange::Remove { id, .. }), UnitOutcome::Applied { .. }) = (&unit.job, outcome) {
                self.accepted.retain(|(accepted, _)| accepted != id);
                self.keys.clear();
                self.removed.insert(id.clone());
            }
            if let (Some(JobChange::Update { id, state, .. }), UnitOutcome::Applied { .. }) =
                (&unit.job, outcome)
            {
                self.restart(id, state, store)?;
            }
        }
        let ids: BTreeSet<&JobId> = units.iter().filter_map(|unit| Some(unit.job.as_ref()?.id())).collect();
        for id in ids {
            let attempts = store.attempts(id).unwrap_or_default();
            if let Some(job) = attempts.last() {
                let told = self.statuses.get(id).copied();
                let is_told = told == Some((job.state.attempt, job.state.status));
                ensure(is_told, || format!("the last event of {id} is {told:?}, its state {:?}", job.state))?;
            }
            for job in &attempts {
                self.attempt(job, world)?;
            }
            attempts.windows(2).try_for_each(|pair| restarted(&pair[0], &pair[1]))?;
        }
        super::arrays::counted(units, store)
    }

    /// Events are counted without a gap, and each is a legal move.
    fn events(&mut self, store: &MemoryStore) -> Checked {
        for event in store.events(self.last_event, usize::MAX).unwrap_or_default() {
            let gap = || format!("event {} follows {}", event.seq, self.last_event);
            ensure(event.seq == self.last_event + 1, gap)?;
            self.last_event = event.seq;
            self.reached.insert((event.status, event.reason));
            let AttemptId { id, attempt } = event.attempt.clone();
            let last = self.statuses.insert(id, (attempt, event.status));
            let is_legal = match last {
                Some((number, last)) if number == attempt && !last.is_terminal() => {
                    last == event.status || last.may_become(event.status)
                }
                // Of another attempt, or of another job of that id.
                Some((number, last)) => last.is_terminal() && (attempt == number + 1 || attempt == 1),
                None => attempt == 1,
            };
            ensure(is_legal, || format!("{event:?} follows {last:?}"))?;
        }
        Ok(())
    }

    /// Nothing of these units is known to be stored.
    pub(super) fn failed(&mut self, units: &[Unit]) {
        let begun =
            units.iter().filter_map(|unit| unit.job.as_ref()).filter(|change| change.begins_attempt());
        self.refused.extend(begun.map(|change| change.id().clone()));
    }

    /// The restart that an attempt waited for, and that nobody has taken back, comes with its end.
    fn restart(&mut self, id: &JobId, state: &JobState, store: &MemoryStore) -> Checked {
        let attempts = store.attempts(id).unwrap_or_default();
        let Some(seq) = attempts.first().map(|job| job.seq) else { return Ok(()) };
        let pending = match state.pending_restart.clone() {
            Some(pending) => self.pending.insert((seq, state.attempt), pending),
            None => self.pending.remove(&(seq, state.attempt)),
        };
        let mut next = attempts.iter().filter(|job| job.state.attempt == state.attempt + 1);
        let is_begun = next.any(|next| next.definition.submit_key == pending);
        let is_due = pending.is_some() && state.status.is_terminal();
        let excused = is_begun || self.refused.contains(id);
        ensure(!is_due || excused, || format!("{id} ({state:?}) was to be followed by {pending:?}"))
    }

    fn attempt(&mut self, job: &Job, world: &mut World) -> Checked {
        let key = (job.seq, job.state.attempt);
        let is_new = self.seen.insert(key) && job.state.restarts == 0;
        if let Some(submit_key) = job.definition.submit_key.as_ref().filter(|_| is_new) {
            let made = self.made_by.insert(submit_key.clone(), key);
            // Whoever sends it again after others have begun a further attempt has one made, too.
            let is_superseded = |(seq, attempt): Key| {
                self.keys.get(&seq).is_none_or(|(newest, key)| {
                    // By somebody else, or by its array, which has no key.
                    *newest > attempt && key.as_ref() != Some(submit_key)
                })
            };
            let again = made.filter(|made| !is_superseded(*made));
            ensure(again.is_none(), || format!("'{submit_key}' has made {again:?} and {key:?}"))?;
        }
        self.keys.insert(job.seq, (job.state.attempt, job.definition.submit_key.clone()));
        if !job.state.status.is_terminal() {
            let asked = (job.state.launch_asked, world.settled_boot);
            let known = self.asked.entry(key).or_insert(asked);
            if known.0 != asked.0 {
                *known = asked;
            }
        }
        if !job.state.status.is_terminal() {
            return ensure(!self.last_words.contains_key(&key), || format!("{key:?} lives again"));
        }
        if let Some(last) = self.last_words.get(&key) {
            return ensure(*last == job.state, || format!("{last:?} became {:?}", job.state));
        }
        self.last_words.insert(key, job.state.clone());
        if job.definition.array.is_some() {
            return Ok(());
        }
        self.truth(job, world).map_err(|lie| format!("{} {key:?}: {lie}: {:?}", job.id, job.state))
    }

    /// Whether the last word of an attempt is true.
    fn truth(&self, job: &Job, world: &mut World) -> Checked {
        let state = &job.state;
        let key = (job.seq, state.attempt);
        let stopped = self.stopped.contains(&key);
        let asked = self.asked.get(&key).map_or(world.boot, |(_, boot)| *boot);
        let boot = world.boot;
        let found = world.find(job.seq, state.attempt);
        if let (Status::Lost, Some(run)) = (state.status, found.map(|run| &mut world.runs[run])) {
            match state.reason {
                Some(Reason::Reboot) => ensure(asked < boot, || "its boot goes on".to_owned())?,
                _ => ensure(run.may_be_lost, || "its keeper knows its end".to_owned())?,
            }
            if run.is_doubtful && state.process.is_none() {
                let is_left = run.boot == boot && run.executed && run.main.alive && !run.may_leave;
                ensure(!is_left || run.is_looked_for, || "its process runs on".to_owned())?;
                run.given_up = true;
                return Ok(());
            }
        }
        let was_there = |run: &Run| run.executed || run.exit.is_some() || run.main.alive;
        let Some(run) = found.filter(|run| was_there(&world.runs[*run])) else {
            let never = matches!(
                state.status,
                Status::FailedStart | Status::Cancelled | Status::Stopped | Status::Lost
            );
            return ensure(never && state.exit.is_none(), || "it was never executed".to_owned());
        };
        let run = &mut world.runs[run];
        ensure(!run.main.alive, || "its main process lives".to_owned())?;
        // What is to be started again waits for them.
        let survived = !job.definition.policy.begins_attempts()
            && state.detail.as_ref().is_some_and(|detail| detail.contains("could not be killed"));
        let is_left = job.definition.policy.keep_children && !stopped;
        run.may_leave = survived || is_left;
        if !run.may_leave || state.status == Status::Stopped {
            ensure(run.living() == 0, || format!("it has left {:?}", run.children))?;
        }
        match state.status {
            Status::Finished | Status::Failed | Status::Stopped => {
                ensure(state.exit.is_some() && state.exit == run.exit, || format!("it was {:?}", run.exit))
            }
            Status::Lost => Ok(()),
            _ => Err("it was executed".to_owned()),
        }
    }

    /// What somebody is told is on disk.
    pub(super) fn answered(&mut self, answer: &Answer, was_stored: bool, store: &MemoryStore) -> Checked {
        match answer {
            // Somebody has it removed right after.
            Answer::Accepted(attempt) if self.removed.contains(&attempt.id) => {}
            Answer::Accepted(attempt) => {
                let attempts = store.attempts(&attempt.id).unwrap_or_default();
                let job = attempts.iter().find(|job| job.state.attempt == attempt.attempt);
                let job = job.ok_or_else(|| format!("{attempt} is accepted and not stored"))?;
                self.accepted.insert((attempt.id.clone(), (job.seq, attempt.attempt)));
            }
            Answer::Stopping(attempt) if was_stored => {
                let job = store.job(&attempt.id).ok().flatten();
                let job = job.ok_or_else(|| format!("{attempt} is being stopped and not stored"))?;
                self.stopped.insert((job.seq, attempt.attempt));
            }
            Answer::Removed(id) => {
                let job = store.job(id).ok().flatten();
                ensure(job.is_none(), || format!("{id} is removed and still stored"))?;
            }
            Answer::Edited(id) => {
                let job = store.job(id).ok().flatten();
                ensure(job.is_some() || self.removed.contains(id), || {
                    format!("{id} is changed and not stored")
                })?;
            }
            Answer::GroupChanged => ensure(was_stored, || "a group is changed and not stored".to_owned())?,
            _ => {}
        }
        Ok(())
    }

    /// What a keeper may forget is in the store.
    pub(super) fn acknowledged(
        &self,
        keeper: usize,
        position: u64,
        store: &MemoryStore,
        world: &World,
    ) -> Checked {
        let journal = &world.keepers[keeper].journal;
        let is_taken_back = |from: u64, started: &Entry| {
            let mut later = journal.iter().filter(|(at, entry)| *at > from && entry.run == started.run);
            later.any(|(_, entry)| matches!(entry.noted, Noted::StartFailed(_)))
        };
        let covered = journal.iter().filter(|(at, entry)| *at < position && !entry.is_bad);
        for (at, entry) in covered {
            if matches!(entry.noted, Noted::Started(_)) && is_taken_back(*at, entry) {
                // It is the second entry that has to be in the store.
                continue;
            }
            let run = &world.runs[entry.run];
            let attempts = store.attempts(&run.attempt.id).unwrap_or_default();
            let is_it = |job: &&Job| job.seq == run.seq && job.state.attempt == run.attempt.attempt;
            let Some(state) = attempts.iter().find(is_it).map(|job| &job.state) else { continue };
            let was_asked_again = state.launch_asked > entry.at.boot || entry.boot != world.boot;
            let is_in = state.status.is_terminal()
                || match entry.noted {
                    Noted::Started(_) => state.process.is_some() || state.ended.is_some() || was_asked_again,
                    Noted::Exited(_) => state.ended.is_some(),
                    // It waits, or was asked for again, which a restart does in the same millisecond.
                    Noted::StartFailed(_) => {
                        let was_asked_again = was_asked_again || state.launch_asked == entry.at.boot;
                        state.status == Status::Queued || was_asked_again
                    }
                };
            ensure(is_in, || format!("{entry:?} is acknowledged and not stored: {state:?}"))?;
        }
        Ok(())
    }

    /// At the end, when nothing is left to happen.
    pub(super) fn at_the_end(&self, store: &MemoryStore, world: &World) -> Checked {
        for (id, (seq, attempt)) in &self.accepted {
            let attempts = store.attempts(id).unwrap_or_default();
            let is_stored = attempts.iter().any(|job| job.seq == *seq && job.state.attempt == *attempt);
            ensure(is_stored, || format!("{id} (attempt {attempt}) was accepted and is gone"))?;
        }
        super::arrays::at_the_end(store)?;
        for ((seq, attempt), state) in &self.last_words {
            let run = world.find(*seq, *attempt).map(|run| &world.runs[run]);
            let is_denied = matches!(state.status, Status::FailedStart | Status::Cancelled | Status::Stopped);
            let executed = run.filter(|run| run.executed && is_denied && state.exit.is_none());
            ensure(executed.is_none(), || format!("{executed:?} was executed, and is {state:?}"))?;
        }
        for (seq, attempt) in &self.stopped {
            if let Some(run) = world.find(*seq, *attempt).map(|run| &world.runs[run]) {
                ensure(run.living() == 0 || run.given_up, || format!("{run:?} was stopped and lives"))?;
            }
        }
        Ok(())
    }
}
