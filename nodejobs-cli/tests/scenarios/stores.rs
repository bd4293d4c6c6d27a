//! `store`: what is in a store goes into files and other stores and comes back whole, whoever is killed meanwhile.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use serde_json::{Value, json};

use crate::support::{Cue, Home, Said, eventually, is_alive, pid_of, said, text};

/// The stores of this build, the default one first.
fn kinds() -> Vec<&'static str> {
    let all = [
        ("sqlite", cfg!(feature = "sqlite")),
        ("redb", cfg!(feature = "redb")),
        ("sled", cfg!(feature = "sled")),
    ];
    all.into_iter().filter(|(_, is_here)| *is_here).map(|(name, _)| name).collect()
}

fn store_of(home: &Home, kind: &str) -> PathBuf {
    home.data_dir().join(format!("jobs.{kind}"))
}

fn remove(path: &Path) {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The names in the data directory that begin so.
fn names(home: &Home, beginning: &str) -> Vec<String> {
    let entries = std::fs::read_dir(home.data_dir()).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(beginning)).collect();
    names.sort();
    names
}

/// What `store export` writes, line by line.
fn exported(home: &Home) -> Vec<String> {
    home.ok(["store", "export"]).lines().map(str::to_owned).collect()
}

#[track_caller]
fn refused(said: &Said, code: i32, words: &str) {
    assert_eq!(said.code, code, "{said:?}");
    assert!(said.stderr.contains(words), "'{words}' is not in {said:?}");
    assert!(said.stdout.is_empty(), "{said:?}");
}

#[track_caller]
fn sound(home: &Home) -> Value {
    let said = home.nodejobs(["store", "check", "-o", "json"]);
    assert_eq!(said.code, 0, "{said:?}");
    said.json()
}

/// A directory with jobs of all sorts that have ended, and no owner.
fn of_all_sorts() -> Home {
    let home = Home::new();
    home.ok(["run", "--id", "twice", "--label", "k=v", "--name", "n", "--", "false"]);
    home.ended("twice");
    home.ok(["run", "--id", "twice", "--wait", "--", "true"]);
    home.ok(["run", "--id", "gone", "--wait", "--", "true"]);
    assert_eq!(
        home.with_input(&["run", "--id", "reads", "--stdin", "-", "--wait", "--", "cat"], b"\xff\x01in").code,
        0
    );
    home.ok(["run", "--id", "later", "--delay", "1h", "--", "true"]);
    home.ok(["stop", "later"]);
    home.nodejobs(["run", "--id", "nowhere", "--wait", "--", "/no/such/program"]);
    home.nodejobs(["run", "--id", "last", "--wait", "kill -9 $$"]);
    home.ok(["rm", "gone"]);
    home.ok(["daemon", "stop"]);
    home
}

#[test]
fn what_was_exported_and_imported_is_exported_as_the_same() {
    let home = of_all_sorts();
    let before = exported(&home);
    let file = home.path().join("jobs.jsonl");
    home.ok(["store", "export", "--to", "jobs.jsonl"]);
    let written = std::fs::read_to_string(&file).expect("the export");
    assert_eq!(written.lines().skip(1).collect::<Vec<_>>(), before[1..]);
    let mut current = kinds()[0];
    for kind in kinds() {
        remove(&store_of(&home, current));
        current = kind;
        let said = home.nodejobs(["--store", kind, "store", "import", "jobs.jsonl", "-o", "json"]);
        assert_eq!(said.code, 0, "{said:?}");
        let imported = said.json();
        assert_eq!((&imported["restored"], &imported["ended"]), (&json!(true), &json!(0)), "{imported}");
        assert!(said.stderr.contains("as they were") && !said.stderr.contains('\r'), "{said:?}");
        assert_eq!(exported(&home)[1..], before[1..], "{kind}");
        let check = sound(&home);
        assert_eq!(check["jobs"], 5, "{check}");
    }
    // It goes on where it was: the number of the job that is gone is not given out again.
    let last = home.record("last")["seq"].clone();
    assert_eq!(home.daemon()["store"], current);
    assert_eq!(home.history("twice").len(), 2);
    assert_eq!(home.stdout("reads"), b"\xff\x01in");
    home.ok(["run", "--id", "new", "--wait", "--", "true"]);
    assert_eq!(home.record("new")["seq"].as_u64(), last.as_u64().map(|seq| seq + 1));
}

#[test]
fn a_copy_has_no_living_jobs_and_takes_nothing_from_the_original() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    home.ok(["run", "--id", "runs", "--shell", "--", &format!("echo mine; read x < {}; exit 7", cue.path())]);
    home.ok(["run", "--id", "waits", "--delay", "1h", "--", "true"]);
    home.ok(["run", "--id", "again", "--restart", "always", "--restart-delay", "1h", "--", "true"]);
    home.ok(["run", "--id", "paused", "--", "sleep", "1000"]);
    home.ok(["run", "--id", "done", "--wait", "--", "true"]);
    home.running("runs");
    home.running("paused");
    home.ok(["pause", "paused"]);
    home.has_status("again", "restarting");
    eventually("it has spoken", || (home.stdout("runs") == b"mine\n").then_some(()));
    home.ok(["daemon", "stop"]);
    let text = home.ok(["store", "export"]) + "\n";

    let copy = Home::new();
    let said = copy.with_input(&["store", "import", "-", "-o", "json"], text.as_bytes());
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!((&said.json()["restored"], &said.json()["ended"]), (&json!(false), &json!(4)), "{said:?}");
    assert!(said.stderr.contains("4 jobs had not ended and are ended here"), "{said:?}");
    sound(&copy);
    for (id, status, reason, was) in [
        ("runs", "lost", json!("unknown"), "running"),
        ("paused", "lost", json!("unknown"), "paused"),
        ("waits", "cancelled", json!("user"), "queued"),
        ("again", "stopped", Value::Null, "restarting"),
        ("done", "finished", Value::Null, ""),
    ] {
        let record = copy.record(id);
        assert_eq!((&record["status"], &record["reason"]), (&json!(status), &reason), "{record}");
        assert!(record["detail"].as_str().unwrap_or_default().contains(was), "{record}");
        assert!(self::text(&record, "logfile").starts_with(&*copy.data_dir().to_string_lossy()), "{record}");
    }
    copy.ok(["rm", "runs", "paused"]);
    copy.ok(["run", "--id", "waits", "--wait", "--", "true"]);
    assert_eq!(copy.history("waits").len(), 2);

    let record = home.record("runs");
    assert_eq!(record["status"], "running", "{record}");
    assert!(is_alive(pid_of(&record["last_pid"])));
    assert_eq!(home.stdout("runs"), b"mine\n");
    cue.say("go");
    assert_eq!(home.ended("runs")["exit_code"], 7);
}

#[test]
fn a_job_that_runs_while_its_store_is_migrated_ends_with_its_true_code() {
    let home = Home::new();
    let (cue, early) = (Cue::new(&home, "cue"), Cue::new(&home, "early"));
    home.ok(["run", "--id", "runs", "--shell", "--", &format!("read x < {}; exit 7", cue.path())]);
    home.ok(["run", "--id", "ends", "--shell", "--", &format!("read x < {}; exit 8", early.path())]);
    home.ok(["run", "--id", "before", "--wait", "--", "true"]);
    home.running("runs");
    let ends = pid_of(&home.running("ends")["last_pid"]);
    home.ok(["daemon", "stop"]);
    let before = exported(&home);
    early.say("go");
    eventually("it has ended unseen", || (!is_alive(ends)).then_some(()));
    let all = kinds();
    let mut from = all[0];
    // Into each, and back into the first.
    for to in all.iter().copied().skip(1).chain([all[0]]) {
        let said = home.nodejobs(["store", "migrate", "--to", to, "-o", "json"]);
        assert_eq!(said.code, 0, "{said:?}");
        let migrated = said.json();
        if to == from {
            assert_eq!((&migrated["already"], &migrated["old"]), (&json!(true), &Value::Null), "{migrated}");
            assert!(said.stderr.contains(&format!("the store is {to} already")), "{said:?}");
            continue;
        }
        assert!(said.stderr.contains("it may be deleted") && !said.stderr.contains('\r'), "{said:?}");
        assert_eq!(
            (&migrated["from"], &migrated["to"], &migrated["jobs"]),
            (&json!(from), &json!(to), &json!(3))
        );
        assert!(Path::new(self::text(&migrated, "old")).exists() && !store_of(&home, from).exists());
        assert_eq!(exported(&home)[1..], before[1..], "{from} to {to}");
        from = to;
    }
    home.ok(["daemon", "start"]);
    assert_eq!(home.daemon()["store"], from);
    assert_eq!(home.ended("ends")["exit_code"], 8);
    assert_eq!(home.record("runs")["status"], "running");
    cue.say("go");
    assert_eq!(home.ended("runs")["exit_code"], 7);
    assert_eq!(home.history("runs").len(), 1);
    home.ok(["daemon", "stop"]);
    let events: Vec<Value> = exported(&home)
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).expect("JSON").get("event").cloned())
        .collect();
    let numbers: Vec<_> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    let of = |id: &str| {
        events.iter().filter(|event| event["id"] == id).map(|event| text(event, "status")).collect::<Vec<_>>()
    };
    assert_eq!(of("runs"), ["starting", "running", "failed"]);
    assert_eq!(of("ends"), ["starting", "running", "failed"]);
    if let Some(to) = all.iter().find(|kind| **kind != from) {
        let kept = names(&home, "jobs.").len();
        home.ok(["store", "migrate", "--to", to, "--delete-old"]);
        assert_eq!(names(&home, "jobs.").len(), kept, "{:?}", names(&home, "jobs."));
    }
}

#[test]
fn a_restored_store_finds_keepers_that_have_heard_later_owners() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    home.ok(["run", "--id", "runs", "--shell", "--", &format!("read x < {}; exit 7", cue.path())]);
    home.running("runs");
    home.ok(["daemon", "stop"]);
    home.ok(["store", "export", "--to", "jobs.jsonl"]);
    for _ in 0..3 {
        home.ok(["daemon", "start"]);
        home.ok(["daemon", "stop"]);
    }
    remove(&store_of(&home, kinds()[0]));
    let said = home.nodejobs(["store", "check"]);
    refused(&said, 5, "is missing");
    home.ok(["store", "import", "jobs.jsonl"]);
    assert_eq!(home.record("runs")["status"], "running");
    cue.say("go");
    assert_eq!(home.ended("runs")["exit_code"], 7);
}

#[test]
fn with_a_daemon_in_the_directory_only_info_is_told() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--wait", "--", "true"]);
    let pid = home.daemon_pid();
    let kind = kinds()[0];
    std::fs::write(home.path().join("e.jsonl"), sample(1)).expect("written");
    for words in [
        &["store", "check"][..],
        &["store", "export"],
        &["store", "export", "--to", "x"],
        &["store", "import", "e.jsonl"],
        &["store", "migrate", "--to", kind],
    ] {
        let said = home.nodejobs(words);
        refused(&said, 4, &format!("process {pid} owns data directory"));
        assert!(said.stderr.contains("`nodejobs daemon stop`"), "{said:?}");
    }
    assert!(!home.path().join("x").exists());
    let info = home.nodejobs(["store", "info", "-o", "json"]).json();
    assert_eq!((&info["store"], &info["owner_pid"]), (&json!(kind), &json!(pid)), "{info}");
    home.ok(["daemon", "stop"]);
    let mut alone = home.nodejobs(["store", "info", "-o", "json"]).json();
    assert_eq!(alone["owner_pid"], Value::Null);
    for changing in ["owner_pid", "bytes"] {
        alone[changing] = info[changing].clone();
    }
    assert_eq!(alone, info, "the same by itself");
    assert_eq!((&info["jobs"], &info["events"]), (&json!({"finished": 1}), &json!(3)));
    assert!(home.ok(["store", "info"]).contains(&format!("store:       {kind}, format")));
}

#[test]
fn a_directory_without_a_store_has_none_to_look_at_and_stays_as_it_is() {
    let home = Home::new();
    for words in [&["check"][..], &["info"], &["export"], &["migrate", "--to", kinds()[0]]] {
        refused(&home.nodejobs(["store"].iter().chain(words)), 5, "there is no store in");
    }
    assert!(!home.data_dir().exists());
    let said = home.nodejobs(["store", "migrate", "--to", "paper"]);
    refused(&said, 2, &kinds().join(", "));
    if let Some(absent) = ["redb", "sled", "sqlite"].into_iter().find(|kind| !kinds().contains(kind)) {
        refused(&home.nodejobs(["store", "migrate", "--to", absent]), 2, &kinds().join(", "));
    }
}

#[test]
fn what_is_no_store_is_refused_by_name_and_left_as_it_is() {
    for kind in kinds() {
        let home = Home::new();
        home.ok(["--store", kind, "run", "--id", "a", "--wait", "--", "true"]);
        home.ok(["daemon", "stop"]);
        let store = store_of(&home, kind);
        let good = home.path().join("good");
        std::fs::rename(&store, &good).expect("moved");
        let file = |content: &[u8]| std::fs::write(&store, content).expect("written");
        let broken: [&dyn Fn(); 5] = [
            &|| file(&[0xab; 50_000]),
            &|| file(b""),
            &|| file(b"SQLite format 3\0"),
            &|| file(b"nodejobs redb store, format 99\n"),
            &|| std::fs::create_dir(&store).expect("made"),
        ];
        for (index, put) in broken.into_iter().enumerate() {
            put();
            let other = *kinds().iter().find(|other| **other != kind).unwrap_or(&kind);
            for words in [&["check"][..], &["export"], &["info"], &["migrate", "--to", other]] {
                let said = home.nodejobs(["store"].iter().chain(words));
                if words[0] == "migrate" && other == kind {
                    continue;
                }
                refused(&said, 5, &format!("jobs.{kind}"));
                assert!(!said.stderr.contains("panicked"), "{kind} {index}: {said:?}");
            }
            assert_eq!(names(&home, "jobs."), [format!("jobs.{kind}")], "{kind} {index}");
            remove(&store);
        }
        std::fs::rename(&good, &store).expect("restored");
        assert_eq!(sound(&home)["jobs"], 1);
        let meta = home.data_dir().join("nodejobs.json");
        let kept = std::fs::read_to_string(&meta).expect("nodejobs.json");
        std::fs::write(&meta, kept.replace("\"format\":1", "\"format\":9")).expect("written");
        for words in
            [&["check"][..], &["export"], &["info"], &["migrate", "--to", kind], &["import", "e.jsonl"]]
        {
            std::fs::write(home.path().join("e.jsonl"), sample(1)).expect("written");
            refused(&home.nodejobs(["store"].iter().chain(words)), 5, "format 9");
        }
        std::fs::write(&meta, kept).expect("restored");
    }
}

#[test]
fn what_is_wrong_in_a_store_is_listed() {
    for kind in kinds() {
        let home = Home::new();
        for id in ["a", "b"] {
            home.ok(["--store", kind, "run", "--id", id, "--wait", "--", "true"]);
        }
        home.ok(["daemon", "stop"]);
        assert_eq!(home.nodejobs(["store", "check"]).stdout, b"");
        if kind == "sqlite" {
            let store = rusqlite::Connection::open(store_of(&home, kind)).expect("the store");
            store.execute_batch("DELETE FROM events WHERE seq = 4").expect("changed");
            drop(store);
            let said = home.nodejobs(["store", "check"]);
            assert_eq!((said.code, said.text().as_str()), (1, "event 5 follows event 3"), "{said:?}");
            assert!(said.stderr.starts_with("not sound: 2 jobs, 2 attempts, 5 events"), "{said:?}");
            let json = home.nodejobs(["store", "check", "-o", "json"]);
            assert_eq!((json.code, &json.json()["problems"]), (1, &json!(["event 5 follows event 3"])));
            let said = home.nodejobs(["store", "export"]);
            assert_eq!(said.code, 1, "{said:?}");
            assert!(said.stderr.contains("`nodejobs store check` lists what is wrong"), "{said:?}");
            assert!(!said.text().contains("\"end\""), "nobody takes it for whole");
            for other in kinds().iter().filter(|other| **other != kind) {
                refused(&home.nodejobs(["store", "migrate", "--to", other]), 1, "event 5 follows event 3");
            }
        }
        if kind == "redb" {
            // Found when it is opened, or when it is read: the engine may panic over it.
            let path = store_of(&home, kind);
            let mut bytes = std::fs::read(&path).expect("the store");
            let end = bytes.iter().rposition(|byte| *byte != 0).expect("something");
            bytes[8192..=end].iter_mut().step_by(16).for_each(|byte| *byte ^= 0x55);
            std::fs::write(&path, bytes).expect("written");
            let said = home.nodejobs(["store", "check"]);
            assert!(matches!(said.code, 1 | 5), "{said:?}");
            assert!(said.code == 1 || said.stderr.contains("store is damaged at"), "{said:?}");
        }
        assert_eq!(names(&home, "jobs."), [format!("jobs.{kind}")]);
    }
}

/// An export with so many ended jobs, made up.
fn sample(jobs: u64) -> String {
    let time = "2026-07-14T03:33:20.123Z";
    let mut text = json!({"nodejobs_export": 1, "version": "0", "store": "sqlite", "directory_id": "made up", "exported_at": time}).to_string();
    text += &format!("\n{{\"counters\":{{\"last_seq\":{jobs},\"last_event\":{jobs}}}}}\n");
    for seq in 1..=jobs {
        let attempt = json!({
            "attempt": 1, "revision": 3, "status": "failed", "restarts": 0, "exit": {"code": 3},
            "launch_asked_boot_ms": 1, "log_start": {"stdout": 0, "stderr": 0}, "last_update": time,
            "command": {"argv": ["make", "all"]}, "cwd": "/src", "context_key": "k", "input": "null",
            "logs": {"layout": "spread", "path": "/d/logs", "merge": false}, "priority": 0, "slots": 1,
            "labels": {"number": seq.to_string()}, "start": "now", "policy": {}, "created_at": time,
        });
        text += &format!("{{\"job\":{{\"seq\":{seq},\"id\":\"j{seq}\",\"attempts\":[{attempt}]}}}}\n");
    }
    for seq in 1..=jobs {
        let event = json!({"seq": seq, "id": format!("j{seq}"), "attempt": 1, "status": "failed", "reason": null, "at": time});
        text += &format!("{{\"event\":{event}}}\n");
    }
    text + &format!("{{\"end\":{{\"jobs\":{jobs},\"attempts\":{jobs},\"events\":{jobs},\"documents\":0}}}}\n")
}

#[test]
fn a_bad_export_is_refused_with_its_line_and_leaves_nothing() {
    let good = sample(2);
    let lines: Vec<&str> = good.lines().collect();
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        lines.join("\n") + "\n"
    };
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "line 1: this is no export of nodejobs: there is nothing in it"),
        ("\u{7f}ELF\0\0".to_owned(), "line 1: this is no export of nodejobs"),
        (
            with(&|lines| lines[0] = lines[0].replace("\"nodejobs_export\":1", "\"nodejobs_export\":99")),
            "line 1: the export has format 99, this version knows 1 to 2",
        ),
        (good[..good.len() / 2].to_owned(), "line 4: the export is cut off"),
        (with(&|lines| drop(lines.pop())), "line 7: the export is cut off"),
        (
            with(&|lines| lines[3] = lines[3].replace("failed", "fai\u{1}led")),
            "line 4: it cannot be understood",
        ),
        (with(&|lines| lines.insert(3, lines[2].clone())), "line 4: job j1 has seq 1 behind 1"),
        (with(&|lines| lines[3] = lines[3].replace("\"j2\"", "\"j1\"")), "line 4: job j1 is there twice"),
        (with(&|lines| drop(lines.remove(4))), "line 6: it counts 2 jobs"),
        (with(&|lines| drop(lines.remove(5))), "line 6: the last event is 1, but 2 was given out"),
        (with(&|lines| lines.push("more".to_owned())), "line 8: there is something behind the end"),
    ];
    for kind in kinds() {
        for (content, words) in &cases {
            let home = Home::new();
            let said = home.with_input(&["--store", kind, "store", "import", "-"], content.as_bytes());
            refused(&said, 1, words);
            assert_eq!(names(&home, "jobs."), [""; 0], "{words}");
            assert_eq!(names(&home, "nodejobs.json"), [""; 0], "{words}");
            // And does not hinder the next one.
            let said = home.with_input(&["--store", kind, "store", "import", "-"], good.as_bytes());
            assert_eq!(said.code, 0, "{said:?}");
            assert_eq!(sound(&home)["jobs"], 2);
        }
    }
    let home = Home::new();
    refused(&home.nodejobs(["store", "import", "nowhere"]), 2, "cannot open 'nowhere'");
    refused(&home.nodejobs(["store", "import", "."]), 1, "line 1: it cannot be read");
    assert!(!home.data_dir().exists(), "nothing was done yet");
    home.ok(["run", "--wait", "--", "true"]);
    home.ok(["daemon", "stop"]);
    let said = home.with_input(&["store", "import", "-"], good.as_bytes());
    refused(&said, 4, "there is a store already");
    assert_eq!(home.records().len(), 1);
}

#[test]
fn an_export_into_a_file_is_private_and_replaces_nothing_unasked() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--wait", "--", "true"]);
    home.ok(["daemon", "stop"]);
    let file = home.path().join("e.jsonl");
    home.ok(["store", "export", "--to", "e.jsonl"]);
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    std::fs::write(&file, "mine").expect("written");
    refused(&home.nodejobs(["store", "export", "--to", "e.jsonl"]), 4, "'e.jsonl' is there already; --force");
    assert_eq!(std::fs::read(&file).expect("there"), b"mine");
    home.ok(["store", "export", "--to", "e.jsonl", "--force"]);
    assert!(std::fs::read_to_string(&file).expect("there").starts_with("{\"nodejobs_export\":2"));
    refused(&home.nodejobs(["store", "export", "--to", ".", "--force"]), 2, "'.' is no file");
    refused(&home.nodejobs(["store", "export", "--to", "no/such/place"]), 1, "'no/such/place'");
    refused(&home.nodejobs(["store", "export", "--force"]), 2, "--to");
    let mut files: Vec<_> = std::fs::read_dir(home.path())
        .expect("a directory")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["data", "e.jsonl"]);
    let piped = said(&mut home.shell("\"$NODEJOBS\" store export | head -c 10"));
    assert_eq!((piped.code, piped.text().len()), (0, 10), "{piped:?}");
    assert!(!piped.stderr.contains("error"), "{piped:?}");
}

#[test]
fn names_of_stores_that_are_not_in_use_mean_nothing_to_others() {
    let home = Home::new();
    for kind in ["sqlite", "redb", "sled"] {
        std::fs::create_dir_all(home.data_dir()).expect("made");
        std::fs::write(home.data_dir().join(format!("jobs.{kind}.new")), "half").expect("written");
    }
    // Open to others, as it was before somebody was killed there.
    std::fs::set_permissions(home.data_dir(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    home.ok(["run", "--id", "a", "--wait", "--", "true"]);
    home.ok(["daemon", "stop"]);
    assert_eq!(sound(&home)["jobs"], 1);
    let old = home.data_dir().join(format!("jobs.{}.old-1", kinds()[0]));
    std::fs::write(&old, "old").expect("written");
    let doctor = home.nodejobs(["doctor", "-o", "json"]);
    assert_eq!(doctor.code, 0, "{doctor:?}");
    let checks = doctor.json()["checks"].as_array().expect("checks").clone();
    let of = |name: &str| checks.iter().filter(|check| check["check"] == name).cloned().collect::<Vec<_>>();
    assert_eq!(of("store").len(), 1);
    assert!(kinds()[0] == "sqlite" || text(&of("store")[0], "text").contains("`nodejobs store check`"));
    assert!(
        text(&of("old stores")[0], "text").contains("old-1 (3 bytes), kept by `store migrate`"),
        "{checks:?}"
    );
    home.ok(["store", "migrate", "--to", kinds()[0]]);
    assert_eq!(names(&home, "jobs.").iter().filter(|name| name.contains(".new")).count(), 0);
    assert!(old.exists(), "what is kept is nobody's to remove");
    assert_eq!(home.records().len(), 1);
}

/// Runs `nodejobs ARGUMENTS` and kills it after so long, unless it has ended by itself; whether it had.
fn killed_after(home: &Home, arguments: &[&str], after: Duration) -> bool {
    let mut child =
        home.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nodejobs starts");
    let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(after.subsec_nanos()) };
    let pidfd = rustix::process::pidfd_open(
        rustix::process::Pid::from_child(&child),
        rustix::process::PidfdFlags::empty(),
    )
    .expect("a pidfd");
    let ended = poll(&mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)], Some(&pause));
    child.kill().expect("killed");
    child.wait().expect("an end");
    ended.expect("a poll") == 1
}

/// Instants spread over something that takes so long, and a little beyond.
fn instants(whole: Duration) -> impl Iterator<Item = Duration> {
    let whole = whole.min(Duration::from_millis(900));
    (0..10).map(move |step| whole * step / 9)
}

const MANY: u64 = 600;

#[test]
fn an_import_that_is_killed_anywhere_leaves_no_store_or_a_whole_one() {
    let export = sample(MANY);
    for kind in kinds() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &export).expect("written");
        let file = file.path().to_str().expect("UTF-8");
        let arguments = ["--store", kind, "store", "import", file];
        let whole = Home::new();
        let before = Instant::now();
        whole.ok(arguments);
        let mut unfinished = 0;
        for after in instants(before.elapsed()) {
            let home = Home::new();
            killed_after(&home, &arguments, after);
            let is_there = store_of(&home, kind).exists();
            if !is_there {
                unfinished += 1;
                assert!(!home.data_dir().join("nodejobs.json").exists());
                home.ok(arguments);
            }
            // Killed before it could say whose it is, it is that of a new directory.
            home.ok(["--store", kind, "daemon", "start"]);
            home.ok(["daemon", "stop"]);
            assert_eq!(sound(&home)["jobs"], MANY);
            assert_eq!(names(&home, "jobs."), [format!("jobs.{kind}")]);
        }
        assert!(unfinished > 0, "{kind}: it was always faster");
    }
}

#[test]
fn a_migration_that_is_killed_anywhere_leaves_a_whole_store_and_hinders_no_other() {
    let all = kinds();
    if all.len() < 2 {
        return;
    }
    let home = Home::new();
    let said = home.with_input(&["store", "import", "-"], sample(MANY).as_bytes());
    assert_eq!(said.code, 0, "{said:?}");
    let content = exported(&home);
    let kind = || {
        home.nodejobs(["store", "info", "-o", "json"]).json()["store"].as_str().expect("a kind").to_owned()
    };
    for to in all.iter().copied().cycle().skip(1).take(all.len()) {
        let before = Instant::now();
        home.ok(["store", "migrate", "--to", to, "--delete-old"]);
        let from =
            all[(all.iter().position(|kind| *kind == to).expect("one of them") + all.len() - 1) % all.len()];
        home.ok(["store", "migrate", "--to", from, "--delete-old"]);
        let mut unfinished = 0;
        for after in instants(before.elapsed() / 2) {
            killed_after(&home, &["store", "migrate", "--to", to], after);
            assert_eq!(sound(&home)["jobs"], MANY);
            if kind() == to {
                home.ok(["store", "migrate", "--to", from, "--delete-old"]);
            } else {
                unfinished += 1;
            }
        }
        assert!(unfinished > 0, "{from} to {to}: it was always faster");
        let said = home.nodejobs(["store", "migrate", "--to", to, "--delete-old"]);
        assert_eq!((said.code, kind()), (0, to.to_owned()), "{said:?}");
        assert_eq!(exported(&home)[1..], content[1..], "{from} to {to}");
        assert_eq!(names(&home, "jobs.").iter().filter(|name| name.contains(".new")).count(), 0);
        for name in names(&home, "jobs.").iter().filter(|name| name.contains(".old-")) {
            remove(&home.data_dir().join(name));
        }
    }
    home.ok(["run", "--id", "new", "--wait", "--", "true"]);
    assert_eq!(home.records().len() as u64, MANY + 1);
}
