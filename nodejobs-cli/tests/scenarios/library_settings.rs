//! Settings, hooks and pruning through the library, as the owner of a directory and connected to one.

use nodejobs::api::{ListQuery, ProblemKind, PruneRequest};
use nodejobs::config::Config;
use nodejobs::{Jobs, Status};

use crate::library::{in_both_modes, kind, run_as, script, with_id};
use crate::support::{Home, happens, lines};

in_both_modes![ended_jobs_are_forgotten_at_once, settings_are_read_again_and_hooks_are_run];

async fn ended_jobs_are_forgotten_at_once(home: &Home, jobs: &Jobs) {
    let ended = [
        ("a", "exit 0", Status::Finished),
        ("b", "exit 3", Status::Failed),
        ("c", "exit 0", Status::Finished),
    ];
    for (id, text, status) in ended {
        jobs.run(with_id(id, script(home, text))).await.expect("run");
        assert_eq!(jobs.wait(id).await.expect("ended").status, status);
    }
    jobs.run(with_id("lives", script(home, "exec sleep 1000"))).await.expect("run");
    let mut request = PruneRequest { keep_last: Some(1), dry_run: true, ..PruneRequest::default() };
    request.require("status", "finished,running,starting").expect("a condition");
    let ids = |answer: &nodejobs::api::PruneAnswer| {
        answer.jobs.iter().map(|job| job.self_id.to_string()).collect::<Vec<_>>()
    };
    let would = jobs.prune(&request).await.expect("looked");
    assert_eq!((ids(&would), would.living, would.dry_run), (vec!["a".to_owned()], 1, true));
    request.dry_run = false;
    assert_eq!(ids(&jobs.prune(&request).await.expect("pruned")), ["a"]);
    assert_eq!(kind(jobs.get_status("a").await), ProblemKind::NotFound);
    let all = PruneRequest::default();
    assert_eq!(ids(&jobs.prune(&all).await.expect("pruned")), ["c", "b"]);
    let left = jobs.list_status(&ListQuery::default()).await.expect("listed").jobs;
    assert_eq!(left.len(), 1);
    let conditions = vec![("colour".to_owned(), "red".to_owned())];
    let nonsense = PruneRequest { conditions, ..PruneRequest::default() };
    assert_eq!(kind(jobs.prune(&nonsense).await), ProblemKind::Usage);
    jobs.stop("lives").await.expect("stopped");
}

async fn settings_are_read_again_and_hooks_are_run(home: &Home, jobs: &Jobs) {
    let file = Config::path(home.data_dir());
    assert_eq!(jobs.config().await.expect("settings").settings, Config::default().settings());
    std::fs::write(&file, "[defaults]\ngrace = 1\n").expect("written");
    let error = jobs.reload().await.expect_err("a mistake");
    assert!(
        error.kind() == ProblemKind::Usage && error.to_string().contains("line 2: defaults.grace"),
        "{error}"
    );
    let seen = home.path().join("seen");
    let text = format!(
        "[defaults]\nsuccess_codes = [3]\n[[hooks]]\non = \"ended\"\nshell = 'echo $JOB_ID $NODEJOBS_EVENT >> {}'\n",
        seen.display()
    );
    std::fs::write(&file, text).expect("written");
    let status = jobs.reload().await.expect("read");
    assert!(
        status.settings.iter().any(|setting| setting.key == "hooks.1" && setting.line == Some(3)),
        "{status:?}"
    );
    assert_eq!(jobs.config().await.expect("settings"), status);
    // Hooks count from a moment after that on.
    let mut number = 0;
    while lines(&seen).is_empty() {
        number += 1;
        assert!(number < 1000, "no hook was run");
        let mut job = with_id(&format!("j{number}"), script(home, "exit 3"));
        Config::load(home.data_dir()).expect("settings").apply(&mut job);
        jobs.run(job).await.expect("run");
        let ended = jobs.wait(&format!("j{number}")).await.expect("ended");
        assert_eq!(ended.status, Status::Finished, "3 is a success here");
    }
    let last = format!("j{number} finished");
    let told = tokio::task::spawn_blocking(move || happens(|| lines(&seen).contains(&last)));
    assert!(told.await.expect("looked"), "the last one is told");
}
