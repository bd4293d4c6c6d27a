//! What can be asked of an owner, by this process and through the socket alike.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use nodejobs_core::array::split_element_id;
use nodejobs_core::engine::{Answer, StopRequest as EngineStop};
use nodejobs_core::filter::JobFilter;
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{Definition, Input, Job};
use nodejobs_core::record::JobRecord;
use nodejobs_core::spec::{JobSpec, Stdin};
use nodejobs_core::store::{JobStore, Order, PageRequest};
use nodejobs_core::{JobId, RawText, Status};
use nodejobs_proc::machine::now;
use tokio::sync::oneshot;

use crate::api::{
    self, ActionAnswer, ActionResult, Candidate, ConfigStatus, DaemonStatus, Hang, JobPage, ListQuery,
    LogQuery, LogStream, Problem, ProblemKind, SignalRequest, StatusQuery, StopAnswer, StopResult,
    StoreStatus,
};
use crate::arrays::{
    fill, find, is_pending, record_with_progress, refuse_element_id, refuse_output, resolve_element,
};
use crate::config::Config;
use crate::dependencies::{refusal, way_out as dependencies_way_out};
use crate::error::Error;
use crate::files::{self, Stuck};
use crate::hub::{LastChange, stopped};
use crate::log_files::{LogFile, LogPart, path_text, text_path};
use crate::owner::{Answered, Owner, Request, SubmitMessage, live_jobs};
use crate::queues::refused;
use crate::store_status::status_of;
use crate::users::Account;

impl Owner {
    /// Runs something that blocks, such as a look into the store, where nobody else has to wait for it.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn JobStore) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&*store)).await.map_err(|error| {
            Error::new(ProblemKind::Failed, "a look into the store ended with a panic").with_source(error)
        })?
    }

    /// Accepts a job. It is on disk when this returns.
    pub(crate) async fn run(&self, spec: &JobSpec, resend: bool) -> Result<JobRecord, Error> {
        self.check_limits(spec).await?;
        self.check_id(spec).await?;
        let (reply, answer) = oneshot::channel();
        self.submit(self.submit_message(spec, &HashSet::new(), resend, reply).await?)?;
        match accepted(answer.await, spec)? {
            (_, Some(job), _) => Ok(JobRecord::new(&job, now())),
            // It was there before, made by an earlier sending of the same submit, or as another one of its key.
            (id, None, existing) => {
                let record = self.record_of(self.job(id.as_str()).await?).await?;
                Ok(JobRecord { existing, ..record })
            }
        }
    }

    /// Accepts many jobs with as few flushes as can be. The answers are in the order of the specs.
    pub(crate) async fn run_batch(&self, specs: &[JobSpec]) -> Vec<Result<JobId, Error>> {
        let mut sent = Vec::with_capacity(specs.len());
        let mut before = HashSet::new();
        for spec in specs {
            let (reply, answer) = oneshot::channel();
            let checked = match self.check_limits(spec).await {
                Ok(()) => self.check_id(spec).await,
                refused => refused,
            };
            let message = match checked {
                Ok(()) => self.submit_message(spec, &before, false, reply).await,
                Err(error) => Err(error),
            };
            before.extend(spec.id.clone());
            sent.push(message.and_then(|message| self.submit(message)).map(|()| (spec, answer)));
        }
        let mut results = Vec::with_capacity(sent.len());
        for sent in sent {
            results.push(match sent {
                Ok((spec, answer)) => accepted(answer.await, spec).map(|(id, ..)| id),
                Err(error) => Err(error),
            });
        }
        results
    }

    /// Refuses an id that only an array gives.
    async fn check_id(&self, spec: &JobSpec) -> Result<(), Error> {
        match spec.id.clone().filter(|id| split_element_id(id.as_str()).is_some()) {
            Some(id) => self.blocking(move |store| Ok(refuse_element_id(store, &id)?)).await,
            None => Ok(()),
        }
    }

    /// `batch` are those that come before it in the same batch.
    pub(crate) async fn submit_message(
        &self,
        spec: &JobSpec,
        batch: &HashSet<JobId>,
        resend: bool,
        reply: oneshot::Sender<Answered>,
    ) -> Result<SubmitMessage, Error> {
        spec.validate().map_err(|error| Error::new(ProblemKind::Usage, error.to_string()))?;
        let logdir = RawText::from(self.directory.logs().into_os_string().into_vec());
        let context = serde_json::to_vec(&spec.context).map_err(|error| {
            Error::new(ProblemKind::Failed, "the launch context is no JSON").with_source(error)
        })?;
        let mut definition = Definition::new(spec, logdir, now().wall);
        // What is the user's own has none.
        let cap = if definition.logs.layout.is_shared() { Some(0) } else { spec.policy.log_cap };
        definition.policy.log_cap = Some(cap.unwrap_or_else(|| self.config.borrow().logs.cap));
        if let Some(after) = &spec.after {
            definition.after =
                Some(self.find_awaited(after, None, batch).await?).filter(|after| !after.on.is_empty());
        }
        let input = match &spec.stdin {
            Stdin::Bytes(bytes) => Some(bytes.as_bytes().to_vec()),
            Stdin::Null | Stdin::File(_) | Stdin::Pipe | Stdin::Terminal(_) => None,
        };
        let unique = spec.unique.clone();
        Ok(SubmitMessage {
            id: spec.id.clone(),
            definition,
            context,
            input,
            unique,
            array: None,
            resend,
            reply,
        })
    }

    /// Refuses limits that could not be enforced.
    pub(crate) async fn check_limits(&self, spec: &JobSpec) -> Result<(), Error> {
        let usage = |message: String| Error::new(ProblemKind::Usage, message);
        let Some(limits) = &spec.policy.limits else { return Ok(()) };
        limits.validate().map_err(|error| usage(error.to_string()))?;
        self.backend.check_limits(limits).map_err(usage)?;
        if let (Some(memory), Some(max)) = (limits.memory, self.config.borrow().limits.max_memory)
            && memory > max
        {
            let (memory, max) = (memory >> 20, max >> 20);
            return Err(usage(format!(
                "it may have {memory} MiB of memory, and all jobs together {max} MiB (max_memory)"
            )));
        }
        match limits.user.clone() {
            // Asks whoever knows the users, which may be another machine.
            Some(name) => self.blocking(move |_| Account::find(&name).map(drop).map_err(usage)).await,
            None => Ok(()),
        }
    }

    /// The job that a reference means.
    pub(crate) async fn job(&self, reference: &str) -> Result<Job, Error> {
        let reference = reference.to_owned();
        self.blocking(move |store| resolve(store, &reference)).await
    }

    pub(crate) async fn list(&self, query: &ListQuery) -> Result<JobPage, Error> {
        let request = PageRequest {
            filter: query.filter().clone(),
            order: query.order,
            after: query.after,
            limit: query.limit,
        };
        if query.usage {
            let page = self.blocking(move |store| Ok(store.jobs(&request)?)).await?;
            let arrays: Vec<Option<Job>> =
                page.jobs.iter().map(|job| job.definition.array.is_some().then(|| job.clone())).collect();
            let mut records = self.records_with_usage(page.jobs).await?;
            if arrays.iter().any(Option::is_some) {
                records = self
                    .blocking(move |store| {
                        for (record, job) in records.iter_mut().zip(&arrays) {
                            job.as_ref().map_or(Ok(()), |job| fill(store, job, record))?;
                        }
                        Ok(records)
                    })
                    .await?;
            }
            return Ok(JobPage { jobs: records, next: page.next });
        }
        self.blocking(move |store| {
            let page = store.jobs(&request)?;
            let mut jobs = records(&page.jobs);
            for (record, job) in jobs.iter_mut().zip(&page.jobs) {
                fill(store, job, record)?;
            }
            Ok(JobPage { jobs, next: page.next })
        })
        .await
    }

    pub(crate) async fn status(&self, reference: &str, query: &StatusQuery) -> Result<JobRecord, Error> {
        let job = self.job(reference).await?;
        if job.definition.array.is_some() {
            let with_progress = job.clone();
            let counted = self.blocking(move |store| record_with_progress(store, &with_progress)).await?;
            let queued = self.record_in_queue(&job).await?;
            let record = JobRecord { detail: queued.detail, ..counted };
            return self.name_awaited(job, record).await;
        }
        if !query.usage {
            let record = self.record_in_queue(&job).await?;
            return self.name_awaited(job, record).await;
        }
        let id = job.id.clone();
        self.records_with_usage(vec![job]).await?.pop().ok_or_else(|| Error::not_found(id.as_str()))
    }

    pub(crate) async fn daemon_status(&self, socket: PathBuf) -> Result<DaemonStatus, Error> {
        let jobs = self.blocking(|store| Ok(store.counts()?)).await?;
        let backend = Arc::clone(&self.backend);
        let keepers = tokio::task::spawn_blocking(move || backend.keepers()).await.unwrap_or_default();
        let store = self.store.info();
        Ok(DaemonStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_dir: path_text(self.directory.path()),
            socket: path_text(&socket),
            store: self.store_kind.to_string(),
            store_format: Some(store.format),
            store_weaker: store.weaker,
            store_trouble: self.hub.store_trouble(),
            started_at: self.started_at,
            keepers,
            jobs,
            schedules: self.hub.schedules(),
            memory_limits: self.backend.capabilities().memory_limits,
            hanging: files::stuck().into_iter().map(hang).collect(),
        })
    }

    /// What the owner goes by.
    pub(crate) fn config_status(&self) -> ConfigStatus {
        self.config.borrow().status(self.directory.path())
    }

    /// Goes by what `config.toml` says now. One with a mistake leaves everything as it was.
    pub(crate) async fn reload(&self) -> Result<ConfigStatus, Error> {
        let directory = self.directory.path().to_owned();
        let path = Config::path(&directory);
        let load = move || Config::load(&directory).map_err(|error| Error::from(error.to_problem()));
        // It may be a link to anywhere.
        let loaded = files::ask("read", &path, load).await.and_then(|loaded| loaded);
        let config = loaded.inspect_err(|error| log::warn!("{error}; the settings stay as they were"))?;
        let (quota, limits) = (config.logs.quota, config.limits.clone());
        if self.config.send_replace(Arc::new(config)).logs.quota != quota {
            self.recorder.set_quota(quota);
        }
        self.set_capacity(limits)?;
        log::info!("has read '{}' again", Config::path(self.directory.path()).display());
        Ok(self.config_status())
    }

    pub(crate) async fn store_status(&self) -> Result<StoreStatus, Error> {
        let (kind, directory) = (self.store_kind, self.directory.path().to_owned());
        let pid = std::process::id();
        self.blocking(move |store| Ok(status_of(store, kind, &directory, Some(pid))?)).await
    }

    /// Returns the job once `enough` is satisfied with its newest attempt and status.
    pub(crate) async fn until(&self, id: &JobId, enough: impl Fn(u32, Status) -> bool) -> Result<Job, Error> {
        loop {
            // Anew each time: what was heard of an ended attempt says nothing about the next one.
            let mut changes = self.hub.watch(id);
            // An element that has no job yet gets one, or its array ends before.
            let parent = split_element_id(id.as_str()).and_then(|(parent, _)| JobId::new(parent).ok());
            let mut parent = parent.map(|parent| self.hub.watch(&parent));
            let wanted = id.clone();
            let job = self.blocking(move |store| find(store, &wanted)).await?;
            let job = job.ok_or_else(|| Error::not_found(id.as_str()))?;
            if enough(job.state.attempt, job.state.status) {
                return Ok(job);
            }
            let has_ended = |change: &LastChange| change.is_some_and(|(_, status)| status.is_terminal());
            let array_ends = async {
                match parent.as_mut().filter(|_| is_pending(&job)) {
                    Some(parent) => parent.wait_for(has_ended).await.map(drop),
                    None => std::future::pending().await,
                }
            };
            let is_enough =
                |change: &LastChange| change.is_some_and(|(number, status)| enough(number, status));
            tokio::select! {
                changed = changes.wait_for(is_enough) => drop(changed.map_err(|_| stopped())?),
                ended = array_ends => ended.map_err(|_| stopped())?,
                () = self.hub.left() => return Err(stopped()),
            }
        }
    }

    /// Returns the record of the job once it has ended.
    pub(crate) async fn wait(&self, id: &JobId) -> Result<JobRecord, Error> {
        self.last_record(self.until(id, |_, status| status.is_terminal()).await?).await
    }

    /// The record of an ended job, once all that it has written to its terminal is in its log.
    pub(crate) async fn last_record(&self, job: Job) -> Result<JobRecord, Error> {
        if job.definition.array.is_some() {
            return self.blocking(move |store| record_with_progress(store, &job)).await;
        }
        self.flush_output_of(&job).await?;
        self.record_of(job).await
    }

    /// Has what an ended job has written to its terminal put into its log: a copy is made of it, which comes a moment later.
    pub(crate) async fn flush_output_of(&self, job: &Job) -> Result<(), Error> {
        if !has_copy(job) {
            return Ok(());
        }
        let (keepers, attempt) = (self.directory.keepers(), job.attempt_id());
        let flush = move || nodejobs_proc::holder::flush(&keepers, &attempt);
        if job.definition.logs.layout.is_named() {
            // Where the log cannot be written, what is there is the answer.
            let path = text_path(&job.log_paths().stdout);
            let _ = files::ask("write down output in", &path, flush).await;
            return Ok(());
        }
        let flush = move |_: &dyn JobStore| {
            flush();
            Ok(())
        };
        self.blocking(flush).await
    }

    /// The record of a job. The logs of most are measured at once.
    pub(crate) async fn record_of(&self, job: Job) -> Result<JobRecord, Error> {
        match job.definition.logs.layout.is_named() && job.state.started.is_some() {
            true => self.blocking(move |_| Ok(record(&job))).await,
            false => Ok(record(&job)),
        }
    }

    /// Ends jobs, all within one grace, and returns when they have ended or could not be.
    pub(crate) async fn stop_jobs(&self, request: &api::StopRequest) -> Result<StopAnswer, Error> {
        let references = if request.all {
            let jobs = self.blocking(|store| Ok(live_jobs(store)?)).await?;
            jobs.into_iter().map(|job| job.id.as_str().to_owned()).collect()
        } else {
            request.jobs.clone()
        };
        let how = EngineStop { signal: request.signal, grace_ms: request.grace_ms, force: request.force };
        // All are asked before any is waited for: they share the grace.
        let mut asked = Vec::with_capacity(references.len());
        for reference in references {
            let answer = match self.job(&reference).await {
                Ok(job) => self.ask_of(job, Request::Stop(how)),
                Err(error) => Err(error),
            };
            asked.push((reference, answer));
        }
        let mut results = Vec::with_capacity(asked.len());
        for (job, answer) in asked {
            let result = match answer {
                Ok((job, answer)) => self.outcome_of_stop(&job.id, answer).await,
                Err(error) => Err(error),
            };
            results.push(match result {
                Ok((record, already_ended)) => {
                    StopResult::Done { job, record: Box::new(record), already_ended }
                }
                Err(error) => StopResult::Refused { job, error: error.to_problem() },
            });
        }
        Ok(StopAnswer { results })
    }

    /// Asks something of a job. The answer is still to come.
    fn ask_of(&self, job: Job, request: Request) -> Result<Asked, Error> {
        let (reply, answer) = oneshot::channel();
        self.ask(job.id.clone(), request, reply)?;
        Ok((job, answer))
    }

    /// Asks the same of several jobs, all before the first answer is waited for.
    pub(crate) async fn ask_of_all(&self, references: &[String], request: &Request) -> ActionAnswer {
        let mut asked = Vec::with_capacity(references.len());
        for reference in references {
            let job = match self.job(reference).await {
                Ok(job) => self.meant(job, request).await,
                Err(error) => Err(error),
            };
            asked.push((reference.clone(), job.and_then(|(job, request)| self.ask_of(job, request))));
        }
        let mut results = Vec::with_capacity(asked.len());
        for (job, asked) in asked {
            let result = match asked {
                Ok((found, answer)) => match self.answered(request, &found, answer).await {
                    Ok(answered) => self.outcome_of(request, found, answered).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            results.push(match result {
                Ok(record) => ActionResult::Done { job, record: Box::new(record) },
                Err(error) => ActionResult::Refused { job, error: error.to_problem() },
            });
        }
        ActionAnswer { results }
    }

    /// What is really to be asked, of which job.
    async fn meant(&self, job: Job, request: &Request) -> Result<(Job, Request), Error> {
        match request {
            Request::Restart { .. } => self.restart_of(job, request).await,
            Request::Remove { .. } => {
                self.refuse_element(&job).await?;
                Ok((job, request.clone()))
            }
            _ => Ok((job, request.clone())),
        }
    }

    /// The answer, which for a job that is being started is asked for again once it runs: whoever has its id from
    /// `run` cannot know of that moment.
    async fn answered(
        &self,
        request: &Request,
        job: &Job,
        mut answer: oneshot::Receiver<Answered>,
    ) -> Result<Answered, Error> {
        loop {
            let answered = answer.await.map_err(|_| stopped())?;
            let is_early = matches!(answered.answer, Answer::Conflict { status: Some(Status::Starting) });
            if !is_early || !matches!(request, Request::Pause | Request::Resume | Request::Signal { .. }) {
                return Ok(answered);
            }
            self.until(&job.id, |_, status| status != Status::Starting).await?;
            (_, answer) = self.ask_of(job.clone(), request.clone())?;
        }
    }

    /// Sends a signal to jobs that have processes.
    pub(crate) async fn signal_jobs(&self, request: &SignalRequest) -> Result<ActionAnswer, Error> {
        request.check()?;
        Ok(self.ask_of_all(&request.jobs, &request.into()).await)
    }

    /// Asks something of one job.
    pub(crate) async fn ask_of_one(&self, job: Job, request: &Request) -> Result<JobRecord, Error> {
        let (job, answer) = self.ask_of(job, request.clone())?;
        let answered = self.answered(request, &job, answer).await?;
        self.outcome_of(request, job, answered).await
    }

    async fn outcome_of(
        &self,
        request: &Request,
        job: Job,
        Answered { answer, job: begun }: Answered,
    ) -> Result<JobRecord, Error> {
        if let Some(error) = refusal(&answer, job.id.as_str()) {
            return Err(error);
        }
        let is_array = job.definition.array.is_some();
        let way_out = |status| match (request, status) {
            (Request::Depend { .. }, _) => dependencies_way_out(status),
            (Request::Pause | Request::Resume | Request::Signal { .. }, _) if is_array => {
                "an array has no process itself; name its elements, or stop it"
            }
            (Request::Pause | Request::Resume, _) => {
                "only a running job can be paused, and only a paused one resumed"
            }
            (Request::Signal { .. }, _) => "it has no process that could get the signal",
            (Request::Restart { .. }, Some(Status::Stopping | Status::FailedStop)) => {
                "somebody wants it stopped; restart it again once it is"
            }
            (Request::Edit(_), _) => "only a queued job can be changed",
            (Request::Restart { .. }, Some(status))
                if status.is_terminal() && job.definition.is_element() =>
            {
                "its array still runs, and can run it again once that has ended"
            }
            (Request::RestartArray { .. }, _) => "it has changed meanwhile; try again",
            (Request::Stop(_) | Request::Restart { .. } | Request::Remove { .. }, _) => "stop it first",
        };
        match (answer, begun) {
            (Answer::Removed(_), _) => {
                self.deletions.finished(&job.id).await;
                if job.definition.array.is_some() {
                    self.forget_elements(&job.id).await?;
                }
                Ok(JobRecord::new(&job, now()))
            }
            (Answer::Accepted(_), Some(begun)) if begun.definition.array.is_some() => {
                self.on_done_wanted.send_modify(|count| *count += 1);
                self.blocking(move |store| record_with_progress(store, &begun)).await
            }
            (Answer::Accepted(_), Some(begun)) => self.record_of(*begun).await,
            // Done, or begun before by an earlier sending of the same request.
            (Answer::Edited(_), _) => {
                let job = self.job(job.id.as_str()).await?;
                self.record_in_queue(&job).await
            }
            (Answer::Refused(refusal), _) => Err(refused(&refusal)),
            (Answer::Accepted(_) | Answer::Done, _) => self.record_of(self.job(job.id.as_str()).await?).await,
            (Answer::Conflict { status }, _) => {
                let way_out = way_out(status);
                let status = status.map_or("changing", Status::as_str);
                Err(Error::new(ProblemKind::Conflict, format!("job '{}' is {status}; {way_out}", job.id)))
            }
            // Ended, or removed, since it was looked up.
            (Answer::NotLive, _) => {
                let status = self.job(job.id.as_str()).await?.state.status;
                let way_out = way_out(Some(status));
                Err(Error::new(ProblemKind::Conflict, format!("job '{}' is {status}; {way_out}", job.id)))
            }
            (Answer::Full { why }, _) => Err(full(&why)),
            (Answer::NotStored, _) if matches!(request, Request::Depend { .. }) => Err(Error::new(
                ProblemKind::Unavailable,
                "the store cannot be written; the job waits as was asked for, which is written as soon as it can be",
            )),
            (Answer::NotStored, _) if matches!(request, Request::Edit(_)) => Err(Error::new(
                ProblemKind::Unavailable,
                format!("the store cannot be written; job '{}' is changed as soon as it can be", job.id),
            )),
            (Answer::NotStored, _) => {
                let message = format!(
                    "the store cannot be written, so nothing was done to job '{}'; `nodejobs doctor` says more",
                    job.id
                );
                Err(Error::new(ProblemKind::Unavailable, message))
            }
            (
                Answer::Stopping(_)
                | Answer::Existing(_)
                | Answer::NoDependency(_)
                | Answer::Cycle(_)
                | Answer::Needed { .. }
                | Answer::Scheduled
                | Answer::GroupChanged,
                _,
            ) => Err(stopped()),
        }
    }

    /// The records of all attempts of a job, the first one first.
    pub(crate) async fn history(&self, reference: &str) -> Result<Vec<JobRecord>, Error> {
        let reference = reference.to_owned();
        self.blocking(move |store| {
            let attempts = store.attempts(&resolve(store, &reference)?.id)?;
            let later = (1..=attempts.len()).map(|next| &attempts[next..]);
            Ok(attempts.iter().zip(later).map(|(job, later)| record_before(job, later)).collect())
        })
        .await
    }

    async fn outcome_of_stop(
        &self,
        id: &JobId,
        answer: oneshot::Receiver<Answered>,
    ) -> Result<(JobRecord, bool), Error> {
        let answer = answer.await.map_err(|_| stopped())?.answer;
        // A later attempt is not this stop's affair: somebody restarts the job.
        let own = match &answer {
            Answer::Stopping(AttemptId { attempt, .. }) => *attempt,
            _ => u32::MAX,
        };
        let settled =
            |newest, status: Status| newest > own || status.is_terminal() || status == Status::FailedStop;
        let mut job = self.until(id, settled).await?;
        if job.state.attempt > own {
            let reference = id.to_string();
            job = self.blocking(move |store| attempt_of(store, &reference, Some(own))).await?;
        }
        Ok((self.last_record(job).await?, answer == Answer::NotLive))
    }

    /// Has it noted when everything was written that an attempt has written up to now.
    pub(crate) async fn look_at_output_of(&self, reference: &str, attempt: Option<u32>) -> Result<(), Error> {
        let reference = reference.to_owned();
        let job = self.blocking(move |store| attempt_of(store, &reference, attempt)).await?;
        if !job.state.status.is_terminal() {
            self.recorder.look(job.attempt_id()).await;
        }
        Ok(())
    }

    /// The part of an attempt's output that is wanted, as long as it is now.
    pub(crate) async fn log(
        &self,
        reference: &str,
        stream: LogStream,
        query: &LogQuery,
    ) -> Result<LogPart, Error> {
        let (reference, attempt) = (reference.to_owned(), query.attempt);
        let find = self.blocking(move |store| {
            let job = attempt_of(store, &reference, attempt)?;
            let [stdout, stderr] = LogFile::both(store, &job)?;
            Ok(match stream {
                LogStream::Stdout => (job, stdout),
                LogStream::Stderr => (job, stderr),
            })
        });
        let (job, file) = find.await?;
        self.flush_output_of(&job).await?;
        match file {
            Some(file) => file.part(self, query).await,
            None => Ok(LogPart::default()),
        }
    }
}

fn hang(stuck: Stuck) -> Hang {
    let Stuck { doing, path, since, waiting } = stuck;
    Hang { doing: doing.to_owned(), path: path_text(&path), since, waiting }
}

/// Whether the log of an ended job is a copy, of which something may still be missing.
fn has_copy(job: &Job) -> bool {
    job.state.status.is_terminal() && matches!(job.definition.input, Input::Terminal(_))
}

/// The record of a job, with the size of its logs.
pub(crate) fn record(job: &Job) -> JobRecord {
    record_before(job, &[])
}

/// The record of an attempt; `None` if it is forgotten.
pub(crate) fn record_of_attempt(
    store: &dyn JobStore,
    attempt: &AttemptId,
) -> Result<Option<JobRecord>, Error> {
    let attempts = store.attempts(&attempt.id)?;
    let place = attempts.iter().position(|job| job.state.attempt == attempt.attempt);
    let Some(place) = place else { return Ok(None) };
    let mut record = record_before(&attempts[place], &attempts[place + 1..]);
    if place + 1 == attempts.len() {
        fill(store, &attempts[place], &mut record)?;
    }
    Ok(Some(record))
}

/// The record of an attempt, with those after it.
fn record_before(job: &Job, later: &[Job]) -> JobRecord {
    let mut record = JobRecord::new(job, now());
    measure([(&mut record, job, later)]);
    record
}

/// The records of jobs, whose logs are measured together.
pub(crate) fn records(jobs: &[Job]) -> Vec<JobRecord> {
    let mut records: Vec<JobRecord> = jobs.iter().map(|job| JobRecord::new(job, now())).collect();
    measure(records.iter_mut().zip(jobs).map(|(record, job)| (record, job, &[][..])));
    records
}

/// Adds how much was written by those that were executed.
fn measure<'a>(attempts: impl IntoIterator<Item = (&'a mut JobRecord, &'a Job, &'a [Job])>) {
    let outputs = |job: &Job, later: &[Job]| {
        [LogStream::Stdout, LogStream::Stderr].map(|stream| LogFile::of(job, later, stream))
    };
    let executed = attempts.into_iter().filter(|(_, job, _)| job.state.started.is_some());
    let (records, outputs): (Vec<_>, Vec<_>) =
        executed.map(|(record, job, later)| (record, outputs(job, later))).unzip();
    for (record, kept) in records.into_iter().zip(LogFile::kept_bytes(outputs)) {
        record.log_bytes = kept;
    }
}

type Asked = (Job, oneshot::Receiver<Answered>);

/// With whether it is another one of its key.
pub(crate) type Accepted = (JobId, Option<Box<Job>>, bool);

pub(crate) fn accepted(
    answered: Result<Answered, oneshot::error::RecvError>,
    spec: &JobSpec,
) -> Result<Accepted, Error> {
    let Answered { answer, job } = answered.map_err(|_| stopped())?;
    if let Some(error) = refusal(&answer, spec.id.as_ref().map_or("", JobId::as_str)) {
        return Err(error);
    }
    match answer {
        Answer::Accepted(attempt) => Ok((attempt.id, job, false)),
        Answer::Existing(attempt) => Ok((attempt.id, None, true)),
        Answer::Conflict { status } => {
            let id = spec.id.as_ref().map_or("the generated id", JobId::as_str);
            let status = status.map_or("in use", Status::as_str);
            Err(Error::new(
                ProblemKind::Conflict,
                format!("job '{id}' is {status}; stop it first, or choose another id"),
            ))
        }
        Answer::Full { why } => Err(full(&why)),
        Answer::Refused(refusal) => Err(refused(&refusal)),
        Answer::NotStored => Err(Error::new(
            ProblemKind::Unavailable,
            "the store cannot be written, so the job was not accepted; `nodejobs doctor` says more",
        )),
        Answer::Stopping(_)
        | Answer::NotLive
        | Answer::Done
        | Answer::Removed(_)
        | Answer::NoDependency(_)
        | Answer::Cycle(_)
        | Answer::Needed { .. }
        | Answer::Scheduled
        | Answer::GroupChanged
        | Answer::Edited(_) => Err(stopped()),
    }
}

/// There is no room, and nobody is to wait for some.
fn full(why: &str) -> Error {
    let message = format!("there is no room for another job: {why}; try again once one has ended");
    Error::new(ProblemKind::Conflict, message)
}

/// The job that an id, a unique beginning of an id, or a unique name means.
pub(crate) fn resolve(store: &dyn JobStore, reference: &str) -> Result<Job, Error> {
    if let Ok(id) = JobId::new(reference)
        && let Some(job) = store.job(&id)?
    {
        return Ok(job);
    }
    if let Some(element) = resolve_element(store, reference)? {
        return Ok(element);
    }
    let look = |filter: JobFilter| -> Result<Vec<Job>, Error> {
        let request =
            PageRequest { filter, order: Order::NewestFirst, after: None, limit: Candidate::COUNTED };
        Ok(store.jobs(&request)?.jobs)
    };
    // The beginning of an array's id is that of all its elements' ids, and means the array.
    let own = JobFilter { is_element: Some(false), ..JobFilter::default() };
    let mut found = look(JobFilter { name: Some(reference.to_owned()), ..own.clone() })?;
    match JobId::new(reference) {
        Ok(prefix) => {
            let by_prefix = look(JobFilter { id_prefix: Some(prefix.as_str().to_owned()), ..own.clone() })?;
            found.extend(by_prefix);
        }
        // What cannot be an id may still be a name; if it is not, the rule it breaks is the more helpful answer.
        Err(error) if found.is_empty() => {
            let message = format!("no job has the name '{reference}', and it is no id: {error}");
            return Err(Error::new(ProblemKind::Usage, message));
        }
        Err(_) => {}
    }
    found.sort_by_key(|job| Reverse(job.seq));
    found.dedup_by_key(|job| job.seq);
    found.truncate(Candidate::COUNTED);
    match found.len() {
        0 => Err(Error::not_found(reference)),
        1 => found.pop().ok_or_else(|| Error::not_found(reference)),
        _ => {
            let fitting: Vec<_> = found.iter().map(Candidate::from).collect();
            Err(Problem::ambiguous(reference, &fitting).into())
        }
    }
}

/// One attempt of a job, the newest if none is named.
pub(crate) fn attempt_of(store: &dyn JobStore, reference: &str, attempt: Option<u32>) -> Result<Job, Error> {
    let newest = resolve(store, reference)?;
    refuse_output(&newest)?;
    let Some(number) = attempt.filter(|number| *number != newest.state.attempt) else { return Ok(newest) };
    let attempts = store.attempts(&newest.id)?;
    let oldest = attempts.first().map_or(1, |job| job.state.attempt);
    attempts.into_iter().find(|job| job.state.attempt == number).ok_or_else(|| {
        let (id, last) = (&newest.id, newest.state.attempt);
        let message = if (1..oldest).contains(&number) {
            format!("attempt {number} of job '{id}' is not kept any more; the oldest that is, is {oldest}")
        } else {
            format!("job '{id}' has no attempt {number}; its newest is {last}")
        };
        Error::new(ProblemKind::NotFound, message)
    })
}
