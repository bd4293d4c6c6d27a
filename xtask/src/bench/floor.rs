//! The floors: what the machine itself takes for the same work, without us.
//!
//! The only file of xtask with `unsafe` in it: std cannot ask posix_spawn for a session of its own.

use std::ffi::{CStr, CString, c_char};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::Bench;
use super::report::{Side, percentile};
use crate::process::{kill_all, sealed, succeed};

/// Starts `/bin/true` `count` times, each in a session of its own and with two new log files, and waits for each;
/// `in_flight` threads share the work. Returns the time for all of it.
pub(crate) fn spawn(directory: &Path, count: usize, in_flight: usize) -> Result<Duration> {
    // A fresh name each time: a log file that exists costs nothing.
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let logs = directory.join(format!("logs-{}", CALLS.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let share = |worker: usize| -> Result<()> {
        for index in (worker..count).step_by(in_flight) {
            let log = |kind: &str| CString::new(logs.join(format!("{index}.{kind}")).as_os_str().as_bytes());
            let pid = spawn_true(&log("out")?, &log("err")?).context("cannot posix_spawn /bin/true")?;
            let (_, status) = waitpid(Some(pid), WaitOptions::empty())?.context("no child to wait for")?;
            ensure!(status.exit_status() == Some(0), "/bin/true ended with {status:?}");
        }
        Ok(())
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..in_flight).map(|worker| scope.spawn(move || share(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker of the floor panicked"))
    })?;
    Ok(started.elapsed())
}

/// Time to kill and collect `count` sleeping children, in ms: the median of three.
pub(crate) fn kill(count: usize) -> Result<f64> {
    let samples = (0..3).map(|_| kill_once(count)).collect::<Result<Vec<_>>>()?;
    Ok(percentile(&samples, 50))
}

fn kill_once(count: usize) -> Result<f64> {
    let mut children: Vec<Child> = Vec::new();
    let spawned = (0..count).try_for_each(|_| {
        children.push(sealed("sleep").arg("1000").spawn()?);
        io::Result::Ok(())
    });
    let started = Instant::now();
    kill_all(&mut children)?;
    spawned.context("cannot start sleep")?;
    Ok(milliseconds(started.elapsed()))
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// posix_spawn of `/bin/true` with POSIX_SPAWN_SETSID, stdin null, stdout and stderr appended to new files.
#[expect(unsafe_code, reason = "std offers neither POSIX_SPAWN_SETSID nor file actions")]
fn spawn_true(stdout: &CStr, stderr: &CStr) -> io::Result<Pid> {
    let check = |code: libc::c_int| match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    };
    let path = c"/bin/true".as_ptr();
    let environment: [*const c_char; 2] = [c"PATH=/usr/bin:/bin".as_ptr(), ptr::null()];
    let arguments: [*const c_char; 2] = [path, ptr::null()];
    let append = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND;
    let mut attributes = MaybeUninit::<libc::posix_spawnattr_t>::uninit();
    let mut actions = MaybeUninit::<libc::posix_spawn_file_actions_t>::uninit();
    let mut pid = 0;
    // SAFETY: both structures are initialised by their init call before any other use and destroyed once at the
    // end; every pointer handed over is to a NUL-terminated string or a NULL-terminated array that outlives the call.
    let spawned = unsafe {
        check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
        check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
        let (attributes, actions) = (attributes.as_mut_ptr(), actions.as_mut_ptr());
        let spawned = check(libc::posix_spawnattr_setflags(attributes, libc::POSIX_SPAWN_SETSID))
            .and_then(|()| {
                let null = c"/dev/null".as_ptr();
                check(libc::posix_spawn_file_actions_addopen(actions, 0, null, libc::O_RDONLY, 0))
            })
            .and_then(|()| {
                check(libc::posix_spawn_file_actions_addopen(actions, 1, stdout.as_ptr(), append, 0o600))
            })
            .and_then(|()| {
                check(libc::posix_spawn_file_actions_addopen(actions, 2, stderr.as_ptr(), append, 0o600))
            })
            .and_then(|()| {
                let (arguments, environment) = (arguments.as_ptr().cast(), environment.as_ptr().cast());
                check(libc::posix_spawn(&raw mut pid, path, actions, attributes, arguments, environment))
            });
        libc::posix_spawn_file_actions_destroy(actions);
        libc::posix_spawnattr_destroy(attributes);
        spawned
    };
    spawned?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn gave no pid"))
}

/// What a call of the command line cannot do without; one of each takes so many ms.
pub(super) struct Floors {
    directory: PathBuf,
    appended: File,
}

impl Floors {
    pub(super) fn prepare(directory: PathBuf) -> Result<Self> {
        let path = directory.join("append");
        let appended = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Self { appended: appended.with_context(|| format!("cannot open {}", path.display()))?, directory })
    }

    /// A process of its own, called and timed as the command line is.
    pub(super) fn call(&self) -> Result<f64> {
        Ok(milliseconds(succeed(&mut sealed("true"), Duration::from_secs(30))?.took))
    }

    /// One durable record.
    pub(super) fn append(&self) -> Result<f64> {
        let started = Instant::now();
        (&self.appended).write_all(&[b'x'; 500])?;
        self.appended.sync_data()?;
        Ok(milliseconds(started.elapsed()))
    }

    /// The launch of a job.
    pub(super) fn spawn(&self) -> Result<f64> {
        Ok(milliseconds(spawn(&self.directory, 4, 1)?) / 4.0)
    }
}

/// The group of what the machine does without us.
pub(super) fn floors(bench: &mut Bench) -> Result<()> {
    let directory = bench.fresh("floor")?;
    let floors = Floors::prepare(directory.clone())?;
    let count = bench.count(1000, 250);
    let report = &mut bench.report;
    for _ in 0..5 {
        for (each, rate, in_flight) in [("spawn-1", "spawn-1-rate", 1), ("spawn-2", "spawn-2-rate", 2)] {
            let seconds = spawn(&directory, count, in_flight)?.as_secs_f64();
            report.take(each, Side::Floor, || Ok(seconds * 1e6 / number(count)));
            report.take(rate, Side::Floor, || Ok(number(count) / seconds));
        }
        for _ in 0..count / 5 {
            let append = floors.append()?;
            report.take("append", Side::Floor, || Ok(append));
            report.take("append-rate", Side::Floor, || Ok(1e3 / append));
            report.take("call", Side::Floor, || floors.call());
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^52")]
pub(super) fn number(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spawn_leads_its_session_and_makes_its_logs() {
        let directory = std::env::temp_dir().join(format!("xtask-floor-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        assert!(spawn(&directory, 5, 2).unwrap() > Duration::ZERO);
        let logs = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
        assert_eq!(std::fs::read_dir(logs).unwrap().count(), 10);

        let (out, err) = (directory.join("out"), directory.join("err"));
        let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
        let pid = spawn_true(&name(&out), &name(&err)).unwrap();
        // Still ours to wait for, so the pid cannot have passed to anybody else.
        assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid);
        waitpid(Some(pid), WaitOptions::empty()).unwrap();

        let floors = Floors::prepare(directory.clone()).unwrap();
        assert!(
            floors.append().unwrap() > 0.0 && floors.call().unwrap() > 0.0 && floors.spawn().unwrap() > 0.0
        );
        assert_eq!(std::fs::metadata(directory.join("append")).unwrap().len(), 500);
        assert!(kill(3).unwrap() > 0.0);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
