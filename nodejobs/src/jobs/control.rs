//! What can be done with jobs that are there: waiting for several, running them again, halting and forgetting them.

use std::time::{Duration, Instant};

use nodejobs_core::record::JobRecord;
use nodejobs_core::signal::Signal;

use super::{Jobs, Mode};
use crate::api::{
    ActionAnswer, ActionResult, ConfigStatus, JobsRequest, ProblemKind, PruneAnswer, PruneRequest,
    RestartRequest, SignalRequest, WaitEvent, WaitRequest,
};
use crate::client::{Client, ClientError};
use crate::error::Error;
use crate::owner::Request;

/// What a wait for several jobs came to.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Waited {
    /// Those that ended, in the order of their ends.
    pub ended: Vec<JobRecord>,
    /// Whether the time was up before that was enough.
    pub timed_out: bool,
}

impl Jobs {
    /// Waits for several jobs: for all, or for the first that ends, and no longer than is said. The records of those that
    /// ended are in the order of their ends; with a timeout there may be fewer of them than were waited for.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`] for any of them, before anything is waited for.
    pub async fn wait_for(&self, request: &WaitRequest) -> Result<Waited, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => {
                let mut events = crate::wait::begin_wait(owner, request).await?;
                let mut waited = Waited::default();
                while let Some(event) = events.recv().await {
                    match event {
                        WaitEvent::Ended(record) => waited.ended.push(*record),
                        WaitEvent::TimedOut => waited.timed_out = true,
                        WaitEvent::Done | WaitEvent::Progress(_) => {}
                        WaitEvent::Error(problem) => return Err(problem.into()),
                    }
                }
                Ok(waited)
            }
            Mode::Connected { .. } => {
                let mut request = request.clone();
                let timeout = request.timeout_ms.map(Duration::from_millis);
                let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
                let mut waited = Waited::default();
                let wait = self.ask_on(move |client| {
                    // An owner that is gone may have told of some.
                    let is_enough = request.jobs.is_empty() || (request.any && !waited.ended.is_empty());
                    if is_enough && !waited.ended.is_empty() {
                        return Ok(std::mem::take(&mut waited));
                    }
                    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                    request.timeout_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
                    let mut events = client.wait(&request)?;
                    for ended in events.by_ref() {
                        let ended = ended?;
                        request.go_on_behind(&ended);
                        waited.ended.push(ended);
                    }
                    waited.timed_out = events.timed_out();
                    Ok(std::mem::take(&mut waited))
                });
                wait.await
            }
        }
    }

    /// Begins the next attempt of a job, as its newest one was submitted. One that has not ended is stopped first, by its
    /// own signal and grace; whoever waits for it goes on waiting for the next attempt. Returns once that is on disk.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`]; [`ProblemKind::Conflict`] for a job that is queued, or
    /// that somebody stops meanwhile.
    pub async fn restart(&self, reference: &str) -> Result<JobRecord, Error> {
        let submit_key = crate::capture::new_submit_key().map_err(|error| {
            Error::new(ProblemKind::Failed, "the kernel gives no random bytes").with_source(error)
        })?;
        let jobs = vec![reference.to_owned()];
        let request = RestartRequest { jobs, submit_key, ..RestartRequest::default() };
        the_one(self.restart_with(request).await?, reference)
    }

    /// Begins the next attempt of several jobs; those that have not ended are stopped within one grace.
    ///
    /// # Errors
    /// When the request as a whole cannot be carried out; what concerns one job is in its result.
    pub async fn restart_with(&self, request: RestartRequest) -> Result<ActionAnswer, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => Ok(owner.ask_of_all(&request.jobs.clone(), &request.into()).await),
            Mode::Connected { .. } => self.ask(move |client| client.restart(&request)).await,
        }
    }

    /// Forgets an ended job: its record, its attempts, its input, and its logs unless they are in a file that the user
    /// named. Gives the last record.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`]; [`ProblemKind::Conflict`] for a job that has not ended.
    pub async fn remove(&self, reference: &str) -> Result<JobRecord, Error> {
        self.act(reference, Request::Remove { revision: None }, Client::remove).await
    }

    /// Forgets many ended jobs at once; see [`PruneRequest`].
    ///
    /// ```no_run
    /// # async fn example(jobs: nodejobs::Jobs) -> Result<(), nodejobs::Error> {
    /// use nodejobs::api::PruneRequest;
    ///
    /// let week = 7 * 24 * 3_600_000;
    /// let gone = jobs.prune(&PruneRequest { older_than_ms: Some(week), ..PruneRequest::default() }).await?;
    /// println!("{} forgotten, {} still run", gone.jobs.len(), gone.living);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] for a condition that means nothing; [`ProblemKind::Unavailable`] if the store cannot be
    /// written, or the owner leaves meanwhile: then some of them may be gone.
    pub async fn prune(&self, request: &PruneRequest) -> Result<PruneAnswer, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.prune(request).await,
            Mode::Connected { .. } => {
                let request = request.clone();
                self.ask(move |client| client.prune(&request)).await
            }
        }
    }

    /// Halts a job with everything it started, by SIGSTOP. Its timeout goes on.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`]; [`ProblemKind::Conflict`] for a job that does not run.
    pub async fn pause(&self, reference: &str) -> Result<JobRecord, Error> {
        self.act(reference, Request::Pause, Client::pause).await
    }

    /// Lets a halted job go on. One that runs goes on running.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`]; [`ProblemKind::Conflict`] for a job that has ended, is
    /// being ended or has not begun.
    pub async fn resume(&self, reference: &str) -> Result<JobRecord, Error> {
        self.act(reference, Request::Resume, Client::resume).await
    }

    /// Sends a signal to a job's main process. What the job does with it is its own affair: if it ends of it, it has
    /// failed; whoever wants it to end [stops](Self::stop) it.
    ///
    /// ```no_run
    /// # async fn reload(jobs: nodejobs::Jobs) -> Result<(), Box<dyn std::error::Error>> {
    /// jobs.signal("server", "HUP".parse()?).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`]; [`ProblemKind::Conflict`] for a job whose main process does
    /// not live; [`ProblemKind::Usage`] for SIGSTOP and SIGCONT: [`pause`](Self::pause) and [`resume`](Self::resume).
    pub async fn signal(&self, reference: &str, signal: Signal) -> Result<JobRecord, Error> {
        the_one(self.signal_with(SignalRequest::new([reference], signal)).await?, reference)
    }

    /// Sends a signal to several jobs, or to everything that they have started as well.
    ///
    /// # Errors
    /// When the request as a whole cannot be carried out; what concerns one job is in its result.
    pub async fn signal_with(&self, request: SignalRequest) -> Result<ActionAnswer, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.signal_jobs(&request).await,
            Mode::Connected { .. } => self.ask(move |client| client.signal(&request)).await,
        }
    }

    async fn act(
        &self,
        reference: &str,
        request: Request,
        ask: fn(&Client, &JobsRequest) -> Result<ActionAnswer, ClientError>,
    ) -> Result<JobRecord, Error> {
        let jobs = JobsRequest { jobs: vec![reference.to_owned()] };
        let answer = match &self.mode {
            Mode::Owner { owner, .. } => owner.ask_of_all(&jobs.jobs, &request).await,
            Mode::Connected { .. } => self.ask(move |client| ask(client, &jobs)).await?,
        };
        the_one(answer, reference)
    }

    /// What the owner goes by: `config.toml` as it last read it.
    ///
    /// # Errors
    /// When the owner cannot be asked.
    pub async fn config(&self) -> Result<ConfigStatus, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => Ok(owner.config_status()),
            Mode::Connected { .. } => self.ask(Client::config).await,
        }
    }

    /// Has the owner go by what `config.toml` says now. A file with a mistake leaves everything as it was.
    ///
    /// # Errors
    /// [`ProblemKind::Usage`] names every mistake in the file.
    pub async fn reload(&self) -> Result<ConfigStatus, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.reload().await,
            Mode::Connected { .. } => self.ask(Client::reload_daemon).await,
        }
    }

    /// The records of all attempts of a job, the first one first.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`].
    pub async fn history(&self, reference: &str) -> Result<Vec<JobRecord>, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.history(reference).await,
            Mode::Connected { .. } => {
                let reference = reference.to_owned();
                self.ask(move |client| client.history(&reference)).await
            }
        }
    }
}

/// What became of a request about one job.
fn the_one(answer: ActionAnswer, reference: &str) -> Result<JobRecord, Error> {
    match answer.results.into_iter().next() {
        Some(ActionResult::Done { record, .. }) => Ok(*record),
        Some(ActionResult::Refused { error, .. }) => Err(error.into()),
        None => Err(Error::not_found(reference)),
    }
}
