//! Giving input to jobs, and finding their terminals: what is sent goes to the holder of the job's input.

use std::future::pending;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use nodejobs_core::holder::{MAX_INPUT, ToHolder, socket_name};
use nodejobs_core::job::{Input, Job};
use nodejobs_core::{RawText, Status};
use nodejobs_proc::holder;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until, timeout};

use crate::api::{ProblemKind, SendAnswer, SendRequest, TerminalPlace};
use crate::error::Error;
use crate::hub::Hub;
use crate::owner::Owner;

/// How long a holder may take to say what became of input that is taken back. It only has to look.
const HOLDER_PATIENCE: Duration = Duration::from_secs(2);

impl Owner {
    /// Gives a job input, and returns when it has taken it or the time is up.
    pub(crate) async fn send_input(
        &self,
        reference: &str,
        request: &SendRequest,
    ) -> Result<SendAnswer, Error> {
        request.check()?;
        let job = self.reading_job(reference).await?;
        if !job.definition.input.is_held() {
            return Err(conflict(
                &job,
                "gets no input; `run --stdin pipe` and `run --pty` start jobs that do",
            ));
        }
        let line = Line::connect(self, &job)?;
        // As far as a clock goes.
        let deadline = Instant::now().checked_add(Duration::from_millis(request.timeout_ms));
        let mut taken = 0;
        for piece in request.data.as_bytes().chunks(MAX_INPUT) {
            let given = line.ask(&self.hub, ToHolder::Input(piece), deadline).await;
            let given = given.map_err(|error| line_error(&job, &error, taken))?;
            taken += u64::from(given);
            if (given as usize) < piece.len() {
                return self.part_of_input(&job, taken);
            }
        }
        if request.eof {
            let ended = line.ask(&self.hub, ToHolder::End, deadline).await;
            if ended.map_err(|error| line_error(&job, &error, taken))? != 0 {
                return self.part_of_input(&job, taken);
            }
        }
        Ok(SendAnswer { taken, whole: true })
    }

    /// The answer when the job has not taken all.
    fn part_of_input(&self, job: &Job, taken: u64) -> Result<SendAnswer, Error> {
        if !self.hub.is_leaving() {
            return Ok(SendAnswer { taken, whole: false });
        }
        let message = format!("the owner leaves; {taken} bytes were given to job '{}', and no more", job.id);
        Err(Error::new(ProblemKind::Unavailable, message))
    }

    /// Where the terminal of a job is to be found.
    pub(crate) async fn terminal(&self, reference: &str) -> Result<TerminalPlace, Error> {
        let job = self.reading_job(reference).await?;
        if !matches!(job.definition.input, Input::Terminal(_)) {
            let way_out =
                "has no terminal; `logs -f` shows its output, and `run --pty` starts jobs that have one";
            return Err(conflict(&job, way_out));
        }
        let socket = self.directory.keepers().join(socket_name(&job.attempt_id()));
        let socket = RawText::from(socket.into_os_string().into_vec());
        Ok(TerminalPlace { self_id: job.id, attempt: job.state.attempt, socket })
    }

    /// A job that runs, at the latest when it has been started: whoever has its id from `run` cannot know of that moment.
    async fn reading_job(&self, reference: &str) -> Result<Job, Error> {
        let mut job = self.job(reference).await?;
        if job.state.status == Status::Starting && job.definition.input.is_held() {
            job = self.until(&job.id, |_, status| status != Status::Starting).await?;
        }
        match job.state.status {
            _ if !job.definition.input.is_held() => Ok(job),
            status if status.is_terminal() => {
                Err(conflict(&job, &format!("is {status}; it reads nothing any more")))
            }
            status @ (Status::Queued | Status::Restarting) => {
                Err(conflict(&job, &format!("is {status}; it reads nothing yet")))
            }
            _ => Ok(job),
        }
    }
}

fn conflict(job: &Job, what: &str) -> Error {
    Error::new(ProblemKind::Conflict, format!("job '{}' {what}", job.id))
}

fn line_error(job: &Job, error: &io::Error, taken: u64) -> Error {
    if error.kind() == io::ErrorKind::TimedOut {
        let message = format!(
            "the process that holds the input of job '{}' does not answer; {taken} bytes were taken, and whether more were \
             is not known",
            job.id
        );
        return Error::new(ProblemKind::Failed, message);
    }
    let some = if taken > 0 { format!("; {taken} bytes were taken before") } else { String::new() };
    conflict(job, &format!("has no open input any more: it has closed it, or somebody has ended it{some}"))
}

/// A connection to a holder.
///
/// Tokio's only safe way to wait for a descriptor it has no type for.
struct Line(pipe::Receiver);

impl Line {
    fn connect(owner: &Owner, job: &Job) -> Result<Self, Error> {
        let connected = holder::connect(&owner.directory.keepers(), &job.attempt_id())
            .and_then(pipe::Receiver::from_owned_fd_unchecked);
        match connected {
            Ok(socket) => Ok(Self(socket)),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Err(line_error(job, &error, 0))
            }
            Err(error) => {
                let message = format!("the input of job '{}' cannot be reached", job.id);
                Err(Error::new(ProblemKind::Failed, message).with_source(error))
            }
        }
    }

    /// Asks, and gives what the holder says when it is done, or has taken it back, because the deadline was there or the owner leaves.
    async fn ask(&self, hub: &Hub, message: ToHolder<'_>, deadline: Option<Instant>) -> io::Result<u32> {
        self.send(message)?;
        let time_is_up = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            taken = self.taken() => return taken,
            () = time_is_up => {}
            () = hub.left() => {}
        }
        self.send(ToHolder::Cancel)?;
        timeout(HOLDER_PATIENCE, self.taken()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// There is room: at most two messages are unanswered.
    fn send(&self, message: ToHolder<'_>) -> io::Result<()> {
        holder::send(&self.0, message)
    }

    async fn taken(&self) -> io::Result<u32> {
        let mut packet = [0; 16];
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut packet) {
                Ok(length) => return holder::taken(&packet[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
