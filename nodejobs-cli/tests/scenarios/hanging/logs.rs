//! Log files on a file system that hangs after their jobs have ended: whoever wants them waits, or is told.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::disk::{Hang, HangingDisk};
use super::pace::Pace;
use crate::support::{Cue, Home, eventually, kill, lines, text};

/// A directory with a disk, and whatever of it is to hang. The disk is gone before the directory is.
struct Place {
    disk: HangingDisk,
    home: Home,
}

impl Place {
    /// `None` where no disk can be mounted.
    fn new() -> Option<Self> {
        let disk = HangingDisk::mount()?;
        let home = Home::new();
        home.ok(["daemon", "start"]);
        Some(Self { disk, home })
    }

    /// A job that has ended, with its logs on the disk.
    fn ended(&self, id: &str) {
        self.home.ok(["run", "--id", id, "--logdir", &self.disk.at("logs"), "--wait", "echo output"]);
        assert_eq!(self.log(id), Some("output\n".to_owned()));
    }

    fn log(&self, id: &str) -> Option<String> {
        let content = self.disk.content(&format!("logs/{id}.1.out"))?;
        Some(String::from_utf8(content).expect("text"))
    }

    /// What the daemon says that hangs, once it says so of this.
    fn hangs(&self, doing: &str) -> Value {
        let hang = eventually(&format!("the daemon says that it cannot {doing}"), || {
            let hanging = self.home.daemon()["hanging"].as_array().expect("a list").clone();
            hanging.into_iter().find(|hang| text(hang, "doing") == doing)
        });
        assert!(text(&hang, "path").starts_with(&self.disk.at("")), "{hang}");
        hang
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whatever the test came to: nobody waits for it any more.
        self.disk.answer();
    }
}

#[test]
fn removed_jobs_leave_files_that_go_when_their_file_system_answers() {
    for how in Hang::BOTH {
        let Some(place) = Place::new() else { return };
        let Place { disk, home } = &place;
        for id in ["a", "b", "c", "d", "e"] {
            place.ended(id);
        }
        let pace = Pace::of(home);
        disk.hang(how);
        let begin = Instant::now();
        home.ok(["rm", "a"]);
        assert!(begin.elapsed() < Duration::from_secs(10), "{how:?}: whoever asked is answered");
        home.ok(["rm", "b"]);
        let begin = Instant::now();
        home.ok(["prune", "--older-than", "0s", "--status", "finished"]);
        assert!(begin.elapsed() < Duration::from_secs(10), "{how:?}: nobody waits for each of them");
        assert_eq!(home.nodejobs(["status", "e"]).code, 3, "it is forgotten");
        let hang = place.hangs("delete logs in");
        assert!(hang["waiting"].as_u64() >= Some(3), "{how:?}: {hang}");
        let doctor = home.nodejobs(["doctor"]);
        assert!(doctor.code == 1 && doctor.text().contains(&disk.at("logs")), "{doctor:?}");
        assert!(home.ok(["daemon", "status"]).contains("hangs"));
        pace.is_kept(home);
        disk.answer();
        for id in ["a", "b", "c", "d", "e"] {
            eventually("its files are gone", || place.log(id).is_none().then_some(()));
        }
        eventually("nothing hangs", || (home.daemon()["hanging"] == json!([])).then_some(()));
    }
}

/// The files have the same names. Were the late deletion to come after the next job of the id, that would lose its output.
#[test]
fn a_job_is_not_launched_into_files_that_are_still_to_be_deleted() {
    for how in Hang::BOTH {
        let Some(place) = Place::new() else { return };
        let Place { disk, home } = &place;
        let marker = home.path().join("executed");
        for id in ["again", "stopped", "elsewhere"] {
            place.ended(id);
        }
        disk.hang(how);
        home.ok(["rm", "again", "stopped", "elsewhere"]);
        let run = |id: &str| {
            let script = format!("echo {id} >> '{}'; echo new", marker.display());
            home.ok(["run", "--id", id, "--logdir", &disk.at("logs"), &script]);
        };
        run("again");
        run("stopped");
        let told = home.ok(["explain", "again"]);
        assert!(told.contains("log files of the removed job"), "{told}");
        assert_eq!(home.nodejobs(["-o", "json", "explain", "again"]).json()["waiting_on"], "deletion");
        home.ok(["stop", "stopped"]);
        assert_eq!(text(&home.record("stopped"), "status"), "stopped");
        let elsewhere = home.nodejobs(["run", "--id", "elsewhere", "--wait", "exit 7"]);
        assert_eq!(elsewhere.code, 7, "its logs are not there: {elsewhere:?}");
        assert_eq!(lines(&marker), [""; 0], "{how:?}");
        disk.answer();
        assert_eq!(text(&home.ended("again"), "status"), "finished");
        assert_eq!(home.stdout("again"), b"new\n", "{how:?}");
        assert_eq!(place.log("again"), Some("new\n".to_owned()));
        assert_eq!(lines(&marker), ["again"], "what was stopped was never executed");
    }
}

#[test]
fn whoever_reads_a_log_that_hangs_is_told_and_other_logs_are_read_meanwhile() {
    for how in Hang::BOTH {
        let Some(place) = Place::new() else { return };
        let Place { disk, home } = &place;
        place.ended("a");
        let bytes = home.record("a")["log_bytes"].clone();
        assert_eq!(bytes, json!(7));
        let pace = Pace::of(home);
        disk.hang(how);
        let read = |arguments: &[&str]| {
            let mut command = home.command(arguments);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("started")
        };
        // More of them than there are threads that look into the store.
        let readers: Vec<_> = (0..12)
            .map(|n| match n % 3 {
                0 => read(&["logs", "a"]),
                1 => read(&["logs", "-f", "--timestamps", "a"]),
                _ => read(&["logs", "--tail", "1", "-o", "jsonl", "a"]),
            })
            .collect();
        pace.is_kept(home);
        for reader in readers {
            let output = reader.wait_with_output().expect("ended");
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && told.contains("has not answered"), "{how:?}: {told}");
            assert!(output.stdout.is_empty(), "{how:?}: {output:?}");
        }
        let record = home.record("a");
        assert_eq!((text(&record, "status"), &record["log_bytes"]), ("finished", &Value::Null), "{how:?}");
        disk.answer();
        eventually("nothing hangs", || (home.daemon()["hanging"] == json!([])).then_some(()));
        assert_eq!(home.stdout("a"), b"output\n");
        assert_eq!(home.record("a")["log_bytes"], bytes);
    }
}

#[test]
fn times_caps_and_the_quota_of_other_jobs_are_kept_while_a_log_hangs() {
    for how in Hang::BOTH {
        let Some(place) = Place::new() else { return };
        let Place { disk, home } = &place;
        place.ended("ended");
        let go = home.path().join("go");
        let script = format!("echo first; until [ -e '{}' ]; do sleep 0.02; done; echo last", go.display());
        home.ok(["run", "--id", "writes", "--logdir", &disk.at("logs"), "--log-cap", "1M", &script]);
        eventually("it has written", || (place.log("writes")? == "first\n").then_some(()));
        disk.hang(how);
        std::fs::write(&go, "").expect("written");
        disk.is_asked();
        // Both look at every log there is.
        std::fs::write(home.data_dir().join("config.toml"), "[logs]\nquota = \"4M\"\n").expect("written");
        home.ok(["daemon", "reload"]);
        for number in 0..3 {
            let id = format!("big{number}");
            home.ok(["run", "--id", &id, "--wait", "--", "head", "-c", "3000000", "/dev/zero"]);
        }
        eventually("the oldest lose their output", || {
            (home.record("big0")["log_bytes"] == json!(0)).then_some(())
        });
        let capped = "yes | head -c 40000000; sleep 1000";
        home.ok(["run", "--id", "capped", "--log-cap", "1M", capped]);
        eventually("the cap is kept", || {
            let kept = home.record("capped")["log_bytes"].as_u64()?;
            let is_written =
                std::fs::metadata(text(&home.record("capped"), "logfile")).ok()?.len() == 40_000_000;
            (is_written && kept < 2_000_000).then_some(())
        });
        let timed = home.nodejobs(["logs", "--timestamps", "--tail", "1", "capped"]);
        assert!(timed.code == 0 && timed.text().ends_with('y'), "{timed:?}");
        disk.answer();
        assert_eq!(text(&home.ended("writes"), "status"), "finished");
        assert_eq!(home.stdout("writes"), b"first\nlast\n", "{how:?}");
    }
}

#[test]
fn a_daemon_with_threads_that_are_stuck_can_be_replaced() {
    for how in Hang::BOTH {
        for is_killed in [false, true] {
            let Some(place) = Place::new() else { return };
            let Place { disk, home } = &place;
            place.ended("a");
            let runs = home.ok(["run", "--", "sleep", "1000"]);
            home.running(&runs);
            disk.hang(how);
            home.ok(["rm", "a"]);
            disk.is_asked();
            let before = home.daemon_pid();
            if is_killed {
                // All but the thread that waits: that ends when it is answered.
                crate::support::signal(before, rustix::process::Signal::KILL);
            } else {
                let begin = Instant::now();
                home.ok(["daemon", "restart"]);
                assert!(begin.elapsed() < Duration::from_secs(10), "{how:?}");
            }
            assert_eq!(home.nodejobs(["run", "--wait", "exit 7"]).code, 7, "{how:?}, killed: {is_killed}");
            assert_ne!(home.daemon_pid(), before);
            assert_eq!(text(&home.record(&runs), "status"), "running");
            disk.answer();
            if is_killed {
                kill(before);
            }
        }
    }
}

#[test]
fn hooks_and_scripts_whose_directory_hangs_keep_nobody_else_waiting() {
    for how in Hang::BOTH {
        let Some(place) = Place::new() else { return };
        let Place { disk, home } = &place;
        disk.put_directory("directory");
        disk.put("hook", b"#!/bin/sh\necho \"$JOB_ID\" >> \"$HOOKED\"\n", 0o755);
        let hooked = home.path().join("hooked");
        let config = format!(
            "[[hooks]]\non = [\"failed\"]\nrun = [{:?}]\nenv = {{ HOOKED = {hooked:?} }}\n",
            disk.at("hook")
        );
        std::fs::write(home.data_dir().join("config.toml"), config).expect("written");
        home.ok(["daemon", "reload"]);
        let pace = Pace::of(home);
        eventually("hooks run", || (lines(&hooked).len() == 5).then_some(()));
        let (go, done) = (home.path().join("go"), home.path().join("done"));
        let on_done = format!("pwd > '{}'", done.display());
        let element = format!("until [ -e '{}' ]; do sleep 0.02; done", go.display());
        home.ok([
            "array",
            "--range",
            "1-1",
            "--cwd",
            &disk.at("directory"),
            "--on-done",
            &on_done,
            "--shell",
            &element,
        ]);
        eventually("the element runs", || (!home.job_processes().is_empty()).then_some(()));
        disk.hang(how);
        std::fs::write(&go, "").expect("written");
        home.nodejobs(["run", "--id", "fails", "--wait", "exit 1"]);
        disk.is_asked();
        pace.is_kept(home);
        disk.answer();
        eventually("the hook of what failed runs", || {
            lines(&hooked).contains(&"fails".to_owned()).then_some(())
        });
        eventually("the script runs where it was submitted", || {
            (lines(&done) == [disk.at("directory")]).then_some(())
        });
    }
}

/// What hangs is found by where it is, not by how its path is written.
#[test]
fn a_link_to_what_hangs_keeps_nobody_waiting_who_is_beside_the_link() {
    for how in Hang::BOTH {
        let Some(place) = Place::new() else { return };
        let Place { disk, home } = &place;
        let (link, beside) = (home.path().join("link"), home.path().join("beside"));
        std::os::unix::fs::symlink(disk.path(), &link).expect("a link");
        let link = link.join("logs").to_string_lossy().into_owned();
        for id in ["a", "b", "c", "d"] {
            home.ok(["run", "--id", id, "--logdir", &link, "--wait", "echo output"]);
            assert_eq!(place.log(id), Some("output\n".to_owned()));
        }
        home.ok(["run", "--id", "beside", "--logdir", &beside.to_string_lossy(), "--wait", "echo beside"]);
        disk.hang(how);
        home.ok(["rm", "a", "b", "c"]);
        let hanging = eventually("it is said", || {
            let hanging = home.daemon()["hanging"].as_array().expect("a list").clone();
            (!hanging.is_empty()).then_some(hanging)
        });
        let is_there = |hang: &Value| Path::new(text(hang, "path")).starts_with(&link);
        assert!(hanging.iter().all(is_there), "as it was written: {hanging:?}");
        let refused = home.nodejobs(["logs", "d"]);
        assert!(refused.code == 5 && refused.stderr.contains("has not answered"), "{refused:?}");
        let begin = Instant::now();
        assert_eq!(home.stdout("beside"), b"beside\n");
        assert_eq!(home.record("beside")["log_bytes"], json!(7));
        home.ok(["rm", "beside"]);
        assert_eq!(std::fs::read_dir(&beside).expect("read").count(), 0, "{how:?}: deleted when it is told");
        assert!(begin.elapsed() < Duration::from_secs(1), "{how:?}: {:?}", begin.elapsed());
        disk.answer();
        for id in ["a", "b", "c"] {
            eventually("its files are gone", || place.log(id).is_none().then_some(()));
        }
    }
}

/// It is not known what the user wants, so the daemon does not start; nor does it wait for ever, with the lock in its hands.
#[test]
fn a_configuration_that_hangs_is_named() {
    for how in Hang::BOTH {
        let Some(place) = Place::new() else { return };
        let Place { disk, home } = &place;
        disk.put("config.toml", b"[limits]\nmax_processes = 3\n", 0o600);
        let config = home.data_dir().join("config.toml");
        std::os::unix::fs::symlink(disk.at("config.toml"), &config).expect("a link");
        home.ok(["daemon", "stop"]);
        disk.hang(how);
        let said = home.nodejobs(["daemon", "start"]);
        assert!(said.code == 5 && said.stderr.contains("has not answered"), "{how:?}: {said:?}");
        assert!(said.stderr.contains(&*config.to_string_lossy()), "{how:?}: {said:?}");
        disk.answer();
        home.ok(["run", "--wait", "--", "true"]);
    }
}

/// What is written is told, and nothing is looked at in between.
#[test]
fn a_job_whose_logs_were_placed_is_followed_from_write_to_write() {
    let home = Home::new();
    let logs = home.path().join("logs").to_string_lossy().into_owned();
    let cue = Cue::new(&home, "cue");
    let script =
        format!("exec 9<>'{}'; while read word <&9 && [ $word != end ]; do echo $word; done", cue.path());
    home.ok(["run", "--id", "a", "--logdir", &logs, &script]);
    let mut follows = home.command(["logs", "-f", "a"]);
    let mut follows = follows.stdout(Stdio::piped()).spawn().expect("started");
    let mut told = BufReader::new(follows.stdout.take().expect("a pipe")).lines();
    for word in ["one", "two", "three"] {
        cue.say(word);
        assert_eq!(told.next().expect("more").expect("text"), word);
    }
    cue.say("end");
    assert!(follows.wait().expect("ended").success());
    assert!(told.next().is_none());
    home.ok(["rm", "a"]);
    assert_eq!(std::fs::read_dir(&logs).expect("read").count(), 0);
}
