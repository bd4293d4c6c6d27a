//! Jobs that wait for others, also when the daemon is killed half way.

use crate::support::{Cue, Home, eventually, kill, lines, said, text};

/// Statuses of these jobs.
fn statuses(home: &Home, ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| text(&home.record(id), "status").to_owned()).collect()
}

fn run_after(home: &Home, id: &str, after: &[&str], script: &str) {
    let options = after.iter().flat_map(|after| ["--after", after]);
    let arguments = ["run", "--id", id].into_iter().chain(options).chain(["--shell", "--", script]);
    assert_eq!(home.ok(arguments), id);
}

#[test]
fn a_diamond_runs_from_top_to_bottom_with_the_daemon_killed_at_each_level() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let script = |id: &str| format!("echo {id} >> ran; read x < {}", cue.path());
    run_after(&home, "top", &[], &script("top"));
    run_after(&home, "left", &["top"], &script("left"));
    run_after(&home, "right", &["top"], &script("right"));
    run_after(&home, "bottom", &["left", "right"], "echo bottom >> ran");
    let record = home.record("bottom");
    assert_eq!((text(&record, "status"), text(&record, "waiting_on")), ("queued", "dependency"), "{record}");
    assert_eq!(text(&record, "detail"), "waits for 'left' (queued), 'right' (queued)");
    home.running("top");
    kill(home.daemon_pid());
    assert_eq!(
        statuses(&home, &["top", "left", "right", "bottom"]),
        ["running", "queued", "queued", "queued"]
    );
    cue.say("go");
    home.running("left");
    home.running("right");
    kill(home.daemon_pid());
    cue.say("go");
    cue.say("go");
    assert_eq!(text(&home.ended("bottom"), "status"), "finished");
    let ran = lines(&home.path().join("ran"));
    assert_eq!((ran.len(), ran[0].as_str(), ran[3].as_str()), (4, "top", "bottom"));
}

#[test]
fn a_failure_in_the_middle_cancels_what_follows_and_names_it() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    run_after(&home, "a", &[], "true");
    run_after(&home, "b", &["a"], &format!("read x < {}; exit 3", cue.path()));
    run_after(&home, "c", &["b"], "echo c >> ran");
    run_after(&home, "d", &["c"], "echo d >> ran");
    run_after(&home, "cleanup", &["b:failure"], "echo cleanup >> ran");
    run_after(&home, "report", &["c:any", "b:any"], "echo report >> ran");
    home.running("b");
    kill(home.daemon_pid());
    home.record("b");
    cue.say("go");
    assert_eq!(home.nodejobs(["wait", "d"]).code, 125, "it never started");
    let record = home.record("c");
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("cancelled", "dependency"));
    assert_eq!(text(&record, "detail"), "'b' failed, exit code 3, and was to succeed");
    let detail = home.record("d")["detail"].clone();
    assert_eq!(detail, "'c' was to succeed and was cancelled, as 'b' failed, exit code 3");
    home.ended("cleanup");
    home.ended("report");
    let mut ran = lines(&home.path().join("ran"));
    ran.sort();
    assert_eq!(ran, ["cleanup", "report"]);
    // Who comes later is cancelled too, and its record says why.
    run_after(&home, "late", &["b"], "echo late >> ran");
    assert_eq!(text(&home.ended("late"), "status"), "cancelled");
    let shown = home.ok(["status", "late"]);
    assert!(shown.contains("after:       b\n") && shown.contains("cancelled (dependency)"), "{shown}");
}

#[test]
fn whoever_wants_to_waits_until_it_is_run_again_and_it_is_not_forgotten_meanwhile() {
    let home = Home::new();
    home.nodejobs(["run", "--id", "a", "--wait", "--shell", "--", "test -e mended"]);
    home.ok(["run", "--id", "b", "--after", "a", "--if-unmet", "wait", "--", "true"]);
    home.ok(["run", "--id", "c", "--after", "b", "--", "true"]);
    kill(home.daemon_pid());
    let record = home.record("b");
    assert_eq!(text(&record, "detail"), "waits for 'a' (failed, to be run again and succeed)");
    let refused = home.nodejobs(["rm", "a"]);
    assert!(refused.code == 4 && refused.stderr.contains("job 'b' waits for job 'a'"), "{refused:?}");
    home.ok(["prune"]);
    assert_eq!(statuses(&home, &["a", "b", "c"]), ["failed", "queued", "queued"]);
    home.ok(["restart", "a"]);
    home.nodejobs(["wait", "a"]);
    assert_eq!(statuses(&home, &["a", "b", "c"]), ["failed", "queued", "queued"]);
    std::fs::write(home.path().join("mended"), "").expect("written");
    home.ok(["restart", "a"]);
    assert_eq!(text(&home.ended("c"), "status"), "finished");
    home.ok(["rm", "a", "b", "c"]);
}

#[test]
fn what_is_to_be_waited_for_is_found_by_id_beginning_name_and_group_or_refused() {
    let home = Home::new();
    home.ok(["run", "--id", "long-one", "--name", "the build", "--delay", "1h", "--", "true"]);
    home.ok(["run", "--id", "other", "--delay", "1h", "--", "true"]);
    for (id, reference) in [("x", "long-one"), ("y", "long"), ("z", "the build:any")] {
        home.ok(["run", "--id", id, "--after", reference, "--", "true"]);
        assert_eq!(home.record(id)["after"]["on"][0]["id"], "long-one");
    }
    home.ok(["run", "--id", "all", "--after", "group:default:any", "--", "true"]);
    let on = home.record("all")["after"]["on"].as_array().expect("jobs").clone();
    let ids: Vec<&str> = on.iter().map(|on| text(on, "id")).collect();
    assert_eq!(ids, ["long-one", "other", "x", "y", "z"]);
    assert!(on.iter().all(|on| on["condition"] == "any"), "{on:?}");

    let refused = |arguments: &[&str], code: i32, why: &str| {
        let refused = home.nodejobs(["run", "--id", "bad"].iter().chain(arguments).chain(&["--", "true"]));
        assert!(refused.code == code && refused.stderr.contains(why), "{refused:?}");
        assert_eq!(
            (refused.text(), home.nodejobs(["status", "bad"]).code),
            (String::new(), 3),
            "it leaves nothing"
        );
    };
    refused(&["--after", "nobody"], 3, "'nobody'");
    refused(&["--after", "o", "--after", "nobody:any"], 3, "'nobody'");
    refused(&["--after", "group:night"], 3, "no group 'night'");
    refused(&["--after", "other:soon"], 2, "'soon' is not a condition");
    refused(&["--after", "other", "--after", "oth:any"], 2, "conditions success and any");
    home.ok(["run", "--id", "twin-1", "--name", "twin", "--delay", "1h", "--", "true"]);
    home.ok(["run", "--id", "twin-2", "--name", "twin", "--delay", "1h", "--", "true"]);
    refused(&["--after", "twin"], 4, "twin-1");
}

#[test]
fn circles_are_refused_and_what_waits_may_be_edited() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    home.nodejobs(["run", "--id", "a", "--wait", "--", "false"]);
    let wait = |id: &str, after: &str| {
        home.nodejobs(["run", "--id", id, "--after", after, "--if-unmet", "wait", "--", "true"])
    };
    assert_eq!(wait("b", "a").code, 0);
    assert_eq!(wait("c", "b").code, 0);
    let again = wait("a", "c");
    assert_eq!(again.code, 2, "{again:?}");
    assert!(
        again.stderr.contains("'a' waits for 'c', which waits for 'b', which waits for 'a'"),
        "{again:?}"
    );
    let own = home.nodejobs(["edit", "b", "--after", "b"]);
    assert!(own.code == 2 && own.stderr.contains("'b' waits for 'b'"), "{own:?}");
    let around = home.nodejobs(["edit", "b", "--after", "c"]);
    assert!(
        around.code == 2 && around.stderr.contains("'b' waits for 'c', which waits for 'b'"),
        "{around:?}"
    );
    assert_eq!(home.record("b")["after"]["on"][0]["id"], "a", "it is as it was");

    run_after(&home, "gate", &[], &format!("read x < {}", cue.path()));
    assert_eq!(home.ok(["edit", "c", "--after", "gate"]), "c: changed");
    kill(home.daemon_pid());
    assert_eq!(home.record("c")["after"]["on"][0]["id"], "gate");
    home.ok(["edit", "b", "--no-after"]);
    assert_eq!(text(&home.ended("b"), "status"), "finished");
    assert_eq!(text(&home.record("c"), "status"), "queued", "it does not wait for it any more");
    cue.say("go");
    assert_eq!(text(&home.ended("c"), "status"), "finished");
    let late = home.nodejobs(["edit", "c", "--no-after"]);
    assert!(late.code == 4 && late.stderr.contains("waits for nothing any more"), "{late:?}");
    assert_eq!(home.nodejobs(["edit", "c"]).code, 2);
    assert_eq!(home.nodejobs(["edit", "nobody", "--no-after"]).code, 3);
}

#[test]
fn restart_has_a_waiting_job_wait_no_longer_and_a_stop_takes_those_along_that_wait_for_it() {
    let home = Home::new();
    home.ok(["run", "--id", "never", "--delay", "1h", "--", "true"]);
    home.ok(["run", "--id", "b", "--after", "never", "--", "true"]);
    home.ok(["run", "--id", "c", "--after", "never", "--", "true"]);
    home.ok(["restart", "b"]);
    assert_eq!(text(&home.ended("b"), "status"), "finished");
    home.ok(["stop", "never"]);
    assert_eq!(home.ended("c")["detail"], "'never' was cancelled, and was to succeed");
}

/// Its end may be decided and not yet written when it is named.
#[test]
fn who_waits_for_what_ends_at_that_very_instant_does_not_wait_for_ever() {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    let each = "$NODEJOBS run --id a$n -- true && $NODEJOBS run --id b$n --after a$n -- true || exit 1";
    let script = format!("for n in $(seq 60); do ({each}) & done; wait");
    assert_eq!(said(&mut home.shell(&script)).code, 0);
    for number in 1..=60 {
        assert_eq!(text(&home.ended(&format!("b{number}")), "status"), "finished", "b{number}");
    }
}

/// Submits them as one batch, by the library.
fn batch(home: &Home, specs: &[nodejobs::spec::JobSpec]) {
    home.ok(["daemon", "start"]);
    let client = nodejobs::client::Client::connect(home.data_dir()).expect("connected");
    for result in client.submit_batch(specs).expect("an answer") {
        assert!(matches!(result, nodejobs::api::BatchResult::Id(_)), "{result:?}");
    }
}

fn spec(id: &str, words: &[&str]) -> nodejobs::spec::JobSpec {
    let command = nodejobs::spec::Command::argv(words.iter().copied());
    nodejobs::spec::JobSpec::new(command, "/").id(id).expect("an id").env("PATH", "/bin:/usr/bin")
}

#[test]
fn a_chain_of_ten_thousand_is_cancelled_in_one_commit_under_the_next_daemon() {
    use nodejobs::spec::Condition;
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let first = spec("c0", &["sh", "-c", &format!("read x < {}; exit 1", cue.path())]);
    let others = (1..10_000).map(|number| {
        spec(&format!("c{number}"), &["true"]).after(format!("c{}", number - 1), Condition::Success)
    });
    let specs: Vec<_> = std::iter::once(first).chain(others).collect();
    batch(&home, &specs);
    assert_eq!(home.daemon()["jobs"]["queued"], 9_999);
    kill(home.daemon_pid());
    home.ok(["daemon", "start"]);
    assert_eq!(home.daemon()["jobs"]["queued"], 9_999);
    cue.say("go");
    let last = home.ended("c9999");
    assert_eq!(last["detail"], "'c9998' was to succeed and was cancelled, as 'c0' failed, exit code 1");
    let jobs = &home.daemon()["jobs"];
    assert_eq!((&jobs["cancelled"], &jobs["failed"]), (&9_999.into(), &1.into()), "{jobs}");
}

#[test]
fn one_that_waits_for_five_thousand_starts_after_the_last_of_them() {
    use nodejobs::spec::Condition;
    let home = Home::new();
    let names: Vec<String> = (0..5_000).map(|number| format!("f{number}")).collect();
    let mut specs: Vec<_> =
        names.iter().map(|name| spec(name, &["true"]).after("gate", Condition::Success)).collect();
    let cue = Cue::new(&home, "cue");
    specs.insert(0, spec("gate", &["sh", "-c", &format!("read x < {}", cue.path())]));
    let all = names.iter().fold(spec("all", &["true"]), |spec, name| spec.after(name, Condition::Success));
    specs.push(all);
    batch(&home, &specs);
    assert_eq!(home.daemon()["jobs"]["queued"], 5_001);
    cue.say("go");
    // Half way, whenever that is.
    eventually("some have ended", || (home.daemon()["jobs"]["finished"].as_u64() > Some(500)).then_some(()));
    kill(home.daemon_pid());
    let all = home.ended("all");
    assert_eq!(home.daemon()["jobs"]["finished"], 5_002);
    let others = home.records();
    let ends = others.iter().filter(|record| text(record, "self_id") != "all");
    let last = ends.map(|record| crate::support::millis(record, "ended_at")).max().expect("some");
    assert!(crate::support::millis(&all, "started_at") >= last, "{all}");
}

/// The same by the library that owns the directory.
#[test]
fn a_program_that_owns_the_directory_has_all_of_it() {
    use nodejobs::spec::{AfterRequest, Condition, Retry, Unmet};
    let home = Home::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options =
            nodejobs::OpenOptions { keeper: Some(crate::support::KEEPER.into()), ..Default::default() };
        let jobs = nodejobs::Jobs::open_with(home.data_dir(), options).await.expect("opened");
        let tried = spec("a", &["false"]).retry(Retry { retries: 1, delay_ms: 1, ..Retry::default() });
        jobs.run(tried.unique("k")).await.expect("accepted");
        let existing = jobs.run(spec("x", &["false"]).unique("k")).await.expect("answered");
        assert_eq!((existing.self_id.as_str(), existing.existing), ("a", true));
        jobs.run(spec("b", &["true"]).after("a", Condition::Success).if_unmet(Unmet::Wait))
            .await
            .expect("accepted");
        let ended = jobs.wait("a").await.expect("ended");
        assert_eq!((ended.attempt, ended.restarts), (2, 1));
        let nobody =
            jobs.run(spec("c", &["true"]).after("nobody", Condition::Any)).await.expect_err("refused");
        assert_eq!(nobody.kind(), nodejobs::api::ProblemKind::NotFound);
        jobs.set_dependencies("b", &AfterRequest::default()).await.expect("changed");
        assert_eq!(jobs.wait("b").await.expect("ended").exit_code, Some(0));
        jobs.close().await;
    });
    assert_eq!(said(&mut home.command(["ls"])).code, 0);
}

#[test]
fn the_whole_chain_of_those_who_wait_is_explained() {
    let home = Home::new();
    home.ok(["group", "set", "one", "--slots", "1"]);
    home.ok(["run", "--id", "first", "--group", "one", "--", "sleep", "1000"]);
    home.ok(["run", "--id", "second", "--group", "one", "--", "true"]);
    home.ok(["run", "--id", "third", "--after", "second", "--", "true"]);
    home.ok(["run", "--id", "fourth", "--after", "third:any", "--after", "first:failure", "--", "true"]);
    let why = home.ok(["explain", "fourth"]);
    let lines: Vec<&str> = why.lines().collect();
    assert_eq!(
        lines,
        [
            "fourth waits for other jobs",
            "  'first' has to fail",
            "  'third' has to end",
            "first is running and waits for nothing",
            "third waits for other jobs",
            "  'second' has to succeed",
            "second waits for a place: it is 1 of 1 in group 'one', with priority 0",
            "  1 of 1 slots of group 'one' are taken, and it takes 1",
            "    held by first",
        ]
    );
    home.ok(["stop", "first"]);
    home.nodejobs(["wait", "fourth"]);
    assert_eq!(home.ok(["explain", "fourth"]), "fourth is finished and waits for nothing");
}
