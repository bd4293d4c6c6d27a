//! `nodejobs array`: submits many jobs of one command that differ in their values.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use nodejobs::JobId;
use nodejobs::api::ArrayRequest;
use nodejobs::spec::{Elements, MAX_VALUE_BYTES, Range};
use serde_json::value::RawValue;

use super::run::options::JobOptions;
use super::run::{AfterOptions, OnceOptions, Run, limits, print_it, wait_for_it};
use crate::connect::Target;
use crate::exit::{FAILED, Failure, USAGE, mirrored};
use crate::output::Format;

const VALUES: &str = "Values";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, override_usage = "nodejobs array [OPTIONS] VALUES [--] COMMAND...\n\nVALUES: --range, --each-line, --each-json, or any number of --parameter (-p)")]
#[command(group = ArgGroup::new("values").required(true).args(["range", "each_line", "each_json", "parameters"]))]
pub(crate) struct Array {
    /// An element for each of these numbers, such as 1-1000 or 0-100:10
    #[arg(long, value_name = "FIRST-LAST[:STEP]", allow_hyphen_values = true, help_heading = VALUES)]
    range: Option<Range>,
    /// An element for each line of this file, or with `-` of standard input; empty lines are left out
    #[arg(long, value_name = "FILE|-", help_heading = VALUES)]
    each_line: Option<PathBuf>,
    /// An element for each JSON object in this file, or with `-` on standard input
    #[arg(long, value_name = "FILE|-", help_heading = VALUES)]
    each_json: Option<PathBuf>,
    /// Values of a parameter, such as lr=0.1,0.01 or seed=1..5; with several of them, an element for each combination
    #[arg(short = 'p', long = "parameter", value_name = "NAME=VALUES", help_heading = VALUES)]
    parameters: Vec<String>,
    /// Run at most so many elements at a time [default: as many as the machine has processors; with --group, as many as that has slots]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_running: Option<u32>,
    /// Stop the others as soon as one element fails
    #[arg(long)]
    fail_fast: bool,
    /// Run this script for /bin/sh once the array has ended; its record is on standard input
    #[arg(long, value_name = "SCRIPT")]
    on_done: Option<String>,
    /// The array's id, made of A-Z a-z 0-9 . _ - [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<JobId>,
    /// A name for people; several jobs may share it
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The directory to run in [default: the current one]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Wait for the end of the array, and end with 0 if each element has finished, otherwise with 1
    #[arg(long)]
    wait: bool,
    /// Take the one argument as a script for /bin/sh, also after `--`
    #[arg(long)]
    shell: bool,
    #[command(flatten)]
    after: AfterOptions,
    #[command(flatten)]
    once: OnceOptions,
    #[command(flatten)]
    options: JobOptions,
    /// The command: a program and its arguments, or one script for /bin/sh, with placeholders
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    words: Vec<OsString>,
}

const EXAMPLES: &str = "\
Examples:
  nodejobs array --range 1-1000 -- ./simulate --seed {}
  ls *.wav | nodejobs array --each-line - 'lame {} out/{index}.mp3'
  nodejobs array -p lr=0.1,0.01 -p seed=1..5 -- ./train --lr={lr} --seed={seed}
  nodejobs array --each-json runs.jsonl --max-running 4 -- ./run {input}
  nodejobs array --range 1-50 --fail-fast --on-done 'mail -s done me' -- ./step {}
  nodejobs wait ID                  with a progress bar on a terminal
  nodejobs joblog ID                what each element came to
  nodejobs retry ID --failed        again what did not finish

Placeholders: {} is the only value of an element, {NAME} the one of that name, {index} the element's number, from 1. In a \
script values are quoted where they need it, so a placeholder must not be in quotes there. What is in braces and no \
name stays, as does ${NAME}; {{NAME}} is the text {NAME}. The elements also have their values in \
NODEJOBS_PARAM_NAME (of --range and --each-line: NODEJOBS_PARAM_VALUE), their number in NODEJOBS_ARRAY_INDEX, and the \
array's id in NODEJOBS_ARRAY_ID.

An array is one job, which `status`, `wait`, `stop` and `rm` take as any other, and which waits in the queue as one. Its elements become jobs as \
they are started, with the ids ID.1, ID.2 and so on: `logs ID.7`, `stop ID.7`, also before its turn. All options are \
for each element, but for --id, --name, --delay and --at, which are the array's. It is on disk when its id is printed, \
with all its elements, at most 1,000,000.

--on-done runs in the array's directory and environment, has 10 minutes, and is run again if the daemon was killed over it.";

impl Array {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        let wait = self.wait;
        let array = self.request(&target.job_defaults()?)?;
        let submit = || {
            let mut connection = target.connect()?;
            limits::say_how_kept(&mut connection, &array.spec)?;
            let record = connection.submit_array(&array)?;
            if wait {
                wait_for_it(&mut connection, &record, format)
            } else {
                print_it(&record, format).map(|()| 0)
            }
        };
        if wait { mirrored(submit()) } else { submit() }
    }

    fn request(self, defaults: &nodejobs::config::JobDefaults) -> Result<ArrayRequest, Failure> {
        let usage = |error: nodejobs::spec::InvalidElements| Failure::new(USAGE, error.to_string());
        let reads_input = [&self.each_line, &self.each_json];
        if reads_input.into_iter().flatten().any(|path| path.as_os_str() == "-") && self.options.reads_input()
        {
            let message =
                "both the values and the input of each element would be standard input; give one as a file";
            return Err(Failure::new(USAGE, message));
        }
        let elements = match (self.range, &self.each_line, &self.each_json) {
            (Some(range), ..) => Elements::Range(range),
            (_, Some(file), _) => Elements::lines(read("--each-line", file)?),
            (_, _, Some(file)) => objects(file)?,
            _ => Elements::product(&self.parameters).map_err(usage)?,
        };
        // What is wrong with the values is said first: the command may be fine.
        elements.validate().map_err(usage)?;
        let Self {
            max_running, fail_fast, on_done, id, name, cwd, shell, after, once, options, words, ..
        } = self;
        let run = Run { id, name, cwd, wait: false, follow: false, shell, after, once, options, words };
        let array = ArrayRequest {
            max_running,
            fail_fast,
            on_done,
            ..ArrayRequest::new(run.spec(defaults)?, elements)
        };
        array.validate()?;
        Ok(array)
    }
}

/// What a file holds, or standard input.
fn read(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let limit = MAX_VALUE_BYTES as u64 + 1;
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::caused(FAILED, format!("cannot read {option} '{shown}'"), &error))?;
    if bytes.len() > MAX_VALUE_BYTES {
        let message = format!(
            "{option} '{shown}' has more than {} MiB, which are kept with an array",
            MAX_VALUE_BYTES >> 20
        );
        return Err(Failure::new(USAGE, message));
    }
    Ok(bytes)
}

/// JSON objects one after the other, or in one array; each becomes a line.
fn objects(path: &Path) -> Result<Elements, Failure> {
    let bytes = read("--each-json", path)?;
    let bad = |error: serde_json::Error| {
        Failure::new(USAGE, format!("--each-json '{}' is no JSON: {error}", path.display()))
    };
    let is_array = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let values: Vec<Box<RawValue>> = if is_array {
        serde_json::from_slice(&bytes).map_err(bad)?
    } else {
        serde_json::Deserializer::from_slice(&bytes).into_iter().collect::<Result<_, _>>().map_err(bad)?
    };
    let mut lines = String::new();
    for value in values {
        // In JSON a line break is never part of a text.
        lines.push_str(&value.get().replace(['\n', '\r'], " "));
        lines.push('\n');
    }
    Ok(Elements::objects(lines))
}
