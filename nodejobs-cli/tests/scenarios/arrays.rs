//! Arrays: every element once, whoever is killed; what is seen of them; how they end, are run again and are forgotten.

use std::collections::BTreeMap;
use std::process::Stdio;

use nodejobs::Jobs;
use nodejobs::api::{ArrayRequest, ListQuery, ProblemKind, RestartRequest};
use nodejobs::spec::{Command, Elements};
use nodejobs::{Reason, Status};
use serde_json::{Value, json};

use crate::engine::STORES;
use crate::library::{in_both_modes, kind, run_as, script, spec};
use crate::support::{Cue, Home, eventually, is_alive, kill, lines, pid_of, text};

in_both_modes![an_array_is_submitted_and_run_again_by_programs];

/// How often each line is in a file.
fn counts(home: &Home, name: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    lines(&home.path().join(name)).into_iter().for_each(|line| *counts.entry(line).or_default() += 1);
    counts
}

fn array(home: &Home, arguments: &[&str]) -> String {
    home.ok([&["array"], arguments].concat()).trim().to_owned()
}

fn joblog(home: &Home, id: &str) -> Vec<Value> {
    let said = home.nodejobs(["-o", "json", "joblog", id]);
    assert_eq!(said.code, 0, "{said:?}");
    said.json().as_array().expect("a list").clone()
}

/// Numbers of elements, by what the joblog says they came to.
fn came_to(home: &Home, id: &str) -> BTreeMap<String, Vec<u64>> {
    let mut came_to: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in joblog(home, id) {
        let index = line["index"].as_u64().expect("a number");
        came_to.entry(text(&line, "status").to_owned()).or_default().push(index);
    }
    came_to
}

#[test]
fn each_element_gets_its_values_in_its_command_and_its_environment() {
    let home = Home::new();
    let script = "printf '%s|' {lr} {seed} {index} \"$NODEJOBS_PARAM_LR\" $NODEJOBS_ARRAY_INDEX $NODEJOBS_ARRAY_ID $JOB_ID";
    let id = array(&home, &["--id", "sweep", "-p", "lr=a b,0.1", "-p", "seed=1..2", "--shell", "--", script]);
    let said = home.nodejobs(["wait", &id]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.starts_with("sweep: finished after "), "no bar where there is no terminal: {said:?}");
    let output = |index: u32| String::from_utf8(home.stdout(&format!("sweep.{index}"))).expect("UTF-8");
    assert_eq!(output(2), "a b|2|2|a b|2|sweep|sweep.2|");
    assert_eq!(output(3), "0.1|1|3|0.1|3|sweep|sweep.3|");
    let log = joblog(&home, "sweep");
    assert_eq!(log.len(), 4);
    assert_eq!(log[3]["values"], serde_json::json!({"lr": "0.1", "seed": "2"}));
    assert_eq!(home.ok(["joblog", "sweep"]).lines().count(), 5);
    assert_eq!(home.ok(["-o", "jsonl", "joblog", "sweep"]).lines().count(), 4);

    // Words are filled in as they are, and lines that no shell would survive are one argument.
    let values = "it's\n\n$(touch oops) `x`; \"y\"\n";
    let said = home.with_input(
        &["array", "--each-line", "-", "--wait", "--", "printf", "<%s>", "{}"],
        values.as_bytes(),
    );
    let id = said.text();
    assert_eq!(home.stdout(&format!("{}.2", id.trim())), b"<$(touch oops) `x`; \"y\">");
    let said =
        home.with_input(&["array", "--each-line", "-", "--wait", "printf '<%s>' {}"], values.as_bytes());
    assert_eq!(home.stdout(&format!("{}.2", said.text().trim())), b"<$(touch oops) `x`; \"y\">");
    assert!(!home.path().join("oops").exists());

    let objects = b"{\"n\": 12345678901234567890123, \"s\": \"x\"}\n{\"n\": 1.50,\n \"s\": [1, 2]}";
    let said = home.with_input(&["array", "--each-json", "-", "--wait", "--", "echo", "{n}", "{s}"], objects);
    let id = said.text();
    assert_eq!(home.stdout(&format!("{}.1", id.trim())), b"12345678901234567890123 x\n");
    assert_eq!(home.stdout(&format!("{}.2", id.trim())), b"1.50 [1, 2]\n");
}

/// C7, P17: with the daemon and both halves of its keeper killed while it is at it, in every store of this build.
#[test]
fn every_element_runs_once_whoever_is_killed_half_way() {
    for (store, is_here) in STORES {
        if !is_here {
            continue;
        }
        let home = Home::new();
        let cue = Cue::new(&home, "cue");
        let script =
            format!("echo {{}} >> begun; [ {{}} != 20 ] || read x < {}; echo {{}} >> ended", cue.path());
        let store = [
            "--store",
            store,
            "array",
            "--range",
            "1-60",
            "--max-running",
            "3",
            "--id",
            "a",
            "--shell",
            "--",
            &script,
        ];
        home.ok(store);
        for wanted in [10, 25, 40] {
            eventually("some have ended", || (counts(&home, "ended").len() >= wanted).then_some(()));
            let (guard, worker) = home.keeper();
            kill(home.daemon_pid());
            if wanted == 25 {
                kill(worker);
            } else if wanted == 40 {
                kill(guard);
            }
            home.ok(["daemon", "start"]);
        }
        assert!(home.record("a")["progress"]["pending"].as_u64().is_some());
        cue.say("go");
        let ended = home.ended("a");
        assert_eq!(text(&ended, "status"), "finished", "{ended}");
        for file in ["begun", "ended"] {
            let counts = counts(&home, file);
            assert_eq!(counts.len(), 60, "{file}: {counts:?}");
            assert!(counts.values().all(|count| *count == 1), "{file}: {counts:?}");
        }
        assert_eq!(came_to(&home, "a"), [("finished".to_owned(), (1..=60).collect())].into());
        home.ok(["daemon", "stop"]);
    }
}

#[test]
fn no_more_elements_run_at_a_time_than_were_said() {
    let home = Home::new();
    let script = "mkdir at_$NODEJOBS_ARRAY_INDEX; ls -d at_* | wc -l >> seen; sleep 0.02; rmdir at_$NODEJOBS_ARRAY_INDEX";
    let id = array(&home, &["--range", "1-30", "--max-running", "2", "--shell", "--", script]);
    assert_eq!(text(&home.ended(&id), "status"), "finished");
    let seen: Vec<u32> =
        lines(&home.path().join("seen")).iter().map(|line| line.trim().parse().expect("a number")).collect();
    assert_eq!(seen.len(), 30);
    assert!(seen.iter().all(|count| (1..=2).contains(count)), "{seen:?}");
}

#[test]
fn what_did_not_finish_is_run_again_and_nothing_else() {
    let home = Home::new();
    let script = "echo {} >> ran; [ {} -lt 4 ] || test -e mended";
    let id = array(&home, &["--id", "a", "--range", "1-6", "--shell", "--", script]);
    let said = home.nodejobs(["wait", &id]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("3 of 6 elements finished, 3 failed"), "{said:?}");
    let record = home.record("a");
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed", "element"));
    std::fs::write(home.path().join("mended"), "").expect("written");

    // One of them, then the rest.
    assert_eq!(home.ok(["retry", "a.5"]), "a: attempt 2, 1 of 6 elements");
    assert_eq!(home.nodejobs(["wait", "a"]).code, 1);
    assert_eq!(
        home.record("a")["progress"],
        serde_json::json!({"size": 6, "pending": 0, "running": 0, "finished": 4, "failed": 2, "stopped": 0})
    );
    assert_eq!(home.ok(["retry", "--failed", "a"]), "a: attempt 3, 2 of 6 elements");
    assert_eq!(home.nodejobs(["wait", "a"]).code, 0);
    let ran: Vec<usize> = counts(&home, "ran").into_values().collect();
    assert_eq!(ran, [1, 1, 1, 2, 2, 2]);
    assert_eq!((home.history("a").len(), home.history("a.6").len(), home.history("a.1").len()), (3, 2, 1));
    let refused = home.nodejobs(["retry", "--failed", "a"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("each of its elements has finished"), "{refused:?}");
    // All of it.
    home.ok(["restart", "a"]);
    assert_eq!(home.nodejobs(["wait", "a"]).code, 0);
    assert_eq!(counts(&home, "ran").into_values().sum::<usize>(), 15);

    // Jobs of their own.
    home.nodejobs(["run", "--id", "one", "--wait", "test -e later"]);
    std::fs::write(home.path().join("later"), "").expect("written");
    home.ok(["retry", "--failed", "one"]);
    assert_eq!(home.nodejobs(["wait", "one"]).code, 0);
    assert_eq!(home.nodejobs(["retry", "--failed", "one"]).code, 4);
    home.ok(["run", "--id", "lives", "--", "sleep", "600"]);
    let lives = home.running("lives");
    assert_eq!(home.nodejobs(["retry", "lives"]).code, 4);
    assert!(is_alive(pid_of(&lives["last_pid"])));
    home.ok(["stop", "lives"]);
}

#[test]
fn an_array_is_stopped_as_one_and_a_single_element_alone() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let script = format!("read x < {}", cue.path());
    array(
        &home,
        &["--id", "a", "--name", "n", "--range", "1-9", "--max-running", "2", "--shell", "--", &script],
    );
    home.running("a.2");
    let waiting = home.record("a.7");
    assert_eq!((text(&waiting, "status"), text(&waiting, "waiting_on")), ("queued", "slot"));
    assert_eq!(text(&waiting["element"]["values"], "value"), "7");
    assert!(home.ok(["ls"]).contains("running 0/9"), "{}", home.ok(["ls"]));
    assert_eq!(home.ok(["ls", "-q"]), "a", "its elements are not listed");
    assert_eq!(home.ok(["ls", "-q", "--array", "n", "--oldest-first"]), "a.1\na.2");
    assert_eq!(home.ok(["ls", "-q", "--elements"]).lines().count(), 3);

    // Before its turn, and while it runs.
    home.ok(["stop", "a.7"]);
    assert_eq!(text(&home.record("n.7"), "status"), "cancelled");
    home.ok(["stop", "a.1"]);
    home.running("a.3");
    for refused in [
        &["restart", "a.1"][..],
        &["restart", "a"],
        &["rm", "a.1"],
        &["rm", "a"],
        &["run", "--id", "a.9", "--", "true"],
        &["run", "--id", "a.10", "--", "true"],
        &["array", "--id", "a", "--range", "1-2", "--", "true"],
        &["pause", "a"],
    ] {
        assert_eq!(home.nodejobs(refused).code, 4, "{refused:?}");
    }
    let pids: Vec<u32> = ["a.2", "a.3"].map(|id| pid_of(&home.running(id)["last_pid"])).into();
    // Whoever waits for an element that never starts is not left waiting.
    let mut waits = home.command(["wait", "a.8"]).stderr(Stdio::null()).spawn().expect("started");
    let said = home.nodejobs(["stop", "a"]);
    assert!(said.code == 0, "{said:?}");
    assert_eq!(waits.wait().expect("it ends").code(), Some(125));
    assert!(pids.into_iter().all(|pid| !is_alive(pid)));
    let record = home.record("a");
    assert_eq!(text(&record, "status"), "stopped");
    assert_eq!(
        record["progress"],
        serde_json::json!({"size": 9, "pending": 5, "running": 0, "finished": 0, "failed": 0, "stopped": 4})
    );
    assert_eq!(text(&home.record("a.8"), "status"), "cancelled");
    assert_eq!(home.nodejobs(["status", "a.10"]).code, 3);
    assert_eq!(home.nodejobs(["logs", "a"]).code, 2);
    assert_eq!(home.nodejobs(["joblog", "a.1"]).code, 2);

    // What never started is started by the next attempt.
    home.ok(["retry", "--failed", "a"]);
    for _ in 0..9 {
        cue.say("go");
    }
    assert_eq!(home.nodejobs(["wait", "a"]).code, 0);
    assert_eq!(came_to(&home, "a"), [("finished".to_owned(), vec![1, 2, 7, 3, 4, 5, 6, 8, 9])].into());

    home.ok(["rm", "a"]);
    assert_eq!(home.nodejobs(["-o", "json", "ls", "--elements"]).json(), serde_json::json!([]));
    let logs = home.data_dir().join("logs");
    let left = std::fs::read_dir(logs)
        .expect("logs")
        .flatten()
        .flat_map(|dir| std::fs::read_dir(dir.path()).into_iter().flatten());
    assert_eq!(left.count(), 0);
    assert_eq!(home.documents("array") + home.documents("progress"), 0);
}

#[test]
fn an_array_that_is_being_forgotten_is_forgotten_by_the_next_daemon() {
    let home = Home::new();
    let id = array(&home, &["--range", "1-300", "--max-running", "50", "--", "true"]);
    assert_eq!(home.nodejobs(["wait", &id]).code, 0);
    let daemon = home.daemon_pid();
    let mut removes =
        home.command(["rm", &id]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("started");
    eventually("the array is gone", || (home.nodejobs(["status", &id]).code == 3).then_some(()));
    kill(daemon);
    let _ = removes.wait();
    eventually("its elements are gone", || {
        (home.nodejobs(["-o", "json", "ls", "--elements"]).json() == serde_json::json!([])).then_some(())
    });
    eventually("nothing says that they are to go", || (home.documents("progress") == 0).then_some(()));
}

#[test]
fn the_first_failure_ends_the_others_if_that_was_wanted() {
    let home = Home::new();
    let script = "case {} in 2) exit 5;; *) sleep 600;; esac";
    let id = array(&home, &["--range", "1-8", "--max-running", "2", "--fail-fast", "--shell", "--", script]);
    let said = home.nodejobs(["wait", &id]);
    assert_eq!(said.code, 1, "{said:?}");
    let detail =
        format!("{id}.2 failed, exit code 5; 0 of 8 elements finished, 1 failed, 1 stopped, 6 not started");
    assert_eq!(text(&home.record(&id), "detail"), detail);
    assert_eq!(text(&home.record(&format!("{id}.8")), "reason"), "element");
}

#[test]
fn a_script_is_run_once_the_array_has_ended_and_again_if_the_daemon_was_killed_over_it() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let script = format!(
        "cat > record; echo $JOB_ID $NODEJOBS_EVENT $OWN >> told; pwd > place; read x < {}; echo through >> told",
        cue.path()
    );
    std::fs::create_dir(home.path().join("work")).expect("a directory");
    array(
        &home,
        &[
            "--id",
            "a",
            "--range",
            "1-3",
            "--cwd",
            "work",
            "--env",
            "OWN=mine",
            "--on-done",
            &format!("cd ..; {script}"),
            "--",
            "true",
        ],
    );
    let told = || lines(&home.path().join("told"));
    eventually("it is told", || (told() == ["a finished mine"]).then_some(()));
    let record: Value =
        serde_json::from_slice(&std::fs::read(home.path().join("record")).expect("a record")).expect("JSON");
    assert_eq!((text(&record, "self_id"), record["progress"]["finished"].as_u64()), ("a", Some(3)));
    kill(home.daemon_pid());
    home.ok(["daemon", "start"]);
    eventually("it is told again", || (told().len() == 2).then_some(()));
    cue.say("go");
    eventually("it is through", || {
        (told() == ["a finished mine", "a finished mine", "through"]).then_some(())
    });
    // Nothing of it is left to be run.
    eventually("it is not to be run again", || {
        home.ok(["daemon", "stop"]);
        let export = home.ok(["store", "export"]);
        (!export.contains("on-done/")).then_some(())
    });
    home.ok(["daemon", "start"]);
    assert_eq!(told().len(), 3);
}

#[test]
fn who_waits_on_a_terminal_sees_how_far_it_got() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let script = format!("[ {{}} -lt 3 ] || read x < {}", cue.path());
    array(&home, &["--id", "a", "--range", "1-5", "--max-running", "1", "--shell", "--", &script]);
    home.running("a.3");
    home.ok([
        "run",
        "--pty",
        "--id",
        "shown",
        "--env",
        "TERM=xterm",
        "--",
        env!("CARGO_BIN_EXE_nodejobs"),
        "wait",
        "a",
    ]);
    let shown = |what: &str| {
        eventually(what, || String::from_utf8_lossy(&home.stdout("shown")).contains(what).then_some(()));
    };
    shown("2/5");
    (0..3).for_each(|_| cue.say("go"));
    shown("a: finished after");
    assert_eq!(home.ended("shown")["exit_code"], 0);
}

#[test]
fn the_number_of_jobs_that_are_kept_is_not_one_of_elements() {
    let home = Home::new();
    for id in ["one", "two"] {
        home.ok(["run", "--id", id, "--wait", "--", "true"]);
    }
    home.ok(["array", "--id", "a", "--range", "1-20", "--max-running", "20", "--wait", "--", "true"]);
    let keep = |count: u32| {
        std::fs::write(home.data_dir().join("config.toml"), format!("[history]\nkeep_last = {count}\n"))
            .expect("written");
        home.ok(["daemon", "reload"]);
    };
    keep(2);
    let listed = || home.ok(["ls", "-q", "--elements", "--all"]).lines().count();
    eventually("the oldest job is gone", || (home.nodejobs(["status", "one"]).code == 3).then_some(()));
    assert_eq!(listed(), 22, "the other job, the array and its elements");
    home.ok(["run", "--id", "three", "--wait", "--", "true"]);
    keep(1);
    eventually("the array is gone with its elements", || (listed() == 1).then_some(()));
}

#[test]
fn what_makes_no_array_is_refused_before_anything_is_done() {
    let home = Home::new();
    for (arguments, why) in [
        (&["--range", "1-1000000000", "--", "true"][..], "1000000000 elements; an array has at most 1000000"),
        (&["--range", "5-1", "--", "true"], "is empty"),
        (&["-p", "a=1..100000", "-p", "b=1..100000", "--", "true"], "10000000000 elements"),
        (&["-p", "a", "--", "true"], "'a' is not a parameter"),
        (&["-p", "a=1", "-p", "a=2", "--", "true"], "rename one"),
        (&["-p", "a=1", "-p", "b=1", "--", "echo", "{}"], "name the one you mean"),
        (&["--range", "1-2", "--", "echo", "{x}"], "'{x}' has no value; there is '{value}'"),
        (&["--range", "1-2", "echo '{}'"], "is in quotes"),
        (&["--range", "1-2", "--label", "array=x", "--", "true"], "label 'array'"),
        (&["--range", "1-2", "--max-running", "0", "--", "true"], "0"),
        (&["--range", "1-2", "--on-done", "", "--", "true"], "the script for the end is empty"),
        (&["--each-json", "-", "--stdin", "-", "--", "true"], "standard input"),
        (&["--each-line", "-", "--", "true"], "gives no element"),
        (&["--", "true"], "--range"),
    ] {
        let said = home.nodejobs([&["array"], arguments].concat());
        assert_eq!(said.code, 2, "{arguments:?}: {said:?}");
        assert!(said.stderr.contains(why), "{arguments:?}: {said:?}");
    }
    assert!(!home.data_dir().exists(), "no daemon was started for it");
}

async fn an_array_is_submitted_and_run_again_by_programs(home: &Home, jobs: &Jobs) {
    let elements = Elements::lines("0\n3\n");
    let mut request = ArrayRequest::new(script(home, "test -e mended || exit {}"), elements.clone());
    request.max_running = Some(1);
    let array = jobs.submit_array(request).await.expect("accepted");
    let (id, size) = (array.self_id.to_string(), array.progress.expect("an array").size);
    assert_eq!(size, 2);
    let ended = jobs.wait(&id).await.expect("ended");
    let progress = ended.progress.expect("an array");
    assert_eq!((ended.status, ended.reason), (Status::Failed, Some(Reason::Element)));
    assert_eq!((progress.finished, progress.failed, progress.ended()), (1, 1, 2));
    let mut query = ListQuery::default();
    query.require("label", &format!("array={id}")).expect("a condition");
    let listed = jobs.list_status(&query).await.expect("a list").jobs;
    let element = listed[0].element.as_ref().expect("an element");
    assert_eq!(
        (element.array.as_str(), element.index, &element.values["value"]),
        (id.as_str(), 2, &"3".into())
    );
    std::fs::write(home.path().join("mended"), "").expect("written");
    let again = RestartRequest {
        jobs: vec![id.clone()],
        submit_key: "k".to_owned(),
        failed: true,
        ..RestartRequest::default()
    };
    jobs.restart_with(again).await.expect("begun");
    assert_eq!(jobs.wait(&id).await.expect("ended").status, Status::Finished);
    jobs.remove(&id).await.expect("removed");
    assert!(jobs.list_status(&ListQuery::default()).await.expect("a list").jobs.is_empty());

    let bad = ArrayRequest::new(spec(home, Command::argv(["echo", "{x}"])), elements);
    assert_eq!(kind(jobs.submit_array(bad).await), ProblemKind::Usage);
}

#[test]
fn a_group_that_somebody_still_needs_stays_and_one_that_is_gone_is_missed() {
    let home = Home::new();
    home.ok(["group", "set", "night", "--slots", "2"]);
    home.ok(["array", "--id", "many", "--group", "night", "--range", "1-2", "--wait", "--", "true"]);
    home.ok(["schedule", "add", "late", "--every", "1d", "--group", "night", "--", "true"]);
    let said = home.nodejobs(["group", "rm", "night"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.stderr.contains("jobs of schedule 'late' are in group 'night'"), "{said:?}");
    home.ok(["schedule", "rm", "late"]);
    home.ok(["group", "rm", "night"]);
    for command in [&["retry", "many"][..], &["restart", "many"], &["restart", "many.1"]] {
        let said = home.nodejobs(command);
        assert_eq!(said.code, 2, "{command:?}: {said:?}");
        assert!(said.stderr.contains("there is no group 'night'"), "{said:?}");
    }
    home.ok(["group", "set", "night"]);
    home.ok(["run", "--id", "first", "--wait", "--", "true"]);
    home.ok(["array", "--id", "again", "--after", "first", "--range", "1-2", "--wait", "--", "true"]);
    home.ok(["retry", "again"]);
    home.nodejobs(["wait", "again"]);
    let record = home.record("again");
    assert_eq!((&record["attempt"], &record["after"]), (&json!(2), &Value::Null), "{record}");
    // The key under which a job was submitted decided that submit.
    home.ok(["run", "--id", "only", "--unique", "k", "--delay", "1h", "--", "true"]);
    let said = home.nodejobs(["edit", "only", "--label", "unique=other"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert_eq!(home.record("only")["labels"]["unique"], "k");
}
