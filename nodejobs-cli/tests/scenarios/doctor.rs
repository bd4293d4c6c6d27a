//! `doctor`: what it finds in directories that are well, broken, not there or not ours.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::engine::{damages, store};
use crate::support::{Home, Said, eventually, is_alive, kill, pid_of, signal, text};

/// The checks of this name.
fn checks(said: &Said, name: &str) -> Vec<Value> {
    let checks = said.json()["checks"].as_array().expect("checks").clone();
    checks.into_iter().filter(|check| check["check"] == name).collect()
}

/// The only check of this name is of this level and says this.
#[track_caller]
fn found(said: &Said, name: &str, level: &str, words: &str) {
    let checks = checks(said, name);
    let [check] = checks.as_slice() else { panic!("not one '{name}' in {said:?}") };
    assert_eq!(check["level"], level, "{check}");
    assert!(check["text"].as_str().expect("text").contains(words), "'{words}' is not in {check}");
    assert_eq!(check["way_out"].is_null(), level == "ok", "{check}");
}

fn doctor(home: &Home) -> Said {
    home.nodejobs(["-o", "json", "doctor"])
}

/// Every file of a directory with its content and its time of change.
fn holdings(path: &Path) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
    let entries = std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry"));
    let look = |entry: std::fs::DirEntry| {
        let changed = entry.metadata().and_then(|metadata| metadata.modified()).expect("a time");
        let content = std::fs::read(entry.path()).unwrap_or_default();
        (entry.file_name().to_string_lossy().into_owned(), (content, changed))
    };
    entries.map(look).collect()
}

#[test]
fn a_directory_that_nobody_has_used_is_well_and_stays_unused() {
    let home = Home::new();
    let said = doctor(&home);
    assert_eq!(said.code, 0, "{said:?}");
    found(&said, "directory", "ok", "not there yet");
    found(&said, "daemon", "ok", "none runs");
    found(&said, "keepers", "ok", "none");
    found(&said, "keeper program", "ok", "nodejobs-keeper");
    found(&said, "variables", "ok", "NODEJOBS_DIR");
    for name in ["versions", "file system", "machine id", "identity", "kernel", "trees", "limits", "logout"] {
        assert_eq!(checks(&said, name).len(), 1, "{name}");
    }
    for name in ["open files", "processes", "inotify"] {
        assert_eq!(checks(&said, name).len(), 1, "{name}");
    }
    let keepers = home.nodejobs(["doctor", "--keepers", "-o", "json"]);
    assert_eq!((keepers.code, keepers.text().as_str()), (0, "[]"), "{keepers:?}");
    assert!(!home.data_dir().exists(), "nothing was made, and no daemon was started");
    let table = home.nodejobs(["doctor"]);
    let text = table.text();
    assert_eq!(text.lines().count(), said.json()["checks"].as_array().expect("checks").len());
    let starts = |line: &str| ["ok ", "weaker ", "problem "].iter().any(|level| line.starts_with(level));
    assert!(text.lines().all(starts), "{text}");
    assert!(table.stderr.contains(" weaker, 0 problems"), "{table:?}");
}

#[test]
fn a_daemon_and_its_keeper_are_told_by_their_processes() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    home.running("a");
    let (pid, (guard, worker)) = (home.daemon_pid(), home.keeper());
    let said = doctor(&home);
    assert_eq!((said.code, &said.json()["level"] == "problem"), (0, false), "{said:?}");
    found(&said, "daemon", "ok", &format!("pid {pid}, has served for "));
    found(&said, "keeper", "ok", &format!("guard {guard}, worker {worker}, 1 job,"));
    let stores = checks(&said, "store");
    assert_eq!(stores[0]["level"], "ok", "{stores:?}");
    let words = format!("{}, format ", store());
    assert!(stores[0]["text"].as_str().expect("text").starts_with(&words), "{stores:?}");
    // What a store does not promise is said beside it.
    assert_eq!(stores.len() > 1, store() == "sled", "{stores:?}");
    assert!(stores[1..].iter().all(|check| check["level"] == "weaker"), "{stores:?}");
    found(&said, "directory", "ok", "mode 700");
    // Looked at from outside; whoever asks like this drives nobody away.
    for _ in 0..3 {
        let keepers = home.nodejobs(["doctor", "--keepers", "-o", "json"]).json();
        let [keeper] = keepers.as_array().expect("keepers").as_slice() else { panic!("{keepers}") };
        let seen = (&keeper["state"], &keeper["pid"], &keeper["worker_pid"], &keeper["children"]);
        assert_eq!(seen, (&json!("answers"), &json!(guard), &json!(worker), &json!(1)), "{keeper}");
    }
    // The same directory by another name.
    let link = home.path().join("link");
    std::os::unix::fs::symlink(home.data_dir(), &link).expect("a link");
    let link = link.to_str().expect("UTF-8");
    let linked = home.nodejobs(["--data-dir", link, "doctor", "--keepers", "-o", "json"]).json();
    assert_eq!(linked[0]["worker_pid"], json!(worker), "{linked}");
    assert_eq!((home.daemon_pid(), home.keeper()), (pid, (guard, worker)));
    assert_eq!(home.ok(["run", "--id", "b", "--wait", "--", "true"]), "b");
    home.ok(["stop", "a"]);
}

/// Somebody who reads: SQLite's log is not emptied when the daemon has nothing to do, nor when the reader has read.
fn reader(home: &Home) -> rusqlite::Connection {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let reader = rusqlite::Connection::open_with_flags(home.store_file(), flags).expect("a reader");
    let read = || reader.query_row("SELECT count(*) FROM jobs", [], |row| row.get::<_, i64>(0));
    reader.execute_batch("BEGIN").and_then(|()| read()).expect("it reads");
    reader
}

#[test]
fn what_a_damaged_log_dropped_is_said_at_the_next_start_and_by_every_check() {
    if store() != "sqlite" {
        return;
    }
    let home = Home::new();
    home.ok(["run", "--id", "a", "--wait", "--", "true"]);
    let reader = reader(&home);
    for number in 0..10 {
        home.ok(["run", "--id", &format!("job-{number}"), "--wait", "--", "true"]);
    }
    kill(home.daemon_pid());
    drop(reader);
    let said = doctor(&home);
    assert_eq!((said.code, checks(&said, "store log").len()), (0, 0), "a kill is no damage: {said:?}");
    let log = home.data_dir().join("jobs.sqlite-wal");
    let mut bytes = std::fs::read(&log).expect("a write-ahead log");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&log, bytes).expect("written");
    let said = doctor(&home);
    assert_eq!(said.code, 1, "{said:?}");
    found(&said, "store log", "problem", "jobs.sqlite-wal' is damaged at byte");

    let left = home.records().len();
    assert!((1..11).contains(&left), "{left} jobs are left");
    let said = std::fs::read_to_string(home.data_dir().join("daemon.log")).expect("a log");
    let words = said.split_once("drops at least ").expect(&said).1;
    let dropped: usize = words.split(' ').next().expect("a number").parse().expect("a number");
    // A job is some commits.
    assert!(dropped >= 11 - left, "{dropped} commits of {} jobs: {said}", 11 - left);
    assert!(said.contains("a copy of it is"), "{said}");
    found(&doctor(&home), "store log", "problem", "jobs.sqlite-wal.damaged' is damaged at byte");
    home.ok(["daemon", "stop"]);
    let said = home.nodejobs(["store", "check"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.text().contains(&format!("drops at least {dropped} commits")), "{said:?}");
    std::fs::remove_file(home.data_dir().join("jobs.sqlite-wal.damaged")).expect("the copy");
    home.ok(["store", "check"]);
    home.ok(["run", "--id", "next", "--wait", "--", "true"]);
    kill(home.daemon_pid());
    assert_eq!(home.records().len(), left + 1);
    let said = std::fs::read_to_string(home.data_dir().join("daemon.log")).expect("a log");
    assert_eq!(said.matches("is damaged at byte").count(), 1, "{said}");
}

#[test]
fn a_store_that_a_killed_daemon_left_is_read_with_its_log() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--wait", "--", "true"]);
    let reader = cfg!(feature = "sqlite").then(|| reader(&home));
    for id in ["b", "c"] {
        home.ok(["run", "--id", id, "--wait", "--", "true"]);
    }
    kill(home.daemon_pid());
    drop(reader);
    let said = doctor(&home);
    if cfg!(feature = "sqlite") {
        let log = home.data_dir().join("jobs.sqlite-wal");
        assert!(std::fs::metadata(log).expect("a write-ahead log").len() > 0);
        found(&said, "store", "ok", "3 jobs, read through");
    } else {
        found(&said, "store", "ok", store());
    }
    found(&said, "daemon", "ok", "none runs");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(home.records().len(), 3);
}

#[test]
fn a_broken_store_is_found_without_a_daemon_and_left_as_it_is() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--wait", "--", "true"]);
    home.ok(["daemon", "stop"]);
    eventually("the keeper has left", || home.processes().is_empty().then_some(()));
    let file = home.store_file();
    let good = std::fs::read(&file).expect("a store");
    // Somewhere in the middle, where no start of a daemon looks.
    let middle = [&good[..good.len() - 4096], &[0xAB; 4096]].concat();
    for (what, content, _) in damages(&good).into_iter().chain([("the end", middle, "")]) {
        std::fs::write(&file, content).expect("written");
        let before = holdings(home.data_dir());
        let said = doctor(&home);
        if cfg!(feature = "sqlite") {
            assert_eq!((said.code, &said.json()["level"]), (1, &json!("problem")), "{what}: {said:?}");
            found(&said, "store", "problem", "jobs.sqlite");
        } else {
            // The others cannot be opened without a change, so they are left to those who may change them.
            found(&said, "store", "ok", store());
        }
        assert_eq!(holdings(home.data_dir()), before);
    }
    std::fs::write(&file, &good).expect("restored");
    let path = home.store_path();
    std::fs::rename(&path, home.path().join("kept")).expect("moved");
    found(&doctor(&home), "store", "problem", "is missing");
    assert!(!path.exists());
    std::fs::rename(home.path().join("kept"), &path).expect("restored");
    let before = holdings(home.data_dir());
    let said = doctor(&home);
    assert_eq!(said.code, 0, "{said:?}");
    found(&said, "store", "ok", if cfg!(feature = "sqlite") { "1 job, read through" } else { store() });
    assert_eq!(holdings(home.data_dir()), before, "no daemon was started, and no file was made");
}

#[test]
fn what_the_directory_says_of_itself_is_checked() {
    let home = Home::new();
    home.ok(["run", "--wait", "--", "true"]);
    home.ok(["daemon", "stop"]);
    let path = home.data_dir().join("nodejobs.json");
    let good = std::fs::read_to_string(&path).expect("nodejobs.json");
    let mut elsewhere: Value = serde_json::from_str(&good).expect("JSON");
    elsewhere["machine_id"] = json!("0123456789abcdef0123456789abcdef");
    for (content, words) in [
        ("{\"form".to_owned(), "cannot be understood"),
        (r#"{"format":9}"#.to_owned(), "format 9"),
        (elsewhere.to_string(), "another machine"),
    ] {
        std::fs::write(&path, content).expect("written");
        let said = doctor(&home);
        assert_eq!(said.code, 1, "{said:?}");
        found(&said, "nodejobs.json", "problem", words);
    }
    std::fs::write(&path, good).expect("restored");
}

/// What is left of dead keepers and cannot be read: the daemon does what it can, and doctor the rest.
#[test]
fn journals_that_cannot_be_read_are_named_and_repaired() {
    let home = Home::new();
    home.ok(["run", "--wait", "--", "true"]);
    home.ok(["daemon", "stop"]);
    let keepers = home.data_dir().join("keepers");
    let journal = keepers.join("00000001-9.journal");
    let path = journal.to_string_lossy().into_owned();
    // Damaged: that is said, and the next daemon sets it aside.
    std::fs::write(&journal, [0xAB; 512]).expect("written");
    let said = doctor(&home);
    assert_eq!(said.code, 1, "{said:?}");
    found(
        &said,
        "keeper",
        "problem",
        &format!("00000001-9: no process; its journal is unusable: '{path}': it is damaged"),
    );
    assert_eq!(home.nodejobs(["doctor", "--keepers"]).code, 1);
    assert_eq!(home.nodejobs(["daemon", "start"]).code, 0);
    let said = doctor(&home);
    assert_eq!(said.code, 0, "{said:?}");
    found(&said, "keeper", "weaker", &format!("'{path}.damaged' was damaged and is set aside"));
    let said = home.nodejobs(["doctor", "--fix"]);
    assert_eq!(said.code, 4, "a daemon owns it: {said:?}");
    home.ok(["daemon", "stop"]);
    let said = home.nodejobs(["doctor", "--fix"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(std::fs::read_dir(&keepers).expect("read").count(), 0);
    assert_eq!(home.nodejobs(["doctor", "--fix"]).code, 0, "there is nothing more to do");

    // Of another version: it may tell what only that can read, so no daemon starts. Starts that fail are remembered.
    let mut later = [0; 256];
    later[..16].copy_from_slice(b"nodejobs journal");
    later[16] = 2;
    let checksum = crc32fast::hash(&later[..252]).to_le_bytes();
    later[252..].copy_from_slice(&checksum);
    std::fs::write(&journal, later).expect("written");
    let start = home.nodejobs(["daemon", "start"]);
    assert_eq!(start.code, 5, "{start:?}");
    let words = start.stderr.clone();
    assert!(words.contains(&path) && words.contains("version 2"), "{words}");
    let said = doctor(&home);
    assert_eq!(said.code, 1, "{said:?}");
    found(&said, "failed starts", "weaker", "1 in a row");
    found(&said, "keeper", "problem", "its format has version 2");
    let said = home.nodejobs(["doctor", "--fix"]);
    assert!(said.stderr.contains("become lost"), "{said:?}");
    assert_eq!(home.nodejobs(["daemon", "start"]).code, 0);
    assert_eq!(home.ok(["ls", "-q", "--status", "finished"]).lines().count(), 1);
}

#[test]
fn a_directory_that_cannot_be_used_is_a_problem_and_hangs_nobody() {
    let home = Home::new();
    let closed = home.path().join("closed");
    std::fs::create_dir(&closed).expect("made");
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(&closed, Some(54_321), None).expect("given away");
    } else {
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o500)).expect("closed");
    }
    let file = home.path().join("file");
    std::fs::write(&file, "").expect("written");
    let words = if is_root { "belongs to somebody else" } else { "cannot be written to" };
    for (data_dir, words) in [
        (closed, words),
        (file.clone(), "is no directory"),
        (file.join("below"), "cannot be looked at"),
        ("/dev/null/x".into(), "cannot be looked at"),
    ] {
        let data_dir = data_dir.to_str().expect("UTF-8");
        let said = home.nodejobs(["--data-dir", data_dir, "-o", "json", "doctor"]);
        assert_eq!(said.code, 1, "{said:?}");
        found(&said, "directory", "problem", words);
        assert!(!said.stderr.contains("panicked"), "{said:?}");
        home.nodejobs(["--data-dir", data_dir, "doctor", "--keepers"]);
    }
    let nowhere = home.nodejobs(["--data-dir", "/proc/nowhere", "-o", "json", "doctor"]);
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
}

#[test]
fn a_daemon_that_is_stopped_is_a_problem_and_hangs_nobody() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    home.running("a");
    let daemon = home.daemon_pid();
    signal(daemon, Signal::STOP);
    let before = Instant::now();
    let said = doctor(&home);
    signal(daemon, Signal::CONT);
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    assert_eq!(said.code, 1, "{said:?}");
    found(&said, "daemon", "problem", "has not answered");
    found(&said, "store", "ok", "in use by the owner");
    found(&said, "keeper", "ok", "it answers");
    home.ok(["stop", "a"]);
}

#[test]
fn keepers_are_found_by_their_files_whatever_else_is_broken() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--shell", "--", "sleep 1000 & wait"]);
    home.running("a");
    let (guard, worker) = home.keeper();
    kill(home.daemon_pid());
    std::fs::rename(home.store_path(), home.path().join("kept")).expect("moved");
    let look = || {
        let said = home.nodejobs(["doctor", "--keepers", "-o", "json"]);
        let keepers = said.json().as_array().expect("keepers").clone();
        assert_eq!(keepers.len(), 1, "{keepers:?}");
        (said.code, keepers[0].clone())
    };
    let (code, keeper) = look();
    assert_eq!((code, &keeper["state"], &keeper["children"]), (0, &json!("answers"), &json!(1)), "{keeper}");
    // The guard first: it lets its worker go on.
    [guard, worker].into_iter().for_each(|pid| signal(pid, Signal::STOP));
    let (code, keeper) = look();
    assert_eq!((code, &keeper["state"]), (1, &json!("silent")), "{keeper}");
    [guard, worker].into_iter().for_each(|pid| signal(pid, Signal::CONT));
    kill(worker);
    let (code, keeper) = look();
    let seen = (code, &keeper["state"], &keeper["pid"], &keeper["worker_pid"]);
    assert_eq!(seen, (0, &json!("answers"), &json!(guard), &Value::Null), "{keeper}");
    kill(guard);
    let (code, keeper) = look();
    let seen = (code, &keeper["state"], &keeper["pid"], &keeper["journal_problem"]);
    assert_eq!(seen, (0, &json!("dead"), &Value::Null, &Value::Null), "{keeper}");
    let table = home.nodejobs(["doctor", "--keepers"]);
    assert!(table.text().contains("no process; the next daemon reads what it has left"), "{table:?}");
    std::fs::rename(home.path().join("kept"), home.store_path()).expect("restored");
    let record = home.record("a");
    assert_eq!(record["status"], "running", "{record}");
    assert!(is_alive(pid_of(&record["last_pid"])));
    home.ok(["stop", "a"]);
}

#[test]
fn jobs_are_seen_and_stopped_by_their_keepers_when_the_store_cannot_be_read() {
    for dead in [&[][..], &["worker"], &["guard", "worker"]] {
        let home = Home::new();
        let stubborn = "trap '' TERM; sleep 1000 & while :; do wait; done";
        for (id, script) in [("a", "exec sleep 1000"), ("b", stubborn), ("c", "exec sleep 1000")] {
            home.ok(["run", "--id", id, "--shell", "--", script]);
        }
        let pids = ["a", "b", "c"].map(|id| pid_of(&home.running(id)["last_pid"]));
        let (guard, worker) = home.keeper();
        let said = home.nodejobs(["doctor", "--keepers", "--stop", "a"]);
        assert!(said.code == 4 && said.stderr.contains("`nodejobs stop`"), "{said:?}");
        kill(home.daemon_pid());
        dead.iter().for_each(|which| kill(if *which == "guard" { guard } else { worker }));
        let kept = home.path().join("kept");
        std::fs::rename(home.store_path(), &kept).expect("moved");
        std::fs::write(home.store_path(), "no store").expect("written");
        assert_eq!(home.nodejobs(["ls"]).code, 5);

        let keeper = home.nodejobs(["-o", "json", "doctor", "--keepers"]).json()[0].clone();
        let jobs = keeper["jobs"].as_array().expect("jobs");
        let seen: std::collections::BTreeSet<u32> = jobs.iter().map(|job| pid_of(&job["pid"])).collect();
        assert_eq!(seen, pids.into_iter().collect(), "{keeper}");
        let table = home.nodejobs(["doctor", "--keepers"]).text();
        assert!(table.contains(&format!("b: attempt 1, pid {}", pids[1])), "{table}");

        let unknown = home.nodejobs(["doctor", "--keepers", "--stop", "a", "nobody"]);
        assert!(unknown.code == 3 && is_alive(pids[0]), "{unknown:?}");
        let said = home.nodejobs(["doctor", "--keepers", "--stop", "a"]);
        assert!(said.code == 0 && said.stderr.contains("a: stopped"), "{said:?}");
        assert_eq!(pids.map(is_alive), [false, true, true]);
        let said = home.nodejobs(["doctor", "--keepers", "--stop", "--force"]);
        assert_eq!((said.code, pids.map(is_alive)), (0, [false; 3]), "{said:?}");
        assert_eq!(home.job_processes(), [], "the whole trees");

        let _ = std::fs::remove_file(home.store_path());
        std::fs::rename(&kept, home.store_path()).expect("restored");
        for (id, by) in [("a", 15), ("b", 9), ("c", 9)] {
            let record = home.ended(id);
            let outcome = (text(&record, "status"), record["signal"].as_i64());
            // Without a keeper the kernel may have told nobody.
            let may_be_lost = dead.len() == 2 && outcome == ("lost", None);
            assert!(outcome == ("failed", Some(by)) || may_be_lost, "{dead:?}: {record}");
        }
    }
}
