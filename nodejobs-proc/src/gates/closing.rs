//! Closing the gates of a keeper whose worker is dead or does not answer.

use std::io;

use nodejobs_core::signal::Signal;

use super::{BadGates, Gates, Passage, State};
use crate::identity::{ProcStat, open_pidfd, send_signal};
use crate::keeper::KeeperFiles;
use crate::look::is_keeper;

/// Closes all gates that nobody has gone through. Gives what the launches have come to: each is closed or noted, for good.
///
/// # Errors
/// When the page does not say whose gates they are, or which are open.
pub(crate) fn close_all(gates: &Gates, files: &KeeperFiles) -> Result<Vec<Passage>, BadGates> {
    // All at once, before anything else is looked at.
    gates.all().map(|gate| gate.close()).collect::<Result<Vec<State>, _>>()?;
    let passages = gates.passages()?;
    for passage in passages.iter().filter(|passage| passage.state == State::Closed) {
        // Nothing is proved by it, and it may not work: it spares a child the rest of its way.
        passage.pid.into_iter().for_each(|pid| kill_unexecuted(pid, files));
    }
    Ok(passages)
}

/// Whether this process lives and is a child of this keeper that has not executed its program.
///
/// # Errors
/// When there is no room to look.
pub(crate) fn is_unexecuted(pid: u32, files: &KeeperFiles) -> io::Result<bool> {
    let lives = ProcStat::read(pid)?.is_some_and(|stat| !stat.is_dead());
    Ok(lives && is_keeper(pid, files))
}

/// Whether this process lives and has executed its program.
///
/// # Errors
/// When there is no room to look.
pub(crate) fn has_executed(pid: u32, files: &KeeperFiles) -> io::Result<bool> {
    let lives = ProcStat::read(pid)?.is_some_and(|stat| !stat.is_dead());
    Ok(lives && !is_keeper(pid, files))
}

/// Kills the child of a launch whose gate is closed, if that is what has the number.
pub(crate) fn kill_unexecuted(pid: u32, files: &KeeperFiles) {
    let Ok(child) = open_pidfd(pid) else { return };
    if is_unexecuted(pid, files).unwrap_or(false) {
        let _ = send_signal(&child, Signal::KILL);
    }
}
