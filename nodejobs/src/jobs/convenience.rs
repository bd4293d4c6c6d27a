//! Several calls in one: run to the end, stop everything, go through a whole listing.

use std::time::Duration;

use nodejobs_core::JobId;
use nodejobs_core::record::JobRecord;
use nodejobs_core::spec::JobSpec;

use super::Jobs;
use crate::api::{JobPage, ListQuery, LogQuery, StopAnswer, StopRequest};
use crate::error::Error;

/// A job that has ended, with everything it wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct JobOutput {
    /// How it ended.
    pub record: JobRecord,
    /// What it wrote to descriptor 1, byte for byte.
    pub stdout: Vec<u8>,
    /// What it wrote to descriptor 2, byte for byte.
    pub stderr: Vec<u8>,
}

impl JobOutput {
    /// The job's id.
    pub fn id(&self) -> &JobId {
        &self.record.self_id
    }

    /// What a shell would show: the exit code, or 128 and the number of the signal that ended it. `None` if there is
    /// neither: it never started, or nobody could see its end. [`JobRecord::status`] says which.
    pub fn code(&self) -> Option<i32> {
        Some(self.record.exit_status()?.shell_code())
    }

    /// Whether it is `finished`: ended by itself with one of its
    /// [`success_codes`](nodejobs_core::spec::JobSpec::success_codes).
    pub fn success(&self) -> bool {
        self.record.status == nodejobs_core::Status::Finished
    }

    /// The process id it had; `None` if it never started.
    pub fn pid(&self) -> Option<u32> {
        self.record.last_pid
    }

    /// How long it ran, to the millisecond; `None` if it never started.
    pub fn duration(&self) -> Option<Duration> {
        self.record.runtime_ms.map(Duration::from_millis)
    }
}

/// The pages of a listing, one after the other.
#[must_use = "nothing is read before `next` or `all` is awaited"]
pub struct JobPages<'a> {
    jobs: &'a Jobs,
    query: ListQuery,
    ended: bool,
}

impl JobPages<'_> {
    /// The next page; `None` after the last. A page may be empty only if it is the only one.
    ///
    /// # Errors
    /// When the store cannot be read; the same page can be asked for again.
    pub async fn next(&mut self) -> Result<Option<JobPage>, Error> {
        if self.ended {
            return Ok(None);
        }
        let page = self.jobs.list_status(&self.query).await?;
        match page.next {
            Some(after) => self.query.after = Some(after),
            None => self.ended = true,
        }
        Ok(Some(page))
    }

    /// The jobs of all pages that are left, in memory.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn all(mut self) -> Result<Vec<JobRecord>, Error> {
        let mut records = Vec::new();
        while let Some(page) = self.next().await? {
            records.extend(page.jobs);
        }
        Ok(records)
    }
}

impl Jobs {
    /// Runs a job, waits for its end, and gives all that is known then: code, outputs, process id, run time, id.
    ///
    /// It is a job like any other: it goes on if the future is dropped or the process dies, and
    /// [`wait`](Self::wait) with its id finds its end. Outputs are read into memory; see [`bind`](Self::bind) for those
    /// that may be large.
    ///
    /// ```standalone_crate
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # nodejobs::serve_keeper_if_asked();
    /// # let directory = tempfile::tempdir()?;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// # let jobs = nodejobs::Jobs::open(directory.path().join("jobs")).await?;
    /// use nodejobs::spec::{Command, JobSpec};
    ///
    /// let spec = JobSpec::new(Command::shell("echo hi; echo oops >&2; exit 3"), "/");
    /// let output = jobs.run_and_wait(spec.context(nodejobs::capture_context()?)).await?;
    /// assert_eq!((output.code(), output.success()), (Some(3), false));
    /// assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"hi\n"[..], &b"oops\n"[..]));
    /// println!("{} was process {:?} for {:?}", output.id(), output.pid(), output.duration());
    /// # jobs.close().await;
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run), [`wait`](Self::wait) and [`job_logs`](Self::job_logs). A job that ends badly is no error.
    pub async fn run_and_wait(&self, spec: JobSpec) -> Result<JobOutput, Error> {
        let job = self.run(spec).await?;
        let record = self.wait(job.self_id.as_str()).await?;
        let query = LogQuery { attempt: Some(record.attempt), ..LogQuery::default() };
        let logs = self.job_logs(record.self_id.as_str(), &query).await?;
        Ok(JobOutput { record, stdout: logs.stdout, stderr: logs.stderr })
    }

    /// Ends all jobs that have not ended, within one grace: each gets its own stop signal and has its own grace.
    /// [`StopAnswer::stopped`] counts them.
    ///
    /// # Errors
    /// When it cannot be carried out; what concerns one job is in its result, such as survivors.
    pub async fn stop_all(&self) -> Result<StopAnswer, Error> {
        self.stop_with(StopRequest { all: true, ..StopRequest::default() }).await
    }

    /// The jobs that match, page by page, as many as there are; [`ListQuery::limit`] is the size of a page.
    ///
    /// Jobs that come or go meanwhile make no other job appear twice or not at all.
    ///
    /// ```no_run
    /// # async fn example(jobs: nodejobs::Jobs) -> Result<(), nodejobs::Error> {
    /// use nodejobs::api::ListQuery;
    ///
    /// let mut pages = jobs.pages(ListQuery::default());
    /// while let Some(page) = pages.next().await? {
    ///     for job in page.jobs {
    ///         println!("{} {}", job.self_id, job.status);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn pages(&self, query: ListQuery) -> JobPages<'_> {
        JobPages { jobs: self, query, ended: false }
    }
}
