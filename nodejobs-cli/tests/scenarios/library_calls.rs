//! Calls of the library that bring several together, and the living processes of jobs.

use std::time::Duration;

use nodejobs::api::{JobProcess, ListQuery, ProblemKind};
use nodejobs::spec::{Command, JobSpec};
use nodejobs::{Jobs, Status};
use rustix::process::Signal;

use crate::library::{in_both_modes, kind, run_as, script, with_id};
use crate::support::{Cue, Home, eventually, is_alive, kill, lines, signal};

in_both_modes![
    run_and_wait_tells_all_there_is,
    living_processes_are_found,
    stop_all_counts,
    a_listing_is_gone_through_page_by_page,
    a_spec_is_built_in_one_expression,
];

/// P1
async fn run_and_wait_tells_all_there_is(home: &Home, jobs: &Jobs) {
    let ran = jobs.run_and_wait(script(home, "echo hi; echo e >&2; sleep 0.2; exit 3")).await.expect("ran");
    assert_eq!((ran.code(), ran.success()), (Some(3), false));
    assert_eq!((ran.stdout.as_slice(), ran.stderr.as_slice()), (&b"hi\n"[..], &b"e\n"[..]));
    assert_eq!(jobs.get_status(ran.id().as_str()).await.expect("a record"), ran.record);
    assert_eq!(ran.pid(), ran.record.last_pid);
    assert!(ran.pid().is_some_and(|pid| pid > 1));
    let duration = ran.duration().expect("it ran");
    assert!((Duration::from_millis(200)..Duration::from_secs(20)).contains(&duration), "{duration:?}");

    // The second attempt's outputs, not the first one's.
    for word in ["one", "two"] {
        let spec = with_id("a", script(home, &format!("printf {word}; kill -9 $$")));
        let ran = jobs.run_and_wait(spec).await.expect("ran");
        assert_eq!((ran.code(), ran.stdout), (Some(137), word.as_bytes().to_vec()));
    }
    let ran = jobs.run_and_wait(script(home, "true")).await.expect("ran");
    assert!(ran.success() && ran.code() == Some(0), "{ran:?}");

    // P4
    let unknown = JobSpec::new(Command::argv(["/no/such/program"]), "/");
    let ran = jobs.run_and_wait(unknown).await.expect("a job that could not start is a job");
    assert_eq!(
        (ran.record.status, ran.code(), ran.pid(), ran.duration()),
        (Status::FailedStart, None, None, None)
    );
    assert_eq!((ran.success(), ran.stdout, ran.stderr), (false, vec![], vec![]));
    let refused = jobs.run_and_wait(JobSpec::new(Command::argv([""]), "/")).await;
    assert_eq!(kind(refused), ProblemKind::Usage);
}

/// A process that goes on with the end of this value, however that comes.
struct HeldUp([u32; 2]);

impl Drop for HeldUp {
    fn drop(&mut self) {
        self.0.into_iter().for_each(|pid| signal(pid, Signal::CONT));
    }
}

async fn living_processes_are_found(home: &Home, jobs: &Jobs) {
    assert_eq!(kind(jobs.find("nobody").await), ProblemKind::NotFound);
    assert_eq!(jobs.list().await.expect("a list"), []);
    let cue = Cue::new(home, "cue");
    let evidence = home.path().join("evidence");
    let text = |cue: &Cue| format!("echo $$ >> '{}'; read _ <'{}'; exit 3", evidence.display(), cue.path());
    jobs.run(with_id("over", script(home, "true"))).await.expect("run");
    jobs.wait("over").await.expect("ended");
    assert_eq!(jobs.find("over").await.expect("known"), None);
    jobs.run(with_id("b", script(home, &text(&cue)))).await.expect("run");
    jobs.run(with_id("a", script(home, "exec sleep 1000"))).await.expect("run");
    let found = async |id: &str| {
        loop {
            // It is there from the moment at which the record says so.
            if let Some(process) = jobs.find(id).await.expect("known") {
                return process;
            }
        }
    };
    let b: JobProcess = found("b").await;
    assert_eq!((b.id.as_str(), b.attempt), ("b", 1));
    let record = jobs.get_status("b").await.expect("a record");
    assert_eq!((Some(b.pid), Some(b.started_at)), (record.last_pid, record.started_at));
    let a = found("a").await;
    assert!(is_alive(a.pid));
    assert_eq!(jobs.list().await.expect("a list"), [b.clone(), a.clone()], "in the order of submission");
    let written =
        tokio::task::spawn_blocking(move || eventually("it says", || lines(&evidence).first().cloned()));
    assert_eq!(written.await.expect("said"), b.pid.to_string());

    // One that has ended is not found, even though nobody has heard of its end yet: its keeper is held up.
    let keepers = jobs.daemon_status().await.expect("a status").keepers;
    let halves = keepers.first().map(|keeper| [keeper.pid, keeper.worker_pid].map(|pid| pid.expect("lives")));
    let held_up = HeldUp(halves.expect("a keeper"));
    // The guard first: it lets its worker go on.
    held_up.0.into_iter().for_each(|pid| signal(pid, Signal::STOP));
    tokio::task::spawn_blocking(move || kill(a.pid)).await.expect("killed");
    assert_eq!(jobs.get_status("a").await.expect("a record").status, Status::Running);
    assert_eq!(jobs.find("a").await.expect("known"), None);
    assert_eq!(jobs.list().await.expect("a list"), [b]);
    drop(held_up);
    cue.say("go on");
    jobs.wait("b").await.expect("ended");
    jobs.wait("a").await.expect("ended");
    assert_eq!(jobs.list().await.expect("a list"), []);

    // The next attempt has its own.
    jobs.run(with_id("a", script(home, "exec sleep 1000"))).await.expect("run");
    assert_eq!(found("a").await.attempt, 2);
    jobs.stop("a").await.expect("stopped");
    assert_eq!(jobs.find("a").await.expect("known"), None);
}

/// P6
async fn stop_all_counts(home: &Home, jobs: &Jobs) {
    assert_eq!(jobs.stop_all().await.expect("an answer").stopped(), 0);
    jobs.run(with_id("over", script(home, "true"))).await.expect("run");
    jobs.wait("over").await.expect("ended");
    for n in 0..10 {
        jobs.run(with_id(&format!("j{n}"), script(home, "sleep 1000"))).await.expect("run");
    }
    let answer = jobs.stop_all().await.expect("an answer");
    assert_eq!((answer.stopped(), answer.results.len()), (10, 10));
    assert_eq!(jobs.get_status("j3").await.expect("a record").status, Status::Stopped);
    assert_eq!(jobs.list().await.expect("a list"), []);
}

async fn a_listing_is_gone_through_page_by_page(home: &Home, jobs: &Jobs) {
    let mut query = ListQuery::default();
    query.limit = 4;
    assert_eq!(jobs.pages(query.clone()).all().await.expect("read"), []);
    let specs =
        (0..10).map(|n| with_id(&format!("j{n}"), script(home, "true")).label("parity", (n % 2).to_string()));
    for id in jobs.run_batch(specs.collect()).await.expect("a batch") {
        jobs.wait(id.expect("accepted").as_str()).await.expect("ended");
    }
    let (mut pages, mut sizes, mut ids) = (jobs.pages(query.clone()), vec![], vec![]);
    while let Some(page) = pages.next().await.expect("a page") {
        sizes.push(page.jobs.len());
        ids.extend(page.jobs.iter().map(|job| job.self_id.to_string()));
        let map = page.clone().into_map();
        assert_eq!(map.len(), page.jobs.len());
        assert!(page.jobs.iter().all(|job| map.get(&job.self_id) == Some(job)));
    }
    assert_eq!(sizes, [4, 4, 2]);
    assert_eq!(ids, (0..10).rev().map(|n| format!("j{n}")).collect::<Vec<_>>());
    assert!(pages.next().await.expect("nothing").is_none());
    let mut odd = query;
    odd.require("label", "parity=1").expect("a filter");
    assert_eq!(jobs.pages(odd).all().await.expect("read").len(), 5);
}

async fn a_spec_is_built_in_one_expression(home: &Home, jobs: &Jobs) {
    let spec = script(home, "echo $FOO; exit 3")
        .id("built")
        .expect("an id")
        .name("a name")
        .env("FOO", "bar")
        .label("k", "v")
        .success_codes([0, 3]);
    let ran = jobs.run_and_wait(spec).await.expect("ran");
    assert!(ran.success(), "3 means success: {ran:?}");
    assert_eq!((ran.id().as_str(), ran.record.name.as_deref()), ("built", Some("a name")));
    assert_eq!((ran.stdout.as_slice(), ran.record.labels["k"].as_str()), (&b"bar\n"[..], "v"));
}
