//! The daemon: an owner that does nothing but own, until it is told to leave or nobody needs it.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{Problem, ProblemKind};
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
    /// Is told with one [`Readiness`] line that requests are answered, or why they are not.
    pub ready: Option<File>,
}

/// The line that a daemon writes for whoever started it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Requests are answered, by this process or by an owner that was there before.
    Ready {
        /// Whether this process is the owner.
        owner: bool,
    },
    /// There is no owner, and why.
    Error(Problem),
}

/// Owns the directory until it is time to leave. Jobs run on; the next owner finds them.
///
/// Log lines go to standard error. SIGTERM and SIGINT make it leave in order.
pub fn run(config: Config) -> ExitCode {
    logger::install();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(serve(config)),
        Err(error) => {
            Err(Error::new(ProblemKind::Unavailable, "no runtime can be started").with_source(error))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{}", error.to_problem());
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config) -> Result<(), Error> {
    let options = OpenOptions { store: config.store, keeper: None };
    let opened = Jobs::open_with(&config.data_dir, options).await;
    if let Some(mut ready) = config.ready {
        let line = match &opened {
            Ok(jobs) => Readiness::Ready { owner: jobs.is_owner() },
            Err(error) => Readiness::Error(error.to_problem()),
        };
        // Whoever started it may be gone; that is no reason not to serve others.
        let _ = serde_json::to_writer(&mut ready, &line);
        let _ = ready.write_all(b"\n");
    }
    let jobs = opened?;
    let Some((owner, server)) = jobs.owner() else { return Ok(()) };
    log::info!("owns {} (process {})", owner.directory.path().display(), std::process::id());
    let signals = |kind| {
        signal(kind).map_err(|error| {
            Error::new(ProblemKind::Failed, "signals cannot be waited for").with_source(error)
        })
    };
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let mut leave = server.leave.subscribe();
    let mut stopped = owner.stopped();
    let reason = tokio::select! {
        _ = leave.wait_for(|leave| *leave) => "asked to",
        _ = terminate.recv() => "terminated",
        _ = interrupt.recv() => "interrupted",
        () = idle(owner.hub.live_jobs(), server.connections.clone(), config.idle_exit) => "nothing to do",
        _ = stopped.changed() => {
            return Err(Error::new(ProblemKind::Failed, "the owner stopped; its jobs run on for the next one"));
        }
    };
    log::info!("leaves: {reason}");
    jobs.close().await;
    Ok(())
}

/// Returns after so long without live jobs and clients; never, if no time is given.
async fn idle(
    mut live_jobs: tokio::sync::watch::Receiver<usize>,
    mut connections: tokio::sync::watch::Receiver<usize>,
    after: Option<Duration>,
) {
    let Some(after) = after else { return std::future::pending().await };
    loop {
        let is_idle = *live_jobs.borrow_and_update() == 0 && *connections.borrow_and_update() == 0;
        let pause =
            async { if is_idle { tokio::time::sleep(after).await } else { std::future::pending().await } };
        tokio::select! {
            () = pause => return,
            Ok(()) = live_jobs.changed() => {}
            Ok(()) = connections.changed() => {}
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
