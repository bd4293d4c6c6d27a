//! Jobs that read what is sent to them through a pipe of their own.

use std::process::Stdio;

use rustix::process::Signal;

use crate::support::{Cue, Home, eventually, kill, signal, text};

/// The processes that hold the inputs of this directory's jobs.
pub(crate) fn holders(home: &Home) -> Vec<u32> {
    let is_holder = |(pid, name): (u32, String)| (name == "nodejobs-holder").then_some(pid);
    home.processes().into_iter().filter_map(is_holder).collect()
}

/// How many are connected to the only holder of a pipe, which has 0 to 2, the pipe and the socket as well.
fn connections(home: &Home) -> usize {
    let [holder] = holders(home)[..] else { panic!("not one holder") };
    std::fs::read_dir(format!("/proc/{holder}/fd")).expect("its descriptors").count() - 5
}

/// The sockets of holders.
pub(crate) fn sockets(home: &Home) -> usize {
    let entries = std::fs::read_dir(home.data_dir().join("keepers")).expect("keepers").flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "holder")).count()
}

pub(crate) fn nothing_is_held(home: &Home) {
    eventually("all holders have left", || (holders(home).is_empty() && sockets(home) == 0).then_some(()));
}

/// Waits until a job has written this.
fn wrote(home: &Home, id: &str, expected: &str) {
    eventually(&format!("{id} wrote {expected:?}"), || {
        (home.stdout(id) == expected.as_bytes()).then_some(())
    });
}

#[test]
fn a_job_reads_what_is_sent_until_its_end_is() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--stdin", "pipe", "--", "cat"]);
    assert_eq!(home.ok(["send", "a", "one"]), "");
    wrote(&home, "a", "one\n");
    home.ok(["send", "a", "--no-newline", "--", "-t"]);
    assert_eq!(home.with_input(&["send", "a", "-"], b"wo\nthree\0\xff").code, 0);
    eventually("all is read", || (home.stdout("a").len() == 16).then_some(()));
    assert_eq!(holders(&home).len(), 1);
    let said = home.nodejobs(["-o", "json", "send", "a", "", "--eof"]);
    assert_eq!(said.json(), serde_json::json!({"taken": 1, "whole": true}), "{said:?}");
    assert_eq!(text(&home.ended("a"), "status"), "finished");
    assert_eq!(home.stdout("a"), b"one\n-two\nthree\0\xff\n");
    nothing_is_held(&home);
}

#[test]
fn input_stays_open_whoever_is_killed() {
    for victims in [&["daemon"][..], &["guard"], &["worker"], &["guard", "worker", "daemon"]] {
        let home = Home::new();
        let script = "while read line; do echo got $line; done; exit 7";
        home.ok(["run", "--id", "a", "--stdin", "pipe", script]);
        home.ok(["send", "a", "before"]);
        let (guard, worker) = home.keeper();
        let daemon = home.daemon_pid();
        for victim in victims {
            kill(match *victim {
                "daemon" => daemon,
                "guard" => guard,
                _ => worker,
            });
        }
        home.ok(["send", "a", "after"]);
        wrote(&home, "a", "got before\ngot after\n");
        home.ok(["send", "a", "--eof"]);
        let record = home.ended("a");
        // Both halves at once: what the kernel does not tell afterwards is lost, see `survival`.
        let is_told = victims.len() == 1 || text(&record, "status") != "lost";
        assert!(!is_told || record["exit_code"] == 7, "{victims:?}: {record}");
        nothing_is_held(&home);
    }
}

#[test]
fn a_job_that_does_not_read_takes_what_fits_and_keeps_nobody_waiting() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let script = format!("read line < {}; wc -c", cue.path());
    home.ok(["run", "--id", "a", "--stdin", "pipe", &script]);
    // As much as a pipe holds.
    assert_eq!(home.with_input(&["send", "a", "-"], &[b'x'; 65_536]).code, 0);
    let said = home.nodejobs(["send", "a", "--timeout", "50ms", &"y".repeat(99)]);
    assert!(said.code == 1 && said.stderr.contains("0 bytes were taken, and 100 were not"), "{said:?}");
    // Somebody who waits keeps nobody else waiting, and what is given up in between comes not in twice.
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut command = home.command(["send", "a", "--timeout", "1h", &"z".repeat(4095)]);
            command.stdout(Stdio::null()).spawn().expect("started")
        })
        .collect();
    home.running("a");
    let (killed, others): (Vec<_>, Vec<_>) =
        waiting.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
    for (_, mut sender) in killed {
        assert!(sender.try_wait().expect("asked").is_none(), "it waits");
        sender.kill().expect("killed");
        sender.wait().expect("ended");
    }
    cue.say("read on");
    for (_, mut sender) in others {
        assert!(sender.wait().expect("ended").success());
    }
    home.ok(["send", "a", "--eof"]);
    home.ended("a");
    let count: usize = String::from_utf8_lossy(&home.stdout("a")).trim().parse().expect("a number");
    // Whoever was killed may have been asked for already; what they sent is whole or not there.
    assert!(count >= 65_536 + 4 * 4096 && (count - 65_536).is_multiple_of(4096), "{count}");
}

#[test]
fn what_a_daemon_was_killed_over_is_not_sent_twice() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    home.ok(["run", "--id", "a", "--stdin", "pipe", &format!("read line < {}; exec wc -c", cue.path())]);
    assert_eq!(home.with_input(&["send", "a", "-"], &[b'x'; 65_536]).code, 0);
    eventually("nobody is connected", || (connections(&home) == 0).then_some(()));
    let mut waiting = home.command(["send", "a", "--timeout", "1h", "y"]);
    let mut waiting = waiting.stderr(Stdio::piped()).spawn().expect("started");
    eventually("the daemon asks the holder for it", || (connections(&home) == 1).then_some(()));
    assert!(waiting.try_wait().expect("asked").is_none());
    kill(home.daemon_pid());
    let output = waiting.wait_with_output().expect("ended");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(5) && words.contains("is not known"), "{words}");
    cue.say("read on");
    home.ok(["send", "a", "--eof"]);
    home.ended("a");
    assert_eq!(home.stdout("a"), b"65536\n");
}

#[test]
fn a_daemon_that_leaves_takes_back_what_was_not_taken() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--stdin", "pipe", "--", "sleep", "1000"]);
    assert_eq!(home.with_input(&["send", "a", "-"], &[b'x'; 65_536]).code, 0);
    eventually("nobody is connected", || (connections(&home) == 0).then_some(()));
    let mut waiting = home.command(["send", "a", "--timeout", "1h", "y"]);
    let waiting = waiting.stderr(Stdio::piped()).spawn().expect("started");
    eventually("the daemon asks the holder for it", || (connections(&home) == 1).then_some(()));
    home.ok(["daemon", "stop"]);
    let output = waiting.wait_with_output().expect("ended");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(5) && words.contains("0 bytes were given"), "{words}");
}

#[test]
fn messages_that_are_sent_at_once_are_not_mixed() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--stdin", "pipe", "--", "cat"]);
    let senders: Vec<_> = ('a'..='p')
        .map(|letter| home.command(["send", "a", &letter.to_string().repeat(4000)]).spawn().expect("started"))
        .collect();
    senders.into_iter().for_each(|mut sender| assert!(sender.wait().expect("ended").success()));
    home.ok(["send", "a", "--eof"]);
    home.ended("a");
    let output = home.stdout("a");
    let mut lines: Vec<&[u8]> = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    let expected: Vec<Vec<u8>> = (b'a'..=b'p').map(|letter| vec![letter; 4000]).collect();
    assert_eq!(lines, expected);
}

#[test]
fn each_attempt_has_an_input_of_its_own() {
    let home = Home::new();
    let script = "read line; echo $line; exit 1";
    let again = ["--restart", "on-failure", "--max-restarts", "1", "--restart-delay", "1ms"];
    home.ok(["run", "--id", "a", "--stdin", "pipe"].iter().chain(&again).chain(&["--", "sh", "-c", script]));
    home.ok(["send", "a", "first"]);
    eventually("the next attempt runs", || {
        let record = home.record("a");
        (record["attempt"] == 2 && record["status"] == "running").then_some(())
    });
    home.ok(["send", "a", "second"]);
    home.ended("a");
    home.ok(["restart", "a"]);
    home.ok(["send", "a", "third"]);
    eventually("attempt 3 has ended", || (home.history("a").len() >= 3).then_some(()));
    let of = |attempt: &str| home.ok(["logs", "--attempt", attempt, "a"]);
    eventually("it is written", || (of("3") == "third").then_some(()));
    assert_eq!((of("1"), of("2")), ("first".to_owned(), "second".to_owned()));
    home.ok(["stop", "a"]);
    nothing_is_held(&home);
    home.ok(["rm", "a"]);
    // Its id is free, and what is sent is for the new job.
    home.ok(["run", "--id", "a", "--stdin", "pipe", "--", "cat"]);
    home.ok(["send", "a", "--eof", "new"]);
    home.ended("a");
    assert_eq!(home.stdout("a"), b"new\n");
}

#[test]
fn who_reads_nothing_is_said_so() {
    let home = Home::new();
    home.ok(["run", "--id", "plain", "--", "sleep", "1000"]);
    home.ok(["run", "--id", "over", "--stdin", "pipe", "--wait", "--", "true"]);
    home.ok(["run", "--id", "later", "--stdin", "pipe", "--delay", "1h", "--", "cat"]);
    home.ok(["run", "--id", "deaf", "--stdin", "pipe", "exec <&-; touch deaf; exec sleep 1000"]);
    home.ok(["run", "--id", "ended", "--stdin", "pipe", "trap '' PIPE; cat; touch ended; exec sleep 1000"]);
    home.ok(["send", "ended", "--eof"]);
    home.ready("deaf");
    home.ready("ended");
    nothing_is_held(&home);
    let cases = [
        ("plain", 4, "`run --stdin pipe`"),
        ("over", 4, "is finished"),
        ("later", 4, "is queued"),
        ("deaf", 4, "no open input any more"),
        ("ended", 4, "no open input any more"),
        ("nobody", 3, "no job"),
    ];
    for (id, code, words) in cases {
        let said = home.nodejobs(["send", id, "x"]);
        assert!(said.code == code && said.stderr.contains(words), "{said:?}");
    }
    assert_eq!(home.nodejobs(["send", "plain"]).code, 2, "nothing to send");
    assert_eq!(home.nodejobs(["send", "plain", "x", "--timeout", "5"]).code, 2, "no unit");
    let said = home.nodejobs(["run", "--stdin", "pipe", "--pty", "--", "true"]);
    assert_eq!(said.code, 2, "{said:?}");
}

#[test]
fn a_file_of_that_name_is_named_by_a_path() {
    let home = Home::new();
    std::fs::write(home.path().join("pipe"), "from the file").expect("written");
    home.ok(["run", "--id", "a", "--stdin", "./pipe", "--wait", "--", "cat"]);
    assert_eq!(home.stdout("a"), b"from the file");
    assert!(holders(&home).is_empty());
}

#[test]
fn a_holder_that_is_killed_or_halted_harms_nobody_else() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--stdin", "pipe", "--", "cat"]);
    home.ok(["send", "a", "x"]);
    let [holder] = holders(&home)[..] else { panic!("not one holder") };
    signal(holder, Signal::STOP);
    let said = home.nodejobs(["send", "a", "--timeout", "10ms", "y"]);
    assert!(said.code == 1 && said.stderr.contains("does not answer"), "{said:?}");
    signal(holder, Signal::CONT);
    home.ok(["send", "a", "z"]);
    // It reads the end of its input.
    kill(holder);
    assert_eq!(text(&home.ended("a"), "status"), "finished");
    assert_eq!(sockets(&home), 1, "nobody was there to remove it");
    kill(home.daemon_pid());
    home.ok(["ls"]);
    nothing_is_held(&home);
}

#[test]
fn what_a_job_leaves_behind_keeps_its_input_and_no_keeper() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    // In the background a shell has no input unless it is told.
    let script = format!("exec 3<&0; (read line < {}; exec cat <&3) & exit 3", cue.path());
    home.ok(["run", "--id", "a", "--stdin", "pipe", "--keep-children", &script]);
    assert_eq!(home.ended("a")["exit_code"], 3);
    assert_eq!(holders(&home).len(), 1);
    assert_eq!(home.nodejobs(["send", "a", "x"]).code, 4, "the job has ended");
    let [(child, _)] = &home.job_processes()[..] else { panic!("not one child") };
    let (guard, worker) = home.keeper();
    home.ok(["daemon", "stop"]);
    eventually("the keeper has left", || {
        [guard, worker].iter().all(|pid| !crate::support::is_alive(*pid)).then_some(())
    });
    kill(*child);
    eventually("its holder has left", || holders(&home).is_empty().then_some(()));
}

#[test]
fn a_holder_is_no_part_of_its_job_or_of_what_jobs_leave_behind() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--stdin", "pipe", "--", "cat"]);
    home.running("a");
    let keepers = home.nodejobs(["-o", "json", "doctor", "--keepers"]).json();
    assert_eq!(keepers[0]["children"], 1, "{keepers}");
    home.ok(["signal", "--tree", "URG", "a"]);
    home.ok(["stop", "a"]);
    let record = home.record("a");
    assert!(!text(&record, "detail").contains("holder"), "{record}");
    nothing_is_held(&home);
    // Neither is what holds the input of a job below another.
    let script = "NODEJOBS_DIR=$HOME/inner $NODEJOBS run --id in --stdin pipe -- cat; touch ready; read line";
    let script = format!("NODEJOBS='{}'; {script}", crate::support::NODEJOBS);
    home.ok(["run", "--id", "outer", "--stdin", "pipe", &script]);
    home.ready("ready");
    home.ok(["stop", "outer"]);
    let inner = |words: &[&str]| {
        let mut command = home.command(words);
        crate::support::said(command.env("NODEJOBS_DIR", home.path().join("inner")))
    };
    assert_eq!(inner(&["send", "in", "--eof", "x"]).code, 0);
    assert_eq!(inner(&["wait", "in"]).code, 0);
    assert_eq!(inner(&["daemon", "stop"]).code, 0);
}
