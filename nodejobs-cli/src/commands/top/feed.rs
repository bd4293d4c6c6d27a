//! What `top` hears of: keys, signals, events, and answers of the daemon, each from a thread that may wait for it.

use std::io::Read as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::spawn;

use nodejobs::Status;
use nodejobs::api::{
    ActionResult, EventsQuery, JobsRequest, ListQuery, LogQuery, LogStream, RestartRequest, StopRequest,
    StopResult,
};
use nodejobs::client::Client;
use nodejobs::record::JobRecord;
use nodejobs::signal::Signal;
use ratatui::crossterm::event::{Event, KeyEvent, KeyEventKind, read};

use crate::connect::{Connection, Target};
use crate::exit::{FAILED, Failure};
use crate::output::outcome;
use crate::watch;

/// Of jobs that have ended so many are shown.
const ENDED: usize = 100;
/// Of a log so many last lines are shown.
const LINES: u64 = 1000;

/// Something that `top` hears of.
pub(super) enum News {
    Key(KeyEvent),
    /// The terminal has another size.
    Drawn,
    /// A job reached a status.
    Changed,
    Jobs(Vec<JobRecord>),
    /// The end of a log, by the job that it is of.
    Log(String, Vec<u8>),
    /// What was done to a job, and how it stands now.
    Done(Box<JobRecord>, String),
    /// Something to say.
    Said(String),
    Failed(Failure),
    Signal(Signal),
}

/// What is done to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Stop,
    Restart,
    Pause,
    Resume,
}

/// Threads that end with the program.
pub(super) struct Feed {
    target: Target,
    news: Sender<News>,
    looks: Sender<Option<(String, LogStream)>>,
}

impl Feed {
    pub(super) fn start(target: Target, news: Sender<News>) -> Self {
        let (looks, asked) = channel();
        let to = || (target.clone(), news.clone());
        let (keys, signals) = (news.clone(), news.clone());
        spawn(move || tell_keys(&keys));
        spawn(move || tell_signals(&signals));
        let (events_of, events) = to();
        spawn(move || {
            let Err(failure) = tell_events(&events_of, &events) else { return };
            let _ = events.send(News::Failed(failure));
        });
        let (looks_at, answers) = to();
        spawn(move || {
            let Err(failure) = answer_looks(&looks_at, &asked, &answers) else { return };
            let _ = answers.send(News::Failed(failure));
        });
        Self { target, news, looks }
    }

    /// Asks for the jobs, and for the end of a log.
    pub(super) fn look(&self, log: Option<(String, LogStream)>) {
        let _ = self.looks.send(log);
    }

    /// Does something to a job, however long that takes.
    pub(super) fn act(&self, action: Action, id: String) {
        let (target, news) = (self.target.clone(), self.news.clone());
        spawn(move || {
            let told = match act(&target, action, &id) {
                Ok(record) => {
                    let words = match action {
                        Action::Stop => outcome(&record),
                        _ => format!("{}, attempt {}", record.status, record.attempt),
                    };
                    News::Done(record, format!("{id}: {words}"))
                }
                Err(Failure::ClosedPipe) => return,
                Err(Failure::Error { message, .. }) => News::Said(message),
            };
            let _ = news.send(told);
        });
    }
}

fn tell_keys(news: &Sender<News>) {
    loop {
        let heard = match read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => News::Key(key),
            Ok(Event::Resize(..)) => News::Drawn,
            Ok(_) => continue,
            Err(error) => News::Failed(Failure::caused(FAILED, "cannot read from the terminal", &error)),
        };
        let is_last = matches!(heard, News::Failed(_));
        if news.send(heard).is_err() || is_last {
            return;
        }
    }
}

fn tell_signals(news: &Sender<News>) {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]) else { return };
    for number in signals.forever() {
        if let Ok(signal) = number.to_string().parse() {
            let _ = news.send(News::Signal(signal));
        }
    }
}

fn tell_events(target: &Target, news: &Sender<News>) -> Result<(), Failure> {
    let mut connection = target.connect()?;
    let after = connection.ask(Client::newest_event)?;
    watch::events(&mut connection, EventsQuery { after, follow: true }, |_| {
        news.send(News::Changed).map_err(|_| Failure::ClosedPipe)
    })
}

fn answer_looks(
    target: &Target,
    asked: &Receiver<Option<(String, LogStream)>>,
    news: &Sender<News>,
) -> Result<(), Failure> {
    let mut connection = target.connect()?;
    while let Ok(log) = asked.recv() {
        if let Some((id, stream)) = log {
            let query = LogQuery { tail: Some(LINES), ..LogQuery::default() };
            let read = connection.ask(|client| {
                let mut bytes = Vec::new();
                // What is cut off is there at the next look.
                let _ = client.log(&id, stream, &query)?.read_to_end(&mut bytes);
                Ok(bytes)
            });
            let told = match read {
                Ok(bytes) => News::Log(id, bytes),
                Err(Failure::Error { message, .. }) => News::Said(message),
                Err(Failure::ClosedPipe) => return Ok(()),
            };
            let _ = news.send(told);
        }
        if news.send(News::Jobs(jobs(&mut connection)?)).is_err() {
            break;
        }
    }
    Ok(())
}

/// The jobs that are shown.
pub(super) fn jobs(connection: &mut Connection<'_>) -> Result<Vec<JobRecord>, Failure> {
    let mut page = |is_wanted: fn(Status) -> bool, limit| {
        let mut query = ListQuery::default();
        query.limit = limit;
        query.usage = true;
        let statuses: Vec<_> = Status::ALL.into_iter().filter(|status| is_wanted(*status)).collect();
        let statuses = statuses.iter().map(|status| status.as_str()).collect::<Vec<_>>().join(",");
        query.require("status", &statuses).map_err(|error| Failure::new(FAILED, error.to_string()))?;
        connection.ask(|client| client.list(&query)).map(|page| page.jobs)
    };
    let mut jobs = page(|status| !status.is_terminal(), ListQuery::MAX_LIMIT)?;
    let ended = page(Status::is_terminal, ENDED)?;
    // One that ended in between is in both.
    let known: std::collections::HashSet<_> = ended.iter().map(|job| job.self_id.clone()).collect();
    jobs.retain(|job| !known.contains(&job.self_id));
    jobs.extend(ended);
    Ok(jobs)
}

fn act(target: &Target, action: Action, id: &str) -> Result<Box<JobRecord>, Failure> {
    let mut connection = target.connect()?;
    let jobs = vec![id.to_owned()];
    let request = JobsRequest { jobs: jobs.clone() };
    let nothing = || Failure::new(FAILED, format!("the daemon said nothing about '{id}'"));
    let results = match action {
        Action::Stop => {
            let request = StopRequest { jobs, ..StopRequest::default() };
            let answer = connection.ask(|client| client.stop(&request))?;
            return match answer.results.into_iter().next().ok_or_else(nothing)? {
                StopResult::Done { record, .. } => Ok(record),
                StopResult::Refused { error, .. } => Err(error.into()),
            };
        }
        Action::Restart => {
            let submit_key = nodejobs::new_submit_key()
                .map_err(|error| Failure::caused(FAILED, "cannot get random bytes", &error))?;
            let request = RestartRequest { jobs, submit_key, ..RestartRequest::default() };
            connection.ask(|client| client.restart(&request))?.results
        }
        Action::Pause => connection.ask(|client| client.pause(&request))?.results,
        Action::Resume => connection.ask(|client| client.resume(&request))?.results,
    };
    match results.into_iter().next().ok_or_else(nothing)? {
        ActionResult::Done { record, .. } => Ok(record),
        ActionResult::Refused { error, .. } => Err(error.into()),
    }
}
