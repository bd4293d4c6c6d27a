//! Forgetting many ended jobs: which ones go, and that no living one does.

use serde_json::{Value, json};

use crate::support::{Home, eventually, kill, millis, pid_of, text};

/// A job that has ended by each route there is, and two that live.
fn by_every_route(home: &Home) -> Vec<&'static str> {
    lose(home, "lost");
    home.nodejobs(["run", "--id", "finished", "--wait", "--", "true"]);
    home.nodejobs(["run", "--id", "failed", "--label", "k=v", "--wait", "exit 3"]);
    home.nodejobs(["run", "--id", "killed", "--wait", "kill -9 $$"]);
    home.nodejobs(["run", "--id", "timeout", "--timeout", "10ms", "--wait", "--", "sleep", "100"]);
    home.nodejobs(["run", "--id", "nowhere", "--wait", "--", "/no/such/program"]);
    home.ok(["run", "--id", "stopped", "--", "sleep", "100"]);
    home.running("stopped");
    home.ok(["stop", "stopped"]);
    home.ok(["run", "--id", "cancelled", "--delay", "1h", "--", "true"]);
    home.ok(["stop", "cancelled"]);
    home.ok(["run", "--id", "lives", "--label", "k=v", "--", "sleep", "100"]);
    home.ok(["run", "--id", "queued", "--delay", "1h", "--", "true"]);
    home.running("lives");
    vec!["cancelled", "failed", "finished", "killed", "lost", "nowhere", "stopped", "timeout"]
}

/// A job whose end nobody has seen: all of ours were killed before, and the kernel does not tell it later.
fn lose(home: &Home, id: &str) {
    home.ok(["run", "--id", id, "--", "sleep", "100"]);
    let job = pid_of(&home.running(id)["last_pid"]);
    let ours = home.processes().into_iter().filter(|(_, name)| name.starts_with("nodejobs"));
    ours.for_each(|(pid, _)| kill(pid));
    kill(job);
    let is_reaped = || (!std::path::Path::new(&format!("/proc/{job}")).exists()).then_some(());
    eventually("nobody can tell its end", is_reaped);
    home.has_status(id, "lost");
}

fn prune(home: &Home, words: &[&str]) -> Value {
    let said = home.nodejobs(["-o", "json", "prune"].iter().chain(words));
    assert_eq!(said.code, 0, "{said:?}");
    said.json()
}

fn ids(pruned: &Value) -> Vec<String> {
    let jobs = pruned["jobs"].as_array().expect("jobs");
    let mut ids: Vec<_> = jobs.iter().map(|job| text(job, "self_id").to_owned()).collect();
    ids.sort();
    ids
}

fn left(home: &Home) -> Vec<String> {
    home.records().iter().map(|record| text(record, "self_id").to_owned()).collect()
}

#[test]
fn all_that_has_ended_goes_and_nothing_that_lives() {
    let home = Home::new().with("NODEJOBS_DISABLE", "pidfd-info");
    let ended = by_every_route(&home);
    let log = text(&home.record("failed"), "logfile").to_owned();
    let would = prune(&home, &["--dry-run"]);
    assert_eq!(
        (ids(&would), &would["living"], &would["dry_run"]),
        (ended.iter().map(|id| (*id).to_owned()).collect(), &json!(2), &json!(true))
    );
    assert_eq!(left(&home).len(), 10, "a dry run does nothing");
    assert!(std::path::Path::new(&log).exists());
    // A filter that fits living jobs as well does not touch them, and says so.
    let pruned = prune(&home, &["--label", "k=v"]);
    assert_eq!((ids(&pruned), &pruned["living"]), (vec!["failed".to_owned()], &json!(1)));
    assert!(!std::path::Path::new(&log).exists(), "its logs went with it");
    let pruned = prune(&home, &["--status", "running,queued"]);
    assert_eq!((ids(&pruned), &pruned["living"]), (vec![], &json!(2)));
    let said = home.nodejobs(["prune"]);
    assert_eq!((said.code, said.text().as_str()), (0, "removed 7 jobs"));
    assert_eq!(said.stderr, "left 2 jobs that fit and have not ended\n");
    assert_eq!(left(&home), ["lives", "queued"]);
    assert_eq!(text(&home.record("lives"), "status"), "running");
    assert_eq!(home.nodejobs(["prune"]).text(), "removed 0 jobs");
    // What is gone is gone after the next start as well, and its ids are free.
    home.ok(["daemon", "restart"]);
    assert_eq!(left(&home), ["lives", "queued"]);
    assert_eq!(home.nodejobs(["run", "--id", "failed", "--wait", "--", "true"]).code, 0);
    assert_eq!(home.history("failed").len(), 1);
}

#[test]
fn the_newest_and_the_young_can_be_kept() {
    let home = Home::new();
    for number in 0..6 {
        let status = if number % 2 == 0 { "true" } else { "false" };
        home.nodejobs(["run", "--id", &format!("j{number}"), "--wait", "--", status]);
    }
    assert_eq!(ids(&prune(&home, &["--older-than", "1h"])), Vec::<String>::new());
    assert_eq!(ids(&prune(&home, &["--status", "failed", "--keep-last", "1", "--dry-run"])), ["j1", "j3"]);
    assert_eq!(ids(&prune(&home, &["--keep-last", "2"])), ["j0", "j1", "j2", "j3"]);
    assert_eq!(left(&home), ["j4", "j5"]);
    assert_eq!(ids(&prune(&home, &["--keep-last", "99"])), Vec::<String>::new());
    let ended = millis(&home.record("j4"), "last_update");
    let until = format!("last_update_until={}", nodejobs::Timestamp::from_millis(ended));
    assert_eq!(ids(&prune(&home, &["--older-than", "0s", "--filter", &until])), ["j4"]);
}

#[test]
fn conditions_that_mean_nothing_are_refused_before_anything_is_done() {
    let home = Home::new();
    for words in [
        &["--older-than", "7"][..],
        &["--older-than", "-7d"],
        &["--keep-last", "-1"],
        &["--keep-last", "x"],
        &["--status", "done"],
        &["--filter", "colour=red"],
        &["--filter", "name"],
        &["--label", ""],
        &["job"],
    ] {
        let said = home.nodejobs(["prune"].iter().chain(words));
        assert_eq!(said.code, 2, "{words:?}: {said:?}");
    }
    assert!(!home.data_dir().exists(), "no daemon was started for it");
}

#[test]
fn others_are_answered_while_many_are_forgotten() {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    let count = 3_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let jobs = nodejobs::Jobs::open(home.data_dir()).await.expect("connected");
        let spec = || nodejobs::spec::JobSpec::new(nodejobs::spec::Command::argv(["/no/such/program"]), "/");
        let ids = jobs.run_batch((0..count).map(|_| spec()).collect()).await.expect("a batch");
        let ids = ids.into_iter().map(|id| id.expect("accepted").as_str().to_owned());
        jobs.wait_for(&nodejobs::api::WaitRequest::all(ids)).await.expect("waited");
        let all = nodejobs::api::PruneRequest::default();
        let mut pruning = std::pin::pin!(jobs.prune(&all));
        let mut answers = 0;
        let pruned = loop {
            tokio::select! {
                pruned = &mut pruning => break pruned.expect("pruned"),
                status = jobs.daemon_status() => {
                    status.expect("answered");
                    answers += 1;
                }
            }
        };
        assert_eq!(pruned.jobs.len(), count);
        assert!(answers >= count / 1000, "{answers} answers meanwhile");
        assert!(
            jobs.list_status(&nodejobs::api::ListQuery::default()).await.expect("listed").jobs.is_empty()
        );
    });
    assert_eq!(home.ok(["ls"]), "");
}
