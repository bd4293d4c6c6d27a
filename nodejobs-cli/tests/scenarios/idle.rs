//! Nothing to do means that nothing is done.

use std::collections::BTreeMap;
use std::process::Command;

use crate::engine::store;
use crate::support::{Home, eventually, kill};

/// For so long everything is watched, in seconds.
const WATCHED: &str = "3";

/// How often each thread of the processes has gone on the processor since it began: a wake-up counts, whatever it is for.
pub(crate) fn switches(pids: &[u32]) -> BTreeMap<(u32, String, String), u64> {
    let mut found = BTreeMap::new();
    for pid in pids {
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process").flatten() {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let count = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
            let count = count.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum();
            let name = status.lines().next().unwrap_or_default().to_owned();
            // sled's threads look for work each second. That is no choice of ours, and the store says that it is so.
            if name.contains("sled-io-") {
                assert_eq!(store(), "sled");
                continue;
            }
            found.insert((*pid, task.file_name().to_string_lossy().into_owned(), name), count);
        }
    }
    found
}

/// The threads of a process that wait only for the next blocking call, or for the end of their patience with it.
fn is_settled(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process").flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .all(|name| !["tokio", "nodejobs-files", "nodejobs-told"].iter().any(|other| name.starts_with(other)))
}

/// Waits until the owner has done what it does once after some work: SQLite's log is folded in and empty.
fn at_rest(home: &Home) {
    if store() == "sqlite" {
        let log = home.data_dir().join("jobs.sqlite-wal");
        let length = || std::fs::metadata(&log).expect("a write-ahead log").len();
        eventually("the log is empty", || (length() == 0).then_some(()));
    }
}

/// The test of the promise with many jobs whose files are watched.
#[test]
fn many_running_jobs_that_have_written_and_are_silent_wake_nobody() {
    const JOBS: usize = 100;
    let home = Home::new();
    home.ok(["daemon", "start"]);
    for number in 0..JOBS {
        home.ok(["run", "--id", &format!("job-{number}"), "echo written; exec sleep 1000"]);
    }
    let daemon = home.daemon_pid();
    // Each has been looked at when its index says so, and is watched when nothing more happens.
    eventually("all have written, and it is noted", || {
        let directories = std::fs::read_dir(home.data_dir().join("logs")).expect("read").flatten();
        let files = directories.flat_map(|entry| std::fs::read_dir(entry.path()).expect("read").flatten());
        let indexes = files.filter(|entry| entry.path().extension().is_some_and(|end| end == "idx"));
        (indexes.count() == JOBS).then_some(())
    });
    eventually("the threads of the last request have ended", || is_settled(daemon).then_some(()));
    at_rest(&home);
    let before = switches(&[daemon]);
    assert!(Command::new("sleep").arg(WATCHED).status().expect("sleep").success());
    assert_eq!(switches(&[daemon]), before, "by process, thread and name");
}

#[test]
fn a_running_job_that_is_silent_wakes_nobody() {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    home.ok(["run", "--id", "quiet", "--", "sleep", "1000"]);
    home.running("quiet");
    let (guard, worker) = home.keeper();
    let daemon = home.daemon_pid();
    let watched = [daemon, guard, worker];
    let busy = switches(&watched);
    home.ok(["ls"]);
    assert_ne!(switches(&watched), busy, "a command is seen");

    eventually("the threads of the last request have ended", || is_settled(daemon).then_some(()));
    at_rest(&home);
    let before = switches(&watched);
    // Time is what is measured here, so it has to pass.
    assert!(Command::new("sleep").arg(WATCHED).status().expect("sleep").success());
    assert_eq!(switches(&watched), before, "by process, thread and name");
    assert!(before.len() >= 3, "{before:?}");
    assert_eq!(home.record("quiet")["status"], "running");
}

/// Their files are looked at by threads of their file system, which are gone when nothing is to be looked at.
#[test]
fn running_jobs_whose_logs_were_placed_by_the_user_wake_nobody() {
    const JOBS: usize = 20;
    let home = Home::new();
    home.ok(["daemon", "start"]);
    let logs = home.path().join("logs").to_string_lossy().into_owned();
    for number in 0..JOBS {
        let id = format!("job-{number}");
        home.ok(["run", "--id", &id, "--logdir", &logs, "echo written; exec sleep 1000"]);
    }
    let daemon = home.daemon_pid();
    eventually("all have written, and it is noted", || {
        let directories = std::fs::read_dir(home.data_dir().join("logs")).ok()?.flatten();
        let files = directories.flat_map(|entry| std::fs::read_dir(entry.path()).expect("read").flatten());
        (files.filter(|entry| entry.path().extension().is_some_and(|end| end == "idx")).count() == JOBS)
            .then_some(())
    });
    eventually("the threads of the last look have ended", || is_settled(daemon).then_some(()));
    let before = switches(&[daemon]);
    assert!(Command::new("sleep").arg(WATCHED).status().expect("sleep").success());
    assert_eq!(switches(&[daemon]), before, "by process, thread and name");
}

#[test]
fn schedules_that_are_not_due_wake_nobody() {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    for number in 0..20 {
        let name = format!("s{number}");
        home.ok(["schedule", "add", &name, "--cron", "0 0 1 1 *", "--tz", "Europe/Berlin", "--", "true"]);
    }
    let daemon = home.daemon_pid();
    eventually("the threads of the last request have ended", || is_settled(daemon).then_some(()));
    at_rest(&home);
    let before = switches(&[daemon]);
    assert!(Command::new("sleep").arg(WATCHED).status().expect("sleep").success());
    assert_eq!(switches(&[daemon]), before, "by process, thread and name");
}

#[test]
fn the_store_rests_once_after_some_work_and_a_kill_then_loses_nothing() {
    let home = Home::new();
    for round in 1..=4 {
        home.ok(["run", "--id", &format!("job-{round}"), "--wait", "--", "true"]);
        at_rest(&home);
        let daemon = home.daemon_pid();
        if round == 1 {
            eventually("the threads of the last request have ended", || is_settled(daemon).then_some(()));
            let before = switches(&[daemon]);
            assert!(Command::new("sleep").arg(WATCHED).status().expect("sleep").success());
            assert_eq!(switches(&[daemon]), before, "by process, thread and name");
        }
        kill(daemon);
        let records = home.records();
        assert_eq!(records.len(), round);
        assert!(records.iter().all(|record| record["status"] == "finished"), "{records:?}");
    }
}
