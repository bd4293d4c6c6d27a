//! What running jobs use now, put into their records for whoever asks for it. Nobody looks otherwise.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nodejobs_core::backend::TreeUsage;
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{Job, Process};
use nodejobs_core::record::JobRecord;
use nodejobs_proc::machine::now;

use crate::error::Error;
use crate::last_looks::LEAST_MS;
use crate::owner::Owner;
use crate::service::records;

impl Owner {
    /// Records of jobs, with what those that run use now. Takes a moment if nobody has asked just before.
    pub(crate) async fn records_with_usage(&self, jobs: Vec<Job>) -> Result<Vec<JobRecord>, Error> {
        // Of one that has ended, what is left of its tree is not what it uses.
        let runs = |job: &&Job| job.state.ended.is_none();
        let asked: Vec<(AttemptId, Process)> = jobs
            .iter()
            .filter(runs)
            .filter_map(|job| Some((job.attempt_id(), job.state.process.clone()?)))
            .collect();
        let mut before = self.last_looks.before(now().boot);
        let new: Vec<_> =
            asked.iter().filter(|(attempt, _)| !before.contains_key(attempt)).cloned().collect();
        if !new.is_empty() {
            before.extend(self.look_at(new).await?);
            tokio::time::sleep(Duration::from_millis(LEAST_MS)).await;
        }
        let after = self.look_at(asked).await?;
        self.last_looks.keep(after.iter().map(|(attempt, usage)| (attempt.clone(), *usage)));
        self.blocking(move |_| {
            let with_usage = |(job, mut record): (&Job, JobRecord)| {
                if let Some(usage) = after.get(&job.attempt_id()) {
                    let before = before.get(&job.attempt_id());
                    record.memory_mb = Some(mebibytes(usage.memory_kib));
                    record.cpu_percent = before.and_then(|before| cpu_percent(before, usage));
                }
                record
            };
            Ok(jobs.iter().zip(records(&jobs)).map(with_usage).collect())
        })
        .await
    }

    async fn look_at(
        &self,
        attempts: Vec<(AttemptId, Process)>,
    ) -> Result<HashMap<AttemptId, TreeUsage>, Error> {
        let backend = Arc::clone(&self.backend);
        self.blocking(move |_| {
            let seen = backend.usage(&attempts);
            let found = attempts.into_iter().zip(seen);
            Ok(found.filter_map(|((attempt, _), usage)| Some((attempt, usage?))).collect())
        })
        .await
    }
}

/// In percent of one processor, to a tenth.
#[expect(clippy::cast_precision_loss, reason = "both are far below 2^53")]
fn cpu_percent(before: &TreeUsage, after: &TreeUsage) -> Option<f64> {
    let used = after.cpu_ms.saturating_sub(before.cpu_ms);
    let passed = after.at.millis_since(before.at);
    (passed > 0).then(|| (used as f64 * 1000.0 / passed as f64).round() / 10.0)
}

#[expect(clippy::cast_precision_loss, reason = "a size in KiB is far below 2^53")]
fn mebibytes(kib: u64) -> f64 {
    (kib as f64 / 1024.0 * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use nodejobs_core::time::BootTime;

    use super::*;

    fn look(cpu_ms: u64, at: u64) -> TreeUsage {
        TreeUsage { memory_kib: 0, cpu_ms, at: BootTime(at) }
    }

    #[test]
    fn processor_use_is_what_was_used_over_what_has_passed() {
        assert_eq!(cpu_percent(&look(1_000, 0), &look(1_300, 200)), Some(150.0));
        assert_eq!(cpu_percent(&look(1_000, 0), &look(900, 200)), Some(0.0), "somebody has ended");
        assert_eq!(cpu_percent(&look(0, 5), &look(0, 5)), None, "nothing has passed");
        assert_eq!((mebibytes(100 * 1024), mebibytes(51)), (100.0, 0.0));
    }
}
