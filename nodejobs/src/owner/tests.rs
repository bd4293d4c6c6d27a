//! What arrives while the owner's thread writes is written with one flush: the group commit.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};

use nodejobs_core::backend::fake::FakeBackend;
use nodejobs_core::spec::{Command, JobSpec};
use nodejobs_core::store::content::{Check, Counters, Item};
use nodejobs_core::store::memory::MemoryStore;
use nodejobs_core::store::{JobEvent, Page, StoreInfo, UnitOutcome};

use super::*;

/// A disk whose flushes take as long as the test says.
#[derive(Default)]
struct SlowStore {
    store: MemoryStore,
    gate: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Default)]
struct Gate {
    is_closed: bool,
    /// Jobs in each commit that has begun.
    commits: Vec<usize>,
}

impl SlowStore {
    fn close(&self) {
        let mut gate = self.gate.lock().expect("no panic");
        gate.is_closed = true;
        gate.commits.clear();
    }

    fn open(&self) {
        self.gate.lock().expect("no panic").is_closed = false;
        self.changed.notify_all();
    }

    fn wait_until(&self, condition: impl Fn(&Gate) -> bool) -> Vec<usize> {
        let gate = self.gate.lock().expect("no panic");
        let gate = self.changed.wait_while(gate, |gate| !condition(gate)).expect("no panic");
        gate.commits.clone()
    }
}

impl JobStore for SlowStore {
    fn commit(&self, units: &[Unit]) -> Result<Vec<UnitOutcome>, StoreError> {
        let jobs = units.iter().filter(|unit| unit.job.is_some()).count();
        self.gate.lock().expect("no panic").commits.push(jobs);
        self.changed.notify_all();
        self.wait_until(|gate| !gate.is_closed);
        self.store.commit(units)
    }

    fn job(&self, id: &JobId) -> Result<Option<Job>, StoreError> {
        self.store.job(id)
    }

    fn jobs(&self, request: &PageRequest) -> Result<Page, StoreError> {
        self.store.jobs(request)
    }

    fn counts(&self) -> Result<BTreeMap<Status, u64>, StoreError> {
        self.store.counts()
    }

    fn attempts(&self, id: &JobId) -> Result<Vec<Job>, StoreError> {
        self.store.attempts(id)
    }

    fn events(&self, after: u64, limit: usize) -> Result<Vec<JobEvent>, StoreError> {
        self.store.events(after, limit)
    }

    fn document(&self, kind: DocumentKind, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.document(kind, key)
    }

    fn documents(
        &self,
        kind: DocumentKind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.store.documents(kind, prefix, after, limit)
    }

    fn counters(&self) -> Result<Counters, StoreError> {
        self.store.counters()
    }

    fn load(&self, items: &[Item]) -> Result<(), StoreError> {
        self.store.load(items)
    }

    fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<Check, StoreError> {
        self.store.check(progress)
    }

    fn info(&self) -> StoreInfo {
        self.store.info()
    }
}

#[test]
fn callers_that_come_during_a_flush_share_the_next_one() {
    const CALLERS: usize = 64;
    let parent = tempfile::tempdir().expect("a directory");
    let directory = DataDirectory::prepare(&parent.path().join("jobs")).expect("prepared");
    let lock = directory.lock_owner().expect("opened").expect("free");
    let store = Arc::new(SlowStore::default());
    let owner = Owner::take_over(
        directory,
        lock,
        StoreKind::default(),
        Arc::clone(&store) as Arc<dyn JobStore>,
        "a boot",
        Config::default(),
        |_, _| Ok(Arc::new(FakeBackend::default())),
    )
    .expect("owned");
    let submit = |number: usize| {
        let spec = JobSpec::new(Command::argv(["true"]), "/");
        let definition = Definition::new(&spec, "/logs".into(), Timestamp::default());
        let (reply, answered) = oneshot::channel();
        let id = JobId::new(&format!("job{number}")).expect("a valid id");
        let message = SubmitMessage {
            id: Some(id),
            definition,
            context: Vec::new(),
            input: None,
            unique: None,
            array: None,
            resend: false,
            reply,
        };
        owner.submit(message).expect("it runs");
        answered
    };
    store.close();
    let first = submit(0);
    store.wait_until(|gate| gate.commits == [1]);
    let others: Vec<_> = (1..CALLERS).map(submit).collect();
    store.open();
    for answered in std::iter::once(first).chain(others) {
        let answer = answered.blocking_recv().expect("answered").answer;
        assert!(matches!(answer, Answer::Accepted(_)), "{answer:?}");
    }
    assert_eq!(store.wait_until(|gate| gate.commits.len() > 1), [1, CALLERS - 1]);
}
