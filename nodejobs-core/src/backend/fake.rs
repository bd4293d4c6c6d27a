//! A backend without processes: it notes what it is asked for and reports what the test tells it to.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    BackendError, BackendReport, Capabilities, EndPlan, KeeperStatus, KnownAttempt, MemoryLimits,
    ProcessBackend, Receipt, SignalScope, TreeUsage,
};
use crate::id::AttemptId;
use crate::job::Process;
use crate::signal::Signal;
use crate::spec::Limits;

/// One call to the fake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `recover` with these attempts.
    Recover(Vec<KnownAttempt>),
    /// `launch`.
    Launch(AttemptId),
    /// `end_tree`.
    EndTree(AttemptId, EndPlan),
    /// `signal`.
    Signal(AttemptId, Signal, SignalScope),
    /// `acknowledge`.
    Acknowledge(Vec<Receipt>),
}

/// Notes its calls; answers `recover` from a script.
#[derive(Debug, Default)]
pub struct FakeBackend {
    calls: Mutex<Vec<Call>>,
    recovery: Mutex<Vec<BackendReport>>,
}

impl FakeBackend {
    /// A fake whose `recover` reports these.
    pub fn recovering(reports: Vec<BackendReport>) -> Self {
        Self { recovery: Mutex::new(reports), ..Self::default() }
    }

    /// The calls since the last time this was asked.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *lock(&self.calls))
    }

    fn note(&self, call: Call) {
        lock(&self.calls).push(call);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ProcessBackend for FakeBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            pause: false,
            usage: false,
            stdin: false,
            adopt: true,
            memory_limits: MemoryLimits::Sampling,
        }
    }

    fn check_limits(&self, _limits: &Limits) -> Result<(), String> {
        Ok(())
    }

    fn recover(&self, attempts: &[KnownAttempt]) -> Result<Vec<BackendReport>, BackendError> {
        self.note(Call::Recover(attempts.to_vec()));
        Ok(std::mem::take(&mut *lock(&self.recovery)))
    }

    fn launch(&self, attempt: &AttemptId) {
        self.note(Call::Launch(attempt.clone()));
    }

    fn end_tree(&self, attempt: &AttemptId, _process: Option<&Process>, plan: EndPlan) {
        self.note(Call::EndTree(attempt.clone(), plan));
    }

    fn signal(&self, attempt: &AttemptId, _process: &Process, signal: Signal, scope: SignalScope) {
        self.note(Call::Signal(attempt.clone(), signal, scope));
    }

    fn usage(&self, attempts: &[(AttemptId, Process)]) -> Vec<Option<TreeUsage>> {
        vec![None; attempts.len()]
    }

    fn acknowledge(&self, receipts: &[Receipt]) {
        self.note(Call::Acknowledge(receipts.to_vec()));
    }

    fn keepers(&self) -> Vec<KeeperStatus> {
        Vec::new()
    }
}
