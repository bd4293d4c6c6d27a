//! Other systems that run jobs, as far as they are found on `PATH`: what is asked of each to do what we do.
//!
//! Each is a file with one [`Peer`]; [`PEERS`] is the table of them. [`session`] starts one in a directory of its own
//! and ends whatever it started.

mod hyperqueue;
mod nq;
mod parallel;
mod pm2;
mod pueue;
pub(super) mod session;
mod supervisord;
mod task_spooler;
mod xargs;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A command: the program and its arguments. `{job}` is the program that is the job, `{round}` a number that is new in
/// each call, `{slots}` how many jobs may run at a time, `{dir}` the directory of the session.
///
/// What takes a script is `["sh", "-c", …]`. It has the same in its environment, as `JOB`, `ROUND`, `SLOTS` and `DIR`, and
/// how many jobs are wanted as `N`.
pub(super) type Words = &'static [&'static str];

/// How to ask another system for what we do. What it does not have is `None`, and shown as `-`.
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// The head of its column.
    pub(super) short: &'static str,
    /// What is looked for on `PATH`.
    pub(super) program: &'static str,
    pub(super) version: Words,
    /// What is left of a job that has ended.
    pub(super) keeps: &'static str,
    /// Whether it does what we do. One that keeps no record of its jobs is shown, and not compared with.
    pub(super) compares: bool,
    pub(super) environment: &'static [(&'static str, &'static str)],
    /// Starts what has to be there before the first job, and returns when it answers.
    pub(super) start: Option<Words>,
    /// Submits `{job}`, and returns when it is accepted.
    pub(super) submit: Option<Words>,
    /// Runs `{job}`, and returns when it has ended.
    pub(super) wait: Option<Words>,
    /// Runs `{job}` with its output in a file, and may return before it has ended.
    pub(super) output: Option<Words>,
    /// Runs `$N` jobs in the quickest way there is, and returns when all have ended.
    pub(super) batch: Option<Words>,
    /// Submits `$N` jobs one by one, and returns when all have ended.
    pub(super) looped: Option<Words>,
    /// Lists the jobs of one `batch`.
    pub(super) list: Option<Words>,
    /// Starts `$N` jobs of `sleep 1000` in addition to what there is, and may return before they run.
    pub(super) sleepers: Option<Words>,
    /// Stops the only job that runs.
    pub(super) stop: Option<Words>,
    /// Stops all jobs that run.
    pub(super) stop_all: Option<Words>,
    pub(super) crash: Option<Crash>,
}

/// What happens around `kill -9` of the manager, which is the first process that `start` made.
pub(super) struct Crash {
    /// Submits `$N` jobs that run `{job}`, `$N` of them at a time.
    pub(super) submit: Words,
    /// Brings the manager back, in the way that its documentation gives.
    pub(super) restart: Words,
    /// Prints of how many jobs it says that they ended with 7.
    pub(super) codes: Words,
}

/// In the order shown.
pub(super) const PEERS: &[&Peer] = &[
    &task_spooler::PEER,
    &nq::PEER,
    &pueue::PEER,
    &hyperqueue::PEER,
    &supervisord::PEER,
    &pm2::PEER,
    &parallel::PEER,
    &xargs::PEER,
];

/// The head of the column of a peer.
pub(super) fn column(name: &'static str) -> &'static str {
    PEERS.iter().find(|peer| peer.name == name).map_or(name, |peer| peer.short)
}

impl Peer {
    /// One that can do nothing.
    const NONE: Self = Self {
        name: "",
        short: "",
        program: "",
        version: &[],
        keeps: "",
        compares: true,
        environment: &[],
        start: None,
        submit: None,
        wait: None,
        output: None,
        batch: None,
        looped: None,
        list: None,
        sleepers: None,
        stop: None,
        stop_all: None,
        crash: None,
    };
}

/// A peer that is on this machine.
pub(super) struct Found {
    pub(super) peer: &'static Peer,
    /// Where its programs are.
    directory: PathBuf,
    version: Option<String>,
}

impl Found {
    /// Looks for each peer in the directories of `path`.
    pub(super) fn all(path: &OsStr) -> Vec<Self> {
        let found = |peer: &'static Peer| {
            let directory =
                std::env::split_paths(path).find(|directory| is_program(&directory.join(peer.program)))?;
            Some(Self { peer, directory, version: None })
        };
        PEERS.iter().copied().filter_map(found).collect()
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Takes the version from what the program said about itself.
    pub(super) fn learn_version(&mut self, said: &str) {
        self.version = version_in(said);
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The first word that is a number with a point in it, or else just a number, with or without a `v` before it.
fn version_in(said: &str) -> Option<String> {
    let words = said.split(|letter: char| letter.is_whitespace() || letter == ',');
    let words = words.map(|word| word.strip_prefix('v').unwrap_or(word));
    let numbers: Vec<&str> =
        words.filter(|word| word.starts_with(|first: char| first.is_ascii_digit())).collect();
    numbers.iter().find(|number| number.contains('.')).or(numbers.first()).map(|number| (*number).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_is_named_and_can_do_something() {
        for peer in PEERS {
            assert!(
                !peer.name.is_empty() && !peer.short.is_empty() && !peer.keeps.is_empty(),
                "{}",
                peer.program
            );
            assert_eq!(PEERS.iter().filter(|other| other.name == peer.name).count(), 1, "{}", peer.name);
            assert!(peer.batch.is_some(), "{}", peer.name);
            assert!(peer.stop.is_some() == peer.stop_all.is_some(), "{}", peer.name);
            assert!(peer.stop.is_none() || peer.sleepers.is_some(), "{} has nothing to stop", peer.name);
            let words = [peer.submit, peer.wait, peer.output];
            for words in words.into_iter().flatten() {
                let has_job = words.iter().any(|word| word.contains("{job}") || word.contains("$JOB"));
                assert!(has_job, "{}: {words:?}", peer.name);
            }
        }
    }

    #[test]
    fn versions_are_read() {
        let of = |said| version_in(said).unwrap();
        assert_eq!(of("Task Spooler v1.0.1 - a task queue"), "1.0.1");
        assert_eq!(of("GNU parallel 20221122\nCopyright"), "20221122");
        assert_eq!(of("nq\t0.3.1-4\n"), "0.3.1-4");
        assert_eq!(of("$ pm2 start api.js -i 4\n[PM2] Spawning PM2 daemon\n7.0.4\n"), "7.0.4");
        assert_eq!(version_in("no version"), None);
    }

    #[test]
    fn who_is_not_on_the_path_is_not_found() {
        assert!(Found::all(OsStr::new("/no/such/directory")).is_empty());
        let found = Found::all(OsStr::new("/no/such/directory:/usr/bin:/bin"));
        assert!(found.iter().all(|found| is_program(&found.directory.join(found.peer.program))));
    }
}
