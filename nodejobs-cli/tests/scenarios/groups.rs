//! Groups and named resources: made, changed while jobs run, listed, waited for, and what makes no sense of them.

use std::process::Stdio;

use nodejobs::group::{GroupChange, Slots};
use nodejobs::spec::{Command, JobSpec};
use nodejobs::{Edits, Jobs, OpenOptions};
use serde_json::Value;

use crate::support::{Home, KEEPER, eventually, kill, text};

impl Home {
    fn group(&self, name: &str) -> Value {
        let all = self.nodejobs(["-o", "json", "group", "ls"]).json();
        let found = all.as_array().expect("groups").iter().find(|group| text(group, "name") == name).cloned();
        found.unwrap_or_else(|| panic!("{name} in {all}"))
    }

    /// Jobs that sleep, in a group.
    fn sleep_in(&self, group: &str, ids: &[&str]) {
        for id in ids {
            self.ok(["run", "--id", id, "--group", group, "--", "sleep", "1000"]);
        }
    }

    fn statuses_of(&self, ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| text(&self.record(id), "status").to_owned()).collect()
    }

    fn is_so(&self, ids: &[&str], expected: &[&str]) {
        eventually(&format!("{ids:?} are {expected:?}"), || {
            (self.statuses_of(ids) == expected).then_some(())
        });
    }

    fn resources(&self, text: &str) {
        std::fs::create_dir_all(self.data_dir()).expect("a directory");
        std::fs::write(self.data_dir().join("config.toml"), format!("[resources]\n{text}\n"))
            .expect("written");
    }
}

const FOUR: [&str; 4] = ["a", "b", "c", "d"];

#[test]
fn slots_may_change_while_jobs_run() {
    let home = Home::new();
    home.ok(["group", "set", "work", "--slots", "1"]);
    home.sleep_in("work", &FOUR);
    home.is_so(&FOUR, &["running", "queued", "queued", "queued"]);
    home.ok(["group", "set", "work", "--slots", "3"]);
    home.is_so(&FOUR, &["running", "running", "running", "queued"]);
    home.ok(["group", "set", "work", "--slots", "1"]);
    kill(home.daemon_pid());
    home.ok(["stop", "a"]);
    home.is_so(&FOUR, &["stopped", "running", "running", "queued"]);
    let group = home.group("work");
    assert_eq!([&group["slots"], &group["taken"], &group["waiting"]], [1, 2, 1], "{group}");
    home.ok(["stop", "b"]);
    home.is_so(&FOUR, &["stopped", "stopped", "running", "queued"]);
    home.ok(["group", "set", "work", "--slots", "unlimited"]);
    home.is_so(&FOUR, &["stopped", "stopped", "running", "running"]);
}

#[test]
fn a_paused_group_starts_nobody_and_lets_go_on_who_runs() {
    let home = Home::new();
    home.ok(["group", "set", "work"]);
    home.sleep_in("work", &["a"]);
    home.running("a");
    home.ok(["group", "pause", "work"]);
    home.sleep_in("work", &["b"]);
    home.ok(["run", "--id", "elsewhere", "--wait", "--", "true"]);
    assert!(home.ok(["status", "b"]).contains("1 of 1 that wait in group 'work': group 'work' is paused"));
    kill(home.daemon_pid());
    home.is_so(&["a", "b"], &["running", "queued"]);
    assert!(home.group("work")["paused"].as_bool().expect("a boolean"));
    home.ok(["group", "resume", "work"]);
    home.running("b");
    // Those without a group are in one, too.
    home.ok(["group", "pause", "default"]);
    home.ok(["run", "--id", "c", "--", "true"]);
    assert_eq!(home.statuses_of(&["c"]), ["queued"]);
    home.ok(["group", "resume", "default"]);
    home.ended("c");
    let table = home.ok(["ls"]);
    assert!(table.starts_with("ID") && table.contains("GROUP") && table.contains("work"), "{table}");
}

#[test]
fn the_machine_bounds_all_groups_together() {
    let home = Home::new();
    std::fs::create_dir_all(home.data_dir()).expect("a directory");
    std::fs::write(home.data_dir().join("config.toml"), "[limits]\nmax_processes = 2\n").expect("written");
    home.ok(["group", "set", "one", "--slots", "1"]);
    home.ok(["group", "set", "two", "--slots", "2"]);
    home.sleep_in("one", &["a", "b"]);
    home.sleep_in("two", &["c", "d"]);
    home.is_so(&FOUR, &["running", "queued", "running", "queued"]);
    home.ok(["stop", "c"]);
    home.is_so(&["d"], &["running"]);
}

#[test]
fn what_a_group_cannot_be_is_refused() {
    let home = Home::new();
    home.resources("gpu = 2");
    home.ok(["group", "set", "work", "--slots", "2"]);
    home.sleep_in("work", &["a"]);
    home.ok(["run", "--id", "later", "--group", "work", "--delay", "1h", "--", "true"]);
    for (words, code, why) in [
        (
            &["run", "--group", "none", "--", "true"][..],
            2,
            "there is no group 'none'; there are default, work;",
        ),
        (&["run", "--group", "a b", "--", "true"], 2, "'a b' is no name of a group"),
        (
            &["run", "--group", "work", "--slots", "3", "--", "true"],
            2,
            "it takes 3 slots, and group 'work' has 2",
        ),
        (&["run", "--slots", "0", "--", "true"], 2, "0 slots are not possible"),
        (&["run", "--slots", "-1", "--", "true"], 2, "--slots"),
        (&["run", "--priority", "high", "--", "true"], 2, "--priority"),
        (&["run", "--priority", "2147483648", "--", "true"], 2, "--priority"),
        (&["run", "--need", "tpu=1", "--", "true"], 2, "there is no resource 'tpu'; there are gpu;"),
        (&["run", "--need", "gpu=3", "--", "true"], 2, "it needs 3 of resource 'gpu', and there are 2"),
        (&["run", "--need", "gpu=0", "--", "true"], 2, "0 of resource 'gpu' are not possible"),
        (&["run", "--need", "gpu=x", "--", "true"], 2, "'x' is no number of 'gpu'"),
        (&["run", "--need", "gpu=1", "--need", "gpu=2", "--", "true"], 2, "'gpu' is given twice"),
        (&["group", "set", "work", "--slots", "0"], 2, "pause it"),
        (&["group", "set", "work", "--pause", "--resume"], 2, "--resume"),
        (&["group", "set", ""], 2, "no name of a group"),
        (&["group", "pause", "none"], 3, "there is no group 'none'"),
        (&["group", "resume", "none"], 3, "there is no group 'none'"),
        (&["group", "rm", "none"], 3, "there is no group 'none'"),
        (&["group", "rm", "default"], 4, "stays"),
        (&["group", "rm", "work"], 4, "group 'work' still has jobs: 1 running, 1 waiting"),
        (&["edit", "later", "--group", "none"], 2, "there is no group 'none'"),
        (&["edit", "later", "--slots", "3"], 2, "group 'work' has 2"),
        (&["edit", "later", "--need", "gpu=3"], 2, "there are 2"),
        (&["wait", "--group", "none"], 125, "there is no group 'none'"),
        (&["explain", "none"], 3, "none"),
    ] {
        let said = home.nodejobs(words);
        assert!(said.code == code && said.stderr.contains(why), "{words:?}: {said:?}");
    }
    assert_eq!(home.records().len(), 2, "nothing was done");
    for bad in ["gpu = -1", "gpu = \"2\"", "GPU = 2", "gpu = 2000000"] {
        home.resources(bad);
        let said = home.nodejobs(["daemon", "reload"]);
        assert!(said.code == 2 && said.stderr.contains("line 2"), "{bad}: {said:?}");
    }
    home.ok(["stop", "a", "later"]);
    home.ok(["group", "rm", "work"]);
    assert_eq!(home.nodejobs(["restart", "a"]).code, 2, "its group is gone");
}

#[test]
fn each_has_its_own_of_a_resource() {
    let home = Home::new();
    home.resources("gpu = 2\nlicense = 1");
    let script = "echo $CUDA_VISIBLE_DEVICES $NODEJOBS_RESOURCE_GPU ${NODEJOBS_RESOURCE_LICENSE-none}; \
                  $NODEJOBS run --wait 'echo ${CUDA_VISIBLE_DEVICES-none} ${NODEJOBS_RESOURCE_GPU-none} > inner' > /dev/null; sleep 1000";
    let nodejobs = format!("NODEJOBS={}", crate::support::NODEJOBS);
    for id in ["a", "b", "c"] {
        home.ok(["run", "--id", id, "--need", "gpu=1", "--env", &nodejobs, "--shell", "--", script]);
    }
    home.ok(["run", "--id", "both", "--need", "gpu=2", "--need", "license=1", "--", "env"]);
    let said = |id: &str| {
        eventually(&format!("{id} says something"), || {
            let said = String::from_utf8(home.stdout(id)).expect("UTF-8");
            said.ends_with('\n').then(|| said.trim().to_owned())
        })
    };
    assert_eq!([said("a"), said("b")], ["0 0 none", "1 1 none"]);
    eventually("what it submits has nothing of it", || {
        (crate::support::lines(&home.path().join("inner")) == ["none none"]).then_some(())
    });
    assert!(home.ok(["status", "b"]).contains("gpu=1 (number 1)"));
    let why = home.ok(["explain", "c"]);
    assert!(why.contains("2 of 2 of resource 'gpu' are in use") && why.contains("held by a, b"), "{why}");
    kill(home.daemon_pid());
    home.ok(["stop", "a"]);
    assert_eq!(said("c"), "0 0 none", "the next daemon knows who has which");
    // More of them, while jobs run.
    home.resources("gpu = 4\nlicense = 1");
    home.ok(["daemon", "reload"]);
    home.ended("both");
    let environment = String::from_utf8(home.stdout("both")).expect("UTF-8");
    for line in ["CUDA_VISIBLE_DEVICES=2,3", "NODEJOBS_RESOURCE_GPU=2,3", "NODEJOBS_RESOURCE_LICENSE=0"] {
        assert!(environment.lines().any(|found| found == line), "{line}: {environment}");
    }
}

#[test]
fn a_group_is_waited_for() {
    let home = Home::new();
    home.ok(["group", "set", "work", "--slots", "1"]);
    assert_eq!(home.nodejobs(["wait", "--group", "work"]).code, 0, "nobody is left");
    let hold = "until [ -e over ]; do sleep 0.02; done";
    for (id, script) in [("a", hold), ("b", "exit 7"), ("c", "exit 3")] {
        home.ok(["run", "--id", id, "--group", "work", "--shell", "--", script]);
    }
    home.ok(["run", "--id", "elsewhere", "--", "sleep", "1000"]);
    let mut wait = home.command(["-o", "json", "wait", "--group", "work"]);
    let wait = wait.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("nodejobs starts");
    std::fs::write(home.path().join("over"), "").expect("written");
    let output = wait.wait_with_output().expect("ended");
    assert_eq!(home.statuses_of(&["a", "b", "c"]), ["finished", "failed", "failed"], "nobody is left");
    let ended: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let ids: Vec<_> =
        ended.as_array().expect("records").iter().map(|record| text(record, "self_id")).collect();
    // It may have begun late.
    assert!(["a", "b", "c"].ends_with(&ids), "{ids:?}");
    let code = if ids.contains(&"b") { 7 } else { 3 * i32::from(ids.contains(&"c")) };
    assert_eq!(output.status.code(), Some(code));
    assert_eq!(home.nodejobs(["wait", "--group", "default", "--timeout", "50ms"]).code, 124);
}

/// As the owner, and as somebody who is connected to it.
#[test]
fn the_library_has_all_of_it() {
    let home = Home::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let options = || OpenOptions { keeper: Some(KEEPER.into()), ..OpenOptions::default() };
        let owner = Jobs::open_with(home.data_dir(), options()).await.expect("opened");
        let connected = Jobs::open_with(home.data_dir(), options()).await.expect("connected");
        for (number, jobs) in [&owner, &connected].into_iter().enumerate() {
            let name = format!("g{number}");
            let (slots, paused) = (Some(Slots::Limited(1)), Some(true));
            let change = GroupChange { slots, paused, ..GroupChange::default() };
            assert!(jobs.set_group(&name, change).await.expect("made").paused);
            assert!(jobs.groups().await.expect("listed").iter().any(|group| group.name == name));
            let spec = JobSpec::new(Command::argv(["true"]), "/").group(&name);
            let job = jobs.run(spec).await.expect("accepted");
            let id = job.self_id.as_str();
            let edits = Edits { priority: Some(4), ..Edits::default() };
            assert_eq!(jobs.edit(id, &edits).await.expect("changed").priority, 4);
            let place = jobs.explain(id).await.expect("explained").queue.expect("it waits");
            assert_eq!((place.position, place.priority), (1, 4));
            let refused = jobs.remove_group(&name).await.expect_err("it has a job");
            assert_eq!(refused.kind(), nodejobs::api::ProblemKind::Conflict);
            let paused = Some(false);
            jobs.set_group(&name, GroupChange { paused, ..GroupChange::default() }).await.expect("resumed");
            let ended = jobs.wait_for_group(&name).await.expect("ended");
            assert!(ended.len() <= 1 && ended.iter().all(|record| record.self_id == job.self_id));
            assert_eq!(jobs.remove_group(&name).await.expect("removed").slots, Some(1));
        }
        connected.close().await;
        owner.close().await;
    });
}
