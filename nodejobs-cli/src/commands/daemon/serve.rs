//! `nodejobs daemon serve`: being the daemon.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use nodejobs::api::{Problem, ProblemKind};
use rustix::fs::Mode;
use rustix::stdio;

use crate::connect::{FirstWords, Target};
use crate::exit::{FAILED, Failure};

/// An auto-started daemon leaves after so long without jobs and clients.
const IDLE_EXIT: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// Leave when there is nothing to do
    #[arg(long)]
    auto: bool,
}

impl Serve {
    pub(crate) fn execute(self, target: &Target) -> Result<u8, Failure> {
        // MERGE: descriptors from 3 on, which whoever started us left open, have to be closed first (nodejobs-proc has
        // the call): a pipe among them would keep its reader waiting for as long as we live.
        let mut starter = Some(Starter::take().map_err(|error| {
            Failure::caused(FAILED, "cannot set up the daemon's standard input and output", &error)
        })?);
        detach();
        let idle_exit = self.auto.then_some(IDLE_EXIT);
        let served = serve(&target.data_dir, target.store.as_deref(), idle_exit, || {
            if let Some(starter) = starter.take() {
                starter.tell(&FirstWords::Ready(true));
            }
        });
        match served {
            Ok(()) => Ok(0),
            Err(problem) => {
                if let Some(starter) = starter.take() {
                    starter.tell(&FirstWords::Error(problem.clone()));
                }
                // Also into the log.
                Err(problem.into())
            }
        }
    }
}

/// Owns the data directory and serves its socket until it is told to leave. Calls `ready` once it can be reached.
///
/// MERGE: becomes `nodejobs::daemon::run(nodejobs::daemon::Config { data_dir, store, idle_exit }, ready)`.
fn serve(
    data_dir: &Path,
    _store: Option<&str>,
    _idle_exit: Option<Duration>,
    _ready: impl FnOnce(),
) -> Result<(), Problem> {
    let message = format!("this build has no daemon yet that could serve '{}'", data_dir.display());
    Err(Problem::new(ProblemKind::Unavailable, message))
}

/// Whoever started us and waits for the first words.
struct Starter {
    /// Held until we can be reached, so that nobody starts a second daemon meanwhile.
    _lock: File,
    listener: File,
}

impl Starter {
    /// Takes standard input and output for ourselves and leaves nothing there, so that neither goes on to the keeper.
    fn take() -> io::Result<Self> {
        let lock = rustix::io::fcntl_dupfd_cloexec(stdio::stdin(), 3)?;
        let listener = rustix::io::fcntl_dupfd_cloexec(stdio::stdout(), 3)?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        stdio::dup2_stdin(&null)?;
        stdio::dup2_stdout(&null)?;
        Ok(Self { _lock: lock.into(), listener: listener.into() })
    }

    fn tell(mut self, words: &FirstWords) {
        // A starter that has gone is no reason to leave.
        if let Ok(line) = serde_json::to_string(words) {
            let _ = writeln!(self.listener, "{line}");
        }
    }
}

/// Leaves the starter's session, and keeps what we create to ourselves. The working directory is `/` already.
fn detach() {
    // Whoever leads a session is as good as in a new one: a daemon in the foreground stays where it is.
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // Started by the name /proc/self/exe, it would be listed as "exe".
    let _ = rustix::thread::set_name(c"nodejobs");
}
