//! Jobs that are run again, and jobs that are forgotten: restart, rm, history.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Home, eventually, is_alive, kill, lines, pid_of, said, text};

/// It notes each attempt, says so when it is asked to end, and ends when the file `over` is there.
const SLOW: &str = "trap 'touch asked' TERM; echo $NODEJOBS_ATTEMPT >> begun; [ $NODEJOBS_ATTEMPT = 1 ] || exec sleep 1000; \
                    until [ -e over ]; do sleep 0.02; done";

fn in_background(home: &Home, words: &[&str]) -> Child {
    home.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nodejobs starts")
}

/// How many sockets a process has.
fn connections(pid: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").flatten();
    open.filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

fn begun(home: &Home) -> Vec<String> {
    lines(&home.path().join("begun"))
}

/// C4
#[test]
fn a_running_job_is_stopped_and_begins_its_next_attempt() {
    let home = Home::new();
    home.ok([
        "run",
        "--id",
        "a",
        "--label",
        "k=v",
        "--env",
        "X=y",
        "echo $NODEJOBS_ATTEMPT $X; exec sleep 1000",
    ]);
    let first = home.running("a");
    eventually("it has written", || (home.stdout("a") == b"1 y\n").then_some(()));
    assert_eq!(home.ok(["restart", "a"]), "a: attempt 2");
    assert!(!is_alive(pid_of(&first["last_pid"])));
    let second = home.running("a");
    assert_eq!((text(&second, "status"), &second["attempt"]), ("running", &json!(2)), "{second}");
    assert_ne!(second["last_pid"], first["last_pid"]);
    assert_eq!(
        (&second["seq"], &second["labels"], &second["cwd"]),
        (&first["seq"], &first["labels"], &first["cwd"])
    );
    eventually("it has written", || (home.stdout("a") == b"2 y\n").then_some(()));
    assert_eq!(home.ok(["logs", "--attempt", "1", "a"]), "1 y");
    let history = home.history("a");
    assert_eq!(
        (history.len(), text(&history[0], "status"), &history[0]["signal"]),
        (2, "stopped", &json!(15))
    );
    assert_eq!((&history[0]["attempt"], &history[0]["last_pid"]), (&json!(1), &first["last_pid"]));
    assert_eq!(history[1]["last_pid"], second["last_pid"]);
}

#[test]
fn an_ended_job_begins_its_next_attempt_however_it_ended() {
    let home = Home::new();
    home.ok(["run", "--id", "stopped", "--", "sleep", "1000"]);
    home.ok(["stop", "stopped"]);
    home.nodejobs(["run", "--id", "failed", "--wait", "--", "sh", "-c", "exit 3"]);
    home.nodejobs(["run", "--id", "unstarted", "--wait", "--", "no-such-program"]);
    home.ok(["run", "--id", "cancelled", "--delay", "1h", "--", "true"]);
    home.ok(["stop", "cancelled"]);
    let told = home.ok(["restart", "stopped", "failed", "unstarted", "cancelled"]);
    assert_eq!(told, "stopped: attempt 2\nfailed: attempt 2\nunstarted: attempt 2\ncancelled: attempt 2");
    for (id, status) in [("failed", "failed"), ("unstarted", "failed_start"), ("cancelled", "finished")] {
        let record = home.ended(id);
        assert_eq!((text(&record, "status"), &record["attempt"]), (status, &json!(2)), "{record}");
    }
    assert_eq!(text(&home.running("stopped"), "status"), "running");
    let said = home.nodejobs(["restart", "nobody"]);
    assert_eq!((said.code, said.stderr.contains("'nobody'")), (3, true), "{said:?}");
    let said = home.nodejobs(["-o", "json", "restart", "failed", "nobody"]);
    assert_eq!((said.code, &said.json()[0]["record"]["attempt"]), (6, &json!(3)), "{said:?}");
    home.ok(["run", "--id", "waits", "--delay", "1h", "--", "true"]);
    assert_eq!(home.ok(["restart", "waits"]), "waits: attempt 1");
    assert_eq!(text(&home.ended("waits"), "status"), "finished");
}

#[test]
fn a_restart_while_somebody_stops_the_job_follows_the_stop() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--grace", "1h", SLOW]);
    eventually("it runs", || (!begun(&home).is_empty()).then_some(()));
    let mut stop = home.command(["stop", "a"]);
    let stop = stop.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nodejobs starts");
    home.ready("asked");
    let mut restart = in_background(&home, &["restart", "a"]);
    eventually("the restart is asked for", || {
        // The stop is one change, the restart that waits for it another.
        (home.changes("a", "stopping") == 2).then_some(())
    });
    std::fs::write(home.path().join("over"), "").expect("written");
    assert!(restart.wait().expect("ended").success());
    let stopped = stop.wait_with_output().expect("ended");
    // The one who stopped is told of what was stopped, and waits for nothing else.
    let words = String::from_utf8_lossy(&stopped.stdout);
    assert!(stopped.status.success() && words.starts_with("a: stopped"), "{stopped:?}");
    eventually("the next attempt runs", || (begun(&home) == ["1", "2"]).then_some(()));
    assert_eq!(text(&home.running("a"), "status"), "running");
}

#[test]
fn a_stop_during_a_restart_takes_it_back() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--grace", "1h", SLOW]);
    eventually("it runs", || (!begun(&home).is_empty()).then_some(()));
    let mut restart = home.command(["restart", "a"]);
    let restart = restart.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nodejobs starts");
    home.ready("asked");
    home.ok(["stop", "--force", "a"]);
    let refused = restart.wait_with_output().expect("ended");
    let words = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{words}");
    assert!(words.contains("somebody wants it stopped"), "{words}");
    let record = home.record("a");
    assert_eq!((text(&record, "status"), &record["attempt"]), ("stopped", &json!(1)), "{record}");
    assert_eq!(begun(&home), ["1"]);
}

#[test]
fn two_restarts_at_once_are_one_attempt() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--grace", "1h", SLOW]);
    eventually("it runs", || (!begun(&home).is_empty()).then_some(()));
    let restarts = [(); 2].map(|()| {
        let child = home.command(["restart", "a"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        child.expect("nodejobs starts")
    });
    home.ready("asked");
    // Both are with the daemon once it has heard of the second.
    eventually("the first is asked for", || (home.changes("a", "stopping") >= 1).then_some(()));
    home.ok(["ls"]);
    // With less patience than they have: it is killed, and both get what they wait for.
    let third = home.ok(["restart", "--force", "a"]);
    let answers = restarts.map(|restart| restart.wait_with_output().expect("ended"));
    let words: Vec<_> =
        answers.iter().map(|answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned()).collect();
    assert!(answers.iter().all(|answer| answer.status.success()), "{answers:?}");
    assert_eq!(third, "a: attempt 2");
    // One of them may have come so late that it found the next attempt; it says which one it has begun.
    let newest = home.record("a")["attempt"].as_u64().expect("a number");
    assert!(words.contains(&"a: attempt 2".to_owned()) && newest <= 3, "{words:?} {newest}");
}

#[test]
fn a_wait_and_a_follower_go_on_to_the_end_of_the_next_attempt() {
    let home = Home::new();
    home.ok([
        "run",
        "--id",
        "a",
        "echo up; [ $NODEJOBS_ATTEMPT = 2 ] || exec sleep 1000; until [ -e over ]; do sleep 0.02; done; exit 5",
    ]);
    home.running("a");
    let daemon = home.daemon_pid();
    // The least of some looks: what the last command had is closed in a moment.
    let mut looks = 0;
    let mut before = usize::MAX;
    eventually("it is quiet", || {
        before = before.min(connections(daemon));
        looks += 1;
        (looks > 20).then_some(())
    });
    let mut wait = in_background(&home, &["wait", "a"]);
    let mut follow = home
        .command(["logs", "-f", "a"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut line = String::new();
    let mut heard = BufReader::new(follow.stdout.take().expect("a pipe"));
    heard.read_line(&mut line).expect("a line");
    eventually("both are served", || (connections(daemon) >= before + 2).then_some(()));
    home.ok(["restart", "a"]);
    heard.read_line(&mut line).expect("a line of the next attempt");
    assert_eq!(line, "up\nup\n");
    home.running("a");
    for process in [&mut wait, &mut follow] {
        assert!(process.try_wait().expect("looked").is_none(), "it goes on");
    }
    std::fs::write(home.path().join("over"), "").expect("written");
    for mut process in [wait, follow] {
        assert_eq!(process.wait().expect("ended").code(), Some(5));
    }
}

#[test]
fn a_restart_outlives_the_daemon_that_was_asked_and_is_one_attempt() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--grace", "1h", SLOW]);
    eventually("it runs", || (!begun(&home).is_empty()).then_some(()));
    let mut restart = in_background(&home, &["restart", "a"]);
    home.ready("asked");
    kill(home.daemon_pid());
    // The command asks the next daemon again, under the same key.
    std::fs::write(home.path().join("over"), "").expect("written");
    assert!(restart.wait().expect("ended").success());
    eventually("the next attempt runs", || (begun(&home) == ["1", "2"]).then_some(()));
    home.ok(["stop", "a"]);
    let record = home.record("a");
    assert_eq!((text(&record, "status"), &record["attempt"]), ("stopped", &json!(2)), "{record}");
    assert_eq!(begun(&home), ["1", "2"]);
}

#[test]
fn a_restart_goes_on_without_whoever_asked() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--grace", "1h", SLOW]);
    eventually("it runs", || (!begun(&home).is_empty()).then_some(()));
    let mut restart = in_background(&home, &["restart", "a"]);
    home.ready("asked");
    restart.kill().expect("killed");
    restart.wait().expect("ended");
    kill(home.daemon_pid());
    std::fs::write(home.path().join("over"), "").expect("written");
    home.ok(["ls"]);
    eventually("the next attempt runs", || (begun(&home) == ["1", "2"]).then_some(()));
    assert_eq!(home.running("a")["attempt"], 2);
    assert_eq!(home.history("a").len(), 2);
}

#[test]
fn restarts_under_killed_daemons_are_each_one_attempt() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "echo $NODEJOBS_ATTEMPT >> begun; exec sleep 1000"]);
    for attempt in 2..8 {
        home.running("a");
        let daemon = home.daemon_pid();
        let mut restart = in_background(&home, &["restart", "a"]);
        for _ in 2..attempt {
            home.nodejobs(["ls"]);
        }
        kill(daemon);
        assert!(restart.wait().expect("ended").success());
        assert_eq!(home.running("a")["attempt"], attempt);
    }
    home.ok(["stop", "a"]);
    let numbers: Vec<_> =
        home.history("a").iter().map(|record| record["attempt"].as_u64().expect("a number")).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
    // One that is stopped before it gets so far writes nothing, but none writes twice.
    let begun = begun(&home);
    let mut once = begun.clone();
    once.dedup();
    assert_eq!(begun, once);
    assert_eq!(home.job_processes(), []);
}

#[test]
fn the_history_has_every_attempt() {
    let home = Home::new();
    let script = "echo x$NODEJOBS_ATTEMPT; exit $((3 - NODEJOBS_ATTEMPT))";
    home.nodejobs(["run", "--id", "a", "--wait", script]);
    for _ in 0..2 {
        home.ok(["restart", "a"]);
        home.ended("a");
    }
    let history = home.history("a");
    let field = |name: &str| history.iter().map(|record| record[name].clone()).collect::<Vec<Value>>();
    assert_eq!(field("attempt"), [1, 2, 3].map(Value::from));
    assert_eq!(field("exit_code"), [2, 1, 0].map(Value::from));
    assert_eq!(field("status"), ["failed", "failed", "finished"].map(Value::from));
    assert_eq!(field("log_bytes"), [3, 3, 3].map(Value::from));
    assert_eq!(history[2], home.record("a"));
    let rows = home.ok(["-o", "jsonl", "history", "a"]);
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows, history);
    let table = home.ok(["history", "a"]);
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains("failed, exit code 2") && table.contains("finished, exit code 0"), "{table}");
    assert_eq!(home.nodejobs(["history", "nobody"]).code, 3);
}

#[test]
fn what_has_ended_is_forgotten_and_what_has_not_is_a_conflict() {
    let home = Home::new();
    home.ok(["run", "--id", "over", "--wait", "--", "true"]);
    home.ok(["run", "--id", "runs", "--", "sleep", "1000"]);
    home.ok(["run", "--id", "waits", "--delay", "1h", "--", "true"]);
    for id in ["runs", "waits"] {
        let said = home.nodejobs(["rm", id]);
        assert_eq!((said.code, said.text().as_str()), (4, ""), "{said:?}");
        assert!(
            said.stderr.contains(&format!("'{id}'")) && said.stderr.contains("stop it first"),
            "{said:?}"
        );
    }
    assert_eq!(home.nodejobs(["rm", "nobody"]).code, 3);
    let said = home.nodejobs(["rm", "over", "nobody", "runs"]);
    assert_eq!((said.code, said.text().as_str()), (6, "over: removed"), "{said:?}");
    assert!(said.stderr.contains("'nobody'") && said.stderr.contains("'runs'"), "{said:?}");
    assert_eq!(home.nodejobs(["rm", "over"]).code, 3);
    assert_eq!(text(&home.running("runs"), "status"), "running");
    home.ok(["stop", "runs"]);
    home.ok(["rm", "runs"]);
    assert_eq!(home.records().len(), 1);
}

#[test]
fn the_logs_go_with_the_job_except_for_files_of_the_users_own() {
    let home = Home::new();
    let files = |home: &Home| {
        let mut found = Vec::new();
        let mut directories = vec![home.data_dir().join("logs"), home.path().join("own")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    directories.push(entry.path());
                } else {
                    found.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        found
    };
    let script = "echo old out; echo old err >&2";
    home.ok(["run", "--id", "a", "--wait", script]);
    home.ok(["restart", "a"]);
    home.ended("a");
    home.ok(["run", "--id", "b", "--logdir", "own", "--wait", script]);
    home.ok(["run", "--id", "c", "--logfile", "own/c.log", "--wait", script]);
    let all = ["a.1.err", "a.1.out", "a.2.err", "a.2.out", "b.1.err", "b.1.out", "c.log", "c.log.err"];
    // One that takes a while, as it may where much goes on, has an index as well.
    let mut written = files(&home);
    written.retain(|name| !name.ends_with(".idx"));
    assert_eq!(written, all);
    home.ok(["rm", "a", "b", "c"]);
    assert_eq!(files(&home), ["c.log", "c.log.err"]);
    assert_eq!(home.records(), [] as [Value; 0]);
    // The ids are free, and what comes begins anew.
    for options in
        [&["--id", "a"][..], &["--id", "b", "--logdir", "own"], &["--id", "c", "--logfile", "own/c.log"]]
    {
        home.ok(["run"].iter().chain(options).chain(&["--wait", "echo new"]));
        let record = home.record(options[1]);
        assert_eq!((&record["attempt"], &record["log_bytes"]), (&json!(1), &json!(4)), "{record}");
        assert_eq!((home.stdout(options[1]), home.stderr(options[1])), (b"new\n".to_vec(), vec![]));
        assert_eq!(home.nodejobs(["logs", "--attempt", "2", options[1]]).code, 3);
    }
    assert_eq!(lines(&home.path().join("own/c.log")), ["old out", "new"]);
}

#[test]
fn a_job_that_is_forgotten_leaves_nobody_waiting() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    home.running("a");
    let waiters = [&["wait", "a"][..], &["logs", "-f", "a"]].map(|words| {
        let mut command = home.command(words);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("nodejobs starts")
    });
    home.ok(["ls"]);
    home.ok(["stop", "a"]);
    home.ok(["rm", "a"]);
    let before = Instant::now();
    for waiter in waiters {
        let output = waiter.wait_with_output().expect("ended");
        let words = String::from_utf8_lossy(&output.stderr);
        // Who was too late to see the end is told that there is no such job.
        let is_told =
            output.status.code() == Some(143) || (output.status.code() == Some(125) && words.contains("'a'"));
        assert!(is_told, "{:?} {words}", output.status);
    }
    assert!(before.elapsed() < Duration::from_secs(3));
    // A stop with a removal, on and on, with the same id.
    for _ in 0..5 {
        let mut run = home.command(["run", "--id", "a", "--", "true"]);
        assert_eq!(said(&mut run).code, 0);
        home.ended("a");
        home.ok(["rm", "a"]);
    }
    assert_eq!(home.nodejobs(["status", "a"]).code, 3);
}
