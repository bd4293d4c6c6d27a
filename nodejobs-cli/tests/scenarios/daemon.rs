//! The daemon as a process: how it ends, what becomes of one that dies again and again, and how long its log gets.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

#[cfg(feature = "sqlite")]
use crate::support::Cue;
use crate::support::{Home, eventually, is_alive, kill, pid_of, signal};

/// The bytes of the daemon's log, or of the one before it.
fn log_length(home: &Home, ending: &str) -> u64 {
    std::fs::metadata(home.data_dir().join(format!("daemon.log{ending}"))).map_or(0, |found| found.len())
}

/// What is remembered of starts that failed.
fn failed_starts(home: &Home) -> Value {
    let bytes = std::fs::read(home.data_dir().join("failed-starts.json")).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Overwrites the store of a directory without a daemon; what it held.
fn damage_store(home: &Home) -> Vec<u8> {
    let store = home.store_file();
    let good = std::fs::read(&store).expect("a store");
    std::fs::write(&store, "this is no store").expect("written");
    good
}

#[test]
fn a_daemon_that_cannot_serve_is_not_started_by_every_command() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--wait", "--", "true"]);
    home.ok(["daemon", "stop"]);
    let good = damage_store(&home);
    for failures in 1..=3 {
        let ls = home.nodejobs(["ls"]);
        assert!(ls.code == 5 && !ls.stderr.contains("in a row"), "{ls:?}");
        assert_eq!(failed_starts(&home)["failures"], failures);
    }
    let noted = std::fs::metadata(home.data_dir().join("failed-starts.json")).expect("noted");
    assert_eq!(noted.permissions().mode() & 0o7777, 0o600);
    // More than the pause that three are worth, so that a slow machine still meets it.
    for failures in 4..=7 {
        assert_eq!(home.nodejobs(["daemon", "start"]).code, 5, "it always tries");
        assert_eq!(failed_starts(&home)["failures"], failures);
    }
    for (command, code) in [(&["ls"][..], 5), (&["run", "--", "true"], 5), (&["wait", "a"], 125)] {
        let refused = home.nodejobs(command);
        assert_eq!(refused.code, code, "{refused:?}");
        let path = home.store_path();
        let path = path.to_str().expect("UTF-8");
        for words in ["failed 7 times in a row", "next try is in ", "`nodejobs daemon start`", path] {
            assert!(refused.stderr.contains(words), "'{words}' is not in {refused:?}");
        }
    }
    assert_eq!(failed_starts(&home)["failures"], 7, "nothing was started");
    std::fs::write(home.store_file(), good).expect("restored");
    assert!(home.ok(["ls"]).contains("finished"), "who has put things in order does not wait");
    home.ok(["daemon", "stop"]);
    assert_eq!(failed_starts(&home), Value::Null, "a daemon has left in order");
}

#[test]
fn a_daemon_that_is_killed_while_it_starts_is_told_so_and_started_by_hand() {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    home.ok(["daemon", "stop"]);
    // Whoever holds this lets no daemon get further.
    let lock = std::fs::File::open(home.data_dir().join("owner.lock")).expect("the lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    let list = home.command(["ls"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
    let mut killed = Vec::new();
    for _ in 1..=3 {
        let pid = eventually("a daemon starts", || {
            let daemons = home.processes().into_iter().map(|(pid, _)| pid);
            daemons.filter(|pid| !killed.contains(pid)).find(|pid| is_alive(*pid))
        });
        kill(pid);
        killed.push(pid);
    }
    let list = list.wait_with_output().expect("ended");
    let words = String::from_utf8_lossy(&list.stderr);
    assert_eq!(list.status.code(), Some(5), "{words}");
    assert!(words.contains("failed 3 times in a row") && words.contains("signal: 9"), "{words}");
    drop(lock);
    home.ok(["daemon", "start"]);
    assert_eq!(failed_starts(&home), Value::Null, "it serves");
    assert_eq!(home.nodejobs(["ls"]).code, 0);
}

/// Somebody else writes to the store, which only SQLite lets them do, and the owner, which cannot go on then, says so and ends.
#[cfg(feature = "sqlite")]
fn confuse_owner(home: &Home, id: &str) {
    let cue = Cue::new(home, id);
    home.ok(["run", "--id", id, "--shell", "--", &format!("read line < {}", cue.path())]);
    home.running(id);
    let daemon = home.daemon_pid();
    let store = rusqlite::Connection::open(home.store_file()).expect("the store");
    let changed = store.execute("UPDATE jobs SET revision = revision + 7 WHERE id = ?1", [id]);
    assert_eq!(changed.expect("written"), 1);
    drop(store);
    cue.say("go");
    eventually("the owner has ended by itself", || (!is_alive(daemon)).then_some(()));
}

#[cfg(feature = "sqlite")]
#[test]
fn a_daemon_that_dies_by_itself_again_and_again_is_let_be() {
    let home = Home::new();
    for round in 1..=3 {
        confuse_owner(&home, &format!("job-{round}"));
        eventually("it has noted its end", || (failed_starts(&home)["failures"] == round).then_some(()));
    }
    assert!(failed_starts(&home)["why"].as_str().expect("words").contains("owner stopped"));
    // The store was written to by the owner itself; from now on nobody does.
    let refused = home.nodejobs(["ls"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains("failed 3 times in a row"), "{refused:?}");
    home.ok(["daemon", "start"]);
    assert_eq!(failed_starts(&home), Value::Null);
    for round in 1..=3 {
        assert_eq!(home.ended(&format!("job-{round}"))["status"], "finished");
    }
}

#[test]
fn a_daemon_that_is_killed_while_it_serves_is_started_again_each_time() {
    let home = Home::new();
    for _ in 0..12 {
        home.ok(["ls"]);
        kill(home.daemon_pid());
        assert_eq!(failed_starts(&home), Value::Null);
    }
    home.ok(["ls"]);
}

#[test]
fn the_daemon_s_log_has_its_bounds() {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    home.ok(["daemon", "stop"]);
    let path = home.data_dir().join("daemon.log");
    for letter in ["a", "b"] {
        // Nearly full: its next lines do not fit.
        std::fs::write(&path, format!("{letter}\n").repeat((1 << 19) - 10)).expect("written");
        home.ok(["daemon", "start"]);
        let full = std::fs::read_to_string(home.data_dir().join("daemon.log.1")).expect("put aside");
        assert!(full.starts_with(letter) && full.len() <= 1 << 20, "{}", full.len());
        let new = std::fs::read_to_string(&path).expect("a new one");
        assert!(new.contains("owns ") && new.len() < 1000, "{new}");
        // What the process says outside of its log lines, such as its last error, goes there as well.
        let stderr = std::fs::read_link(format!("/proc/{}/fd/2", home.daemon_pid())).expect("a link");
        assert_eq!(stderr, path.canonicalize().expect("a path"));
        home.ok(["daemon", "stop"]);
    }
    // Errors of daemons that never get as far as a log line count as well.
    std::fs::write(&path, "c\n".repeat(1 << 20)).expect("written");
    let good = damage_store(&home);
    assert_eq!(home.nodejobs(["daemon", "start"]).code, 5);
    assert!(log_length(&home, "") < 2000, "{}", log_length(&home, ""));
    std::fs::write(home.store_file(), good).expect("restored");
}

/// A daemon in the foreground, as a service manager runs it.
fn serve(home: &Home) -> Child {
    let mut command = home.command(["daemon", "serve"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    eventually("it serves", || (home.nodejobs(["daemon", "status"]).code == 0).then_some(()));
    child
}

/// C15
#[test]
fn a_daemon_in_the_foreground_leaves_in_order_and_ends_by_its_signal() {
    for (sent, number) in [(Signal::TERM, 15), (Signal::INT, 2)] {
        let home = Home::new();
        let mut daemon = serve(&home);
        home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
        let job = pid_of(&home.running("a")["last_pid"]);
        home.ok(["run", "--id", "ended", "--wait", "--", "true"]);
        // One has sent half a request and may not hold it up; one waits and is to be answered.
        let mut half = UnixStream::connect(home.data_dir().join("sock")).expect("a socket");
        half.write_all(b"POST /v1/jobs HTTP/1.1\r\ncontent-length: 100\r\n\r\n{").expect("sent");
        let mut waiting = home.command(["wait", "ended", "a", "-o", "jsonl"]);
        let mut waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        let mut first = String::new();
        let mut heard = BufReader::new(waiting.stdout.take().expect("its output"));
        heard.read_line(&mut first).expect("the first answer");
        assert!(first.contains("finished"), "{first}");
        let before = Instant::now();
        signal(daemon.id(), sent);
        let status = daemon.wait().expect("ended");
        assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
        assert_eq!((status.signal(), status.code()), (Some(number), None));
        assert!(!home.data_dir().join("sock").exists(), "the socket is gone");
        let waiting = waiting.wait_with_output().expect("ended");
        let words = String::from_utf8_lossy(&waiting.stderr);
        assert!(waiting.status.code() == Some(125) && words.contains("leaving"), "{words}");
        assert!(is_alive(job));
        assert_eq!(failed_starts(&home), Value::Null);
        assert_eq!(home.record("a")["last_pid"], json!(job));
        home.ok(["stop", "a"]);
    }
}

#[test]
fn a_second_signal_ends_a_daemon_at_once() {
    let home = Home::new();
    let mut daemon = serve(&home);
    // Nobody can leave in order as long as somebody else holds this.
    let lock = std::fs::File::open(home.data_dir().join("start.lock")).expect("the lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    signal(daemon.id(), Signal::TERM);
    eventually("it leaves", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim().to_owned();
        let caught = u64::from_str_radix(&caught, 16).expect("a mask");
        (caught & (1 << 14) == 0).then_some(())
    });
    signal(daemon.id(), Signal::INT);
    assert_eq!(daemon.wait().expect("ended").signal(), Some(2));
}

#[test]
fn whoever_watches_a_job_ends_by_a_signal_at_once_and_the_job_goes_on() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--shell", "--", "echo started; exec sleep 1000"]);
    let job = home.running("a")["last_pid"].clone();
    let watchers = [
        &["wait", "a"][..],
        &["logs", "-f", "a"],
        &["run", "--id", "b", "--wait", "--", "sleep", "1000"],
        &["run", "--id", "c", "--follow", "--", "sleep", "1000"],
    ];
    for words in watchers {
        for (sent, number) in [(Signal::TERM, 15), (Signal::INT, 2)] {
            let mut command = home.command(words);
            let mut watcher = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
            if words[0] == "run" {
                eventually("its job runs", || {
                    let said = home.nodejobs(["-o", "json", "status", words[2]]);
                    (said.code == 0 && said.json()["status"] == "running").then_some(())
                });
            }
            eventually("it waits for the daemon", || {
                let files =
                    std::fs::read_dir(format!("/proc/{}/fd", watcher.id())).expect("its files").flatten();
                let mut links = files.filter_map(|entry| std::fs::read_link(entry.path()).ok());
                let is_connected = links.any(|link| link.to_string_lossy().starts_with("socket:"));
                let stat =
                    std::fs::read_to_string(format!("/proc/{}/stat", watcher.id())).expect("its state");
                (is_connected && stat.contains(") S ")).then_some(())
            });
            let before = Instant::now();
            signal(watcher.id(), sent);
            assert_eq!(watcher.wait().expect("ended").signal(), Some(number), "{words:?}");
            assert!(before.elapsed() < Duration::from_millis(500), "{words:?} {:?}", before.elapsed());
            if words[0] == "run" {
                assert_eq!(home.record(words[2])["status"], "running", "{words:?}");
                home.ok(["stop", words[2]]);
            }
        }
    }
    let record = home.record("a");
    assert_eq!((&record["status"], &record["last_pid"]), (&json!("running"), &job));
    home.ok(["stop", "a"]);
}

#[test]
fn clients_that_are_halted_keep_no_daemon_from_leaving() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--wait", "head -c 20000000 /dev/zero"]);
    let mut half = UnixStream::connect(home.data_dir().join("sock")).expect("a socket");
    half.write_all(b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").expect("sent");
    // Nobody reads what it writes, as when somebody looks at the first page of it.
    let watchers = [&["logs", "a"][..], &["logs", "-f", "a"], &["logs", "-o", "jsonl", "a"]];
    let mut watchers = watchers.map(|words| {
        let mut watcher = home.command(words).stdout(Stdio::piped()).spawn().expect("started");
        let mut first = [0];
        let stdout = watcher.stdout.as_mut().expect("a pipe");
        std::io::Read::read_exact(stdout, &mut first).expect("it has begun");
        signal(watcher.id(), Signal::STOP);
        watcher
    });
    let daemon = home.daemon_pid();
    let before = Instant::now();
    home.ok(["daemon", "stop"]);
    assert!(!is_alive(daemon) && before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    assert_eq!(home.nodejobs(["run", "--wait", "--", "true"]).code, 0);
    for watcher in &mut watchers {
        watcher.kill().expect("killed");
        watcher.wait().expect("ended");
    }
}

#[test]
fn a_daemon_whose_directory_is_removed_leaves() {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    let pid = home.daemon_pid();
    std::fs::remove_dir_all(home.data_dir()).expect("removed");
    eventually("it has left", || (!is_alive(pid)).then_some(()));
    assert!(!home.data_dir().exists(), "it leaves nothing behind");
}

#[test]
fn a_keeper_s_dead_processes_are_in_the_log() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    home.running("a");
    let (guard, worker) = home.keeper();
    let log = || std::fs::read_to_string(home.data_dir().join("daemon.log")).unwrap_or_default();
    kill(worker);
    eventually("the worker is missed", || log().contains("its worker is gone").then_some(()));
    kill(guard);
    eventually("the guard is missed", || log().contains("both of its processes are gone").then_some(()));
    // A keeper that drains and then leaves is not missed, though the first one's job still has none.
    home.ok(["run", "--id", "b", "--", "sleep", "1000"]);
    home.running("b");
    kill(home.keeper().1);
    eventually("it drains", || (log().matches("its worker is gone").count() == 2).then_some(()));
    home.ok(["stop", "b"]);
    eventually("it has left", || (home.daemon()["keepers"] == json!([])).then_some(()));
    assert_eq!(log().matches("both of its processes are gone").count(), 1, "{}", log());
    home.ok(["stop", "a"]);
}
