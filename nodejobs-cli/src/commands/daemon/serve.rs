//! `nodejobs daemon serve`: being the daemon.

use std::fs::File;
use std::io::{self, Write as _};
use std::time::Duration;

use clap::Args;
use nodejobs::daemon::{self, Config};
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
        let (start_lock, listener) = take_standard_streams().map_err(|error| {
            Failure::caused(FAILED, "cannot set up the daemon's standard input and output", &error)
        })?;
        detach();
        let mut listener = Some(listener);
        let mut tell = |words: &FirstWords| {
            // A starter that has gone is no reason to leave; once told, it waits for nothing more.
            if let (Some(mut listener), Ok(line)) = (listener.take(), serde_json::to_string(words)) {
                let _ = writeln!(listener, "{line}");
            }
        };
        let served = target.store.as_deref().map(str::parse).transpose().and_then(|store| {
            let config = Config {
                data_dir: target.data_dir.clone(),
                store,
                idle_exit: self.auto.then_some(IDLE_EXIT),
                start_lock,
            };
            daemon::run(config, || tell(&FirstWords::Ready(true)))
        });
        match served {
            Ok(()) => Ok(0),
            Err(error) => {
                tell(&FirstWords::Error(error.to_problem()));
                // Also into the log.
                Err(error.to_problem().into())
            }
        }
    }
}

/// Takes standard input, if it is the lock of starts, and standard output, where whoever started us waits for the first
/// words. Leaves nothing there, so that neither goes on to the keeper.
fn take_standard_streams() -> io::Result<(Option<File>, File)> {
    let input = File::from(rustix::io::fcntl_dupfd_cloexec(stdio::stdin(), 3)?);
    let listener = rustix::io::fcntl_dupfd_cloexec(stdio::stdout(), 3)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    stdio::dup2_stdin(&null)?;
    stdio::dup2_stdout(&null)?;
    // Run by hand, it has a terminal, a pipe or nothing there.
    let is_lock = input.metadata()?.is_file();
    Ok((is_lock.then_some(input), listener.into()))
}

/// Leaves the starter's session, and keeps what we create to ourselves. The working directory is `/` already.
fn detach() {
    // Whoever leads a session is as good as in a new one: a daemon in the foreground stays where it is.
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // Started by the name /proc/self/exe, it would be listed as "exe".
    let _ = rustix::thread::set_name(c"nodejobs");
}
