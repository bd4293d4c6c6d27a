//! The library, as the owner of a directory and connected to one: the same calls, the same answers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};

use nodejobs::api::{
    FollowEvent, FollowQuery, ListQuery, LogQuery, LogStream, ProblemKind, StopRequest, StopResult,
};
use nodejobs::record::JobRecord;
use nodejobs::spec::{Command, JobSpec};
use nodejobs::{Error, JobId, Jobs, OpenOptions, Reason, Status, Timestamp};

use crate::support::{Home, KEEPER, eventually, is_alive, lines, pid_of};

pub(crate) async fn open(data_dir: &Path) -> Jobs {
    let options = OpenOptions { keeper: Some(PathBuf::from(KEEPER)), ..OpenOptions::default() };
    Jobs::open_with(data_dir, options).await.expect("opened")
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Runs a test in a directory that this process owns, or that a daemon owns.
pub(crate) fn run_as(is_owner: bool, test: impl AsyncFnOnce(&Home, &Jobs)) {
    let home = Home::new();
    if !is_owner {
        home.ok(["daemon", "start"]);
    }
    block_on(async {
        let jobs = open(home.data_dir()).await;
        assert_eq!(jobs.is_owner(), is_owner);
        test(&home, &jobs).await;
        jobs.close().await;
    });
}

macro_rules! in_both_modes {
    ($($test:ident),* $(,)?) => {
        mod as_owner {
            $(#[test] fn $test() { super::run_as(true, super::$test); })*
        }
        mod connected {
            $(#[test] fn $test() { super::run_as(false, super::$test); })*
        }
    };
}

pub(crate) use in_both_modes;

in_both_modes![
    a_job_is_run_and_told_of,
    each_error_has_its_kind,
    what_cannot_be_executed_is_said,
    jobs_are_stopped_within_one_grace,
    output_is_followed_and_taken_up_again,
    a_batch_is_answered_in_its_order,
    the_owner_answers_others,
];

/// A job that runs a script, with what this process has.
pub(crate) fn script(home: &Home, text: &str) -> JobSpec {
    spec(home, Command::shell(text))
}

pub(crate) fn spec(home: &Home, command: Command) -> JobSpec {
    let mut spec = JobSpec::new(command, home.path().to_str().expect("UTF-8"));
    spec.context = nodejobs::capture_context().expect("a context");
    spec
}

pub(crate) fn with_id(id: &str, mut spec: JobSpec) -> JobSpec {
    spec.id = Some(JobId::new(id).expect("an id"));
    spec
}

#[track_caller]
pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ProblemKind {
    result.expect_err("an error").kind()
}

async fn a_job_is_run_and_told_of(home: &Home, jobs: &Jobs) {
    let accepted = jobs.run(with_id("a", script(home, "echo out; echo err >&2; exit 3"))).await.expect("run");
    assert_eq!((accepted.self_id.as_str(), accepted.attempt), ("a", 1));
    let ended = jobs.wait("a").await.expect("ended");
    assert_eq!((ended.status, ended.reason, ended.exit_code), (Status::Failed, Some(Reason::Exit), Some(3)));
    assert_eq!(jobs.get_status("a").await.expect("a record"), ended);
    let logs = jobs.job_logs("a", &LogQuery::default()).await.expect("logs");
    assert_eq!((logs.stdout.as_slice(), logs.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));

    let again =
        jobs.run(with_id("a", spec(home, Command::argv(["printf", r"\377\n1\n2\n"])))).await.expect("run");
    assert_eq!(again.attempt, 2);
    assert_eq!(jobs.wait("a").await.expect("ended").status, Status::Finished);
    let part = |attempt, tail, offset| LogQuery { attempt, tail, offset };
    let read = async |query| jobs.job_logs("a", &query).await.expect("logs").stdout;
    assert_eq!(read(part(None, None, None)).await, b"\xff\n1\n2\n");
    assert_eq!(read(part(None, Some(1), None)).await, b"2\n");
    assert_eq!(read(part(None, None, Some(4))).await, b"2\n");
    assert_eq!(read(part(Some(1), None, None)).await, b"out\n");

    jobs.run(with_id("b", script(home, "true"))).await.expect("run");
    jobs.wait("b").await.expect("ended");
    let mut query = ListQuery::default();
    let listed = jobs.list_status(&query).await.expect("a page");
    let ids = |jobs: &[JobRecord]| jobs.iter().map(|job| job.self_id.to_string()).collect::<Vec<_>>();
    assert_eq!((ids(&listed.jobs), listed.next), (vec!["b".to_owned(), "a".to_owned()], None));
    query.require("id_prefix", "a").expect("a filter");
    assert_eq!(ids(&jobs.list_status(&query).await.expect("a page").jobs), ["a"]);
    let daemon = jobs.daemon_status().await.expect("a status");
    assert_eq!(daemon.pid == std::process::id(), jobs.is_owner());
}

async fn each_error_has_its_kind(home: &Home, jobs: &Jobs) {
    for reference in ["nobody", "no body?", "/#%2f"] {
        let expected = if reference == "nobody" { ProblemKind::NotFound } else { ProblemKind::Usage };
        assert_eq!(kind(jobs.get_status(reference).await), expected, "{reference}");
        assert_eq!(kind(jobs.wait(reference).await), expected, "{reference}");
        assert_eq!(kind(jobs.stop(reference).await), expected, "{reference}");
        assert_eq!(kind(jobs.job_logs(reference, &LogQuery::default()).await), expected, "{reference}");
        assert_eq!(kind(jobs.follow(reference, &FollowQuery::default()).await), expected, "{reference}");
    }
    for reference in ["", ".", "..", "../x", "ü"] {
        assert_eq!(kind(jobs.get_status(reference).await), ProblemKind::Usage, "{reference:?}");
    }
    let no_attempt = LogQuery { attempt: Some(9), ..LogQuery::default() };
    let named = |id: &str| {
        let mut spec = with_id(id, script(home, "sleep 1000"));
        spec.name = Some("twin".to_owned());
        spec
    };
    jobs.run(named("one")).await.expect("run");
    jobs.run(named("two")).await.expect("run");
    assert_eq!(kind(jobs.job_logs("one", &no_attempt).await), ProblemKind::NotFound);
    let taken = jobs.run(named("one")).await.expect_err("in use");
    assert_eq!(taken.kind(), ProblemKind::Conflict);
    assert!(taken.to_string().contains("'one'"), "{taken}");
    let ambiguous = jobs.get_status("twin").await.expect_err("two of them");
    assert_eq!(ambiguous.kind(), ProblemKind::Ambiguous);
    assert_eq!(ambiguous.candidates().iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["two", "one"]);

    let count = jobs.list_status(&ListQuery::default()).await.expect("a page").jobs.len();
    let bad = [
        spec(home, Command::argv(["echo", "a\0b"])),
        spec(home, Command::argv([""])),
        spec(home, Command::Argv(vec![])),
        spec(home, Command::shell("echo \0")),
        JobSpec::new(Command::argv(["true"]), "relative"),
        JobSpec::new(Command::argv(["true"]), "/a\0b"),
        {
            let mut spec = script(home, "true");
            spec.context.environment.push(("A".into(), "b\0c".into()));
            spec
        },
        {
            let mut spec = script(home, "true");
            spec.context.environment.push(("A=B".into(), "c".into()));
            spec
        },
        spec(home, Command::argv(["echo".to_owned(), "x".repeat(5 << 20)])),
    ];
    for spec in bad {
        let shown = format!("{spec:?}").chars().take(200).collect::<String>();
        assert_eq!(kind(jobs.run(spec).await), ProblemKind::Usage, "{shown}");
    }
    assert_eq!(jobs.list_status(&ListQuery::default()).await.expect("a page").jobs.len(), count);
    jobs.stop("one").await.expect("stopped");
    jobs.stop("two").await.expect("stopped");
}

async fn what_cannot_be_executed_is_said(home: &Home, jobs: &Jobs) {
    let run = async |spec: JobSpec| {
        let job = jobs.run(spec).await.expect("run");
        jobs.wait(job.self_id.as_str()).await.expect("ended")
    };
    // The kernel takes at most 128 KiB in one argument.
    let ended = run(spec(home, Command::argv(["echo".to_owned(), "x".repeat(200_000)]))).await;
    assert_eq!((ended.status, ended.reason), (Status::FailedStart, Some(Reason::Exec)), "{:?}", ended.detail);
    let detail = ended.detail.unwrap_or_default();
    assert!(detail.contains("Argument list too long"), "{detail}");
    assert!(detail.len() < 1000, "the argument itself says nothing: {} bytes", detail.len());
    // Just below, it does.
    let ended = run(spec(home, Command::argv(["true".to_owned(), "x".repeat((128 << 10) - 1)]))).await;
    assert_eq!(ended.status, Status::Finished, "{:?}", ended.detail);
    // All together are limited as well.
    let ended = run(spec(home, Command::argv((0..40).map(|_| "x".repeat(100_000))))).await;
    assert_eq!((ended.status, ended.reason), (Status::FailedStart, Some(Reason::Exec)), "{:?}", ended.detail);

    let mut nowhere = script(home, "true");
    nowhere.cwd = "/no/such/directory".into();
    let ended = run(nowhere).await;
    assert_eq!((ended.status, ended.reason), (Status::FailedStart, Some(Reason::Cwd)), "{:?}", ended.detail);
    assert!(ended.detail.is_some_and(|detail| detail.contains("/no/such/directory")));
    let logs = jobs.job_logs(ended.self_id.as_str(), &LogQuery::default()).await.expect("logs");
    assert_eq!((logs.stdout, logs.stderr), (vec![], vec![]), "nothing of ours is in its logs");
}

async fn jobs_are_stopped_within_one_grace(home: &Home, jobs: &Jobs) {
    for id in ["a", "b", "c"] {
        jobs.run(with_id(id, script(home, "trap '' TERM; echo up; while :; do sleep 0.1; done")))
            .await
            .expect("run");
    }
    jobs.run(with_id("obedient", script(home, "exec sleep 1000"))).await.expect("run");
    jobs.run(with_id("over", script(home, "true"))).await.expect("run");
    jobs.wait("over").await.expect("ended");
    for id in ["a", "b", "c"] {
        let mut events = jobs.follow(id, &FollowQuery::default()).await.expect("followed");
        assert!(matches!(events.recv().await, Some(FollowEvent::Output(_))), "it ignores the signal by now");
    }
    let obedient = jobs.stop("obedient").await.expect("stopped");
    assert_eq!((obedient.status, obedient.signal), (Status::Stopped, Some(15)), "{obedient:?}");
    let names = ["a", "nobody", "over", "b", "c"];
    let request = StopRequest {
        jobs: names.map(str::to_owned).to_vec(),
        grace_ms: Some(2000),
        ..StopRequest::default()
    };
    let began = std::time::Instant::now();
    let answer = jobs.stop_with(request).await.expect("an answer");
    let took = began.elapsed().as_millis();
    assert!((2000..5500).contains(&took), "one grace for all, not one for each: {took} ms");
    assert_eq!(answer.results.len(), names.len());
    for (name, result) in names.iter().zip(answer.results) {
        match result {
            StopResult::Done { job, record, already_ended } => {
                assert_eq!((job.as_str(), already_ended), (*name, *name == "over"));
                let expected =
                    if *name == "over" { (Status::Finished, None) } else { (Status::Stopped, Some(9)) };
                assert_eq!((record.status, record.signal), expected, "{name}");
            }
            StopResult::Refused { job, error } => {
                assert_eq!((job.as_str(), *name, error.kind), ("nobody", "nobody", ProblemKind::NotFound));
            }
        }
    }
    let all = StopRequest { all: true, ..StopRequest::default() };
    assert_eq!(jobs.stop_with(all).await.expect("an answer").results, []);
}

/// N28
async fn output_is_followed_and_taken_up_again(home: &Home, jobs: &Jobs) {
    let go = home.path().join("go");
    let text =
        format!("echo 1; until [ -e '{}' ]; do sleep 0.02; done; echo 2; echo 3; exit 4", go.display());
    jobs.run(with_id("a", script(home, &text))).await.expect("run");
    let mut events = jobs.follow("a", &FollowQuery::default()).await.expect("followed");
    let Some(FollowEvent::Output(first)) = events.recv().await else { panic!("no output") };
    assert_eq!((first.stream, first.offset, first.bytes.as_slice()), (LogStream::Stdout, 0, &b"1\n"[..]));
    drop(events);
    std::fs::write(&go, "").expect("written");
    let from = FollowQuery { stdout_from: Some(first.end()), ..FollowQuery::default() };
    for _ in 0..2 {
        let mut events = jobs.follow("a", &from).await.expect("followed");
        let (mut bytes, mut last) = (Vec::new(), None);
        while let Some(event) = events.recv().await {
            assert!(last.is_none(), "after the end comes {event:?}");
            match event {
                FollowEvent::Output(chunk) => bytes.extend(chunk.bytes),
                other => last = Some(other),
            }
        }
        assert_eq!(bytes, b"2\n3\n");
        let Some(FollowEvent::Ended(record)) = last else { panic!("{last:?}") };
        assert_eq!((record.status, record.exit_code), (Status::Failed, Some(4)));
    }
}

async fn a_batch_is_answered_in_its_order(home: &Home, jobs: &Jobs) {
    let evidence = home.path().join("evidence");
    let text = format!("echo $JOB_ID >> '{}'", evidence.display());
    let mut specs: Vec<JobSpec> = (0..40).map(|n| with_id(&format!("b{n}"), script(home, &text))).collect();
    specs.push(spec(home, Command::argv(["a\0b"])));
    specs.push(with_id("twice", script(home, "sleep 1000")));
    specs.push(with_id("twice", script(home, "sleep 1000")));
    specs.push(script(home, &text));
    let results = jobs.run_batch(specs).await.expect("a batch");
    assert_eq!(results.len(), 44);
    for (number, result) in results.iter().take(40).enumerate() {
        assert_eq!(result.as_ref().expect("accepted").as_str(), format!("b{number}"));
    }
    let kinds: Vec<_> = results[40..43].iter().map(|result| result.as_ref().map_err(Error::kind)).collect();
    let twice = JobId::new("twice").expect("an id");
    assert_eq!(kinds, [Err(ProblemKind::Usage), Ok(&twice), Err(ProblemKind::Conflict)]);
    for id in results.iter().flatten().filter(|id| **id != twice) {
        assert_eq!(jobs.wait(id.as_str()).await.expect("ended").status, Status::Finished);
    }
    assert_eq!(lines(&evidence).len(), 41, "each was executed once");
    assert_eq!(jobs.stop("twice").await.expect("stopped").status, Status::Stopped);
    assert_eq!(jobs.run_batch(vec![]).await.expect("nothing").len(), 0);
}

/// Whoever opens the directory next, in this process or another, meets the same jobs.
async fn the_owner_answers_others(home: &Home, jobs: &Jobs) {
    jobs.run(with_id("a", script(home, "exec sleep 1000"))).await.expect("run");
    let other = open(home.data_dir()).await;
    assert!(!other.is_owner());
    assert_eq!(other.get_status("a").await.expect("a record").self_id.as_str(), "a");
    let home_path = (home.command(["stop", "a"]), home.command(["-o", "json", "status", "a"]));
    let (mut stop, mut status) = home_path;
    let (stopped, record) = tokio::task::spawn_blocking(move || {
        (crate::support::said(&mut stop), crate::support::said(&mut status))
    })
    .await
    .expect("commands");
    assert_eq!((stopped.code, record.json()["status"].as_str()), (0, Some("stopped")), "{stopped:?}");
    assert_eq!(jobs.wait("a").await.expect("ended").status, Status::Stopped);
    other.close().await;
}

#[test]
fn a_directory_that_cannot_be_opened_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let below = file.path().join("data");
    let Err(error) = block_on(Jobs::open(&below)) else { panic!("opened") };
    assert_eq!(error.kind(), ProblemKind::Unavailable);
    assert!(error.to_string().contains(file.path().to_str().expect("UTF-8")), "{error}");
}

/// Where another process of this program is told which directory to own.
const OWN: &str = "NODEJOBS_TEST_OWN";
/// And which script to run.
const SCRIPT: &str = "NODEJOBS_TEST_SCRIPT";

/// No test, unless another one asks for it: a program that embeds the library, until it is killed.
#[test]
fn embedding_program() {
    let (Ok(data_dir), Ok(text)) = (std::env::var(OWN), std::env::var(SCRIPT)) else { return };
    block_on(async {
        let jobs = open(Path::new(&data_dir)).await;
        assert!(jobs.is_owner());
        let mut spec = JobSpec::new(Command::shell(text), "/");
        spec.id = Some(JobId::new("a").expect("an id"));
        spec.context = nodejobs::capture_context().expect("a context");
        jobs.run(spec).await.expect("run");
        std::future::pending::<()>().await;
    });
}

/// A program that embeds the library, in a process that is killed with this value.
pub(crate) struct Embedding(Child);

impl Embedding {
    pub(crate) fn start(home: &Home, text: &str) -> Self {
        let child = Process::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "library::embedding_program", "--nocapture"])
            .env(OWN, home.data_dir())
            .env(SCRIPT, text)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        Self(child)
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Embedding {
    fn drop(&mut self) {
        self.kill();
    }
}

fn millis(time: Option<Timestamp>) -> i64 {
    time.expect("a time").as_millis()
}

/// N9
#[test]
fn the_end_of_a_job_is_known_after_its_program_was_killed() {
    for noise in ["", "echo noise >&2; "] {
        let home = Home::new();
        let evidence = home.path().join("evidence");
        let text =
            format!("echo $$ >> '{0}'; sleep 2; {noise}date +%s%3N >> '{0}'; exit 7", evidence.display());
        let mut program = Embedding::start(&home, &text);
        let pid = eventually("the job runs", || lines(&evidence).first()?.parse::<u32>().ok());
        program.kill();
        eventually("the job has ended", || (!is_alive(pid)).then_some(()));
        let written = lines(&evidence);
        assert_eq!(written.len(), 2, "it was executed once, to its end: {written:?}");
        block_on(async {
            let jobs = open(home.data_dir()).await;
            assert!(jobs.is_owner());
            let record = jobs.wait("a").await.expect("ended");
            assert_eq!(
                (record.status, record.exit_code, record.last_pid),
                (Status::Failed, Some(7), Some(pid))
            );
            let late = millis(record.ended_at) - written[1].parse::<i64>().expect("a time");
            assert!((-200..=200).contains(&late), "the true end time, {late} ms off");
            assert!(record.runtime_ms.is_some_and(|runtime| (2000..3000).contains(&runtime)), "{record:?}");
            jobs.close().await;
        });
    }
}

/// N8
#[test]
fn a_job_runs_on_after_its_program_was_killed() {
    let home = Home::new();
    let evidence = home.path().join("evidence");
    let mut program =
        Embedding::start(&home, &format!("echo $$ >> '{}'; exec sleep 600", evidence.display()));
    let pid = eventually("the job runs", || lines(&evidence).first()?.parse::<u32>().ok());
    program.kill();
    let record = home.record("a");
    assert_eq!((record["status"].as_str(), pid_of(&record["last_pid"])), (Some("running"), pid));
    assert!(is_alive(pid));
    home.ok(["stop", "a"]);
    assert_eq!(home.record("a")["status"], "stopped");
    assert!(!is_alive(pid));
}

#[test]
fn the_command_line_uses_the_program_that_owns_the_directory() {
    let home = Home::new();
    let mut program = Embedding::start(&home, "exec sleep 600");
    let running = eventually("the program owns the directory", || {
        let socket =
            home.data_dir().join("nodejobs.json").exists() && home.nodejobs(["daemon", "status"]).code == 0;
        socket.then(|| home.nodejobs(["-o", "json", "status", "a"])).filter(|said| said.code == 0)
    });
    assert_eq!(running.json()["self_id"], "a");
    let owner = program.0.id();
    assert_eq!(home.daemon_pid(), owner);
    assert_eq!(home.nodejobs(["run", "--id", "b", "--wait", "--", "sh", "-c", "exit 5"]).code, 5);
    let again = home.nodejobs(["daemon", "start"]);
    assert_eq!((again.code, again.stderr), (0, format!("already running (pid {owner})\n")));
    let refused = home.nodejobs(["daemon", "stop"]);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains(&format!("process {owner}")), "{refused:?}");
    assert_eq!(home.daemon_pid(), owner);
    // Once it is gone, a daemon takes over what it had.
    let before = home.running("a");
    program.kill();
    let after = home.record("a");
    assert_eq!((&after["status"], &after["last_pid"]), (&before["status"], &before["last_pid"]));
    assert_eq!(home.record("b")["exit_code"], 5);
    assert_ne!(home.daemon_pid(), owner);
}
