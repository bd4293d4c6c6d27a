//! Arrays: the parent waits as one, and whenever its turn comes, its next element is begun.
//!
//! The queue has to know one thing of this: whose turn it is and has an array does not start, but begins an element
//! ([`Engine::begin_element`]), and waits on in its place as long as there are more.

use crate::array::{Content, Counts, ON_DONE, Running, Template, element_id, plan_key, split_element_id};
use crate::id::{AttemptId, JobId};
use crate::job::{Definition, JobState};
use crate::spec::{InvalidPlaceholder, Start};
use crate::status::{Reason, Status};
use crate::store::{DocumentChange, DocumentKind, JobChange, Unit};
use crate::time::Moment;

use super::live::Live;
use super::places::queue_for_place;
use super::{Answer, Effect, Engine, Restart, StopRequest, Ticket, Turn};

/// The array of a parent that begins its first attempt, or is found in the store.
pub(super) fn running(
    parent: &JobId,
    definition: &Definition,
    content: Content,
) -> Result<Box<Running>, InvalidPlaceholder> {
    let Content { elements, plan, progress } = content;
    Ok(Box::new(Running::new(Template::new(parent.clone(), definition, elements)?, plan, progress)))
}

/// What is stored with a new array.
pub(super) fn documents(parent: &JobId, definition: &Definition, content: &Content) -> Vec<DocumentChange> {
    // Numbers and texts, which always are JSON.
    let elements = serde_json::to_vec(&content.elements).unwrap_or_default();
    let mut documents = vec![
        put(DocumentKind::Array, parent.to_string(), elements),
        progress(parent, content.progress.to_json()),
    ];
    documents.extend(on_done(parent, 1, definition));
    documents
}

/// Says that the array's script is to be run once this attempt has ended.
fn on_done(parent: &JobId, attempt: u32, definition: &Definition) -> Option<DocumentChange> {
    definition.array.as_ref()?.on_done.as_ref()?;
    Some(put(DocumentKind::Meta, format!("{ON_DONE}{}", plan_key(parent, attempt)), Vec::new()))
}

/// What goes with a parent that is forgotten. Its progress stays until its elements are gone as well: it says that they are
/// to go.
pub(super) fn forgotten(parent: &JobId, attempt: u32) -> [DocumentChange; 2] {
    let remove = |key| DocumentChange::Remove { kind: DocumentKind::Array, key };
    [remove(parent.to_string()), remove(plan_key(parent, attempt))]
}

fn put(kind: DocumentKind, key: String, body: Vec<u8>) -> DocumentChange {
    DocumentChange::Put { kind, key, body }
}

fn progress(parent: &JobId, body: Vec<u8>) -> DocumentChange {
    put(DocumentKind::Progress, parent.to_string(), body)
}

impl Live {
    /// Whether its elements are to end, and none is to begin.
    fn is_ending_array(&self) -> bool {
        matches!(self.state.status, Status::Stopping | Status::FailedStop) || self.state.reason.is_some()
    }

    /// For how many elements it waits for places.
    fn wanted_places(&self) -> u32 {
        let has_passed = self.state.status != Status::Queued || self.waits_for_place();
        let may_begin = has_passed && !self.is_ending_array();
        self.array.as_ref().filter(|_| may_begin).map_or(0, |array| array.may_begin())
    }
}

impl Engine {
    /// The live array of that id.
    fn array(&mut self, id: &JobId) -> Option<&mut Live> {
        self.live.get_mut(id).filter(|live| live.array.is_some())
    }

    /// Whether the id is one of an element of a live array, and so nobody else's.
    pub(super) fn is_of_array(&self, id: &JobId) -> bool {
        let Some((parent, index)) = split_element_id(id.as_str()) else { return false };
        let array = JobId::new(parent).ok().and_then(|parent| self.live.get(&parent)?.array.as_ref());
        array.is_some_and(|array| index <= array.size())
    }

    /// Whether the array of an element is being ended.
    pub(super) fn is_in_ending_array(&self, element: &Live) -> bool {
        let parent = element.element_of.as_ref().and_then(|of| self.live.get(&of.0));
        parent.is_some_and(|parent| parent.array.is_some() && parent.is_ending_array())
    }

    /// Gives a parent its place among those who wait, if it has something to begin.
    pub(super) fn place_array(&mut self, id: &JobId, live: &mut Live) {
        live.leave_place(&mut self.queue);
        let places = live.wanted_places();
        if places > 0 {
            self.queue.wait(id, &mut live.place, places);
        }
    }

    /// Begins the next element of the array whose turn it is, and lets the array wait on if it has more.
    pub(super) fn begin_element(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        let Some(mut live) = self.live.remove(id) else { return };
        let next = live.array.as_mut().and_then(|array| array.begin_next(now.wall));
        if let Some((again, definition)) = next
            && let Some(element) = element_id(id, again.index)
        {
            if live.state.status == Status::Queued {
                live.state.waiting_on = None;
                live.state.detail = None;
                turn.units.push(live.update(id, Status::Starting, now));
                live.state.started = Some(now);
                turn.units.push(live.update(id, Status::Running, now));
            }
            let mut state = JobState::new(again.attempt + 1, Status::Starting, now.wall);
            state.launch_asked = now.boot;
            let mut begun = Live::new(&definition, state);
            begun.take_place(&mut self.queue);
            let state = begun.state.clone();
            let change = change(element, again.attempt, again.revision, definition, state);
            let body = live.array.as_ref().map(|array| array.progress.to_json()).unwrap_or_default();
            self.begin(begun, Unit { job: Some(change), documents: vec![progress(id, body)] }, now, turn);
        }
        self.place_array(id, &mut live);
        self.live.insert(id.clone(), live);
    }

    /// An element has come to an end that nothing follows; the last unit of the turn says so.
    pub(super) fn element_ended(&mut self, element: &Live, id: &JobId, now: Moment, turn: &mut Turn) {
        let Some(of) = &element.element_of else { return };
        let (parent, index) = &**of;
        let Some(live) = self.array(parent) else { return };
        let Some(array) = &mut live.array else { return };
        let status = element.state.status;
        array.ended(*index, status);
        if let Some(unit) = turn.units.last_mut() {
            unit.documents.push(progress(parent, array.progress.to_json()));
        }
        let has_failed = matches!(status, Status::Failed | Status::FailedStart | Status::Lost);
        if has_failed && array.fails_fast() && !live.is_ending_array() {
            live.state.reason = Some(Reason::Element);
            live.state.detail = Some(format!("{id} {}", element.state.outcome()));
            let status = live.state.status;
            turn.units.push(live.update(parent, status, now));
            self.stop_elements(parent, StopRequest::default(), now, turn);
        }
        self.advance_array(parent, now, turn);
    }

    /// An element could not be killed: while its array is being stopped, the same goes for that.
    pub(super) fn element_survives(&mut self, element: &JobId, now: Moment, turn: &mut Turn) {
        let Some(of) = self.live.get(element).and_then(|live| live.element_of.clone()) else { return };
        let Some(live) = self.array(&of.0) else { return };
        if live.state.status == Status::Stopping {
            live.state.detail = Some(format!("{element} could not be killed"));
            turn.units.push(live.update(&of.0, Status::FailedStop, now));
        }
    }

    /// Lets an array wait, or end, as it has to.
    pub(super) fn advance_array(&mut self, id: &JobId, now: Moment, turn: &mut Turn) {
        let Some(mut live) = self.live.remove(id) else { return };
        self.place_array(id, &mut live);
        let is_ending = live.is_ending_array();
        let over = live
            .array
            .as_ref()
            .filter(|array| array.live.is_empty() && (is_ending || array.progress.pending() == 0));
        let counts = over.map(|array| array.counts());
        self.live.insert(id.clone(), live);
        if let Some(counts) = counts {
            self.end_array(id, counts, now, turn);
        }
    }

    fn end_array(&mut self, id: &JobId, counts: Counts, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get(id) else { return };
        let (status, reason) = match live.state.status {
            Status::Queued => (Status::Cancelled, Some(Reason::User)),
            Status::Stopping | Status::FailedStop => (Status::Stopped, None),
            _ if counts.finished == counts.size => (Status::Finished, None),
            _ => (Status::Failed, Some(Reason::Element)),
        };
        let detail = (status != Status::Finished).then(|| {
            let why = live.state.detail.clone().filter(|_| live.state.reason == Some(Reason::Element));
            let Counts { size, pending, finished, failed, stopped, running: _ } = counts;
            let parts = [(failed, "failed"), (stopped, "stopped"), (pending, "not started")];
            let parts = parts.iter().filter(|(count, _)| *count > 0);
            let parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
            let summary = format!("{finished} of {size} elements finished, {}", parts.join(", "));
            why.map_or_else(|| summary.clone(), |why| format!("{why}; {summary}"))
        });
        self.end(id, status, reason, detail, now, turn);
    }

    /// Somebody wants an array to end.
    pub(super) fn stop_array(&mut self, id: &JobId, request: StopRequest, now: Moment, turn: &mut Turn) {
        let Some(live) = self.live.get_mut(id) else { return };
        match live.state.status {
            Status::Queued => return self.end(id, Status::Cancelled, Some(Reason::User), None, now, turn),
            Status::Stopping | Status::FailedStop => {}
            _ => {
                live.state.reason = None;
                live.state.detail = None;
                turn.units.push(live.update(id, Status::Stopping, now));
            }
        }
        self.stop_elements(id, request, now, turn);
        self.advance_array(id, now, turn);
    }

    fn stop_elements(&mut self, id: &JobId, request: StopRequest, now: Moment, turn: &mut Turn) {
        let array = self.live.get(id).and_then(|live| live.array.as_ref());
        let indices: Vec<u32> = array.map(|array| array.live.iter().copied().collect()).unwrap_or_default();
        for element in indices.into_iter().filter_map(|index| element_id(id, index)) {
            if self.live.contains_key(&element) {
                self.stop_job(&element, request, now, turn);
            }
        }
    }

    /// Cancels an element before its turn; whether it is one.
    pub(super) fn cancel_pending(
        &mut self,
        ticket: Ticket,
        id: &JobId,
        now: Moment,
        turn: &mut Turn,
    ) -> bool {
        let Some((parent, index)) = split_element_id(id.as_str()) else { return false };
        let Ok(parent) = JobId::new(parent) else { return false };
        let Some(live) = self.array(&parent) else { return false };
        let Some(array) = live.array.as_mut().filter(|array| array.is_pending(index)) else { return false };
        let Some((again, definition)) = array.skip(index, now.wall) else {
            // So many are cancelled that their array is better stopped.
            let answer = Answer::Conflict { status: Some(Status::Queued) };
            turn.effects.push(Effect::Reply { ticket, answer });
            return true;
        };
        let body = array.progress.to_json();
        let mut state = JobState::new(again.attempt + 1, Status::Cancelled, now.wall);
        state.reason = Some(Reason::User);
        state.ended = Some(now);
        let attempt = AttemptId { id: id.clone(), attempt: state.attempt };
        turn.effects.push(Effect::Reply { ticket, answer: Answer::Stopping(attempt) });
        let change = change(id.clone(), again.attempt, again.revision, definition, state);
        turn.units.push(Unit { job: Some(change), documents: vec![progress(&parent, body)] });
        self.advance_array(&parent, now, turn);
        true
    }

    /// Begins the next attempt of an array that has ended, with the plan that the store has given.
    pub(super) fn restart_array(&mut self, restart: Restart, now: Moment, turn: &mut Turn) {
        let Restart { ticket, job, submit_key, request: _, array } = restart;
        let status = Some(job.state.status);
        if let Err(refusal) = self.check_place(&job.definition) {
            return turn.effects.push(Effect::Reply { ticket, answer: Answer::Refused(refusal) });
        }
        let mut definition = job.definition;
        definition.start = Start::Now;
        definition.after = None;
        definition.submit_key = Some(submit_key);
        definition.created_at = now.wall;
        let number = job.state.attempt + 1;
        let content = array.filter(|content| !content.plan.is_empty());
        let Some(content) = content.filter(|_| job.state.status.is_terminal()) else {
            return turn.effects.push(Effect::Reply { ticket, answer: Answer::Conflict { status } });
        };
        let plan = put(
            DocumentKind::Array,
            plan_key(&job.id, number),
            serde_json::to_vec(&content.plan).unwrap_or_default(),
        );
        let earlier = plan_key(&job.id, job.state.attempt);
        let mut documents = vec![
            plan,
            DocumentChange::Remove { kind: DocumentKind::Array, key: earlier },
            progress(&job.id, content.progress.to_json()),
        ];
        documents.extend(on_done(&job.id, number, &definition));
        let Ok(array) = running(&job.id, &definition, *content) else {
            return turn.effects.push(Effect::Reply { ticket, answer: Answer::Conflict { status } });
        };
        let mut state = JobState::new(number, Status::Queued, now.wall);
        queue_for_place(&mut state);
        let live = Live { array: Some(array), before: status, ..Live::new(&definition, state.clone()) };
        let attempt = AttemptId { id: job.id.clone(), attempt: number };
        turn.effects.push(Effect::Reply { ticket, answer: Answer::Accepted(attempt) });
        let change = JobChange::NewAttempt {
            id: job.id,
            expected: job.revision,
            definition: Box::new(definition),
            state,
        };
        self.begin(live, Unit { job: Some(change), documents }, now, turn);
    }

    /// Counts the elements that live, after all live jobs were taken in.
    pub(super) fn count_elements(&mut self) {
        let elements: Vec<Box<(JobId, u32)>> =
            self.live.values().filter_map(|live| live.element_of.clone()).collect();
        for of in elements {
            if let Some(array) = self.live.get_mut(&of.0).and_then(|live| live.array.as_mut()) {
                array.live.insert(of.1);
            }
        }
        self.for_each_array(|engine, id| {
            if let Some(mut live) = engine.live.remove(id) {
                engine.place_array(id, &mut live);
                engine.live.insert(id.clone(), live);
            }
        });
    }

    /// Goes on with what an earlier owner had begun with arrays.
    pub(super) fn resume_arrays(&mut self, now: Moment, turn: &mut Turn) {
        self.for_each_array(|engine, id| {
            let live = engine.live.get(id);
            if live.is_some_and(Live::is_ending_array) {
                let array = live.and_then(|live| live.array.as_ref());
                let elements: Vec<JobId> = array
                    .map(|array| array.live.iter().filter_map(|index| element_id(id, *index)).collect())
                    .unwrap_or_default();
                for element in elements {
                    // Those that are being ended are seen to by themselves.
                    if engine.live.get(&element).is_some_and(|live| !live.is_being_ended()) {
                        engine.stop_job(&element, StopRequest::default(), now, turn);
                    }
                }
            }
            engine.advance_array(id, now, turn);
        });
    }

    fn for_each_array(&mut self, mut visit: impl FnMut(&mut Self, &JobId)) {
        let arrays = self.live.iter().filter(|(_, live)| live.array.is_some());
        let mut ids: Vec<JobId> = arrays.map(|(id, _)| id.clone()).collect();
        ids.sort();
        ids.iter().for_each(|id| visit(self, id));
    }
}

/// The change that begins an element's next attempt, which is its first if it has none.
fn change(id: JobId, attempt: u32, revision: u64, definition: Definition, state: JobState) -> JobChange {
    let definition = Box::new(definition);
    if attempt == 0 {
        JobChange::Insert { id, definition, state }
    } else {
        JobChange::NewAttempt { id, expected: revision, definition, state }
    }
}
