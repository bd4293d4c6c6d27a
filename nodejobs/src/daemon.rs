//! The daemon: an owner that does nothing but own, until it is told to leave or nobody needs it.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::api::ProblemKind;
use crate::directory::Lock;
use crate::error::Error;
use crate::jobs::{Jobs, OpenOptions};
use crate::stores::StoreKind;

/// What a daemon is to do.
#[derive(Debug)]
pub struct Config {
    /// The directory to own.
    pub data_dir: PathBuf,
    /// The store of a new directory; of an existing one, the store it must have.
    pub store: Option<StoreKind>,
    /// Leave after so long with no live job and no client.
    pub idle_exit: Option<Duration>,
    /// The locked [`START_LOCK_NAME`](crate::api::START_LOCK_NAME) file, if whoever started this process holds it. It
    /// is given up when requests are answered.
    pub start_lock: Option<File>,
}

/// Owns the directory until it is time to leave; calls `ready` once requests are answered, by this process or by an
/// owner that was there before. Jobs run on; the next owner finds them.
///
/// Log lines go to standard error. SIGTERM and SIGINT make it leave in order.
///
/// # Errors
/// When the directory cannot be owned, or no longer.
pub fn run(config: Config, ready: impl FnOnce()) -> Result<(), Error> {
    logger::install();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|error| {
            Error::new(ProblemKind::Unavailable, "no runtime can be started").with_source(error)
        })?
        .block_on(serve(config, ready))
}

/// Looks into the store and log files take a moment each; more at a time would only cost memory.
const BLOCKING_THREADS: usize = 4;

async fn serve(config: Config, ready: impl FnOnce()) -> Result<(), Error> {
    let options = OpenOptions { store: config.store, keeper: None };
    let starting = config.start_lock.map(Lock::inherited);
    let jobs = Jobs::open_holding(&config.data_dir, options, starting).await?;
    ready();
    let Some((owner, server)) = jobs.owner() else { return Ok(()) };
    log::info!("owns {} (process {})", owner.directory.path().display(), std::process::id());
    let signals = |kind| {
        signal(kind).map_err(|error| {
            Error::new(ProblemKind::Failed, "signals cannot be waited for").with_source(error)
        })
    };
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let mut leave = server.leave_requests();
    let mut stopped = owner.stopped();
    let mut idle = Idle {
        live_jobs: owner.hub.live_jobs(),
        connections: server.connections.clone(),
        stay: server.stay_requested.clone(),
        after: config.idle_exit,
    };
    loop {
        let reason = tokio::select! {
            _ = leave.wait_for(|leave| *leave) => "asked to",
            _ = terminate.recv() => "terminated",
            _ = interrupt.recv() => "interrupted",
            () = idle.long_enough() => NOTHING_TO_DO,
            _ = stopped.changed() => {
                return Err(Error::new(ProblemKind::Failed, "the owner stopped; its jobs run on for the next one"));
            }
        };
        let starting = jobs.lock_start().await;
        if reason == NOTHING_TO_DO && !idle.is_idle() {
            // Somebody came while we waited for the lock.
            continue;
        }
        log::info!("leaves: {reason}");
        if let Some(starting) = starting {
            jobs.close_holding(starting).await;
        }
        return Ok(());
    }
}

const NOTHING_TO_DO: &str = "nothing to do";

/// Whether anybody needs this owner.
struct Idle {
    live_jobs: watch::Receiver<usize>,
    connections: watch::Receiver<usize>,
    stay: watch::Receiver<bool>,
    after: Option<Duration>,
}

impl Idle {
    fn is_idle(&mut self) -> bool {
        let stay = *self.stay.borrow_and_update();
        let live_jobs = *self.live_jobs.borrow_and_update();
        let connections = *self.connections.borrow_and_update();
        !stay && live_jobs == 0 && connections == 0
    }

    /// Returns once nobody has needed the owner for as long as was given; never, if nothing was.
    async fn long_enough(&mut self) {
        let Some(after) = self.after else { return std::future::pending().await };
        loop {
            let is_idle = self.is_idle();
            let pause = async {
                if is_idle { tokio::time::sleep(after).await } else { std::future::pending().await }
            };
            tokio::select! {
                () = pause => return,
                Ok(()) = self.live_jobs.changed() => {}
                Ok(()) = self.connections.changed() => {}
                Ok(()) = self.stay.changed() => {}
            }
        }
    }
}

/// Log lines on standard error: time, level, message.
mod logger {
    use log::{LevelFilter, Log, Metadata, Record};
    use nodejobs_proc::machine::now;

    struct Lines;

    impl Log for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().starts_with("nodejobs")
        }

        fn log(&self, record: &Record<'_>) {
            if self.enabled(record.metadata()) {
                use std::io::Write;
                // A log that cannot be written is no reason to stop.
                let _ = writeln!(std::io::stderr(), "{} {:<5} {}", now().wall, record.level(), record.args());
            }
        }

        fn flush(&self) {}
    }

    pub(super) fn install() {
        if log::set_logger(&Lines).is_ok() {
            log::set_max_level(LevelFilter::Info);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn an_owner_is_needed_as_long_as_there_is_a_job_or_a_client_or_somebody_said_so() {
        let (live_jobs, connections, stay) =
            (watch::Sender::new(0), watch::Sender::new(0), watch::Sender::new(false));
        let mut idle = Idle {
            live_jobs: live_jobs.subscribe(),
            connections: connections.subscribe(),
            stay: stay.subscribe(),
            after: Some(Duration::from_millis(20)),
        };
        let long = Duration::from_millis(60);
        // A job counts before it runs as well: whoever waits for its time is live.
        let needs: [(&dyn Fn(), &dyn Fn()); 3] = [
            (&|| _ = live_jobs.send_replace(1), &|| _ = live_jobs.send_replace(0)),
            (&|| _ = connections.send_replace(1), &|| _ = connections.send_replace(0)),
            (&|| _ = stay.send_replace(true), &|| _ = stay.send_replace(false)),
        ];
        for (begin, end) in needs {
            begin();
            assert!(timeout(long, idle.long_enough()).await.is_err() && !idle.is_idle());
            end();
            assert!(timeout(long * 100, idle.long_enough()).await.is_ok() && idle.is_idle());
        }
        idle.after = None;
        assert!(timeout(long, idle.long_enough()).await.is_err(), "one that stays never leaves");
    }
}
