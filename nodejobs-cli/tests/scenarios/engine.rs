//! The store of the build under test: where it is, how it is damaged, and what can be asked of it from outside.

use std::path::PathBuf;

use nodejobs::StoreKind;
use nodejobs::api::EventsQuery;
use nodejobs::client::Client;
use serde_json::Value;

use crate::support::Home;

/// The store that a new directory gets: the first of those in this build.
pub(crate) fn store() -> &'static str {
    StoreKind::default().as_str()
}

/// Every store, whether it is in this build or not.
pub(crate) const STORES: [(&str, bool); 3] = [
    ("sqlite", cfg!(feature = "sqlite")),
    ("redb", cfg!(feature = "redb")),
    ("sled", cfg!(feature = "sled")),
];

/// The stores of this build, as they are listed.
pub(crate) fn available() -> String {
    let available: Vec<_> = STORES.iter().filter(|(_, is_here)| *is_here).map(|(name, _)| *name).collect();
    available.join(", ")
}

/// Ways to damage a store; what each is, and a word that has to be said of it.
pub(crate) fn damages(good: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let (head, behind) = good.split_at(good.len().min(8192));
    vec![
        ("other bytes", vec![0xAB; 50_000], ""),
        ("nothing", Vec::new(), "empty"),
        ("less than a head", good[..16].to_vec(), ""),
        // Its head is good, and what is behind it is not, or is not there.
        ("a head with other bytes", [head, &vec![0xAB; behind.len()]].concat(), "damaged"),
        ("a head alone", head.to_vec(), "damaged"),
    ]
}

impl Home {
    /// The store: a file, or a directory.
    pub(crate) fn store_path(&self) -> PathBuf {
        self.data_dir().join(format!("jobs.{}", store()))
    }

    /// The file that holds what is in the store.
    pub(crate) fn store_file(&self) -> PathBuf {
        let path = self.store_path();
        if path.is_dir() { path.join("db") } else { path }
    }

    /// How many documents of a family the store holds. It ends the daemon: nobody else may have the store meanwhile.
    pub(crate) fn documents(&self, kind: &str) -> usize {
        self.ok(["daemon", "stop"]);
        let lines = self.ok(["store", "export"]);
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
        lines.filter(|line| line["document"]["kind"] == kind).count()
    }

    /// How many changes of this job the store has noted that left it in this status.
    pub(crate) fn changes(&self, id: &str, status: &str) -> usize {
        let client = Client::connect(self.data_dir()).expect("a daemon");
        let events = client.events(&EventsQuery { after: 0, follow: false }).expect("events");
        let events = events.map(|event| event.expect("an event"));
        events.filter(|event| event.attempt.id.as_str() == id && event.status.as_str() == status).count()
    }
}
