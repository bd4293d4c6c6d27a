//! `nodejobs daemon serve`: being the daemon.

use std::any::Any;
use std::fs::File;
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe};

use clap::Args;
use nodejobs::api::{Problem, ProblemKind};
use nodejobs::daemon::{self, Config};
use rustix::fs::Mode;
use rustix::stdio;

use crate::connect::{FirstWords, Target};
use crate::exit::{FAILED, Failure};
use crate::starts::FailedStarts;

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
        let mut serves = false;
        // Caught to be told and noted like an error; the log has its words already.
        let served = panic::catch_unwind(AssertUnwindSafe(|| {
            let store = target.store.as_deref().map(str::parse).transpose()?;
            let config =
                Config { data_dir: target.data_dir.clone(), store, leaves_when_idle: self.auto, start_lock };
            daemon::run(config, || {
                serves = true;
                tell(&FirstWords::Ready(true));
            })
        }));
        let problem = match served {
            Ok(Ok(left)) => {
                FailedStarts::clear(&target.data_dir);
                if let Some(signal) = left {
                    nodejobs::end_by_signal(signal);
                }
                return Ok(0);
            }
            Ok(Err(error)) => error.to_problem(),
            Err(panic) => {
                Problem::new(ProblemKind::Failed, format!("the daemon panicked: {}", words_of(&*panic)))
            }
        };
        if serves || matches!(problem.kind, ProblemKind::Unavailable | ProblemKind::Failed) {
            FailedStarts::note(&target.data_dir, &problem.message);
        }
        tell(&FirstWords::Error(problem.clone()));
        // Also into the log.
        Err(problem.into())
    }
}

/// What a panic says.
fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
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
    // It would be listed by the name it was started by, which may be that of a link in /proc: "exe".
    let _ = rustix::thread::set_name(c"nodejobs");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_its_own_words() {
        let told = |panics: fn()| {
            let panic = panic::catch_unwind(panics).expect_err("a panic");
            words_of(&*panic).to_owned()
        };
        assert_eq!(told(|| panic!("plain")), "plain");
        assert_eq!(told(|| panic!("{} words", std::hint::black_box(2))), "2 words");
        assert_eq!(told(|| panic::panic_any(7)), "without a word");
    }
}
