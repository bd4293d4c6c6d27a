//! `events`: everything that happened, in order, each once, whoever is killed meanwhile.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Home, kill, text};

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["seq"].as_u64().expect("a number")).collect()
}

#[test]
fn all_that_happened_is_told_in_order_and_from_any_number_on() {
    let home = Home::new();
    assert_eq!(home.nodejobs(["-o", "json", "events"]).json(), serde_json::json!([]));
    home.ok(["run", "--id", "a", "--wait", "--", "true"]);
    assert_eq!(home.nodejobs(["run", "--id", "a", "--wait", "exit 3"]).code, 3);
    let all = home.nodejobs(["-o", "json", "events"]).json().as_array().expect("events").clone();
    assert_eq!(numbers(&all), (1..=all.len() as u64).collect::<Vec<_>>());
    let told: Vec<_> = all.iter().map(|event| (event["attempt"].as_u64(), text(event, "status"))).collect();
    let expected = [1, 2].map(|attempt| {
        ["starting", "running", if attempt == 1 { "finished" } else { "failed" }]
            .map(|status| (Some(attempt), status))
    });
    assert_eq!(told, expected.concat());
    let lines = home.ok(["-o", "jsonl", "events", "--after", "4"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines, all[4..]);
    let table = home.ok(["events"]);
    assert_eq!(table.lines().count(), all.len());
    assert!(
        table.lines().last().is_some_and(|line| line.ends_with("a, attempt 2: failed (exit)")),
        "{table}"
    );
    assert_eq!(home.ok(["events", "--after", "999"]), "");
    let refused = home.nodejobs(["-o", "json", "events", "-f"]);
    assert!(refused.code == 2 && refused.stderr.contains("-o jsonl"), "{refused:?}");
}

/// C14
#[test]
fn a_listener_misses_nothing_when_the_daemon_is_killed_or_restarted() {
    let home = Home::new();
    home.ok(["run", "--id", "before", "--wait", "--", "true"]);
    let mut command = home.command(["-o", "jsonl", "events", "-f", "--after", "0"]);
    let mut listener = command.stdout(Stdio::piped()).spawn().expect("started");
    let mut said = BufReader::new(listener.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        let line = said.next().expect("it goes on").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    };
    let mut heard = vec![next()];
    for (number, end) in ["kill", "restart", "kill"].into_iter().enumerate() {
        home.ok(["run", "--id", &format!("job-{number}"), "--wait", "--", "true"]);
        if end == "kill" {
            kill(home.daemon_pid());
        } else {
            home.ok(["daemon", "restart"]);
        }
    }
    home.ok(["run", "--id", "last", "--wait", "--", "true"]);
    while !heard.last().is_some_and(|event| event["id"] == "last" && event["status"] == "finished") {
        heard.push(next());
    }
    assert_eq!(numbers(&heard), (1..=heard.len() as u64).collect::<Vec<_>>(), "{heard:?}");
    for id in ["before", "job-0", "job-1", "job-2", "last"] {
        let told: Vec<_> =
            heard.iter().filter(|event| event["id"] == id).map(|event| text(event, "status")).collect();
        assert_eq!(told, ["starting", "running", "finished"], "{id}");
    }
    listener.kill().expect("killed");
    listener.wait().expect("ended");
}

#[test]
fn without_a_number_a_listener_hears_only_what_is_new() {
    let home = Home::new();
    home.ok(["run", "--id", "old", "--wait", "--", "true"]);
    let mut listener = home.command(["events", "-f"]).stdout(Stdio::piped()).spawn().expect("started");
    let mut said = BufReader::new(listener.stdout.take().expect("piped")).lines();
    // Until it listens nobody knows, so there is something new until it says so.
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let first = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                home.ok(["run", "--wait", "--", "true"]);
            }
        });
        let first = said.next().expect("something").expect("a line");
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        first
    });
    assert!(!first.contains("old"), "{first}");
    listener.kill().expect("killed");
    listener.wait().expect("ended");
}
