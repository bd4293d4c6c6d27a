//! What works here, what is weaker, and what is broken: a look that starts nothing, changes nothing and never hangs.
//!
//! ```no_run
//! use nodejobs::doctor::{Level, examine};
//!
//! for finding in examine("/var/lib/my-program/jobs".as_ref()) {
//!     if finding.level == Level::Problem {
//!         eprintln!("{}: {}", finding.check, finding.text);
//!     }
//! }
//! ```

mod config;
mod directory;
mod limits;
mod logs;
mod machine;
mod owner;
mod rescue;
mod store;

use std::fmt;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use owner::{KeeperLook, KeptJob, keepers};
pub use rescue::{Rescued, fix, stop_without_owner};

/// How long any one look may take. File systems and processes that are stuck say nothing at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but promises less, or may run short.
    Weaker,
    /// It does not work.
    Problem,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Ok => "ok",
            Level::Weaker => "weaker",
            Level::Problem => "problem",
        })
    }
}

/// What one look has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: String,
    /// How good it is.
    pub level: Level,
    /// What was found, and why that is weaker or a problem.
    pub text: String,
    /// What can be done about it, if it is not all right.
    pub way_out: Option<String>,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(check: &str, text: impl Into<String>) -> Self {
        Self { check: check.to_owned(), level: Level::Ok, text: text.into(), way_out: None }
    }

    /// Something that works and promises less.
    pub fn weaker(check: &str, text: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { level: Level::Weaker, way_out: Some(way_out.into()), ..Self::ok(check, text) }
    }

    /// Something that does not work.
    pub fn problem(check: &str, text: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { level: Level::Problem, way_out: Some(way_out.into()), ..Self::ok(check, text) }
    }
}

/// Looks at a data directory, its owner, its keepers and this machine. What takes too long is a problem, and the rest
/// is looked at all the same.
pub fn examine(data_dir: &Path) -> Vec<Finding> {
    let daemon = within(PATIENCE, {
        let data_dir = data_dir.to_owned();
        move || owner::daemon(&data_dir)
    });
    let (daemon, running) = daemon.unwrap_or_else(|| {
        let text = format!(
            "the daemon has not answered within {} s; is it stopped, or its disk?",
            PATIENCE.as_secs()
        );
        let stuck =
            Finding::problem("daemon", text, "look at it with `ps`, and end it with SIGKILL: no job is lost");
        (stuck, owner::Running::Silent)
    });
    let looks: [(&str, Look); 9] = [
        ("versions", |_, running| vec![owner::versions(running)]),
        ("directory", |data_dir, _| directory::look(data_dir)),
        ("config.toml", config::look),
        ("log caps", |data_dir, _| logs::look(data_dir)),
        ("store", store::look),
        ("keepers", owner::keeper_findings),
        ("file systems", owner::hanging),
        ("limits", limits::look),
        ("machine", |_, running| machine::look(running.daemon())),
    ];
    let mut findings = Vec::new();
    for (check, look) in looks {
        let (data_dir, running) = (data_dir.to_owned(), running.clone());
        let found = within(PATIENCE, move || look(&data_dir, &running));
        findings.extend(found.unwrap_or_else(|| {
            let text = format!("the look at it has not come to an end within {} s", PATIENCE.as_secs());
            vec![Finding::problem(check, text, "is the file system stuck? try another one with --data-dir")]
        }));
        if check == "store" {
            findings.push(daemon.clone());
        }
    }
    findings
}

type Look = fn(&Path, &owner::Running) -> Vec<Finding>;

/// What the work gives, if it does so in time. If not, its thread is left to itself.
fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = channel();
    let spawned = std::thread::Builder::new().name("nodejobs-look".to_owned()).spawn(move || {
        let _ = sender.send(work());
    });
    spawned.ok()?;
    receiver.recv_timeout(patience).ok()
}

/// Bytes for people, in powers of 1024.
fn bytes(count: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{}.{} {unit}", count / size, count % size * 10 / size),
        None => format!("{count} bytes"),
    }
}

/// `1 job`, `2 jobs`.
fn count_of_jobs(count: u64) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stuck_is_left_to_itself() {
        let (go, wait) = channel::<()>();
        let stuck = within(Duration::from_millis(10), move || wait.recv().is_ok());
        assert_eq!(stuck, None);
        drop(go);
        assert_eq!(within(PATIENCE, || 7), Some(7));
    }

    #[test]
    fn sizes_are_for_people() {
        let shown: Vec<String> = [0, 1023, 1024, 1536, 5 << 20, 3 << 30].map(bytes).into();
        assert_eq!(shown, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }

    #[test]
    fn levels_are_ordered_and_written_in_lower_case() {
        assert!(Level::Ok < Level::Weaker && Level::Weaker < Level::Problem);
        assert_eq!(serde_json::to_string(&Level::Problem).expect("JSON"), "\"problem\"");
        assert_eq!(format!("{:<7}|", Level::Ok), "ok     |");
    }
}
