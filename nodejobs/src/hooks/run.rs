//! One run of a hook: a child of the owner that reads the record, and is killed with its tree when its time is up.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nodejobs_core::RawText;
use nodejobs_core::store::JobEvent;
use nodejobs_proc::marked::{MARK_VARIABLE, kill_marked};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::config::{Hook, HookCommand};
use crate::files;
use crate::owner::Owner;
use crate::service::record_of_attempt;

/// Of what a hook says on standard error so many last bytes are told.
const WORDS: usize = 1024;
/// What is left in the pipe when it has ended is read for so long: something it started may hold the other end.
const LAST_WORDS: Duration = Duration::from_millis(50);
/// How long the end of one that was killed is waited for.
const LAST_BREATH: Duration = Duration::from_secs(1);
/// Between two tries where the machine has no room for a process.
const NO_ROOM: Duration = Duration::from_secs(1);

/// Where a hook runs that is not one of the directory's.
pub(crate) struct Surroundings {
    pub(crate) environment: Vec<(RawText, RawText)>,
    pub(crate) cwd: RawText,
}

/// Runs a hook to its end, and says in the log if it failed.
pub(crate) async fn run(
    owner: &Arc<Owner>,
    hook: &Hook,
    name: &str,
    surroundings: Option<&Surroundings>,
    event: &JobEvent,
    mark: &str,
) {
    let failed = |what: &str| {
        let JobEvent { attempt, status, .. } = event;
        log::warn!("{name} ({}) for '{}', which is {status}: {what}", hook.command, attempt.id);
    };
    let wanted = event.attempt.clone();
    let record = owner.blocking(move |store| record_of_attempt(store, &wanted)).await;
    let record = match record.map(|record| serde_json::to_vec(&record)) {
        Ok(Ok(mut record)) => {
            record.push(b'\n');
            record
        }
        Ok(Err(error)) => return failed(&format!("its record is no JSON: {error}")),
        Err(error) => return failed(&error.to_problem().message),
    };
    let mut child = loop {
        match command(owner, hook, surroundings, event, mark).spawn() {
            Ok(child) => break child,
            Err(error) if is_no_room(&error) => tokio::time::sleep(NO_ROOM).await,
            Err(error) => return failed(&format!("it cannot be started: {error}")),
        }
    };
    let (stdin, mut stderr) = (child.stdin.take(), child.stderr.take());
    let mut words = Words::default();
    let ended = {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // It need not read it.
                let _ = stdin.write_all(&record).await;
            }
        };
        let talk = async {
            tokio::join!(feed, words.hear(stderr.as_mut()));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = child.wait() => Some(ended),
            () = tokio::time::sleep(hook.timeout) => None,
            () = talk => None,
        }
    };
    let Some(ended) = ended else {
        end(&mut child, mark).await;
        return failed(&format!("killed, since it did not end within {:?}{words}", hook.timeout));
    };
    let _ = tokio::time::timeout(LAST_WORDS, words.hear(stderr.as_mut())).await;
    match ended {
        Ok(status) if status.success() => {}
        Ok(status) => failed(&format!("{}{words}", how(status))),
        Err(error) => failed(&format!("its outcome is not known: {error}")),
    }
}

fn command(
    owner: &Owner,
    hook: &Hook,
    surroundings: Option<&Surroundings>,
    event: &JobEvent,
    mark: &str,
) -> Command {
    let mut command = program(&hook.command, surroundings.map(|surroundings| &surroundings.cwd));
    let ours: [(&str, OsString); 7] = [
        ("JOB_ID", event.attempt.id.as_str().into()),
        ("NODEJOBS_ATTEMPT", event.attempt.attempt.to_string().into()),
        ("NODEJOBS_EVENT", event.status.as_str().into()),
        ("NODEJOBS_REASON", event.reason.map_or("", |reason| reason.as_str()).into()),
        ("NODEJOBS_SEQ", event.seq.to_string().into()),
        ("NODEJOBS_DIR", owner.directory.path().into()),
        (MARK_VARIABLE, mark.into()),
    ];
    command.current_dir("/");
    if let Some(Surroundings { environment, cwd: _ }) = surroundings {
        command.env_clear().envs(environment.iter().map(|(name, value)| (os(name), os(value))));
    }
    command
        .env_remove("NODEJOBS_FAILPOINT")
        .envs(hook.variables.iter().map(|(name, value)| (name, value)))
        .envs(ours)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Signals that a terminal sends to a program that embeds us are not meant for it.
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// What is executed. This process waits until it is: so it is a shell of this machine, which then goes where the user wants
/// it to and executes what the user has named. If a file system hangs there, it is the shell that waits.
fn program(command: &HookCommand, cwd: Option<&RawText>) -> Command {
    let mut shell = Command::new("/bin/sh");
    match (command, cwd) {
        (HookCommand::Shell(script), None) => {
            shell.args(["-c", script]);
        }
        (HookCommand::Shell(script), Some(cwd)) => {
            shell.args(["-c", r#"cd -- "$0" && exec /bin/sh -c "$1""#]).arg(os(cwd)).arg(script);
        }
        (HookCommand::Argv(words), Some(cwd)) => {
            shell.args(["-c", r#"cd -- "$0" && exec "$@""#]).arg(os(cwd)).args(words);
        }
        (HookCommand::Argv(words), None) => {
            let program = words.first().map_or("", String::as_str);
            if !files::is_elsewhere(Path::new(program)) {
                let mut command = Command::new(program);
                command.args(words.iter().skip(1));
                return command;
            }
            shell.args(["-c", r#"exec "$@""#, "sh"]).args(words);
        }
    }
    shell
}

fn os(text: &RawText) -> OsString {
    OsString::from_vec(text.as_bytes().to_vec())
}

fn is_no_room(error: &io::Error) -> bool {
    let none = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
    error.raw_os_error().is_some_and(|code| none.iter().any(|errno| errno.raw_os_error() == code))
}

/// Kills it with everything it started.
async fn end(child: &mut Child, mark: &str) {
    // Found by its mark, before the main process is collected: what is below it would go elsewhere.
    let mark = mark.to_owned();
    match tokio::task::spawn_blocking(move || kill_marked(&mark)).await {
        Ok(Ok(left)) if left.is_empty() => {}
        Ok(Ok(left)) => log::warn!("processes of a hook could not be killed: {left:?}"),
        Ok(Err(error)) => log::warn!("the processes of a hook cannot be looked for: {error}"),
        Err(_) => {}
    }
    // One that has not yet executed its program carries no mark. One that waits for a file system may not end.
    let _ = tokio::time::timeout(LAST_BREATH, child.kill()).await;
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// The last words of a hook.
#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    /// Listens to the end.
    async fn hear(&mut self, from: Option<&mut (impl AsyncRead + Unpin)>) {
        let Some(from) = from else { return };
        let mut bytes = [0; WORDS];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            self.0.extend_from_slice(&bytes[..length]);
            self.0.drain(..self.0.len().saturating_sub(WORDS));
        }
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.0);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() { Ok(()) } else { write!(f, "; it said: {}", lines.join(" / ").escape_debug()) }
    }
}
