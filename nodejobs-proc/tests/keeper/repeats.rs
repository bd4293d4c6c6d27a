//! What keepers tell again: to the next owner, and after one of their processes was killed.

use rustix::process::{Pid, Signal as OsSignal, kill_process};

use super::*;

fn starting(attempt: &AttemptId, launch_asked: BootTime) -> [KnownAttempt; 1] {
    [KnownAttempt {
        attempt: attempt.clone(),
        status: Status::Starting,
        process: None,
        ended: false,
        launch_asked,
        memory_limit: None,
    }]
}

fn signal(pid: Option<u32>, signal: OsSignal) -> Result<(), Failed> {
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or("no such process")?;
    Ok(kill_process(pid, signal)?)
}

/// A job that runs, whose start was heard and not acknowledged, and whose keeper and owner are gone.
fn started_under_a_keeper_now_dead(directory: &std::path::Path) -> Result<(AttemptId, Process), Failed> {
    let owner = Owner::new(directory, 1);
    owner.backend.recover(&[])?;
    let attempt = owner.launch("a", Command::shell("exec sleep 1000"), "/");
    let report = owner.reports.recv_timeout(PATIENCE)?;
    let BackendEvent::Started { process, .. } = report.event else { return Err("not started".into()) };
    let keepers = owner.backend.keepers();
    drop(owner.backend);
    // Both have to be gone before the next owner looks for them.
    signal(keepers[0].pid, OsSignal::KILL)?;
    signal(keepers[0].worker_pid, OsSignal::KILL)?;
    Ok((attempt, process))
}

/// The next owner may be killed before it has written down what it heard.
pub(super) fn dead_journal() -> Result<(), Failed> {
    let directory = directory();
    let (attempt, process) = started_under_a_keeper_now_dead(directory.path())?;
    for generation in [2, 3, 4] {
        let owner = Owner::new(directory.path(), generation);
        let reports = owner.backend.recover(&starting(&attempt, BootTime::default()))?;
        let is_known = matches!(&reports[..], [BackendReport { event: BackendEvent::Started { .. }, .. }]);
        assert!(is_known, "owner {generation} hears {reports:?}");
        if generation == 4 {
            owner.end(&attempt, &process);
            while !matches!(owner.next().event, BackendEvent::TreeEnded { .. }) {}
        }
    }
    Ok(())
}

/// An earlier job of that id is in the journal; the launch of this one was never sent.
pub(super) fn stale_answer() -> Result<(), Failed> {
    let directory = directory();
    let owner = Owner::new(directory.path(), 1);
    owner.backend.recover(&[])?;
    let attempt = owner.launch("a", Command::argv(["true"]), "/");
    let _ = owner.exited(&attempt);
    drop(owner.backend);
    let next = Owner::new(directory.path(), 2);
    let launch_asked = now().boot.plus_millis(1);
    let reports = next.backend.recover(&starting(&attempt, launch_asked))?;
    let is_told = reports.iter().any(|report| report.event == BackendEvent::NeverLaunched);
    assert!(is_told, "{reports:?}");
    Ok(())
}

/// The worker is killed before it reads the launch, and the guard tells of an earlier job of that id.
pub(super) fn stale_answer_of_a_guard() -> Result<(), Failed> {
    let directory = directory();
    let owner = Owner::new(directory.path(), 1);
    owner.backend.recover(&[])?;
    // Has the guard stay.
    let long = owner.launch("long", Command::shell("exec sleep 1000"), "/");
    let process = owner.started(&long);
    let earlier = owner.launch("a", Command::argv(["true"]), "/");
    let _ = owner.exited(&earlier);
    let ended = now().boot;
    while now().boot == ended {
        std::thread::yield_now();
    }
    let keeper = owner.backend.keepers().remove(0);
    signal(keeper.worker_pid, OsSignal::STOP)?;
    let attempt = owner.launch("a", Command::shell("exec sleep 1000"), "/");
    // Answered one round after the launch was taken in, so it is sent once two were.
    let _ = (owner.backend.keepers(), owner.backend.keepers());
    signal(keeper.worker_pid, OsSignal::KILL)?;
    let answer = std::iter::from_fn(|| owner.reports.recv_timeout(PATIENCE).ok())
        .find(|report| report.event == BackendEvent::NeverLaunched);
    owner.end(&long, &process);
    owner.exited(&long);
    assert_eq!(answer.map(|report| report.attempt), Some(attempt));
    Ok(())
}

/// A dead keeper's journal tells of an earlier job of the id that was lost, and of whom nobody saw the end.
pub(super) fn stale_orphan() -> Result<(), Failed> {
    let directory = directory();
    let (attempt, process) = started_under_a_keeper_now_dead(directory.path())?;
    signal(process.pid, OsSignal::KILL)?;
    let next = Owner::new(directory.path(), 2);
    let reports = next.backend.recover(&starting(&attempt, now().boot.plus_millis(1)))?;
    let is_told = reports.iter().any(|report| report.event == BackendEvent::NeverLaunched);
    assert!(is_told, "{reports:?}");
    Ok(())
}

/// The last owner has settled what is older than its own boot, and times of two boots cannot be compared.
pub(super) fn older_boots() -> Result<(), Failed> {
    let last = "00000000-2222-4333-8444-555555555555";
    for (previous, is_read) in [(last, true), ("11111111-2222-4333-8444-555555555555", false)] {
        let directory = directory();
        let (attempt, process) = started_under_a_keeper_now_dead(directory.path())?;
        signal(process.pid, OsSignal::KILL)?;
        for entry in std::fs::read_dir(directory.path().join("keepers"))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).ok_or("a name")?.to_owned();
            let (first, rest) = name.split_once('.').ok_or("a boot")?;
            let (_, ending) = rest.split_once('.').ok_or("an ending")?;
            std::fs::rename(&path, path.with_file_name(format!("{first}.00000000.{ending}")))?;
        }
        let next = Owner::after(directory.path(), 2, Some(previous));
        let reports = next.backend.recover(&starting(&attempt, BootTime::default()))?;
        let is_told = reports.iter().any(|report| matches!(report.event, BackendEvent::Started { .. }));
        assert_eq!(is_told, is_read, "{previous}: {reports:?}");
        let is_lost = |report: &BackendReport| matches!(report.event, BackendEvent::Lost { .. });
        assert!(is_read || reports.iter().any(is_lost), "{previous}: {reports:?}");
    }
    Ok(())
}
