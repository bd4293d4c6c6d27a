//! How many jobs run at a time.

use std::process::{Child, Stdio};

use nodejobs::{Jobs, OpenOptions};
use rustix::process::Signal;

use crate::support::{Cue, Home, KEEPER, eventually, lines, signal, text};

/// A daemon in the foreground with these bounds; it ends with the test.
struct Daemon(Child);

impl Daemon {
    fn serve(home: &Home, limits: &str) -> Self {
        bound(home, limits);
        let mut command = home.command(["daemon", "serve"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        let pid = serde_json::json!(child.id());
        eventually("it serves", || {
            let said = home.nodejobs(["-o", "json", "daemon", "status"]);
            (said.code == 0 && said.json()["pid"] == pid).then_some(())
        });
        Self(child)
    }

    fn ends_by(mut self, number: Signal) {
        signal(self.0.id(), number);
        self.0.wait().expect("it ends");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        signal(self.0.id(), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// What `config.toml` says of how much may run at a time.
fn bound(home: &Home, limits: &str) {
    std::fs::create_dir_all(home.data_dir()).expect("a directory");
    std::fs::write(home.data_dir().join("config.toml"), format!("[limits]\n{limits}\n")).expect("written");
}

fn statuses(home: &Home) -> Vec<String> {
    home.records().iter().map(|record| text(record, "status").to_owned()).collect()
}

/// C7
#[test]
fn the_third_of_two_is_queued_and_goes_when_one_has_ended_whoever_is_killed() {
    let home = Home::new();
    let daemon = Daemon::serve(&home, "max_processes = 2");
    let cue = Cue::new(&home, "cue");
    for id in ["a", "b", "c", "d"] {
        let script = format!("echo {id} >> began; read x < {}", cue.path());
        home.ok(["run", "--id", id, "--shell", "--", &script]);
    }
    home.running("a");
    home.running("b");
    let queued = home.record("c");
    assert_eq!((text(&queued, "status"), text(&queued, "waiting_on")), ("queued", "slot"), "{queued}");
    assert!(home.ok(["status", "c"]).contains("2 run, and no more than 2 may at a time"));
    assert_eq!(home.nodejobs(["pause", "c"]).code, 4, "it does not run");

    // The next owner with the same bound goes on.
    daemon.ends_by(Signal::KILL);
    let daemon = Daemon::serve(&home, "max_processes = 2");
    assert_eq!(statuses(&home), ["running", "running", "queued", "queued"]);
    home.ok(["stop", "b"]);
    home.running("c");
    assert_eq!(statuses(&home), ["running", "stopped", "running", "queued"]);
    // One with room for one more has it at once.
    daemon.ends_by(Signal::KILL);
    let _daemon = Daemon::serve(&home, "max_processes = 3");
    home.running("d");
    home.ok(["run", "--id", "e", "--", "true"]);
    home.ok(["stop", "e"]);
    assert_eq!(text(&home.record("e"), "status"), "cancelled");
    eventually("each has begun once", || {
        let mut began = lines(&home.path().join("began"));
        began.sort();
        (began == ["a", "b", "c", "d"]).then_some(())
    });
}

/// C7
#[test]
fn a_hundred_launches_that_fail_leave_all_places_free() {
    let home = Home::new();
    let _daemon = Daemon::serve(&home, "max_processes = 2");
    let script = "for n in $(seq 100); do $NODEJOBS run --id f$n -- /no/such/program || exit 1; done";
    assert_eq!(crate::support::said(&mut home.shell(script)).code, 0);
    for number in 1..=100 {
        home.ended(&format!("f{number}"));
    }
    assert!(statuses(&home).iter().all(|status| status == "failed_start"));
    for id in ["a", "b", "c"] {
        home.ok(["run", "--id", id, "--", "sleep", "1000"]);
    }
    home.running("a");
    home.running("b");
    assert_eq!(text(&home.record("c"), "status"), "queued");
}

#[test]
fn never_do_more_run_than_may() {
    let home = Home::new();
    let _daemon = Daemon::serve(&home, "max_processes = 3");
    // Each notes how many are at it.
    let script = "mkdir -p at; touch at/$JOB_ID; ls at | wc -l; sleep 0.05; rm at/$JOB_ID";
    let each = format!("for n in $(seq 40); do $NODEJOBS run --id j$n --shell -- '{script}' || exit 1; done");
    // All are there before the first one starts, however long it takes to submit them.
    home.ok(["group", "pause", "default"]);
    assert_eq!(crate::support::said(&mut home.shell(&each)).code, 0);
    home.ok(["group", "resume", "default"]);
    let counts: Vec<usize> = (1..=40)
        .map(|number| {
            let id = format!("j{number}");
            assert_eq!(text(&home.ended(&id), "status"), "finished");
            String::from_utf8(home.stdout(&id)).expect("UTF-8").trim().parse().expect("a number")
        })
        .collect();
    assert_eq!(counts.iter().max(), Some(&3), "{counts:?}");
}

#[test]
fn who_is_not_to_wait_is_refused() {
    let home = Home::new();
    let _daemon = Daemon::serve(&home, "max_processes = 1\nwhen_full = \"refuse\"");
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    let said = home.nodejobs(["run", "--id", "b", "--", "true"]);
    assert_eq!((said.code, said.text().as_str()), (4, ""), "{said:?}");
    assert!(said.stderr.contains("no room for another job: 1 run"), "{said:?}");
    assert_eq!(home.nodejobs(["status", "b"]).code, 3, "it leaves nothing");
    home.ok(["stop", "a"]);
    home.ok(["run", "--id", "b", "--wait", "--", "true"]);
}

#[test]
fn memory_is_promised_once() {
    let home = Home::new();
    let _daemon = Daemon::serve(&home, "max_memory = \"100M\"");
    home.nodejobs(["run", "--id", "a", "--memory", "60M", "--", "sleep", "1000"]);
    home.nodejobs(["run", "--id", "b", "--memory", "50M", "--", "sleep", "1000"]);
    home.running("a");
    assert_eq!(text(&home.record("b"), "waiting_on"), "slot");
    let said = home.nodejobs(["run", "--memory", "101M", "--", "true"]);
    assert!(said.code == 2 && said.stderr.contains("max_memory"), "{said:?}");
    home.ok(["stop", "a"]);
    home.running("b");
}

#[test]
fn bounds_that_mean_nothing_are_refused() {
    let home = Home::new();
    let bad = ["max_processes = 0", "max_processes = -1", "max_memory = \"much\"", "when_full = \"x\""];
    for limits in bad {
        bound(&home, limits);
        let said = home.nodejobs(["daemon", "start"]);
        assert!(said.code == 2 && said.stderr.contains("line 2"), "{limits}: {said:?}");
    }
}

/// As with a daemon that was started with them.
#[test]
fn bounds_may_change_while_jobs_run() {
    let home = Home::new();
    let _daemon = Daemon::serve(&home, "max_processes = 1");
    for id in ["a", "b", "c", "d"] {
        home.ok(["run", "--id", id, "--", "sleep", "1000"]);
    }
    home.running("a");
    assert_eq!(statuses(&home), ["running", "queued", "queued", "queued"]);
    bound(&home, "max_processes = 3");
    home.ok(["daemon", "reload"]);
    home.running("b");
    home.running("c");
    bound(&home, "max_processes = 1");
    home.ok(["daemon", "reload"]);
    home.ok(["stop", "a"]);
    assert_eq!(statuses(&home), ["stopped", "running", "running", "queued"], "who runs goes on");
    home.ok(["stop", "b", "c"]);
    home.running("d");
}

/// The library that owns a directory has the same bounds.
#[test]
fn an_owner_is_told_its_bounds_when_it_is_opened() {
    let home = Home::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        bound(&home, "max_processes = 1\nwhen_full = \"refuse\"");
        let options = OpenOptions { keeper: Some(KEEPER.into()), ..OpenOptions::default() };
        let jobs = Jobs::open_with(home.data_dir(), options).await.expect("opened");
        let spec = || {
            let words = nodejobs::spec::Command::argv(["sleep", "1000"]);
            nodejobs::spec::JobSpec::new(words, "/").context(nodejobs::capture_context().expect("a context"))
        };
        let first = jobs.run(spec()).await.expect("accepted");
        let refused = jobs.run(spec()).await.expect_err("refused");
        assert_eq!(refused.kind(), nodejobs::api::ProblemKind::Conflict);
        jobs.stop(first.self_id.as_str()).await.expect("stopped");
        jobs.close().await;
    });
    assert_eq!(home.job_processes(), []);
}
