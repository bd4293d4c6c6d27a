//! Looks at log files while jobs write: notes when what was written, and frees what is beyond a job's cap.
//!
//! A file that nobody writes to is watched for its next write, once; so nothing wakes while nothing is written, and no
//! watch slows down who writes. After that write its length is looked at ten times a second, more often near its cap,
//! until nothing is new. The jobs never notice, and neither do they wait when this thread is halted.

mod file;
mod quota;
mod tracked;
mod work;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use nodejobs_core::Status;
use nodejobs_core::id::AttemptId;
use nodejobs_core::store::{JobEvent, JobStore};
use rustix::event::Timespec;
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use tokio::sync::oneshot;

use crate::api::ProblemKind;
use crate::error::Error;
use crate::files::PATIENCE;

pub(crate) use file::entries_of;
pub(crate) use tracked::index_of;

/// What the thread is told.
enum Message {
    /// The attempt's program is executed.
    Began(AttemptId),
    /// It may have run for a while, and may have ended: nobody knows what it did meanwhile.
    Found(AttemptId),
    Ended(AttemptId),
    /// Somebody wants to know when what was written up to now.
    Look(AttemptId, oneshot::Sender<()>),
    /// This process was halted: what it hears now may have happened long ago.
    Halted,
    /// The files of a job were looked at elsewhere.
    Back(Box<work::Back>),
    /// What all logs may take from now on, in bytes.
    Quota(Option<u64>),
    /// What all logs take now, or why nobody knows.
    Counted(Result<u64, String>),
    Quit,
}

/// The way to the thread.
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    inbox: Mutex<Inbox>,
    /// A timer, set when the thread sleeps and has to wake.
    bell: OwnedFd,
}

#[derive(Default)]
struct Inbox {
    messages: Vec<Message>,
    /// Whether the thread waits without a time at which it wakes by itself.
    asleep: bool,
}

impl Recorder {
    /// Starts the thread. Indexes are in `own_logs`, wherever the log files are.
    pub(crate) fn start(
        store: Arc<dyn JobStore>,
        own_logs: PathBuf,
        quota: Option<u64>,
    ) -> Result<Self, Error> {
        let cannot = |error: std::io::Error| {
            Error::new(ProblemKind::Unavailable, "log files cannot be looked at").with_source(error)
        };
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let bell = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(|e| cannot(e.into()))?;
        let shared = Arc::new(Shared { inbox: Mutex::default(), bell });
        let work = work::Work::new(Arc::clone(&shared), store, own_logs, quota);
        let thread = std::thread::Builder::new().name("nodejobs-logs".to_owned()).spawn(move || work.run());
        Ok(Self { shared, thread: Some(thread.map_err(cannot)?) })
    }

    /// A job reached a status, which is on disk.
    pub(crate) fn heard(&self, event: &JobEvent) {
        let attempt = || event.attempt.clone();
        match event.status {
            Status::Running => self.send(Message::Began(attempt()), false),
            status if status.is_terminal() => self.send(Message::Ended(attempt()), false),
            _ => {}
        }
    }

    /// A job of an earlier owner. Looked at at once: what it writes from now on has a time, what it wrote before has none.
    pub(crate) fn found(&self, attempt: AttemptId) {
        self.send(Message::Found(attempt), true);
    }

    /// From now on all logs may take so many bytes.
    pub(crate) fn set_quota(&self, quota: Option<u64>) {
        self.send(Message::Quota(quota), true);
    }

    /// This process was halted, and goes on.
    pub(crate) fn halted(&self) {
        self.send(Message::Halted, true);
    }

    /// Returns once it is noted when everything was written that was there before the call.
    pub(crate) async fn look(&self, attempt: AttemptId) {
        let (done, looked) = oneshot::channel();
        self.send(Message::Look(attempt, done), true);
        // Without the thread nothing more will be noted; where the file system hangs, not now.
        let _ = tokio::time::timeout(PATIENCE, looked).await;
    }

    fn send(&self, message: Message, urgent: bool) {
        self.shared.send(message, urgent);
    }
}

impl Shared {
    /// What is not urgent has time until the thread wakes by itself, and if it does not, for a moment: a job that is gone by
    /// then, or a burst of jobs, wakes it once.
    fn send(&self, message: Message, urgent: bool) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.messages.push(message);
        if std::mem::take(&mut inbox.asleep) || urgent {
            let tv_nsec = if urgent { 1 } else { i64::from(work::SOON.subsec_nanos()) };
            let once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let time = Itimerspec { it_interval: once, it_value: Timespec { tv_sec: 0, tv_nsec } };
            let _ = timerfd_settime(&self.bell, TimerfdTimerFlags::empty(), &time);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.send(Message::Quit, true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
