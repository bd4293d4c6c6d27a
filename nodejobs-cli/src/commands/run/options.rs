//! The options of `run` that say how a job is started, what it reads and writes, and how it is ended and judged.

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use nodejobs::signal::Signal;
use nodejobs::spec::{JobSpec, LaunchContext, Restart, Start, Stdin, TerminalSize};
use nodejobs::units::{InvalidDuration, parse_duration, parse_size};
use nodejobs::{OWN_VARIABLES, RawText, Timestamp, env_file};
use rustix::termios::tcgetwinsize;

use super::limits::LimitOptions;
use super::place::PlaceOptions;
use crate::exit::{FAILED, Failure, USAGE};
use crate::times;

const INPUT: &str = "Environment and input";
const OUTPUT: &str = "Output";
const TIME: &str = "Time";
const END: &str = "How it ends, and begins again";

#[derive(Args, Debug)]
pub(crate) struct JobOptions {
    /// Set a variable, on top of all others; may be repeated
    #[arg(long = "env", value_name = "KEY=VALUE", help_heading = INPUT)]
    variables: Vec<OsString>,
    /// Set the variables in a file of KEY=VALUE lines, on top of the current ones; may be repeated
    #[arg(long = "env-file", value_name = "FILE", help_heading = INPUT)]
    env_files: Vec<PathBuf>,
    /// Leave out the current environment: only --env-file and --env count
    #[arg(long, help_heading = INPUT)]
    clean_env: bool,
    /// Let it read this file, or with `-` what comes on our standard input, or with `pipe` what `send` sends it [default: nothing]
    #[arg(long, value_name = "FILE|-|pipe", help_heading = INPUT)]
    stdin: Option<PathBuf>,
    /// Give it a terminal, for `attach` and `send`; its output is copied to the log
    #[arg(long, conflicts_with = "stdin", help_heading = INPUT)]
    pty: bool,
    /// Write its output to ID.ATTEMPT.out and .err in this directory
    #[arg(long, value_name = "DIR", help_heading = OUTPUT)]
    logdir: Option<PathBuf>,
    /// Append its output to this file, and standard error to FILE.err; below --logdir if both are given
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    logfile: Option<PathBuf>,
    /// Write standard error into the same file as standard output, in the order in which both come
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = OUTPUT)]
    merge: Option<bool>,
    /// Keep only so much of the newest output of each stream, such as 64K, 10M or 2G; none keeps all [default: 100M]
    #[arg(long, value_name = "SIZE", value_parser = log_cap, allow_negative_numbers = true, help_heading = OUTPUT)]
    log_cap: Option<u64>,
    /// Start it after this time, such as 5m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "at", help_heading = TIME)]
    delay: Option<Duration>,
    /// Start it at this time, such as 18:00, "2026-12-24 18:00" or 2026-12-24T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = times::start, help_heading = TIME)]
    at: Option<Timestamp>,
    /// End it if it runs longer, or `none`; it has then failed with reason `timeout`
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout, help_heading = TIME)]
    timeout: Option<Timeout>,
    /// The signal that asks it to end, by name or number [default: TERM]
    #[arg(long, value_name = "SIGNAL", help_heading = END)]
    stop_signal: Option<Signal>,
    /// How long it has to obey before it is killed [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = END)]
    grace: Option<Duration>,
    /// Exit codes that mean success, with commas between them [default: 0]
    #[arg(long, value_name = "CODES", value_delimiter = ',', value_parser = exit_code, help_heading = END)]
    success_codes: Vec<i32>,
    /// Let processes that it leaves behind go on when it ends by itself
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = END)]
    keep_children: Option<bool>,
    /// Start it again when it has ended by itself: no, on-failure, or always [default: no]
    #[arg(long, value_name = "WHEN", help_heading = END)]
    restart: Option<Restart>,
    /// Start it again at most so often [default: as often as it ends]
    #[arg(long, value_name = "N", help_heading = END)]
    max_restarts: Option<u32>,
    /// Start it again so long after its end; each failure in a row doubles it [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = END)]
    restart_delay: Option<Duration>,
    /// The longest delay before it is started again [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = END)]
    restart_delay_max: Option<Duration>,
    /// How long it has to run for its failure to be the first of a row [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = END)]
    healthy_after: Option<Duration>,
    /// After so many failures in a row do not start it again, or `never` give up [default: 16]
    #[arg(long, value_name = "N", value_parser = give_up_after, help_heading = END)]
    give_up_after: Option<GiveUp>,
    #[command(flatten)]
    place: PlaceOptions,
    #[command(flatten)]
    limits: LimitOptions,
    /// A label to find it by; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

impl JobOptions {
    /// Whether standard input is the job's.
    pub(in crate::commands) fn reads_input(&self) -> bool {
        self.stdin.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }

    /// Puts into the spec, which has the surroundings of this process, what was said.
    pub(crate) fn apply(self, spec: &mut JobSpec) -> Result<(), Failure> {
        if self.clean_env {
            spec.context.environment.clear();
        }
        for file in &self.env_files {
            read_env_file(file)?.into_iter().for_each(|variable| set_variable(&mut spec.context, variable));
        }
        for (index, text) in self.variables.into_iter().enumerate() {
            // Understood here and not by the parser of arguments, which would repeat what may be a secret.
            let variable = variable(text)
                .map_err(|problem| Failure::new(USAGE, format!("--env number {}: {problem}", index + 1)))?;
            set_variable(&mut spec.context, variable);
        }
        for own in OWN_VARIABLES {
            if spec.context.variable(own).is_some() {
                let message = format!("variable '{own}' is set by nodejobs for each job; leave it out");
                return Err(Failure::new(USAGE, message));
            }
        }
        for (key, value) in self.labels {
            if spec.labels.insert(key.clone(), value).is_some() {
                return Err(Failure::new(USAGE, format!("label '{key}' is given twice")));
            }
        }
        let output = &mut spec.output;
        output.merge = self.merge.unwrap_or(output.merge);
        output.logfile = match (&self.logdir, self.logfile) {
            // Relative to the log directory.
            (Some(_), Some(file)) => Some(raw(file.into_os_string())),
            (None, Some(file)) => Some(absolute("--logfile", &file)?),
            (_, None) => None,
        };
        output.logdir = self.logdir.map(|directory| absolute("--logdir", &directory)).transpose()?;
        let policy = &mut spec.policy;
        policy.log_cap = self.log_cap;
        if let Some(timeout) = self.timeout {
            policy.timeout_ms = timeout.0.map(millis);
        }
        policy.keep_children = self.keep_children.unwrap_or(policy.keep_children);
        policy.restart = self.restart.unwrap_or(policy.restart);
        let said = [
            ("--max-restarts", self.max_restarts.is_some()),
            ("--restart-delay", self.restart_delay.is_some()),
            ("--restart-delay-max", self.restart_delay_max.is_some()),
            ("--healthy-after", self.healthy_after.is_some()),
            ("--give-up-after", self.give_up_after.is_some()),
        ];
        let idle = said.into_iter().find(|(_, is_said)| *is_said).filter(|_| policy.restart == Restart::No);
        if let Some((option, _)) = idle.filter(|_| self.restart.is_none()) {
            let message = format!("{option} means nothing without --restart on-failure or always");
            return Err(Failure::new(USAGE, message));
        }
        policy.max_restarts = self.max_restarts.or(policy.max_restarts);
        policy.restart_delay_ms = self.restart_delay.map_or(policy.restart_delay_ms, millis);
        let backoff = &mut policy.backoff;
        backoff.delay_max_ms = self.restart_delay_max.map_or(backoff.delay_max_ms, millis);
        backoff.healthy_after_ms = self.healthy_after.map_or(backoff.healthy_after_ms, millis);
        backoff.give_up_after = self.give_up_after.map_or(backoff.give_up_after, |GiveUp(after)| after);
        policy.stop_signal = self.stop_signal.unwrap_or(policy.stop_signal);
        policy.grace_ms = self.grace.map_or(policy.grace_ms, millis);
        if !self.success_codes.is_empty() {
            policy.success_codes = self.success_codes;
        }
        self.place.apply(spec)?;
        self.limits.apply(spec);
        spec.start = match (self.delay, self.at) {
            (Some(delay), _) => Start::AfterMs(millis(delay)),
            (None, Some(time)) => Start::At(time),
            (None, None) => Start::Now,
        };
        if self.pty {
            spec.stdin = Stdin::Terminal(terminal_size());
        }
        // Last, since it may wait for whoever writes.
        if let Some(input) = self.stdin {
            spec.stdin = read_input(&input)?;
        }
        Ok(())
    }
}

/// `--timeout none` is for where config.toml has one.
#[derive(Clone, Copy, Debug)]
struct Timeout(Option<Duration>);

fn parse_timeout(text: &str) -> Result<Timeout, InvalidDuration> {
    if text == "none" {
        Ok(Timeout(None))
    } else {
        parse_duration(text).map(|timeout| Timeout(Some(timeout)))
    }
}

fn log_cap(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(0) } else { parse_size(text).map_err(|error| error.to_string()) }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn raw(text: OsString) -> RawText {
    text.into_vec().into()
}

fn absolute(option: &str, path: &Path) -> Result<RawText, Failure> {
    let unusable = |error| Failure::caused(USAGE, format!("{option} '{}'", path.display()), &error);
    let mut absolute = std::path::absolute(path).map_err(unusable)?;
    // Names such as /dev/stdin mean another file in each process, so it is ours that is meant.
    let own = ["/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/fd", "/proc/self", "/proc/thread-self"];
    if own.iter().any(|own| absolute.starts_with(own)) {
        absolute = absolute.canonicalize().map_err(unusable)?;
    }
    // What ends in a slash is no file, which `absolute` would forget.
    let mut bytes = absolute.into_os_string().into_vec();
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") && !bytes.ends_with(b"/") {
        bytes.push(b'/');
    }
    Ok(bytes.into())
}

fn read_env_file(path: &Path) -> Result<Vec<(RawText, RawText)>, Failure> {
    let shown = path.display();
    let file = std::fs::File::open(path)
        .map_err(|error| Failure::caused(USAGE, format!("cannot read --env-file '{shown}'"), &error))?;
    let mut bytes = Vec::new();
    file.take(env_file::MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::caused(USAGE, format!("cannot read --env-file '{shown}'"), &error))?;
    env_file::parse(&bytes).map_err(|error| Failure::caused(USAGE, format!("--env-file '{shown}'"), &error))
}

/// After how many failures; clap takes an `Option` for one that may be left out.
#[derive(Clone, Copy, Debug)]
struct GiveUp(Option<u32>);

fn give_up_after(text: &str) -> Result<GiveUp, String> {
    if text == "never" {
        return Ok(GiveUp(None));
    }
    let number = text.parse().ok().filter(|number| *number > 0);
    number.map(|number| GiveUp(Some(number))).ok_or_else(|| "a number from 1 on, or `never`".to_owned())
}

fn exit_code(text: &str) -> Result<i32, String> {
    text.parse::<u8>().map(i32::from).map_err(|_| "an exit code is a number from 0 to 255".to_owned())
}

/// That of ours if we are on one.
fn terminal_size() -> TerminalSize {
    let sizes =
        [tcgetwinsize(std::io::stdout()), tcgetwinsize(std::io::stdin()), tcgetwinsize(std::io::stderr())];
    let sizes = sizes.into_iter().flatten().map(|size| (size.ws_row, size.ws_col));
    let known = sizes.filter(|(rows, columns)| *rows > 0 && *columns > 0);
    known.map(|(rows, columns)| TerminalSize { rows, columns }).next().unwrap_or_default()
}

fn read_input(path: &Path) -> Result<Stdin, Failure> {
    if path.as_os_str() == OsStr::new("pipe") {
        return Ok(Stdin::Pipe);
    }
    if path.as_os_str() != OsStr::new("-") {
        let file_type = std::fs::metadata(path)
            .map_err(|error| {
                Failure::caused(USAGE, format!("cannot read --stdin '{}'", path.display()), &error)
            })?
            .file_type();
        if file_type.is_dir() || file_type.is_fifo() || file_type.is_socket() {
            let message = format!(
                "--stdin '{}' is not a file; give one, or `-` and the input on standard input",
                path.display()
            );
            return Err(Failure::new(USAGE, message));
        }
        return Ok(Stdin::File(absolute("--stdin", path)?));
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(Stdin::MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::caused(FAILED, "cannot read standard input", &error))?;
    if bytes.len() > Stdin::MAX_BYTES {
        let message = format!(
            "standard input has more than {} MiB, which are kept with a job; give it as a file: --stdin FILE",
            Stdin::MAX_BYTES >> 20
        );
        return Err(Failure::new(USAGE, message));
    }
    Ok(Stdin::Bytes(bytes.into()))
}

fn set_variable(context: &mut LaunchContext, (name, value): (RawText, RawText)) {
    context.environment.retain(|(known, _)| *known != name);
    context.environment.push((name, value));
}

fn variable(text: OsString) -> Result<(RawText, RawText), String> {
    let mut name = text.into_vec();
    match name.iter().position(|byte| *byte == b'=') {
        Some(0) => Err("the name before '=' is empty".to_owned()),
        Some(position) => {
            let value = name.split_off(position + 1);
            name.pop();
            Ok((name.into(), value.into()))
        }
        None => Err("there is no '=' in it; write KEY=VALUE".to_owned()),
    }
}

pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_a_name_and_any_value() {
        for bad in ["A", "=b", ""] {
            assert!(variable(bad.into()).is_err(), "{bad}");
        }
        assert_eq!(variable("A=".into()), Ok(("A".into(), "".into())));
        assert_eq!(variable("A=b=c".into()), Ok(("A".into(), "b=c".into())));
        let odd = OsString::from_vec(b"A=\xff".to_vec());
        assert_eq!(variable(odd), Ok(("A".into(), vec![0xff].into())));
    }

    #[test]
    fn labels_have_both_halves() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        for bad in ["a", "=b", "a=", ""] {
            assert!(label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_that_each_process_takes_otherwise_is_taken_as_here() {
        let own = format!("/proc/{}/status", std::process::id());
        assert_eq!(absolute("--stdin", Path::new("/proc/self/status")).expect("a file"), own.into());
        assert!(absolute("--logfile", Path::new("/proc/self/fd/pipe:[1]")).is_err());
    }

    #[test]
    fn a_directory_does_not_become_a_file_by_being_made_absolute() {
        assert_eq!(absolute("--logfile", Path::new("/a/b/")).expect("absolute"), "/a/b/".into());
        assert_eq!(absolute("--logfile", Path::new("/a/./b")).expect("absolute"), "/a/b".into());
    }
}
