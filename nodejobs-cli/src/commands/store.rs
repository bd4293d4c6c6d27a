//! `nodejobs store`: the store of the data directory as a whole.

use std::error::Error as _;
use std::fs::File;
use std::io::{self, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use nodejobs::store::{Check, Imported, Migrated, Progress, Totals};
use nodejobs::{Error, StoreKind, store};

use crate::connect::Target;
use crate::exit::{CONFLICT, FAILED, Failure, USAGE, say};
use crate::output::{self, Format, store_block};
use crate::store_option::StoreParser;

#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Store {
    #[command(subcommand)]
    command: StoreCommand,
}

const AFTER_HELP: &str = "\
The store is where records, attempts, events and environments of jobs are kept, in the data directory. All of these but \
`info` need it for themselves: stop the daemon first (`nodejobs daemon stop`). Jobs run on meanwhile, and commands that \
would start a daemon wait. Log files are not in the store; they stay where they are.";

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Show what the store is, promises and holds
    Info,
    /// Read the whole store and list what is wrong with it
    #[command(after_help = CHECK_HELP)]
    Check,
    /// Write everything in the store as text
    #[command(after_help = EXPORT_HELP)]
    Export(Export),
    /// Make the store of a new or a lost directory from an export
    #[command(after_help = IMPORT_HELP)]
    Import(Import),
    /// Move everything into a store of another kind
    #[command(after_help = MIGRATE_HELP)]
    Migrate(Migrate),
}

const CHECK_HELP: &str = "\
Each problem is a line on standard output; with -o json they are in the document.

Exit status: 0 if the store is sound, 1 if there are problems, 5 if it cannot be opened.";

#[derive(Args, Debug)]
struct Export {
    /// Write to this file, for your eyes only, instead of standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "to")]
    force: bool,
}

const EXPORT_HELP: &str = "\
Examples:
  nodejobs store export --to jobs.jsonl
  nodejobs store export | zstd > jobs.jsonl.zst

One JSON document a line, whatever -o says; docs/export.md describes them. It holds what the jobs were given, with the \
values of their environments: keep it as you would keep those.";

#[derive(Args, Debug)]
struct Import {
    /// What `store export` has written; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

const IMPORT_HELP: &str = "\
Examples:
  nodejobs --data-dir /srv/copy store import jobs.jsonl
  nodejobs --store redb store import jobs.jsonl
  zstdcat jobs.jsonl.zst | nodejobs store import -

The directory must not have a store. If it is the one that the export is from and has lost its store, everything is as \
it was then: a job that waited for its start waits again. In any other directory the jobs are a copy, and those that had \
not ended are ended as `cancelled`, `stopped` or `lost`: their processes are the other directory's.

Nothing is imported from a file that is damaged or cut off.";

#[derive(Args, Debug)]
struct Migrate {
    /// The kind of the new store
    #[arg(long, value_name = "STORE", value_parser = StoreParser)]
    to: String,
    /// Delete the old store once the new one is in use
    #[arg(long)]
    delete_old: bool,
}

const MIGRATE_HELP: &str = "\
Example:
  nodejobs daemon stop && nodejobs store migrate --to redb

Killed at any instant, it leaves the old store or the new one in use, each complete; it can then be run again.";

impl Store {
    pub(crate) fn execute(self, target: &Target, format: Format) -> Result<u8, Failure> {
        let wanted = target.store.as_deref().map(str::parse::<StoreKind>).transpose().map_err(failure)?;
        let data_dir = &target.data_dir;
        match self.command {
            StoreCommand::Info => info(target, format),
            StoreCommand::Check => check(data_dir, wanted, format),
            StoreCommand::Export(export) => export.execute(data_dir, wanted),
            StoreCommand::Import(import) => import.execute(data_dir, wanted, format),
            StoreCommand::Migrate(migrate) => migrate.execute(data_dir, wanted, format),
        }
    }
}

fn info(target: &Target, format: Format) -> Result<u8, Failure> {
    let status = store::info(&target.data_dir).map_err(failure)?;
    if let Some(wanted) = target.store.as_ref().filter(|wanted| **wanted != status.store) {
        let path = target.data_dir.display();
        let message = format!("the store of '{path}' is {}, not {wanted}; leave out --store", status.store);
        return Err(Failure::new(CONFLICT, message));
    }
    match format {
        Format::Table => output::print(&store_block(&status))?,
        Format::Json | Format::Jsonl => output::print_json(&status)?,
    }
    Ok(0)
}

fn check(data_dir: &Path, wanted: Option<StoreKind>, format: Format) -> Result<u8, Failure> {
    let mut line = ProgressLine::new();
    let check = store::check(data_dir, wanted, &mut |progress| line.show(progress));
    line.clear();
    let check = check.map_err(failure)?;
    match format {
        Format::Table => output::print(&problems(&check))?,
        Format::Json | Format::Jsonl => output::print_json(&check)?,
    }
    if format == Format::Table {
        let Check { jobs, attempts, events, documents, .. } = check;
        let content = contents(Totals { jobs, attempts, events, documents });
        let verdict = if check.is_sound() { "sound" } else { "not sound" };
        say(&format_args!("{verdict}: {content}"));
    }
    Ok(if check.is_sound() { 0 } else { FAILED })
}

/// What is wrong, a line each.
fn problems(check: &Check) -> String {
    let mut text: String =
        check.problems.iter().map(|problem| crate::readable::printable(problem) + "\n").collect();
    if check.more_problems > 0 {
        text.push_str(&format!("and {} more\n", check.more_problems));
    }
    text
}

impl Export {
    fn execute(self, data_dir: &Path, wanted: Option<StoreKind>) -> Result<u8, Failure> {
        let mut line = ProgressLine::new();
        let mut show = |progress| line.show(progress);
        let exported = match &self.to {
            Some(path) => store::export_to_file(data_dir, wanted, path, self.force, &mut show),
            None => store::export(data_dir, wanted, &mut io::stdout().lock(), &mut show),
        };
        line.clear();
        let totals = exported.map_err(|error| {
            let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
            if self.to.is_none() && cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe) {
                return Failure::ClosedPipe;
            }
            failure(error)
        })?;
        match &self.to {
            Some(path) => say(&format_args!("exported {} to '{}'", contents(totals), path.display())),
            None => say(&format_args!("exported {}", contents(totals))),
        }
        Ok(0)
    }
}

impl Import {
    fn execute(self, data_dir: &Path, wanted: Option<StoreKind>, format: Format) -> Result<u8, Failure> {
        let mut line = ProgressLine::new();
        let mut show = |progress| line.show(progress);
        let imported = if self.file.as_os_str() == "-" {
            store::import(data_dir, io::stdin().lock(), wanted, &mut show)
        } else {
            let file = File::open(&self.file).map_err(|error| {
                Failure::caused(USAGE, format!("cannot open '{}'", self.file.display()), &error)
            })?;
            store::import(data_dir, BufReader::with_capacity(1 << 20, file), wanted, &mut show)
        };
        line.clear();
        let imported = imported.map_err(failure)?;
        if format != Format::Table {
            output::print_json(&imported)?;
        }
        let Imported { store, jobs, attempts, events, documents, ended, restored, .. } = imported;
        let content = contents(Totals { jobs, attempts, events, documents });
        say(&format_args!("imported {content} into a {store} store"));
        if ended > 0 {
            say(&format_args!(
                "{} had not ended and {} here: the processes belong to the directory that the export is from",
                count(ended, "job"),
                if ended == 1 { "is ended" } else { "are ended" }
            ));
        }
        if restored {
            say(&"this directory's jobs are as they were when the export was written");
        }
        Ok(0)
    }
}

impl Migrate {
    fn execute(self, data_dir: &Path, wanted: Option<StoreKind>, format: Format) -> Result<u8, Failure> {
        let to = self.to.parse().map_err(failure)?;
        let mut line = ProgressLine::new();
        let migrated =
            store::migrate(data_dir, wanted, to, self.delete_old, &mut |progress| line.show(progress));
        line.clear();
        let migrated = migrated.map_err(failure)?;
        if format != Format::Table {
            output::print_json(&migrated)?;
        }
        migration_words(&migrated).iter().for_each(|words| say(words));
        Ok(0)
    }
}

fn migration_words(migrated: &Migrated) -> Vec<String> {
    let mut words = Vec::new();
    for leftover in &migrated.leftovers {
        words.push(format!("an interrupted migration had left '{leftover}'; it may be deleted"));
    }
    if migrated.already {
        words.push(format!("the store is {} already", migrated.to));
    }
    if let (Some(jobs), Some(attempts), Some(events), Some(documents)) =
        (migrated.jobs, migrated.attempts, migrated.events, migrated.documents)
    {
        let content = contents(Totals { jobs, attempts, events, documents });
        words.push(format!("the store is {} now, with {content}", migrated.to));
    }
    if let Some(old) = &migrated.old {
        words.push(format!("the old {} store is kept as '{old}'; it may be deleted", migrated.from));
    }
    words
}

fn contents(Totals { jobs, attempts, events, documents }: Totals) -> String {
    let parts = [(jobs, "job"), (attempts, "attempt"), (events, "event"), (documents, "document")];
    parts.map(|(number, what)| count(number, what)).join(", ")
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn failure(error: Error) -> Failure {
    error.to_problem().into()
}

/// Says on a terminal how far something got; elsewhere nothing.
struct ProgressLine {
    is_terminal: bool,
    shown: Option<Instant>,
}

impl ProgressLine {
    /// Nobody reads faster.
    const PAUSE: Duration = Duration::from_millis(100);

    fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), shown: None }
    }

    fn show(&mut self, progress: Progress) {
        if self.is_terminal && self.shown.is_none_or(|shown| shown.elapsed() >= Self::PAUSE) {
            self.shown = Some(Instant::now());
            let _ = write!(io::stderr(), "\r\x1b[K{progress}");
        }
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_is_told_in_sentences() {
        let mut migrated = Migrated {
            from: StoreKind::Sqlite,
            to: StoreKind::Redb,
            already: false,
            jobs: Some(1),
            attempts: Some(2),
            events: Some(5),
            documents: Some(0),
            old: Some("/d/jobs.sqlite.old-x".into()),
            leftovers: vec!["/d/jobs.redb.old-x".into()],
        };
        assert_eq!(
            migration_words(&migrated),
            [
                "an interrupted migration had left '/d/jobs.redb.old-x'; it may be deleted",
                "the store is redb now, with 1 job, 2 attempts, 5 events, 0 documents",
                "the old sqlite store is kept as '/d/jobs.sqlite.old-x'; it may be deleted",
            ]
        );
        (migrated.already, migrated.jobs, migrated.old) = (true, None, None);
        migrated.leftovers.clear();
        assert_eq!(migration_words(&migrated), ["the store is redb already"]);
    }

    #[test]
    fn problems_are_lines() {
        let mut check = Check::default();
        assert_eq!(problems(&check), "");
        check.problem("job a\nis odd");
        check.more_problems = 3;
        assert_eq!(problems(&check), "job a is odd\nand 3 more\n");
    }
}
