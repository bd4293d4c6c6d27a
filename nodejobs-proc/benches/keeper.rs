//! What a launch costs, and what is in it: through the backend and a real keeper, beside what the system takes for it.

#[path = "../../nodejobs-core/benches/support/mod.rs"]
mod support;

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use criterion::{Criterion, Throughput};
use nodejobs_core::JobId;
use nodejobs_core::backend::{
    BackendEvent, BackendHost, BackendReport, LaunchInput, LaunchSpec, ProcessBackend, StartFailure,
};
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::ExitStatus;
use nodejobs_core::logs::Logs;
use nodejobs_core::spec::{Command, Output};
use nodejobs_proc::benching::{Journal, pack_and_unpack};
use nodejobs_proc::machine::Machine;
use nodejobs_proc::{Config, KeeperProgram, LocalBackend, keeper};
use support::{criterion, jobs};

const TRUE: &str = "/bin/true";
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    // Started to be a keeper, this does not return.
    keeper::serve_if_asked();
    let mut criterion = criterion();
    let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(disk).expect("a directory");
    let directory = tempfile::tempdir_in(disk).expect("a directory");
    launches(&mut criterion, directory.path());
    packing(&mut criterion, directory.path());
    journal(&mut criterion, directory.path());
    criterion.final_summary();
}

fn launches(criterion: &mut Criterion, directory: &Path) {
    let number = Cell::new(0);
    let next = || attempt(number.replace(number.get() + 1));
    let mut group = criterion.benchmark_group("launch and end of `true`");
    for in_flight in [1_usize, 32] {
        group.throughput(Throughput::Elements(in_flight as u64));
        group.bench_function(format!("floor: posix_spawn, {in_flight} in flight"), |bencher| {
            bencher.iter(|| {
                let children: Vec<_> = (0..in_flight).map(|_| spawn(directory, &next())).collect();
                for mut child in children {
                    assert!(child.wait().expect("waited for").success(), "true has failed");
                }
            });
        });
        group.bench_function(format!("backend and keeper, {in_flight} in flight"), |bencher| {
            let owner = Owner::new(directory);
            bencher.iter(|| {
                let attempts: Vec<_> = (0..in_flight).map(|_| next()).collect();
                attempts.iter().for_each(|attempt| owner.backend.launch(attempt));
                owner.wait_for(in_flight);
            });
        });
    }
    group.finish();
}

fn packing(criterion: &mut Criterion, directory: &Path) {
    let (attempt, spec) = (attempt(0), launch_spec(directory, &attempt(0)));
    // A job has three of its own.
    let expected = (1, spec.context.environment.len() + 3);
    criterion.bench_function("launch: pack and unpack", |bencher| {
        bencher.iter(|| {
            let found = pack_and_unpack(black_box(&attempt), black_box(&spec)).expect("packed");
            assert_eq!(found, expected, "arguments and variables");
        });
    });
}

fn journal(criterion: &mut Criterion, directory: &Path) {
    let attempt = attempt(0);
    let at = jobs::moment(0);
    let mut group = criterion.benchmark_group("journal");
    group.bench_function("floor: write of an entry's length", |bencher| {
        let mut file =
            OpenOptions::new().append(true).create(true).open(directory.join("floor")).expect("a file");
        let entry = [b'x'; Journal::ENTRY_LEN];
        bencher.iter(|| file.write_all(black_box(&entry)).expect("written"));
    });
    group.bench_function("append an end", |bencher| {
        let path = directory.join("journal");
        let _ = std::fs::remove_file(&path);
        let mut journal = Journal::create(&path).expect("a journal");
        let appended = Cell::new(0);
        bencher.iter(|| {
            journal.append_end(black_box(&attempt), at).expect("appended");
            appended.set(appended.get() + 1);
        });
        assert_eq!(journal.readable_entries().expect("read"), appended.get());
    });
    group.finish();
}

fn attempt(number: usize) -> AttemptId {
    AttemptId { id: JobId::new(&format!("bench-{number}")).expect("valid"), attempt: 1 }
}

fn launch_spec(directory: &Path, attempt: &AttemptId) -> LaunchSpec {
    let logs = directory.join("logs").to_string_lossy().into_owned();
    LaunchSpec {
        command: Command::argv([TRUE]),
        cwd: "/".into(),
        context: jobs::spec(0).context,
        input: LaunchInput::Null,
        output: Logs::new(&Output::default(), logs.into()).paths(attempt),
        makes_directories: true,
        limits: None,
        user: None,
    }
}

/// The same program with two new log files, as a child of this process.
fn spawn(directory: &Path, attempt: &AttemptId) -> Child {
    let logs = directory.join("floor-logs");
    std::fs::create_dir_all(&logs).expect("a directory");
    let log = |kind: &str| File::create(logs.join(format!("{}.{kind}", attempt.id))).expect("a log file");
    let mut program = Program::new(TRUE);
    program.stdin(Stdio::null()).stdout(log("out")).stderr(log("err")).spawn().expect("started")
}

struct Host {
    directory: PathBuf,
    reports: Mutex<Sender<BackendReport>>,
}

impl BackendHost for Host {
    fn launch_spec(&self, attempt: &AttemptId) -> Result<LaunchSpec, StartFailure> {
        Ok(launch_spec(&self.directory, attempt))
    }

    fn report(&self, report: BackendReport) {
        // Nobody listens any more while the backend is dropped.
        let _ = self.reports.lock().expect("no panic").send(report);
    }

    fn warn(&self, message: String) {
        panic!("{message}");
    }
}

/// An owner that has everything on disk at once.
struct Owner {
    backend: LocalBackend,
    reports: Receiver<BackendReport>,
}

impl Owner {
    fn new(directory: &Path) -> Self {
        // Keepers obey the highest.
        static GENERATION: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let (sender, reports) = channel();
        let host = Host { directory: directory.to_owned(), reports: Mutex::new(sender) };
        let config = Config {
            cgroup: None,
            previous_boot_id: None,
            keepers: directory.join("keepers"),
            directory_id: "bench".to_owned(),
            generation: GENERATION.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            program: KeeperProgram::ThisExecutable,
            machine: Machine::read().expect("this machine"),
        };
        let backend = LocalBackend::new(config, Arc::new(host)).expect("a backend");
        backend.recover(&[]).expect("recovered");
        Self { backend, reports }
    }

    /// Until so many have started and ended well.
    fn wait_for(&self, count: usize) {
        let (mut started, mut ended) = (0, 0);
        while ended < count {
            let BackendReport { event, receipt, .. } = self.reports.recv_timeout(PATIENCE).expect("a report");
            match event {
                BackendEvent::Started { .. } => started += 1,
                BackendEvent::Exited { exit: ExitStatus::Code(0), .. } => ended += 1,
                other => panic!("`true` has not ended well: {other:?}"),
            }
            self.backend.acknowledge(receipt.as_slice());
        }
        assert_eq!(started, count, "each is reported once");
    }
}
