//! What a person with a shell sees.

mod common;

use common::{definition, id, state};
use nodejobs_core::spec::Command;
use nodejobs_core::store::{DocumentChange, DocumentKind, JobChange, JobStore, Unit};
use nodejobs_core::{RawText, Status};
use nodejobs_store_sqlite::SqliteStore;
use rusqlite::Connection;

#[test]
fn bytes_that_are_not_utf8_come_back_and_the_rest_is_readable_text() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("nodejobs.sqlite");
    let store = SqliteStore::open(&path).expect("open");
    let odd = RawText::from(b"/srv/\xff\xfe\x80".to_vec());
    let mut raw = definition(Command::Argv(vec![odd.clone(), "ü".into()]));
    raw.cwd = odd.clone();
    raw.logs.path = odd.clone();
    let mut plain = definition(Command::shell("echo 'ü'"));
    plain.cwd = "/srv/ü".into();
    let document = DocumentChange::Put { kind: DocumentKind::Meta, key: "k".to_owned(), body: vec![0xff, 0] };
    let units = [("odd", &raw), ("plain", &plain)].map(|(name, definition)| {
        let definition = Box::new(definition.clone());
        let job = JobChange::Insert { id: id(name), definition, state: state(1, Status::Queued) };
        Unit { job: Some(job), documents: vec![document.clone()] }
    });
    store.commit(&units).expect("commit");
    assert_eq!(store.job(&id("odd")).expect("read").map(|job| job.definition), Some(raw));
    assert_eq!(store.job(&id("plain")).expect("read").map(|job| job.definition), Some(plain));
    assert_eq!(store.document(DocumentKind::Meta, "k").expect("read"), Some(vec![0xff, 0]));

    // What a person with a shell sees while the store is open.
    let shell = Connection::open(&path).expect("raw");
    let sql = "SELECT id || ' ' || typeof(cwd) || ' ' || dirname || ' ' || command FROM jobs WHERE id = 'plain'
               UNION ALL SELECT id || ' ' || typeof(cwd) || ' ' || typeof(logfile) FROM jobs WHERE id = 'odd'";
    let mut statement = shell.prepare(sql).expect("prepare");
    let lines: Vec<String> =
        statement.query_map([], |row| row.get(0)).expect("query").map(|line| line.expect("a line")).collect();
    assert_eq!(lines, [r#"plain text ü {"shell":"echo 'ü'"}"#, "odd blob blob"]);
}
