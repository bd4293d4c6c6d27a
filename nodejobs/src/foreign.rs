//! Whether a directory may become a data directory: one that holds somebody else's files is not closed to its users.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::api::{LOG_NAME, START_LOCK_NAME};
use crate::config::CONFIG_NAME;
use crate::store_files::is_temporary;

/// Says what a data directory is: whoever has it is one.
pub(crate) const META: &str = "nodejobs.json";
/// Locked by the owner, as long as there is one.
pub(crate) const OWNER_LOCK: &str = "owner.lock";

/// What may be there before the directory says what it is, besides stores that are being made: it is left by whoever
/// starts a daemon, is killed while it imports, or writes settings first, and by file systems in their top directory.
const HARMLESS: [&str; 6] =
    [START_LOCK_NAME, OWNER_LOCK, LOG_NAME, CONFIG_NAME, "failed-starts.json", "lost+found"];

/// A file in a directory that other users can look into and that is no data directory yet, or `None` if the directory
/// may be closed to them and used.
///
/// # Errors
///
/// If the directory cannot be read.
///
/// # Example
///
/// ```
/// let shared = tempfile::tempdir()?;
/// std::fs::set_permissions(shared.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
/// assert_eq!(nodejobs::daemon::foreign_file(shared.path())?, None);
/// std::fs::write(shared.path().join("thesis.tex"), "")?;
/// assert_eq!(nodejobs::daemon::foreign_file(shared.path())?, Some("thesis.tex".into()));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn foreign_file(directory: &Path) -> io::Result<Option<OsString>> {
    let is_open = std::fs::metadata(directory)?.permissions().mode() & 0o077 != 0;
    if !is_open || std::fs::exists(directory.join(META))? {
        return Ok(None);
    }
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !HARMLESS.iter().any(|harmless| name == *harmless) && !is_temporary(&name) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
