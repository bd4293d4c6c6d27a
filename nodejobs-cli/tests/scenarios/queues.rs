//! In which order who waits is started, and that nobody is forgotten, whoever is killed.

use std::collections::BTreeSet;
use std::time::Instant;

use nodejobs::api::BatchResult;
use nodejobs::client::Client;
use nodejobs::spec::{Command, JobSpec};

use crate::support::{Cue, Home, eventually, kill, lines, said, text};

impl Home {
    /// The ids in the order in which they were started first.
    fn started(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let said = self.nodejobs(["-o", "json", "events"]).json();
        let starting = said.as_array().expect("events").iter().filter(|event| event["status"] == "starting");
        let ids = starting.map(|event| text(event, "id").to_owned());
        ids.filter(|id| seen.insert(id.clone())).collect()
    }

    /// Kills the daemon; the next command starts another one.
    fn kill_daemon(&self) {
        kill(self.daemon_pid());
    }

    fn submit_all(&self, specs: &[JobSpec]) -> Vec<String> {
        let client = Client::connect(self.data_dir()).expect("a daemon");
        let ids = client.submit_batch(specs).expect("an answer").into_iter().map(|result| match result {
            BatchResult::Id(id) => id.to_string(),
            BatchResult::Error(problem) => panic!("{problem}"),
        });
        ids.collect()
    }
}

fn job(script: &str) -> JobSpec {
    JobSpec::new(Command::shell(script), "/").context(nodejobs::capture_context().expect("a context"))
}

/// 1,000 jobs of 10 priorities and 3 slots; the daemon is killed three times on the way.
#[test]
fn the_order_is_exactly_that_of_priorities_and_age() {
    let home = Home::new();
    home.ok(["group", "set", "work", "--slots", "3", "--pause"]);
    let priorities = |number: usize| i32::try_from(number * 7 % 10).expect("small") - 5;
    let specs: Vec<_> =
        (0..1_000).map(|number| job("true").group("work").priority(priorities(number))).collect();
    let ids = home.submit_all(&specs);
    let mut expected: Vec<(i32, usize)> = (0..1_000).map(|number| (-priorities(number), number)).collect();
    expected.sort_unstable();
    let place = |id: &str| home.nodejobs(["-o", "json", "explain", id]).json()["queue"]["position"].clone();
    let last = &ids[expected[999].1];
    assert_eq!((place(&ids[expected[0].1]), place(last)), (1.into(), 1_000.into()));

    home.kill_daemon();
    assert_eq!(place(last), 1_000, "the next one has the same queue, and the group is paused");
    home.ok(["group", "resume", "work"]);
    for part in [200, 400] {
        eventually(&format!("{part} have started"), || (home.started().len() > part).then_some(()));
        home.kill_daemon();
    }
    assert_eq!(home.nodejobs(["wait", "--group", "work"]).code, 0);
    let expected: Vec<&String> = expected.iter().map(|(_, number)| &ids[*number]).collect();
    let started = home.started();
    let first_wrong = started.iter().zip(&expected).position(|(started, expected)| started != *expected);
    assert_eq!((first_wrong, started.len()), (None, 1_000));
    assert!(home.records().iter().all(|record| record["status"] == "finished" && record["attempt"] == 1));
}

/// P7
#[test]
fn two_at_a_time_and_in_order() {
    let home = Home::new();
    home.ok(["group", "set", "pool", "--slots", "2"]);
    let directory = home.path().display();
    let script = format!(
        "mkdir -p {directory}/at && touch {directory}/at/$JOB_ID && ls {directory}/at | wc -l; sleep 0.3; rm {directory}/at/$JOB_ID"
    );
    let begin = Instant::now();
    let ids = home.submit_all(&vec![job(&script).group("pool"); 10]);
    assert_eq!(home.nodejobs(["wait", "--group", "pool"]).code, 0);
    assert!(begin.elapsed().as_millis() >= 1_500, "{:?}", begin.elapsed());
    let counts: Vec<String> =
        ids.iter().map(|id| String::from_utf8(home.stdout(id)).expect("UTF-8").trim().to_owned()).collect();
    assert_eq!(counts.iter().max().map(String::as_str), Some("2"), "{counts:?}");
    assert_eq!(home.started(), ids);
}

/// P9
#[test]
fn who_waits_runs_or_has_ended_is_ended_as_that() {
    let home = Home::new();
    home.ok(["group", "set", "pool", "--slots", "1"]);
    home.ok(["run", "--id", "ended", "--group", "pool", "--wait", "--", "true"]);
    home.ok(["run", "--id", "runs", "--group", "pool", "--", "sleep", "1000"]);
    home.ok(["run", "--id", "waits", "--group", "pool", "--", "true"]);
    home.running("runs");
    home.ok(["stop", "waits"]);
    home.ok(["stop", "runs"]);
    home.ok(["stop", "ended"]);
    let statuses = ["waits", "runs", "ended"].map(|id| text(&home.record(id), "status").to_owned());
    assert_eq!(statuses, ["cancelled", "stopped", "finished"]);
    assert_eq!(text(&home.record("waits"), "reason"), "user");
    assert_eq!(home.nodejobs(["stop", "nobody"]).code, 3);
}

/// P17
#[test]
fn who_waits_needs_neither_the_submitter_nor_a_daemon() {
    let home = Home::new();
    home.ok(["group", "set", "pool", "--pause"]);
    let script = "for n in 1 2 3 4 5; do $NODEJOBS run --id w$n --group pool -- true; done; kill -9 $$";
    assert_eq!(said(&mut home.shell(script)).code, -1, "killed");
    home.kill_daemon();
    home.ok(["group", "resume", "pool"]);
    assert_eq!(home.nodejobs(["wait", "--group", "pool"]).code, 0);
    assert_eq!(home.started(), ["w1", "w2", "w3", "w4", "w5"]);
}

/// However many light ones wait behind it.
#[test]
fn a_heavy_one_is_not_starved() {
    let home = Home::new();
    home.ok(["group", "set", "work", "--slots", "2"]);
    let cues = ["a", "b"].map(|id| (id, Cue::new(&home, &format!("cue-{id}"))));
    for (id, cue) in &cues {
        let script = format!("read x < {}", cue.path());
        home.ok(["run", "--id", id, "--group", "work", "--shell", "--", &script]);
        home.running(id);
    }
    home.ok(["run", "--id", "heavy", "--group", "work", "--slots", "2", "--", "true"]);
    let light = home.submit_all(&vec![job("true").group("work"); 50]);
    cues[0].1.say("go");
    home.ended("a");
    assert_eq!(home.started(), ["a", "b"], "one slot is kept for it");
    let why = home.nodejobs(["-o", "json", "explain", &light[0]]).json();
    assert_eq!((text(&why["queue"], "behind"), &why["queue"]["position"]), ("heavy", &2.into()), "{why}");
    assert!(home.ok(["explain", &light[0]]).contains("'heavy' is before it"));
    home.kill_daemon();
    assert_eq!(home.started(), ["a", "b"], "by the next one, too");
    cues[1].1.say("go");
    assert_eq!(home.nodejobs(["wait", "--group", "work"]).code, 0);
    let started = home.started();
    assert_eq!((started[2].as_str(), &started[3..]), ("heavy", &light[..]));
}

#[test]
fn a_queued_job_becomes_another_one() {
    let home = Home::new();
    home.ok(["group", "set", "work", "--slots", "1", "--pause"]);
    home.ok(["group", "set", "other"]);
    for id in ["a", "b", "c"] {
        home.ok(["run", "--id", id, "--group", "work", "--", "true"]);
    }
    let changed =
        home.nodejobs(["-o", "json", "edit", "c", "--priority", "3", "--name", "x", "--label", "k=v"]);
    let record = changed.json();
    assert_eq!((&record["priority"], text(&record, "name")), (&3.into(), "x"), "{changed:?}");
    assert!(text(&record, "detail").starts_with("1 of 3 that wait in group 'work': group 'work' is paused"));
    home.ok(["edit", "b", "--command", "echo $0 is another one > b"]);
    home.kill_daemon();
    assert_eq!(home.ok(["ls", "-q", "--filter", "name=x"]), "c");
    assert_eq!(home.ok(["ls", "-q", "--label", "k=v"]), "c");
    home.ok(["edit", "a", "--group", "other"]);
    home.ended("a");
    home.ok(["group", "resume", "work"]);
    assert_eq!(home.nodejobs(["wait", "--group", "work"]).code, 0);
    assert_eq!(home.started(), ["a", "c", "b"]);
    assert_eq!(lines(&home.path().join("b")), ["/bin/sh is another one"]);
    let attempts = home.history("c");
    assert_eq!((attempts.len(), text(&attempts[0], "status")), (1, "finished"));
    for (words, code) in [
        (&["edit", "a", "--priority", "1"][..], 4),
        (&["edit", "nobody", "--priority", "1"], 3),
        (&["edit", "a"], 2),
        (&["edit", "a", "--slots", "0"], 2),
        (&["edit", "a", "--name", ""], 2),
        (&["edit", "a", "--command", ""], 2),
    ] {
        let said = home.nodejobs(words);
        assert_eq!(said.code, code, "{words:?}: {said:?}");
    }
}
