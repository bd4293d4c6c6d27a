//! The store: what its owner says of it, or what is seen where nobody owns it.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::owner::Running;
use super::{Finding, bytes, count_of_jobs};
use crate::directory::parse;
use crate::foreign::{META, OWNER_LOCK};
use crate::store_files::{put_aside, size_on_disk};
use crate::stores::StoreKind;

const CHECK: &str = "store";

pub(super) fn look(data_dir: &Path, running: &Running) -> Vec<Finding> {
    let mut findings = in_use(data_dir, running);
    findings.extend(dropped_before(data_dir));
    findings.extend(out_of_use(data_dir));
    findings
}

#[cfg(feature = "sqlite")]
const LOG_CHECK: &str = "store log";
#[cfg(feature = "sqlite")]
const DAMAGED_LOG: &str = "restore a backup, or submit again what is missing";

/// What an earlier start has found to be lost.
#[cfg(feature = "sqlite")]
fn dropped_before(data_dir: &Path) -> Option<Finding> {
    let path = data_dir.join(StoreKind::Sqlite.file_name());
    let damage = nodejobs_store_sqlite::SqliteStore::earlier_damage(&path)?;
    let way_out = format!("{DAMAGED_LOG}; then delete the copy");
    Some(Finding::problem(LOG_CHECK, damage, way_out))
}

#[cfg(not(feature = "sqlite"))]
fn dropped_before(_data_dir: &Path) -> Option<Finding> {
    None
}

/// What migrations have kept.
fn out_of_use(data_dir: &Path) -> Option<Finding> {
    let stores = put_aside(data_dir);
    let names: Vec<_> =
        stores.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy()).collect();
    let size = bytes(stores.iter().map(|path| size_on_disk(path)).sum());
    let text = format!("{} ({size}), kept by `store migrate`; may be deleted", names.join(", "));
    (!stores.is_empty()).then(|| Finding::ok("old stores", text))
}

fn in_use(data_dir: &Path, running: &Running) -> Vec<Finding> {
    if let Running::Daemon(status) = running {
        let format = status.store_format.map_or_else(String::new, |format| format!(" format {format},"));
        let jobs = count_of_jobs(status.jobs.values().sum());
        let size = bytes(size_on_disk(&data_dir.join(format!("jobs.{}", status.store))));
        let text = format!("{},{format} {size}, {jobs}, in use by the daemon", status.store);
        if let Some(trouble) = &status.store_trouble {
            let text = format!("{text}; the last write to it failed: {trouble}");
            let way_out = "make room on its disk; what has happened is written as soon as it can be";
            return vec![Finding::problem(CHECK, text, way_out)];
        }
        return promises(Finding::ok(CHECK, text), &status.store_weaker);
    }
    // What is wrong with this file is said elsewhere.
    let Ok(said) = std::fs::read(data_dir.join(META)) else { return Vec::new() };
    let Ok(meta) = parse(&said, Path::new(META)) else { return Vec::new() };
    let path = data_dir.join(format!("jobs.{}", meta.store));
    if !path.exists() {
        let text = format!("'{}' is missing", path.display());
        return vec![Finding::problem(
            CHECK,
            text,
            "restore it, or choose another directory with --data-dir",
        )];
    }
    let size = bytes(size_on_disk(&path));
    // Shared: whoever starts now waits for us, and whoever owns it already does not let us in.
    let lock = File::open(data_dir.join(OWNER_LOCK));
    if lock.as_ref().is_ok_and(|lock| flock(lock, FlockOperation::NonBlockingLockShared).is_err()) {
        return vec![Finding::ok(
            CHECK,
            format!("{}, {size}, in use by the owner of the directory", meta.store),
        )];
    }
    unowned(meta.store, &path, &size)
}

fn promises(found: Finding, weaker: &[String]) -> Vec<Finding> {
    let less =
        weaker.iter().map(|words| Finding::weaker(CHECK, words, "choose another store for a new directory"));
    std::iter::once(found).chain(less).collect()
}

#[cfg(feature = "sqlite")]
fn unowned(kind: StoreKind, path: &Path, size: &str) -> Vec<Finding> {
    use std::time::{Duration, Instant};

    /// A store of some hundred megabytes is read through in this time.
    const READING: Duration = Duration::from_secs(2);

    if kind != StoreKind::Sqlite {
        return vec![not_looked_into(kind, size)];
    }
    let deadline = Instant::now() + READING;
    match nodejobs_store_sqlite::SqliteStore::look(path, move || Instant::now() < deadline) {
        Ok(look) => {
            let jobs = look.jobs.map_or_else(String::new, |jobs| format!(", {}", count_of_jobs(jobs)));
            let read = if look.complete { "read through" } else { "too large to be read through in 2 s" };
            let text = format!("{kind}, format {}, {size}{jobs}, {read}", look.format);
            let damage = look.damage.map(|damage| Finding::problem(LOG_CHECK, damage, DAMAGED_LOG));
            std::iter::once(Finding::ok(CHECK, text)).chain(damage).collect()
        }
        Err(error) => vec![Finding::problem(
            CHECK,
            crate::Error::from(error).to_problem().message,
            "put a backup in its place, or choose another directory with --data-dir; jobs that run go on",
        )],
    }
}

#[cfg(not(feature = "sqlite"))]
fn unowned(kind: StoreKind, _path: &Path, size: &str) -> Vec<Finding> {
    vec![not_looked_into(kind, size)]
}

fn not_looked_into(kind: StoreKind, size: &str) -> Finding {
    match kind.as_str().parse::<StoreKind>() {
        Ok(_) => Finding::ok(
            CHECK,
            format!(
                "{kind}, {size}; not looked into, since opening it would change it: `nodejobs store check` reads it \
                 through"
            ),
        ),
        Err(error) => {
            let way_out = "use a build that has it, or choose another directory with --data-dir";
            Finding::problem(CHECK, error.to_problem().message, way_out)
        }
    }
}
