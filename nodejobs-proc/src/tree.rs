//! Which processes belong to a job: its descendants, its session, and those that carry its mark or its trace.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::io;

use crate::cgroup::group::Group;
use crate::identity::{LocalProcess, ProcStat, if_there};
use crate::launch::MARK_VARIABLE;
use crate::{proc_file, trace};

/// The mark of a daemon that a job happened to start: neither it nor what it starts is the job's.
pub const DAEMON_MARK: &str = "daemon";

/// What is needed to tell a job's processes from others.
pub(crate) struct Root<'a> {
    /// Its main process, living or not.
    pub(crate) main: &'a LocalProcess,
    /// The value of [`MARK_VARIABLE`] in its environment.
    pub(crate) mark: &'a str,
    /// Its cgroup, if it has one.
    pub(crate) group: Option<&'a Group>,
}

/// Where a job's processes are looked for. Serves one round of looking; what it has read stays as it was.
pub(crate) enum View {
    /// Every keeper is alive, so whoever has lost its parent is a child of one of them: these are the children that
    /// are not themselves main processes. A job's processes are found from its main process and from here down.
    Adopted(Candidates),
    /// Somebody who adopted orphans is gone, so they may be anywhere: these are all processes, and the children of
    /// each. Many jobs are looked for in one view, so none of them may have to go through all of it.
    Everywhere(Candidates, HashMap<u32, Vec<u32>>),
}

impl View {
    /// Looks at the children of the keepers; at everything where the kernel does not list children, and where a keeper
    /// has just died.
    ///
    /// # Errors
    /// When there is no room to look.
    pub(crate) fn of_keepers(collectors: &[u32], main_processes: &HashSet<u32>) -> io::Result<Self> {
        let mut adopted = Candidates::default();
        let mut seen = HashSet::new();
        for collector in collectors {
            let mut somebody_died = true;
            while somebody_died {
                let Some(children) = children_of(*collector)? else { return Self::everywhere() };
                // Nobody may have heard of its death yet. Its children are somebody else's by now, or those of another of its
                // threads that is about to end as well.
                if ProcStat::read(*collector)?.is_none_or(|stat| matches!(stat.state, b'Z' | b'X')) {
                    return Self::everywhere();
                }
                somebody_died = false;
                for orphan in
                    children.into_iter().filter(|pid| !main_processes.contains(pid) && seen.insert(*pid))
                {
                    // What one that died had started came to the keeper, which may have been after we looked there.
                    somebody_died |= !adopted.take_in(orphan)?;
                }
            }
        }
        Ok(View::Adopted(adopted))
    }

    /// [`of_keepers`](Self::of_keepers), where all keepers are known and alive.
    ///
    /// # Errors
    /// When there is no room to look.
    pub(crate) fn of_keepers_or_everywhere(
        collectors: Option<&[u32]>,
        main_processes: &HashSet<u32>,
    ) -> io::Result<Self> {
        collectors.map_or_else(Self::everywhere, |collectors| Self::of_keepers(collectors, main_processes))
    }

    /// Whether all keepers are alive and nobody is with them but main processes: nobody is left behind then.
    pub(crate) fn is_nobody(&self) -> bool {
        matches!(self, View::Adopted(adopted) if adopted.processes.is_empty())
    }

    /// Looks at every process.
    ///
    /// # Errors
    /// When there is no room to look.
    pub(crate) fn everywhere() -> io::Result<Self> {
        let mut all = Candidates::default();
        for entry in std::fs::read_dir("/proc")? {
            if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                all.take_in(pid)?;
            }
        }
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for stat in all.processes.values() {
            children.entry(stat.parent).or_default().push(stat.pid);
        }
        Ok(View::Everywhere(all, children))
    }

    /// The living processes of a job, its main process included.
    ///
    /// # Errors
    /// When there is no room to look.
    pub(crate) fn members(&self, root: &Root<'_>) -> io::Result<Vec<ProcStat>> {
        let main = match ProcStat::read(root.main.pid)? {
            None => Main::Gone,
            Some(stat) => match root.main.is(&stat)? {
                Some(true) => Main::There(stat),
                Some(false) => Main::Stranger,
                None => Main::Gone,
            },
        };
        let mut grouped = match root.group {
            Some(group) => group.members()?.processes,
            None => Vec::new(),
        };
        let found = match self {
            View::Adopted(orphans) => {
                let somebody_died = Cell::new(false);
                let children = |pid| {
                    let children = children_of_any_thread(pid)?;
                    let lives = ProcStat::read(pid)?.is_some_and(|stat| !stat.is_dead());
                    somebody_died.set(somebody_died.get() || (!lives && pid != root.main.pid));
                    Ok(children)
                };
                grouped.extend(orphans.roots(root, &main));
                let found = descend(grouped, children)?;
                if somebody_died.get() {
                    // What it had started came to a keeper meanwhile, and we have looked there before.
                    return View::everywhere()?.members(root);
                }
                found
            }
            View::Everywhere(all, children) => {
                let daemons = all.marks.get(DAEMON_MARK.as_bytes()).map(Vec::as_slice).unwrap_or_default();
                let children = |pid| {
                    let children = children.get(&pid).into_iter().flatten();
                    let children = children.filter(|pid| !daemons.contains(pid));
                    Ok(children.filter_map(|pid| all.processes.get(pid).cloned()).collect())
                };
                grouped.extend(all.roots(root, &main));
                descend(grouped, children)?
            }
        };
        Ok(found.into_values().filter(|stat| !stat.is_dead()).collect())
    }
}

/// Processes among which those of a job can be found without looking at all of them.
#[derive(Default)]
pub(crate) struct Candidates {
    processes: HashMap<u32, ProcStat>,
    sessions: HashMap<u32, Vec<u32>>,
    /// By the marks in the environments that they were executed with.
    marks: HashMap<Vec<u8>, Vec<u32>>,
    /// Those without a mark by their traces.
    traces: HashMap<u64, Vec<u32>>,
}

impl Candidates {
    /// Whether it is there and alive.
    fn take_in(&mut self, pid: u32) -> io::Result<bool> {
        let Some(stat) = ProcStat::read(pid)? else { return Ok(false) };
        let is_alive = !stat.is_dead();
        let marks = marks_of(pid)?;
        // A daemon that a job was first to need carries the job's trace, and a mark that says that it is none of it.
        if marks.is_empty()
            && let Some(trace) = trace::of_process(pid)
        {
            self.traces.entry(trace).or_default().push(pid);
        }
        self.insert(stat, marks);
        Ok(is_alive)
    }

    fn insert(&mut self, stat: ProcStat, marks: Vec<Vec<u8>>) {
        self.sessions.entry(stat.session).or_default().push(stat.pid);
        for mark in marks {
            self.marks.entry(mark).or_default().push(stat.pid);
        }
        self.processes.insert(stat.pid, stat);
    }

    /// The processes from which all of a job can be reached: the main one, and those that are in its session or carry
    /// its mark or, having cleared their environment, its trace.
    fn roots(&self, root: &Root<'_>, main: &Main) -> Vec<ProcStat> {
        // A number that is in use by a stranger says nothing about whoever is in a session of that number.
        let session = self.sessions.get(&root.main.pid).filter(|_| !matches!(main, Main::Stranger));
        let marked = self.marks.get(root.mark.as_bytes());
        let traced = self.traces.get(&trace::of_mark(root.mark));
        let candidates = session.into_iter().chain(marked).chain(traced).flatten();
        let candidates = candidates.filter_map(|pid| self.processes.get(pid));
        let candidates = candidates.filter(|stat| stat.start_ticks >= root.main.start_ticks);
        let main = if let Main::There(stat) = main { Some(stat) } else { None };
        main.into_iter().chain(candidates).cloned().collect()
    }
}

/// Who has the number of a main process.
enum Main {
    /// The main process.
    There(ProcStat),
    /// Nobody.
    Gone,
    /// Another process: the number is used again.
    Stranger,
}

fn descend(
    roots: Vec<ProcStat>,
    children: impl Fn(u32) -> io::Result<Vec<ProcStat>>,
) -> io::Result<HashMap<u32, ProcStat>> {
    let mut found = HashMap::new();
    let mut waiting = roots;
    while let Some(stat) = waiting.pop() {
        let pid = stat.pid;
        if found.insert(pid, stat).is_none() {
            waiting.extend(children(pid)?);
        }
    }
    Ok(found)
}

/// All but daemons.
fn children_of_any_thread(pid: u32) -> io::Result<Vec<ProcStat>> {
    let mut children = Vec::new();
    for thread in if_there(std::fs::read_dir(format!("/proc/{pid}/task")))?.into_iter().flatten().flatten() {
        let list = if_there(std::fs::read_to_string(thread.path().join("children")))?.unwrap_or_default();
        for pid in list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
            if !marks_of(pid)?.iter().any(|mark| mark == DAEMON_MARK.as_bytes()) {
                children.extend(ProcStat::read(pid)?);
            }
        }
    }
    Ok(children)
}

/// The marks in the environment that a process was executed with.
pub(crate) fn marks_of(pid: u32) -> io::Result<Vec<Vec<u8>>> {
    let environment = if_there(proc_file::read(&format!("/proc/{pid}/environ")))?.unwrap_or_default();
    let variables = environment.split(|byte| *byte == 0);
    let values = variables.filter_map(|variable| {
        variable.strip_prefix(MARK_VARIABLE.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec)
    });
    Ok(values.collect())
}

/// The living children of a process's first thread, to which those come that lose their parents; `None` where the kernel does
/// not list them.
pub(crate) fn children_of(pid: u32) -> io::Result<Option<Vec<u32>>> {
    let list = if_there(proc_file::read(&format!("/proc/{pid}/task/{pid}/children")))?;
    let pids = |list: Vec<u8>| {
        let list = String::from_utf8_lossy(&list);
        list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    };
    Ok(list.map(pids))
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
            cpu_ticks: 0,
            exit_code: 0,
        }
    }

    fn root_pids(main: Option<&ProcStat>, processes: &[ProcStat], marked: &[u32]) -> Vec<u32> {
        let known = LocalProcess {
            boot_id: "b".to_owned(),
            pid_namespace: 1,
            pid: 100,
            start_ticks: 50,
            pidfs: None,
        };
        let root = Root { main: &known, mark: "m", group: None };
        let mut candidates = Candidates::default();
        for stat in processes {
            let mark = if marked.contains(&stat.pid) { "m" } else { "other" };
            candidates.insert(stat.clone(), vec![mark.into()]);
        }
        let main = match main {
            None => Main::Gone,
            Some(stat) if stat.start_ticks == known.start_ticks => Main::There(stat.clone()),
            Some(_) => Main::Stranger,
        };
        candidates.roots(&root, &main).iter().map(|stat| stat.pid).collect()
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
        assert_eq!(root_pids(None, &[process(102, 10, 100, 49)], &[102]), Vec::<u32>::new());
    }

    #[test]
    fn descendants_are_found_once_each() {
        let child = |pid| process(pid, pid - 1, 100, 60);
        let children = |pid| Ok(if pid < 5 { vec![child(pid + 1)] } else { vec![] });
        let found = descend(vec![child(1), child(2)], children).expect("nothing fails");
        let mut pids: Vec<u32> = found.into_keys().collect();
        pids.sort_unstable();
        assert_eq!(pids, [1, 2, 3, 4, 5]);
    }

    /// It was a child of the keeper when we looked there, and what it had started became one afterwards.
    #[test]
    fn what_somebody_who_dies_meanwhile_has_started_is_not_missed() {
        let mark = format!("directory:{}:2", std::process::id());
        let mut between = std::process::Command::new("sleep").arg("100").spawn().expect("a process");
        let mut started = std::process::Command::new("sleep")
            .arg("100")
            .env(MARK_VARIABLE, &mark)
            .spawn()
            .expect("a process");
        // For a moment of its `execve` a process has no environment; jobs have their traces as well.
        while marks_of(started.id()).expect("room").is_empty() {
            std::thread::yield_now();
        }
        let stat = ProcStat::read(between.id()).expect("room").expect("it is not collected");
        let start_ticks = stat.start_ticks;
        between.kill().expect("it lived when it was looked at");
        while ProcStat::read(between.id()).expect("room").is_some_and(|stat| !stat.is_dead()) {
            std::thread::yield_now();
        }
        let mut adopted = Candidates::default();
        adopted.insert(stat, vec![mark.clone().into_bytes()]);
        let (boot_id, pid_namespace) = (String::new(), 0);
        let main = LocalProcess { boot_id, pid_namespace, pid: u32::MAX, start_ticks, pidfs: None };
        let found =
            View::Adopted(adopted).members(&Root { main: &main, mark: &mark, group: None }).expect("room");
        let pids: Vec<u32> = found.iter().map(|stat| stat.pid).collect();
        started.kill().expect("killed");
        started.wait().expect("collected");
        between.wait().expect("collected");
        assert_eq!(pids, [started.id()]);
    }

    #[test]
    fn a_keeper_that_nobody_knows_to_be_dead_hides_nobody() {
        let mut collector = std::process::Command::new("true").spawn().expect("a process");
        // It is not collected, as a worker is not until its guard comes to it.
        while ProcStat::read(collector.id()).expect("room").is_some_and(|stat| !stat.is_dead()) {
            std::thread::yield_now();
        }
        let view = View::of_keepers(&[collector.id()], &HashSet::new()).expect("room");
        assert!(
            matches!(view, View::Everywhere(..)),
            "what it had adopted is not among its children any more"
        );
        collector.wait().expect("collected");
    }

    /// A shell with two children: an ordinary one, and one that is marked as a daemon.
    #[test]
    fn both_views_see_a_child_of_this_process_and_not_the_daemon_that_it_started() {
        let script = format!(
            "sleep 100 & a=$!; {MARK_VARIABLE}={DAEMON_MARK} sleep 100 & echo $!; read line; kill $a $!"
        );
        let mut shell = std::process::Command::new("sh")
            .args(["-c", &script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        let mut said = io::BufReader::new(shell.stdout.take().expect("piped"));
        io::BufRead::read_line(&mut said, &mut line).expect("a line");
        let daemon: u32 = line.trim().parse().expect("a process id");
        while !marks_of(daemon).expect("room").iter().any(|mark| mark == DAEMON_MARK.as_bytes()) {
            std::thread::yield_now();
        }
        let stat = ProcStat::read(shell.id()).expect("room").expect("it is there");
        let main = LocalProcess {
            boot_id: String::new(),
            pid_namespace: 0,
            pid: shell.id(),
            start_ticks: stat.start_ticks,
            pidfs: None,
        };
        let root = Root { main: &main, mark: "nobody", group: None };
        let views = [View::Adopted(Candidates::default()), View::everywhere().expect("room")];
        for view in views {
            let pids: Vec<u32> = view.members(&root).expect("room").iter().map(|stat| stat.pid).collect();
            assert_eq!(pids.len(), 2, "{pids:?}");
            assert!(pids.contains(&shell.id()) && !pids.contains(&daemon), "{pids:?}");
        }
        drop(shell.stdin.take());
        shell.wait().expect("collected");
    }
}
