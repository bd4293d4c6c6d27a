//! `nodejobs edit`: makes a queued job another one.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use clap::Args;
use nodejobs::Edits;
use nodejobs::spec::{AfterRequest, Command};

use super::group::group_name;
use super::run::{AfterOptions, label, need};
use crate::connect::Target;
use crate::exit::{Failure, USAGE};
use crate::output::{self, Format};

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Edit {
    /// An id, a unique beginning of an id, or a unique name
    #[arg(value_name = "ID")]
    job: String,
    /// Who waits with a higher one goes first; among those of the same it keeps its age
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Its group; `default` for that of jobs without one
    #[arg(long, value_name = "NAME", value_parser = group_name)]
    group: Option<String>,
    /// How many slots of its group it takes
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    slots: Option<u32>,
    /// How many it needs of a named resource, such as gpu=1; 0 for none any more; may be repeated
    #[arg(long = "need", value_name = "NAME=N", value_parser = need)]
    needs: Vec<(String, u32)>,
    /// Its name for people
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A label that it gets, instead of one of that key; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    after: AfterOptions,
    /// Let it wait for no other job
    #[arg(long, conflicts_with = "after")]
    no_after: bool,
    /// What it runs instead: a script for /bin/sh
    #[arg(long, value_name = "SCRIPT", conflicts_with = "words")]
    command: Option<OsString>,
    /// What it runs instead: a program and its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    words: Vec<OsString>,
}

const AFTER_HELP: &str = "\
Examples:
  nodejobs edit ID --priority 10
  nodejobs edit ID --group night --slots 2
  nodejobs edit ID --command 'make all | tail'
  nodejobs edit ID -- make all
  nodejobs edit ID --after build --after tests:any  it waits for these instead
  nodejobs edit ID --no-after                       it waits for nobody

Only what has not been started can be changed. What a job has inherited (environment, directory, limits) stays.

Exit status: 0 if it is changed, 2 if no job could be so or it would wait for itself, 3 if there is no such job, 4 if it is not queued.";

impl Edit {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        let Self { job, priority, group, slots, needs, name, labels, after, no_after, command, words } = self;
        super::require_references(std::slice::from_ref(&job))?;
        let words: Vec<_> = words.into_iter().map(OsString::into_vec).collect();
        let argv = (!words.is_empty()).then(|| Command::argv(words));
        let command = command.map(|script| Command::shell(script.into_vec())).or(argv);
        let (needs, labels) = (needs.into_iter().collect(), labels.into_iter().collect());
        let edits = Edits { command, name, group, priority, slots, needs, labels };
        let after = if no_after { Some(AfterRequest::default()) } else { after.request() };
        let changes_more = edits != Edits::default();
        if !changes_more && after.is_none() {
            return Err(Failure::new(
                USAGE,
                "nothing is to be changed; `nodejobs edit --help` says what can be",
            ));
        }
        edits.validate().map_err(|error| Failure::new(USAGE, error.to_string()))?;
        let mut connection = target.connect()?;
        let mut record = None;
        if let Some(after) = after {
            record = Some(connection.ask(|client| client.set_dependencies(&job, &after))?);
        }
        if changes_more {
            record = Some(connection.ask(|client| client.edit(&job, &edits))?);
        }
        let Some(record) = record else { return Ok(0) };
        match format {
            Format::Table => {
                let detail = record.detail.as_deref().map(|detail| format!("; {detail}")).unwrap_or_default();
                output::print(&format!("{}: changed{detail}\n", record.self_id))?;
            }
            Format::Json | Format::Jsonl => output::print_json(&record)?,
        }
        Ok(0)
    }
}
