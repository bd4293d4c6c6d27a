//! The shared part on a map in memory: what only damage can bring about.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::super::content::Check;
use super::super::{DocumentChange, DocumentKind, JobChange, JobStore, StoreError, StoreInfo, Unit};
use super::*;
use crate::job::{Definition, JobState};
use crate::spec::{Command, JobSpec};
use crate::{JobId, Status, Timestamp};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// An engine that forgets.
#[derive(Default)]
struct MapEngine {
    map: Mutex<Map>,
    path: PathBuf,
}

struct Snapshot(Map);

impl View for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let mut range = self.0.range(from.to_vec()..to.to_vec());
        while let Some((key, value)) = match direction {
            Direction::Forward => range.next(),
            Direction::Backward => range.next_back(),
        } {
            if visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Changes for Snapshot {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.0.remove(key);
        Ok(())
    }
}

impl Engine for MapEngine {
    fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { map: Mutex::default(), path: path.to_owned() })
    }

    fn read<T>(&self, read: impl FnOnce(&dyn View) -> Result<T, StoreError>) -> Result<T, StoreError> {
        read(&Snapshot(self.map.lock().expect("no panic").clone()))
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&mut dyn Changes) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut map = self.map.lock().expect("no panic");
        let mut changes = Snapshot(map.clone());
        let written = write(&mut changes)?;
        *map = changes.0;
        Ok(written)
    }

    fn check(&self, _check: &mut Check) -> Result<(), StoreError> {
        Ok(())
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn info(&self) -> StoreInfo {
        StoreInfo {
            engine: "map".to_owned(),
            format: FORMAT,
            path: None,
            shareable: false,
            weaker: Vec::new(),
        }
    }
}

fn filled() -> KeyValueStore<MapEngine> {
    let store = KeyValueStore::<MapEngine>::open(Path::new("/store")).expect("opened");
    let now = Timestamp::from_millis(7);
    let definition = || {
        let mut definition = Definition::new(
            &JobSpec::new(Command::argv(["true"]), "/").id("x").expect("valid"),
            "/logs".into(),
            now,
        );
        definition.name = Some("n".to_owned());
        definition.labels.insert("k".to_owned(), "v".to_owned());
        Box::new(definition)
    };
    let id = |name: &str| JobId::new(name).expect("a valid id");
    let insert = |name: &str, status| JobChange::Insert {
        id: id(name),
        definition: definition(),
        state: JobState::new(1, status, now),
    };
    let again = JobChange::NewAttempt {
        id: id("a"),
        expected: 1,
        definition: definition(),
        state: JobState::new(2, Status::Queued, now),
    };
    let put = DocumentChange::Put { kind: DocumentKind::Meta, key: "k".to_owned(), body: b"v".to_vec() };
    let units: [Unit; 4] = [
        insert("a", Status::Failed).into(),
        insert("b", Status::Running).into(),
        again.into(),
        Unit { job: None, documents: vec![put] },
    ];
    store.commit(&units).expect("committed");
    store
}

fn problems(store: &KeyValueStore<MapEngine>) -> Vec<String> {
    store.check(&mut |_| {}).expect("checked").problems
}

#[test]
fn a_whole_store_is_sound() {
    assert_eq!(problems(&filled()), [""; 0]);
}

/// Whatever is taken away or altered, the check finds it, and says what it is about.
#[test]
fn no_damage_stays_unseen() {
    let whole = filled().engine.map.into_inner().expect("no panic");
    assert!(whole.len() > 20, "{}", whole.len());
    for key in whole.keys() {
        let store = filled();
        store.engine.map.lock().expect("no panic").remove(key);
        let found = problems(&store);
        // A document may be there or not, and the oldest event may have been pruned: nothing says that it has to be.
        let may_go = key.starts_with(keys::DOCUMENTS) || *key == keys::event(1);
        assert_eq!(found.is_empty(), may_go, "{} is gone", key.escape_ascii());

        let store = filled();
        let mut altered = false;
        if let Some(value) = store.engine.map.lock().expect("no panic").get_mut(key)
            && let Some(last) = value.last_mut()
        {
            *last ^= 1;
            altered = true;
        }
        assert_eq!(problems(&store).is_empty(), !altered, "{} is altered", key.escape_ascii());
    }
    for prefix in keys::INDEXES.into_iter().chain([keys::IDS, keys::DEFINITIONS, keys::ATTEMPTS]) {
        let store = filled();
        let stray = keys::numbered(prefix, 77);
        store.engine.map.lock().expect("no panic").insert(stray, record::encode_seq(2));
        assert_ne!(problems(&store), [""; 0], "{} is too much", prefix.escape_ascii());
    }
}

#[test]
fn what_is_behind_damage_is_checked_as_well() {
    let store = filled();
    for key in
        [keys::document(DocumentKind::Meta, "k"), keys::event(2), keys::definition(1, 1), keys::event(3)]
    {
        let mut map = store.engine.map.lock().expect("no panic");
        *map.get_mut(&key).expect("there").last_mut().expect("not empty") ^= 1;
    }
    let found = problems(&store).join("\n");
    for what in ["document meta 'k'", "event 2", "event 3", "the job with seq 1, a definition"] {
        assert!(found.contains(what), "{what}: {found}");
    }
}

#[test]
fn a_damaged_record_is_named_with_its_store() {
    let store = filled();
    store.engine.map.lock().expect("no panic").insert(keys::job(2), b"nonsense".to_vec());
    let error = store.job(&JobId::new("b").expect("valid")).expect_err("damaged");
    let text = error.to_string();
    assert!(text.contains("seq 2") && text.contains("/store"), "{text}");
    assert!(store.job(&JobId::new("a").expect("valid")).expect("readable").is_some());
}

/// Two names whose hashes are the same by chance: the index leads to both, the job tells them apart.
#[test]
fn an_index_entry_is_a_hint_and_the_job_decides() {
    let store = filled();
    let stray = keys::numbered(&keys::name("other"), 2);
    store.engine.map.lock().expect("no panic").insert(stray, Vec::new());
    let mut filter = crate::filter::JobFilter { name: Some("other".to_owned()), ..Default::default() };
    let list = |filter| {
        let request = PageRequest { filter, order: Default::default(), after: None, limit: 9 };
        store.jobs(&request).expect("a page").jobs.len()
    };
    assert_eq!(list(filter.clone()), 0);
    filter.name = Some("n".to_owned());
    assert_eq!(list(filter), 2);
}
