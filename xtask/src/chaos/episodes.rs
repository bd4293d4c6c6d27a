//! What is asked of the product meanwhile: one job after the other is submitted, waited for, followed, stopped, paused,
//! restarted and submitted again, and what the commands say is kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::check::{Call, Submitted, Verb};
use super::plan::{Kind, Plan};
use super::random::Random;
use super::scene::{Said, Scene};
use super::slow_mount::SlowMount;
use crate::process::pause;

/// How many submit an id at the same time.
const CONTENDERS: u64 = 3;

/// Submits one job after the other until the end. `numbers` is shared by all who do.
pub(crate) fn submit(scene: &Scene, numbers: &AtomicU64) -> Result<Vec<Submitted>> {
    let mut jobs = Vec::new();
    while scene.goes_on() {
        let number = numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let mut random = Random::new(scene.seed, number);
        let pauses = random.up_to(Duration::from_millis(60));
        jobs.push(Episode::begin(scene, number, random).play()?);
        pause(pauses)?;
    }
    Ok(jobs)
}

struct Episode<'a> {
    scene: &'a Scene,
    random: Random,
    id: String,
    plan: Plan,
    /// Another directory for a job within the job.
    nested: String,
    calls: Vec<Call>,
}

impl<'a> Episode<'a> {
    fn begin(scene: &'a Scene, number: u64, mut random: Random) -> Self {
        let (plan, nested) = (Plan::draw(&mut random), scene.nested_command(&mut random));
        Self { scene, random, id: format!("c{number:06}"), plan, nested, calls: Vec::new() }
    }

    fn play(mut self) -> Result<Submitted> {
        let logs = matches!(self.plan.kind, Kind::Writer { .. } | Kind::Reader);
        let is_flaky = matches!(self.plan.kind, Kind::Flaky { .. });
        match self.random.below(24) {
            0 | 1 => self.contend()?,
            2 | 3 => drop(self.run(Verb::RunAndWait)?),
            4..=8 if logs => drop(self.run(Verb::RunAndFollow)?),
            9..=12 if logs => {
                if self.run(Verb::Run)? {
                    let id = self.id.clone();
                    self.ask(Verb::Follow, &["logs", "-f", &id])?;
                }
            }
            4..=8 => {
                self.run(Verb::Run)?;
                self.linger(300)?;
                self.stop()?;
            }
            9 | 10 => {
                self.run(Verb::Run)?;
                self.linger(200)?;
                self.pause_and_resume()?;
            }
            11..=13 if !is_flaky => {
                self.run(Verb::Run)?;
                self.linger(300)?;
                let id = self.id.clone();
                self.ask(Verb::Restart, &["restart", &id])?;
            }
            14..=16 => {
                if self.run(Verb::Run)? && self.wait()? && !is_flaky {
                    self.run(Verb::Run)?;
                    self.wait()?;
                }
            }
            17 | 18 => {
                self.run(Verb::Run)?;
                self.wait_while_it_is_stopped()?;
            }
            _ => drop(self.run(Verb::Run)?),
        }
        Ok(Submitted { id: self.id, plan: self.plan, calls: self.calls })
    }

    /// Submits the job; whether that is known to have worked.
    fn run(&mut self, verb: Verb) -> Result<bool> {
        let arguments = self.run_arguments(verb);
        self.ask_with(verb, &arguments)
    }

    fn run_arguments(&self, verb: Verb) -> Vec<String> {
        let (command, is_script) = self.plan.command(&self.nested);
        let mut arguments = vec!["run".to_owned(), "--id".to_owned(), self.id.clone()];
        match verb {
            Verb::RunAndWait => arguments.extend(["--wait", "-o", "json"].map(str::to_owned)),
            Verb::RunAndFollow => arguments.push("--follow".to_owned()),
            Verb::Contend => arguments.extend(["-o", "json"].map(str::to_owned)),
            _ => {}
        }
        arguments.extend(self.plan.options());
        let mount = self.scene.mount().map(SlowMount::directory);
        let slow = mount.and_then(|mount| self.plan.slow(mount, &self.scene.work()));
        let (options, program, before) = slow.unwrap_or_default();
        arguments.extend(options);
        if is_script && program.is_empty() {
            arguments.push("--shell".to_owned());
        }
        arguments.push("--".to_owned());
        arguments.extend(program);
        arguments.push(format!("{before}{command}"));
        arguments
    }

    /// Several submit the same id at once.
    fn contend(&mut self) -> Result<()> {
        self.plan = Plan::contended();
        let arguments = self.run_arguments(Verb::Contend);
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let scene = self.scene;
        let randoms: Vec<Random> =
            (0..CONTENDERS).map(|_| Random::new(self.random.below(u64::MAX), 1)).collect();
        let said = thread::scope(|scope| {
            let contenders: Vec<_> = randoms
                .into_iter()
                .map(|mut random| {
                    let words = &words;
                    scope.spawn(move || scene.risk(&mut random, words))
                })
                .collect();
            contenders
                .into_iter()
                .map(|contender| contender.join().expect("a contender panicked"))
                .collect::<Result<Vec<_>>>()
        })?;
        self.calls.extend(said.into_iter().map(|said| Call { verb: Verb::Contend, said, left: Vec::new() }));
        Ok(())
    }

    fn wait(&mut self) -> Result<bool> {
        let id = self.id.clone();
        self.ask(Verb::Wait, &["wait", "-o", "json", &id])
    }

    fn stop(&mut self) -> Result<bool> {
        let id = self.id.clone();
        let force = self.random.one_in(3);
        let words = ["stop", &id, "--force"];
        self.ask(Verb::Stop, if force { &words } else { &words[..2] })
    }

    /// One waits, another stops.
    fn wait_while_it_is_stopped(&mut self) -> Result<()> {
        let (scene, id) = (self.scene, self.id.clone());
        let mut waiting = Random::new(self.random.below(u64::MAX), 2);
        let waited = thread::scope(|scope| {
            let id = &id;
            let waiter = scope.spawn(move || scene.risk(&mut waiting, &["wait", "-o", "json", id]));
            self.linger(400)?;
            self.stop()?;
            waiter.join().expect("a waiter panicked")
        })?;
        self.calls.push(Call { verb: Verb::Wait, said: waited, left: Vec::new() });
        Ok(())
    }

    /// What is paused has to go on again, whatever becomes of the commands.
    fn pause_and_resume(&mut self) -> Result<()> {
        let id = self.id.clone();
        self.ask(Verb::Pause, &["pause", &id])?;
        self.linger(300)?;
        for _ in 0..5 {
            self.ask(Verb::Resume, &["resume", &id])?;
            if !matches!(
                self.calls.last(),
                Some(Call { said: Said::Killed | Said::Ended { excused: true, .. }, .. })
            ) {
                break;
            }
        }
        Ok(())
    }

    fn ask(&mut self, verb: Verb, arguments: &[&str]) -> Result<bool> {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        self.ask_with(verb, &arguments)
    }

    fn ask_with(&mut self, verb: Verb, arguments: &[String]) -> Result<bool> {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let said = self.scene.risk(&mut self.random, &words)?;
        let done = said.succeeded() || said.record().is_some();
        if matches!(&said, Said::Ended { stderr, .. } if stderr.contains("no daemon is started now")) {
            self.scene.call(&["daemon", "start"])?;
        }
        let left = self.over(verb, &said).map_or(Ok(Vec::new()), |last| self.living(last))?;
        self.calls.push(Call { verb, said, left });
        Ok(done)
    }

    /// The last of the attempts that are over for sure, by what a command said.
    fn over(&self, verb: Verb, said: &Said) -> Option<u32> {
        if verb.shows_the_end() {
            return u32::try_from(said.record()?["attempt"].as_u64()?).ok();
        }
        // Nothing that was asked before may begin another one yet.
        let is_known =
            verb == Verb::Stop && said.succeeded() && self.calls.iter().all(|call| call.said.succeeded());
        is_known.then_some(u32::MAX)
    }

    /// Processes of the job's attempts up to this one.
    fn living(&self, last: u32) -> Result<Vec<u32>> {
        let processes = self.scene.job_processes()?.into_iter();
        let left = processes.filter(|process| process.id == self.id && process.attempt <= last);
        Ok(left.map(|process| process.pid).collect())
    }

    fn linger(&mut self, most: u64) -> Result<()> {
        pause(self.random.up_to(Duration::from_millis(most)))
    }
}
