//! `nodejobs attach`: a job's terminal on that of the user.

mod keys;
mod user;

use std::io::{self, Write as _};

use clap::Args;
use nodejobs::api::FollowQuery;
use nodejobs::client::Terminal;
use nodejobs::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};

use crate::connect::Target;
use crate::exit::{FAILED, Failure, USAGE, job_code, mirrored, say};
use crate::watch;
use keys::{DetachKeys, Watch};
use user::{RawTerminal, Signals};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Attach {
    /// Its id, a unique beginning of it, or a unique name
    #[arg(value_name = "ID")]
    job: String,
    /// The keys that end this and leave the job running
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    detach_keys: DetachKeys,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs run --id shell --pty -- bash
  nodejobs attach shell               Ctrl-P Ctrl-Q detaches, and bash goes on
  nodejobs attach --detach-keys 'ctrl-\\' shell

Every key goes to the job, Ctrl-C as well. Several may be attached at once; the job's terminal has the size of the one \
that was attached or resized last. Without a terminal there are `logs -f` and `send`.

Exit status: that of the job, as with `wait`; 0 if it was detached; 125 if it could not be attached.";

/// How an attachment ended.
enum Ended {
    /// By the job.
    ByJob,
    /// By the keys, or because the user's terminal is gone.
    Detached,
    BySignal(Signal),
}

impl Attach {
    pub(crate) fn execute(self, target: &Target) -> Result<u8, Failure> {
        mirrored(self.attach(target))
    }

    fn attach(&self, target: &Target) -> Result<u8, Failure> {
        super::require_references(std::slice::from_ref(&self.job))?;
        if !user::is_terminal() {
            let message =
                "this is not a terminal; `logs -f` shows the job's output, and `send` gives it input";
            return Err(Failure::new(USAGE, message));
        }
        let mut connection = target.connect()?;
        let terminal = connection.ask(|client| client.attach(&self.job, user::size()))?;
        let cannot = |error: io::Error| Failure::caused(FAILED, "cannot use this terminal", &error);
        let signals = Signals::watch().map_err(cannot)?;
        let raw = RawTerminal::make().map_err(cannot)?;
        let ended = stay(&terminal, &signals, &mut Watch::for_keys(&self.detach_keys));
        drop(raw);
        let id = terminal.place().self_id.to_string();
        match ended
            .map_err(|error| Failure::caused(FAILED, format!("the terminal of '{id}' broke off"), &error))?
        {
            Ended::Detached => {
                say(&format_args!("detached; '{id}' goes on, and `nodejobs attach {id}` shows it again"));
                Ok(0)
            }
            Ended::BySignal(signal) => nodejobs::end_by_signal(signal),
            Ended::ByJob => {
                let attempt = Some(terminal.place().attempt);
                let query = FollowQuery { attempt, tail: Some(0), ..FollowQuery::default() };
                Ok(job_code(&watch::follow(&mut connection, &id, query, |_| Ok(()))?))
            }
        }
    }
}

/// Passes on what is typed and what is shown.
fn stay(terminal: &Terminal, signals: &Signals, watch: &mut Watch<'_>) -> io::Result<Ended> {
    let (stdin, mut stdout) = (io::stdin(), io::stdout());
    let (mut typed, mut size) = (Vec::new(), user::size());
    let mut buffer = [0; 4096];
    loop {
        while !typed.is_empty() {
            match terminal.try_write(&typed) {
                Ok(length) => drop(typed.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What it has shown before it ended is still to be read.
                Err(_) => typed.clear(),
            }
        }
        let [resized, ended] = signals.descriptors();
        let mut of_terminal = PollFlags::IN;
        of_terminal.set(PollFlags::OUT, !typed.is_empty());
        // A job that reads nothing is not typed to without end.
        let of_user = if typed.is_empty() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(terminal, of_terminal),
            PollFd::new(&stdin, of_user),
            PollFd::from_borrowed_fd(resized, PollFlags::IN),
            PollFd::from_borrowed_fd(ended, PollFlags::IN),
        ];
        if let Err(error) = poll(&mut fds, None)
            && error != rustix::io::Errno::INTR
        {
            return Err(error.into());
        }
        let [shows, is_typed, _, _] = fds.map(|fd| !fd.revents().is_empty());
        if let Some(signal) = signals.ending() {
            return Ok(Ended::BySignal(signal));
        }
        if signals.was_resized() && size != user::size() {
            size = user::size();
            terminal.resize(size)?;
        }
        if shows {
            match terminal.try_read() {
                Ok(Some(output)) => stdout.write_all(&output).and_then(|()| stdout.flush())?,
                Ok(None) => return Ok(Ended::ByJob),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if is_typed && typed.is_empty() {
            let length = rustix::io::retry_on_intr(|| rustix::io::read(&stdin, &mut buffer)).unwrap_or(0);
            let found = watch.typed(&buffer[..length]);
            typed = found.keys;
            if found.detaches || length == 0 {
                let _ = terminal.write_all(&typed);
                return Ok(Ended::Detached);
            }
        }
    }
}
