//! Signals that somebody sends to jobs.

use rustix::process::Signal;

use crate::support::{Home, kill, lines, signal, text};

/// Notes each SIGUSR1, in a child as well, and says when both are ready.
const NOTES: &str = "(trap 'echo child >> got' USR1; touch child; while :; do sleep 0.02; done) & \
                     trap 'echo main >> got' USR1; while [ ! -e child ]; do sleep 0.02; done; touch ready; \
                     while :; do sleep 0.02; done";

fn noting() -> Home {
    let home = Home::new();
    home.ok(["run", "--id", "a", NOTES]);
    home.ready("ready");
    home
}

fn got(home: &Home, what: &[&str]) {
    crate::support::eventually(&format!("{what:?} is noted"), || {
        let mut got = lines(&home.path().join("got"));
        got.sort();
        (got == what).then_some(())
    });
}

#[test]
fn a_signal_goes_to_the_main_process_or_to_all() {
    let home = noting();
    assert_eq!(home.ok(["signal", "usr1", "a"]), "a: SIGUSR1");
    got(&home, &["main"]);
    home.ok(["signal", "--tree", "SIGUSR1", "a"]);
    got(&home, &["child", "main", "main"]);
    // Whoever owns the directory, and by number.
    kill(home.daemon_pid());
    home.ok(["signal", "10", "a"]);
    got(&home, &["child", "main", "main", "main"]);
    assert_eq!(text(&home.record("a"), "status"), "running");
}

#[test]
fn a_job_that_ends_of_a_signal_has_failed() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    home.running("a");
    home.ok(["signal", "KILL", "a"]);
    let record = home.ended("a");
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed", "signal"), "{record}");
    assert_eq!(record["signal"], 9);
}

#[test]
fn what_cannot_be_sent_is_refused_before_anything_is() {
    let home = Home::new();
    for bad in ["NOPE", "0", "32", "SIG", ""] {
        let said = home.nodejobs(["signal", bad, "a"]);
        assert!(said.code == 2 && said.stderr.contains("is not a signal"), "{said:?}");
    }
    for (bad, instead) in [("stop", "`pause`"), ("18", "`resume`")] {
        let said = home.nodejobs(["signal", bad, "a"]);
        assert!(said.code == 2 && said.stderr.contains(instead), "{said:?}");
    }
    assert!(!home.data_dir().exists(), "no daemon was started for it");
    home.ok(["run", "--id", "over", "--wait", "--", "true"]);
    home.ok(["run", "--id", "waits", "--delay", "1h", "--", "true"]);
    home.ok(["run", "--id", "runs", "--", "sleep", "1000"]);
    for (id, status) in [("over", "finished"), ("waits", "queued")] {
        let said = home.nodejobs(["signal", "HUP", id]);
        assert!(said.code == 4 && said.stderr.contains(&format!("'{id}' is {status}")), "{said:?}");
    }
    assert_eq!(home.nodejobs(["signal", "HUP", "nobody"]).code, 3);
    let said = home.nodejobs(["-o", "json", "signal", "WINCH", "runs", "over", "nobody"]);
    assert_eq!(said.code, 6, "{said:?}");
    assert_eq!(said.json()[0]["record"]["status"], "running");
    assert_eq!(
        (&said.json()[1]["error"]["kind"], &said.json()[2]["error"]["kind"]),
        (&"conflict".into(), &"not_found".into())
    );
}

#[test]
fn a_job_that_is_being_started_gets_it_once_it_runs() {
    let home = Home::new();
    home.ok(["run", "--wait", "--", "true"]);
    let keeper = home.halt_keeper();
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    home.has_status("a", "starting");
    let mut sending =
        home.command(["signal", "INT", "a"]).stdout(std::process::Stdio::null()).spawn().expect("started");
    let waits = (0..10).all(|_| {
        home.has_status("a", "starting");
        sending.try_wait().expect("asked").is_none()
    });
    keeper.into_iter().for_each(|pid| signal(pid, Signal::CONT));
    assert!(sending.wait().expect("waited for").success() && waits, "it waits for the start");
    assert_eq!(home.ended("a")["signal"], 2);
}
