//! What is sent to jobs while they run, and their terminals.

use nodejobs_core::spec::TerminalSize;

use super::{Jobs, Mode};
use crate::api::{ProblemKind, SendAnswer, SendRequest};
use crate::client::Terminal;
use crate::error::Error;

impl Jobs {
    /// Gives a job input that it reads from its own pipe ([`Stdin::Pipe`](crate::spec::Stdin::Pipe)) or terminal, as it is:
    /// a line ends with a newline of yours. Returns once the job's pipe or terminal has taken it.
    ///
    /// ```no_run
    /// # async fn ask(jobs: nodejobs::Jobs) -> Result<(), nodejobs::Error> {
    /// use nodejobs::spec::{Command, JobSpec, Stdin};
    ///
    /// jobs.run(JobSpec::new(Command::argv(["bc"]), "/").stdin(Stdin::Pipe).id("bc").expect("an id")).await?;
    /// jobs.send("bc", "1 + 2\n").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`]; [`ProblemKind::Conflict`] for a job that has no such input,
    /// has closed it or has ended; [`ProblemKind::Failed`] if it does not read, and so has not taken all of it within 5
    /// seconds.
    pub async fn send(&self, reference: &str, data: impl AsRef<[u8]>) -> Result<(), Error> {
        let request = SendRequest::new(data.as_ref().to_vec());
        let length = request.data.as_bytes().len();
        match self.send_with(reference, request).await? {
            SendAnswer { whole: true, .. } => Ok(()),
            SendAnswer { taken, .. } => {
                let message =
                    format!("job '{reference}' does not read: {taken} of {length} bytes were taken");
                Err(Error::new(ProblemKind::Failed, message))
            }
        }
    }

    /// Gives a job input, or the end of it. A job that does not read takes only a part, as the answer says.
    ///
    /// # Errors
    /// As [`send`](Self::send), but for the last.
    pub async fn send_with(&self, reference: &str, request: SendRequest) -> Result<SendAnswer, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => owner.send_input(reference, &request).await,
            Mode::Connected { .. } => {
                let reference = reference.to_owned();
                self.ask(move |client| client.send(&reference, &request)).await
            }
        }
    }

    /// Connects to the terminal of a job ([`Stdin::Terminal`](crate::spec::Stdin::Terminal)), which gets this size. Reading
    /// from it blocks: it is for a thread of its own.
    ///
    /// # Errors
    /// [`ProblemKind::NotFound`] or [`ProblemKind::Ambiguous`]; [`ProblemKind::Conflict`] for a job that has no terminal,
    /// has closed it or has ended.
    pub async fn attach(&self, reference: &str, size: TerminalSize) -> Result<Terminal, Error> {
        match &self.mode {
            Mode::Owner { owner, .. } => Ok(Terminal::attach(owner.terminal(reference).await?, size)?),
            Mode::Connected { .. } => {
                let reference = reference.to_owned();
                self.ask(move |client| client.attach(&reference, size)).await
            }
        }
    }
}
