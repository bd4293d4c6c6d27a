//! The thread that looks at log files: what wakes it, and when it looks again.

mod errands;
mod watching;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use nodejobs_core::JobId;
use nodejobs_core::RawText;
use nodejobs_core::id::AttemptId;
use nodejobs_core::logs::{LogLayout, Logs};
use nodejobs_core::spec::MIN_LOG_CAP;
use nodejobs_core::store::JobStore;
use nodejobs_proc::machine::now;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;

use super::quota::Quota;
use super::tracked::{SWEEP, Tracked, path_of};
use super::{Message, Shared};
use errands::{Away, Errand};

pub(super) use errands::Back;

/// From the start of a job, or its first write after a while, to the first look at it. Most are gone by then.
pub(super) const SOON: Duration = Duration::from_millis(20);

pub(super) struct Work {
    shared: Arc<Shared>,
    store: Arc<dyn JobStore>,
    own_logs: PathBuf,
    /// Made for the first job that writes nothing for a while.
    watch: Option<Arc<OwnedFd>>,
    tracked: HashMap<JobId, Tracked>,
    /// Those whose files are being looked at elsewhere.
    away: HashMap<JobId, Away>,
    /// Whose file a watch is on: more than one job's, if they share it.
    watched: HashMap<i32, Vec<JobId>>,
    /// Those that have written lately.
    active: HashMap<JobId, Due>,
    /// Those that began since the last look. Most are gone before the next.
    fresh: HashMap<JobId, u32>,
    /// What was said once is not said again.
    said: Vec<String>,
    quota: Option<Quota>,
}

/// When an active job is looked at.
#[derive(Clone, Copy)]
struct Due {
    /// For what is new.
    note: Instant,
    /// For its cap.
    cap: Instant,
}

impl Work {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Arc<dyn JobStore>,
        own_logs: PathBuf,
        quota: Option<u64>,
    ) -> Self {
        Self {
            shared,
            store,
            own_logs,
            watch: None,
            tracked: HashMap::new(),
            away: HashMap::new(),
            watched: HashMap::new(),
            active: HashMap::new(),
            fresh: HashMap::new(),
            said: Vec::new(),
            quota: quota.map(Quota::new),
        }
    }

    pub(super) fn run(mut self) {
        let mut fresh_due = None;
        loop {
            let quota_due = self.quota.as_ref().and_then(Quota::due);
            let due = self.active.values().map(|due| due.note.min(due.cap));
            let due = due.chain(fresh_due).chain(quota_due).min();
            let slept_long = self.sleep(due);
            for message in self.messages() {
                if let Message::Quit = message {
                    let active: Vec<_> = self.active.keys().cloned().collect();
                    active.iter().for_each(|id| _ = self.note(id));
                    // What users placed may not answer. The next owner looks at it.
                    return;
                }
                self.take(message);
            }
            self.hear();
            let time = Instant::now();
            // Whoever began first has waited for the bell.
            if slept_long || fresh_due.is_some_and(|due| due <= time) {
                let fresh = std::mem::take(&mut self.fresh);
                fresh.into_iter().for_each(|(id, attempt)| self.find(&AttemptId { id, attempt }));
            }
            fresh_due = match (self.fresh.is_empty(), fresh_due.filter(|due| *due > time)) {
                (true, _) => None,
                (false, due) => due.or(Some(time + SOON)),
            };
            self.sweep(time);
            self.keep_quota();
        }
    }

    /// Waits for something to happen, until then at the latest. Whether it has slept, and without a time to wake at.
    fn sleep(&self, until: Option<Instant>) -> bool {
        let mut inbox = self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if !inbox.messages.is_empty() {
            return false;
        }
        inbox.asleep = until.is_none();
        drop(inbox);
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut waits = vec![PollFd::new(&self.shared.bell, PollFlags::IN)];
        waits.extend(self.watch.iter().map(|watch| PollFd::new(watch, PollFlags::IN)));
        // Interrupted, it looks and waits again.
        let _ = poll(&mut waits, left.as_ref());
        let _ = rustix::io::read(&self.shared.bell, &mut [0; 8]);
        until.is_none()
    }

    fn messages(&self) -> Vec<Message> {
        let mut inbox = self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.asleep = false;
        std::mem::take(&mut inbox.messages)
    }

    fn take(&mut self, message: Message) {
        let Some(message) = self.unless_away(message) else { return };
        match message {
            Message::Began(attempt) => {
                if self.tracked.get(&attempt.id).is_none_or(|known| known.attempt < attempt.attempt) {
                    self.end(&attempt.id);
                    let earlier = self.fresh.insert(attempt.id.clone(), attempt.attempt);
                    if let Some(earlier) = earlier.filter(|earlier| *earlier < attempt.attempt) {
                        self.quick(&AttemptId { attempt: earlier, ..attempt });
                    }
                }
            }
            Message::Found(attempt) => self.find(&attempt),
            Message::Ended(attempt) => {
                if self.fresh.remove(&attempt.id).is_some() {
                    self.quick(&attempt);
                }
                if self.tracked.get(&attempt.id).is_some_and(|known| known.attempt <= attempt.attempt) {
                    self.end(&attempt.id);
                }
            }
            Message::Look(attempt, done) => {
                if self.fresh.remove(&attempt.id).is_some() {
                    self.find(&attempt);
                } else if self.tracked.get(&attempt.id).is_some_and(|known| known.attempt == attempt.attempt)
                {
                    self.hear();
                    self.note(&attempt.id);
                }
                if self.away.contains_key(&attempt.id) {
                    return self.answer_when_back(&attempt.id, done);
                }
                let _ = done.send(());
            }
            Message::Halted => {
                // What the watches tell now is from before.
                self.hear();
                self.tracked.values_mut().for_each(Tracked::halted);
                self.away.values_mut().for_each(|away| away.halted = true);
            }
            Message::Back(back) => self.take_back(*back),
            Message::Quota(quota) => self.quota = quota.map(Quota::new),
            Message::Counted(total) => {
                let total = total.map_err(|error| self.say(format!("logs cannot be counted: {error}"))).ok();
                if let Some(quota) = &mut self.quota {
                    quota.counted(total);
                }
            }
            Message::Quit => {}
        }
    }

    fn keep_quota(&mut self) {
        let Some(quota) = &mut self.quota else { return };
        if quota.due().is_some_and(|due| due <= Instant::now())
            && let Err(error) = quota.count(&self.shared, &self.store)
        {
            // Not again and again.
            quota.counted(None);
            self.say(format!("logs cannot be counted: {error}"));
        }
    }

    /// An attempt that ended before the first look at it: its record says when it wrote. It may have written more than
    /// its cap, but hardly any does, so what has it is found without the store.
    fn quick(&mut self, attempt: &AttemptId) {
        let own_logs = RawText::from(self.own_logs.as_os_str().to_owned().into_vec());
        let paths = Logs { layout: LogLayout::Spread, path: own_logs, merge: false }.paths(attempt);
        let length = |path| std::fs::metadata(path_of(path)).ok().map(|found| found.len());
        let lengths = [length(&paths.stdout), length(&paths.stderr)];
        if let Some(quota) = &mut self.quota {
            quota.grew(lengths.iter().flatten().sum::<u64>().cast_signed());
        }
        if lengths == [None, None] || lengths.iter().flatten().any(|length| *length > MIN_LOG_CAP) {
            self.find(attempt);
        }
    }

    /// Begins to look at an attempt; only once, if it has ended.
    fn find(&mut self, attempt: &AttemptId) {
        let id = &attempt.id;
        // Nearly always it is the newest.
        let newest = self.store.job(id).map(|job| job.filter(|job| job.state.attempt == attempt.attempt));
        let found = match newest {
            Ok(None) => self
                .store
                .attempts(id)
                .map(|attempts| attempts.into_iter().find(|job| job.state.attempt == attempt.attempt)),
            newest => newest,
        };
        let job = match found {
            Ok(job) => job,
            Err(error) => return self.say(format!("when job {id} writes is not noted: {error}")),
        };
        // Removed meanwhile, or never executed.
        let Some(job) = job.filter(|job| job.state.started.is_some()) else { return };
        match Tracked::find(&job, &self.own_logs) {
            Ok(tracked) => _ = self.tracked.insert(id.clone(), tracked),
            Err(error) => {
                return self.say(format!("the index of the logs of job {id} cannot be read: {error}"));
            }
        }
        if job.state.status.is_terminal() {
            // When it wrote what is not noted, its record knows better than we.
            let has_cap = self.tracked.get(id).is_some_and(Tracked::has_cap);
            if !has_cap || !self.send_away(id, Errand::CAP) {
                self.keep_cap(id);
                self.tracked.remove(id);
            }
        } else if !self.send_away(id, Errand::LOOK) {
            self.activate(id);
            self.note(id);
        }
    }

    /// Looks a last time.
    fn end(&mut self, id: &JobId) {
        self.active.remove(id);
        if !self.tracked.contains_key(id) || self.send_away(id, Errand::LAST) {
            return;
        }
        self.note(id);
        self.keep_cap(id);
        let Some(tracked) = self.tracked.remove(id) else { return };
        for number in tracked.files.iter().filter_map(|file| file.watch) {
            self.forget_watch(number, id);
        }
    }

    fn activate(&mut self, id: &JobId) {
        let time = Instant::now();
        if !self.active.contains_key(id) {
            // How fast it writes is not known yet.
            let soon = self.keep_cap(id).min(SOON);
            let is_capped = self.tracked.get(id).is_some_and(Tracked::has_cap);
            let cap = time + if is_capped { soon } else { SWEEP };
            self.active.insert(id.clone(), Due { note: time + SWEEP, cap });
        }
    }

    /// Looks at those whose time has come.
    fn sweep(&mut self, time: Instant) {
        let is_due = |due: &Due| due.note <= time || due.cap <= time;
        let due: Vec<_> =
            self.active.iter().filter(|(_, due)| is_due(due)).map(|(id, due)| (id.clone(), *due)).collect();
        for (id, mut due) in due {
            let watch = due.note <= time;
            if self.send_away(&id, Errand { watch, due: (!watch).then_some(due.note), ..Errand::LOOK }) {
                continue;
            }
            // First of all: the less there is to free, the sooner it is done.
            let soon = self.keep_cap(&id);
            due.cap = time + soon;
            if due.note <= time {
                due.note = time + SWEEP;
                // What is written between the look and the watch is seen by the second look.
                if !self.note(&id) {
                    if !self.watch_files(&id) {
                        due.note = time + 10 * SWEEP;
                    } else if !self.note(&id) {
                        self.active.remove(&id);
                        continue;
                    }
                }
            }
            self.active.insert(id, due);
        }
    }

    /// Whether something was new.
    fn note(&mut self, id: &JobId) -> bool {
        if self.send_away(id, Errand::LOOK) {
            return false;
        }
        let Some(tracked) = self.tracked.get_mut(id) else { return false };
        let noted = tracked.note(now().wall);
        if let Some(quota) = &mut self.quota {
            quota.grew(tracked.take_balance());
        }
        match noted {
            Ok(is_new) => is_new,
            Err(error) => {
                self.say(format!("when jobs write cannot be noted: {error}"));
                true
            }
        }
    }

    fn keep_cap(&mut self, id: &JobId) -> Duration {
        let Some(mut tracked) = self.tracked.remove(id) else { return SWEEP };
        let soon = tracked.keep_cap();
        let soon = self.soon_of(&mut tracked, soon);
        self.tracked.insert(id.clone(), tracked);
        soon
    }

    fn say(&mut self, message: String) {
        if !self.said.contains(&message) && self.said.len() < 20 {
            log::warn!("{message}");
            self.said.push(message);
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}
