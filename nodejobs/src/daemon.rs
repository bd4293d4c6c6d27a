//! The daemon: an owner that does nothing but own, until it is told to leave or nobody needs it.

mod log_lines;
mod removal;
mod scope;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nodejobs_core::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use crate::api::LOG_NAME;
use crate::api::ProblemKind;
use crate::config::Config as Settings;
use crate::directory::Lock;
use crate::error::Error;
use crate::foreign::OWNER_LOCK;
pub use crate::foreign::foreign_file;
use crate::jobs::{Jobs, OpenOptions};
use crate::stores::StoreKind;
pub use scope::in_scope_of_its_own;

/// How long the daemon's log gets, in bytes, before it is put aside.
pub const LOG_BYTES: u64 = 1 << 20;

/// What a daemon is to do.
#[derive(Debug)]
pub struct Config {
    /// The directory to own.
    pub data_dir: PathBuf,
    /// The store of a new directory; of an existing one, the store it must have.
    pub store: Option<StoreKind>,
    /// Leave when there has been no live job and no client for as long as [`idle_exit`] says.
    ///
    /// [`idle_exit`]: crate::config::DaemonSettings::idle_exit
    pub leaves_when_idle: bool,
    /// The locked [`START_LOCK_NAME`](crate::api::START_LOCK_NAME) file, if whoever started this process holds it. It
    /// is given up when requests are answered.
    pub start_lock: Option<File>,
}

/// Owns the directory until it is time to leave; calls `ready` once requests are answered, by this process or by an
/// owner that was there before. Jobs run on; the next owner finds them.
///
/// Log lines go to standard error; if that is [`LOG_NAME`] in the directory, it is kept within its bounds. SIGTERM and
/// SIGINT make the daemon leave in order, within a second; it then returns the signal, by which the process
/// [should end](crate::end_by_signal). A second signal ends the process at once.
///
/// # Errors
/// When the directory cannot be owned, or no longer.
pub fn run(config: Config, ready: impl FnOnce()) -> Result<Option<Signal>, Error> {
    log_lines::install(&config.data_dir);
    nodejobs_proc::failpoint::read_environment();
    if let Some(group) = nodejobs_proc::leave_job_group() {
        log::warn!("stays in the cgroup of the job that was first to need it, '{}'", group.display());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| {
            Error::new(ProblemKind::Unavailable, "no runtime can be started").with_source(error)
        })?;
    let left = runtime.block_on(serve(config, ready));
    // What still blocks is a look into something for somebody who was told that this owner leaves.
    runtime.shutdown_background();
    left
}

/// How long a daemon that got a signal may take to leave in order. It may also be killed, so nothing is lost.
const LEAVING_BY_SIGNAL: Duration = Duration::from_millis(500);

/// Looks into the store and log files take a moment each; more at a time would only cost memory.
const BLOCKING_THREADS: usize = 4;

async fn serve(config: Config, ready: impl FnOnce()) -> Result<Option<Signal>, Error> {
    let options = OpenOptions { store: config.store, keeper: None };
    let starting = config.start_lock.map(Lock::inherited);
    let jobs = Jobs::open_holding(&config.data_dir, options, starting).await?;
    ready();
    let Some((owner, server)) = jobs.owner() else { return Ok(None) };
    log::info!("owns {} (process {})", owner.directory.path().display(), std::process::id());
    let signals = |kind| {
        signal(kind).map_err(|error| {
            Error::new(ProblemKind::Failed, "signals cannot be waited for").with_source(error)
        })
    };
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let mut continued = signals(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?;
    let mut leave = server.leave_requests();
    let mut stopped = owner.stopped();
    let mut idle = Idle {
        live_jobs: owner.hub.live_jobs(),
        connections: server.connections.clone(),
        stay: server.stay_requested.clone(),
        hooks: owner.hooks_busy.subscribe(),
        on_done: owner.on_done_busy.subscribe(),
        leaves: config.leaves_when_idle,
        config: owner.config.subscribe(),
    };
    let owner_lock = owner.directory.path().join(OWNER_LOCK);
    let mut removed = std::pin::pin!(removal::removed(&owner_lock));
    loop {
        let (reason, by_signal) = tokio::select! {
            _ = leave.wait_for(|leave| *leave) => ("asked to", None),
            _ = continued.recv() => {
                owner.recorder.halted();
                continue;
            }
            _ = terminate.recv() => ("terminated", Some(Signal::TERM)),
            _ = interrupt.recv() => ("interrupted", Some(Signal::INT)),
            () = idle.long_enough() => (NOTHING_TO_DO, None),
            () = &mut removed => {
                log::warn!("leaves: its directory was removed; jobs that run go on unseen");
                jobs.close_holding(None).await;
                return Ok(None);
            }
            _ = stopped.changed() => {
                return Err(Error::new(ProblemKind::Failed, "the owner stopped; its jobs run on for the next one"));
            }
        };
        if by_signal.is_some() {
            log::info!("leaves: {reason}");
            nodejobs_proc::default_signals(&[Signal::TERM, Signal::INT]);
            let in_order = async {
                let starting = jobs.lock_start().await;
                jobs.close_holding(starting).await;
            };
            if tokio::time::timeout(LEAVING_BY_SIGNAL, in_order).await.is_err() {
                log::warn!("did not get everything done in time; the next owner finds it as after a kill");
            }
            return Ok(by_signal);
        }
        let starting = jobs.lock_start().await;
        if reason == NOTHING_TO_DO && !idle.is_idle() {
            // Somebody came while we waited for the lock.
            continue;
        }
        log::info!("leaves: {reason}");
        jobs.close_holding(starting).await;
        return Ok(None);
    }
}

const NOTHING_TO_DO: &str = "nothing to do";

/// Whether anybody needs this owner.
struct Idle {
    live_jobs: watch::Receiver<usize>,
    connections: watch::Receiver<usize>,
    stay: watch::Receiver<bool>,
    hooks: watch::Receiver<bool>,
    on_done: watch::Receiver<bool>,
    leaves: bool,
    config: watch::Receiver<Arc<Settings>>,
}

impl Idle {
    fn is_idle(&mut self) -> bool {
        let stay = *self.stay.borrow_and_update();
        let live_jobs = *self.live_jobs.borrow_and_update();
        let connections = *self.connections.borrow_and_update();
        let hooks = *self.hooks.borrow_and_update();
        let on_done = *self.on_done.borrow_and_update();
        !stay && !hooks && !on_done && live_jobs == 0 && connections == 0
    }

    /// Returns once nobody has needed the owner for as long as was given; never, if nothing was.
    async fn long_enough(&mut self) {
        loop {
            let after = self.config.borrow_and_update().daemon.idle_exit.filter(|_| self.leaves);
            let is_idle = self.is_idle();
            let pause = async {
                match after.filter(|_| is_idle) {
                    Some(after) => tokio::time::sleep(after).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pause => return,
                Ok(()) = self.live_jobs.changed() => {}
                Ok(()) = self.connections.changed() => {}
                Ok(()) = self.stay.changed() => {}
                Ok(()) = self.hooks.changed() => {}
                Ok(()) = self.on_done.changed() => {}
                Ok(()) = self.config.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn settings(idle_exit: &str) -> Arc<Settings> {
        let text = format!("[daemon]\nidle_exit = \"{idle_exit}\"");
        Arc::new(Settings::parse(text.as_bytes()).expect("settings"))
    }

    #[tokio::test]
    async fn an_owner_is_needed_as_long_as_there_is_a_job_or_a_client_or_somebody_said_so() {
        let (live_jobs, connections, stay) =
            (watch::Sender::new(0), watch::Sender::new(0), watch::Sender::new(false));
        let hooks = watch::Sender::new(false);
        let on_done = watch::Sender::new(false);
        let config = watch::Sender::new(settings("20ms"));
        let mut idle = Idle {
            live_jobs: live_jobs.subscribe(),
            connections: connections.subscribe(),
            stay: stay.subscribe(),
            hooks: hooks.subscribe(),
            on_done: on_done.subscribe(),
            leaves: true,
            config: config.subscribe(),
        };
        let long = Duration::from_millis(60);
        // A job counts before it runs as well: whoever waits for its time is live.
        let needs: [&dyn Fn(bool); 5] = [
            &|needed| _ = hooks.send_replace(needed),
            &|needed| _ = on_done.send_replace(needed),
            &|needed| _ = live_jobs.send_replace(usize::from(needed)),
            &|needed| _ = connections.send_replace(usize::from(needed)),
            &|needed| _ = stay.send_replace(needed),
        ];
        for set in needs {
            set(true);
            assert!(timeout(long, idle.long_enough()).await.is_err() && !idle.is_idle());
            set(false);
            assert!(timeout(long * 100, idle.long_enough()).await.is_ok() && idle.is_idle());
        }
        config.send_replace(settings("never"));
        assert!(timeout(long, idle.long_enough()).await.is_err(), "as the settings say");
        config.send_replace(settings("20ms"));
        idle.leaves = false;
        assert!(timeout(long, idle.long_enough()).await.is_err(), "one that stays never leaves");
    }
}
