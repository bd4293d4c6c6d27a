//! Schedules: each time is a job of its own, or has a record that says why not, whoever is killed.

mod library;

use std::collections::BTreeSet;
use std::process::Stdio;

use nodejobs::Timestamp;
use serde_json::{Value, json};

use crate::engine::STORES;
use crate::support::{Home, eventually, kill, lines, millis, text};

impl Home {
    /// A schedule as it is shown.
    fn schedule(&self, name: &str) -> Value {
        let said = self.nodejobs(["-o", "json", "schedule", "show", name]);
        assert_eq!(said.code, 0, "{said:?}");
        said.json()
    }

    /// The jobs of a schedule, the first one first.
    fn occurrences(&self, name: &str) -> Vec<Value> {
        let label = format!("schedule={name}");
        let said = self.nodejobs(["-o", "json", "ls", "--all", "--oldest-first", "--label", &label]);
        assert_eq!(said.code, 0, "{said:?}");
        said.json().as_array().expect("a list").clone()
    }

    /// Those of them that a schedule has left out.
    fn skipped(&self, name: &str) -> Vec<Value> {
        self.occurrences(name).into_iter().filter(|record| text(record, "status") == "cancelled").collect()
    }
}

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
    Timestamp::from_millis(i64::try_from(now.as_millis()).expect("a time"))
}

/// Waits until so many milliseconds have passed since then, for what goes by the clock alone.
fn passed(since: Timestamp, by: i64) {
    eventually("time passes", || (now().as_millis() - since.as_millis() >= by).then_some(()));
}

#[test]
fn each_second_is_a_job_of_its_own() {
    let home = Home::new();
    let script = r#"echo "$JOB_ID" >> ran"#;
    let said = home.ok(["schedule", "add", "tick", "--cron", "* * * * * *", "--tz", "UTC", script]);
    assert!(said.starts_with("tick runs next at "), "{said}");
    home.ok(["schedule", "add", "tock", "--every", "1s", "--label", "k=v", "--", "true"]);
    eventually("each has run three times", || {
        let all = ["tick", "tock"].map(|name| home.occurrences(name));
        all.iter()
            .all(|found| found.iter().filter(|job| text(job, "status") == "finished").count() >= 3)
            .then_some(())
    });
    assert_eq!(home.daemon()["schedules"], json!(2));
    let ran = home.occurrences("tick");
    for job in &ran {
        let id = text(job, "self_id");
        let due = id.strip_prefix("tick-").expect("its name").strip_suffix('Z').expect("its time");
        assert_eq!((due.len(), &due[8..9]), (15, "T"), "{id}");
        let started = text(job, "created_at").replace(['-', ':'], "");
        assert!(started[..15] >= *due, "{id} was there at {started}");
    }
    let evidence = lines(&home.path().join("ran"));
    let ids: BTreeSet<&str> = evidence.iter().map(String::as_str).collect();
    assert_eq!(ids.len(), evidence.len(), "each once: {evidence:?}");
    assert!(ran.iter().take(3).all(|job| ids.contains(text(job, "self_id"))), "{ids:?} {ran:?}");
    assert_eq!(home.occurrences("tock")[0]["labels"], json!({"k": "v", "schedule": "tock"}));
    let shown = home.ok(["schedule", "ls"]);
    let mut rows = shown.lines();
    assert!(rows.next().expect("a header").starts_with("NAME  STATE   WHEN "), "{shown}");
    assert!(rows.next().expect("a row").starts_with("tick  active  * * * * * * (UTC)  "), "{shown}");
    for name in ["tick", "tock"] {
        assert_eq!(home.ok(["schedule", "rm", name]), format!("removed {name}"));
    }
    assert_eq!((home.ok(["schedule", "ls"]), home.daemon()["schedules"].clone()), (String::new(), json!(0)));
}

#[test]
fn one_is_paused_resumed_run_by_hand_and_removed_while_it_runs() {
    let home = Home::new();
    home.ok(["schedule", "add", "s", "--every", "1s", "--", "sleep", "1000"]);
    home.ok(["schedule", "pause", "s"]);
    for job in home.occurrences("s") {
        home.nodejobs(["stop", "--force", text(&job, "self_id")]);
    }
    let shown = home.schedule("s");
    assert_eq!((text(&shown, "state"), &shown["next"]), ("paused", &json!([])), "{shown}");
    let paused = now();
    let before = home.occurrences("s").len();
    let id = home.ok(["schedule", "run", "s"]);
    home.running(&id);
    let said = home.nodejobs(["schedule", "run", "s"]);
    assert_eq!((said.code, said.stderr.contains(&id)), (4, true), "{said:?}");
    assert_eq!(text(&home.schedule("s")["last"], "self_id"), id);
    passed(paused, 2_100);
    assert_eq!(home.occurrences("s").len(), before + 1, "nothing but what was asked for");
    home.ok(["schedule", "resume", "s"]);
    let skipped = home.skipped("s");
    let detail = text(skipped.last().expect("a record"), "detail");
    assert!(detail.contains("occurrences, due ") && detail.contains("was paused"), "{detail}");
    // What runs by hand counts as one that has not ended.
    eventually("one is skipped", || {
        home.skipped("s").iter().any(|job| text(job, "detail").contains("has not ended")).then_some(())
    });
    home.ok(["schedule", "rm", "s"]);
    assert_eq!(text(&home.record(&id), "status"), "running", "what it has begun goes on");
    let count = home.occurrences("s").len();
    passed(now(), 1_200);
    assert_eq!(home.occurrences("s").len(), count);
    assert_eq!(home.nodejobs(["schedule", "show", "s"]).code, 3);
}

#[test]
fn what_overlaps_is_skipped_queued_or_replaces() {
    let home = Home::new();
    let until = "until [ -e over ]; do sleep 0.02; done";
    home.ok(["schedule", "add", "skip", "--every", "1s", until]);
    home.ok(["schedule", "add", "queue", "--every", "1s", "--overlap", "queue", until]);
    home.ok(["schedule", "add", "replace", "--every", "1s", "--overlap", "replace", "--", "sleep", "1000"]);
    eventually("two of each are due", || {
        let enough = home.skipped("skip").len() >= 2
            && home.schedule("queue")["waiting"].as_array().is_some_and(|waiting| waiting.len() >= 2)
            && home.occurrences("replace").len() >= 3;
        enough.then_some(())
    });
    let skip = home.occurrences("skip");
    assert_eq!(text(&skip[0], "status"), "running");
    for record in &skip[1..] {
        assert_eq!((text(record, "status"), text(record, "reason")), ("cancelled", "schedule"), "{record}");
        assert!(text(record, "detail").contains(text(&skip[0], "self_id")), "{record}");
        assert_eq!(record["started_at"], Value::Null);
    }
    let queue = home.occurrences("queue");
    assert_eq!((queue.len(), text(&queue[0], "status")), (1, "running"), "{queue:?}");
    let replace = home.occurrences("replace");
    assert_eq!(
        (text(&replace[0], "status"), replace[0]["signal"].clone()),
        ("stopped", json!(15)),
        "{replace:?}"
    );
    let [first, second] = [&replace[0], &replace[1]];
    assert!(millis(second, "created_at") >= millis(first, "ended_at"), "{replace:?}");
    for name in ["skip", "queue", "replace"] {
        home.ok(["schedule", "pause", name]);
    }
    let waiting = home.schedule("queue")["waiting"].as_array().expect("a list").len();
    std::fs::write(home.path().join("over"), "").expect("written");
    // Nothing that waits starts while it is paused; then one after another.
    home.ended(text(&queue[0], "self_id"));
    assert_eq!(home.schedule("queue")["waiting"].as_array().map(Vec::len), Some(waiting));
    home.ok(["schedule", "resume", "queue"]);
    let ran = eventually("all that waited have run", || {
        let ran: Vec<Value> =
            home.occurrences("queue").into_iter().filter(|job| text(job, "status") == "finished").collect();
        (ran.len() > waiting).then_some(ran)
    });
    for pair in ran.windows(2) {
        assert!(millis(&pair[1], "created_at") >= millis(&pair[0], "ended_at"), "{pair:?}");
    }
}

/// Every second between the first occurrence and the last is there: as a job, or in a record of those that were missed.
fn nothing_is_missing(home: &Home, name: &str, ran_file: &str) {
    let second = |id: &str| {
        let time = id.strip_prefix(&format!("{name}-")).and_then(|time| time.strip_suffix('Z')).expect(id);
        let time = format!(
            "{}-{}-{}T{}:{}:{}Z",
            &time[..4],
            &time[4..6],
            &time[6..8],
            &time[9..11],
            &time[11..13],
            &time[13..]
        );
        time.parse::<Timestamp>().expect(id).as_millis() / 1000
    };
    let jobs = home.occurrences(name);
    let mut seconds = Vec::new();
    let mut ran = Vec::new();
    for job in &jobs {
        let (id, detail) = (text(job, "self_id"), text(job, "detail"));
        let count = match (text(job, "status"), detail.split_once(" occurrence")) {
            ("cancelled", Some((count, _))) => count.parse::<i64>().expect(detail),
            _ => {
                ran.push(id.to_owned());
                1
            }
        };
        seconds.extend(second(id) - count + 1..=second(id));
    }
    seconds.sort_unstable();
    let all: Vec<i64> = (seconds[0]..=seconds[seconds.len() - 1]).collect();
    assert_eq!(seconds, all, "{jobs:?}");
    let mut evidence = lines(&home.path().join(ran_file));
    evidence.sort();
    ran.sort();
    assert_eq!(evidence, ran, "what is recorded as run did, once");
}

#[test]
fn no_occurrence_is_lost_or_run_twice_when_daemons_are_killed() {
    for (store, _) in STORES.into_iter().filter(|(_, is_here)| *is_here) {
        let home = Home::new();
        let script = r#"echo "$JOB_ID" >> ran"#;
        home.ok([
            "--store",
            store,
            "schedule",
            "add",
            "s",
            "--every",
            "1s",
            "--catch-up",
            "all:100",
            "--overlap",
            "queue",
            script,
        ]);
        let begin = now();
        while now().as_millis() - begin.as_millis() < 4_000 {
            // Whoever asks starts the next one; some time passes without any.
            home.ok(["ls"]);
            kill(home.daemon_pid());
            let away = now();
            passed(away, away.as_millis() % 1_300);
        }
        let enough = || {
            let schedule = home.schedule("s");
            let waits = schedule["waiting"].as_array().is_some_and(|waiting| !waiting.is_empty());
            (home.occurrences("s").len() >= 4 && !waits).then_some(())
        };
        eventually("all have run", enough);
        home.ok(["schedule", "pause", "s"]);
        eventually("all have ended", || {
            home.occurrences("s").iter().all(|job| job["ended_at"] != Value::Null).then_some(())
        });
        nothing_is_missing(&home, "s", "ran");
        assert!(home.skipped("s").is_empty(), "{store}: all of them could be caught up with");
    }
}

/// What there is after a few seconds without a daemon.
fn without_a_daemon(catch_up: &str) -> Home {
    let home = Home::new();
    let script = r#"echo "$JOB_ID" >> ran"#;
    home.ok(["schedule", "add", "s", "--every", "1s", "--catch-up", catch_up, "--overlap", "queue", script]);
    eventually("it has run", || (!home.occurrences("s").is_empty()).then_some(()));
    kill(home.daemon_pid());
    passed(now(), 3_500);
    home.ok(["ls"]);
    let ran = || lines(&home.path().join("ran")).len();
    let before = ran();
    eventually("it goes on", || (ran() >= before + 2).then_some(()));
    home.ok(["schedule", "pause", "s"]);
    eventually("all have ended", || {
        home.occurrences("s").iter().all(|job| job["ended_at"] != Value::Null).then_some(())
    });
    nothing_is_missing(&home, "s", "ran");
    home
}

#[test]
fn what_was_missed_has_one_record_or_is_caught_up_with() {
    for (catch_up, missed) in [("skip", 1), ("one", 1), ("all:2", 1), ("all", 0)] {
        let home = without_a_daemon(catch_up);
        let found: Vec<Value> =
            home.skipped("s").into_iter().filter(|job| text(job, "detail").contains("missed")).collect();
        assert_eq!(found.len(), missed, "{catch_up}: {found:?}");
    }
}

#[test]
fn a_daemon_that_nobody_started_stays_for_a_schedule() {
    let home = Home::new();
    std::fs::create_dir_all(home.data_dir()).expect("made");
    std::fs::write(home.data_dir().join("config.toml"), "[daemon]\nidle_exit = \"50ms\"\n").expect("written");
    std::fs::set_permissions(home.data_dir(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("closed");
    home.ok(["schedule", "add", "s", "--cron", "0 0 1 1 *", "--", "true"]);
    let pid = home.daemon_pid();
    passed(now(), 600);
    assert_eq!(home.daemon_pid(), pid);
    // The next one that somebody happens to start knows it as well.
    kill(pid);
    home.ok(["ls"]);
    let pid = home.daemon_pid();
    passed(now(), 600);
    assert_eq!(home.daemon_pid(), pid);
    home.ok(["schedule", "pause", "s"]);
    eventually("it leaves", || (!home.processes().iter().any(|(own, _)| *own == pid)).then_some(()));
    assert_eq!(text(&home.schedule("s"), "state"), "paused");
    home.ok(["schedule", "rm", "s"]);
}

#[test]
fn the_zone_is_that_of_the_command_unless_one_is_named() {
    let home = Home::new().with("TZ", "America/New_York");
    home.ok(["schedule", "add", "own", "--cron", "30 2 * * *", "--", "true"]);
    home.ok([
        "schedule",
        "add",
        "named",
        "--cron",
        "30 2 * * *",
        "--tz",
        "australia/lord_howe",
        "--",
        "true",
    ]);
    assert_eq!(text(&home.schedule("own"), "zone"), "America/New_York");
    let named = home.schedule("named");
    assert_eq!(
        (text(&named, "zone"), named["next"].as_array().map(Vec::len)),
        ("Australia/Lord_Howe", Some(5))
    );
    let shown = home.ok(["schedule", "show", "own", "--next", "10"]);
    let next: Vec<&str> = shown.lines().skip_while(|line| !line.starts_with("next:")).collect();
    assert_eq!(next.len(), 10, "{shown}");
    assert!(next.iter().all(|line| line.ends_with(" EST") || line.ends_with(" EDT")), "{shown}");
    let odd = Home::new().with("TZ", "Mars/Olympus");
    let said = odd.nodejobs(["schedule", "add", "x", "--cron", "30 2 * * *", "--", "true"]);
    assert_eq!((said.code, said.stderr.contains("the variable TZ says is unknown")), (2, true), "{said:?}");
    assert!(said.stderr.contains("--tz"), "{said:?}");
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let home = Home::new();
    home.ok(["schedule", "add", "there", "--every", "1d", "--", "true"]);
    let soon = Timestamp::from_millis(now().as_millis() + 60_000).to_string();
    let long = "x".repeat(70_000);
    for (options, code, why) in [
        (&["x", "--cron", "0 0 30 2 *"][..], 2, "no month that it names has such a day"),
        (&["x", "--cron", "61 * * * *"], 2, "'61' is no minute"),
        (&["x", "--cron", "* * *"], 2, "it has 3 fields"),
        (&["x", "--cron", "* * * * *", "--tz", "Mars/Olympus"], 2, "time zone 'Mars/Olympus' is unknown"),
        (&["x", "--every", "0s"], 2, "at least 1s"),
        (&["x", "--every", "999ms"], 2, "at least 1s"),
        (&["x", "--every", "10000d"], 2, "at most 3650d"),
        (&["x", "--every", "5"], 2, "lacks a unit"),
        (&["x", "--every", "5m", "--tz", "UTC"], 2, "cannot be used with"),
        (&["x", "--every", "5m", "--cron", "* * * * *"], 2, "cannot be used with"),
        (&["x"], 2, "--every <DURATION>"),
        (&["x", "--every", "1d", "--until", "2020-01-01"], 2, "has passed"),
        (&["x", "--every", "1d", "--until", &soon], 2, "would never run"),
        (&["x", "--every", "1m", "--overlap", "both"], 2, "skip, queue or replace"),
        (&["x", "--every", "1m", "--catch-up", "some"], 2, "all:N"),
        (&["x", "--every", "1m", "--catch-up", "all"], 2, "give overlap queue"),
        (&["x", "--every", "1m", "--delay", "5s"], 2, "no delay or start time"),
        (&["x", "--every", "1m", "--label", "schedule=y"], 2, "no label 'schedule'"),
        (&["x", "--every", "1m", "--colour", "red"], 2, "unexpected argument"),
        (&["x", "--every", "1m", "--user", "nobody-at-all"], 2, "nobody-at-all"),
        (&["a/b", "--every", "1m"], 2, "allowed are"),
        (&["there", "--every", "1m"], 4, "--replace"),
    ] {
        let words = ["schedule", "add"].iter().chain(options).chain(&["--", "true"]);
        let said = home.nodejobs(words);
        assert_eq!((said.code, said.stderr.contains(why)), (code, true), "{options:?}: {said:?}");
    }
    let said = home.nodejobs(["schedule", "add", "x", "--every", "1m", "--", "echo", &long]);
    assert_eq!((said.code, said.stderr.contains("put the command into a file")), (2, true), "{said:?}");
    let said = home.with_input(&["schedule", "add", "x", "--every", "1m", "--stdin", "-", "--", "cat"], b"x");
    assert_eq!((said.code, said.stderr.contains("no input that is sent along")), (2, true), "{said:?}");
    for action in ["show", "pause", "resume", "run", "rm"] {
        let said = home.nodejobs(["schedule", action, "nobody"]);
        assert_eq!((said.code, said.stderr.contains("no schedule 'nobody'")), (3, true), "{said:?}");
        assert_eq!(home.nodejobs(["schedule", action, ""]).code, 2);
    }
    let said = home.nodejobs(["schedule", "show", "there", "--next", "1001"]);
    assert_eq!((said.code, said.stderr.contains("at most 1000")), (2, true), "{said:?}");
    let all = home.nodejobs(["-o", "json", "schedule", "ls"]).json();
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
    home.ok(["schedule", "add", "there", "--every", "2d", "--replace", "--", "false"]);
    let there = home.schedule("there");
    assert_eq!((&there["every_ms"], &there["command"]["argv"]), (&json!(172_800_000), &json!(["false"])));
}

#[test]
fn who_waits_for_a_run_hears_its_end() {
    let home = Home::new();
    home.ok(["schedule", "add", "s", "--cron", "0 0 1 1 *", "--", "sh", "-c", "exit 3"]);
    let id = home.ok(["schedule", "run", "s"]);
    let wait =
        home.command(["wait", &id]).stdout(Stdio::null()).stderr(Stdio::null()).status().expect("started");
    assert_eq!(wait.code(), Some(3));
    assert_eq!(text(&home.schedule("s")["last"], "outcome"), "failed, exit code 3");
    home.ok(["rm", &id]);
    let last = &home.schedule("s")["last"];
    assert_eq!((text(last, "self_id"), &last["status"]), (id.as_str(), &Value::Null), "{last}");
    assert!(home.ok(["schedule", "ls"]).contains("forgotten"));
}
