//! Who owns the directory, and who keeps its jobs.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use nodejobs_core::JobId;
use nodejobs_core::backend::KeeperStatus;
use nodejobs_core::units::show_duration;
use nodejobs_proc::look::{BadJournal, Consequence, FoundJob, FoundKeeper, KEEPER_PROTOCOL, KeeperState};
use nodejobs_proc::machine::now;
use rustix::event::{Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::{Finding, count_of_jobs};
use crate::api::{DaemonStatus, Hang};
use crate::client::{Client, ClientError};
use crate::directory::Holder;
use crate::foreign::OWNER_LOCK;
use crate::reach::DYING;

/// What the owner says, if there is one.
#[derive(Clone, Debug)]
pub(super) enum Running {
    Daemon(Box<DaemonStatus>),
    Nobody,
    /// Somebody owns the directory and gives no answer.
    Silent,
}

impl Running {
    /// The process of a daemon that answers.
    pub(super) fn daemon(&self) -> Option<u32> {
        match self {
            Running::Daemon(status) => Some(status.pid),
            Running::Nobody | Running::Silent => None,
        }
    }
}

/// A keeper that was looked at without its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeeperLook {
    /// The beginning of its files' names in `keepers/`.
    pub name: String,
    /// `answers`, `silent` (its process is stopped, most likely) or `dead`.
    pub state: &'static str,
    /// The process that only waits.
    pub pid: Option<u32>,
    /// The process that launches and collects.
    pub worker_pid: Option<u32>,
    /// Their children: main processes of jobs and what those left behind.
    pub children: usize,
    /// The jobs in its journal that run.
    pub jobs: Vec<KeptJob>,
    /// What is wrong with its journal, if something is: the file, and why.
    pub journal_problem: Option<String>,
    /// Launches that take long, a sentence each.
    pub held_up: Vec<String>,
    #[serde(skip)]
    consequence: Option<Consequence>,
}

/// A running job, as its keeper's journal tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeptJob {
    /// Its id.
    pub self_id: JobId,
    /// Which attempt.
    pub attempt: u32,
    /// Its main process.
    pub pid: u32,
}

/// The keepers that have files in the data directory, whatever its owner and its store are like.
///
/// # Errors
/// When their directory cannot be read.
pub fn keepers(data_dir: &Path) -> std::io::Result<Vec<KeeperLook>> {
    Ok(nodejobs_proc::look::keepers(&data_dir.join("keepers"))?.into_iter().map(KeeperLook::from).collect())
}

impl From<FoundKeeper> for KeeperLook {
    fn from(found: FoundKeeper) -> Self {
        let (jobs, journal_problem) = match found.jobs {
            Ok(jobs) => (jobs, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        let consequence = journal_problem.as_ref().map(|problem| problem.consequence);
        let sentence = |problem: BadJournal| format!("'{}': {}", problem.path.display(), problem.error);
        let job =
            |job: FoundJob| KeptJob { self_id: job.attempt.id, attempt: job.attempt.attempt, pid: job.pid };
        Self {
            name: found.name,
            state: match found.state {
                KeeperState::Answers => "answers",
                KeeperState::Silent => "silent",
                KeeperState::Dead => "dead",
            },
            pid: found.guard,
            worker_pid: found.worker,
            children: found.children,
            jobs: jobs.into_iter().map(job).collect(),
            journal_problem: journal_problem.map(sentence),
            held_up: found.held_up,
            consequence,
        }
    }
}

impl KeeperLook {
    /// What this says about the directory.
    pub fn finding(&self) -> Finding {
        const CHECK: &str = "keeper";
        let text = format!("{}: {}", self.name, self.processes());
        if let (Some(problem), Some(consequence)) = (&self.journal_problem, self.consequence) {
            let text = format!("{text}; its journal is unusable: {problem}");
            return match consequence {
                Consequence::None => {
                    let way_out = "nothing: all that it could tell is known";
                    Finding::weaker(CHECK, text, way_out)
                }
                Consequence::Removed => {
                    let way_out = "nothing: it is of an earlier boot, and the next daemon deletes it";
                    Finding::weaker(CHECK, text, way_out)
                }
                Consequence::LaunchesAreLost => Finding::problem(
                    CHECK,
                    text,
                    "start a daemon: launches without another trace become lost and are not repeated, and the file is renamed to \
                     *.damaged",
                ),
                Consequence::StopsTheOwner => Finding::problem(
                    CHECK,
                    text,
                    "start the version that wrote it, or `nodejobs doctor --fix`: launches that only it tells of become lost",
                ),
            };
        }
        match self.state {
            "silent" => {
                let way_out = "continue its worker with SIGCONT; a daemon does so by itself";
                Finding::problem(CHECK, format!("{text}; it does not answer"), way_out)
            }
            _ if !self.held_up.is_empty() => held_up(CHECK, &text, &self.held_up),
            "dead" => Finding::ok(CHECK, format!("{text}; the next daemon reads what it has left")),
            _ => Finding::ok(CHECK, format!("{text}; it answers")),
        }
    }

    fn processes(&self) -> String {
        let pid = |pid: Option<u32>| pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        match (self.pid, self.worker_pid) {
            (None, None) if self.state == "dead" => "no process".to_owned(),
            (None, None) => "its processes cannot be seen from here".to_owned(),
            (guard, worker) => {
                format!("guard {}, worker {}, {} children", pid(guard), pid(worker), self.children)
            }
        }
    }
}

pub(super) fn daemon(data_dir: &Path) -> (Finding, Running) {
    const CHECK: &str = "daemon";
    match answer_of_daemon(data_dir) {
        Ok(status) => {
            let millis = now().wall.as_millis().saturating_sub(status.started_at.as_millis());
            let served = show_duration(millis.max(0).unsigned_abs());
            let text = format!("pid {}, has served for {served}", status.pid);
            (Finding::ok(CHECK, text), Running::Daemon(Box::new(status)))
        }
        Err(error) => nobody_answers(data_dir, &error),
    }
}

/// A daemon that dies over its answer is one that does not run: whoever looks again finds it gone.
fn answer_of_daemon(data_dir: &Path) -> Result<DaemonStatus, ClientError> {
    let deadline = Instant::now() + DYING;
    loop {
        match Client::connect(data_dir).and_then(|client| client.daemon_status()) {
            Err(ClientError::Broken { .. }) if Instant::now() < deadline => {
                let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 10_000_000 }));
            }
            answered => return answered,
        }
    }
}

fn nobody_answers(data_dir: &Path, error: &ClientError) -> (Finding, Running) {
    const CHECK: &str = "daemon";
    let lock = data_dir.join(OWNER_LOCK);
    let is_owned =
        File::open(&lock).is_ok_and(|lock| flock(lock, FlockOperation::NonBlockingLockShared).is_err());
    if is_owned {
        let holder = std::fs::read(&lock).ok().and_then(|text| serde_json::from_slice::<Holder>(&text).ok());
        let pid = holder.map_or("a process".to_owned(), |holder| format!("process {}", holder.pid));
        let text = format!("{pid} owns the directory and cannot be asked: {}", chain(error));
        let way_out = "end that process; its jobs run on";
        return (Finding::problem(CHECK, text, way_out), Running::Silent);
    }
    if error.is_no_daemon() || !data_dir.is_dir() {
        return (Finding::ok(CHECK, "none runs; a command that needs one starts it"), Running::Nobody);
    }
    let way_out = "is the socket somebody else's? remove it if no daemon runs";
    (Finding::problem(CHECK, chain(error), way_out), Running::Nobody)
}

/// An error with what lies underneath.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

pub(super) fn versions(running: &Running) -> Finding {
    const CHECK: &str = "versions";
    const OWN: &str = env!("CARGO_PKG_VERSION");
    let mut text = format!("program {OWN}, keeper protocol {KEEPER_PROTOCOL}");
    let Running::Daemon(status) = running else { return Finding::ok(CHECK, text) };
    text.push_str(&format!(", daemon {}", status.version));
    let mut keepers: Vec<&str> = status.keepers.iter().map(|keeper| keeper.version.as_str()).collect();
    keepers.sort_unstable();
    keepers.dedup();
    if !keepers.is_empty() {
        text.push_str(&format!(", keepers {}", keepers.join(" and ")));
    }
    if status.version == OWN && keepers.iter().all(|version| *version == OWN) {
        return Finding::ok(CHECK, text);
    }
    let way_out =
        "`nodejobs daemon restart` starts this version; keepers are replaced when their jobs have ended";
    Finding::weaker(CHECK, format!("{text}: not all of them are the same"), way_out)
}

/// One line for each keeper, and for what dead ones have left that is of no more use.
pub(super) fn keeper_findings(data_dir: &Path, running: &Running) -> Vec<Finding> {
    let set_aside = nodejobs_proc::look::set_aside(&data_dir.join("keepers")).unwrap_or_default();
    let set_aside = set_aside.into_iter().map(|path| {
        let text = format!("'{}' was damaged and is set aside; nothing needs it", path.display());
        Finding::weaker("keeper", text, "`nodejobs daemon stop`, then `nodejobs doctor --fix` deletes it")
    });
    living_keepers(data_dir, running).into_iter().chain(set_aside).collect()
}

fn living_keepers(data_dir: &Path, running: &Running) -> Vec<Finding> {
    const CHECK: &str = "keepers";
    if let Running::Daemon(status) = running {
        if status.keepers.is_empty() {
            return vec![Finding::ok(CHECK, "none; the first job starts one")];
        }
        return status.keepers.iter().map(known_keeper).collect();
    }
    match keepers(data_dir) {
        Ok(found) if found.is_empty() => vec![Finding::ok(CHECK, "none; the first job starts one")],
        Ok(found) => found.iter().map(KeeperLook::finding).collect(),
        // The directory itself is no directory, which is said elsewhere.
        Err(_) if !data_dir.is_dir() => Vec::new(),
        Err(error) => {
            vec![Finding::problem(CHECK, format!("they cannot be looked for: {error}"), "chmod 700 keepers")]
        }
    }
}

/// One line for each thing that does not come back from a file system.
pub(super) fn hanging(_: &Path, running: &Running) -> Vec<Finding> {
    let Running::Daemon(status) = running else { return Vec::new() };
    let finding = |hang: &Hang| {
        let millis = now().wall.as_millis().saturating_sub(hang.since.as_millis());
        let text = format!("{hang} (for {})", show_duration(millis.max(0).unsigned_abs()));
        let way_out =
            "mend its server or connection, or unmount it with `umount -f`; nothing else waits for it";
        Finding::problem("file systems", text, way_out)
    };
    status.hanging.iter().map(finding).collect()
}

fn known_keeper(keeper: &KeeperStatus) -> Finding {
    let pid = |pid: Option<u32>| pid.map_or_else(|| "dead".to_owned(), |pid| pid.to_string());
    let KeeperStatus { pid: guard, worker_pid, version, jobs, draining, trouble } = keeper;
    let jobs = count_of_jobs(*jobs as u64);
    let text = format!("guard {}, worker {}, {jobs}, version {version}", pid(*guard), pid(*worker_pid));
    if *draining && (guard.is_none() || worker_pid.is_none()) {
        let way_out = "nothing: its jobs are safe, and new ones go to a new keeper";
        return Finding::weaker(
            "keeper",
            format!("{text}; one of its processes was killed, it ends with its jobs"),
            way_out,
        );
    }
    if !trouble.is_empty() {
        return held_up("keeper", &text, trouble);
    }
    Finding::ok("keeper", text)
}

/// Launches or a keeper that do not move on.
fn held_up(check: &str, text: &str, trouble: &[String]) -> Finding {
    let way_out =
        "bring the file system back or unmount it by force (`umount -f -l`); other jobs are not affected";
    Finding::problem(check, format!("{text}; {}", trouble.join("; ")), way_out)
}
