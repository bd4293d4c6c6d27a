//! Rules about processes that die while they commit.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::super::memory::MemoryStore;
use super::super::{DocumentChange, DocumentKind, JobStore, Unit};
use super::Verdict;
use super::case::DiskCase;
use super::child::{self, Role};
use super::files::{around, copy};
use super::jobs::{
    assert_same, assert_sound, commit, content, documents, insert, job, new_attempt, put, remove, update,
    update_attempt, with,
};
use super::random::Random;
use crate::Status;

/// How many kills there are if `NODEJOBS_KILLS` does not say.
const KILLS: u64 = 25;
const SIGKILL: i32 = 9;
const SIGABRT: i32 = 6;
/// The key of the number of commits so far, which each commit raises.
const COMMITS: &str = "commits";

/// The commit of that number, the same whoever makes it. Jobs go again, so that the store does not grow for ever.
fn commit_of(number: u64) -> Vec<Unit> {
    let counter = (number + 1).to_string();
    let mut units = vec![documents([put(DocumentKind::Meta, COMMITS, counter.as_bytes())])];
    let pair = number / 2;
    let [left, right, gone] = names(pair);
    // Mostly small, sometimes of many pages.
    let size = if pair % 16 == 3 { 200_000 } else { usize::try_from(pair * 37 % 3000).unwrap_or(0) };
    let body = vec![u8::try_from(pair % 251).unwrap_or(0); size];
    if number.is_multiple_of(2) {
        units.push(with(insert(&left, Status::Starting), put(DocumentKind::Input, &left, &body)));
        units.extend([insert(&right, Status::Starting), insert(&gone, Status::Finished)]);
    } else {
        units.extend([
            update(&left, 1, Status::Running),
            remove(&gone, 1),
            update(&right, 1, Status::Running),
        ]);
        if let Some(earlier) = pair.checked_sub(10) {
            let [left, right, _] = names(earlier);
            let gone = DocumentChange::Remove { kind: DocumentKind::Input, key: left.clone() };
            units.extend([
                update(&left, 2, Status::Finished),
                update(&right, 2, Status::Failed),
                new_attempt(&right, 3, 2, Status::Running),
                with(remove(&left, 3), gone),
            ]);
        }
        if let Some(earliest) = pair.checked_sub(20) {
            let [_, right, _] = names(earliest);
            units.extend([update_attempt(&right, 4, 2, Status::Finished), remove(&right, 5)]);
        }
    }
    units
}

fn names(pair: u64) -> [String; 3] {
    ["left", "right", "gone"].map(|name| format!("{name}-{pair}"))
}

fn commits_in(store: &dyn JobStore) -> u64 {
    let body = store.document(DocumentKind::Meta, COMMITS).expect("a document");
    body.map_or(0, |body| String::from_utf8(body).expect("text").parse().expect("a number"))
}

/// The body of the process that is killed.
pub(super) fn commit_for_ever(case: &DiskCase, place: &Path) {
    let store = case.open(place);
    for number in commits_in(&*store).. {
        commit(&*store, &commit_of(number));
        child::say(&format!("committed {number}"));
    }
}

/// When a process is killed.
#[derive(Debug)]
enum Instants {
    /// So long after its start: it may not have opened the store yet.
    AfterStart(Duration),
    /// So long after its first commit: anywhere.
    AfterFirst(Duration),
    /// As soon as it has said so many.
    AtLine(u64),
}

impl Instants {
    fn random(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Instants::AfterStart(Duration::from_micros(random.below(40_000))),
            1 => Instants::AtLine(1 + random.below(40)),
            _ => Instants::AfterFirst(Duration::from_micros(random.below(40_000))),
        }
    }
}

/// Takes lines until it is time; gives the last number that was said.
fn wait_until_it_is_time(instant: &Instants, started: Instant, lines: &Receiver<u64>) -> Option<u64> {
    let mut deadline = match instant {
        Instants::AfterStart(time) => Some(started + *time),
        _ => None,
    };
    let (mut last, mut said) = (None, 0);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match left
            .map_or_else(|| lines.recv().map_err(RecvTimeoutError::from), |left| lines.recv_timeout(left))
        {
            Ok(number) => (last, said) = (Some(number), said + 1),
            // Its time has come, or it has ended by itself, which its status tells.
            Err(_) => return last,
        }
        match instant {
            Instants::AtLine(line) if said >= *line => return last,
            Instants::AfterFirst(time) => deadline = deadline.or(Some(Instant::now() + *time)),
            _ => {}
        }
    }
}

/// Lets a process commit until it is killed; gives the number of the last commit that it said was made.
fn kill(case: &DiskCase, place: &Path, instant: &Instants) -> Option<u64> {
    let mut command = child::command(case, Role::Commits, place, &[]);
    let started = Instant::now();
    let mut process = command.stdout(Stdio::piped()).spawn().expect("started");
    let output = BufReader::new(process.stdout.take().expect("a pipe"));
    let (sender, lines) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for line in output.lines() {
                let line = line.expect("text");
                if let Some(number) = line.strip_prefix("committed ") {
                    // Nobody hears what comes after a panic.
                    let _ = sender.send(number.parse().expect("a number"));
                }
            }
        });
        let last = wait_until_it_is_time(instant, started, &lines);
        process.kill().expect("killed");
        let status = process.wait().expect("waited for");
        assert_eq!(status.signal(), Some(SIGKILL), "the child ended by itself: {status}");
        // What was said before the kill was acknowledged as well.
        lines.iter().last().or(last)
    })
}

pub(super) fn commits_survive_kills(case: &DiskCase) -> Verdict {
    let kills = std::env::var("NODEJOBS_KILLS").ok();
    let kills = kills.map_or(KILLS, |kills| kills.parse().expect("NODEJOBS_KILLS is a number"));
    let mut random = Random::new();
    let place = case.place();
    // What the acknowledged commits, and at most one more, make of an empty store.
    let model = MemoryStore::new();
    let mut in_model = 0;
    for round in 0..kills {
        let instant = Instants::random(&mut random);
        let acknowledged = kill(case, &place, &instant).map_or(0, |number| number + 1).max(in_model);
        if !place.exists() {
            // It was killed before it had made a store.
            assert_eq!(acknowledged, 0);
            continue;
        }
        // Mostly a copy is looked at, so that what a kill has left is what the next one happens to.
        let copied = case.place();
        let store = if random.below(4) == 0 {
            case.open(&place)
        } else {
            std::fs::remove_dir(around(&copied)).expect("an empty directory");
            copy(around(&place), around(&copied));
            case.open(&copied)
        };
        let found = commits_in(&*store);
        let what = format!("after kill {round}, {instant:?}");
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "{what}: {found} commits are there, {acknowledged} were acknowledged"
        );
        for number in in_model..found {
            commit(&model, &commit_of(number));
        }
        in_model = found;
        assert_same(&content(&*store), &content(&model), &what);
        assert_sound(&*store);
        drop(store);
        if copied.exists() {
            std::fs::remove_dir_all(around(&copied)).expect("removed");
        }
    }
    println!("{in_model} commits, {kills} kills");
    assert!(in_model > 0, "no process ever got to a commit");
    Verdict::Held
}

/// The body of the process that aborts.
pub(super) fn commit_and_abort(case: &DiskCase, place: &Path) {
    let store = case.open(place);
    for number in 0..10 {
        commit(&*store, &[insert(&format!("job-{number}"), Status::Running)]);
    }
    child::say("committed 10");
    std::process::abort();
}

pub(super) fn commits_survive_an_abort(case: &DiskCase) -> Verdict {
    let place = case.place();
    let output = child::command(case, Role::Abort, &place, &[]).output().expect("started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.signal(), Some(SIGABRT), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("\ncommitted 10\n"), "{said}");
    let store = case.open(&place);
    for number in 0..10 {
        assert!(job(&*store, &format!("job-{number}")).is_some(), "commit {number} is lost");
    }
    assert_sound(&*store);
    Verdict::Held
}
