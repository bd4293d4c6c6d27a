//! The data directory: who may own it, on which machine, with which store.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nodejobs_proc::machine::Machine;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::api::{ProblemKind, START_LOCK_NAME};
use crate::error::Error;
use crate::foreign::{META, OWNER_LOCK, foreign_file};
use crate::stores::{DirectoryAge, StoreKind};

const FORMAT: u32 = 1;

/// A directory that exists and may be used.
#[derive(Clone, Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
}

/// What the directory says about itself, written when it is first owned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    format: u32,
    pub(crate) store: StoreKind,
    /// Tells its processes from those of other directories.
    pub(crate) directory_id: String,
    /// The machine that owned it last; `None` where machines have no id.
    pub(crate) machine_id: Option<String>,
}

/// Who owns the directory, as the owner has written into the lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
}

/// Holds a lock file until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock(File);

fn unavailable(message: String) -> Error {
    Error::new(ProblemKind::Unavailable, message)
}

impl DataDirectory {
    /// Makes the directory if it is not there, and refuses one that cannot keep the promises.
    pub(crate) fn prepare(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let path = std::path::absolute(path).map_err(|error| {
            unavailable(format!("data directory '{shown}' is no path")).with_source(error)
        })?;
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| {
            unavailable(format!("data directory '{shown}' cannot be made; choose another with --data-dir"))
                .with_source(error)
        })?;
        let failed = |error: io::Error| {
            unavailable(format!("data directory '{shown}' cannot be used; choose another with --data-dir"))
                .with_source(error)
        };
        let metadata = std::fs::metadata(&path).map_err(failed)?;
        if let Some(name) = foreign_file(&path).map_err(failed)? {
            return Err(unavailable(format!(
                "data directory '{shown}' is open to other users and holds '{}', which is not ours; choose another \
                 with --data-dir, or close this one with chmod 700",
                name.display()
            )));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            // Logs and environments of jobs are nobody else's business.
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).map_err(failed)?;
        }
        if let Some(kind) = network_file_system(&path).map_err(failed)? {
            return Err(unavailable(format!(
                "data directory '{shown}' is on {kind}, where locks and flushes cannot be relied on; \
                 choose one on a local disk with --data-dir"
            )));
        }
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn keepers(&self) -> PathBuf {
        self.path.join("keepers")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Waits until nobody else is becoming the owner.
    pub(crate) fn lock_start(&self) -> Result<Lock, Error> {
        let file = self.open_file(START_LOCK_NAME)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
            .map_err(|error| self.failed_with(START_LOCK_NAME, error.into()))?;
        Ok(Lock(file))
    }

    /// Becomes the owner, unless somebody is; then says who.
    pub(crate) fn lock_owner(&self) -> Result<Result<Lock, Option<Holder>>, Error> {
        let mut file = self.open_file(OWNER_LOCK)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Ok(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let read = file.read_to_string(&mut text);
                read.map_err(|error| self.failed_with(OWNER_LOCK, error))?;
                Ok(Err(serde_json::from_str(&text).ok()))
            }
            Err(error) => Err(self.failed_with(OWNER_LOCK, error.into())),
        }
    }

    /// What the directory says about itself, or will say if it is new: the owner opens the store in between, and then
    /// has it [kept](Self::keep_meta). So a directory that says something has had a store.
    pub(crate) fn meta(
        &self,
        wanted: Option<StoreKind>,
        machine: &Machine,
    ) -> Result<(Meta, DirectoryAge), Error> {
        let path = self.path.join(META);
        let shown = path.display();
        let (mut meta, age) = match std::fs::read(&path) {
            Ok(bytes) => (parse(&bytes, &path)?, DirectoryAge::Used),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let store = wanted.unwrap_or_default();
                let directory_id = new_directory_id()?;
                (Meta { format: FORMAT, store, directory_id, machine_id: None }, DirectoryAge::New)
            }
            Err(error) => return Err(self.failed_with(META, error)),
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != meta.store) {
            return Err(Error::new(
                ProblemKind::Conflict,
                format!(
                    "data directory '{}' uses the store {}, not {wanted}; leave out --store, or choose another \
                     directory",
                    self.path.display(),
                    meta.store
                ),
            ));
        }
        if let (Some(before), Some(now)) = (&meta.machine_id, &machine.machine_id)
            && before != now
        {
            return Err(unavailable(format!(
                "data directory '{}' was last owned on another machine (machine id {before}); its jobs may still run \
                 there. If that machine is gone, remove machine_id from '{shown}'",
                self.path.display()
            )));
        }
        if meta.machine_id.is_none() {
            meta.machine_id.clone_from(&machine.machine_id);
        }
        Ok((meta, age))
    }

    /// Writes down what the directory says about itself, if that is not there already.
    pub(crate) fn keep_meta(&self, meta: &Meta) -> Result<(), Error> {
        let kept = std::fs::read(self.path.join(META)).ok();
        if kept.is_some_and(|bytes| serde_json::from_slice::<Meta>(&bytes).is_ok_and(|kept| kept == *meta)) {
            return Ok(());
        }
        let write = || {
            let temporary = self.path.join(format!("{META}.new"));
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            serde_json::to_writer(&mut file, meta)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            std::fs::rename(&temporary, self.path.join(META))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| self.failed_with(META, error))
    }

    fn open_file(&self, name: &str) -> Result<File, Error> {
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.path.join(name));
        opened.map_err(|error| self.failed_with(name, error))
    }

    fn failed_with(&self, name: &str, error: io::Error) -> Error {
        let path = self.path.join(name);
        unavailable(format!("'{}' cannot be used; choose another directory with --data-dir", path.display()))
            .with_source(error)
    }
}

impl Lock {
    /// A lock that somebody took and handed over.
    pub(crate) fn inherited(file: File) -> Self {
        Lock(file)
    }

    /// Writes down who holds it.
    pub(crate) fn write_holder(&mut self, holder: &Holder) -> io::Result<()> {
        self.0.set_len(0)?;
        self.0.seek(SeekFrom::Start(0))?;
        serde_json::to_writer(&mut self.0, holder)?;
        self.0.write_all(b"\n")
    }
}

/// Reads the format first: what else there is to read depends on it.
pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Meta, Error> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let shown = path.display();
    let damaged = |error: serde_json::Error| {
        unavailable(format!("'{shown}' cannot be understood; restore it or choose another directory"))
            .with_source(error)
    };
    let Format { format } = serde_json::from_slice(bytes).map_err(damaged)?;
    if format != FORMAT {
        return Err(unavailable(format!(
            "'{shown}' has format {format}, this version knows {FORMAT}; use the version that wrote it"
        )));
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

fn new_directory_id() -> Result<String, Error> {
    let mut bytes = [0; 8];
    let filled = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    filled.map_err(|error| unavailable("no random numbers can be had".to_owned()).with_source(error))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The name of the network file system that the directory is on, if it is on one.
pub(crate) fn network_file_system(path: &Path) -> io::Result<Option<&'static str>> {
    const KINDS: [(u32, &str); 7] = [
        (0x6969, "NFS"),
        (0x517B, "SMB"),
        (0xFF53_4D42, "CIFS"),
        (0xFE53_4D42, "SMB2"),
        (0x5346_414F, "AFS"),
        (0x7375_7245, "Coda"),
        (0x0102_1997, "9P"),
    ];
    // The kernel's numbers have 32 bits, whatever the field's width and sign.
    let kind = u32::try_from(rustix::fs::statfs(path)?.f_type & 0xFFFF_FFFF).unwrap_or(0);
    Ok(KINDS.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(id: Option<&str>) -> Machine {
        let mut machine = Machine::read().expect("this machine");
        machine.machine_id = id.map(str::to_owned);
        machine
    }

    fn directory() -> (tempfile::TempDir, DataDirectory) {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = DataDirectory::prepare(&parent.path().join("a/b")).expect("prepared");
        (parent, directory)
    }

    #[test]
    fn it_is_made_for_its_owner_only() {
        let (_parent, directory) = directory();
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(directory.path()), 0o700);
        let _lock = directory.lock_start().expect("locked");
        let (meta, age) = directory.meta(None, &machine(None)).expect("new");
        assert_eq!(age, DirectoryAge::New);
        directory.keep_meta(&meta).expect("written");
        assert_eq!(mode(&directory.path().join(START_LOCK_NAME)), 0o600);
        assert_eq!(mode(&directory.path().join(META)), 0o600);
    }

    #[test]
    fn a_directory_of_others_is_refused_and_stays_as_it_is() {
        let shared = tempfile::tempdir().expect("a directory");
        let mode =
            |mode| std::fs::set_permissions(shared.path(), PermissionsExt::from_mode(mode)).expect("set");
        let now = || std::fs::metadata(shared.path()).expect("there").permissions().mode() & 0o7777;
        std::fs::write(shared.path().join("theirs"), "").expect("written");
        mode(0o1777);
        let error = DataDirectory::prepare(shared.path()).expect_err("refused").to_string();
        assert!(error.contains("'theirs', which is not ours") && error.contains("chmod 700"), "{error}");
        assert_eq!(now(), 0o1777);
        mode(0o700);
        DataDirectory::prepare(shared.path()).expect("closed already");
        // An old data directory that was opened by mistake is closed again.
        std::fs::write(shared.path().join(META), "{}").expect("written");
        mode(0o755);
        DataDirectory::prepare(shared.path()).expect("ours");
        assert_eq!(now(), 0o700);
    }

    #[test]
    fn one_owner_at_a_time_and_the_second_learns_who() {
        let (_parent, directory) = directory();
        let mut lock = directory.lock_owner().expect("opened").expect("free");
        let holder = Holder { pid: 42 };
        lock.write_holder(&holder).expect("written");
        assert_eq!(directory.lock_owner().expect("opened").expect_err("taken"), Some(holder));
        drop(lock);
        assert!(directory.lock_owner().expect("opened").is_ok());
    }

    #[test]
    fn another_machine_or_store_or_format_is_refused_by_name() {
        let (_parent, directory) = directory();
        let (first, _) = directory.meta(None, &machine(Some("one"))).expect("new");
        directory.keep_meta(&first).expect("written");
        let again = directory.meta(Some(StoreKind::default()), &machine(Some("one"))).expect("the same");
        assert_eq!(again, (first, DirectoryAge::Used));
        let error = directory.meta(None, &machine(Some("two"))).expect_err("another machine");
        assert!(error.to_string().contains("one"), "{error}");
        let others = [StoreKind::Sqlite, StoreKind::Redb, StoreKind::Sled];
        for other in others.into_iter().filter(|other| *other != StoreKind::default()) {
            let error = directory.meta(Some(other), &machine(Some("one"))).expect_err("another store");
            assert!(error.to_string().contains(StoreKind::default().as_str()), "{error}");
        }
        let later = [
            r#"{"format":9,"store":"sqlite","directory_id":"x","machine_id":null}"#,
            r#"{"format":9,"stores":["paper"]}"#,
        ];
        for later in later {
            std::fs::write(directory.path().join(META), later).expect("written");
            let error = directory.meta(None, &machine(None)).expect_err("another format");
            assert!(error.to_string().contains("format 9"), "{error}");
        }
    }

    #[test]
    fn a_path_below_a_file_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = DataDirectory::prepare(&file.path().join("x")).expect_err("not a directory");
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
        assert_eq!(error.kind(), ProblemKind::Unavailable);
    }
}
