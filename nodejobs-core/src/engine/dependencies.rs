//! Jobs that wait for the ends of others, and what an end means for them.
//!
//! What counts is the newest attempt of each job at the moment in which all conditions hold: one that is run again while
//! others wait for it is waited for again. So what a job waits for follows from what is stored, whoever the owner was. A
//! job that is gone has met its condition, as one that has not is not forgotten while somebody waits for it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::id::JobId;
use crate::job::{Definition, Job, JobState, WaitingOn};
use crate::spec::{After, Condition, Dependency, Unmet};
use crate::status::{Reason, Status};
use crate::store::{JobChange, Unit};
use crate::time::Moment;

use super::live::Live;
use super::{Answer, Effect, Engine, Ticket, Turn};

/// How a job has ended that others wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its status.
    pub status: Status,
    /// The same in a few words: `failed, exit code 3`.
    pub outcome: String,
}

impl Ended {
    /// As the state says.
    pub fn new(state: &JobState) -> Self {
        Self::as_said(state.status, state.outcome())
    }

    fn as_said(status: Status, outcome: String) -> Self {
        let outcome = match status {
            Status::FailedStart => "could not be started".to_owned(),
            Status::Stopped | Status::Cancelled | Status::Lost => format!("was {outcome}"),
            _ => outcome,
        };
        Self { status, outcome }
    }
}

/// How jobs have ended that are not live. One that is absent is not stored.
pub type EndedJobs = BTreeMap<JobId, Ended>;

/// A queued job that is to wait for others than before.
#[derive(Debug)]
pub struct NewDependencies {
    /// Who asks.
    pub ticket: Ticket,
    /// The job as it is stored.
    pub job: Job,
    /// Which jobs it waits for now; none any more if absent.
    pub after: Option<After>,
    /// How those of them have ended that are not live.
    pub ended: EndedJobs,
}

/// Who waits for whom.
#[derive(Debug, Default)]
pub(super) struct Dependencies {
    /// Those that wait for each job, also where their condition is met: it may be run again.
    dependents: HashMap<JobId, BTreeSet<JobId>>,
    /// Ends that those who wait for them are still to hear of.
    news: VecDeque<News>,
}

#[derive(Debug)]
struct News {
    id: JobId,
    /// `None` if it is not stored any more, or has not begun after all.
    ended: Option<Ended>,
    has_not_begun: bool,
    /// Which job has failed first, and how, if this one is cancelled because of it.
    root: Option<String>,
}

/// What a job waits for.
#[derive(Debug)]
pub(super) struct Waits {
    on: BTreeMap<JobId, Edge>,
    open: usize,
    unmet: Unmet,
}

#[derive(Debug)]
struct Edge {
    condition: Condition,
    is_open: bool,
    /// As it was before the present attempt began.
    was_open: bool,
}

impl Waits {
    /// All conditions are still to be met.
    fn new(after: &After) -> Self {
        let edge = |dependency: &Dependency| {
            let edge = Edge { condition: dependency.condition, is_open: true, was_open: true };
            (dependency.id.clone(), edge)
        };
        let on: BTreeMap<_, _> = after.on.iter().map(edge).collect();
        Self { open: on.len(), on, unmet: after.unmet }
    }

    fn set(&mut self, id: &JobId, is_open: bool) {
        let Some(edge) = self.on.get_mut(id) else { return };
        match (edge.is_open, is_open) {
            (true, false) => self.open -= 1,
            (false, true) => self.open += 1,
            _ => {}
        }
        edge.is_open = is_open;
    }
}

impl Dependencies {
    /// Whether somebody is still to hear of an end.
    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// The live job waits for these from now on.
    fn join(&mut self, id: &JobId, live: &mut Live, after: &After) {
        for dependency in &after.on {
            self.dependents.entry(dependency.id.clone()).or_default().insert(id.clone());
        }
        live.waits = Some(Box::new(Waits::new(after)));
    }

    /// It waits for nobody any more.
    pub(super) fn leave(&mut self, id: &JobId, live: &mut Live) {
        let Some(waits) = live.waits.take() else { return };
        for awaited in waits.on.keys() {
            if let Some(dependents) = self.dependents.get_mut(awaited) {
                dependents.remove(id);
                if dependents.is_empty() {
                    self.dependents.remove(awaited);
                }
            }
        }
    }

    /// A job has ended, and nothing follows.
    pub(super) fn has_ended(&mut self, id: &JobId, ended: Option<Ended>) {
        if self.dependents.contains_key(id) {
            self.news.push_back(News { id: id.clone(), ended, has_not_begun: false, root: None });
        }
    }

    /// Whether somebody waits for it.
    pub(super) fn is_awaited(&self, id: &JobId) -> bool {
        self.dependents.contains_key(id)
    }

    /// An attempt of it has begun: those who wait for it wait for its end.
    pub(super) fn has_begun(&self, id: &JobId, live: &mut HashMap<JobId, Live>) {
        for dependent in self.dependents.get(id).into_iter().flatten() {
            if let Some(waits) = live.get_mut(dependent).and_then(|live| live.waits.as_mut()) {
                if let Some(edge) = waits.on.get_mut(id) {
                    edge.was_open = edge.is_open;
                }
                waits.set(id, true);
            }
        }
    }
}

impl Live {
    /// Whether another job has to end before it starts.
    pub(super) fn waits_for_others(&self) -> bool {
        self.waits.as_ref().is_some_and(|waits| waits.open > 0)
    }
}

/// The end of a job that is decided in this turn.
fn end_in(turn: &Turn, id: &JobId) -> Option<Ended> {
    let changes = turn.units.iter().rev().filter_map(|unit| unit.job.as_ref());
    changes.filter(|change| change.id() == id).find_map(|change| match change {
        JobChange::Update { state, .. } => Some(Ended::new(state)),
        _ => None,
    })
}

/// How a job has ended that is not live, also if that could not be written yet.
pub(super) fn end_of(job: &Job, turn: &Turn) -> Status {
    let stored = job.state.status;
    let decided = || end_in(turn, &job.id).map_or(stored, |end| end.status);
    if stored.is_terminal() { stored } else { decided() }
}

impl Engine {
    /// Whether a job has not ended.
    pub fn is_live(&self, id: &JobId) -> bool {
        self.live.contains_key(id)
    }

    /// What a job still waits for, and how each of them has to end; nothing if it waits for none.
    pub fn waits_for(&self, id: &JobId) -> Vec<Dependency> {
        let waits = self.live.get(id).and_then(|live| live.waits.as_ref());
        let open = waits.iter().flat_map(|waits| &waits.on).filter(|(_, edge)| edge.is_open);
        open.map(|(id, edge)| Dependency { id: id.clone(), condition: edge.condition }).collect()
    }

    /// Which jobs others wait for that are not live. An owner that takes over has to [say](Self::know_ended) how they ended.
    pub fn awaited_ended_jobs(&self) -> Vec<JobId> {
        let awaited = self.dependencies.dependents.keys().filter(|id| !self.live.contains_key(*id));
        let mut ids: Vec<JobId> = awaited.cloned().collect();
        ids.sort();
        ids
    }

    /// How those jobs have ended that others wait for; what is absent is not stored. Acted upon by [`resume`](Self::resume).
    pub fn know_ended(&mut self, mut ended: EndedJobs) {
        for id in self.awaited_ended_jobs() {
            let how = ended.remove(&id);
            self.dependencies.has_ended(&id, how);
        }
    }

    /// Takes in what a job of an earlier owner waits for.
    pub(super) fn restore_dependencies(&mut self, id: &JobId, live: &mut Live, after: Option<&After>) {
        let waits_at = matches!(live.state.waiting_on, Some(WaitingOn::Time | WaitingOn::Dependency));
        if live.state.status != Status::Queued || !waits_at {
            return;
        }
        match after {
            Some(after) => self.dependencies.join(id, live, after),
            // It says nobody whom it waits for, so it is looked at at once.
            None if live.state.waiting_on == Some(WaitingOn::Dependency) => live.state.waiting_on = None,
            None => {}
        }
    }

    /// Whether all conditions hold already.
    fn is_met(&self, after: &After, ended: &EndedJobs) -> bool {
        after.on.iter().all(|Dependency { id, condition }| {
            let ended = ended.get(id).filter(|_| !self.live.contains_key(id));
            ended.is_some_and(|ended| condition.is_met_by(ended.status))
        })
    }

    /// Why a job may not wait for these, if it may not. One that has no id yet, nobody waits for.
    fn refusal(
        &self,
        id: Option<&JobId>,
        after: &After,
        ended: &mut EndedJobs,
        turn: &Turn,
    ) -> Option<Answer> {
        for Dependency { id, .. } in after.on.iter().filter(|on| !self.live.contains_key(&on.id)) {
            let Some(known) = ended.get_mut(id) else { return Some(Answer::NoDependency(id.clone())) };
            // Its end is decided and could not be written yet.
            match end_in(turn, id).filter(|_| !known.status.is_terminal()) {
                Some(end) => *known = end,
                None if !known.status.is_terminal() => return Some(Answer::NoDependency(id.clone())),
                None => {}
            }
        }
        id.and_then(|id| self.cycle(id, after)).map(Answer::Cycle)
    }

    /// The way from a job back to itself, if it were to wait for these.
    fn cycle(&self, id: &JobId, after: &After) -> Option<Vec<JobId>> {
        let targets = || after.on.iter().map(|dependency| &dependency.id);
        if targets().any(|awaited| awaited == id) {
            return Some(vec![id.clone(), id.clone()]);
        }
        if !self.dependencies.is_awaited(id) {
            return None;
        }
        let mut from: HashMap<&JobId, &JobId> = targets().map(|awaited| (awaited, id)).collect();
        let mut next: Vec<&JobId> = targets().collect();
        while let Some(current) = next.pop() {
            if current == id {
                let mut way = vec![id.clone()];
                let mut step = id;
                while let Some(before) = from.get(step) {
                    way.push((*before).clone());
                    step = before;
                    if step == id {
                        break;
                    }
                }
                way.reverse();
                return Some(way);
            }
            let waits = self.live.get(current).and_then(|live| live.waits.as_ref());
            for awaited in waits.iter().flat_map(|waits| waits.on.keys()) {
                if !from.contains_key(awaited) {
                    from.insert(awaited, current);
                    next.push(awaited);
                }
            }
        }
        None
    }

    /// What a new attempt has to wait for of what its definition names; nothing if all is met and its time has come.
    ///
    /// # Errors
    /// The answer, if it may not wait for these.
    pub(super) fn what_to_wait_for(
        &self,
        id: Option<&JobId>,
        definition: &Definition,
        is_due: bool,
        ended: &mut EndedJobs,
        turn: &Turn,
    ) -> Result<Option<After>, Answer> {
        let Some(after) = &definition.after else { return Ok(None) };
        match self.refusal(id, after, ended, turn) {
            Some(answer) => Err(answer),
            None => Ok((!is_due || !self.is_met(after, ended)).then(|| after.clone())),
        }
    }

    /// Has a job wait that was just begun.
    pub(super) fn begin_to_wait(&mut self, id: &JobId, after: &After, ended: EndedJobs) {
        let Some(live) = self.live.get_mut(id) else { return };
        self.dependencies.join(id, live, after);
        for (awaited, how) in ended {
            self.dependencies.has_ended(&awaited, Some(how));
        }
    }

    /// Takes a job whose time has come to where it waits next.
    pub(super) fn pass_time(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get_mut(id) else { return };
        if !live.waits_for_others() {
            self.dependencies.leave(id, live);
            return self.start_or_queue(id, now, turn);
        }
        live.state.waiting_on = Some(WaitingOn::Dependency);
        live.state.detail = None;
        turn.units.push(live.update(id, Status::Queued, now));
    }

    /// Tells those who wait of what has ended: they start, are cancelled, or go on waiting. What follows from that is told
    /// as well, however long the chain is.
    pub(super) fn tell_dependents(&mut self, now: Moment, turn: &mut Turn) {
        while let Some(news) = self.dependencies.news.pop_front() {
            if self.live.contains_key(&news.id) {
                // Begun again since.
                continue;
            }
            let Some(dependents) = self.dependencies.dependents.get(&news.id) else { continue };
            let age = |id: &JobId| (self.live.get(id).map(|live| live.created_at), id.clone());
            let mut ids: Vec<_> = dependents.iter().map(age).collect();
            ids.sort();
            for (_, id) in ids {
                self.hear(&id, &news, now, turn);
            }
        }
    }

    fn hear(&mut self, id: &JobId, news: &News, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get_mut(id) else { return };
        let Some(waits) = live.waits.as_mut() else { return };
        let Some(edge) = waits.on.get(&news.id) else { return };
        let (condition, was_open) = (edge.condition, edge.was_open);
        if news.has_not_begun && news.ended.is_none() {
            waits.set(&news.id, was_open);
            if was_open {
                return;
            }
        }
        let unmet = news.ended.as_ref().filter(|ended| !condition.is_met_by(ended.status));
        waits.set(&news.id, unmet.is_some());
        match (unmet, waits.unmet) {
            (Some(ended), Unmet::Cancel) => {
                let root = news.root.clone().unwrap_or_else(|| format!("'{}' {}", news.id, ended.outcome));
                let wanted = match condition {
                    Condition::Failure => "was to fail",
                    Condition::Success | Condition::Any => "was to succeed",
                };
                let detail = match &news.root {
                    Some(root) => format!("'{}' {wanted} and was cancelled, as {root}", news.id),
                    None => format!("{root}, and {wanted}"),
                };
                self.end(id, Status::Cancelled, Some(Reason::Dependency), Some(detail), now, turn);
                if let Some(own) = self.dependencies.news.back_mut().filter(|own| own.id == *id) {
                    own.root = Some(root);
                }
            }
            (Some(_), Unmet::Wait) => {}
            (None, _) => {
                if waits.open == 0 && live.state.waiting_on == Some(WaitingOn::Dependency) {
                    self.dependencies.leave(id, live);
                    self.start_or_queue(id, now, turn);
                }
            }
        }
    }

    /// Who waits for a job that has ended otherwise than they need: it must not be forgotten meanwhile.
    pub(super) fn who_needs(&self, id: &JobId) -> Option<JobId> {
        let dependents = self.dependencies.dependents.get(id)?;
        let needs = |dependent: &&JobId| {
            let waits = self.live.get(*dependent).and_then(|live| live.waits.as_ref());
            waits.and_then(|waits| waits.on.get(id)).is_some_and(|edge| edge.is_open)
        };
        dependents.iter().find(needs).cloned()
    }

    /// Has a queued job wait for others than before.
    pub(super) fn depend(&mut self, wanted: NewDependencies, now: Moment, turn: &mut Turn) {
        let NewDependencies { ticket, job, after, mut ended } = wanted;
        let id = job.id;
        let refusal = match self.live.get(&id).map(|live| live.state.status) {
            None => Some(Answer::NotLive),
            Some(Status::Queued) => {
                after.as_ref().and_then(|after| self.refusal(Some(&id), after, &mut ended, turn))
            }
            status => Some(Answer::Conflict { status }),
        };
        let waits_for_time =
            self.live.get(&id).is_some_and(|live| live.state.waiting_on == Some(WaitingOn::Time));
        let open = after.clone().filter(|after| waits_for_time || !self.is_met(after, &ended));
        let Some(live) = self.live.get_mut(&id).filter(|_| refusal.is_none()) else {
            let answer = refusal.unwrap_or(Answer::NotLive);
            return turn.effects.push(Effect::Reply { ticket, answer });
        };
        let answer = Answer::Accepted(live.attempt_id(&id));
        turn.effects.push(Effect::Reply { ticket, answer });
        self.dependencies.leave(&id, live);
        let definition = Box::new(Definition { after, ..job.definition });
        let goes_on = open.is_none() && live.state.waiting_on == Some(WaitingOn::Dependency);
        if open.is_some() && live.state.waiting_on != Some(WaitingOn::Time) {
            self.timers.clear(&id, live);
            live.leave_place(&mut self.queue);
            live.state.waiting_on = Some(WaitingOn::Dependency);
            live.state.detail = None;
        }
        turn.units.push(live.redefine(&id, definition, now));
        match open {
            Some(after) => self.begin_to_wait(&id, &after, ended),
            None if goes_on => self.start_or_queue(&id, now, turn),
            None => {}
        }
    }

    /// What was begun could not be stored: those who wait for it hear again how it had ended.
    pub(super) fn has_not_begun(&mut self, id: &JobId, before: Option<Status>) {
        let ended = before.map(|status| Ended::as_said(status, status.to_string()));
        self.dependencies.has_ended(id, ended);
        if let Some(news) = self.dependencies.news.back_mut().filter(|news| news.id == *id) {
            news.has_not_begun = true;
        }
    }
}

impl Live {
    /// The unit that writes down another definition of what is queued.
    fn redefine(&mut self, id: &JobId, definition: Box<Definition>, now: Moment) -> Unit {
        self.state.last_update = now.wall;
        let expected = self.revision;
        self.revision += 1;
        JobChange::Redefine { id: id.clone(), expected, definition, state: self.state.clone() }.into()
    }
}
