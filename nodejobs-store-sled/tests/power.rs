//! What a loss of power leaves: what was synced, and of what was being written any part, in any order.
//!
//! Between two syncs the disk may write sectors as it likes. So the image after one commit, with any of the sectors that
//! the next one has changed, is what may be found: it has to open with all commits that returned.

use std::fs;
use std::path::Path;

use nodejobs_core::job::{Definition, JobState};
use nodejobs_core::spec::{Command, JobSpec};
use nodejobs_core::store::{JobChange, JobStore, Unit};
use nodejobs_core::{JobId, Status, Timestamp};
use nodejobs_store_sled::SledStore;

const SECTOR: usize = 512;
const COMMITS: u64 = 60;
const CRASHES: u64 = 4;

fn insert(number: u64) -> Unit {
    let now = Timestamp::from_millis(1_784_000_000_000);
    let argument = "x".repeat(usize::try_from(number * 911 % 9000).unwrap_or(0));
    let spec = JobSpec::new(Command::argv(["echo".to_owned(), argument]), "/");
    let id = JobId::new(&format!("job{number}")).expect("a valid id");
    let definition = Box::new(Definition::new(&spec, "/logs".into(), now));
    JobChange::Insert { id, definition, state: JobState::new(1, Status::Running, now) }.into()
}

/// Numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn whatever_part_of_a_commit_is_on_disk_all_commits_before_it_are() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("jobs.sled");
    let store = SledStore::open(&path).expect("open");
    let image = |name: &str| fs::read(path.join(name)).expect("a file");
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut whole, mut none) = (0, 0);
    for number in 0..COMMITS {
        let (before, mark) = (image("db"), image("nodejobs"));
        store.commit(&[insert(2 * number), insert(2 * number + 1)]).expect("commit");
        let after = image("db");
        for crash in 0..CRASHES {
            let copy = directory.path().join(format!("copy-{number}-{crash}"));
            // The length of a file is on disk with what makes it longer, or before it.
            let mut torn = before.clone();
            torn.resize(after.len(), 0);
            let odds = numbers.next() % 5;
            for (torn, after) in torn.chunks_mut(SECTOR).zip(after.chunks(SECTOR)) {
                if torn != after && numbers.next() % 4 < odds {
                    torn.copy_from_slice(after);
                }
            }
            fs::create_dir(&copy).expect("made");
            fs::create_dir(copy.join("blobs")).expect("made");
            fs::write(copy.join("db"), torn).expect("written");
            fs::write(copy.join("nodejobs"), &mark).expect("written");
            fs::copy(path.join("conf"), copy.join("conf")).expect("copied");
            match jobs_in(&copy, number, crash) {
                found if found == 2 * number => none += 1,
                found if found == 2 * number + 2 => whole += 1,
                found => panic!("crash {crash} in commit {number}: {found} jobs"),
            }
            fs::remove_dir_all(&copy).expect("removed");
        }
    }
    assert!(whole > 0 && none > 0, "{whole} commits came back whole, {none} not at all");
}

fn jobs_in(path: &Path, number: u64, crash: u64) -> u64 {
    let failed = |error| panic!("crash {crash} in commit {number}: {error:?}");
    let store = SledStore::open(path).unwrap_or_else(failed);
    let check = store.check(&mut |_| {}).expect("checked");
    assert!(check.is_sound(), "crash {crash} in commit {number}: {check:?}");
    check.jobs
}
