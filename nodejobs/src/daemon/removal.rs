//! Notices that the data directory was removed under the daemon: nobody can find it there any more.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe;

/// Returns once the file is no longer at its path, or another one is. Never, if that cannot be watched.
pub(super) async fn removed(file: &Path) {
    if watch(file).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn watch(file: &Path) -> io::Result<()> {
    let inode = std::fs::metadata(file)?.ino();
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // Removing a file that is open changes its attributes; it is deleted only once nobody has it open.
    inotify::add_watch(&events, file, WatchFlags::ATTRIB)?;
    // Tokio's only safe way to wait for a descriptor it has no type for.
    let events = pipe::Receiver::from_owned_fd_unchecked(events)?;
    loop {
        if std::fs::metadata(file).map_or(true, |there| there.ino() != inode) {
            return Ok(());
        }
        events.readable().await?;
        while events.try_read(&mut [0; 1024]).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_removed_file_is_noticed_and_a_changed_one_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("owner.lock");
        let open = std::fs::File::create(&file).expect("a file");
        let mut gone = std::pin::pin!(removed(&file));
        open.set_modified(std::time::UNIX_EPOCH).expect("touched");
        assert!(timeout(Duration::from_millis(20), gone.as_mut()).await.is_err());
        std::fs::remove_file(&file).expect("removed");
        timeout(Duration::from_secs(20), gone).await.expect("noticed");
    }
}
