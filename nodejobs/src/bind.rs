//! Binding to a job: its statuses and its output as one stream, to its end.
//!
//! The output comes from a follower of the attempt ([`crate::follow`]), the statuses from the store
//! ([`crate::events`]) and then from the hub as they come. Here they are put in order.

use std::sync::Arc;
use std::time::Duration;

use nodejobs_core::record::JobRecord;
use nodejobs_core::store::JobEvent;
use nodejobs_core::{JobId, Status, Timestamp};
use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;

use crate::api::{BindEvent, BindQuery, BindToken, Bound, FollowEvent, FollowQuery, LogStream, ProblemKind};
use crate::error::Error;
use crate::events::events_of_attempt;
use crate::follow::{Reader, follow};
use crate::hub::stopped;
use crate::log_files::{LogFile, touch};
use crate::owner::Owner;
use crate::service::{attempt_of, resolve};
use crate::timeline::Timeline;

/// Begins to tell what happens to a job. The receiver hears last `Ended`, or an error.
pub(crate) async fn bind(
    owner: &Arc<Owner>,
    reference: &str,
    query: &BindQuery,
) -> Result<mpsc::Receiver<Result<BindEvent, Error>>, Error> {
    if let Some(millis) = query.heartbeat_ms.filter(|millis| *millis < BindQuery::MIN_HEARTBEAT_MS) {
        let least = BindQuery::MIN_HEARTBEAT_MS;
        let message = format!("heartbeat_ms {millis} is too short; give at least {least}");
        return Err(Error::new(ProblemKind::Usage, message));
    }
    if query.token.is_some() && query.tail.is_some() {
        let message = "a token says where to go on; give either the token or tail";
        return Err(Error::new(ProblemKind::Usage, message));
    }
    if query.until.is_some() && !query.only_now {
        let message = "until is about what is there now; give only_now with it";
        return Err(Error::new(ProblemKind::Usage, message));
    }
    if query.since.is_some() {
        owner.look_at_output_of(reference, query.token.map(|token| token.attempt).or(query.attempt)).await?;
    }
    let (reference, asked, own_logs) = (reference.to_owned(), query.clone(), owner.directory.logs());
    let (id, mut token, files, since) = owner
        .blocking(move |store| {
            let newest = resolve(store, &reference)?;
            let begin = |attempt| BindToken { job: newest.seq, attempt, stdout: 0, stderr: 0, event: 0 };
            let token = match asked.token {
                Some(token) if token.job != newest.seq => {
                    return Err(Error::new(
                        ProblemKind::Usage,
                        format!("token '{token}' belongs to another job than '{}'", newest.id),
                    ));
                }
                Some(token) if asked.attempt.is_some_and(|attempt| attempt != token.attempt) => {
                    return Err(Error::new(
                        ProblemKind::Usage,
                        format!("token '{token}' belongs to another attempt; give only the token"),
                    ));
                }
                Some(token) => token,
                None => begin(asked.attempt.unwrap_or(newest.state.attempt)),
            };
            let job = attempt_of(store, newest.id.as_str(), Some(token.attempt))?;
            let files = LogFile::both(store, &job)?;
            let since = match asked.since {
                Some(time) => Some(Timeline::of(&job, &own_logs, &files)?.since(time)),
                None => None,
            };
            Ok((newest.id, token, files, since))
        })
        .await?;
    if let Some(lines) = query.tail {
        let named = files.iter().flatten().next().cloned();
        let find = move || {
            let [stdout, stderr] = files;
            Ok((last_lines(stdout, lines)?, last_lines(stderr, lines)?))
        };
        (token.stdout, token.stderr) = touch(owner, named.as_ref(), find).await?;
    }
    if let Some(since) = since {
        token.stdout = token.stdout.max(since.stdout);
        token.stderr = token.stderr.max(since.stderr);
    }
    let (events, receiver) = mpsc::channel(16);
    let binding = Binding {
        owner: Arc::clone(owner),
        id,
        token,
        further_attempts: query.further_attempts,
        only_now: query.only_now,
        until: query.until,
        times: query.times,
        heartbeat: query.heartbeat_ms.map(Duration::from_millis),
        last_told: Instant::now(),
        events,
    };
    tokio::spawn(binding.run());
    Ok(receiver)
}

/// Where the last so many lines of an output begin, 0 where there is none yet.
fn last_lines(file: Option<LogFile>, lines: u64) -> Result<u64, Error> {
    let Some(file) = file else { return Ok(0) };
    let Some(mut opened) = file.open()? else { return Ok(0) };
    file.tail(&mut opened, lines).map_err(|error| file.unreadable(error))
}

struct Binding {
    owner: Arc<Owner>,
    id: JobId,
    /// Everything up to here was told.
    token: BindToken,
    further_attempts: bool,
    only_now: bool,
    until: Option<Timestamp>,
    times: bool,
    heartbeat: Option<Duration>,
    last_told: Instant,
    events: mpsc::Sender<Result<BindEvent, Error>>,
}

/// Why nothing more is told.
enum Stop {
    /// Nobody listens any more.
    Unheard,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

/// What is known of an attempt's statuses.
#[derive(Default)]
struct Statuses {
    /// The newest one that is known, told or not.
    known: Option<Status>,
    /// Its event's number.
    seq: u64,
    /// The last one of the attempt, which is told after its output.
    end: Option<JobEvent>,
}

impl Statuses {
    /// The event, if it is to be told now.
    fn hear(&mut self, event: JobEvent) -> Option<JobEvent> {
        // What was found in the store may come once more from the hub.
        if event.seq <= self.seq {
            return None;
        }
        self.seq = event.seq;
        // An event may also say that something other than the status has changed.
        let is_change = self.known.replace(event.status) != Some(event.status);
        if event.status.is_terminal() {
            self.end = Some(event);
            return None;
        }
        is_change.then_some(event)
    }

    /// Whether the attempt may have written something that is not to be told yet. Its process may write before the
    /// owner has heard of it.
    fn is_before_output(&self) -> bool {
        matches!(self.known, None | Some(Status::Queued | Status::Starting))
    }
}

impl Binding {
    async fn run(mut self) {
        let events = self.events.clone();
        let last = match self.tell().await {
            Ok(what) => Ok(BindEvent { token: self.token, what }),
            Err(Stop::Unheard) => return,
            Err(Stop::Failed(error)) => Err(error),
        };
        // Whoever does not listen now does not keep the owner from leaving.
        drop(self);
        let _ = events.send(last).await;
    }

    async fn tell(&mut self) -> Result<Bound, Stop> {
        loop {
            // What has ended is told to its end anyway, if there is no other.
            let has_ended = !self.only_now || self.has_ended().await?;
            if !has_ended || self.until.is_some() {
                return self.tell_now().await.map(if has_ended { Bound::Ended } else { Bound::Now });
            }
            let record = self.tell_attempt().await?;
            let next = if self.further_attempts { self.next_attempt().await? } else { None };
            let Some(attempt) = next else { return Ok(Bound::Ended(record)) };
            self.token = BindToken { attempt, stdout: 0, stderr: 0, ..self.token };
        }
    }

    /// Tells what there is of an attempt that has not ended: the statuses, then the output as long as it is now.
    async fn tell_now(&mut self) -> Result<Box<JobRecord>, Stop> {
        if self.times || self.until.is_some() {
            self.owner.look_at_output_of(self.id.as_str(), Some(self.token.attempt)).await?;
        }
        self.catch_up(&mut Statuses::default()).await?;
        let query = query_from(self.token);
        let (job, mut reader) = Reader::now(&self.owner, &self.id, query, self.until, self.times).await?;
        let record = Box::new(self.owner.record_of(job).await?);
        loop {
            let (read, event) = reader.read_next(&self.owner).await?;
            let Some(event) = event else { return Ok(record) };
            reader = read;
            self.say_output(event).await?;
        }
    }

    async fn has_ended(&self) -> Result<bool, Error> {
        let (id, attempt) = (self.id.clone(), self.token.attempt);
        let look =
            move |store: &dyn nodejobs_core::store::JobStore| attempt_of(store, id.as_str(), Some(attempt));
        Ok(self.owner.blocking(look).await?.state.status.is_terminal())
    }

    async fn next_attempt(&self) -> Result<Option<u32>, Error> {
        let (id, this) = (self.id.clone(), self.token.attempt);
        let later = move |store: &dyn nodejobs_core::store::JobStore| {
            let attempts = store.attempts(&id)?;
            Ok(attempts.into_iter().map(|job| job.state.attempt).find(|attempt| *attempt > this))
        };
        self.owner.blocking(later).await
    }

    /// Tells what is left of an attempt, up to its last status.
    async fn tell_attempt(&mut self) -> Result<Box<JobRecord>, Stop> {
        let mut statuses = Statuses::default();
        let mut live = self.catch_up(&mut statuses).await?;
        let query = query_from(self.token);
        let mut output = follow(&self.owner, self.id.as_str(), &query, self.times).await?;
        let mut ended = None;
        loop {
            let can_have_output = ended.is_none() && (!statuses.is_before_output() || statuses.end.is_some());
            let beat = self.heartbeat.map(|after| self.last_told + after);
            tokio::select! {
                told = output.recv(), if can_have_output => match told {
                    Some(FollowEvent::Ended(record)) => ended = Some(record),
                    Some(FollowEvent::Error(problem)) => return Err(Stop::Failed(problem.into())),
                    Some(event) => self.say_output(event).await?,
                    None => return Err(Stop::Failed(stopped())),
                },
                event = live.recv() => match event {
                    Ok(event) => self.hear(&mut statuses, event).await?,
                    // More came than it holds, or nothing more will come: what is missing is in the store.
                    Err(_) => live = self.catch_up(&mut statuses).await?,
                },
                () = tokio::time::sleep_until(beat.unwrap_or(self.last_told)), if beat.is_some() => {
                    self.say(Bound::Heartbeat).await?;
                }
                () = self.owner.hub.left() => return Err(Stop::Failed(stopped())),
                () = self.events.closed() => return Err(Stop::Unheard),
            }
            if ended.is_some()
                && let Some(end) = statuses.end.take()
            {
                if end.seq > self.token.event {
                    self.say_status(end).await?;
                }
                return ended.ok_or(Stop::Unheard);
            }
        }
    }

    /// Listens to the job, and tells those statuses of the attempt that are in the store and were not told.
    async fn catch_up(&mut self, statuses: &mut Statuses) -> Result<broadcast::Receiver<JobEvent>, Stop> {
        // Before the look at the store, so that nothing happens in between.
        let live = self.owner.hub.listeners.of_job(&self.id);
        let (id, attempt) = (self.id.clone(), self.token.attempt);
        let look = move |store: &dyn nodejobs_core::store::JobStore| {
            events_of_attempt(store, &attempt_of(store, id.as_str(), Some(attempt))?)
        };
        // From the beginning: only the whole says which of them are changes.
        *statuses = Statuses::default();
        for event in self.owner.blocking(look).await? {
            self.hear(statuses, event).await?;
        }
        Ok(live)
    }

    async fn hear(&mut self, statuses: &mut Statuses, event: JobEvent) -> Result<(), Stop> {
        if event.attempt.attempt != self.token.attempt {
            return Ok(());
        }
        match statuses.hear(event) {
            Some(event) if event.seq > self.token.event => self.say_status(event).await,
            _ => Ok(()),
        }
    }

    async fn say_status(&mut self, event: JobEvent) -> Result<(), Stop> {
        self.token.event = event.seq;
        self.say(Bound::Status(event)).await
    }

    async fn say_output(&mut self, event: FollowEvent) -> Result<(), Stop> {
        match event {
            FollowEvent::Output(chunk) => {
                *self.offset(chunk.stream) = chunk.end();
                self.say(Bound::Output(chunk)).await
            }
            FollowEvent::Truncated { stream, offset } => {
                *self.offset(stream) = offset;
                self.say(Bound::Truncated { stream, offset }).await
            }
            FollowEvent::Ended(_) | FollowEvent::Error(_) => Ok(()),
        }
    }

    async fn say(&mut self, what: Bound) -> Result<(), Stop> {
        let event = BindEvent { token: self.token, what };
        self.owner.hub.unless_left(self.events.send(Ok(event))).await?.map_err(|_| Stop::Unheard)?;
        self.last_told = Instant::now();
        Ok(())
    }

    fn offset(&mut self, stream: LogStream) -> &mut u64 {
        match stream {
            LogStream::Stdout => &mut self.token.stdout,
            LogStream::Stderr => &mut self.token.stderr,
        }
    }
}

/// What a follower is to tell after this token.
fn query_from(token: BindToken) -> FollowQuery {
    FollowQuery {
        attempt: Some(token.attempt),
        tail: None,
        stdout_from: Some(token.stdout),
        stderr_from: Some(token.stderr),
    }
}

#[cfg(test)]
mod tests {
    use nodejobs_core::id::AttemptId;

    use super::*;

    #[test]
    fn changes_are_told_as_they_come_except_the_last_and_output_waits_for_the_start() {
        let mut statuses = Statuses::default();
        assert!(statuses.is_before_output());
        let event = |seq, status| JobEvent {
            seq,
            attempt: AttemptId { id: JobId::new("a").expect("valid"), attempt: 1 },
            status,
            reason: None,
            at: Timestamp::default(),
        };
        for (seq, (status, is_told, is_before_output)) in (5..).zip([
            (Status::Queued, true, true),
            (Status::Starting, true, true),
            (Status::Queued, true, true),
            (Status::Starting, true, true),
            (Status::Running, true, false),
            (Status::Running, false, false),
            (Status::Stopping, true, false),
            (Status::Stopped, false, false),
        ]) {
            assert!(statuses.end.is_none());
            assert_eq!(statuses.hear(event(seq, status)).is_some(), is_told, "{status}");
            assert_eq!(statuses.is_before_output(), is_before_output, "{status}");
        }
        // What comes once more changes nothing.
        for (seq, status) in [(5, Status::Queued), (10, Status::Running), (12, Status::Stopped)] {
            assert_eq!(statuses.hear(event(seq, status)), None);
            assert_eq!(statuses.known, Some(Status::Stopped));
        }
        assert_eq!(statuses.end.map(|event| event.status), Some(Status::Stopped));
    }
}
