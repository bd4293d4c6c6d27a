//! Reports in orders that no backend keeps. What the world does in truth, and all else that is promised, is simulated: see
//! [`simulation`](super::simulation).

use proptest::prelude::*;

use super::*;

/// Submits, some of which wait or have little time.
fn any_submission(bench: &Bench, choice: u8, name: &str) -> Input {
    let mut spec = JobSpec::new(Command::argv(["true"]), "/");
    match choice {
        0 => spec.start = Start::AfterMs(900),
        1 => spec.policy.timeout_ms = Some(700),
        2 => spec.policy.keep_children = true,
        3 => (spec.policy.restart, spec.policy.max_restarts) = (crate::spec::Restart::Always, Some(3)),
        _ => {}
    }
    bench.submission_of(&id(name), &spec)
}

fn any_input(bench: &Bench, choice: u8, id: &str, attempt: u32) -> Input {
    let at = bench.now;
    let job_id = JobId::new(id).expect("valid");
    let exists = bench.store.job(&job_id).expect("memory").is_some();
    let exit = ExitStatus::Code(i32::from(choice % 3));
    let survivors = || vec![TreeMember { pid: 1, name: "x".to_owned() }];
    let event = match choice {
        0..=3 => return any_submission(bench, choice, id),
        24..=25 if exists => return bench.restart(id),
        26 if exists => return bench.remove(id),
        27 => return Input::Pause { ticket: 5, id: job_id },
        28 => return Input::Resume { ticket: 5, id: job_id },
        29 => return Input::ClockSet,
        30 => BackendEvent::OverMemory { detail: "too much".to_owned() },
        4..=6 => return bench.stop(id),
        7 => return Input::Tick,
        8..=11 => started_at(at),
        12 => return not_started(id, StartFailureKind::Permanent(Reason::Cwd), at),
        13 => return not_started(id, StartFailureKind::NoRoom, at),
        14 => return not_started(id, StartFailureKind::CalledOff, at),
        15 => BackendEvent::NeverLaunched,
        16..=18 => BackendEvent::Exited { exit, usage: None, at, leftovers: left(false) },
        19 => BackendEvent::Exited { exit, usage: None, at, leftovers: left(true) },
        20..=21 => {
            BackendEvent::TreeEnded { killed: false, ended: Vec::new(), survivors: Vec::new(), usage: None }
        }
        22 => {
            BackendEvent::TreeEnded { killed: true, ended: Vec::new(), survivors: survivors(), usage: None }
        }
        _ => BackendEvent::Lost { reason: Reason::Unknown, at },
    };
    report(id, attempt, event)
}

proptest! {
    /// Whatever arrives in whatever order, with commits that fail now and then: the store never refuses a move, an
    /// ended attempt stays as it is, nothing is launched whose intent is not on disk, and no attempt that ran is
    /// launched again.
    #[test]
    fn no_order_of_events_breaks_the_rules(
        steps in prop::collection::vec((0_u8..32, 0_usize..2, 1_u32..6, any::<bool>(), 0_u8..8), 1..60)
    ) {
        let mut bench = Bench::new();
        let ids = ["a", "b"];
        let mut last_words: HashMap<AttemptId, JobState> = HashMap::new();
        let mut launched: HashSet<AttemptId> = HashSet::new();
        let mut turn = bench.engine.begin_turn();
        for (choice, which, attempt, commit_now, luck) in steps {
            bench.now.boot = bench.now.boot.plus_millis(400);
            // The owner looks the job up for each submit, so what the store knows may be a turn old.
            let input = any_input(&bench, choice, ids[which], attempt);
            // A backend speaks only of what it was told to launch.
            let told = |report: &BackendReport| launched.contains(&report.attempt);
            // The owner looks the job up for these too, and commits first what the turn has decided about it.
            let asks_of_a_stored_job = matches!(&input, Input::Restart(_) | Input::Remove(_) | Input::Submit(_));
            if asks_of_a_stored_job && turn.concerns(&id(ids[which])) {
                continue;
            }
            if matches!(&input, Input::Report(report) if !told(report)) {
                continue;
            }
            if let Input::Report(BackendReport { attempt, event, .. }) = &input
                && matches!(event, BackendEvent::NotStarted { .. } | BackendEvent::NeverLaunched)
            {
                launched.remove(attempt);
            }
            bench.engine.handle(input, bench.now, &mut turn);
            if !commit_now {
                continue;
            }
            let done = std::mem::take(&mut turn);
            let outcomes = if luck == 0 {
                None
            } else {
                Some(bench.store.commit(&done.units).expect("memory does not fail"))
            };
            let effects = bench.engine.settle(done, outcomes.as_deref(), bench.now);
            let effects = effects.map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
            for effect in effects {
                match effect {
                    Effect::Launch(attempt) => {
                        let state = bench.state(attempt.id.as_str());
                        prop_assert_eq!(state.attempt, attempt.attempt);
                        prop_assert!(!state.status.is_terminal() && state.started.is_none(), "{:?}", state);
                        launched.insert(attempt);
                    }
                    // The id is free again, and attempts are counted from 1.
                    Effect::DeleteLogs { id, .. } => {
                        prop_assert!(bench.store.job(&id).expect("memory").is_none());
                        launched.retain(|attempt| attempt.id != id);
                        last_words.retain(|attempt, _| attempt.id != id);
                    }
                    _ => {}
                }
            }
            for job in ids.iter().flat_map(|id| bench.store.attempts(&JobId::new(id).expect("valid")).expect("memory")) {
                if job.state.status.is_terminal() {
                    let known = last_words.entry(job.attempt_id()).or_insert_with(|| job.state.clone());
                    prop_assert_eq!(&*known, &job.state);
                }
            }
            turn = bench.engine.begin_turn();
        }
    }
}
