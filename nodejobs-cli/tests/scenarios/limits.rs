//! More jobs than a process may have descriptors: nobody holds one for each, or whoever must has room elsewhere.

use std::os::unix::net::UnixStream;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use nodejobs::api::BatchResult;
use nodejobs::client::Client;
use nodejobs::spec::{Command, JobSpec, ResourceLimit};
use rustix::process::Signal;
use serde_json::Value;

use crate::idle::switches;
use crate::support::{Cue, Home, eventually, is_alive, kill, lines, pid_of, said, signal, text};

/// How many descriptors the daemon and the submitter may have, and which of their limits says so.
#[derive(Clone, Copy)]
enum Limit {
    Soft(u64),
    Hard(u64),
}

impl Limit {
    fn soft(self) -> u64 {
        let (Limit::Soft(soft) | Limit::Hard(soft)) = self;
        soft
    }

    /// `nodejobs` or a script, under the limit.
    fn shell(self, home: &Home, script: &str) -> Process {
        let limit = match self {
            Limit::Soft(soft) => format!("ulimit -S -n {soft}"),
            Limit::Hard(hard) => format!("ulimit -n {hard}"),
        };
        home.shell(&format!("{limit} && {script}"))
    }
}

/// Ids of jobs that sleep.
fn sleepers(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("sleeper-{number}")).collect()
}

fn submit_batch(home: &Home, ids: &[String], limit: Limit) {
    let client = Client::connect(home.data_dir()).expect("connected");
    let specs: Vec<JobSpec> = ids
        .iter()
        .map(|id| {
            let mut spec = JobSpec::new(Command::argv(["sleep", "1000"]), "/");
            spec.id = Some(id.parse().expect("an id"));
            spec.context = nodejobs::capture_context().expect("a context");
            spec.context.soft_limits.insert(ResourceLimit::Nofile, limit.soft());
            spec
        })
        .collect();
    let results = client.submit_batch(&specs).expect("submitted");
    assert!(results.iter().all(|result| matches!(result, BatchResult::Id(_))), "{results:?}");
}

fn submit_one_by_one(home: &Home, ids: &[String], limit: Limit) {
    let script =
        format!("for id in {}; do $NODEJOBS run --id $id -- sleep 1000 || exit 1; done", ids.join(" "));
    let said = said(&mut limit.shell(home, &script));
    assert_eq!((said.code, lines_of(&said.text())), (0, ids.len()), "{said:?}");
}

fn lines_of(text: &str) -> usize {
    text.lines().count()
}

fn all_run(home: &Home, count: usize) {
    eventually(&format!("{count} jobs run"), || {
        let jobs = home.daemon()["jobs"].clone();
        assert!(jobs.get("lost").is_none() && jobs.get("failed_start").is_none(), "{jobs}");
        (jobs["running"] == count).then_some(())
    });
}

/// The job has the submitter's soft limit, and nothing open but its standard streams.
fn has_clean_state(record: &Value, limit: Limit) {
    let pid = pid_of(&record["last_pid"]);
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).expect("the limit");
    assert_eq!(open_files.split_whitespace().nth(3), Some(limit.soft().to_string().as_str()), "{open_files}");
    assert_eq!(descriptors(&format!("/proc/{pid}")), ["0", "1", "2"]);
}

/// The descriptors of a process or a thread.
fn descriptors(path: &str) -> Vec<String> {
    let entries = std::fs::read_dir(format!("{path}/fd")).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The processes of all keepers.
fn keeper_processes(home: &Home) -> Vec<u32> {
    let daemon = home.daemon();
    let keepers = daemon["keepers"].as_array().expect("keepers");
    let pids = keepers.iter().flat_map(|keeper| [&keeper["pid"], &keeper["worker_pid"]]);
    pids.filter(|pid| !pid.is_null()).map(pid_of).collect()
}

fn kill_all(pids: &[u32]) {
    pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
    pids.iter().for_each(|pid| kill(*pid));
}

/// Everything that can be asked is answered.
fn answers(home: &Home, limit: Limit, ids: &[String]) {
    for id in [&ids[0], &ids[ids.len() / 2], &ids[ids.len() - 1]] {
        has_clean_state(&home.record(id), limit);
        assert_eq!(home.stdout(id), b"");
    }
    assert_eq!(home.records().iter().filter(|record| text(record, "status") == "running").count(), ids.len());
    let followed = said(&mut limit.shell(home, "$NODEJOBS run --follow --shell -- 'ulimit -n; exit 3'"));
    assert_eq!((followed.code, followed.text().lines().last()), (3, Some(limit.soft().to_string().as_str())));
    let waited = said(&mut limit.shell(home, "$NODEJOBS run --wait --shell -- 'exit 4'"));
    assert_eq!(waited.code, 4, "{waited:?}");
}

/// Nobody does anything while nothing happens.
fn is_idle(home: &Home) {
    let daemon = home.daemon_pid();
    let count = || {
        let mut count = switches(&[daemon]);
        count.retain(|(_, _, name), _| !name.contains("tokio"));
        count
    };
    // The daemon has one thread for requests, which has something to do with this very question.
    eventually("nothing is done", || {
        let before = count();
        assert!(Process::new("sleep").arg("1").status().expect("sleep").success());
        (count() == before).then_some(())
    });
}

/// Jobs that ignore the signal, each of two processes in two sessions.
fn submit_tough(home: &Home, count: usize) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|number| format!("tough-{number}")).collect();
    for id in &ids {
        let script = "trap '' TERM; setsid sleep 1000 & echo ready; exec sleep 1000";
        home.ok(["run", "--id", id, "--shell", "--", script]);
    }
    eventually("the tough ones ignore the signal", || {
        ids.iter().all(|id| home.stdout(id) == b"ready\n").then_some(())
    });
    ids
}

/// All are stopped within the grace that they share, whether they obey or not, and nobody is left.
fn stop_all(home: &Home, obedient: usize, tough: &[String]) {
    let began = Instant::now();
    // Enough to signal all of them on a busy machine: who is only signalled at the deadline is killed.
    let said = home.nodejobs(["stop", "--all", "--grace", "4s"]);
    let took = began.elapsed();
    assert_eq!(said.code, 0, "{said:?}");
    let told = |words: &str| said.text().lines().filter(|line| line.contains(words)).count();
    assert_eq!((told("stopped by SIGTERM"), told("stopped by SIGKILL")), (obedient, tough.len()), "{said:?}");
    assert!(took < Duration::from_secs(7), "{took:?}");
    for id in tough {
        let record = home.record(id);
        assert!(text(&record, "detail").contains("(sleep)"), "both processes were ended: {record}");
    }
    eventually("no process is left", || home.job_processes().is_empty().then_some(()));
}

/// The whole life of many jobs, in which everything is killed that may be.
fn outnumber(limit: Limit, count: usize, submit: fn(&Home, &[String], Limit)) {
    let home = Home::new();
    let step = Instant::now();
    assert_eq!(said(&mut limit.shell(&home, "$NODEJOBS daemon start")).code, 0);
    let ids = sleepers(count);
    submit(&home, &ids, limit);
    all_run(&home, count);
    println!("{count} submitted and running: {:?}", step.elapsed());
    answers(&home, limit, &ids);

    let keeper = home.keeper();
    kill(home.daemon_pid());
    let step = Instant::now();
    // A command starts the next one.
    assert_eq!(said(&mut limit.shell(&home, "$NODEJOBS status sleeper-0")).code, 0);
    all_run(&home, count);
    println!("taken over from the daemon: {:?}", step.elapsed());
    assert_eq!(home.keeper(), keeper);

    kill(keeper.1);
    answers(&home, limit, &ids);
    let most = keeper_processes(&home).iter().map(|pid| descriptors(&format!("/proc/{pid}")).len()).max();
    println!("descriptors of a keeper: {most:?}");
    assert!(most < Some(32), "a keeper holds no descriptor for a job");

    kill_all(&keeper_processes(&home));
    answers(&home, limit, &ids);
    all_run(&home, count);
    let daemon = home.daemon_pid();
    let threads: Vec<usize> = std::fs::read_dir(format!("/proc/{daemon}/task"))
        .expect("threads")
        .flatten()
        .map(|thread| descriptors(&thread.path().to_string_lossy()).len())
        .collect();
    println!("descriptors of the daemon's threads: {threads:?}");
    is_idle(&home);
    let victim = pid_of(&home.record(&ids[count - 1])["last_pid"]);
    kill(victim);
    let record = home.ended(&ids[count - 1]);
    assert!(["failed", "lost"].contains(&text(&record, "status")), "{record}");

    kill_all(&keeper_processes(&home));
    kill(home.daemon_pid());
    let step = Instant::now();
    assert_eq!(said(&mut limit.shell(&home, "$NODEJOBS status sleeper-0")).code, 0);
    all_run(&home, count - 1);
    println!("found again without daemon and keeper: {:?}", step.elapsed());

    let tough = submit_tough(&home, (count / 5).min(40));
    let step = Instant::now();
    stop_all(&home, count - 1, &tough);
    println!("stopped, some after the grace: {:?}", step.elapsed());
}

#[test]
fn jobs_outnumber_the_descriptors_that_a_hard_limit_allows() {
    outnumber(Limit::Hard(64), 200, submit_one_by_one);
}

#[test]
fn jobs_outnumber_the_descriptors_of_a_soft_limit() {
    outnumber(Limit::Soft(64), 200, submit_batch);
}

#[test]
#[ignore = "thousands of processes disturb the tests beside it: cargo xtask ci --full runs it by itself"]
fn two_thousand_jobs_under_a_hard_limit_of_1024() {
    outnumber(Limit::Hard(1024), 2_000, submit_batch);
}

#[test]
#[ignore = "thousands of processes disturb the tests beside it: cargo xtask ci --full runs it by itself"]
fn two_thousand_jobs_under_a_soft_limit_of_1024_submitted_one_by_one() {
    outnumber(Limit::Soft(1024), 2_000, submit_one_by_one);
}

#[test]
fn all_are_stopped_by_a_keeper_s_word_where_descriptors_are_few() {
    let home = Home::new();
    let limit = Limit::Hard(64);
    assert_eq!(said(&mut limit.shell(&home, "$NODEJOBS daemon start")).code, 0);
    submit_batch(&home, &sleepers(200), limit);
    all_run(&home, 200);
    let tough = submit_tough(&home, 40);
    stop_all(&home, 200, &tough);
}

/// As where a sandbox forbids it.
#[test]
fn without_descriptor_tables_of_their_own_jobs_are_looked_at_now_and_then() {
    let home = Home::new().with("NODEJOBS_DISABLE", "own-tables");
    let limit = Limit::Hard(64);
    assert_eq!(said(&mut limit.shell(&home, "$NODEJOBS daemon start")).code, 0);
    let ids = sleepers(200);
    submit_batch(&home, &ids, limit);
    all_run(&home, 200);
    kill_all(&keeper_processes(&home));
    let log = home.data_dir().join("daemon.log");
    eventually("the daemon says so", || {
        lines(&log).iter().any(|line| line.contains("raise the hard limit of open files")).then_some(())
    });
    answers(&home, limit, &ids);
    // Some are watched and some are not; all ends are noticed.
    for id in [&ids[0], &ids[199]] {
        kill(pid_of(&home.record(id)["last_pid"]));
        let record = home.ended(id);
        assert!(["failed", "lost"].contains(&text(&record, "status")), "{record}");
    }
    all_run_but(&home, 198);
    assert_eq!(home.nodejobs(["stop", "--all"]).code, 0);
    for record in home.records() {
        assert!(["stopped", "lost", "failed"].contains(&text(&record, "status")), "{record}");
    }
    eventually("no process is left", || home.job_processes().is_empty().then_some(()));
}

fn all_run_but(home: &Home, left: usize) {
    eventually("the others run", || (home.daemon()["jobs"]["running"] == left).then_some(()));
}

#[test]
fn clients_that_take_every_descriptor_make_nobody_believe_that_a_process_is_gone() {
    let home = Home::new();
    assert_eq!(said(&mut Limit::Hard(64).shell(&home, "$NODEJOBS daemon start")).code, 0);
    let cue = Cue::new(&home, "cue");
    let script = format!("setsid sleep 1000 & echo $!; read code < {}; exit $code", cue.path());
    let id = home.run_script(&script);
    let main = pid_of(&home.running(&id)["last_pid"]);
    let left: u32 = eventually("it has started the other", || {
        String::from_utf8_lossy(&home.stdout(&id)).trim().parse().ok()
    });
    let daemon = home.daemon_pid();
    let clients: Vec<_> =
        (0..64).map(|_| UnixStream::connect(home.data_dir().join("sock")).expect("connected")).collect();
    eventually("there are no descriptors left", || {
        (descriptors(&format!("/proc/{daemon}")).len() == 64).then_some(())
    });
    cue.say("7");
    eventually("its keeper has collected it", || (!is_alive(main)).then_some(()));
    assert!(Process::new("sleep").arg("0.5").status().expect("sleep").success());
    drop(clients);
    let record = home.ended(&id);
    assert_eq!((text(&record, "status"), &record["exit_code"]), ("failed", &7.into()), "{record}");
    assert!(text(&record, "detail").contains(&format!("{left} (sleep)")), "{record}");
    assert!(!is_alive(left));
}
