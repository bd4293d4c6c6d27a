//! Many at once, and what comes in between: one owner, one job for an id, nothing lost.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::support::{Home, Said, eventually, is_alive, kill, lines, pid_of, signal};

/// Starts all of them before any is waited for.
fn at_once(commands: impl IntoIterator<Item = Command>) -> Vec<Said> {
    let start = |mut command: Command| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nodejobs starts")
    };
    let children: Vec<Child> = commands.into_iter().map(start).collect();
    let end = |child: Child| {
        let output = child.wait_with_output().expect("nodejobs ends");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Said { code: output.status.code().unwrap_or(-1), stdout: output.stdout, stderr }
    };
    children.into_iter().map(end).collect()
}

/// The processes that serve as daemons of this directory.
fn daemons(home: &Home) -> Vec<u32> {
    let is_daemon = |pid: &u32| {
        let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command_line).contains("daemon\0serve")
    };
    home.processes().into_iter().map(|(pid, _)| pid).filter(is_daemon).collect()
}

/// N14, on a directory that nobody has used before and on one with a daemon.
#[test]
fn of_many_submits_of_one_id_one_wins() {
    let home = Home::new();
    let evidence = home.path().join("evidence");
    let script = format!("echo $JOB_ID $$ >> '{}'; exec sleep 1000", evidence.display());
    for round in 1..=4 {
        let id = format!("x{round}");
        let said = at_once((0..8).map(|_| home.command(["run", "--id", &id, "--", "sh", "-c", &script])));
        let count = |code| said.iter().filter(|said| said.code == code).count();
        assert_eq!((count(0), count(4)), (1, 7), "{said:?}");
        let record = home.running(&id);
        assert_eq!((&record["status"], &record["attempt"]), (&"running".into(), &1.into()), "{record}");
        let mine = || -> Vec<String> {
            lines(&evidence).into_iter().filter(|line| line.starts_with(&format!("{id} "))).collect()
        };
        eventually("it has left evidence", || (!mine().is_empty()).then_some(()));
        assert_eq!(mine(), [format!("{id} {}", record["last_pid"])], "one was executed");
    }
    assert_eq!(home.nodejobs(["-o", "json", "ls"]).json().as_array().map(Vec::len), Some(4));
    assert_eq!(lines(&evidence).len(), 4);
}

/// As a client does that heard no answer, and whose first request is still on its way.
#[test]
fn a_submit_without_an_id_that_is_sent_again_at_once_is_one_job() {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    for round in 0..20 {
        let spec = format!(r#"{{"command":{{"argv":["true"]}},"cwd":"/","submit_key":"{round}"}}"#);
        let head = "POST /v1/jobs?resend=true HTTP/1.1\r\nhost: x\r\nconnection: close";
        let send = |_| {
            let mut stream = UnixStream::connect(home.data_dir().join("sock")).expect("a daemon");
            write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{spec}", spec.len()).expect("sent");
            stream
        };
        let streams: Vec<UnixStream> = (0..8).map(send).collect();
        let id = |mut stream: UnixStream| {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answered");
            let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
            let record: serde_json::Value = serde_json::from_str(body).expect("a record");
            record["self_id"].as_str().expect("an id").to_owned()
        };
        let ids: HashSet<String> = streams.into_iter().map(id).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
    }
}

#[test]
fn the_first_commands_ever_all_meet_one_daemon() {
    let home = Home::new();
    let evidence = home.path().join("evidence");
    let script = format!("echo $JOB_ID >> '{}'", evidence.display());
    let said = at_once((0..16).map(|_| home.command(["run", "--wait", "--", "sh", "-c", &script])));
    assert!(said.iter().all(|said| said.code == 0), "{said:?}");
    assert_eq!(daemons(&home), [home.daemon_pid()]);
    assert_eq!(home.daemon()["keepers"].as_array().map(Vec::len), Some(1));
    let mut ids: Vec<String> = said.iter().map(Said::text).collect();
    let mut executed = lines(&evidence);
    ids.sort();
    executed.sort();
    assert_eq!(executed, ids);
    ids.dedup();
    assert_eq!(ids.len(), 16);
}

#[test]
fn a_daemon_that_is_there_is_not_started_again() {
    let home = Home::new();
    let said = at_once((0..6).map(|_| home.command(["daemon", "start"])));
    let pid = home.daemon_pid();
    let count = |words: &str| {
        said.iter()
            .filter(|said| said.code == 0 && said.stderr.trim() == format!("{words} (pid {pid})"))
            .count()
    };
    assert_eq!((count("started"), count("already running")), (1, 5), "{said:?}");
    let again = home.nodejobs(["daemon", "start"]);
    assert_eq!((again.code, again.stderr), (0, format!("already running (pid {pid})\n")));
    assert_eq!(daemons(&home), [pid]);
}

#[test]
fn stopping_a_daemon_that_is_not_there_starts_none() {
    let home = Home::new();
    let said = home.nodejobs(["daemon", "stop"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, "not running\n"));
    let said = home.nodejobs(["daemon", "status"]);
    assert_eq!(said.code, 5, "{said:?}");
    assert!(!home.data_dir().exists());
}

/// Ends the daemon under a job that runs and one that ends meanwhile, and looks for both again.
fn jobs_go_on_without(end: impl Fn(&Home, u32)) {
    let home = Home::new();
    let go = home.path().join("go");
    let script = format!("echo one; until [ -e '{}' ]; do sleep 0.02; done; echo two; exit 7", go.display());
    home.ok(["run", "--id", "ends", "--", "sh", "-c", &script]);
    home.ok(["run", "--id", "stays", "--", "sleep", "1000"]);
    let (ends, stays) = (home.running("ends"), home.running("stays"));
    let daemon = home.daemon_pid();
    end(&home, daemon);
    eventually("the daemon is gone", || (!is_alive(daemon)).then_some(()));
    assert_eq!(daemons(&home), [0; 0]);
    assert!(is_alive(pid_of(&stays["last_pid"])) && is_alive(pid_of(&ends["last_pid"])));
    std::fs::write(&go, "").expect("written");
    eventually("the job ends", || (!is_alive(pid_of(&ends["last_pid"]))).then_some(()));
    let ended = home.ended("ends");
    assert_eq!((&ended["status"], &ended["exit_code"]), (&"failed".into(), &7.into()), "{ended}");
    assert_eq!(home.ok(["logs", "ends"]), "one\ntwo");
    let after = home.record("stays");
    assert_eq!((&after["status"], &after["last_pid"]), (&"running".into(), &stays["last_pid"]));
    assert_ne!(home.daemon_pid(), daemon);
    home.ok(["stop", "stays"]);
    assert_eq!(home.record("stays")["status"], "stopped");
}

#[test]
fn jobs_go_on_when_the_daemon_is_stopped() {
    jobs_go_on_without(|home, _| drop(home.ok(["daemon", "stop"])));
}

#[test]
fn jobs_go_on_when_the_daemon_is_terminated() {
    jobs_go_on_without(|_, daemon| signal(daemon, Signal::TERM));
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_no_daemon() {
    jobs_go_on_without(|home, daemon| {
        let socket = home.daemon()["socket"].as_str().expect("a path").to_owned();
        kill(daemon);
        assert!(std::path::Path::new(&socket).exists(), "nobody could remove it");
    });
}

#[test]
fn a_submit_finds_a_daemon_whatever_becomes_of_the_one_there_is() {
    let home = Home::new();
    for round in 0..12 {
        let id = format!("r{round}");
        let run = home.command(["run", "--id", &id, "--", "true"]);
        let stop = home.command(["daemon", "stop"]);
        let status = home.command(["ls"]);
        let commands = if round % 2 == 0 { [run, stop, status] } else { [stop, status, run] };
        let said = at_once(commands);
        assert!(said.iter().all(|said| said.code == 0), "{said:?}");
        // One that has given the directory up may still be on its way out.
        eventually("at most one daemon is left", || (daemons(&home).len() <= 1).then_some(()));
    }
    for round in 0..12 {
        let record = home.ended(&format!("r{round}"));
        assert_eq!((&record["status"], &record["attempt"]), (&"finished".into(), &1.into()), "{record}");
    }
}

#[test]
fn a_submit_survives_the_kill_of_the_daemon_that_reads_it() {
    let home = Home::new();
    let evidence = home.path().join("evidence");
    let script = format!("echo $JOB_ID >> '{}'", evidence.display());
    let mut ids = Vec::new();
    for _ in 0..10 {
        home.ok(["ls"]);
        let daemon = home.daemon_pid();
        let mut run = home.command(["run", "--", "sh", "-c", &script]);
        let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nodejobs starts");
        kill(daemon);
        let output = child.wait_with_output().expect("nodejobs ends");
        assert!(output.status.success(), "{output:?}");
        ids.push(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    for id in &ids {
        let record = home.ended(id);
        assert_eq!((&record["status"], &record["attempt"]), (&"finished".into(), &1.into()), "{record}");
    }
    let mut executed = lines(&evidence);
    executed.sort();
    ids.sort();
    assert_eq!(executed, ids, "every job was executed once, and no other");
}

/// N21
#[test]
fn two_directories_know_nothing_of_each_other() {
    let (one, other) = (Home::new(), Home::new());
    for home in [&one, &other] {
        home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    }
    let stays = pid_of(&other.running("a")["last_pid"]);
    assert_ne!(pid_of(&one.running("a")["last_pid"]), stays);
    one.ok(["stop", "--all"]);
    assert_eq!(one.record("a")["status"], "stopped");
    assert_eq!(other.record("a")["status"], "running");
    assert!(is_alive(stays));
}

/// A killed daemon's socket is gone a moment before its lock; who comes in between waits for the lock.
#[test]
fn an_owner_that_is_still_dying_is_waited_for() {
    let home = Home::new();
    home.ok(["run", "--wait", "--", "true"]);
    kill(home.daemon_pid());
    let lock = std::fs::File::open(home.data_dir().join("owner.lock")).expect("the lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the dead daemon's lock");
    let mut list = home.command(["ls"]).stdout(std::process::Stdio::null()).spawn().expect("nodejobs starts");
    eventually("a new daemon wants the directory", || {
        home.processes().iter().any(|(_, name)| name == "nodejobs").then_some(())
    });
    drop(lock);
    assert!(list.wait().expect("it ends").success());
}
