//! Who waits for whom, against a model that looks at everything anew after each step.

use std::collections::BTreeMap;

use super::dependencies::after;
use super::*;
use crate::spec::{After, Condition, Retry, Unmet};
use crate::store::conformance::random::Random;

const SEEDS: u64 = 400;
const STEPS: u64 = 60;
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// A job as the model has it.
#[derive(Clone, Debug)]
struct Known {
    state: State,
    after: Option<After>,
    retries: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Waits,
    /// Launched, or between two attempts.
    Runs,
    Ended(Status),
}

#[derive(Default)]
struct Model(BTreeMap<&'static str, Known>);

impl Model {
    /// What may start, and what never can, until nothing changes any more.
    fn settle(&mut self) {
        loop {
            let next = self.0.iter().find_map(|(name, job)| {
                let after = job.after.as_ref().filter(|_| job.state == State::Waits)?;
                let states = after.on.iter().map(|dependency| {
                    match self.0.get(dependency.id.as_str()).map(|job| job.state) {
                        None => Some(true),
                        Some(State::Ended(status)) => Some(dependency.condition.is_met_by(status)),
                        Some(_) => None,
                    }
                });
                let states: Vec<_> = states.collect();
                if after.unmet == Unmet::Cancel && states.contains(&Some(false)) {
                    return Some((*name, State::Ended(Status::Cancelled)));
                }
                states.iter().all(|state| *state == Some(true)).then_some((*name, State::Runs))
            });
            let Some((name, state)) = next else { return };
            self.0.get_mut(name).expect("known").state = state;
        }
    }

    /// Whether a job would wait for itself if it waited for these.
    fn has_circle(&self, name: &str, after: &After) -> bool {
        let mut next: Vec<String> = after.on.iter().map(|on| on.id.to_string()).collect();
        let mut seen = Vec::new();
        while let Some(at) = next.pop() {
            if at == name {
                return true;
            }
            if seen.contains(&at) {
                continue;
            }
            let job = self.0.get(at.as_str()).filter(|job| job.state == State::Waits);
            next.extend(
                job.iter().flat_map(|job| &job.after).flat_map(|after| &after.on).map(|on| on.id.to_string()),
            );
            seen.push(at);
        }
        false
    }

    fn is_needed(&self, name: &str) -> bool {
        let State::Ended(status) = self.0[name].state else { return false };
        self.0.values().filter(|job| job.state == State::Waits).any(|job| {
            let on = job.after.iter().flat_map(|after| &after.on);
            on.filter(|on| on.id.as_str() == name).any(|on| !on.condition.is_met_by(status))
        })
    }
}

fn any_after(known: &Model, random: &mut Random) -> Option<After> {
    let mut on: BTreeMap<&str, Condition> = BTreeMap::new();
    for name in known.0.keys() {
        if random.below(4) == 0 {
            on.insert(name, Condition::ALL[usize::try_from(random.below(3)).expect("small")]);
        }
    }
    let on: Vec<_> = on.into_iter().collect();
    let unmet = if random.below(3) == 0 { Unmet::Wait } else { Unmet::Cancel };
    (!on.is_empty()).then(|| after(&on, unmet))
}

fn is_circle(effects: &[Effect]) -> bool {
    answers(effects).iter().any(|answer| matches!(answer, Answer::Cycle(_)))
}

fn step(bench: &mut Bench, model: &mut Model, random: &mut Random) {
    let name = NAMES[usize::try_from(random.below(8)).expect("small")];
    bench.now.boot = bench.now.boot.plus_millis(1);
    let Some(known) = model.0.get(name).cloned() else {
        return submit(bench, model, random, name);
    };
    match (random.below(8), known.state) {
        (0, _) => {
            let _ = bench.succeed_and_resume();
        }
        (1, State::Ended(_)) => {
            let effects = bench.turn(vec![bench.remove(name)]);
            let is_needed = answers(&effects).iter().any(|answer| matches!(answer, Answer::Needed { .. }));
            assert_eq!(is_needed, model.is_needed(name), "{name}");
            if !is_needed {
                model.0.remove(name);
            }
        }
        (2, State::Waits) => {
            let _ = bench.turn(vec![bench.stop(name)]);
            model.0.get_mut(name).expect("known").state = State::Ended(Status::Cancelled);
        }
        (3, State::Waits) => {
            let after = any_after(model, random);
            let ended = after.as_ref().map_or_else(EndedJobs::new, |after| bench.ended(after));
            let job = bench.job(name);
            let wanted = NewDependencies { ticket: 5, job, after: after.clone(), ended };
            let effects = bench.turn(vec![Input::Depend(Box::new(wanted))]);
            let has_circle = after.as_ref().is_some_and(|after| model.has_circle(name, after));
            assert_eq!(is_circle(&effects), has_circle, "{name} after {after:?}");
            if !has_circle {
                // One that waits for nobody starts.
                let known = model.0.get_mut(name).expect("known");
                known.after = Some(after.unwrap_or_default());
            }
        }
        (2..5, State::Ended(_)) => submit(bench, model, random, name),
        (4 | 5, State::Waits) => {
            let _ = bench.turn(vec![bench.restart(name)]);
            model.0.get_mut(name).expect("known").state = State::Runs;
        }
        (5, State::Ended(_)) => {
            let _ = bench.turn(vec![bench.restart(name)]);
            let known = model.0.get_mut(name).expect("known");
            (known.state, known.after) = (State::Runs, None);
        }
        (_, State::Runs) => ends(bench, model, random, name),
        _ => {}
    }
}

fn submit(bench: &mut Bench, model: &mut Model, random: &mut Random, name: &'static str) {
    let (after, retries) = (any_after(model, random), random.below(3));
    let retry = Retry { retries: u32::try_from(retries).expect("small"), delay_ms: 1, ..Retry::default() };
    let has_circle = after.as_ref().is_some_and(|after| model.has_circle(name, after));
    let wanted = after.clone().unwrap_or_default();
    let input = bench.submission_after(name, wanted, |spec| *spec = spec.clone().retry(retry));
    let effects = bench.turn(vec![input]);
    assert_eq!(is_circle(&effects), has_circle, "{name} after {after:?}");
    if !has_circle {
        model.0.insert(name, Known { state: State::Waits, after: Some(after.unwrap_or_default()), retries });
    }
}

fn ends(bench: &mut Bench, model: &mut Model, random: &mut Random, name: &'static str) {
    while bench.state(name).status == Status::Restarting {
        bench.now.boot = bench.now.boot.max(bench.engine.next_deadline().expect("it is to be tried again"));
        let _ = bench.turn(vec![Input::Tick]);
    }
    let has_succeeded = random.below(2) == 0;
    let tried = u64::from(bench.state(name).restarts);
    let _ = bench.ends(name, i32::from(!has_succeeded));
    let known = model.0.get_mut(name).expect("known");
    if has_succeeded {
        known.state = State::Ended(Status::Finished);
    } else if tried >= known.retries {
        known.state = State::Ended(Status::Failed);
    }
}

#[test]
fn whoever_may_run_runs_and_nobody_else() {
    let (mut waited, mut cancelled) = (0, 0);
    for seed in 0..SEEDS {
        let mut random = Random::from_seed(seed);
        let (mut bench, mut model) = (Bench::new(), Model::default());
        for number in 0..STEPS {
            step(&mut bench, &mut model, &mut random);
            model.settle();
            for (name, known) in &model.0 {
                let state = bench.state(name);
                let found = match state.status {
                    Status::Queued => State::Waits,
                    Status::Starting | Status::Restarting => State::Runs,
                    status => State::Ended(status),
                };
                assert_eq!(
                    found, known.state,
                    "seed {seed}, step {number}: {name} is {state:?}, of {:?}",
                    known.after
                );
                waited += u32::from(found == State::Waits);
                cancelled += u32::from(state.reason == Some(Reason::Dependency));
            }
            let live = model.0.values().filter(|job| !matches!(job.state, State::Ended(_))).count();
            assert_eq!(bench.engine.live_jobs(), live);
        }
    }
    // What is never come to is not checked.
    assert!(waited > 10_000 && cancelled > 1_000, "{waited} {cancelled}");
}
