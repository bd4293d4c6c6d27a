//! Limits on memory where no kernel keeps them: a thread that looks at the processes of limited jobs now and then, the more
//! often the nearer they are to their limits. It is there only while such jobs run.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use nodejobs_core::backend::{BackendEvent, BackendHost, BackendReport};
use nodejobs_core::id::AttemptId;
use rustix::fd::OwnedFd;

use super::{Command, Lookout, Loop};
use crate::identity::LocalProcess;
use crate::machine::now;
use crate::tree::{Root, View};
use crate::{launch, limits, usage};

/// Between two looks at somebody near a limit, or new, in milliseconds.
const SHORTEST_MS: u64 = 50;
/// Between two looks at those who are far from it and do not grow.
const LONGEST_MS: u64 = 1_000;

/// The thread's other end; it ends when this is dropped.
pub(super) struct Sampler {
    somebody_new: Sender<()>,
}

/// A job whose memory is limited.
pub(super) struct Limited {
    attempt: AttemptId,
    main: LocalProcess,
    /// In bytes.
    limit: u64,
}

/// Everything that the thread has to know for a look.
pub(super) struct Round {
    lookout: Lookout,
    limited: Vec<Limited>,
}

impl Loop {
    /// Notes the limit of an attempt that is being launched or was taken over.
    pub(super) fn limit_memory(&mut self, attempt: &AttemptId, limit: Option<u64>) {
        if let Some(limit) = limit {
            self.memory_limits.insert(attempt.clone(), limit);
            if let Some(sampler) = &self.sampler {
                let _ = sampler.somebody_new.send(());
            }
        }
    }

    /// Has somebody look after the limits, if there are any.
    pub(super) fn keep_memory_limits(&mut self) {
        if self.memory_limits.is_empty() || self.sampler.is_some() {
            return;
        }
        let (somebody_new, news) = channel();
        let (owner, wake) = (self.own_commands.clone(), self.bell.wake());
        let sampling = Sampling {
            owner,
            wake,
            news,
            host: Arc::clone(&self.host),
            directory_id: self.config.directory_id.clone(),
            seen: HashMap::new(),
            told: HashSet::new(),
        };
        let thread = std::thread::Builder::new().name("nodejobs-memory".to_owned());
        match thread.spawn(move || sampling.run()) {
            Ok(_) => self.sampler = Some(Sampler { somebody_new }),
            Err(error) => self.host.warn(format!("limits on memory are not kept: no thread: {error}")),
        }
    }

    /// What the thread looks at next. With nobody to look at it ends.
    pub(super) fn next_round(&mut self) -> Round {
        let (running, in_flight) = (&self.running, &self.in_flight);
        self.memory_limits
            .retain(|attempt, _| running.contains_key(attempt) || in_flight.contains_key(attempt));
        if self.memory_limits.is_empty() {
            self.sampler = None;
        }
        let limited = self.memory_limits.iter().filter_map(|(attempt, limit)| {
            let main = self.running.get(attempt)?.process.clone();
            Some(Limited { attempt: attempt.clone(), main, limit: *limit })
        });
        Round { limited: limited.collect(), lookout: self.lookout(self.main_processes()) }
    }

    pub(super) fn answer_round(&mut self, answer: &SyncSender<Option<Round>>) {
        let round = self.next_round();
        let _ = answer.send(self.sampler.is_some().then_some(round));
    }
}

struct Sampling {
    owner: Sender<Command>,
    wake: Arc<OwnedFd>,
    news: Receiver<()>,
    host: Arc<dyn BackendHost>,
    directory_id: String,
    /// What each had when it was last looked at, in bytes, and when that was.
    seen: HashMap<AttemptId, (u64, u64)>,
    /// Those of whom it was said that they have too much.
    told: HashSet<AttemptId>,
}

impl Sampling {
    fn run(mut self) {
        let mut pause = SHORTEST_MS;
        loop {
            match self.news.recv_timeout(Duration::from_millis(pause)) {
                Ok(()) => {
                    // Whoever is new is looked at soon, and together with those that come right behind.
                    pause = SHORTEST_MS;
                    while self.news.try_recv().is_ok() {}
                }
                Err(RecvTimeoutError::Timeout) => {
                    let Some(round) = self.next_round() else { return };
                    // Without room to look, nothing is known, and it is looked at again.
                    pause = self.look(&round, pause).unwrap_or(SHORTEST_MS);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn next_round(&self) -> Option<Round> {
        let (answer, receiver) = sync_channel(1);
        self.owner.send(Command::Limited(answer)).ok()?;
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        receiver.recv().ok()?
    }

    /// Looks at all of them, and says when to look again.
    fn look(&mut self, round: &Round, last_pause: u64) -> io::Result<u64> {
        let view = round.lookout.view()?;
        let mut pause = (last_pause * 2).min(LONGEST_MS);
        for Limited { attempt, main, limit } in &round.limited {
            let mark = launch::mark(&self.directory_id, attempt);
            let used =
                used(&view, &Root { main, mark: &mark, group: round.lookout.groups.get(attempt) }, *limit)?;
            let at = now().boot.0;
            if used > *limit && self.told.insert(attempt.clone()) {
                self.tell(attempt, used, *limit);
            }
            let (before, then) = self.seen.insert(attempt.clone(), (used, at)).unwrap_or((0, at));
            pause = pause.min(pause_for(used, *limit, used.saturating_sub(before), at.saturating_sub(then)));
        }
        let is_there = |attempt: &AttemptId| round.limited.iter().any(|limited| limited.attempt == *attempt);
        self.seen.retain(|attempt, _| is_there(attempt));
        self.told.retain(is_there);
        Ok(pause)
    }

    fn tell(&self, attempt: &AttemptId, used: u64, limit: u64) {
        let detail = format!(
            "its processes had {} of the {} that they may have, as was seen by sampling",
            limits::mebibytes(used),
            limits::mebibytes(limit)
        );
        let event = BackendEvent::OverMemory { detail };
        self.host.report(BackendReport { attempt: attempt.clone(), event, receipt: None });
    }
}

/// What the processes of a job have in memory, in bytes: what they share counts once, if that makes a difference.
fn used(view: &View, root: &Root<'_>, limit: u64) -> io::Result<u64> {
    let members = view.members(root)?;
    let sum = |kib_of: fn(u32) -> io::Result<u64>| {
        members.iter().try_fold(0_u64, |sum, member| Ok::<_, io::Error>(sum + kib_of(member.pid)? * 1024))
    };
    // Quick, and never less than what counts.
    let most = sum(usage::resident_kib)?;
    if most <= limit { Ok(most) } else { sum(usage::proportional_kib) }
}

/// How long nobody needs to look at a job that has so much, and so much more than so long ago.
fn pause_for(used: u64, limit: u64, grown: u64, within_ms: u64) -> u64 {
    let left = limit.saturating_sub(used);
    if left < limit / 8 {
        return SHORTEST_MS;
    }
    if grown == 0 {
        return LONGEST_MS;
    }
    // Half of the way to its limit, if it goes on like that.
    let ms = u128::from(left) * u128::from(within_ms.max(1)) / u128::from(grown) / 2;
    u64::try_from(ms).unwrap_or(u64::MAX).clamp(SHORTEST_MS, LONGEST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_near_the_limit_or_grows_fast_is_looked_at_more_often() {
        let mib = |count: u64| count << 20;
        assert_eq!(pause_for(mib(10), mib(100), 0, 1_000), LONGEST_MS, "far, and it does not grow");
        assert_eq!(pause_for(mib(95), mib(100), 0, 1_000), SHORTEST_MS, "near");
        assert_eq!(pause_for(mib(200), mib(100), 0, 1_000), SHORTEST_MS, "beyond");
        assert_eq!(pause_for(mib(40), mib(100), mib(30), 100), 100, "in 200 ms it would be there");
        assert_eq!(pause_for(mib(10), mib(1000), mib(1), 1_000), LONGEST_MS, "it takes its time");
        assert_eq!(pause_for(u64::MAX / 2, u64::MAX, 1, u64::MAX), LONGEST_MS, "no number is too large");
    }
}
