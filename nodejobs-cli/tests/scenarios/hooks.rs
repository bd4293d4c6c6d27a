//! `[[hooks]]`: commands that are run on events, whatever becomes of them and of the daemon.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Cue, Home, eventually, is_alive, kill, lines, signal, text};

fn write(home: &Home, text: &str) {
    std::fs::create_dir_all(home.data_dir()).expect("a directory");
    std::fs::write(home.data_dir().join("config.toml"), text).expect("written");
}

fn hook(on: &str, script: &str, more: &str) -> String {
    format!("[[hooks]]\non = {on}\nshell = '''{script}'''\n{more}\n")
}

fn log(home: &Home) -> String {
    std::fs::read_to_string(home.data_dir().join("daemon.log")).unwrap_or_default()
}

/// How often each line is in a file.
fn counts(home: &Home, name: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    lines(&home.path().join(name)).into_iter().for_each(|line| *counts.entry(line).or_default() += 1);
    counts
}

fn once(ids: &[&str]) -> BTreeMap<String, usize> {
    ids.iter().map(|id| ((*id).to_owned(), 1)).collect()
}

#[test]
fn a_hook_reads_the_record_and_knows_the_event() {
    let home = Home::new();
    let (dir, seen) = (home.path().display(), home.path().join("seen"));
    let script = format!(
        "cat > {dir}/record.$JOB_ID; echo $JOB_ID $NODEJOBS_ATTEMPT $NODEJOBS_EVENT $NODEJOBS_REASON $OWN >> {dir}/seen"
    );
    let program = format!("[[hooks]]\non = \"running\"\nrun = [\"touch\", \"{dir}/started with spaces\"]\n");
    let env = "env = { OWN = \"mine\", JOB_ID = \"not this\" }";
    write(&home, &(hook("[\"finished\", \"failed\"]", &script, env) + &program));
    home.nodejobs(["run", "--id", "good", "--wait", "--", "true"]);
    home.nodejobs(["run", "--id", "bad", "--name", "n", "--wait", "exit 3"]);
    eventually("both were told", || (lines(&seen).len() == 2).then_some(()));
    home.ready("started with spaces");
    assert_eq!(counts(&home, "seen"), once(&["good 1 finished mine", "bad 1 failed exit mine"]));
    let record = std::fs::read(home.path().join("record.bad")).expect("a record");
    let mut record: Value = serde_json::from_slice(&record).expect("JSON");
    assert_eq!((text(&record, "name"), record["exit_code"].as_i64()), ("n", Some(3)));
    let mut now = home.record("bad");
    [&mut record, &mut now].into_iter().for_each(|record| record["log_bytes"] = Value::Null);
    assert_eq!(record, now, "the record as `status` has it");
    assert!(!log(&home).contains("hook"), "{}", log(&home));
}

#[test]
fn a_hook_that_hangs_is_killed_with_its_tree_and_holds_nobody_up() {
    let home = Home::new();
    let dir = home.path().display();
    let script = format!(
        "echo $$ >> {dir}/pids; setsid sh -c 'echo $$ >> {dir}/pids; exec sleep 1000' & \
         env -i sh -c 'echo $$ >> {dir}/pids; exec sleep 1000' & echo stuck >&2; sleep 1000"
    );
    write(&home, &hook("\"ended\"", &script, "timeout = \"3s\""));
    for number in 0..6 {
        let said = home.nodejobs(["run", "--id", &format!("j{number}"), "--wait", "--", "true"]);
        assert_eq!(said.code, 0, "{said:?}");
    }
    // More than run at a time, so some wait for others to be killed.
    let killed = || log(&home).matches("killed, since it did not end within 3s; it said: stuck").count();
    eventually("all six were killed", || (killed() == 6).then_some(()));
    let pids = lines(&home.path().join("pids"));
    assert_eq!(pids.len(), 18, "{pids:?}");
    for pid in pids {
        let pid = pid.parse().expect("a pid");
        assert!(!is_alive(pid), "{pid} is left of a hook");
    }
    assert!(log(&home).contains("for 'j3', which is finished"), "{}", log(&home));
}

#[test]
fn a_hook_that_fails_is_told_and_not_run_again() {
    let home = Home::new();
    let dir = home.path().display();
    let fails = format!("echo $JOB_ID >> {dir}/seen; echo no luck >&2; echo at all >&2; exit 3");
    let missing = "[[hooks]]\non = [\"finished\"]\nrun = [\"no-such-program\"]\n";
    write(&home, &(hook("[\"finished\"]", &fails, "") + missing));
    home.ok(["run", "--id", "a", "--wait", "--", "true"]);
    let expected = [
        "for 'a', which is finished: exit code 3; it said: no luck / at all",
        "hook 2 (no-such-program) for 'a', which is finished: it cannot be started",
    ];
    eventually("both are told", || {
        expected.iter().all(|expected| log(&home).contains(expected)).then_some(())
    });
    home.ok(["daemon", "restart"]);
    home.ok(["run", "--id", "b", "--wait", "--", "true"]);
    eventually("the next one is run", || counts(&home, "seen").contains_key("b").then_some(()));
    assert_eq!(counts(&home, "seen"), once(&["a", "b"]));
}

#[test]
fn many_quick_jobs_have_their_hooks_each_once() {
    let home = Home::new();
    write(&home, &hook("[\"failed_start\"]", &format!("echo $JOB_ID >> {}/seen", home.path().display()), ""));
    home.ok(["daemon", "start"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut ids: Vec<String> = runtime.block_on(async {
        let jobs = nodejobs::Jobs::open(home.data_dir()).await.expect("connected");
        let spec = || nodejobs::spec::JobSpec::new(nodejobs::spec::Command::argv(["/no/such/program"]), "/");
        let ids = jobs.run_batch((0..1000).map(|_| spec()).collect()).await.expect("a batch");
        ids.into_iter().map(|id| id.expect("accepted").as_str().to_owned()).collect()
    });
    eventually("all are told", || (lines(&home.path().join("seen")).len() >= ids.len()).then_some(()));
    let mut seen = lines(&home.path().join("seen"));
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);
}

#[test]
fn no_hook_is_lost_with_a_daemon_that_is_killed_or_leaves() {
    type End = fn(&Home);
    let ends: [(&str, End); 3] = [
        ("killed", |home| kill(home.daemon_pid())),
        ("terminated", |home| {
            let pid = home.daemon_pid();
            signal(pid, Signal::TERM);
            eventually("the daemon has left", || (!is_alive(pid)).then_some(()));
        }),
        ("restarted", |home| drop(home.ok(["daemon", "restart"]))),
    ];
    for (how, end) in ends {
        let home = Home::new();
        let cue = Cue::new(&home, "cue");
        let dir = home.path().display();
        let script =
            format!("echo $JOB_ID >> {dir}/begun; read x < {}; echo $JOB_ID >> {dir}/done", cue.path());
        write(&home, &hook("[\"finished\"]", &script, ""));
        let ids = ["a", "b", "c", "d", "e", "f"];
        for id in ids {
            home.ok(["run", "--id", id, "--wait", "--", "true"]);
        }
        // Four run, and two events wait for them.
        eventually("four have begun", || (lines(&home.path().join("begun")).len() == 4).then_some(()));
        end(&home);
        home.ok(["daemon", "start"]);
        eventually("four have begun again", || (lines(&home.path().join("begun")).len() == 8).then_some(()));
        // What the first daemon had started reads no cue any more.
        for _ in ids {
            cue.say("go");
        }
        eventually("all are through", || (lines(&home.path().join("done")).len() >= 6).then_some(()));
        assert_eq!(counts(&home, "done"), once(&ids), "{how}");
        assert_eq!(counts(&home, "begun").values().sum::<usize>(), 10, "{how}: four of them twice");
    }
}

#[test]
fn hooks_begin_with_what_happens_once_they_are_there() {
    let home = Home::new();
    home.ok(["run", "--id", "before", "--wait", "--", "true"]);
    let hooks = hook("[\"finished\"]", &format!("echo $JOB_ID >> {}/seen", home.path().display()), "");
    write(&home, &hooks);
    home.ok(["daemon", "reload"]);
    let seen = |id: &str| eventually(id, || counts(&home, "seen").contains_key(id).then_some(()));
    // Reading them takes a moment, in which nothing is promised yet.
    eventually("the hooks are there", || {
        home.ok(["run", "--name", "probe", "--wait", "--", "true"]);
        (!counts(&home, "seen").is_empty()).then_some(())
    });
    home.ok(["run", "--id", "with", "--wait", "--", "true"]);
    seen("with");
    write(&home, "");
    home.ok(["daemon", "restart"]);
    home.ok(["run", "--id", "without", "--wait", "--", "true"]);
    write(&home, &hooks);
    home.ok(["daemon", "restart"]);
    home.ok(["run", "--id", "again", "--wait", "--", "true"]);
    seen("again");
    let told = counts(&home, "seen");
    assert!(!told.contains_key("before") && !told.contains_key("without"), "{told:?}");
    assert!(told.values().all(|count| *count == 1), "{told:?}");
}
