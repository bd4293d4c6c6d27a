//! What the redb store costs: see `nodejobs-core/benches/support/stores.rs`.

#[path = "../../nodejobs-core/benches/support/mod.rs"]
mod support;

#[path = "../../nodejobs-core/benches/support/stores.rs"]
mod stores;

use std::path::Path;

use nodejobs_store_redb::RedbStore;

fn main() {
    let open = |path: &Path| Box::new(RedbStore::open(path).expect("a store")) as _;
    stores::measure("redb", open, Path::new(env!("CARGO_TARGET_TMPDIR")));
}
