//! A daemon that a signal has stopped (SIGSTOP, a debugger) keeps its socket and answers nobody. Whoever waits for an
//! answer is told, and does not wait for ever.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Without an answer for so long, it is looked at why. Then again, each time after twice as long.
const FIRST_LOOK: Duration = Duration::from_secs(3);
/// How long one that is stopped is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom to tell, once for each answer that is waited for.
#[derive(Clone, Debug, Default)]
pub(super) struct WhenStopped(Arc<OnceLock<fn(u32)>>);

impl WhenStopped {
    pub(super) fn tell(&self, tell: fn(u32)) {
        // Only the first one counts.
        let _ = self.0.set(tell);
    }
}

/// The wait for one answer.
#[derive(Debug)]
pub(super) struct Waiting {
    peer: u32,
    when_stopped: WhenStopped,
    next_look: Duration,
    stopped_since: Option<Instant>,
}

impl Waiting {
    pub(super) fn new(peer: u32, when_stopped: WhenStopped) -> Self {
        Self { peer, when_stopped, next_look: FIRST_LOOK, stopped_since: None }
    }

    /// How long to wait before [`look`](Self::look) is wanted.
    pub(super) fn next_look(&self) -> Duration {
        self.next_look
    }

    /// Nothing has come for so long.
    ///
    /// # Errors
    /// [`StoppedPeer`] when it is time to give up.
    pub(super) fn look(&mut self, now: Instant) -> io::Result<()> {
        if !is_stopped(self.peer) {
            self.stopped_since = None;
            self.next_look *= 2;
            return Ok(());
        }
        if let Some(since) = self.stopped_since {
            if now.duration_since(since) >= PATIENCE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, StoppedPeer(self.peer)));
            }
        } else {
            self.stopped_since = Some(now);
            if let Some(tell) = self.when_stopped.0.get() {
                tell(self.peer);
            }
        }
        self.next_look = FIRST_LOOK;
        Ok(())
    }
}

/// The process at the other end is stopped.
#[derive(Debug)]
pub(super) struct StoppedPeer(pub(super) u32);

impl fmt::Display for StoppedPeer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {} is stopped", self.0)
    }
}

impl std::error::Error for StoppedPeer {}

/// Whether its state is T (stopped) or t (held by a debugger).
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name is in parentheses, and may have some itself.
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['T', 't']))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

    use super::*;

    static TOLD: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn a_peer_that_is_stopped_is_told_of_once_and_given_up_in_the_end() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("started");
        let pid = Pid::from_child(&child);
        let when_stopped = WhenStopped::default();
        when_stopped.tell(|_| {
            TOLD.fetch_add(1, Ordering::SeqCst);
        });
        let begin = Instant::now();
        let mut waiting = Waiting::new(child.id(), when_stopped);
        waiting.look(begin).expect("it runs");
        assert_eq!((waiting.next_look(), TOLD.load(Ordering::SeqCst)), (2 * FIRST_LOOK, 0));

        kill_process(pid, Signal::STOP).expect("stopped");
        waitpid(Some(pid), WaitOptions::UNTRACED).expect("it has stopped");
        waiting.look(begin).expect("it may go on");
        waiting.look(begin + PATIENCE / 2).expect("it may still go on");
        assert_eq!((waiting.next_look(), TOLD.load(Ordering::SeqCst)), (FIRST_LOOK, 1));
        let given_up = waiting.look(begin + PATIENCE).expect_err("long enough");
        assert_eq!(given_up.to_string(), format!("process {} is stopped", child.id()));

        kill_process(pid, Signal::CONT).expect("continued");
        waitpid(Some(pid), WaitOptions::CONTINUED).expect("it goes on");
        waiting.look(begin + 2 * PATIENCE).expect("it goes on");
        child.kill().expect("killed");
        child.wait().expect("ended");
    }
}
