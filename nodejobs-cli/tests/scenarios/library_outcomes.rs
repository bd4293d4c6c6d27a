//! The scenarios of one job through the library, as the owner of a directory and connected to one: what ends it is what is
//! told, and who is meant is who is met.

use std::path::Path;
use std::time::Duration;

use nodejobs::api::{ListQuery, LogQuery, ProblemKind, StopRequest, StopResult};
use nodejobs::spec::{Command, JobSpec, Restart};
use nodejobs::{Jobs, Reason, Status};
use rustix::process::Signal;

use crate::library::{in_both_modes, kind, run_as, script, spec, with_id};
use crate::support::{Home, eventually, is_alive, lines, signal};

in_both_modes![
    the_wait_status_alone_decides,
    what_is_not_executed_is_told_with_its_path,
    one_id_is_one_living_job_and_later_attempts_are_kept,
    racing_submits_of_one_id_have_one_winner,
    stops_are_obeyed_or_enforced,
    jobs_are_found_by_what_is_known_of_them,
    names_and_beginnings_mean_one_job_or_say_which,
    output_is_the_bytes_and_the_surroundings_are_the_callers,
    a_service_comes_back_until_it_is_stopped,
];

/// N1 to N4 and N7
async fn the_wait_status_alone_decides(home: &Home, jobs: &Jobs) {
    for (text, status, reason, code, signal) in [
        ("true", Status::Finished, None, Some(0), None),
        ("sleep 0.1; exit 3", Status::Failed, Some(Reason::Exit), Some(3), None),
        ("echo x >&2", Status::Finished, None, Some(0), None),
        ("echo x >&2; exit 3", Status::Failed, Some(Reason::Exit), Some(3), None),
        ("kill -SEGV $$", Status::Failed, Some(Reason::Signal), None, Some(11)),
        ("kill -9 $$", Status::Failed, Some(Reason::Signal), None, Some(9)),
    ] {
        let ran = jobs.run_and_wait(script(home, text)).await.expect("ran").record;
        assert_eq!((ran.status, ran.reason), (status, reason), "{text}");
        assert_eq!((ran.exit_code, ran.signal), (code, signal), "{text}");
        assert!(ran.last_pid.is_some() && ran.ended_at >= ran.started_at, "{text}");
    }
}

/// N5
async fn what_is_not_executed_is_told_with_its_path(home: &Home, jobs: &Jobs) {
    std::fs::write(home.path().join("plain"), "no program").expect("written");
    let plain = home.path().join("plain").display().to_string();
    let nowhere = JobSpec::new(Command::argv(["true"]), "/no/such/directory");
    for (spec, reason, path) in [
        (spec(home, Command::argv(["no-such-bin"])), Reason::Exec, "'no-such-bin'"),
        (spec(home, Command::argv([plain.as_str()])), Reason::Exec, plain.as_str()),
        (nowhere, Reason::Cwd, "'/no/such/directory'"),
    ] {
        let ran = jobs.run_and_wait(spec).await.expect("a job all the same");
        assert_eq!((ran.record.status, ran.record.reason), (Status::FailedStart, Some(reason)));
        assert!(ran.record.detail.as_deref().is_some_and(|detail| detail.contains(path)), "{:?}", ran.record);
        assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "nothing of ours is in its logs");
    }
}

/// N13, N15, N19 and N27
async fn one_id_is_one_living_job_and_later_attempts_are_kept(home: &Home, jobs: &Jobs) {
    let first = jobs.run(with_id("a", script(home, "echo one; sleep 1000"))).await.expect("run");
    let refused = jobs.run(with_id("a", script(home, "echo two"))).await;
    assert_eq!(kind(refused), ProblemKind::Conflict);
    let stopped = jobs.stop("a").await.expect("stopped");
    assert_eq!((stopped.attempt, stopped.created_at), (1, first.created_at));
    assert_eq!(jobs.stop("a").await.expect("left as it is"), stopped);
    let again = jobs.run_and_wait(with_id("a", script(home, "echo two"))).await.expect("ran");
    assert_eq!((again.record.attempt, again.stdout.as_slice()), (2, &b"two\n"[..]));
    let history = jobs.history("a").await.expect("attempts");
    assert_eq!(
        history.iter().map(|attempt| attempt.status).collect::<Vec<_>>(),
        [Status::Stopped, Status::Finished]
    );
    let earlier = LogQuery { attempt: Some(1), ..LogQuery::default() };
    assert!(
        ["one\n", ""]
            .map(|text| text.as_bytes().to_vec())
            .contains(&jobs.job_logs("a", &earlier).await.expect("logs").stdout)
    );
    for unknown in ["nobody", "../x", "ü"] {
        assert!(
            matches!(kind(jobs.stop(unknown).await), ProblemKind::NotFound | ProblemKind::Usage),
            "{unknown}"
        );
    }
    for bad in ["../x", "a/b", "", &"x".repeat(300), "a\0b", "ü"] {
        assert!(script(home, "true").id(bad).is_err(), "{bad:?}");
    }
}

/// N14
async fn racing_submits_of_one_id_have_one_winner(home: &Home, jobs: &Jobs) {
    let submit = || jobs.run(with_id("a", script(home, "echo run >> ran; sleep 1000")));
    let (one, two, three, four) = tokio::join!(submit(), submit(), submit(), submit());
    let (won, lost): (Vec<_>, Vec<_>) = [one, two, three, four].into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 3));
    assert!(lost.into_iter().all(|refused| kind(refused) == ProblemKind::Conflict));
    eventually("it runs", || (!lines(&home.path().join("ran")).is_empty()).then_some(()));
    jobs.stop("a").await.expect("stopped");
    assert_eq!(lines(&home.path().join("ran")).len(), 1);
}

/// N16, N17, P5, P6 and C12
async fn stops_are_obeyed_or_enforced(home: &Home, jobs: &Jobs) {
    let deaf = "trap '' TERM; for n in 1 2 3 4; do (trap '' TERM; sleep 1000) & done; echo up; wait; wait";
    for number in 0..6 {
        let text = if number % 2 == 0 { deaf } else { "exec sleep 1000" };
        jobs.run(with_id(&format!("j{number}"), script(home, text))).await.expect("run");
    }
    for number in [0, 2, 4] {
        let mut output = jobs.follow(&format!("j{number}"), &Default::default()).await.expect("followed");
        output.recv().await.expect("it is deaf by now");
    }
    let forced = StopRequest { jobs: vec!["j0".into()], force: true, ..StopRequest::default() };
    match &jobs.stop_with(forced).await.expect("an answer").results[..] {
        [StopResult::Done { record, already_ended: false, .. }] => {
            assert_eq!((record.status, record.signal), (Status::Stopped, Some(9)));
        }
        other => panic!("{other:?}"),
    }
    let all = StopRequest { all: true, grace_ms: Some(500), ..StopRequest::default() };
    let (answer, asked) = tokio::join!(jobs.stop_with(all), jobs.get_status("j2"));
    // Whoever asks meanwhile is answered, whatever the stop has come to.
    assert!(asked.is_ok());
    let results = answer.expect("an answer").results;
    assert_eq!(results.len(), 5);
    for result in results {
        let StopResult::Done { record, .. } = result else { panic!("{result:?}") };
        let was_deaf = ["j2", "j4"].contains(&record.self_id.as_str());
        assert_eq!((record.status, record.signal), (Status::Stopped, Some(if was_deaf { 9 } else { 15 })));
    }
    assert_eq!(home.job_processes(), []);
}

/// N22
async fn jobs_are_found_by_what_is_known_of_them(home: &Home, jobs: &Jobs) {
    let ok = jobs.run_and_wait(with_id("ok", script(home, "true"))).await.expect("ran").record;
    let bad = jobs
        .run_and_wait(with_id("bad", script(home, "exit 7").name("x").label("k", "v")))
        .await
        .expect("ran")
        .record;
    let found = async |key: &str, value: &str| {
        let mut query = ListQuery::default();
        query.require(key, value).expect("a condition");
        let page = jobs.list_status(&query).await.expect("a page");
        page.jobs.into_iter().map(|job| job.self_id.to_string()).collect::<Vec<_>>()
    };
    for (key, value, ids) in [
        ("self_id", "ok", &["ok"][..]),
        ("status", "failed", &["bad"]),
        ("exit_code", "7", &["bad"]),
        ("name", "x", &["bad"]),
        ("label", "k=v", &["bad"]),
        ("cwd", &ok.cwd.to_string(), &["bad", "ok"]),
        ("dirname", &ok.dirname.to_string(), &["bad", "ok"]),
        ("logdir", &ok.logdir.to_string(), &["bad", "ok"]),
        ("logfile", &bad.logfile.to_string(), &["bad"]),
        ("last_pid", &ok.last_pid.expect("a pid").to_string(), &["ok"]),
        ("last_update_until", &ok.created_at.to_string(), &[]),
    ] {
        assert_eq!(found(key, value).await, ids, "{key}={value}");
    }
    let unknown = ListQuery::default().require("colour", "red").expect_err("no such filter").to_string();
    assert!(unknown.contains("last_update_from"), "{unknown}");
}

/// C13
async fn names_and_beginnings_mean_one_job_or_say_which(home: &Home, jobs: &Jobs) {
    for id in ["web-1", "web-2"] {
        jobs.run_and_wait(with_id(id, script(home, "true").name("server"))).await.expect("ran");
    }
    for reference in ["server", "web"] {
        let error = jobs.get_status(reference).await.expect_err("two of them");
        assert_eq!(error.kind(), ProblemKind::Ambiguous);
        let ids: Vec<_> = error.candidates().iter().map(|candidate| candidate.id.as_str()).collect();
        assert_eq!(ids, ["web-2", "web-1"]);
    }
    jobs.remove("web-2").await.expect("removed");
    assert_eq!(jobs.get_status("server").await.expect("one is left").self_id.as_str(), "web-1");
}

/// N6, N23, N29, N30 and C16
async fn output_is_the_bytes_and_the_surroundings_are_the_callers(home: &Home, jobs: &Jobs) {
    let run = async |spec: JobSpec| jobs.run_and_wait(spec).await.expect("ran");
    assert_eq!(run(script(home, r"printf '\377\376\000'")).await.stdout, [0xff, 0xfe, 0]);
    assert_eq!(run(script(home, "X=5; echo \"a $X\" | tr a b")).await.stdout, b"b 5\n");
    let words = Command::words(r#"printf '<%s>' "a\"b" '' c"#).expect("words");
    assert_eq!(run(spec(home, words)).await.stdout, b"<a\"b><><c>");
    let seen = run(with_id("env", script(home, "echo $FOO $JOB_ID").env("FOO", "bar"))).await;
    assert_eq!(seen.stdout, b"bar env\n");
    let logfile = seen.record.logfile.to_string();
    assert!(Path::new(&logfile).is_absolute(), "found again from anywhere: {logfile}");
    assert_eq!(std::fs::read(&logfile).expect("a log"), b"bar env\n");
}

/// C1 and C2
async fn a_service_comes_back_until_it_is_stopped(home: &Home, jobs: &Jobs) {
    let failing = script(home, "echo run >> failed; exit 1").restart(Restart::OnFailure).max_restarts(2);
    let ran = jobs.run_and_wait(failing.restart_delay(Duration::from_millis(50))).await.expect("ran").record;
    assert_eq!((ran.status, ran.restarts, ran.attempt), (Status::Failed, 2, 3));
    assert_eq!(lines(&home.path().join("failed")).len(), 3);

    let service = script(home, "exec sleep 1000").restart(Restart::Always).restart_delay(Duration::ZERO);
    let id = jobs.run(with_id("web", service)).await.expect("run").self_id;
    let pid = async |attempt| loop {
        let record = jobs.get_status(id.as_str()).await.expect("a record");
        if (record.attempt, record.status) == (attempt, Status::Running) {
            break record.last_pid.expect("a pid");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let first = pid(1).await;
    signal(first, Signal::KILL);
    let second = pid(2).await;
    assert!(second != first && is_alive(second));
    assert_eq!(jobs.stop("web").await.expect("stopped").status, Status::Stopped);
    assert!(!is_alive(second));
}
