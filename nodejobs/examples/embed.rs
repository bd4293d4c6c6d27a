//! A program that embeds nodejobs, with its own executable as keeper.
//!
//! ```text
//! cargo run --example embed -- /tmp/embed-jobs sh -c 'sleep 3; echo done; exit 7'
//! ```
//! runs a command as a job and waits for it. Kill the program meanwhile, and run it again, with or without a command:
//! the job runs on, and its true outcome is there.

use std::process::ExitCode;

use nodejobs::api::{ListQuery, LogQuery};
use nodejobs::record::JobRecord;
use nodejobs::spec::{Command, JobSpec};
use nodejobs::{Error, Jobs};

// Visible to the test that is this program: `nodejobs/tests/embed.rs`.
pub(crate) fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    // Before anything else: this process may have been started to be the keeper.
    nodejobs::serve_keeper_if_asked();
    let mut arguments = std::env::args().skip(1);
    let data_dir = arguments.next().ok_or("usage: embed DATA_DIR [COMMAND…]")?;
    let command: Vec<String> = arguments.collect();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let jobs = Jobs::open(&data_dir).await?;
        let known = jobs.pages(ListQuery::default()).all().await?;
        for job in &known {
            tell("known", &jobs, job).await?;
        }
        if !command.is_empty() {
            let cwd = std::env::current_dir()?.display().to_string();
            let spec = JobSpec::new(Command::argv(command), cwd).context(nodejobs::capture_context()?);
            let job = jobs.run(spec).await?;
            println!("started: {}", job.self_id);
            tell("ended", &jobs, &jobs.wait(job.self_id.as_str()).await?).await?;
        }
        for job in known.iter().filter(|job| !job.status.is_terminal()) {
            tell("ended", &jobs, &jobs.wait(job.self_id.as_str()).await?).await?;
        }
        jobs.close().await;
        Ok(ExitCode::SUCCESS)
    })
}

async fn tell(what: &str, jobs: &Jobs, job: &JobRecord) -> Result<(), Error> {
    let logs = jobs.job_logs(job.self_id.as_str(), &LogQuery::default()).await?;
    let stdout = String::from_utf8_lossy(&logs.stdout);
    println!("{what}: {} {} {:?} {stdout:?}", job.self_id, job.status, job.exit_code);
    Ok(())
}
