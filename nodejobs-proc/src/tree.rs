//! Which processes belong to a job: its descendants, its session, and those that carry its mark.

use std::collections::{HashMap, HashSet};

use crate::identity::{LocalProcess, ProcStat};
use crate::launch::MARK_VARIABLE;

/// What is needed to tell a job's processes from others.
pub(crate) struct Root<'a> {
    /// Its main process, living or not.
    pub(crate) main: &'a LocalProcess,
    /// The value of [`MARK_VARIABLE`] in its environment.
    pub(crate) mark: &'a str,
}

/// Where a job's processes are looked for. Serves one round of looking; what it has read stays as it was.
pub(crate) enum View {
    /// Every keeper is alive, so whoever has lost its parent is a child of one of them: these are the children that
    /// are not themselves main processes. A job's processes are found from its main process and from here down.
    Adopted(Vec<ProcStat>),
    /// Somebody who adopted orphans is gone, so they may be anywhere: these are all processes.
    Everywhere(HashMap<u32, ProcStat>),
}

impl View {
    /// Looks at the children of the keepers; at everything where the kernel does not list children.
    pub(crate) fn of_keepers(collectors: &[u32], main_processes: &HashSet<u32>) -> Self {
        let mut adopted = Vec::new();
        for collector in collectors {
            let Some(children) = children_of(*collector) else { return Self::everywhere() };
            let orphans = children.into_iter().filter(|pid| !main_processes.contains(pid));
            adopted.extend(orphans.filter_map(ProcStat::read));
        }
        View::Adopted(adopted)
    }

    /// Looks at every process.
    pub(crate) fn everywhere() -> Self {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        View::Everywhere(pids.filter_map(ProcStat::read).map(|stat| (stat.pid, stat)).collect())
    }

    /// The living processes of a job, its main process included.
    pub(crate) fn members(&self, root: &Root<'_>) -> Vec<ProcStat> {
        let main = ProcStat::read(root.main.pid);
        let main = main.as_ref();
        let mut found = HashMap::new();
        match self {
            View::Adopted(orphans) => {
                let roots = roots(root, main, orphans.iter(), carries_mark);
                descend(roots, children_of_any_thread, &mut found);
            }
            View::Everywhere(processes) => {
                let roots = roots(root, main, processes.values(), carries_mark);
                let mut children: HashMap<u32, Vec<ProcStat>> = HashMap::new();
                for stat in processes.values() {
                    children.entry(stat.parent).or_default().push(stat.clone());
                }
                descend(roots, |pid| children.get(&pid).cloned().unwrap_or_default(), &mut found);
            }
        }
        found.into_values().filter(|stat| !stat.is_dead()).collect()
    }
}

/// The processes from which all of a job can be reached: the main one, and of the candidates those that are in its
/// session or carry its mark.
fn roots<'a>(
    root: &Root<'_>,
    main: Option<&'a ProcStat>,
    candidates: impl Iterator<Item = &'a ProcStat>,
    carries_mark: impl Fn(u32, &str) -> bool,
) -> Vec<ProcStat> {
    let main = main.filter(|stat| stat.pid == root.main.pid);
    let main_is_there = main.is_some_and(|stat| stat.start_ticks == root.main.start_ticks);
    // A number that is in use by a stranger says nothing about whoever is in a session of that number.
    let number_is_ours = main_is_there || main.is_none();
    let belongs = |stat: &&ProcStat| {
        stat.start_ticks >= root.main.start_ticks
            && ((stat.session == root.main.pid && number_is_ours) || carries_mark(stat.pid, root.mark))
    };
    main.filter(|_| main_is_there).into_iter().chain(candidates.filter(belongs)).cloned().collect()
}

fn descend(
    roots: Vec<ProcStat>,
    children: impl Fn(u32) -> Vec<ProcStat>,
    found: &mut HashMap<u32, ProcStat>,
) {
    let mut waiting = roots;
    while let Some(stat) = waiting.pop() {
        let pid = stat.pid;
        if found.insert(pid, stat).is_none() {
            waiting.extend(children(pid));
        }
    }
}

fn children_of_any_thread(pid: u32) -> Vec<ProcStat> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<u32> = lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    pids.into_iter().filter_map(ProcStat::read).collect()
}

/// Whether a process has the mark in the environment it was executed with.
pub(crate) fn carries_mark(pid: u32, mark: &str) -> bool {
    let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    let wanted = format!("{MARK_VARIABLE}={mark}");
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
}

/// The living children of a single-threaded process; `None` where the kernel does not list them.
pub(crate) fn children_of(pid: u32) -> Option<Vec<u32>> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Some(list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, session: u32, start_ticks: u64) -> ProcStat {
        ProcStat {
            pid,
            name: "p".to_owned(),
            state: b'S',
            parent,
            session,
            threads: 1,
            start_ticks,
            exit_code: 0,
        }
    }

    fn root_pids(main: Option<&ProcStat>, candidates: &[ProcStat], marked: &[u32]) -> Vec<u32> {
        let known = LocalProcess {
            boot_id: "b".to_owned(),
            pid_namespace: 1,
            pid: 100,
            start_ticks: 50,
            pidfs: None,
        };
        let root = Root { main: &known, mark: "m" };
        let found = roots(&root, main, candidates.iter(), |pid, _| marked.contains(&pid));
        found.iter().map(|stat| stat.pid).collect()
    }

    #[test]
    fn orphans_belong_by_session_or_by_mark() {
        let main = process(100, 10, 100, 50);
        let orphans = [
            process(103, 10, 100, 53), // its parent died, still in the session
            process(104, 10, 104, 54), // left the session, carries the mark
            process(106, 10, 106, 56), // of another job
        ];
        assert_eq!(root_pids(Some(&main), &orphans, &[104]), [100, 103, 104]);
        assert_eq!(root_pids(None, &orphans, &[104]), [103, 104]);
    }

    #[test]
    fn a_stranger_with_the_number_of_a_dead_main_process_is_left_alone() {
        let stranger = process(100, 10, 100, 99);
        let orphans = [process(101, 10, 100, 100), process(102, 10, 102, 60)];
        assert_eq!(root_pids(Some(&stranger), &orphans, &[102]), [102]);
    }

    #[test]
    fn what_is_older_than_the_job_is_not_of_it() {
        assert_eq!(root_pids(None, &[process(102, 10, 100, 49)], &[102]), []);
    }

    #[test]
    fn descendants_are_found_once_each() {
        let mut found = HashMap::new();
        let child = |pid| process(pid, pid - 1, 100, 60);
        descend(
            vec![child(1), child(2)],
            |pid| if pid < 5 { vec![child(pid + 1)] } else { vec![] },
            &mut found,
        );
        let mut pids: Vec<u32> = found.into_keys().collect();
        pids.sort_unstable();
        assert_eq!(pids, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn both_views_see_a_child_of_this_process() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().expect("sleep starts");
        let stat = ProcStat::read(child.id()).expect("it is there");
        let main = LocalProcess {
            boot_id: String::new(),
            pid_namespace: 0,
            pid: child.id(),
            start_ticks: stat.start_ticks,
            pidfs: None,
        };
        let root = Root { main: &main, mark: "nobody" };
        for view in [View::Adopted(Vec::new()), View::everywhere()] {
            let pids: Vec<u32> = view.members(&root).iter().map(|stat| stat.pid).collect();
            assert_eq!(pids, [child.id()]);
        }
        child.kill().expect("killed");
        child.wait().expect("collected");
    }
}
