//! Journals that are not what was written to them, and keepers that are halted: nothing runs twice, and the directory opens.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::Signal;

use crate::failpoints::halted;
use crate::support::{Home, eventually, kill, lines, said, signal, text};

/// Bytes of a journal's header, and of each entry.
const ENTRY: usize = 256;
/// The kind of an entry that tells of a start, in its first byte.
const STARTED: u8 = 1;
/// And of an end.
const EXITED: u8 = 3;

fn journals(home: &Home) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(home.data_dir().join("keepers")).expect("keepers").flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "journal"))
        .collect()
}

/// How many entries of a kind there are.
fn entries(home: &Home, kind: u8) -> usize {
    let bytes = journals(home).into_iter().flat_map(|path| std::fs::read(path).unwrap_or_default());
    bytes.collect::<Vec<_>>().chunks(ENTRY).filter(|entry| entry[0] == kind).count()
}

/// How many starts the journals tell of.
pub(crate) fn starts(home: &Home) -> usize {
    entries(home, STARTED)
}

/// Changes a bit of each entry that `is_meant`; how many there were.
fn flip(home: &Home, is_meant: impl Fn(usize, &[u8]) -> bool) -> usize {
    let mut flipped = 0;
    for path in journals(home) {
        let mut bytes = std::fs::read(&path).expect("read");
        for (number, entry) in bytes.chunks_mut(ENTRY).enumerate() {
            if is_meant(number, entry) {
                entry[90] ^= 4;
                flipped += 1;
            }
        }
        // In place: the keeper has it open.
        let file = std::fs::File::options().write(true).open(&path).expect("opened");
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("written");
    }
    flipped
}

/// An array that is being launched, under a daemon that is killed before it has heard of most of it.
fn launched_unheard() -> Home {
    let home = Home::new();
    home.ok(["daemon", "start"]);
    let script = "echo $NODEJOBS_ARRAY_INDEX >> evidence; until [ -e go ]; do sleep 0.05; done";
    let mut array = home.command(["array", "--id", "a", "--range", "1-60", "--shell", "--", script]);
    let mut array = array.stdout(Stdio::null()).spawn().expect("started");
    let daemon = home.daemon_pid();
    eventually("some are launched", || (starts(&home) > 0).then_some(()));
    signal(daemon, Signal::STOP);
    let told = starts(&home);
    eventually("what was sent is launched", || {
        (lines(&home.path().join("evidence")).len() >= told).then_some(())
    });
    kill(daemon);
    array.kill().expect("killed");
    array.wait().expect("ended");
    home
}

/// Changes a bit of each entry that tells of a start; how many there were.
pub(crate) fn damage_starts(home: &Home) -> usize {
    flip(home, |number, entry| number > 0 && entry[0] == STARTED)
}

/// Kills both halves of all keepers.
fn kill_keepers(home: &Home) {
    for name in ["nodejobs-guard", "nodejobs-worker"] {
        let its = home.processes().into_iter().filter(|(_, other)| other == name);
        its.for_each(|(pid, _)| signal(pid, Signal::KILL));
    }
    eventually("the keeper is gone", || {
        (!home.processes().iter().any(|(_, name)| name.starts_with("nodejobs"))).then_some(())
    });
}

fn each_ran_at_most_once(home: &Home) -> usize {
    let evidence = lines(&home.path().join("evidence"));
    let once: BTreeSet<&String> = evidence.iter().collect();
    assert_eq!(once.len(), evidence.len(), "something was executed twice: {evidence:?}");
    once.len()
}

/// A living keeper tells from memory what its journal does not tell any more.
#[test]
fn a_damaged_journal_of_a_living_keeper_has_nothing_run_twice() {
    for header in [false, true] {
        let home = launched_unheard();
        let flipped =
            flip(&home, |number, entry| (number > 0 && entry[0] == STARTED) || (number == 0 && header));
        assert!(flipped > 0);
        // Whether it was acknowledged that the array was accepted is not the question.
        std::fs::write(home.path().join("go"), "").expect("written");
        let waited = home.nodejobs(["wait", "--timeout", "60s", "a"]);
        assert_eq!(waited.code, 0, "header {header}: {waited:?}");
        assert_eq!(each_ran_at_most_once(&home), 60, "header {header}");
    }
}

/// What a dead keeper's journal does not tell any more is lost, and not run again; and the directory opens.
#[test]
fn a_damaged_journal_of_a_dead_keeper_has_nothing_run_twice() {
    for kind in ["starts", "last", "header", "gates", "cut"] {
        let home = launched_unheard();
        let keepers = home.data_dir().join("keepers");
        kill_keepers(&home);
        let last = std::fs::read(&journals(&home)[0]).expect("a journal").len() / ENTRY - 1;
        match kind {
            "starts" => drop(damage_starts(&home)),
            "last" => drop(flip(&home, |number, _| number == last)),
            "header" => drop(flip(&home, |number, _| number == 0)),
            "gates" => {
                let entries =
                    std::fs::read_dir(&keepers).expect("keepers").flatten().map(|entry| entry.path());
                let gates = entries.filter(|path| path.extension().is_some_and(|ending| ending == "gates"));
                gates.for_each(|path| std::fs::write(path, [0; 100]).expect("written"));
            }
            _ => {
                let file = std::fs::File::options().write(true).open(&journals(&home)[0]).expect("opened");
                file.set_len(100).expect("cut");
            }
        }
        std::fs::write(home.path().join("go"), "").expect("written");
        let waited = home.nodejobs(["wait", "--timeout", "60s", "a"]);
        assert_ne!(waited.code, 124, "{kind}: {waited:?}");
        each_ran_at_most_once(&home);
        let damaged = std::fs::read_dir(&keepers).expect("keepers").flatten();
        let is_set_aside = |name: std::ffi::OsString| name.to_string_lossy().ends_with(".damaged");
        assert!(damaged.map(|entry| entry.file_name()).any(is_set_aside), "{kind}: it is set aside");
        home.ok(["run", "--wait", "--", "true"]);
    }
}

/// What a damaged journal does not tell of may run all the same: it is ended before the next attempt begins.
#[test]
fn what_is_lost_with_a_journal_does_not_run_beside_the_next_attempt() {
    let home = Home::new();
    let mut start = home.command(["daemon", "start"]);
    assert_eq!(said(start.env("NODEJOBS_FAILPOINT", "owner-heard")).code, 0);
    let script = "echo $NODEJOBS_ATTEMPT $$ >> evidence; until [ -e go ]; do sleep 0.05; done";
    let run = ["run", "--id", "a", "--restart", "on-failure", "--restart-delay", "10ms", "--shell", script];
    let mut run = home.command(run).stdout(Stdio::null()).spawn().expect("started");
    let daemon = eventually("the daemon halts, and has written down no start", || halted(&home));
    let evidence = || lines(&home.path().join("evidence"));
    eventually("it runs", || (evidence().len() == 1).then_some(()));
    run.kill().expect("killed");
    run.wait().expect("ended");
    kill(daemon);
    kill_keepers(&home);
    assert_eq!(damage_starts(&home), 1);
    home.ok(["daemon", "start"]);
    let (first, next) = eventually("it begins again", || {
        let runs = evidence();
        (runs.len() == 2).then(|| (runs[0].clone(), runs[1].clone()))
    });
    assert!(first.starts_with("1 ") && next.starts_with("2 "), "{first}, {next}");
    let pid: u32 = first[2..].parse().expect("a number");
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let lives =
        state.rsplit(") ").next().is_some_and(|fields| !fields.is_empty() && !fields.starts_with('Z'));
    assert!(!lives, "{first} lives beside {next}");
    std::fs::write(home.path().join("go"), "").expect("written");
    assert_eq!(home.nodejobs(["wait", "--timeout", "60s", "a"]).code, 0);
}

/// A power cut leaves journals with their lengths and without their contents; also those of the first version, whose names
/// have no boot.
#[test]
fn after_a_loss_of_power_the_directory_opens_by_itself() {
    for old_names in [false, true] {
        let home = Home::new();
        home.ok(["run", "--id", "ended", "--wait", "--", "true"]);
        home.ok(["run", "--id", "long", "--", "sleep", "1000"]);
        let long = crate::support::pid_of(&home.running("long")["last_pid"]);
        let (guard, worker) = home.keeper();
        [home.daemon_pid(), guard, worker, long].into_iter().for_each(kill);
        for path in journals(&home) {
            let length = std::fs::read(&path).expect("a journal").len();
            std::fs::write(&path, vec![0; length]).expect("emptied");
        }
        be_of_another_boot(&home, if old_names { "" } else { ".00000000" });
        let Some(mut wait) = in_another_boot(&home, "wait --timeout 20s long") else { return };
        let waited = said(&mut wait);
        let mut status = in_another_boot(&home, "-o json status long ended").expect("as before");
        let records = said(&mut status).json();
        assert_eq!(text(&records[0], "status"), "lost", "{waited:?}: {records}");
        assert_eq!(text(&records[0], "reason"), "reboot", "{records}");
        assert_eq!(text(&records[1], "status"), "finished", "{records}");
        kill(home.daemon_pid());
    }
}

/// What the first owner of a boot has decided is launched by the next one, though the first is killed once that is on disk.
#[test]
fn a_take_over_of_another_boot_that_is_cut_off_is_gone_on_with() {
    let home = Home::new();
    let script = "echo $NODEJOBS_ATTEMPT >> evidence; trap '' TERM; until [ -e go ]; do sleep 0.05; done";
    home.ok(["run", "--id", "a", "--grace", "60s", "--shell", script]);
    home.running("a");
    eventually("it has its trap", || (lines(&home.path().join("evidence")).len() == 1).then_some(()));
    let mut restart = home.command(["restart", "a"]).stdout(Stdio::null()).spawn().expect("started");
    eventually("it is to end", || (text(&home.record("a"), "status") == "stopping").then_some(()));
    let (guard, worker) = home.keeper();
    restart.kill().expect("killed");
    restart.wait().expect("ended");
    kill(home.daemon_pid());
    std::fs::write(home.path().join("go"), "").expect("written");
    eventually("its end is in the journal", || (entries(&home, EXITED) > 0).then_some(()));
    [guard, worker].into_iter().for_each(kill);
    let Some(mut start) = in_another_boot(&home, "daemon start") else { return };
    let mut start = start.env("NODEJOBS_FAILPOINT", "owner-took-over").spawn().expect("started");
    let daemon = eventually("the daemon halts", || halted(&home));
    // First, or it starts another one.
    start.kill().expect("killed");
    start.wait().expect("ended");
    kill(daemon);
    let waited = said(&mut in_another_boot(&home, "wait --timeout 20s a").expect("as before"));
    assert_eq!(waited.code, 0, "{waited:?}");
    assert_eq!(lines(&home.path().join("evidence")), ["1", "2"], "each once");
    kill(home.daemon_pid());
}

/// Names the journals as if they had been made in another boot: which that is does not matter.
fn be_of_another_boot(home: &Home, ending: &str) {
    for path in journals(home) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let (first, _) = name.split_once('.').expect("a boot");
        std::fs::rename(&path, path.with_file_name(format!("{first}{ending}.journal"))).expect("renamed");
    }
}

/// A call in a boot that was made up; `None` where that cannot be.
fn in_another_boot(home: &Home, call: &str) -> Option<std::process::Command> {
    let boot = home.path().join("boot");
    std::fs::write(&boot, "ffffffff-2222-4333-8444-555555555555\n").expect("written");
    let mount = format!("mount --bind '{}' /proc/sys/kernel/random/boot_id", boot.display());
    let in_it = |script: &str| {
        let mut command = home.shell("exec unshare -m sh -c \"$1\"");
        command.args(["sh", &format!("{mount} && {script}")]);
        command
    };
    let tried = said(&mut in_it("true"));
    if tried.code != 0 {
        eprintln!("skipped, no boot can be made up here: {tried:?}");
        return None;
    }
    Some(in_it(&format!("exec \"$NODEJOBS\" {call}")))
}

/// The daemon hears the end although no client asks anything of the keeper.
#[test]
fn the_end_of_a_job_whose_worker_is_halted_is_told() {
    let home = Home::new();
    let mut job = home.command([
        "run",
        "--id",
        "a",
        "--wait",
        "--shell",
        "until [ -e go ]; do sleep 0.05; done; exit 7",
    ]);
    let mut job = job.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    eventually("it runs", || (home.nodejobs(["status", "a"]).text().contains("running")).then_some(()));
    let (_, worker) = home.keeper();
    signal(worker, Signal::STOP);
    std::fs::write(home.path().join("go"), "").expect("written");
    assert_eq!(job.wait().expect("ended").code(), Some(7));
}

/// A worker that is halted is let go on; one that stays halted is not waited for.
#[test]
fn a_halted_worker_keeps_nobody_waiting() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    home.running("a");
    let (_, worker) = home.keeper();
    signal(worker, Signal::STOP);
    assert_eq!(home.nodejobs(["run", "--wait", "exit 7"]).code, 7);
    signal(worker, Signal::STOP);
    home.ok(["stop", "a"]);
    assert_eq!(text(&home.record("a"), "status"), "stopped");
}
