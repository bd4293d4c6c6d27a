//! What a loss of power leaves: what was synced, and of what was written after it any part, in any order.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use nodejobs_core::job::{Definition, JobState};
use nodejobs_core::spec::{Command, JobSpec};
use nodejobs_core::store::{JobChange, JobStore, Unit};
use nodejobs_core::{JobId, Status, Timestamp};
use redb::StorageBackend;

use crate::engine::RedbEngine;
use crate::{RedbStore, open};

const SECTOR: usize = 512;
const COMMITS: u64 = 40;
const CRASHES: usize = 400;

#[derive(Clone, Debug)]
enum Step {
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    Length(usize),
    Sync,
    /// A commit has returned.
    Acknowledged,
}

/// A disk that remembers everything that was done to it.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<(Vec<u8>, Vec<Step>)>>);

impl Disk {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>, &mut Vec<Step>) -> T) -> T {
        let mut disk = self.0.lock().expect("no panic");
        let (image, steps) = &mut *disk;
        work(image, steps)
    }

    fn starting_from(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new((image, Vec::new()))))
    }

    fn open(&self) -> RedbStore {
        let database = open::database(self.clone()).expect("open");
        open::make_table(&database).expect("a table");
        RedbStore::new(RedbEngine::new(Path::new("."), database))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|image, _| image.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|image, _| match image.get(start..start + out.len()) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).map_err(io::Error::other)?;
        self.with(|image, steps| {
            image.resize(length, 0);
            steps.push(Step::Length(length));
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|_, steps| steps.push(Step::Sync));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.with(|image, steps| {
            write(image, offset, data);
            steps.push(Step::Write { offset, data: data.to_vec() });
        });
        Ok(())
    }
}

fn write(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if image.len() < offset + data.len() {
        image.resize(offset + data.len(), 0);
    }
    image[offset..offset + data.len()].copy_from_slice(data);
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % end
    }
}

/// The disk after the first steps, if the power goes then.
fn image_after(steps: &[Step], numbers: &mut Numbers) -> Vec<u8> {
    let synced = steps.iter().rposition(|step| matches!(step, Step::Sync)).map_or(0, |sync| sync + 1);
    let mut image = Vec::new();
    let odds = numbers.below(5);
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Length(length) => image.resize(*length, 0),
            Step::Write { offset, data } if index < synced => write(&mut image, *offset, data),
            Step::Write { offset, data } => {
                // Each sector by itself: on disk, or not yet.
                for (number, sector) in data.chunks(SECTOR).enumerate() {
                    if numbers.below(4) < odds {
                        write(&mut image, offset + number * SECTOR, sector);
                    }
                }
            }
            Step::Sync | Step::Acknowledged => {}
        }
    }
    image
}

fn insert(number: u64) -> Unit {
    let now = Timestamp::from_millis(1_784_000_000_000);
    let argument = "x".repeat(usize::try_from(number * 911 % 9000).unwrap_or(0));
    let spec = JobSpec::new(Command::argv(["echo".to_owned(), argument]), "/");
    let id = JobId::new(&format!("job{number}")).expect("a valid id");
    let definition = Box::new(Definition::new(&spec, "/logs".into(), now));
    JobChange::Insert { id, definition, state: JobState::new(1, Status::Running, now) }.into()
}

#[test]
fn whatever_part_of_a_commit_is_on_disk_all_commits_before_it_are() {
    let disk = Disk::default();
    let store = disk.open();
    let begin = disk.with(|_, steps| steps.len());
    for number in 0..COMMITS {
        store.commit(&[insert(2 * number), insert(2 * number + 1)]).expect("commit");
        disk.with(|_, steps| steps.push(Step::Acknowledged));
    }
    let steps = disk.with(|_, steps| steps.clone());
    drop(store);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut whole, mut none) = (0, 0);
    for crash in 0..CRASHES {
        let until = begin + numbers.below(steps.len() - begin);
        let acknowledged =
            steps[..until].iter().filter(|step| matches!(step, Step::Acknowledged)).count() as u64;
        let after = Disk::starting_from(image_after(&steps[..until], &mut numbers));
        let store = after.open();
        let check = store.check(&mut |_| {}).expect("checked");
        assert!(check.is_sound(), "crash {crash} after step {until}: {check:?}");
        match check.jobs {
            jobs if jobs == 2 * acknowledged => none += 1,
            jobs if jobs == 2 * acknowledged + 2 => whole += 1,
            jobs => panic!("crash {crash} after step {until}: {jobs} jobs, {acknowledged} commits returned"),
        }
    }
    assert!(whole > 0 && none > 0, "{whole} commits came back whole, {none} not at all");
}
