//! Control of jobs through the library, as the owner of a directory and connected to one.

use std::time::{Duration, Instant};

use nodejobs::api::{LogQuery, ProblemKind, RestartRequest, WaitRequest};
use nodejobs::record::JobRecord;
use nodejobs::signal::Signal;
use nodejobs::spec::{Command, JobSpec, Output, Policy, Start, Stdin};
use nodejobs::{JobId, Jobs, Reason, Status, Timestamp};

use crate::library::{in_both_modes, kind, run_as, script, spec, with_id};
use crate::support::{Home, is_alive, lines};

in_both_modes![
    a_job_reads_what_it_is_given,
    a_job_that_takes_too_long_has_failed,
    jobs_are_restarted_and_their_attempts_stay,
    jobs_that_have_ended_are_removed,
    jobs_wait_for_their_time,
    output_goes_where_it_is_wanted,
    jobs_are_paused_and_resumed,
    waits_end_with_the_first_or_with_their_time,
    policies_say_how_a_job_ends,
    specs_that_cannot_be_run_are_refused,
    a_dropped_request_is_carried_out,
];

async fn ended(jobs: &Jobs, spec: JobSpec) -> JobRecord {
    let job = jobs.run(spec).await.expect("run");
    jobs.wait(job.self_id.as_str()).await.expect("ended")
}

async fn stdout(jobs: &Jobs, id: &str, attempt: Option<u32>) -> Vec<u8> {
    jobs.job_logs(id, &LogQuery { attempt, ..LogQuery::default() }).await.expect("logs").stdout
}

async fn running(jobs: &Jobs, id: &str) -> JobRecord {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let record = jobs.get_status(id).await.expect("a record");
        if record.status == Status::Running {
            return record;
        }
        assert!(Instant::now() < deadline, "{record:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// P2
async fn a_job_reads_what_it_is_given(home: &Home, jobs: &Jobs) {
    let whole: Vec<u8> = (0..16 << 20).map(|n: u32| (n % 251) as u8).collect();
    std::fs::write(home.path().join("whole"), &whole).expect("written");
    let reads = |id: &str, stdin: Stdin, words: &[&str]| {
        let mut spec = with_id(id, spec(home, Command::argv(words.iter().copied())));
        spec.stdin = stdin;
        spec
    };
    for input in [&b"abc"[..], b"", b"\xff\0\n"] {
        let record = ended(jobs, reads("a", Stdin::Bytes(input.to_vec().into()), &["cat"])).await;
        assert_eq!((record.status, stdout(jobs, "a", None).await), (Status::Finished, input.to_vec()));
    }
    let record = ended(jobs, reads("b", Stdin::Bytes(whole.clone().into()), &["cmp", "-", "whole"])).await;
    assert_eq!(record.exit_code, Some(0), "{record:?}");
    let more = [&whole[..], b"x"].concat();
    assert_eq!(kind(jobs.run(reads("c", Stdin::Bytes(more.into()), &["cat"])).await), ProblemKind::Usage);
    let path = home.path().join("whole");
    let file = |path: &std::path::Path| Stdin::File(path.to_str().expect("UTF-8").into());
    let record = ended(jobs, reads("d", file(&path), &["cmp", "-", "whole"])).await;
    assert_eq!(record.exit_code, Some(0), "{record:?}");
    let record = ended(jobs, reads("e", file(&home.path().join("none")), &["cat"])).await;
    assert_eq!((record.status, record.reason), (Status::FailedStart, Some(Reason::Exec)));
    assert!(record.detail.is_some_and(|detail| detail.contains("none")));
    // Nobody writes to it, and nobody waits for that.
    rustix::fs::mkfifoat(rustix::fs::CWD, home.path().join("fifo"), rustix::fs::Mode::RWXU).expect("a pipe");
    let record = ended(jobs, reads("f", file(&home.path().join("fifo")), &["cat"])).await;
    assert_eq!(record.status, Status::Finished, "{record:?}");
    assert_eq!(
        kind(jobs.run(reads("g", Stdin::File("relative".into()), &["cat"])).await),
        ProblemKind::Usage
    );
}

/// P3
async fn a_job_that_takes_too_long_has_failed(home: &Home, jobs: &Jobs) {
    let mut spec = script(home, "echo begun; trap '' TERM; sleep 1000 & while :; do sleep 0.05; done");
    spec.policy = Policy { timeout_ms: Some(300), grace_ms: 200, ..Policy::default() };
    let record = ended(jobs, with_id("a", spec)).await;
    assert_eq!((record.status, record.reason), (Status::Failed, Some(Reason::Timeout)));
    assert_eq!(record.signal, Some(9), "{record:?}");
    assert_eq!(stdout(jobs, "a", None).await, b"begun\n");
    assert_eq!(home.job_processes(), []);
}

/// C4
async fn jobs_are_restarted_and_their_attempts_stay(home: &Home, jobs: &Jobs) {
    let text = "echo $NODEJOBS_ATTEMPT; [ $NODEJOBS_ATTEMPT -gt 2 ] || exec sleep 1000; exit 6";
    jobs.run(with_id("a", script(home, text))).await.expect("run");
    let first = running(jobs, "a").await;
    let second = jobs.restart("a").await.expect("restarted");
    assert_eq!((second.attempt, second.seq), (2, first.seq));
    assert_ne!(running(jobs, "a").await.last_pid, first.last_pid);
    jobs.stop("a").await.expect("stopped");
    let key = |key: &str| RestartRequest {
        jobs: vec!["a".to_owned()],
        submit_key: key.to_owned(),
        ..RestartRequest::default()
    };
    // Sent twice, as after a broken connection, it is one attempt.
    for _ in 0..2 {
        let answer = jobs.restart_with(key("once")).await.expect("an answer");
        let record = serde_json::to_value(&answer.results[0]).expect("JSON");
        assert_eq!(record["record"]["attempt"], 3, "{record}");
    }
    assert_eq!(jobs.wait("a").await.expect("ended").exit_code, Some(6));
    let history = jobs.history("a").await.expect("attempts");
    let all: Vec<_> = history.iter().map(|record| (record.attempt, record.status)).collect();
    assert_eq!(all, [(1, Status::Stopped), (2, Status::Stopped), (3, Status::Failed)]);
    assert_eq!(stdout(jobs, "a", Some(3)).await, b"3\n");
    assert_eq!(kind(jobs.restart("nobody").await), ProblemKind::NotFound);
    assert_eq!(kind(jobs.history("nobody").await), ProblemKind::NotFound);
}

async fn jobs_that_have_ended_are_removed(home: &Home, jobs: &Jobs) {
    jobs.run(with_id("a", script(home, "echo old; exec sleep 1000"))).await.expect("run");
    running(jobs, "a").await;
    assert_eq!(kind(jobs.remove("a").await), ProblemKind::Conflict);
    assert_eq!(kind(jobs.remove("nobody").await), ProblemKind::NotFound);
    let stopped = jobs.stop("a").await.expect("stopped");
    let removed = jobs.remove("a").await.expect("removed");
    assert_eq!((removed.status, removed.seq), (Status::Stopped, stopped.seq));
    assert_eq!(kind(jobs.get_status("a").await), ProblemKind::NotFound);
    let record = ended(jobs, with_id("a", script(home, "echo new"))).await;
    assert_eq!((record.attempt, record.log_bytes), (1, Some(4)));
    assert!(record.seq > removed.seq, "a place in the order is given once");
    assert_eq!(stdout(jobs, "a", None).await, b"new\n");
}

async fn jobs_wait_for_their_time(home: &Home, jobs: &Jobs) {
    let mut soon = with_id("soon", script(home, "true"));
    soon.start = Start::AfterMs(300);
    let accepted = jobs.run(soon).await.expect("run");
    assert_eq!((accepted.status, accepted.waiting_on.as_deref()), (Status::Queued, Some("time")));
    let record = jobs.wait("soon").await.expect("ended");
    let started = record.started_at.expect("a time").as_millis();
    assert!(started - accepted.created_at.as_millis() >= 300, "{record:?}");
    // What has passed on the way is due.
    let mut past = with_id("past", script(home, "true"));
    past.start = Start::At(Timestamp::from_millis(record.last_update.as_millis() - 1_000));
    assert_eq!(ended(jobs, past).await.status, Status::Finished);
    let mut later = with_id("later", script(home, "true"));
    later.start = Start::At(Timestamp::from_millis(i64::MAX));
    jobs.run(later).await.expect("run");
    let record = jobs.stop("later").await.expect("stopped");
    assert_eq!((record.status, record.reason), (Status::Cancelled, Some(Reason::User)));
    let mut eager = with_id("eager", script(home, "true"));
    eager.start = Start::AfterMs(u64::MAX);
    jobs.run(eager).await.expect("run");
    assert_eq!(jobs.restart("eager").await.expect("started").attempt, 1);
    assert_eq!(jobs.wait("eager").await.expect("ended").status, Status::Finished);
}

async fn output_goes_where_it_is_wanted(home: &Home, jobs: &Jobs) {
    let log = home.path().join("dir/log");
    let to_file = |merge| Output {
        logdir: Some(home.path().join("dir").to_str().expect("UTF-8").into()),
        logfile: Some("log".into()),
        merge,
    };
    for id in ["a", "b"] {
        let mut spec = with_id(id, script(home, "echo $JOB_ID; echo err >&2; echo end"));
        spec.output = to_file(true);
        ended(jobs, spec).await;
    }
    assert_eq!(lines(&log), ["a", "err", "end", "b", "err", "end"]);
    assert_eq!(stdout(jobs, "b", None).await, b"b\nerr\nend\n");
    jobs.restart("b").await.expect("restarted");
    jobs.wait("b").await.expect("ended");
    assert_eq!(stdout(jobs, "b", Some(1)).await, b"b\nerr\nend\n", "it ends where the next attempt begins");
    jobs.remove("a").await.expect("removed");
    assert_eq!(lines(&log).len(), 9, "the user's file is the user's");
}

async fn jobs_are_paused_and_resumed(home: &Home, jobs: &Jobs) {
    jobs.run(with_id("a", script(home, "while :; do echo x >> steps; sleep 0.01; done"))).await.expect("run");
    running(jobs, "a").await;
    let steps = || lines(&home.path().join("steps")).len();
    for _ in 0..2 {
        let before = steps();
        assert!(crate::support::happens(|| steps() > before));
        assert_eq!(jobs.pause("a").await.expect("paused").status, Status::Paused);
        assert!(crate::support::happens(|| home.is_halted()));
        let halted = steps();
        assert_eq!(ended(jobs, script(home, "sleep 0.1")).await.status, Status::Finished);
        assert_eq!(steps(), halted);
        assert_eq!(jobs.resume("a").await.expect("resumed").status, Status::Running);
    }
    jobs.pause("a").await.expect("paused");
    assert_eq!(jobs.stop("a").await.expect("stopped").status, Status::Stopped);
    assert_eq!(kind(jobs.pause("a").await), ProblemKind::Conflict);
    assert_eq!(kind(jobs.resume("a").await), ProblemKind::Conflict);
    assert_eq!(kind(jobs.pause("nobody").await), ProblemKind::NotFound);
}

async fn waits_end_with_the_first_or_with_their_time(home: &Home, jobs: &Jobs) {
    jobs.run(with_id("long", script(home, "exec sleep 1000"))).await.expect("run");
    jobs.run(with_id("short", script(home, "exit 3"))).await.expect("run");
    let any = WaitRequest { any: true, ..WaitRequest::all(["long", "short"]) };
    let waited = jobs.wait_for(&any).await.expect("waited");
    let ids: Vec<&str> = waited.ended.iter().map(|record| record.self_id.as_str()).collect();
    assert_eq!((ids, waited.timed_out), (vec!["short"], false));
    let began = Instant::now();
    let both = WaitRequest { timeout_ms: Some(300), ..WaitRequest::all(["long", "short"]) };
    let waited = jobs.wait_for(&both).await.expect("waited");
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!((waited.ended.len(), waited.timed_out), (1, true));
    assert_eq!(kind(jobs.wait_for(&WaitRequest::all(["short", "nobody"])).await), ProblemKind::NotFound);
    let nobody: [&str; 0] = [];
    assert_eq!(kind(jobs.wait_for(&WaitRequest::all(nobody)).await), ProblemKind::Usage);
    jobs.stop("long").await.expect("stopped");
    let waited = jobs.wait_for(&WaitRequest::all(["long", "short", "long"])).await.expect("waited");
    assert_eq!((waited.ended.len(), waited.timed_out), (2, false), "each once");
}

async fn policies_say_how_a_job_ends(home: &Home, jobs: &Jobs) {
    let mut spec = with_id("a", script(home, "exit 3"));
    spec.policy.success_codes = vec![0, 3];
    let record = ended(jobs, spec).await;
    assert_eq!((record.status, record.exit_code), (Status::Finished, Some(3)));

    let text = "trap 'exit 9' QUIT; trap '' TERM; touch ready; while :; do sleep 0.02; done";
    let mut spec = with_id("b", script(home, text));
    spec.policy.stop_signal = Signal::from_number(3).expect("SIGQUIT");
    spec.labels = [("k".to_owned(), "v".to_owned())].into();
    jobs.run(spec).await.expect("run");
    assert!(crate::support::happens(|| home.path().join("ready").exists()));
    let record = jobs.stop("b").await.expect("stopped");
    assert_eq!((record.status, record.exit_code), (Status::Stopped, Some(9)));
    assert_eq!(record.labels["k"], "v");

    let mut spec = with_id("c", script(home, "sleep 1000 & echo $! > child"));
    spec.policy.keep_children = true;
    let record = ended(jobs, spec).await;
    let child: u32 = lines(&home.path().join("child")).concat().parse().expect("a pid");
    assert!(record.detail.is_some_and(|detail| detail.contains(&format!("left running: {child} ("))));
    assert!(is_alive(child));
    crate::support::kill(child);
}

async fn specs_that_cannot_be_run_are_refused(home: &Home, jobs: &Jobs) {
    let bad: [fn(&mut JobSpec); 9] = [
        |spec| spec.policy.timeout_ms = Some(0),
        |spec| spec.policy.success_codes.clear(),
        |spec| spec.policy.success_codes = vec![256],
        |spec| spec.output.logdir = Some("relative".into()),
        |spec| spec.output.logfile = Some("relative".into()),
        |spec| spec.output.logfile = Some("/dir/".into()),
        |spec| spec.output.logfile = Some("/a\0b".into()),
        |spec| drop(spec.labels.insert("k".into(), String::new())),
        |spec| drop(spec.labels.insert("a\nb".into(), "v".into())),
    ];
    for (number, change) in bad.into_iter().enumerate() {
        let mut spec = with_id("a", script(home, "true"));
        change(&mut spec);
        assert_eq!(kind(jobs.run(spec).await), ProblemKind::Usage, "{number}");
    }
    assert_eq!(kind(jobs.get_status("a").await), ProblemKind::NotFound);
}

/// Who does not wait for the answer has asked all the same.
async fn a_dropped_request_is_carried_out(home: &Home, jobs: &Jobs) {
    jobs.run(with_id("a", script(home, "[ $NODEJOBS_ATTEMPT = 2 ] || exec sleep 1000"))).await.expect("run");
    running(jobs, "a").await;
    {
        let restart = jobs.restart("a");
        tokio::select! {
            restarted = restart => drop(restarted.expect("restarted")),
            () = async {
                while jobs.get_status("a").await.expect("a record").status == Status::Running {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            } => {}
        }
    }
    let record = jobs.wait("a").await.expect("ended");
    assert_eq!((record.status, record.attempt), (Status::Finished, 2));
    assert_eq!(record.self_id, JobId::new("a").expect("an id"));
}
