//! Streams of a data directory: every status event, and everything that happens to one job.

use std::sync::{Arc, Mutex, PoisonError};

use nodejobs_core::store::JobEvent;
use tokio::sync::{mpsc, oneshot};

use super::next_owner::NextOwner;
use super::{Jobs, Mode, spawn_thread};
use crate::api::{BindEvent, BindQuery, EventsQuery, ProblemKind, StatusEvent};
use crate::bind::bind;
use crate::client::{Client, ClientError, HangUp};
use crate::error::Error;
use crate::events::newest_event;

impl Jobs {
    /// Every status event of the data directory after this number, in order and without a gap: first those that are
    /// in the store, then each as it comes. With 0 from the beginning; with [`newest_event`](Self::newest_event) only
    /// what is new.
    ///
    /// A job has an event whenever its record changes, so a status may come twice, such as `running` again when the
    /// main process has ended and others of its tree are still there. Events of removed jobs stay.
    ///
    /// The stream does not end by itself, and goes on with the next owner if there is one within
    /// [a few seconds](Client::NEXT_OWNER); an error is its last item. Whoever keeps the [`seq`](JobEvent::seq) of the
    /// last event goes on there, with this owner or the next. A slow listener makes nobody wait and takes no memory.
    ///
    /// ```no_run
    /// # async fn example(jobs: nodejobs::Jobs) -> Result<(), nodejobs::Error> {
    /// use nodejobs::Status;
    ///
    /// let mut events = jobs.events(jobs.newest_event().await?).await?;
    /// while let Some(event) = events.recv().await {
    ///     let event = event?; // after an error: events(last seq) goes on
    ///     match event.status {
    ///         Status::Running => println!("{} started", event.attempt.id),
    ///         status if status.is_terminal() => println!("{} is {status}", event.attempt.id),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProblemKind::Unavailable`] when the owner cannot be reached.
    pub async fn events(&self, after: u64) -> Result<mpsc::Receiver<Result<JobEvent, Error>>, Error> {
        let query = EventsQuery { after, follow: true };
        match &self.mode {
            Mode::Owner { owner, .. } => {
                let mut events = crate::events::events(owner, &query);
                let (sender, receiver) = mpsc::channel(16);
                tokio::spawn(async move {
                    while let Some(event) = events.recv().await {
                        let event = match event {
                            StatusEvent::Status(event) => Ok(event),
                            StatusEvent::Error(problem) => Err(problem.into()),
                            StatusEvent::Done { .. } => return,
                        };
                        if sender.send(event).await.is_err() {
                            return;
                        }
                    }
                });
                Ok(receiver)
            }
            Mode::Connected { .. } => {
                let open = |client: &Client, query: &mut EventsQuery| client.events(query);
                let heard = |query: &mut EventsQuery, event: &JobEvent| query.after = event.seq;
                self.stream(query, open, heard, |event| event.map_err(Error::from)).await
            }
        }
    }

    /// The number of the newest status event, 0 if there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn newest_event(&self) -> Result<u64, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.blocking(newest_event).await,
            Mode::Connected { .. } => self.ask(Client::newest_event).await,
        }
    }

    /// Everything that happens to a job, in order: each status that an attempt has, what it writes, and its end, after
    /// which the stream ends. It begins with the beginning of the attempt, however long ago that was.
    ///
    /// Each event carries a [token](crate::api::BindToken). Binding again with it goes on behind that event, without
    /// loss or repetition: over a new connection, with the next owner, and also when a further attempt began meanwhile.
    ///
    /// By default this is about one attempt, the newest when it is called;
    /// [`further_attempts`](BindQuery::further_attempts) goes on with those that follow it. A heartbeat, which says
    /// that nothing happened and somebody is there, comes only if [`heartbeat_ms`](BindQuery::heartbeat_ms) asks for it.
    ///
    /// The stream goes on with the next owner if there is one within [a few seconds](Client::NEXT_OWNER). An error is the
    /// last item. Dropping the receiver ends the binding; the job does not notice.
    ///
    /// ```standalone_crate
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use nodejobs::spec::{Command, JobSpec};
    /// # nodejobs::serve_keeper_if_asked();
    /// # let directory = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let jobs = nodejobs::Jobs::open(directory.path().join("jobs")).await?;
    /// # let spec = JobSpec::new(Command::shell("echo one; echo two"), "/").id("nightly")?;
    /// # jobs.run(spec.context(nodejobs::capture_context()?)).await?;
    /// use nodejobs::api::{BindQuery, Bound, LogStream};
    ///
    /// let mut written = Vec::new();
    /// let mut on_output = |stream: LogStream, bytes: &[u8]| {
    ///     println!("{stream}: {} bytes", bytes.len());
    ///     written.extend_from_slice(bytes);
    /// };
    /// let mut query = BindQuery::default();
    /// let mut events = jobs.bind("nightly", &query).await?;
    /// while let Some(event) = events.recv().await {
    ///     let event = event?; // after an error: bind again with `query` goes on
    ///     query.token = Some(event.token);
    ///     match event.what {
    ///         Bound::Status(event) => println!("is {}", event.status),
    ///         Bound::Output(chunk) => on_output(chunk.stream, &chunk.bytes),
    ///         Bound::Truncated { stream, .. } => println!("{stream} begins anew"),
    ///         Bound::Heartbeat => println!("nothing new"),
    ///         Bound::Ended(record) => println!("exit code {:?}", record.exit_code),
    ///         Bound::Now(_) => {} // only with `only_now`
    ///     }
    /// }
    /// assert_eq!(written, b"one\ntwo\n");
    /// # jobs.close().await;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`] for the job, [`ProblemKind::NotFound`] for an attempt
    /// that it does not have, [`ProblemKind::Usage`] for the token of another job.
    pub async fn bind(
        &self,
        reference: &str,
        query: &BindQuery,
    ) -> Result<mpsc::Receiver<Result<BindEvent, Error>>, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => bind(owner, reference, query).await,
            Mode::Connected { .. } => {
                let query = (reference.to_owned(), query.clone());
                let open = |client: &Client, (job, query): &mut (String, BindQuery)| client.bind(job, query);
                let heard =
                    |(_, query): &mut (String, BindQuery), event: &BindEvent| query.go_on_behind(event);
                self.stream(query, open, heard, |event| event.map_err(Error::from)).await
            }
        }
    }

    /// What the owner that this process is connected to tells, item by item, and after it the next owner: `heard` has the
    /// query ask for what comes behind an item. The connection ends with the receiver.
    pub(super) async fn stream<Q, I, T, U>(
        &self,
        mut query: Q,
        open: fn(&Client, &mut Q) -> Result<I, ClientError>,
        heard: fn(&mut Q, &T),
        item: fn(Result<T, ClientError>) -> U,
    ) -> Result<mpsc::Receiver<U>, Error>
    where
        Q: Send + 'static,
        I: Iterator<Item = Result<T, ClientError>> + 'static,
        T: 'static,
        U: Send + 'static,
    {
        let data_dir = self.connected_to()?;
        let (sender, receiver) = mpsc::channel(16);
        let listener = sender.clone();
        let (opened, is_open) = oneshot::channel();
        let (running, ended) = oneshot::channel::<()>();
        let current = Arc::new(Mutex::new(None));
        let connection = Arc::clone(&current);
        spawn_thread(move || {
            let _running = running;
            let ask = |query: &mut Q| {
                let (client, hang_up) = Client::connect_with_hang_up(&data_dir)?;
                let items = open(&client, query)?;
                *connection.lock().unwrap_or_else(PoisonError::into_inner) = Some(hang_up);
                Ok(items)
            };
            let (answer, mut items) = match ask(&mut query) {
                Ok(items) => (Ok(()), Some(items)),
                Err(error) => (Err(error), None),
            };
            if opened.send(answer).is_err() {
                return;
            }
            let mut next_owner = NextOwner::default();
            while let Some(mut told) = items.take() {
                let cut = told.by_ref().find_map(|told| match told {
                    Ok(told) => {
                        next_owner.has_come();
                        heard(&mut query, &told);
                        sender.blocking_send(item(Ok(told))).err().map(|_| None)
                    }
                    Err(error) => Some(Some(error)),
                });
                let Some(Some(error)) = cut else { return };
                let again = next_owner.wait(error, || sender.is_closed(), || ask(&mut query));
                items = match again {
                    Ok(items) => Some(items),
                    Err(error) => {
                        // Nobody may be there to hear it.
                        let _ = sender.blocking_send(item(Err(error)));
                        None
                    }
                };
            }
        })?;
        is_open.await.map_err(|error| {
            Error::new(ProblemKind::Failed, "a request to the owner ended with a panic").with_source(error)
        })??;
        // The thread waits for the owner, who may have nothing to say for ever: somebody has to tell it to stop.
        tokio::spawn(async move {
            tokio::select! {
                () = listener.closed() => {
                    let current = current.lock().unwrap_or_else(PoisonError::into_inner);
                    current.iter().for_each(HangUp::now);
                }
                _ = ended => {}
            }
        });
        Ok(receiver)
    }
}
