//! Jobs whose launch needs a file system that hangs: they wait, can be explained and stopped, and nothing else waits.

use rustix::process::Signal;

use super::disk::{Hang, HangingDisk};
use super::pace::Pace;
use crate::journals::{damage_starts, starts};
use crate::support::{Cue, Home, eventually, kill, lines, pid_of, signal, text};

/// What of a job is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Directory,
    LogDirectory,
    LogFile,
    LogFileInDirectory,
    Program,
    Interpreter,
    Input,
}

impl What {
    /// Whether the job is a process of its own before the disk is asked: it is executed as far as anybody can tell.
    fn is_asked_by_execve(self) -> bool {
        matches!(self, What::Program | What::Interpreter)
    }
}

/// Two jobs that want what hangs, `hung` and `stopped`, and the list of those that were executed.
/// The disk goes first, so that whoever waits for it does not keep the directory from being cleared away.
struct Launches {
    disk: HangingDisk,
    home: Home,
    what: What,
    gate: Cue,
}

impl Launches {
    /// With jobs that begin once the gate is opened: to submit them would be to touch the disk, and that is not the question.
    /// `None` where no disk can be mounted.
    fn new(what: What, more: &[&str]) -> Option<Self> {
        let disk = HangingDisk::mount()?;
        let home = Home::new();
        let executed = home.path().join("executed");
        let script = format!("#!/bin/sh\necho \"$JOB\" >> '{}'\nexit 7\n", executed.display());
        disk.put("program", script.as_bytes(), 0o755);
        disk.put("interpreter", &std::fs::read("/bin/sh").expect("a shell"), 0o755);
        disk.put("input", b"input\n", 0o644);
        disk.put_directory("work");
        let local = home.path().join("local");
        let shell = if what == What::Interpreter { disk.at("interpreter") } else { "/bin/sh".to_owned() };
        let script = script.replacen("/bin/sh", &shell, 1);
        std::fs::write(&local, script).expect("written");
        std::fs::set_permissions(&local, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
        let gate = Cue::new(&home, "gate");
        home.ok(["run", "--id", "gate", &format!("read word < '{}'", gate.path())]);
        let local = local.to_string_lossy().into_owned();
        let (options, program) = match what {
            What::Directory => (vec!["--cwd".to_owned(), disk.at("work")], local),
            What::LogDirectory => (vec!["--logdir".to_owned(), disk.at("logs")], local),
            What::LogFile => (vec!["--logfile".to_owned(), disk.at("log")], local),
            What::LogFileInDirectory => {
                let file = ["--logfile", "log"].map(str::to_owned);
                ([vec!["--logdir".to_owned(), disk.at("logs")], file.to_vec()].concat(), local)
            }
            What::Program => (vec![], disk.at("program")),
            What::Interpreter => (vec![], local),
            What::Input => (vec!["--stdin".to_owned(), disk.at("input")], local),
        };
        for id in ["hung", "stopped"] {
            let mut run = home.command(["run", "--id", id, "--after", "gate", "--env", &format!("JOB={id}")]);
            run.args(&options).args(more).args(["--", &program]);
            let said = crate::support::said(&mut run);
            assert_eq!(said.code, 0, "{what:?}: {said:?}");
        }
        Some(Self { disk, home, what, gate })
    }

    /// Lets both begin, and waits until the disk is asked.
    fn begin(&self) {
        self.gate.say("go");
        self.home.ended("gate");
        self.disk.is_asked();
        for id in ["hung", "stopped"] {
            eventually("it is launched", || {
                (text(&self.home.record(id), "status") != "queued").then_some(())
            });
        }
    }

    fn executed(&self) -> Vec<String> {
        lines(&self.home.path().join("executed"))
    }

    /// Stops the one, and checks what is said of both.
    fn stop_one(&self, how: Hang) {
        let (home, what) = (&self.home, self.what);
        if what.is_asked_by_execve() {
            let said = home.nodejobs(["stop", "--force", "stopped"]);
            let status = text(&home.record("stopped"), "status").to_owned();
            assert!(["stopped", "failed_stop"].contains(&&*status), "{what:?}, {how:?}: {said:?}");
            // One of the two may wait for the other, and then nothing helps against that.
            return;
        }
        home.ok(["stop", "stopped"]);
        let stopped = home.record("stopped");
        assert_eq!(text(&stopped, "status"), "stopped", "{what:?}, {how:?}: {stopped}");
        assert!(text(&stopped, "detail").contains("before it was executed"), "{what:?}, {how:?}: {stopped}");
        let why = eventually("it is said what hangs", || {
            let why = home.ok(["explain", "hung"]);
            why.contains("does not answer").then_some(why)
        });
        assert!(!why.contains("waits for nothing"), "{what:?}, {how:?}: {why}");
    }

    /// The disk answers: the one ends truly, the other was never executed.
    fn end(self, how: Hang) {
        self.disk.answer();
        let (home, what) = (&self.home, self.what);
        let hung = home.ended("hung");
        let outcome = (text(&hung, "status"), hung["exit_code"].as_i64(), hung["attempt"].as_i64());
        assert_eq!(outcome, ("failed", Some(7), Some(1)), "{what:?}, {how:?}: {hung}");
        home.has_status("stopped", "stopped");
        eventually("only what was tried lives", || home.job_processes().is_empty().then_some(()));
        assert_eq!(self.executed(), ["hung"], "{what:?}, {how:?}");
    }
}

fn launch_hangs(what: What) {
    for how in Hang::BOTH {
        let Some(launches) = Launches::new(what, &[]) else { return };
        let pace = Pace::of(&launches.home);
        launches.disk.hang(how);
        launches.begin();
        pace.is_kept(&launches.home);
        launches.stop_one(how);
        launches.end(how);
    }
}

/// What the others rest on.
#[test]
fn the_jobs_of_these_tests_are_executed_where_nothing_hangs() {
    for what in [
        What::Directory,
        What::LogDirectory,
        What::LogFile,
        What::LogFileInDirectory,
        What::Program,
        What::Interpreter,
        What::Input,
    ] {
        let Some(launches) = Launches::new(what, &[]) else { return };
        launches.gate.say("go");
        for id in ["hung", "stopped"] {
            let ended = launches.home.ended(id);
            assert_eq!(ended["exit_code"].as_i64(), Some(7), "{what:?}: {ended}");
        }
        let mut executed = launches.executed();
        executed.sort();
        assert_eq!(executed, ["hung", "stopped"], "{what:?}");
    }
}

#[test]
fn a_directory_that_hangs() {
    launch_hangs(What::Directory);
}

#[test]
fn a_directory_of_logs_that_hangs() {
    launch_hangs(What::LogDirectory);
}

#[test]
fn a_log_file_that_hangs() {
    launch_hangs(What::LogFile);
}

#[test]
fn a_log_file_in_a_directory_that_hangs() {
    launch_hangs(What::LogFileInDirectory);
}

#[test]
fn a_program_that_hangs() {
    launch_hangs(What::Program);
}

#[test]
fn an_interpreter_that_hangs() {
    launch_hangs(What::Interpreter);
}

#[test]
fn an_input_that_hangs() {
    launch_hangs(What::Input);
}

#[test]
fn jobs_with_a_pipe_or_a_terminal_whose_directory_hangs() {
    for more in [&["--stdin", "pipe"][..], &["--pty"]] {
        for how in Hang::BOTH {
            let Some(launches) = Launches::new(What::Directory, more) else { return };
            let pace = Pace::of(&launches.home);
            launches.disk.hang(how);
            launches.begin();
            let holders = launches.home.processes();
            let holders = holders.iter().filter(|(_, name)| name.starts_with("nodejobs-holder"));
            // Halted, it answers nobody, and nobody needs an answer.
            let holders: Vec<u32> = holders.map(|(pid, _)| *pid).collect();
            holders.iter().for_each(|pid| signal(*pid, Signal::STOP));
            pace.is_kept(&launches.home);
            launches.stop_one(how);
            holders.iter().for_each(|pid| signal(*pid, Signal::CONT));
            launches.end(how);
        }
    }
}

/// Who is halted or killed while a launch hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Worker,
    Guard,
    Owner,
    Both,
}

impl Victim {
    fn processes(self, home: &Home) -> Vec<u32> {
        let (guard, worker) = home.keeper();
        match self {
            Victim::Worker => vec![worker],
            Victim::Guard => vec![guard],
            Victim::Owner => vec![home.daemon_pid()],
            Victim::Both => vec![guard, worker],
        }
    }
}

fn launch_hangs_over(victim: Victim, is_killed: bool) {
    for (what, how) in [What::Directory, What::LogDirectory].into_iter().zip(Hang::BOTH) {
        let case = format!("{what:?}, {how:?}, {victim:?}, killed: {is_killed}");
        let Some(launches) = Launches::new(what, &[]) else { return };
        let home = &launches.home;
        let cue = Cue::new(home, "beside");
        home.ok(["run", "--id", "beside", &format!("read word < '{}'; exit 9", cue.path())]);
        home.running("beside");
        launches.disk.hang(how);
        launches.begin();
        let victims = victim.processes(home);
        if is_killed {
            victims.iter().for_each(|pid| signal(*pid, Signal::KILL));
        } else {
            victims.iter().for_each(|pid| signal(*pid, Signal::STOP));
        }
        if is_killed || victim != Victim::Owner {
            assert_eq!(home.nodejobs(["run", "--wait", "exit 7"]).code, 7, "{case}: another job");
            home.ok(["stop", "stopped"]);
            assert_eq!(text(&home.record("stopped"), "status"), "stopped", "{case}");
        }
        cue.say("go");
        if !is_killed {
            victims.iter().for_each(|pid| signal(*pid, Signal::CONT));
        }
        let beside = home.ended("beside");
        let is_known = beside["exit_code"].as_i64() == Some(9);
        // With both halves of a keeper, the status of what ends then may be lost, and says so.
        let may_be_lost = is_killed && victim == Victim::Both;
        assert!(is_known || (may_be_lost && text(&beside, "status") == "lost"), "{case}: {beside}");
        if !is_killed && victim == Victim::Owner {
            home.ok(["stop", "stopped"]);
        }
        launches.disk.answer();
        let hung = home.ended("hung");
        let executed = launches.executed();
        assert!(!executed.contains(&"stopped".to_owned()), "{case}: it was stopped");
        match text(&hung, "status") {
            "failed" => {
                assert_eq!((executed.len(), hung["exit_code"].as_i64()), (1, Some(7)), "{case}: {hung}");
            }
            "lost" => assert!(executed.len() <= 1, "{case}: {executed:?}, {hung}"),
            other => panic!("{case}: {other}: {hung}"),
        }
        eventually("nothing of it lives", || home.job_processes().is_empty().then_some(()));
        assert_eq!(launches.executed(), executed, "{case}");
    }
}

#[test]
fn a_launch_hangs_while_the_worker_is_halted() {
    launch_hangs_over(Victim::Worker, false);
}

#[test]
fn a_launch_hangs_while_the_worker_is_killed() {
    launch_hangs_over(Victim::Worker, true);
}

#[test]
fn a_launch_hangs_while_the_guard_is_halted() {
    launch_hangs_over(Victim::Guard, false);
}

#[test]
fn a_launch_hangs_while_the_guard_is_killed() {
    launch_hangs_over(Victim::Guard, true);
}

#[test]
fn a_launch_hangs_while_the_owner_is_halted() {
    launch_hangs_over(Victim::Owner, false);
}

#[test]
fn a_launch_hangs_while_the_owner_is_killed() {
    launch_hangs_over(Victim::Owner, true);
}

#[test]
fn a_launch_hangs_while_both_halves_of_the_keeper_are_halted() {
    launch_hangs_over(Victim::Both, false);
}

#[test]
fn a_launch_hangs_while_both_halves_of_the_keeper_are_killed() {
    launch_hangs_over(Victim::Both, true);
}

/// Killed or not, a process that was seen to be the job's is told of truly.
#[test]
fn the_process_of_a_launch_that_hangs_is_not_taken_for_one_that_runs() {
    for how in Hang::BOTH {
        let Some(launches) = Launches::new(What::Directory, &[]) else { return };
        let home = &launches.home;
        launches.disk.hang(how);
        launches.begin();
        let record = home.record("hung");
        assert_eq!(text(&record, "status"), "starting", "{how:?}: {record}");
        assert!(record["last_pid"].is_null() || pid_of(&record["last_pid"]) > 0);
        kill(home.daemon_pid());
        assert_eq!(text(&home.record("hung"), "status"), "starting", "{how:?}: also to the next owner");
        launches.stop_one(how);
        launches.end(how);
    }
}

/// Fresh keepers take over from those whose threads all stand still, and in the end no more are sent there.
#[test]
fn many_launches_hang_and_others_do_not() {
    const JOBS: usize = 80;
    let Some(disk) = HangingDisk::mount() else { return };
    disk.put_directory("work");
    let home = Home::new();
    let executed = home.path().join("executed");
    home.ok(["daemon", "start"]);
    let pace = Pace::of(&home);
    disk.hang(Hang::Taken);
    let script = format!("echo $NODEJOBS_ARRAY_INDEX >> '{}'", executed.display());
    let range = format!("1-{JOBS}");
    let work = disk.at("work");
    let most = ["--max-running", "80"];
    home.ok([
        "array", "--id", "many", "--range", &range, most[0], most[1], "--cwd", &work, "--shell", "--",
        &script,
    ]);
    disk.is_asked();
    eventually("the rest is not sent there", || {
        let says = |number: usize| {
            let element = home.record(&format!("many.{number}"));
            element["detail"].as_str().is_some_and(|detail| detail.contains("64 launches wait for it"))
        };
        (1..=JOBS).rev().any(says).then_some(())
    });
    pace.is_kept(&home);
    assert_eq!(home.nodejobs(["run", "--wait", "exit 7"]).code, 7);
    disk.answer();
    assert_eq!(home.nodejobs(["wait", "--timeout", "60s", "many"]).code, 0);
    let mut lines = lines(&executed);
    assert_eq!(lines.len(), JOBS, "each was executed once: {lines:?}");
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), JOBS);
}

/// The gate says which process it is, where the journal does not any more; and no owner forgets that before the next one knows.
#[test]
fn a_launch_that_hangs_and_whose_entry_is_damaged_happens_once() {
    let Some(launches) = Launches::new(What::Program, &[]) else { return };
    let home = &launches.home;
    let before = starts(home);
    launches.disk.hang(Hang::BOTH[0]);
    launches.begin();
    eventually("both are noted", || (starts(home) >= before + 2).then_some(()));
    let (guard, worker) = home.keeper();
    [home.daemon_pid(), guard, worker].into_iter().for_each(kill);
    assert!(damage_starts(home) >= 2);
    for _ in 0..3 {
        home.ok(["run", "--wait", "--", "true"]);
        kill(home.daemon_pid());
    }
    launches.disk.answer();
    let ends = ["hung", "stopped"].map(|id| home.ended(id));
    let mut executed = launches.executed();
    executed.sort();
    assert_eq!(executed, ["hung", "stopped"], "{ends:?}");
}
