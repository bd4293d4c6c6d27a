//! The owner's loop, as in `owner/work.rs` of the crate `nodejobs`, that may die between any two of its acts.

use std::collections::VecDeque;

use crate::engine::{Answer, Effect, Ended, Engine, Input, Ticket, Turn};
use crate::id::JobId;
use crate::job::WaitingOn;
use crate::status::Status;
use crate::store::{DocumentKind, JobStore, UnitOutcome};

use super::clients::Ask;
use super::session::{Command, Session};
use super::{Checked, Simulation, all_jobs, ensure};

/// What comes to the owner's thread, besides reports.
#[derive(Debug)]
pub(super) enum Message {
    Ask(Ticket, Ask),
    ClockSet,
}

/// One owner, from its start to its death.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) engine: Engine,
    pub(super) session: Session,
    pub(super) inbox: VecDeque<Message>,
    /// A commit reported failure and had been written: the store may disagree with the engine.
    pub(super) was_deceived: bool,
}

/// How an owner's act ended.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Life {
    Goes,
    Ends,
}

/// A way of the owner to be wrong, so that the checks are seen to find it.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub(super) enum Fault {
    #[default]
    None,
    /// It acknowledges what it has not committed.
    AcknowledgesFirst,
    /// It carries out what it has not committed.
    ActsFirst,
    /// It does not go on with what an earlier owner had begun.
    DoesNotResume,
    /// It does not hear what the keepers tell when it takes over.
    DoesNotListen,
    /// It says that a commit was done which failed.
    TrustsTheStore,
    /// It starts whatever it can, however much runs.
    CountsNobody,
    /// It does not look up how those have ended that others wait for.
    ForgetsWhoEnded,
    /// It does not know which groups there are.
    ForgetsGroups,
    /// Its backend tells a start that is not settled no longer than until something else of that keeper is on disk.
    AcknowledgesWhatIsHeld,
    /// Its backend says that a launch was called off, and closes no gate.
    CallsOffWithoutGate,
    /// Children go through closed gates.
    PassesClosedGates,
    /// Children do not look who has asked for their launch.
    IgnoresFences,
    /// A keeper stands still while one of its launches hangs.
    StandsStill,
    /// Its backend does not hear which launches are in flight.
    ForgetsWhatIsInFlight,
    /// Its backend takes what it cannot read for nothing.
    TrustsDamagedFiles,
    /// Its backend takes the silence of a keeper without gates for an answer.
    DecidesForTheSilent,
}

impl Simulation {
    /// A new owner comes, unless it cannot: takes the next generation, and over what was left.
    pub(super) fn take_over(&mut self) -> Checked {
        self.generation += 1;
        let generation = self.generation;
        self.note(|| format!("owner {generation} takes over"));
        let mut owner = Owner {
            engine: match self.fault {
                Fault::CountsNobody => Engine::new(generation),
                _ => Engine::with_capacity(generation, self.capacity.clone()),
            },
            session: Session::new(self.fault),
            inbox: VecDeque::new(),
            was_deceived: false,
        };
        let groups =
            self.store.documents(DocumentKind::Group, "", None, usize::MAX).expect("memory does not fail");
        if self.fault != Fault::ForgetsGroups {
            owner.engine.restore_groups(&groups).map_err(|(name, error)| format!("{name}: {error}"))?;
        }
        let mut live = all_jobs(&self.store);
        live.retain(|job| !job.state.status.is_terminal());
        let last_event = self.store.counters().map_err(|error| error.to_string())?.last_event;
        let arrays = crate::array::contents(&self.store, &live).map_err(|error| error.to_string())?;
        let known = owner.engine.restore(live, arrays, last_event, self.world.now);
        let awaited = owner.engine.awaited_ended_jobs();
        let stored = awaited.iter().filter_map(|id| self.store.job(id).ok().flatten());
        let ended = stored.map(|job| (job.id, Ended::new(&job.state))).collect();
        if self.fault != Fault::ForgetsWhoEnded {
            owner.engine.know_ended(ended);
        }
        let is_other_boot = self.world.settled_boot != self.world.boot;
        let (world, random) = (&mut self.world, &mut self.random);
        owner.session.recover(&known, is_other_boot, world, &self.store, random)?;
        let mut reports = std::mem::take(&mut owner.session.reports);
        reports.sort_by_key(|report| report.receipt.is_none());
        let mut turn = owner.engine.begin_turn();
        for report in reports {
            self.note(|| format!("  recovered {report:?}"));
            if self.fault != Fault::DoesNotListen {
                owner.engine.handle(Input::Report(report), self.world.now, &mut turn);
            }
        }
        let heard = turn.effects.len();
        if self.fault != Fault::DoesNotResume {
            owner.engine.resume(self.world.now, &mut turn);
        }
        // In the order of a hash map otherwise, and no seed would be the same twice.
        turn.effects[heard..].sort_by_cached_key(|effect| format!("{effect:?}"));
        self.settles_boot = true;
        let life = self.commit(&mut owner, turn, true)?;
        self.settles_boot = false;
        if life == Life::Goes {
            owner.session.settled(&mut self.world);
            self.owner = Some(owner);
        }
        Ok(())
    }

    /// One turn with the first of what has arrived.
    pub(super) fn owner_works(&mut self, messages: usize) -> Checked {
        let Some(mut owner) = self.owner.take() else { return Ok(()) };
        if self.turn(&mut owner, messages)? == Life::Goes {
            self.owner = Some(owner);
        } else {
            self.note(|| "the owner dies".to_owned());
            self.clients.owner_died(&mut self.random);
        }
        Ok(())
    }

    fn turn(&mut self, owner: &mut Owner, messages: usize) -> Result<Life, String> {
        let mut turn = owner.engine.begin_turn();
        for _ in 0..messages {
            let take_report =
                !owner.session.reports.is_empty() && (owner.inbox.is_empty() || self.random.below(2) == 0);
            let input = if take_report {
                Input::Report(owner.session.reports.remove(0))
            } else {
                match owner.inbox.pop_front() {
                    None => break,
                    Some(Message::ClockSet) => Input::ClockSet,
                    Some(Message::Ask(ticket, ask)) => {
                        if ask.rests_on(&turn) {
                            if self.commit(owner, turn, false)? == Life::Ends {
                                return Ok(Life::Ends);
                            }
                            turn = owner.engine.begin_turn();
                        }
                        self.note(|| format!("  asked {ticket}: {ask:?}"));
                        if let Ask::Restart { id, .. } = &ask {
                            self.checks.awaiting.hurry(id);
                        }
                        match ask.input(ticket, &self.store, self.world.now) {
                            Some(input) => input,
                            None => {
                                self.clients.waiting.remove(&ticket);
                                continue;
                            }
                        }
                    }
                }
            };
            if let Input::Report(report) = &input {
                self.note(|| format!("  hears {report:?}"));
            }
            let decided = turn.units.len();
            owner.engine.handle(input, self.world.now, &mut turn);
            self.they_start_in_order(owner, &turn.units[decided..])?;
        }
        if owner.engine.next_deadline().is_some_and(|deadline| deadline <= self.world.now.boot) {
            let decided = turn.units.len();
            owner.engine.handle(Input::Tick, self.world.now, &mut turn);
            self.they_start_in_order(owner, &turn.units[decided..])?;
        }
        self.commit(owner, turn, false)
    }

    fn commit(&mut self, owner: &mut Owner, mut turn: Turn, is_first: bool) -> Result<Life, String> {
        if turn.is_empty() {
            self.boot_is_settled();
            return self.agrees(owner);
        }
        if self.fault == Fault::AcknowledgesFirst {
            let receipts = std::mem::take(&mut turn.receipts);
            self.carry_out(owner, Effect::Acknowledge(receipts), true)?;
        }
        if self.fault == Fault::ActsFirst {
            for effect in std::mem::take(&mut turn.effects) {
                self.carry_out(owner, effect, true)?;
            }
        }
        if self.dies() {
            return Ok(Life::Ends);
        }
        let outcomes = if turn.units.is_empty() { Some(Vec::new()) } else { self.store_works(owner, &turn)? };
        if self.dies() || (is_first && outcomes.is_none()) {
            return Ok(Life::Ends);
        }
        if turn.units.is_empty() {
            self.boot_is_settled();
        }
        // It looks whether what failed was written, unless that fails as well.
        let can_look = !owner.was_deceived || self.random.below(4) > 0;
        if outcomes.is_none() && can_look {
            let last_event = self.store.counters().map_err(|error| error.to_string())?.last_event;
            match owner.engine.check_last_event(last_event) {
                Err(_) if owner.was_deceived => return Ok(Life::Ends),
                Ok(()) if owner.was_deceived => return Err("what was written is not seen".to_owned()),
                looked => looked.map_err(|error| format!("{error:?}"))?,
            }
        }
        let writes_on = outcomes.iter().flatten().any(appends_event);
        let believed = match &outcomes {
            None if self.fault == Fault::TrustsTheStore => {
                let applied = UnitOutcome::Applied { seq: 0, event: 0 };
                Some(vec![applied; turn.units.len()])
            }
            outcomes => outcomes.clone(),
        };
        let effects = match owner.engine.settle(turn, believed.as_deref(), self.world.now) {
            Ok(_) if owner.was_deceived && writes_on => {
                return Err("it writes on, over what it does not know".to_owned());
            }
            Ok(effects) => effects,
            // It starts over from what is on disk.
            Err(_) if owner.was_deceived => return Ok(Life::Ends),
            Err(error) => return Err(format!("{error:?}")),
        };
        for effect in effects {
            if self.dies() {
                return Ok(Life::Ends);
            }
            self.carry_out(owner, effect, outcomes.is_some())?;
        }
        self.no_more_run_than_may(owner)?;
        self.agrees(owner)
    }

    /// The commit that answers for everything of an earlier boot says so itself.
    fn boot_is_settled(&mut self) {
        if self.settles_boot {
            self.world.settled_boot = self.world.boot;
        }
    }

    fn dies(&mut self) -> bool {
        self.faults && self.random.below(60) == 0
    }

    /// Commits, or fails to, or does and says that it did not.
    fn store_works(&mut self, owner: &mut Owner, turn: &Turn) -> Result<Option<Vec<UnitOutcome>>, String> {
        for unit in &turn.units {
            self.note(|| match &unit.job {
                Some(change) => format!("  commits {change:?}"),
                None => "  commits documents".to_owned(),
            });
        }
        let luck = if self.faults { self.random.below(80) } else { 80 };
        if self.disk_is_full || luck == 0 {
            self.note(|| "  the commit fails".to_owned());
            self.checks.failed(&turn.units);
            return Ok(None);
        }
        let outcomes = self.store.commit(&turn.units).map_err(|error| error.to_string())?;
        self.boot_is_settled();
        self.checks.awaiting.was_deceived = self.was_deceived;
        self.checks.committed(&turn.units, &outcomes, &self.store, &mut self.world)?;
        if luck == 1 {
            self.note(|| "  the commit reports failure and is written".to_owned());
            // A removal leaves no trace, and nothing to be done.
            owner.was_deceived |= outcomes.iter().any(appends_event);
            self.was_deceived |= owner.was_deceived;
            return Ok(None);
        }
        Ok(Some(outcomes))
    }

    fn carry_out(&mut self, owner: &mut Owner, effect: Effect, is_stored: bool) -> Checked {
        self.note(|| format!("  does {effect:?}"));
        let command = match effect {
            Effect::Launch(attempt) => {
                let job = self.store.job(&attempt.id).ok().flatten();
                let state = job.map(|job| job.state).filter(|state| state.attempt == attempt.attempt);
                let is_asked = state.as_ref().is_some_and(|state| {
                    matches!(state.status, Status::Starting | Status::Stopping) && state.process.is_none()
                });
                ensure(is_asked, || format!("{attempt} is launched as {state:?}"))?;
                Command::Launch(attempt)
            }
            Effect::EndTree { attempt, process, plan } => Command::EndTree(attempt, process, plan),
            Effect::Signal { process, signal, .. } => Command::Signal(process, signal),
            Effect::Acknowledge(receipts) => {
                for receipt in &receipts {
                    let keeper = receipt.source.parse().map_err(|_| "no such keeper")?;
                    self.checks.acknowledged(keeper, receipt.position, &self.store, &self.world)?;
                }
                Command::Acknowledge(receipts)
            }
            Effect::DeleteLogs { id, .. } => {
                let job = self.store.job(&id).ok().flatten();
                return ensure(job.is_none(), || format!("the logs of {id} are deleted"));
            }
            Effect::Reply { ticket, answer } => {
                let ask = self.clients.waiting.remove(&ticket);
                ensure(ask.is_some(), || format!("{ticket} is answered twice"))?;
                if answer == Answer::NotStored {
                    ensure(!is_stored, || format!("{ticket} is not stored, but the commit was"))?;
                }
                return self.checks.answered(&answer, is_stored, &self.store);
            }
        };
        owner.session.commands.push_back(command);
        Ok(())
    }

    /// The engine holds the live jobs of the store, and none that waits for a time is forgotten.
    fn agrees(&self, owner: &Owner) -> Result<Life, String> {
        let engine = &owner.engine;
        if owner.was_deceived {
            // It finds out with the next commit.
            return Ok(Life::Goes);
        }
        if !engine.unsaved.is_empty() {
            ensure(engine.next_deadline().is_some(), || "nothing tries the commit again".to_owned())?;
            return Ok(Life::Goes);
        }
        let mut live: Vec<JobId> = engine.live.keys().cloned().collect();
        live.sort();
        let jobs = all_jobs(&self.store).into_iter().filter(|job| !job.state.status.is_terminal());
        let mut stored: Vec<JobId> = jobs.map(|job| job.id).collect();
        stored.sort();
        ensure(live == stored, || format!("live are {live:?}, in the store {stored:?}"))?;
        for (id, live) in &engine.live {
            let waits_for_others = live.waits_for_others() || engine.dependencies.has_news();
            let waits = matches!(live.state.status, Status::Queued | Status::Restarting)
                && !live.waits_for_place()
                && !(live.state.waiting_on == Some(WaitingOn::Dependency) && waits_for_others);
            let runs = matches!(live.state.status, Status::Running | Status::Paused);
            let has_little_time =
                live.policy.timeout_ms.is_some() && live.state.ended.is_none() && live.state.reason.is_none();
            let is_due = engine.next_deadline().zip(live.timer).is_some_and(|(first, own)| first <= own);
            let is_forgotten = (waits || (runs && has_little_time)) && !is_due;
            ensure(!is_forgotten, || format!("{id} waits for nothing: {live:?}"))?;
        }
        Ok(Life::Goes)
    }
}

fn appends_event(outcome: &UnitOutcome) -> bool {
    matches!(outcome, UnitOutcome::Applied { event, .. } if *event > 0)
}
