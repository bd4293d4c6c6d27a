//! What an owner does by itself beside its jobs, as its settings say.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::arrays::{finish_forgetting, on_done};
use crate::hooks;
use crate::owner::Owner;
use crate::retention::retain;

/// Goes on until the owner leaves.
pub(crate) fn spawn(owner: Arc<Owner>) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::join!(retain(&owner), hooks::serve(&owner), finish_forgetting(&owner), on_done::serve(&owner));
    })
}
