//! Records that name a process which is not theirs any more: after a reboot, or because its number is used again. Made by
//! changing what the store says of a job whose process and keepers were killed.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Home, eventually, is_alive, kill, lines, pid_of, said, text};

/// What a record says of its process: boot, pid namespace, pid, start ticks, number in pidfs.
const BOOT: usize = 0;
const PID: usize = 2;
const START_TICKS: usize = 3;
const PIDFS: usize = 4;

/// Somebody whom no signal of ours may reach.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        let mut command = Command::new("sleep");
        Self(command.arg("1000").stdin(Stdio::null()).spawn().expect("started"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// In ticks since the machine started, as the kernel tells it.
    fn start_ticks(&self) -> String {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("a process");
        let fields = stat.rsplit(") ").next().expect("fields");
        fields.split(' ').nth(19).expect("field 22").to_owned()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory without any process, whose running jobs have this said of their processes.
fn forge(home: &Home, change: impl Fn(&mut [String])) {
    let pids: Vec<u32> = home.records().iter().map(|record| pid_of(&record["last_pid"])).collect();
    let (guard, worker) = home.keeper();
    [home.daemon_pid(), guard, worker].into_iter().chain(pids).for_each(kill);
    forge_lines(home, |line| {
        let attempts = line.pointer_mut("/job/attempts").and_then(Value::as_array_mut);
        for attempt in attempts.into_iter().flatten() {
            let mut parts: Vec<String> =
                text(&attempt["process"], "handle").split(':').map(str::to_owned).collect();
            change(&mut parts);
            attempt["process"]["pid"] = parts[PID].parse::<u32>().expect("a pid").into();
            attempt["process"]["handle"] = parts.join(":").into();
        }
    });
}

/// Makes the store anew from its export, with each line changed so. Nobody owns the directory.
fn forge_lines(home: &Home, change: impl Fn(&mut Value)) {
    let exported = home.ok(["store", "export"]);
    let forge = |line: &str| {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        change(&mut line);
        line.to_string()
    };
    let forged: Vec<String> = exported.lines().map(forge).collect();
    let file = home.path().join("forged.jsonl");
    std::fs::write(&file, forged.join("\n") + "\n").expect("written");
    for entry in std::fs::read_dir(home.data_dir()).expect("a directory").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("jobs.") {
            let path = entry.path();
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
                .expect("removed");
        }
    }
    // Journals know better.
    std::fs::remove_dir_all(home.data_dir().join("keepers")).expect("removed");
    home.ok([std::ffi::OsStr::new("store"), "import".as_ref(), file.as_os_str()]);
}

#[test]
fn whoever_has_the_number_of_a_job_s_process_now_is_never_signalled() {
    for disabled in ["", "pidfs,pidfd-info"] {
        let home = Home::new().with("NODEJOBS_DISABLE", disabled);
        home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
        home.ok(["run", "--id", "stopped", "--", "sleep", "1000"]);
        ["a", "stopped"].iter().for_each(|id| drop(home.running(id)));
        let stranger = Stranger::new();
        forge(&home, |parts| parts[PID] = stranger.pid().to_string());
        let said = home.nodejobs(["stop", "--force", "stopped"]);
        assert_eq!(said.code, 0, "{said:?}");
        home.ok(["stop", "--all", "--force"]);
        for id in ["a", "stopped"] {
            let record = home.record(id);
            assert_eq!((text(&record, "status"), text(&record, "reason")), ("lost", "unknown"), "{record}");
        }
        assert!(is_alive(stranger.pid()));
    }
}

/// Where the kernel has them, numbers in pidfs tell apart what started in one tick.
#[test]
fn whoever_started_in_the_same_tick_under_the_same_number_is_told_apart() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "--", "sleep", "1000"]);
    home.running("a");
    let stranger = Stranger::new();
    let has_pidfs = std::cell::Cell::new(false);
    forge(&home, |parts| {
        has_pidfs.set(parts[PIDFS] != "-");
        (parts[PID], parts[START_TICKS]) = (stranger.pid().to_string(), stranger.start_ticks());
    });
    // Without, this very case cannot be told: it takes a number that comes again within ten milliseconds.
    if has_pidfs.get() {
        home.ok(["stop", "--all", "--force"]);
        assert_eq!(text(&home.record("a"), "status"), "lost");
        assert!(is_alive(stranger.pid()));
    }
}

/// What ran before a reboot is lost, whoever has its number now; services come back.
#[test]
fn after_a_reboot_jobs_are_lost_and_services_come_back() {
    let home = Home::new();
    let leave_evidence = "echo $JOB_ID $NODEJOBS_ATTEMPT >> evidence; exec sleep 1000";
    home.ok(["run", "--id", "once", leave_evidence]);
    home.ok(["run", "--id", "service", "--restart", "on-failure", "--restart-delay", "10ms", leave_evidence]);
    home.ok(["run", "--id", "stubborn", "--restart", "on-failure", "--max-restarts", "0", leave_evidence]);
    let evidence = home.path().join("evidence");
    eventually("all have begun", || (lines(&evidence).len() == 3).then_some(()));
    // That is also written down.
    ["once", "service", "stubborn"].iter().for_each(|id| drop(home.running(id)));
    let stranger = Stranger::new();
    forge(&home, |parts| {
        parts[BOOT] = "00000000-1111-2222-3333-444444444444".to_owned();
        (parts[PID], parts[START_TICKS]) = (stranger.pid().to_string(), stranger.start_ticks());
    });
    for id in ["once", "stubborn"] {
        let record = home.record(id);
        assert_eq!((text(&record, "status"), text(&record, "reason")), ("lost", "reboot"), "{record}");
        assert_eq!((&record["exit_code"], &record["attempt"]), (&Value::Null, &1.into()), "{record}");
        assert_eq!(home.nodejobs(["wait", id]).code, 125);
    }
    eventually("the service is back", || lines(&evidence).contains(&"service 2".to_owned()).then_some(()));
    let record = home.running("service");
    assert_eq!((&record["attempt"], text(&record, "status")), (&2.into(), "running"), "{record}");
    assert_eq!(lines(&evidence).len(), 4, "nothing else was executed again");
    assert!(is_alive(stranger.pid()));
    home.ok(["stop", "service"]);
}

/// Whether it halts at a failpoint.
#[cfg(debug_assertions)]
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|fields| fields.starts_with('T'))
}

/// Journals are not synced, so nobody knows what was executed in the instant before the power went.
#[cfg(debug_assertions)]
#[test]
fn what_was_being_started_when_the_power_went_is_not_started_again() {
    for boot_changes in [false, true] {
        let home = Home::new();
        // Halts once the first submit is committed, before the launch.
        let mut start = home.command(["daemon", "start"]);
        assert_eq!(said(start.env("NODEJOBS_FAILPOINT", "owner-committed")).code, 0);
        let submit = ["run", "--id", "a", "echo $NODEJOBS_ATTEMPT >> evidence"];
        let mut caller =
            home.command(submit).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        let daemon = eventually("the daemon halts", || {
            home.processes().into_iter().find(|(pid, _)| is_stopped(*pid)).map(|(pid, _)| pid)
        });
        caller.kill().expect("killed");
        caller.wait().expect("ended");
        kill(daemon);
        forge_lines(&home, |line| {
            if boot_changes && line["document"]["key"] == "boot" {
                line["document"]["body"] = "an earlier boot".into();
            }
        });
        let record = home.ended("a");
        let expected = if boot_changes { ("lost", "reboot", 0) } else { ("finished", "", 1) };
        let reason = record["reason"].as_str().unwrap_or_default();
        let executed = lines(&home.path().join("evidence")).len();
        assert_eq!((text(&record, "status"), reason, executed), expected, "{record}");
        assert_eq!(record["attempt"], 1);
    }
}
