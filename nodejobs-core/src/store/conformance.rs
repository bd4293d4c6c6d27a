//! The contract of [`JobStore`] as tests: one named test for each rule and store.
//!
//! A store says in [`Subject`], and in [`OnDisk`] if it has a path, how it is opened and what only it can do to its own
//! files. [`store_conformance!`](crate::store_conformance) makes the tests of it. `cargo xtask conformance` runs those of
//! all stores and shows rule by rule which of them hold; [`RULES`] says what each one means.
//!
//! This module is there with the feature `conformance` only, for tests. Unlike the rest of the crate it starts threads
//! and processes, reads clocks and writes files.
//!
//! | file | holds |
//! |---|---|
//! | `table.rs` | the rules: names, statements, groups |
//! | `case.rs` | what a rule gets: a store, a directory, the hooks |
//! | `jobs.rs`, `fixture.rs` | jobs to keep |
//! | `child.rs`, `roles.rs` | the processes that are killed, traced or put on a small disk |
//! | everything else | the rules, by theme |
//!
//! # Example
//! ```
//! use std::path::Path;
//! use nodejobs_core::store::conformance::Subject;
//! use nodejobs_core::store::memory::MemoryStore;
//! use nodejobs_core::store::{JobStore, StoreError};
//!
//! struct Memory;
//!
//! impl Subject for Memory {
//!     fn name(&self) -> &'static str {
//!         "memory"
//!     }
//!
//!     fn open(&self, _: &Path) -> Result<Box<dyn JobStore>, StoreError> {
//!         Ok(Box::new(MemoryStore::new()))
//!     }
//! }
//!
//! nodejobs_core::store_conformance!(logic: Memory);
//! # fn main() {}
//! ```

mod case;
mod child;
mod commits;
mod crash;
mod damage;
mod documents;
mod files;
mod fixture;
mod flush;
mod generators;
mod history;
mod jobs;
mod listing;
mod model;
mod namespace;
mod openers;
pub(crate) mod random;
mod reopening;
mod roles;
mod room;
mod strangers;
mod table;
mod values;
mod whole;

use std::path::Path;

use self::case::{Case, DiskCase};
#[cfg(feature = "key-value")]
pub use self::damage::damage_state;
pub use self::fixture::fixture_content;
pub use self::table::RULES;
use super::{JobStore, StoreError};
use crate::id::JobId;

/// A store, as the rules meet it.
pub trait Subject: Sync {
    /// Its name, as in [`StoreInfo::engine`](super::StoreInfo::engine).
    fn name(&self) -> &'static str;

    /// Opens the store at this path, or creates it there. A store without a path makes a new one each time.
    ///
    /// # Errors
    /// Those of the store's own `open`.
    fn open(&self, path: &Path) -> Result<Box<dyn JobStore>, StoreError>;
}

/// A store that has a path, and what only it knows how to do to its files. Nobody has them open meanwhile.
pub trait OnDisk: Subject {
    /// Whether a store is a directory; else it is a file.
    fn is_directory(&self) -> bool {
        false
    }

    /// Whether a damaged store is left as it is when it is refused; else the engine mends what it can beforehand, and the
    /// store says so in [`StoreInfo::weaker`](super::StoreInfo::weaker).
    fn leaves_damage_alone(&self) -> bool {
        true
    }

    /// Whether a value in which a bit has changed is noticed. Without checksums that can be expected of the records'
    /// number and names only.
    fn has_checksums(&self) -> bool {
        true
    }

    /// Makes the store say that it has this format, and changes nothing else.
    fn set_format(&self, path: &Path, format: u32);

    /// Makes what is stored of this job's newest attempt impossible to understand, without harm to the engine's own
    /// structures and to anything else: a record whose checksum fits and whose content does not, or the reverse.
    fn damage_record(&self, path: &Path, id: &JobId);
}

/// Which stores a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// All.
    Logic,
    /// Those that have a path.
    Disk,
}

impl Group {
    /// `logic` or `disk`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Group::Logic => "logic",
            Group::Disk => "disk",
        }
    }
}

/// One rule of the suite.
#[derive(Debug)]
pub struct Rule {
    /// The name of its test.
    pub name: &'static str,
    /// What holds, in one sentence.
    pub statement: &'static str,
    run: Run,
}

impl Rule {
    /// Which stores it is for.
    pub const fn group(&self) -> Group {
        match self.run {
            Run::Logic(_) => Group::Logic,
            Run::Disk(_) => Group::Disk,
        }
    }
}

#[derive(Debug)]
enum Run {
    Logic(fn(&Case)),
    Disk(fn(&DiskCase) -> Verdict),
}

/// Set where a rule that is not run is a failure, as in CI.
const ALL: &str = "NODEJOBS_ALL_RULES";

/// What became of a rule that did not fail.
enum Verdict {
    Held,
    /// The machine lacks what it takes.
    NotRun(String),
}

/// The rules for one store. Made by [`store_conformance!`](crate::store_conformance).
#[derive(Clone, Copy)]
pub struct Suite {
    subject: &'static dyn Subject,
    disk: Option<Disk>,
}

/// What the rules for a store with a path need besides.
#[derive(Clone, Copy)]
struct Disk {
    subject: &'static dyn OnDisk,
    child: &'static str,
    fixtures: &'static str,
}

impl Suite {
    /// For a store without a path.
    pub const fn logic(subject: &'static dyn Subject) -> Self {
        Self { subject, disk: None }
    }

    /// For a store with a path. `child` is the path of the generated test of that name, with its crate, and `fixtures` the
    /// directory that has a store of each format.
    pub const fn disk(subject: &'static dyn OnDisk, child: &'static str, fixtures: &'static str) -> Self {
        Self { subject, disk: Some(Disk { subject, child, fixtures }) }
    }

    /// Runs a rule. One that the machine has no means for prints `not run: NAME: WHY`.
    ///
    /// # Panics
    /// If it does not hold, if there is no such rule for this store, and, with the variable `NODEJOBS_ALL_RULES`, if it
    /// was not run.
    pub fn run(&self, name: &str) {
        let rule = RULES.iter().find(|rule| rule.name == name);
        let rule = rule.unwrap_or_else(|| panic!("{name} is not a rule"));
        println!("{}: {}", rule.name, rule.statement);
        match (&rule.run, self.disk) {
            (Run::Logic(run), _) => run(&Case::new(self.subject)),
            (Run::Disk(run), Some(disk)) => {
                if let Verdict::NotRun(why) = run(&DiskCase::new(disk)) {
                    println!("not run: {name}: {why}");
                    assert!(std::env::var_os(ALL).is_none(), "{name} was not run: {why}");
                }
            }
            (Run::Disk(_), None) => panic!("{name} is for stores with a path"),
        }
    }

    /// The body of the process that a rule starts of this very program; without its variables it does nothing.
    ///
    /// # Panics
    /// If what is asked of it goes wrong.
    pub fn child(&self) {
        roles::play(self);
    }

    /// Writes the fixture of the present format: [`fixture_content`] in a store in the directory of fixtures.
    ///
    /// # Panics
    /// If it is there already, and for a store without a path.
    pub fn write_fixture(&self) {
        let disk = self.disk.expect("a store with a path");
        fixture::write(&DiskCase::new(disk));
    }
}
