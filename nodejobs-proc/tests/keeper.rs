//! The backend with real keepers: fencing, at-most-once, a bounded journal, jobs that are taken over.

#[path = "keeper/repeats.rs"]
mod repeats;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use nodejobs_core::JobId;
use nodejobs_core::backend::{
    BackendEvent, BackendHost, BackendReport, EndPlan, KnownAttempt, LaunchInput, LaunchSpec, ProcessBackend,
    StartFailure,
};
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{ExitStatus, Process};
use nodejobs_core::logs::Logs;
use nodejobs_core::signal::Signal;
use nodejobs_core::spec::{Command, LaunchContext, Limits, OpenFiles, Output};
use nodejobs_core::status::{Reason, Status};
use nodejobs_core::time::BootTime;
use nodejobs_proc::machine::{Machine, now};
use nodejobs_proc::{Config, KeeperProgram, LocalBackend, keeper};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    // Started to be a keeper, this does not return.
    keeper::serve_if_asked();
    let trials = vec![
        Trial::test("a_newer_owner_takes_over_and_the_older_one_is_cut_off", takeover),
        Trial::test("the_journal_stays_small_however_many_jobs_it_has_seen", bounded_journal),
        Trial::test("a_launch_that_fails_names_the_step", failures),
        Trial::test("a_keeper_that_nobody_knew_of_is_let_go", spare_keeper),
        Trial::test("a_journal_that_cannot_be_read_proves_nothing", damaged_journal),
        Trial::test("a_journal_of_a_later_version_is_named", later_journal),
        Trial::test("a_dead_keepers_journal_stays_until_it_is_acknowledged", repeats::dead_journal),
        Trial::test("an_earlier_job_of_the_id_answers_no_launch", repeats::stale_answer),
        Trial::test(
            "an_earlier_job_that_the_guard_tells_of_answers_no_launch",
            repeats::stale_answer_of_a_guard,
        ),
        Trial::test("an_earlier_job_whose_end_nobody_saw_answers_no_launch", repeats::stale_orphan),
        Trial::test("journals_older_than_the_last_owners_boot_tell_nothing", repeats::older_boots),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// What the owner would be: scripts by job id, and everything that is reported.
struct Host {
    scripts: Mutex<HashMap<String, LaunchSpec>>,
    reports: Mutex<Sender<BackendReport>>,
}

impl BackendHost for Host {
    fn launch_spec(&self, attempt: &AttemptId) -> Result<LaunchSpec, StartFailure> {
        self.scripts
            .lock()
            .expect("no panic")
            .get(attempt.id.as_str())
            .cloned()
            .ok_or_else(|| StartFailure::permanent("unknown"))
    }

    fn report(&self, report: BackendReport) {
        let _ = self.reports.lock().expect("no panic").send(report);
    }

    fn warn(&self, message: String) {
        println!("{message}");
    }
}

struct Owner {
    backend: LocalBackend,
    host: Arc<Host>,
    reports: Receiver<BackendReport>,
    directory: PathBuf,
}

impl Owner {
    fn new(directory: &Path, generation: u64) -> Self {
        Self::after(directory, generation, None)
    }

    /// After one that took over in this boot.
    fn after(directory: &Path, generation: u64, previous_boot_id: Option<&str>) -> Self {
        let (sender, reports) = channel();
        let host = Arc::new(Host { scripts: Mutex::default(), reports: Mutex::new(sender) });
        let config = Config {
            cgroup: None,
            previous_boot_id: previous_boot_id.map(str::to_owned),
            keepers: directory.join("keepers"),
            directory_id: "test".to_owned(),
            generation,
            program: KeeperProgram::ThisExecutable,
            machine: Machine::read().expect("this machine"),
        };
        let backend =
            LocalBackend::new(config, Arc::clone(&host) as Arc<dyn BackendHost>).expect("a backend");
        Self { backend, host, reports, directory: directory.to_owned() }
    }

    fn launch(&self, id: &str, command: Command, cwd: &str) -> AttemptId {
        self.launch_limited(id, command, cwd, None)
    }

    fn launch_limited(&self, id: &str, command: Command, cwd: &str, limits: Option<Limits>) -> AttemptId {
        let attempt = AttemptId { id: JobId::new(id).expect("valid"), attempt: 1 };
        let logs = self.directory.join("logs").to_string_lossy().into_owned();
        let spec = LaunchSpec {
            command,
            cwd: cwd.into(),
            context: LaunchContext {
                environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
                ..LaunchContext::default()
            },
            input: LaunchInput::Null,
            output: Logs::new(&Output::default(), logs.into()).paths(&attempt),
            makes_directories: true,
            limits: limits.map(Box::new),
            user: None,
        };
        self.host.scripts.lock().expect("no panic").insert(id.to_owned(), spec);
        self.backend.launch(&attempt);
        attempt
    }

    /// The next report, acknowledged as an owner does that has it on disk.
    fn next(&self) -> BackendReport {
        let report = self.reports.recv_timeout(PATIENCE).expect("a report");
        self.backend.acknowledge(report.receipt.as_slice());
        report
    }

    fn started(&self, attempt: &AttemptId) -> Process {
        loop {
            let report = self.next();
            if let (true, BackendEvent::Started { process, .. }) = (report.attempt == *attempt, report.event)
            {
                return process;
            }
        }
    }

    fn exited(&self, attempt: &AttemptId) -> ExitStatus {
        loop {
            let report = self.next();
            if let (true, BackendEvent::Exited { exit, .. }) = (report.attempt == *attempt, report.event) {
                return exit;
            }
        }
    }

    fn end(&self, attempt: &AttemptId, process: &Process) {
        let plan = EndPlan { signal: Signal::KILL, deadline: now().boot };
        self.backend.end_tree(attempt, Some(process), plan);
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn takeover() -> Result<(), Failed> {
    let directory = directory();
    let older = Owner::new(directory.path(), 1);
    older.backend.recover(&[])?;
    let running = older.launch("a", Command::shell("exec sleep 1000"), "/");
    let process = older.started(&running);

    let newer = Owner::new(directory.path(), 2);
    let known = |attempt: &AttemptId, status, process: Option<&Process>| KnownAttempt {
        attempt: attempt.clone(),
        status,
        process: process.cloned(),
        ended: false,
        launch_asked: BootTime::default(),
        memory_limit: None,
    };
    let never = AttemptId { id: JobId::new("never").expect("valid"), attempt: 1 };
    let attempts = [known(&running, Status::Running, Some(&process)), known(&never, Status::Starting, None)];
    let reports = newer.backend.recover(&attempts)?;
    let of = |attempt: &AttemptId| -> Vec<&BackendEvent> {
        reports.iter().filter(|report| report.attempt == *attempt).map(|report| &report.event).collect()
    };
    assert!(
        matches!(of(&running).as_slice(), [BackendEvent::Started { process: same, .. }] if *same == process)
    );
    assert_eq!(
        of(&never),
        [&BackendEvent::NeverLaunched],
        "it is in no journal, so it never executed anything"
    );

    // The older one has lost its keeper; whatever it may still ask of it is not heard there.
    let evidence = directory.path().join("evidence");
    let late = older.launch("late", Command::shell(format!("echo older >> {}", evidence.display())), "/");
    newer.end(&running, &process);
    assert_eq!(newer.exited(&running), ExitStatus::Signal { number: 9, core_dumped: false });
    let keepers = newer.backend.keepers();
    assert_eq!((keepers.len(), keepers[0].jobs), (1, 0), "{keepers:?}");
    let heard_by_newer =
        std::iter::from_fn(|| newer.reports.try_recv().ok()).any(|report| report.attempt == late);
    assert!(!heard_by_newer, "the newer owner's keeper has launched for the older one");
    Ok(())
}

fn bounded_journal() -> Result<(), Failed> {
    const JOBS: usize = 3_000;
    let directory = directory();
    let owner = Owner::new(directory.path(), 1);
    owner.backend.recover(&[])?;
    let long = owner.launch("long", Command::shell("exec sleep 1000"), "/");
    let process = owner.started(&long);
    for number in 0..JOBS {
        owner.launch(&format!("j{number}"), Command::argv(["true"]), "/");
    }
    let mut ended = 0;
    while ended < JOBS {
        ended += usize::from(matches!(owner.next().event, BackendEvent::Exited { .. }));
    }
    let journals = std::fs::read_dir(directory.path().join("keepers"))?.flatten();
    let journal =
        journals.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "journal"));
    let size = std::fs::metadata(journal.ok_or("no journal")?)?.len();
    // Each job has left two entries and about two acknowledgements of 256 bytes: 3 MiB in all.
    assert!(size < 1_600_000, "{size} bytes");

    // What is still running is in it, and is handed over.
    drop(owner.backend);
    let next = Owner::new(directory.path(), 2);
    let attempt = KnownAttempt {
        attempt: long.clone(),
        status: Status::Running,
        process: Some(process.clone()),
        ended: false,
        launch_asked: BootTime::default(),
        memory_limit: None,
    };
    let reports = next.backend.recover(&[attempt])?;
    let handed_over =
        reports.iter().any(|r| r.attempt == long && matches!(r.event, BackendEvent::Started { .. }));
    assert!(handed_over, "{reports:?}");
    next.end(&long, &process);
    next.exited(&long);
    Ok(())
}

fn failures() -> Result<(), Failed> {
    let directory = directory();
    let owner = Owner::new(directory.path(), 1);
    owner.backend.recover(&[])?;
    let cases = [
        (Command::argv(["no-such-program"]), "/", "no-such-program"),
        (Command::argv(["/etc/passwd"]), "/", "/etc/passwd"),
        (Command::argv(["true"]), "/no/such/directory", "/no/such/directory"),
        (Command::argv(["/dev/null/x"]), "/", "/dev/null/x"),
    ];
    for (number, (command, cwd, named)) in cases.into_iter().enumerate() {
        let attempt = owner.launch(&format!("f{number}"), command, cwd);
        let report = owner.next();
        let BackendEvent::NotStarted { failure, .. } = report.event else {
            return Err(format!("{report:?}").into());
        };
        assert_eq!(report.attempt, attempt);
        assert!(failure.detail.contains(named), "{}", failure.detail);
    }
    // Nobody may have so many, whoever asks; an owner that checks beforehand does not let it come so far.
    let open_files = Some(OpenFiles { soft: 1 << 40, hard: None });
    let limits = Limits { open_files, ..Limits::default() };
    owner.launch_limited("files", Command::argv(["true"]), "/", Some(limits));
    let report = owner.next();
    let BackendEvent::NotStarted { failure, .. } = report.event else {
        return Err(format!("{report:?}").into());
    };
    let words = "cannot set the limit of open files 1099511627776: Operation not permitted";
    assert!(failure.detail.starts_with(words), "{}", failure.detail);
    Ok(())
}

/// An owner that is killed while it starts a keeper leaves one that the next owner cannot know of yet.
fn spare_keeper() -> Result<(), Failed> {
    let directory = directory();
    let owner = Owner::new(directory.path(), 1);
    owner.backend.recover(&[])?;
    let job = owner.launch("a", Command::shell("exec sleep 1000"), "/");
    let process = owner.started(&job);
    drop(owner.backend);
    let keepers = directory.path().join("keepers");
    for spare in ["00000001-0", "00000001-9"] {
        let mut starter = std::process::Command::new(std::env::current_exe()?);
        starter.arg("--nodejobs-keeper").arg(&keepers).arg(spare);
        assert!(starter.status()?.success());
    }

    let next = Owner::new(directory.path(), 2);
    let known = KnownAttempt {
        attempt: job.clone(),
        status: Status::Running,
        process: Some(process.clone()),
        ended: false,
        launch_asked: BootTime::default(),
        memory_limit: None,
    };
    next.backend.recover(&[known])?;
    let kept = next.backend.keepers();
    assert_eq!((kept.len(), kept[0].jobs), (1, 1), "{kept:?}");
    next.end(&job, &process);
    next.exited(&job);
    Ok(())
}

/// What a damaged journal does not show may have been executed all the same; one of another boot says nothing of this one.
fn damaged_journal() -> Result<(), Failed> {
    let boot_id = Machine::read()?.boot_id;
    let (now_boot, other_boot) = (boot_id[..8].to_owned(), "00000000".to_owned());
    let zeros = || vec![0; 1024];
    let lost = |reason| move |event: &BackendEvent| matches!(event, BackendEvent::Lost { reason: of, .. } if *of == reason);
    let never = |event: &BackendEvent| *event == BackendEvent::NeverLaunched;
    type Check = Box<dyn Fn(&BackendEvent) -> bool>;
    // The name's ending, what is in the file, the boot of the last owner, what is said of the attempt, and what is left.
    type Case<'a> = (String, Vec<u8>, Option<&'a str>, Check, Option<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        (format!(".{now_boot}"), vec![7; 1024], None, Box::new(lost(Reason::Unknown)), Some("damaged")),
        (format!(".{now_boot}"), zeros(), None, Box::new(lost(Reason::Unknown)), Some("damaged")),
        (
            format!(".{now_boot}"),
            b"nodejobs".to_vec(),
            None,
            Box::new(lost(Reason::Unknown)),
            Some("damaged"),
        ),
        (format!(".{now_boot}"), Vec::new(), None, Box::new(never), None),
        (format!(".{other_boot}"), zeros(), Some("other"), Box::new(lost(Reason::Reboot)), None),
        (format!(".{other_boot}"), vec![7; 1024], Some("other"), Box::new(lost(Reason::Reboot)), None),
        // Of the first version, whose names have no boot.
        (String::new(), zeros(), Some("other"), Box::new(lost(Reason::Reboot)), None),
        (String::new(), zeros(), Some(&boot_id), Box::new(lost(Reason::Unknown)), Some("damaged")),
        (String::new(), Vec::new(), Some(&boot_id), Box::new(never), None),
    ];
    for (ending, bytes, previous, says, left) in cases {
        let directory = directory();
        let keepers = directory.path().join("keepers");
        std::fs::create_dir(&keepers)?;
        let journal = keepers.join(format!("00000001-1{ending}.journal"));
        let case = format!("{ending} of {} bytes, {previous:?}", bytes.len());
        std::fs::write(&journal, bytes)?;
        let attempt = AttemptId { id: JobId::new("a").expect("valid"), attempt: 1 };
        let known = KnownAttempt {
            attempt,
            status: Status::Starting,
            process: None,
            ended: false,
            launch_asked: BootTime::default(),
            memory_limit: None,
        };
        // Launches of afterwards are in other journals.
        if left == Some("damaged") && ending.is_empty() {
            let answered = keepers.join("00000001-1.answered");
            std::fs::write(&answered, "")?;
            let owner = Owner::after(directory.path(), 2, previous);
            let reports = owner.backend.recover(std::slice::from_ref(&known))?;
            assert!(
                matches!(&reports[..], [report] if report.event == BackendEvent::NeverLaunched),
                "{reports:?}"
            );
            std::fs::remove_file(answered)?;
        }
        // The first may be killed before it has written down what it heard.
        for generation in [2, 3] {
            let owner = Owner::after(directory.path(), generation, previous);
            let reports = owner.backend.recover(std::slice::from_ref(&known))?;
            let [BackendReport { event, .. }] = &reports[..] else { panic!("{case}: {reports:?}") };
            assert!(says(event), "{case}, owner {generation}: {event:?}");
            if generation == 3 {
                owner.backend.settled();
            }
        }
        let names = || -> Vec<String> {
            let entries = std::fs::read_dir(&keepers).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        };
        let endings: Vec<Option<String>> =
            names().iter().map(|name| name.rsplit_once('.').map(|(_, ending)| ending.to_owned())).collect();
        assert_eq!(endings, left.map(|left| Some(left.to_owned())).into_iter().collect::<Vec<_>>(), "{case}");
    }
    Ok(())
}

/// A journal that another version of the program has written may tell more than this one can read.
fn later_journal() -> Result<(), Failed> {
    let directory = directory();
    let keepers = directory.path().join("keepers");
    std::fs::create_dir(&keepers)?;
    let boot_id = Machine::read()?.boot_id;
    let mut header = [0; 256];
    header[..16].copy_from_slice(b"nodejobs journal");
    header[16] = 2;
    let checksum = crc32fast::hash(&header[..252]).to_le_bytes();
    header[252..].copy_from_slice(&checksum);
    let path = keepers.join(format!("00000001-1.{}.journal", &boot_id[..8]));
    std::fs::write(&path, header)?;
    let error = Owner::new(directory.path(), 2).backend.recover(&[]).expect_err("it proves nothing");
    let words = format!("{error}: {}", std::error::Error::source(&error).ok_or("no source")?);
    assert!(words.contains(&path.display().to_string()) && words.contains("version 2"), "{words}");
    assert!(path.exists());
    // Of another boot it can have nothing to say.
    std::fs::rename(&path, keepers.join("00000001-1.00000000.journal"))?;
    let owner = Owner::after(directory.path(), 3, Some("other"));
    assert_eq!(owner.backend.recover(&[])?, []);
    Ok(())
}
