//! A program that embeds nodejobs, with its own executable as keeper.
//!
//! ```text
//! cargo run --example embed -- /tmp/embed-jobs sleep 3
//! ```
//! runs a command as a job and waits for it. Kill the program meanwhile, and run it again: the job runs on, and its true
//! outcome is there.

use std::process::ExitCode;

use nodejobs::Jobs;
use nodejobs::api::ListQuery;
use nodejobs::spec::{Command, JobSpec};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    // Before anything else: this process may have been started to be the keeper.
    nodejobs::serve_keeper_if_asked();
    let mut arguments = std::env::args().skip(1);
    let data_dir = arguments.next().ok_or("usage: embed DATA_DIR [COMMAND…]")?;
    let command: Vec<String> = arguments.collect();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let jobs = Jobs::open(&data_dir).await?;
        for job in jobs.list_status(&ListQuery::default()).await?.jobs {
            println!("known: {} {} {:?}", job.self_id, job.status, job.exit_code);
        }
        if !command.is_empty() {
            let cwd = std::env::current_dir()?.display().to_string();
            let mut spec = JobSpec::new(Command::argv(command), cwd);
            spec.context = nodejobs::capture_context()?;
            let job = jobs.run(spec).await?;
            println!("started: {}", job.self_id);
            let ended = jobs.wait(job.self_id.as_str()).await?;
            println!("ended: {} {} {:?}", ended.self_id, ended.status, ended.exit_code);
        }
        jobs.close().await;
        Ok(ExitCode::SUCCESS)
    })
}
