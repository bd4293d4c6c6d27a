//! What jobs use, for whoever asks: looked at in the thread of whoever does, not in the backend's.

use std::io;

use nodejobs_core::backend::TreeUsage;
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::Process;

use super::Lookout;
use crate::identity::LocalProcess;
use crate::machine::{Machine, now};
use crate::tree::{Root, View};
use crate::{launch, usage};

pub(super) fn of_attempts(
    attempts: &[(AttemptId, Process)],
    lookout: &Lookout,
    machine: &Machine,
    directory_id: &str,
) -> Vec<Option<TreeUsage>> {
    let Ok(view) = lookout.view() else { return vec![None; attempts.len()] };
    let of_one = |(attempt, process): &(AttemptId, Process)| {
        let main = LocalProcess::from_process(process)?;
        let is_within_reach = main.boot_id == machine.boot_id && main.pid_namespace == machine.pid_namespace;
        let mark = launch::mark(directory_id, attempt);
        let root = Root { main: &main, mark: &mark, group: lookout.groups.get(attempt) };
        if is_within_reach { of_tree(&view, &root).ok()? } else { None }
    };
    attempts.iter().map(of_one).collect()
}

/// `None` if nobody of it is there.
fn of_tree(view: &View, root: &Root<'_>) -> io::Result<Option<TreeUsage>> {
    let members = view.members(root)?;
    if members.is_empty() {
        return Ok(None);
    }
    let (cpu_ms, at) = (usage::cpu_ms(&members), now().boot);
    let mut memory_kib = 0;
    for member in &members {
        memory_kib += usage::proportional_kib(member.pid)?;
    }
    Ok(Some(TreeUsage { memory_kib, cpu_ms, at }))
}
