//! Jobs that run nodejobs themselves: what they start there is not theirs to end.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Cue, Home, NODEJOBS, eventually, is_alive, kill, lines, pid_of, signal, text};

/// How an outer job comes to its end.
#[derive(Clone, Copy, Debug)]
enum End {
    ByItself,
    Stop,
    Force,
    Killed,
}

const ENDS: [End; 4] = [End::ByItself, End::Stop, End::Force, End::Killed];

impl End {
    /// Ends the job and gives its last record. By itself, it waits for the cue.
    fn of(self, home: &Home, id: &str, cue: &Cue) -> Value {
        match self {
            End::ByItself => cue.say("0"),
            End::Stop => drop(home.ok(["stop", id])),
            End::Force => drop(home.ok(["stop", "--force", id])),
            End::Killed => signal(pid_of(&home.record(id)["last_pid"]), Signal::KILL),
        }
        let record = home.ended(id);
        let expected = match self {
            End::ByItself => "finished",
            End::Stop | End::Force => "stopped",
            End::Killed => "failed",
        };
        assert_eq!(text(&record, "status"), expected, "{self:?}: {record}");
        record
    }
}

/// A directory with a daemon, a keeper and a job, none of which may be harmed.
struct Inner {
    daemon: u32,
    keeper: (u32, u32),
    job: u32,
}

impl Inner {
    fn of(home: &Home, id: &str) -> Self {
        let job = pid_of(&home.running(id)["last_pid"]);
        Self { daemon: home.daemon_pid(), keeper: home.keeper(), job }
    }

    fn is_unharmed(&self, home: &Home, id: &str, outer: &Value, what: &str) {
        for pid in [self.daemon, self.keeper.0, self.keeper.1, self.job] {
            assert!(is_alive(pid), "{what}: {pid} is gone: {outer}");
            assert!(!text(outer, "detail").contains(&format!("{pid} (")), "{what}: {pid} is listed: {outer}");
        }
        let record = home.record(id);
        assert_eq!((text(&record, "status"), pid_of(&record["last_pid"])), ("running", self.job), "{what}");
        assert_eq!((home.daemon_pid(), home.keeper()), (self.daemon, self.keeper), "{what}");
    }
}

/// Waits until a directory has this job, without starting a daemon there.
fn has_job(home: &Home, id: &str) {
    eventually(&format!("there is a job {id}"), || {
        let daemon = home.nodejobs(["daemon", "status"]).code == 0;
        (daemon && home.nodejobs(["status", id]).code == 0).then_some(())
    });
}

/// What a process was executed with.
fn environment(pid: u32) -> Vec<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("an environment");
    environment.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

/// Nothing of the outer job's is open in the daemon or the keeper.
fn holds_nothing_of(data_dir: &Path, inner: &Inner) {
    for pid in [inner.daemon, inner.keeper.0, inner.keeper.1, inner.job] {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
        let open: Vec<_> = open.filter_map(|entry| entry.path().read_link().ok()).collect();
        assert!(open.iter().all(|path| !path.starts_with(data_dir)), "{pid}: {open:?}");
    }
}

/// An outer job that waits for an inner one, in a directory of which it is the first to need a daemon, or not.
fn nest(end: End, prefix: &str, is_first: bool, interfere: fn(&Home)) {
    let what = format!("{end:?}, {prefix}, first: {is_first}");
    let (outer, inner) = (Home::new(), Home::new());
    if !is_first {
        inner.ok(["daemon", "start"]);
    }
    let cue = Cue::new(&outer, "cue");
    // The daemon is a child of the command that waits, which is the job's.
    let script = format!(
        "exec 7> open; {prefix} {NODEJOBS} --data-dir {} run --id inner --wait -- sleep 1000 & read code < {}; exit $code",
        inner.data_dir().display(),
        cue.path()
    );
    outer.ok(["run", "--id", "outer", "--shell", "--", &script]);
    has_job(&inner, "inner");
    let before = Inner::of(&inner, "inner");
    holds_nothing_of(outer.path(), &before);
    let environment = environment(before.job);
    assert!(environment.contains(&"JOB_ID=inner".to_owned()), "{environment:?}");
    let marks: Vec<_> = environment.iter().filter(|text| text.starts_with("NODEJOBS_MARK=")).collect();
    assert!(marks.len() == 1 && marks[0].ends_with(":inner:1"), "{environment:?}");

    interfere(&outer);
    let record = end.of(&outer, "outer", &cue);
    before.is_unharmed(&inner, "inner", &record, &what);
    let waiter = |text: &str| text.contains("(nodejobs)");
    assert!(waiter(text(&record, "detail")), "the command that waited was the job's: {what}: {record}");
    eventually("nothing of the outer job is left", || outer.job_processes().is_empty().then_some(()));
}

fn nothing(_: &Home) {}

#[test]
fn a_daemon_that_a_job_was_first_to_need_outlives_it() {
    for end in ENDS {
        nest(end, "", true, nothing);
    }
}

#[test]
fn a_daemon_that_a_job_came_to_outlives_it() {
    for end in ENDS {
        nest(end, "", false, nothing);
    }
}

#[test]
fn a_daemon_started_with_an_empty_environment_is_no_leftover_either() {
    for end in ENDS {
        nest(end, "env -i", true, nothing);
    }
}

#[test]
fn what_a_job_started_is_unharmed_when_half_of_the_outer_keeper_was_killed() {
    for end in ENDS {
        nest(end, "", true, |outer| kill(outer.keeper().0));
        nest(end, "env -i", true, |outer| kill(outer.keeper().1));
    }
}

#[test]
fn what_a_job_started_is_unharmed_when_the_outer_keeper_was_killed() {
    // By itself and killed, its exit status may have been collected by somebody who does not tell.
    for end in [End::Stop, End::Force] {
        nest(end, "", true, |outer| {
            let (guard, worker) = outer.keeper();
            [guard, worker].into_iter().for_each(|pid| signal(pid, Signal::KILL));
            [guard, worker].into_iter().for_each(kill);
        });
    }
}

#[test]
fn a_job_of_the_same_directory_is_its_owner_s_like_any_other() {
    for end in ENDS {
        let home = Home::new();
        let cue = Cue::new(&home, "cue");
        let script = format!(
            "{NODEJOBS} run --id inner --wait -- sleep 1000 & echo $JOB_ID > outer-id; read code < {}; exit $code",
            cue.path()
        );
        home.ok(["run", "--id", "outer", "--shell", "--", &script]);
        has_job(&home, "inner");
        let inner = Inner::of(&home, "inner");
        let marks = |pid| {
            let environment = environment(pid).into_iter();
            environment.filter(|text| text.starts_with("NODEJOBS_MARK=")).collect::<Vec<_>>()
        };
        let (of_inner, of_outer) = (marks(inner.job), marks(pid_of(&home.record("outer")["last_pid"])));
        assert_eq!(
            of_inner,
            of_outer.iter().map(|mark| mark.replace(":outer:", ":inner:")).collect::<Vec<_>>()
        );
        let record = end.of(&home, "outer", &cue);
        inner.is_unharmed(&home, "inner", &record, &format!("{end:?}"));
        assert_eq!(lines(&home.path().join("outer-id")), ["outer"]);
    }
}

#[test]
fn three_levels_deep_nothing_is_harmed() {
    for end in ENDS {
        let homes = [Home::new(), Home::new(), Home::new()];
        let [outer, middle, inner] = &homes;
        let cue = Cue::new(outer, "cue");
        let innermost = format!(
            "{NODEJOBS} --data-dir {} run --id inner --wait -- sleep 1000",
            inner.data_dir().display()
        );
        let script = format!(
            "{NODEJOBS} --data-dir {} run --id middle --wait --shell -- '{innermost}; exit 1' & read code < {}; exit $code",
            middle.data_dir().display(),
            cue.path()
        );
        outer.ok(["run", "--id", "outer", "--shell", "--", &script]);
        has_job(middle, "middle");
        has_job(inner, "inner");
        let (of_middle, of_inner) = (Inner::of(middle, "middle"), Inner::of(inner, "inner"));
        let record = end.of(outer, "outer", &cue);
        let what = format!("{end:?}");
        of_middle.is_unharmed(middle, "middle", &record, &what);
        of_inner.is_unharmed(inner, "inner", &record, &what);
        let record = End::Force.of(middle, "middle", &cue);
        of_inner.is_unharmed(inner, "inner", &record, &what);
    }
}
