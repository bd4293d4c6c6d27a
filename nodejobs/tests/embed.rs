//! A program that embeds the library is killed, and finds its jobs again.
//!
//! The program is the example `embed`, and this very executable: started with [`AS_PROGRAM`] it is the example, and
//! started by that to keep the jobs it is the keeper. So it is never older than the library, and has no keeper but itself.

#[path = "../examples/embed.rs"]
mod embed;

use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Set for this executable where it is to be the example.
const AS_PROGRAM: &str = "NODEJOBS_TEST_EMBED";
/// A condition that is not met by then will not be met, in seconds.
const PATIENCE: i64 = 30;

fn main() -> ExitCode {
    nodejobs::serve_keeper_if_asked();
    if std::env::var_os(AS_PROGRAM).is_some() {
        return embed::main().unwrap_or_else(|error| {
            eprintln!("{error}");
            ExitCode::FAILURE
        });
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let trials = vec![
        trial("a_job_that_runs_on_is_waited_for_by_the_next_program", the_next_program_waits),
        trial("a_job_that_ended_while_nobody_was_there_has_its_true_end", it_ended_meanwhile),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A directory with a job's two named pipes: by one it says that it runs, by the other it is told to go on.
struct Scene {
    directory: tempfile::TempDir,
    told: PathBuf,
    cue: File,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = |name: &str| {
            let path = directory.path().join(name);
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).expect("a named pipe");
            path
        };
        // Opened for both, so that neither side has to wait for the other; and gone with this process, so that the job
        // does not wait for ever.
        let cue = File::options().read(true).write(true).open(pipe("cue")).expect("opened");
        Self { told: pipe("told"), directory, cue }
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("jobs")
    }

    /// The embedding program with these arguments behind the data directory.
    fn start(&self, arguments: &[&str]) -> Program {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg(self.data_dir()).args(arguments).env(AS_PROGRAM, "1").current_dir(self.directory.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("started");
        let said = BufReader::new(child.stdout.take().expect("piped")).lines();
        Program { child, said }
    }

    /// A program whose job runs; with the job's id and process.
    fn start_job(&self) -> (Program, String, Pid) {
        let mut program =
            self.start(&["sh", "-c", "echo up; echo $$ > told; read _ < cue; echo down; exit 7"]);
        let id = program.line().strip_prefix("started: ").expect("its first word").to_owned();
        let pid = std::fs::read_to_string(&self.told).expect("the job says that it runs");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process id");
        (program, id, pid)
    }

    fn go_on(&self) {
        (&self.cue).write_all(b"go on\n").expect("sent");
    }
}

/// The embedding program, which is killed with this value.
struct Program {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// The next line that it says.
    fn line(&mut self) -> String {
        self.said.next().expect("a line").expect("read")
    }

    /// All lines that are left, once it has ended.
    fn rest(mut self) -> Vec<String> {
        let lines = self.said.by_ref().collect::<Result<_, _>>().expect("read");
        assert!(self.child.wait().expect("ended").success());
        lines
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns when the process has ended.
fn wait_for_end(pid: Pid) {
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let patience = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)).expect("polled");
    assert_eq!(ready, 1, "process {pid} has not ended");
}

/// The programs of the processes that keep the jobs of this directory.
fn keepers(data_dir: &Path) -> Vec<PathBuf> {
    let data_dir = data_dir.to_str().expect("UTF-8");
    let is_keeper = |process: &PathBuf| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("--nodejobs-keeper") && line.contains(data_dir)
    };
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    processes
        .filter(is_keeper)
        .map(|keeper| std::fs::read_link(keeper.join("exe")).unwrap_or_default())
        .collect()
}

fn until_no_keeper_is_left(data_dir: &Path) {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE.unsigned_abs());
    while !keepers(data_dir).is_empty() {
        assert!(Instant::now() < deadline, "keepers are left: {:?}", keepers(data_dir));
        // Nothing tells when a process that is not our child has gone.
        let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
    }
}

fn the_next_program_waits() {
    let scene = Scene::new();
    let (mut program, id, _) = scene.start_job();
    let this = std::env::current_exe().expect("this program");
    assert_eq!(keepers(&scene.data_dir()), [this.clone(), this], "it is its own guard and worker");
    program.kill();
    let mut next = scene.start(&[]);
    assert_eq!(next.line(), format!(r#"known: {id} running None "up\n""#));
    scene.go_on();
    assert_eq!(next.rest(), [format!(r#"ended: {id} failed Some(7) "up\ndown\n""#)]);
    until_no_keeper_is_left(&scene.data_dir());
}

fn it_ended_meanwhile() {
    let scene = Scene::new();
    let (mut program, id, pid) = scene.start_job();
    program.kill();
    scene.go_on();
    wait_for_end(pid);
    let ended = format!(r#"known: {id} failed Some(7) "up\ndown\n""#);
    assert_eq!(scene.start(&[]).rest(), std::slice::from_ref(&ended));
    // So it stays, and the program goes on as if nothing had been.
    let said = scene.start(&["echo", "next"]).rest();
    assert_eq!((&said[0], said.len()), (&ended, 3));
    assert!(said[2].ends_with(r#" finished Some(0) "next\n""#), "{said:?}");
    until_no_keeper_is_left(&scene.data_dir());
}
