//! What the SQLite store costs: see `nodejobs-core/benches/support/stores.rs`.

#[path = "../../nodejobs-core/benches/support/mod.rs"]
mod support;

#[path = "../../nodejobs-core/benches/support/stores.rs"]
mod stores;

use std::path::Path;

use nodejobs_store_sqlite::SqliteStore;

fn main() {
    let open = |path: &Path| Box::new(SqliteStore::open(path).expect("a store")) as _;
    stores::measure("sqlite", open, Path::new(env!("CARGO_TARGET_TMPDIR")));
}
